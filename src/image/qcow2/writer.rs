//! A new qcow2 image, written front to back.
//!
//! | host order | what |
//! |---|---|
//! | 0 | header (written last) |
//! | 1.. | L1 table |
//! | then | guest data in guest order: packed streams, plain clusters in runs |
//! | then | L2 tables, bitmaps, refcount blocks, refcount table |
//!
//! The header and L1 table stand where every reader looks first; all other
//! metadata is one run at the end, so that nothing interrupts the data and
//! each table is written once.
//!
//! Knows the calls of [`ImageWriter`] alone. Must not read a source.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use byteorder::{BigEndian, ByteOrder};

use super::allocator::Allocator;
use super::format::entry::{
    COPIED, L1Entry, L2Entry, SUBCLUSTERS, ZERO, join_bitmap, split_bitmap,
};
use super::format::features::{self, known_names};
use super::format::header::{BitmapsExtension, Encryption, V2_LENGTH, V3_LENGTH};
use super::format::{CompressedDescriptor, Geometry, Header, HostOffset, RefcountOrder};
use super::gather::{Batch, Pending, write_table};
use crate::codec::CompressionType;
use crate::error::{Error, Result};
use crate::image::options::{Preallocation, Qcow2Options};
use crate::store::WriteAt;
use crate::writer::{ImageWriter, Origin, StoredCluster, Tail, Written};

/// Streams remembered to find later ones that are the same; bounds memory at some 40 MiB.
const MAX_REMEMBERED: usize = 1 << 20;
/// Bytes of plain clusters set aside at once among streams; tables take what is left in the end.
const RESERVE_BYTES: u64 = 256 << 10;

/// Writes one image; see the module's documentation for the layout.
#[derive(Debug)]
pub(crate) struct Writer {
    store: Arc<dyn WriteAt>,
    /// External data file: guest offsets are its host offsets.
    data: Option<Arc<dyn WriteAt>>,
    /// The store read as zeros before the first write.
    fresh: bool,
    header: Header,
    geometry: Geometry,
    allocator: Allocator,
    /// L2 tables by L1 index, in host byte order.
    tables: Vec<Option<Box<[u64]>>>,
    remembered: HashMap<(u32, u64), u64>,
    shared_clusters: u64,
    /// Streams of equal length and checksum count as equal: for stores that cannot be read back.
    trusts_digests: bool,
    /// Bitmaps to append, already encoded.
    bitmaps: Vec<super::bitmaps::NewBitmap>,
}

impl Writer {
    /// A writer of an image of `virtual_size` bytes into `store`, whose old contents count for nothing.
    ///
    /// `fresh` says that `store` (and `data`) read as zeros everywhere; `compresses` that most clusters will be
    /// compressed.
    ///
    /// # Errors
    /// Options that contradict each other; a header that does not fit its cluster; a virtual size beyond the L1 limit.
    pub(crate) fn new(
        store: Arc<dyn WriteAt>,
        data: Option<Arc<dyn WriteAt>>,
        virtual_size: u64,
        options: &Qcow2Options,
        fresh: bool,
        compresses: bool,
    ) -> Result<Self> {
        let header = new_header(virtual_size, options)?;
        let geometry = header.geometry();
        let bits = header.cluster_bits;
        let reserve = if compresses {
            (RESERVE_BYTES >> bits.bits()).max(2)
        } else {
            0
        };
        let mut allocator = Allocator::new(bits, header.refcount_order, reserve);
        let l1_entries = usize::try_from(header.l1_size).unwrap_or(0);
        allocator.append(1 + bits.clusters_for(u64::from(header.l1_size) * 8));
        // Fails now rather than after the data is written.
        header
            .encode()
            .map_err(|error| Error::corrupt("the header cannot be written", error))?;
        Ok(Self {
            store,
            data,
            fresh,
            header,
            geometry,
            allocator,
            tables: vec![None; l1_entries],
            remembered: HashMap::new(),
            shared_clusters: 0,
            trusts_digests: false,
            bitmaps: Vec::new(),
        })
    }

