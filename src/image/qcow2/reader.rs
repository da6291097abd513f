//! One layer of guest contents: the walk from guest offsets through L1 and L2
//! tables to extents, and the reading of what they point to.
//!
//! Knows this image alone: a range that nothing is allocated for is reported,
//! never resolved. Must not write, and must not open a file.

use std::ops::Range;
use std::sync::Arc;

use super::format::entry::{L1Entry, L2Entry, L2Mapping, OFFSET_MASK, SUBCLUSTERS};
use super::format::{CompressedDescriptor, Corruption, Geometry};
use super::l2_cache::{L2Cache, Table};
use super::open::{Qcow2File, check_l2_table, corrupt};
use crate::codec::{CompressionType, Decoder};
use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentKind};
use crate::source::Stream;
use crate::store::ReadAt;

/// Bytes read at once when neighbouring compressed clusters are read together.
const MAX_SPAN: u64 = 4 << 20;
/// Bytes between two compressed clusters that are read along rather than skipped, but never more than a cluster: the
/// gaps must not outgrow what is wanted.
const MAX_GAP: u64 = 64 << 10;

/// The active disk or one internal snapshot of a qcow2 file.
#[derive(Debug)]
pub(crate) struct Layer {
    store: Arc<dyn ReadAt>,
    /// Where plain clusters are: the image itself, or its external data file.
    data: Arc<dyn ReadAt>,
    data_length: u64,
    file_length: u64,
    geometry: Geometry,
    compression: CompressionType,
    encryption: Option<&'static str>,
    virtual_size: u64,
    l1: Table,
    cache: L2Cache,
}

/// What one L2 entry says about a part of its cluster.
struct Piece {
    kind: ExtentKind,
    host: Option<u64>,
    end: u64,
}

impl Layer {
    pub(super) fn new(
        file: &Qcow2File,
        l1: Table,
        virtual_size: u64,
        data: Option<Arc<dyn ReadAt>>,
    ) -> Self {
        let data = data.unwrap_or_else(|| Arc::clone(&file.store));
        Self {
            data_length: data.len().unwrap_or(0),
            data,
            store: Arc::clone(&file.store),
            file_length: file.file_length,
            geometry: file.header.geometry(),
            compression: file.compression_type(),
            encryption: file.encryption(),
            virtual_size,
            l1,
            cache: L2Cache::new(file.header.cluster_bits.len()),
        }
    }

    /// Takes little memory from now on: the image is deep in a chain.
    pub(crate) fn keep_few_tables(&mut self) {
        self.cache.keep_few();
    }

    /// Bytes of the virtual disk.
    pub(crate) fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// Bytes of a cluster.
    pub(crate) fn cluster_size(&self) -> u64 {
        self.geometry.cluster_bits.size()
    }

    /// The image file, with header and tables.
    pub(crate) fn store(&self) -> &Arc<dyn ReadAt> {
        &self.store
    }

    /// The file with plain clusters: the same, or the external data file.
    pub(crate) fn data_store(&self) -> &Arc<dyn ReadAt> {
        &self.data
    }