    /// Takes streams of equal length and checksum for equal, without reading them back.
    #[must_use]
    pub(crate) fn trusting_digests(mut self) -> Self {
        self.trusts_digests = true;
        self
    }

    /// Appends a persistent bitmap to the image; call before [`ImageWriter::finish`].
    pub(crate) fn add_bitmap(&mut self, bitmap: super::bitmaps::NewBitmap) {
        self.bitmaps.push(bitmap);
    }

    fn has_backing(&self) -> bool {
        self.header.backing_file.is_some()
    }

    fn entry_words(&self) -> usize {
        if self.geometry.extended_l2 { 2 } else { 1 }
    }

    /// The words of the entry of guest offset `guest`; its table is made when missing.
    fn entry(&mut self, guest: u64) -> Result<&mut [u64]> {
        let cluster = guest >> self.geometry.cluster_bits.bits();
        let entries = self.geometry.l2_entries();
        let words = self.entry_words();
        let slot = usize::try_from(cluster / entries)
            .ok()
            .and_then(|i| self.tables.get_mut(i));
        let slot = slot.ok_or_else(|| Error::usage("a write behind the virtual disk's end"))?;
        let table_words = self.geometry.cluster_bits.len() / 8;
        let table = slot.get_or_insert_with(|| vec![0; table_words].into());
        let at = usize::try_from(cluster % entries).unwrap_or(0) * words;
        Ok(&mut table[at..at + words])
    }

    /// The host offset of the plain cluster at `guest`, allocated at its first use.
    fn plain_cluster(&mut self, guest: u64) -> Result<u64> {
        let bits = self.geometry.cluster_bits;
        let external = self.data.is_some();
        let word = self.entry(guest)?[0];
        if word & COPIED != 0 {
            return Ok(word & super::format::entry::OFFSET_MASK);
        }
        let host = if external {
            guest & !(bits.size() - 1)
        } else {
            self.allocator.plain() << bits.bits()
        };
        self.entry(guest)?[0] = L2Entry::data(HostOffset(host)).word;
        Ok(host)
    }

    /// Marks the subclusters of `within` (bytes of one cluster) as allocated, or as zero.
    fn mark_subclusters(&mut self, guest: u64, within: Range<u64>, zero: bool) -> Result<()> {
        let size = self.geometry.subcluster_size();
        let mask = (within.start / size..within.end.div_ceil(size))
            .filter_map(|index| u32::try_from(index).ok())
            .filter(|&index| index < SUBCLUSTERS)
            .fold(0u32, |mask, index| mask | 1 << index);
        let hides = self.has_backing();
        let entry = self.entry(guest)?;
        let (allocated, mut zeros) = split_bitmap(entry[1]);
        if entry[1] == 0 && !zero && hides {
            // What is left out of a cluster that is written is zeros, whatever stands behind it.
            zeros = u32::MAX;
        }
        entry[1] = if zero {
            join_bitmap(allocated, zeros | (mask & !allocated))
        } else {
            join_bitmap(allocated | mask, zeros & !mask)
        };
        Ok(())
    }

    fn data_store(&self) -> &dyn WriteAt {
        self.data.as_deref().unwrap_or(&*self.store)
    }

    fn write_run(
        &self,
        bytes: &[u8],
        run: Range<usize>,
        host: u64,
        origin: Option<Origin<'_>>,
    ) -> Result<()> {
        if let Some(origin) = origin
            && origin.share(self.data_store(), run.start as u64, host, run.len() as u64)?
        {
            return Ok(());
        }
        self.data_store().write_all_at(&bytes[run], host)
    }

    /// An earlier stream with the same bytes, after one more reference to it has been counted.
    fn find_same(&mut self, digest: u32, bytes: &[u8]) -> Result<Option<u64>> {
        let length = bytes.len() as u64;
        let Some(&host) = self.remembered.get(&(digest, length)) else {
            return Ok(None);
        };
        // A checksum is a hint; only the bytes decide.
        let equal = self.trusts_digests || {
            let mut stored = vec![0; bytes.len()];
            self.store.read_exact_at(&mut stored, host)?;
            stored == bytes
        };
        Ok((equal && self.allocator.share(host, length)).then_some(host))
    }

    fn descriptor(&self, host: u64, length: usize) -> Result<u64> {
        CompressedDescriptor::encode(HostOffset(host), length as u64, self.geometry.cluster_bits)
            .ok_or_else(|| {
                Error::unsupported("the image outgrows what compressed clusters can address")
                    .with_remedy("use smaller clusters")
                    .at_host(host)
            })
    }

    /// Finds room for streams that follow each other in the arena.
    fn place(
        &mut self,
        row: &[StoredCluster],
        arena: &[u8],
        pending: &mut Pending,
        is_whole: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<()> {
        // The last one has nothing to lean on: unless its end is seen, all that it may reach is stored.
        let mut end = row.len();
        while end > 0 && row[end - 1].tail.is_some() && !is_whole(row[end - 1].bytes(arena)) {
            end -= 1;
        }
        let (row, incomplete) = row.split_at(end);
        if !self.place_row(row, arena, pending)? {
            for stream in row {
                let bytes = stream.bytes(arena);
                let reach = stream
                    .tail
                    .filter(|_| !is_whole(bytes))
                    .map(|tail| tail.bound);
                self.place_alone(stream, reach.unwrap_or(stream.length), arena, pending)?;
            }
        }
        for stream in incomplete {
            let reach = stream.tail.map_or(stream.length, |tail| tail.bound);
            self.place_alone(stream, reach, arena, pending)?;
        }
        Ok(())
    }

    /// Finds room for all of `row` in one piece; false when that is not possible, or there is nothing to gain.
    fn place_row(
        &mut self,
        row: &[StoredCluster],
        arena: &[u8],
        pending: &mut Pending,
    ) -> Result<bool> {
        let (Some(first), Some(last)) = (row.first(), row.last()) else {
            return Ok(true);
        };
        let Some(Tail { phase, .. }) = first.tail.filter(|_| row.len() > 1) else {
            return Ok(false);
        };
        let reach = |stream: &StoredCluster| match stream.tail {
            Some(tail) if stream.start != last.start => tail.bound,
            _ => stream.length,
        };
        let streams: Vec<_> = row
            .iter()
            .map(|stream| ((stream.start - first.start) as u64, reach(stream) as u64))
            .collect();
        let length = last.start + last.length - first.start;
        // What follows the row will be other bytes: nothing in it may reach that far.
        let in_row = |(distance, reach): &(u64, u64)| distance + reach <= length as u64;
        if !streams.iter().all(in_row) {
            return Ok(false);
        }
        let Some(host) = self.allocator.run(&streams, length as u64, phase) else {
            return Ok(false);
        };
        pending.push(&*self.store, arena, first.start, length, host)?;
        for (stream, (distance, reach)) in row.iter().zip(streams) {
            let reach = usize::try_from(reach).unwrap_or(0);
            self.entry(stream.guest)?[0] = self.descriptor(host + distance, reach)?;
            self.remember(stream, host + distance);
        }
        Ok(true)
    }

    /// Stores one stream with `length` bytes from its start on.
    fn place_alone(
        &mut self,
        stream: &StoredCluster,
        length: usize,
        arena: &[u8],
        pending: &mut Pending,
    ) -> Result<()> {
        let host = self.allocator.stream(length as u64);
        pending.push(&*self.store, arena, stream.start, length, host)?;
        self.entry(stream.guest)?[0] = self.descriptor(host, length)?;
        if length == stream.length {
            self.remember(stream, host);
        }
        Ok(())
    }

    fn remember(&mut self, stream: &StoredCluster, host: u64) {
        if self.remembered.len() < MAX_REMEMBERED {
            self.remembered
                .entry((stream.digest, stream.length as u64))
                .or_insert(host);
        }
    }

    fn write_tables(&mut self) -> Result<Vec<u64>> {
        let bits = self.geometry.cluster_bits;
        let mut l1 = vec![0; self.tables.len()];
        let mut batch = Batch::new(bits.len(), self.fresh);
        for (index, table) in std::mem::take(&mut self.tables).into_iter().enumerate() {
            let Some(table) = table.filter(|table| table.iter().any(|&word| word != 0)) else {
                continue;
            };
            let host = self.allocator.metadata() << bits.bits();
            l1[index] = L1Entry::to_table(HostOffset(host)).0;
            batch.push_words(&*self.store, host, &table)?;
        }
        batch.flush(&*self.store)?;
        Ok(l1)
    }

    fn write_bitmaps(&mut self) -> Result<()> {
        let bitmaps = std::mem::take(&mut self.bitmaps);
        if bitmaps.is_empty() {
            return Ok(());
        }
        let bits = self.geometry.cluster_bits;
        let mut entries = Vec::new();
        for bitmap in bitmaps {
            let (entry, _) = bitmap.write(&*self.store, bits, |clusters| {
                self.allocator.append(clusters) << bits.bits()
            })?;
            entries.push(entry);
        }
        let directory = super::format::bitmap::encode_directory(&entries);
        let directory_size = directory.len() as u64;
        let directory_offset =
            self.allocator.append(bits.clusters_for(directory_size)) << bits.bits();
        self.store.write_all_at(&directory, directory_offset)?;
        self.header.bitmaps = Some(BitmapsExtension {
            nb_bitmaps: u32::try_from(entries.len()).unwrap_or(u32::MAX),
            directory_size,
            directory_offset,
        });
        self.header.autoclear_features |= features::BITMAPS_CONSISTENT;
        Ok(())
    }

    fn write_refcounts(&mut self) -> Result<()> {
        let bits = self.geometry.cluster_bits;
        let order = self.header.refcount_order;
        let (blocks, table) = self.allocator.refcount_metadata(order);
        let table_clusters = table.end - table.start;
        let per_block = usize::try_from(order.entries_per_block(bits)).unwrap_or(usize::MAX);
        let mut batch = Batch::new(bits.len(), self.fresh);
        let mut words = Vec::new();
        for (number, counts) in blocks
            .into_iter()
            .zip(self.allocator.counts().chunks(per_block))
        {
            let host = number << bits.bits();
            let block = batch.push(&*self.store, host)?;
            for (index, &count) in counts.iter().enumerate() {
                order
                    .store(block, index, count.into())
                    .ok_or_else(too_large)?;
            }
            words.push(host);
        }
        batch.flush(&*self.store)?;
        let table_bytes = usize::try_from(table_clusters).unwrap_or(0) * bits.len();
        words.resize(table_bytes / 8, 0);
        let table_offset = table.start << bits.bits();
        write_table(&*self.store, &big_endian(&words), table_offset, self.fresh)?;
        self.header.refcount_table_offset = table_offset;
        self.header.refcount_table_clusters =
            u32::try_from(table_clusters).map_err(|_| too_large())?;
        // The limit that readers put on the table's length.
        if (table_clusters << bits.bits()) > super::format::header::MAX_REFCOUNT_TABLE_BYTES {
            return Err(too_large());
        }
        Ok(())
    }

    /// Gives every guest cluster its host cluster, as `preallocation` other than off asks for.
    ///
    /// # Errors
    /// The host has no space, or cannot reserve it.
    pub(crate) fn preallocate(&mut self, how: Preallocation) -> Result<()> {
        if how == Preallocation::Off {
            return Ok(());
        }
        let bits = self.geometry.cluster_bits;
        let size = self.header.size;
        let start = self.allocator.end() << bits.bits();
        let mut guest = 0;
        while guest < size {
            // Extended L2 keeps its subclusters unallocated: a backing file still shows through.
            self.plain_cluster(guest)?;
            guest += bits.size();
        }
        let range = match &self.data {
            Some(data) => {
                data.set_len(size)?;
                0..size
            }
            None => start..self.allocator.end() << bits.bits(),
        };
        let store = self.data_store();
        match how {
            Preallocation::Off | Preallocation::Metadata => Ok(()),
            Preallocation::Falloc => store.preallocate(range),
            Preallocation::Full => write_zero_bytes(store, range),
        }
    }
}

fn too_large() -> Error {
    Error::unsupported("the image outgrows its refcount table")
        .with_remedy("use larger clusters or narrower reference counts")
}

fn big_endian(words: &[u64]) -> Vec<u8> {
    let mut bytes = vec![0; words.len() * 8];
    BigEndian::write_u64_into(words, &mut bytes);
    bytes
}

/// Writes zeros, so that host space is really there.
pub(crate) fn write_zero_bytes(store: &dyn WriteAt, range: Range<u64>) -> Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut at = range.start;
    while at < range.end {
        let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
        let part = &zeros[..left.min(zeros.len())];
        store.write_all_at(part, at)?;
        at += part.len() as u64;
    }
    Ok(())
}