    /// Whether guest data is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.encryption.is_some()
    }

    /// The extent at `range.start`, up to `range.end` or the end of its L2 table; ranges without a table go on over
    /// all their L1 entries.
    pub(crate) fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        let limit = range.end.min(self.virtual_size);
        let Some(table) = self.table_at(range.start)? else {
            return Ok(self.extent_without_table(range.start, limit));
        };
        let span = self.geometry.l2_span();
        let limit = limit.min((range.start / span + 1).saturating_mul(span));
        let mut extent = self.piece_at(&table, range.start)?;
        while extent.end() < limit {
            if extent.kind == ExtentKind::Unallocated && extent.host.is_none() {
                extent.length += self.empty_at(&table, extent.end());
                if extent.end() >= limit {
                    break;
                }
            }
            let next = self.piece_at(&table, extent.end())?;
            if !extent.absorb(&next) {
                break;
            }
        }
        Ok(extent.clipped(limit))
    }

    fn extent_without_table(&self, start: u64, limit: u64) -> Extent {
        let span = self.geometry.l2_span();
        let mut index = start / span + 1;
        while index.saturating_mul(span) < limit
            && self
                .l1_entry(index)
                .is_none_or(|entry| entry.0 & OFFSET_MASK == 0)
        {
            index += 1;
        }
        let end = index.saturating_mul(span).min(limit);
        Extent {
            start,
            length: end - start,
            kind: ExtentKind::Unallocated,
            host: None,
            depth: 0,
        }
    }

    fn l1_entry(&self, index: u64) -> Option<L1Entry> {
        self.l1
            .get(usize::try_from(index).ok()?)
            .copied()
            .map(L1Entry)
    }

    /// The L2 table for guest offset `guest`, if there is one.
    fn table_at(&self, guest: u64) -> Result<Option<Table>> {
        let Some(entry) = self.l1_entry(guest / self.geometry.l2_span()) else {
            return Ok(None);
        };
        let bits = self.geometry.cluster_bits;
        check_l2_table(&*self.store, bits, self.file_length, entry)
            .map_err(|error| error.at_guest(guest))?
            .map(|host| self.cache.load(&*self.store, host))
            .transpose()
    }

    /// Place of the entry for `guest` in its table.
    fn index_of(&self, guest: u64) -> usize {
        let bits = self.geometry.cluster_bits;
        let index = (guest >> bits.bits()) % self.geometry.l2_entries();
        usize::try_from(index).unwrap_or(usize::MAX)
    }

    /// Bytes of the clusters from `guest` on whose entries are all zero bits: nothing, in every version.
    ///
    /// Sparse images are mostly that, and it needs no decoding.
    fn empty_at(&self, table: &[u64], guest: u64) -> u64 {
        let words = if self.geometry.extended_l2 { 2 } else { 1 };
        let rest = &table[self.index_of(guest) * words..];
        let empty = rest.iter().take_while(|&&word| word == 0).count() / words;
        (empty as u64) << self.geometry.cluster_bits.bits()
    }

    fn entry_in(&self, table: &[u64], guest: u64) -> L2Entry {
        let index = self.index_of(guest);
        if self.geometry.extended_l2 {
            L2Entry {
                word: table[index * 2],
                bitmap: table[index * 2 + 1],
            }
        } else {
            L2Entry {
                word: table[index],
                bitmap: 0,
            }
        }
    }

    /// What the entry for `guest` says from there on.
    fn piece_at(&self, table: &[u64], guest: u64) -> Result<Extent> {
        let piece = self.decode(self.entry_in(table, guest), guest)?;
        let length = piece.end.min(self.virtual_size) - guest;
        Ok(Extent {
            start: guest,
            length,
            kind: piece.kind,
            host: piece.host,
            depth: 0,
        })
    }

    fn mapping(&self, entry: L2Entry, guest: u64) -> Result<L2Mapping> {
        let cluster = guest & !(self.geometry.cluster_bits.size() - 1);
        entry
            .decode(self.geometry, cluster)
            .map_err(|corruption| corrupt(&*self.store, corruption).at_guest(cluster))
    }

    fn decode(&self, entry: L2Entry, guest: u64) -> Result<Piece> {
        let bits = self.geometry.cluster_bits;
        let within = bits.offset_in(guest);
        let end = guest - within + bits.size();
        Ok(match self.mapping(entry, guest)? {
            L2Mapping::Unallocated => Piece {
                kind: ExtentKind::Unallocated,
                host: None,
                end,
            },
            L2Mapping::Zero { host } => Piece {
                kind: ExtentKind::Zero,
                host: host.map(|host| host.0 + within),
                end,
            },
            L2Mapping::Data { host } => {
                self.check_data(host.0, guest)?;
                Piece {
                    kind: ExtentKind::Data,
                    host: Some(host.0 + within),
                    end,
                }
            }
            L2Mapping::Compressed(_) => Piece {
                kind: ExtentKind::Compressed(self.compression),
                host: None,
                end,
            },
            L2Mapping::Subclusters {
                host,
                allocated,
                zero,
            } => {
                let size = self.geometry.subcluster_size();
                let index = u32::try_from(within / size).unwrap_or(SUBCLUSTERS - 1);
                let kind_of = |index: u32| match (allocated >> index & 1, zero >> index & 1) {
                    (1, _) => ExtentKind::Data,
                    (_, 1) => ExtentKind::Zero,
                    _ => ExtentKind::Unallocated,
                };
                let kind = kind_of(index);
                let run = (index..SUBCLUSTERS)
                    .take_while(|&i| kind_of(i) == kind)
                    .count() as u64;
                if let (ExtentKind::Data, Some(host)) = (kind, host) {
                    self.check_data(host.0, guest)?;
                }
                Piece {
                    kind,
                    host: host.map(|host| host.0 + within),
                    end: guest - within + (u64::from(index) + run) * size,
                }
            }
        })
    }

    /// A data cluster must start inside its file: what a truncated image has lost is not zeros.
    fn check_data(&self, host: u64, guest: u64) -> Result<()> {
        if host < self.data_length {
            return Ok(());
        }
        let corruption = Corruption::Region {
            what: "data cluster",
            offset: host,
            length: self.geometry.cluster_bits.size(),
            why: "behind the end of the file (truncated image?)",
        };
        Err(corrupt(&*self.data, corruption)
            .at_guest(guest)
            .at_host(host))
    }

    /// The descriptor of the compressed cluster at `guest`.
    fn descriptor(&self, guest: u64) -> Result<Option<CompressedDescriptor>> {
        let Some(table) = self.table_at(guest)? else {
            return Ok(None);
        };
        let L2Mapping::Compressed(descriptor) =
            self.mapping(self.entry_in(&table, guest), guest)?
        else {
            return Ok(None);
        };
        // A file may end within the last sector's cluster, but not before the stream starts.
        let slack_end = self
            .file_length
            .saturating_add(self.geometry.cluster_bits.size());
        if descriptor.host.0 >= self.file_length || descriptor.end() > slack_end {
            let corruption = Corruption::Region {
                what: "compressed cluster",
                offset: descriptor.host.0,
                length: descriptor.length,
                why: "behind the end of the file (truncated image?)",
            };
            return Err(corrupt(&*self.store, corruption)
                .at_guest(guest)
                .at_host(descriptor.host.0));
        }
        Ok(Some(descriptor))
    }

    fn refuse_encrypted(&self) -> Result<()> {
        let Some(how) = self.encryption else {
            return Ok(());
        };
        let error = Error::unsupported(format!(
            "the image is encrypted ({how}): its data cannot be read"
        ))
        .with_remedy("decrypt it first with `qemu-img convert --image-opts` and its secret");
        Err(match self.store.path() {
            Some(path) => error.at_path(path),
            None => error,
        })
    }

    /// A reader with its own buffers.
    pub(crate) fn reader(&self) -> LayerReader<'_> {
        LayerReader {
            layer: self,
            decoder: Decoder::new(),
            stored: Vec::new(),
            cluster: Vec::new(),
            cluster_at: None,
            wanted: Vec::new(),
        }
    }
}