fn new_header(virtual_size: u64, options: &Qcow2Options) -> Result<Header> {
    let cluster_bits = options.cluster_bits()?;
    let external = options.data_file.is_some();
    let mut incompatible_features = 0;
    if external {
        incompatible_features |= features::EXTERNAL_DATA;
    }
    if options.compression_type != CompressionType::Zlib {
        incompatible_features |= features::COMPRESSION_TYPE;
    }
    if options.extended_l2 {
        incompatible_features |= features::EXTENDED_L2;
    }
    let version3 = options.version >= 3;
    let (backing_file, backing_format) = options.backing.clone().unzip();
    let mut header = Header {
        version: options.version,
        cluster_bits,
        size: virtual_size,
        crypt_method: Encryption::None,
        l1_size: 0,
        l1_table_offset: cluster_bits.size(),
        refcount_table_offset: 0,
        refcount_table_clusters: 0,
        nb_snapshots: 0,
        snapshots_offset: 0,
        incompatible_features,
        compatible_features: if options.lazy_refcounts {
            features::LAZY_REFCOUNTS
        } else {
            0
        },
        autoclear_features: if options.data_file_raw {
            features::RAW_EXTERNAL_DATA
        } else {
            0
        },
        refcount_order: if version3 {
            options.refcount_order()
        } else {
            RefcountOrder::DEFAULT
        },
        header_length: if version3 { V3_LENGTH } else { V2_LENGTH },
        compression_type: options.compression_type.to_header(),
        backing_file,
        backing_format,
        data_file: options.data_file.clone(),
        // QEMU leaves the table out where it would fill a small first cluster.
        feature_names: (version3 && cluster_bits.size() > 4096).then(known_names),
        bitmaps: None,
        crypto_header: None,
        unknown_extensions: Vec::new(),
    };
    let entries = header.geometry().l1_entries(virtual_size);
    if entries * 8 > super::format::header::MAX_L1_BYTES {
        return Err(Error::usage(format!(
            "{virtual_size} bytes are too many for clusters of {} bytes",
            cluster_bits.size()
        ))
        .with_remedy("use larger clusters"));
    }
    header.l1_size = u32::try_from(entries).unwrap_or(u32::MAX);
    Ok(header)
}

impl ImageWriter for Writer {
    fn cluster_size(&self) -> u64 {
        self.geometry.cluster_bits.size()
    }

    fn skips_zeros(&self) -> bool {
        self.fresh
    }

    fn write_data(&mut self, guest: u64, bytes: &[u8], origin: Option<Origin<'_>>) -> Result<()> {
        let bits = self.geometry.cluster_bits;
        // Bytes whose clusters follow each other on the host go out with one write.
        let (mut run, mut run_host) = (0..0, 0);
        let mut done = 0;
        while done < bytes.len() {
            let at = guest + done as u64;
            let within = bits.offset_in(at);
            let room = usize::try_from(bits.size() - within).unwrap_or(0);
            let length = (bytes.len() - done).min(room);
            let host = self.plain_cluster(at)? + within;
            if self.geometry.extended_l2 {
                self.mark_subclusters(at, within..within + length as u64, false)?;
            }
            if run_host + run.len() as u64 != host {
                self.write_run(bytes, run, run_host, origin)?;
                (run, run_host) = (done..done, host);
            }
            run.end += length;
            done += length;
        }
        self.write_run(bytes, run, run_host, origin)
    }

    fn write_compressed(
        &mut self,
        clusters: &[StoredCluster],
        arena: &[u8],
        is_whole: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<()> {
        let mut pending = Pending::default();
        // Streams copied without decoding lean on the one behind them: they are placed together.
        let mut row = 0..0;
        for (index, cluster) in clusters.iter().enumerate() {
            let mut behind = clusters[..index]
                .last()
                .is_some_and(|last| last.start + last.length == cluster.start && !row.is_empty());
            // One that waits for its place in the row is as good to share as one that has it.
            let waits = clusters[row.clone()]
                .iter()
                .any(|other| (other.digest, other.length) == (cluster.digest, cluster.length));
            behind &= !waits;
            if !behind {
                self.place(&clusters[row], arena, &mut pending, is_whole)?;
                row = index..index;
            }
            let bytes = cluster.bytes(arena);
            if self
                .remembered
                .contains_key(&(cluster.digest, cluster.length as u64))
            {
                pending.flush(&*self.store, arena)?;
                let separable = (cluster.tail.is_none() || is_whole(bytes))
                    && (!behind || is_whole(clusters[index - 1].bytes(arena)));
                if separable && let Some(host) = self.find_same(cluster.digest, bytes)? {
                    self.place(&clusters[row], arena, &mut pending, is_whole)?;
                    row = 0..0;
                    self.shared_clusters += 1;
                    self.entry(cluster.guest)?[0] = self.descriptor(host, cluster.length)?;
                    continue;
                }
            }
            row.end = index + 1;
            if cluster.tail.is_none() {
                self.place(&clusters[row], arena, &mut pending, is_whole)?;
                row = 0..0;
            }
        }
        self.place(&clusters[row], arena, &mut pending, is_whole)?;
        pending.flush(&*self.store, arena)
    }

    fn write_zeros(&mut self, range: Range<u64>) -> Result<()> {
        if let (Some(data), false) = (&self.data, self.fresh) {
            data.punch_hole(range.clone())?;
        }
        if !self.has_backing() {
            return Ok(());
        }
        let bits = self.geometry.cluster_bits;
        let mut at = range.start;
        while at < range.end {
            let within = bits.offset_in(at);
            let length = (range.end - at).min(bits.size() - within);
            if self.geometry.extended_l2 {
                self.mark_subclusters(at, within..within + length, true)?;
            } else if self.geometry.version < 3 {
                // Version 2 has no zero clusters: hiding a backing file takes a cluster of zeros.
                let host = self.plain_cluster(at)? + within;
                if !self.fresh {
                    write_zero_bytes(self.data_store(), host..host + length)?;
                }
            } else {
                let entry = self.entry(at)?;
                if entry[0] & COPIED == 0 {
                    entry[0] = ZERO;
                }
            }
            at += length;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Written> {
        let bits = self.geometry.cluster_bits;
        if let Some(data) = &self.data
            && data.len()? < self.header.size
        {
            data.set_len(self.header.size)?;
        }
        let l1 = self.write_tables()?;
        self.store
            .write_all_at(&big_endian(&l1), self.header.l1_table_offset)?;
        self.write_bitmaps()?;
        self.write_refcounts()?;
        let file_length = self.allocator.end() << bits.bits();
        // Readers that want whole clusters find them: the file ends with one.
        self.store.set_len(file_length)?;
        let mut header = self
            .header
            .encode()
            .map_err(|error| Error::corrupt("the header cannot be written", error))?;
        if !self.fresh {
            header.resize(bits.len(), 0);
        }
        self.store.write_all_at(&header, 0)?;
        Ok(Written {
            file_length,
            shared_clusters: self.shared_clusters,
        })
    }
}