/// Reads extents of one [`Layer`].
pub(crate) struct LayerReader<'a> {
    layer: &'a Layer,
    decoder: Decoder,
    /// Streams as stored.
    stored: Vec<u8>,
    /// The last cluster that was decoded for a part of it.
    cluster: Vec<u8>,
    cluster_at: Option<u64>,
    wanted: Vec<(CompressedDescriptor, u64)>,
}

impl LayerReader<'_> {
    /// Fills `buf` with the bytes of `extent`, of which it has the length; unallocated reads as zeros.
    pub(crate) fn read_extent(&mut self, extent: &Extent, buf: &mut [u8]) -> Result<()> {
        match (extent.kind, extent.host) {
            (ExtentKind::Zero | ExtentKind::Unallocated, _) => {
                buf.fill(0);
                Ok(())
            }
            (ExtentKind::Compressed(_), _) => {
                self.layer.refuse_encrypted()?;
                self.read_compressed(extent, buf)
            }
            (ExtentKind::Data, host) => {
                self.layer.refuse_encrypted()?;
                // QEMU lets a file end within its last cluster.
                self.layer
                    .data
                    .read_zero_filled(buf, host.unwrap_or(extent.start))
                    .map_err(|error| error.at_guest(extent.start))
            }
        }
    }

    /// Appends the streams of the compressed clusters in `guest` to `out` as they are stored.
    pub(crate) fn read_streams(
        &mut self,
        guest: Range<u64>,
        out: &mut Vec<u8>,
        streams: &mut Vec<Stream>,
    ) -> Result<()> {
        self.layer.refuse_encrypted()?;
        self.find_streams(guest)?;
        let mut rest = &self.wanted[..];
        while !rest.is_empty() {
            let (span_end, count) = span_of(rest, self.layer.cluster_size());
            let host = rest[0].0.host.0;
            let base = out.len();
            out.resize(base + length_of(span_end - host), 0);
            self.layer.store.read_zero_filled(&mut out[base..], host)?;
            for (index, (descriptor, guest)) in rest[..count].iter().enumerate() {
                let next = rest[index..]
                    .iter()
                    .find(|next| next.0.host > descriptor.host);
                streams.push(Stream {
                    guest: *guest,
                    start: base + length_of(descriptor.host.0 - host),
                    length: length_of(descriptor.length),
                    neighbour: next
                        .map(|next| length_of(next.0.host.0 - descriptor.host.0))
                        .filter(|&length| (length as u64) < descriptor.length),
                    phase: u16::try_from(descriptor.host.0 % 512).unwrap_or(0),
                });
            }
            rest = &rest[count..];
        }
        Ok(())
    }

    /// Looks up the streams of the clusters that `guest` touches, and sorts them by host offset.
    fn find_streams(&mut self, guest: Range<u64>) -> Result<()> {
        let cluster_size = self.layer.cluster_size();
        self.wanted.clear();
        let mut at = guest.start & !(cluster_size - 1);
        while at < guest.end {
            let descriptor = self.layer.descriptor(at)?.ok_or_else(|| {
                let corruption = Corruption::Truncated {
                    what: "run of compressed clusters",
                };
                corrupt(&*self.layer.store, corruption).at_guest(at)
            })?;
            self.wanted.push((descriptor, at));
            at = at.saturating_add(cluster_size);
        }
        // In host order, so that neighbours come with one read.
        self.wanted
            .sort_unstable_by_key(|(descriptor, guest)| (descriptor.host, *guest));
        Ok(())
    }

    fn read_compressed(&mut self, extent: &Extent, buf: &mut [u8]) -> Result<()> {
        self.find_streams(extent.range())?;
        let wanted = std::mem::take(&mut self.wanted);
        let mut rest = &wanted[..];
        while !rest.is_empty() {
            let (span_end, count) = span_of(rest, self.layer.cluster_size());
            let (span, tail) = rest.split_at(count);
            self.read_span(span, span_end, extent, buf)?;
            rest = tail;
        }
        self.wanted = wanted;
        Ok(())
    }

    /// Reads the streams of `span`, which end at `span_end`, at once and decodes each.
    fn read_span(
        &mut self,
        span: &[(CompressedDescriptor, u64)],
        span_end: u64,
        extent: &Extent,
        buf: &mut [u8],
    ) -> Result<()> {
        let start = span[0].0.host.0;
        let length = length_of(span_end - start);
        let mut stored = std::mem::take(&mut self.stored);
        if stored.len() < length {
            stored.resize(length, 0);
        }
        self.layer
            .store
            .read_zero_filled(&mut stored[..length], start)?;
        for &(descriptor, guest) in span {
            let from = length_of(descriptor.host.0 - start);
            let until = from + length_of(descriptor.length);
            self.decode_into(descriptor, guest, &stored[from..until], extent, buf)?;
        }
        self.stored = stored;
        Ok(())
    }

    /// Decodes the cluster at `guest` and puts what `extent` has of it into `buf`.
    fn decode_into(
        &mut self,
        descriptor: CompressedDescriptor,
        guest: u64,
        stored: &[u8],
        extent: &Extent,
        buf: &mut [u8],
    ) -> Result<()> {
        let cluster_size = self.layer.cluster_size();
        let codec = self.layer.compression;
        let fail = |error| {
            let error = Error::corrupt("a compressed cluster cannot be decoded", error)
                .at_guest(guest)
                .at_host(descriptor.host.0);
            match self.layer.store.path() {
                Some(path) => error.at_path(path),
                None => error,
            }
        };
        if guest >= extent.start && guest + cluster_size <= extent.end() {
            let at = length_of(guest - extent.start);
            let cluster = &mut buf[at..at + length_of(cluster_size)];
            self.decoder.decode(codec, stored, cluster).map_err(fail)?;
            return Ok(());
        }
        if self.cluster_at != Some(guest) {
            self.cluster_at = None;
            self.cluster.resize(length_of(cluster_size), 0);
            self.decoder
                .decode(codec, stored, &mut self.cluster)
                .map_err(fail)?;
            self.cluster_at = Some(guest);
        }
        let from = extent.start.max(guest);
        let until = extent.end().min(guest + cluster_size);
        buf[length_of(from - extent.start)..length_of(until - extent.start)]
            .copy_from_slice(&self.cluster[length_of(from - guest)..length_of(until - guest)]);
        Ok(())
    }
}

/// How many of the streams in `sorted` are read together, and where the last of them ends.
fn span_of(sorted: &[(CompressedDescriptor, u64)], cluster_size: u64) -> (u64, usize) {
    let max_gap = MAX_GAP.min(cluster_size);
    let start = sorted[0].0.host.0;
    let mut end = sorted[0].0.end();
    let mut count = 1;
    for (descriptor, _) in &sorted[1..] {
        let next_end = end.max(descriptor.end());
        if descriptor.host.0 > end + max_gap || next_end - start > MAX_SPAN {
            break;
        }
        end = next_end;
        count += 1;
    }
    (end, count)
}

/// A length of some clusters as a length in memory.
fn length_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
