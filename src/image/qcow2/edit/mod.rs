//! A qcow2 image that is changed where it is: it becomes larger, and bytes of its guest's disk are written.
//!
//! ```text
//! new clusters -> their counts -> sync -> L2 entries, L1 table, header -> sync -> counts of what was replaced -> sync
//! ```
//!
//! What is new is written and counted before anything refers to it, and what is replaced loses its count after nothing
//! does. Tables change in whole entries, the header in one sector. So an image whose writer ends at any moment reads as
//! before or as afterwards, cluster by cluster, with leaked clusters at worst.
//!
//! Knows tables and counts; must not know why anything is written.

mod counts;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

use super::Qcow2File;
use super::check::check;
use super::format::entry::{COPIED, L1Entry, L2Entry, L2Mapping, join_bitmap};
use super::format::features;
use super::format::header::MAX_L1_BYTES;
use super::format::{CompressedDescriptor, HostOffset};
use crate::error::{Error, Result};
use crate::image::check::CheckOptions;
use crate::source::Reader;
use crate::store::WriteAt;
use crate::zero::is_zero;
use counts::Counts;

/// Places of numbers in the header.
const SIZE_AT: usize = 24;
const L1_SIZE_AT: usize = 36;
const L1_AT: usize = 40;
const AUTOCLEAR_AT: usize = 88;
/// What a disk stores in one piece.
const SECTOR: usize = 512;

/// Refuses an image that is not to be changed like this.
///
/// # Errors
/// What has to be kept in step with its size is not kept here: persistent bitmaps, an external data file. It has errors.
pub(crate) fn refuse(file: &Qcow2File, threads: usize, cancel: &AtomicBool) -> Result<()> {
    let header = &file.header;
    super::punch::refuse(file)?;
    if header.bitmaps.is_some_and(|bitmaps| bitmaps.nb_bitmaps > 0) {
        return Err(Error::refused(
            "has persistent bitmaps, which would not fit the disk any more",
            "remove them with `qemu-img bitmap --remove`",
        ));
    }
    if header.geometry().external_data {
        return Err(Error::unsupported(
            "has an external data file, which would have to change as well",
        )
        .with_remedy("`qemu-img resize` does that"));
    }
    refuse_errors(file, threads, cancel)
}

/// Refuses an image with errors: whatever is made of it would make them last.
///
/// # Errors
/// [`Corrupt`](crate::ErrorKind::Corrupt); it could not be checked; cancelled.
pub(crate) fn refuse_errors(file: &Qcow2File, threads: usize, cancel: &AtomicBool) -> Result<()> {
    let options = CheckOptions {
        threads,
        cancel,
        progress: None,
    };
    let report = check(file, &options)?;
    if report.corruptions > 0 || report.check_errors > 0 {
        let found = report.findings.iter().map(ToString::to_string).next();
        return Err(Error::corrupt(
            "the image has errors, so that it must not be written",
            found.unwrap_or_default(),
        )
        .with_remedy("`qimg check` lists them; `qemu-img check -r all` may repair them"));
    }
    Ok(())
}

/// Refuses an image whose clusters are not its own.
///
/// # Errors
/// It has internal snapshots.
pub(crate) fn refuse_shared(file: &Qcow2File) -> Result<()> {
    if file.header.nb_snapshots == 0 {
        return Ok(());
    }
    Err(Error::refused(
        "has internal snapshots, with which it shares what would be written",
        "delete them with `qemu-img snapshot -d`, or take the disk out with `qimg convert`",
    ))
}

/// Writes parts of the first sector, in one piece.
fn patch_header(store: &dyn WriteAt, fields: &[(usize, &[u8])]) -> Result<()> {
    let mut sector = [0; SECTOR];
    // The smallest image has a cluster, and the smallest cluster is a sector.
    store.read_exact_at(&mut sector, 0)?;
    for (at, bytes) in fields {
        if let Some(field) = sector.get_mut(*at..*at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    }
    store.write_all_at(&sector, 0)
}

/// What an unknown autoclear feature promises is no longer true once somebody writes who does not know it.
fn clear_autoclear(file: &Qcow2File, store: &dyn WriteAt) -> Result<()> {
    let header = &file.header;
    let known = features::BITMAPS_CONSISTENT | features::RAW_EXTERNAL_DATA;
    let left = header.autoclear_features & known;
    if header.version < 3 || left == header.autoclear_features {
        return Ok(());
    }
    patch_header(store, &[(AUTOCLEAR_AT, &left.to_be_bytes())])?;
    store.sync()
}

/// Gives the guest's disk `size` bytes, more than it had; what is new reads as zeros if no backing file is in the way.
///
/// # Errors
/// A size that needs a larger L1 table than there may be; the host cannot read or write.
pub(crate) fn grow(file: &Qcow2File, store: &dyn WriteAt, size: u64) -> Result<()> {
    let header = &file.header;
    let bits = header.cluster_bits;
    let entries = header.geometry().l1_entries(size);
    let too_large = || {
        Error::usage(format!(
            "{size} bytes are too many for clusters of {} bytes",
            bits.size()
        ))
        .with_remedy(
            "convert the image to larger clusters first, with `qimg convert -o cluster_size=2M`",
        )
    };
    if entries > MAX_L1_BYTES / 8 {
        return Err(too_large());
    }
    let entries = u32::try_from(entries).map_err(|_| too_large())?;
    clear_autoclear(file, store)?;
    if entries <= header.l1_size {
        patch_header(store, &[(SIZE_AT, &size.to_be_bytes())])?;
        return store.sync();
    }
    let old = file.read_l1(header.l1_table_offset, header.l1_size)?;
    let old_clusters = bits.clusters_for(u64::from(header.l1_size) * 8);
    let new_clusters = bits.clusters_for(u64::from(entries) * 8);
    let mut counts = Counts::new(file, store)?;
    let at = counts.allocate(new_clusters)?;
    let mut table: Vec<u8> = old.iter().flat_map(|word| word.to_be_bytes()).collect();
    table.resize(usize::try_from(new_clusters << bits.bits()).unwrap_or(0), 0);
    store.write_all_at(&table, at)?;
    counts.write()?;
    // All three belong together, and stand in one sector.
    patch_header(
        store,
        &[
            (SIZE_AT, &size.to_be_bytes()),
            (L1_SIZE_AT, &entries.to_be_bytes()),
            (L1_AT, &at.to_be_bytes()),
        ],
    )?;
    store.sync()?;
    let first = header.l1_table_offset >> bits.bits();
    for cluster in first..first + old_clusters {
        counts.release(cluster)?;
    }
    counts.write_blocks()?;
    store.sync()
}

/// Gives the guest's disk `size` bytes, fewer than it had. What lies behind them must be unmapped already.
///
/// # Errors
/// The host cannot write.
pub(crate) fn cut(file: &Qcow2File, store: &dyn WriteAt, size: u64) -> Result<()> {
    clear_autoclear(file, store)?;
    patch_header(store, &[(SIZE_AT, &size.to_be_bytes())])?;
    store.sync()
}

/// Bytes of the guest's disk that are being written, cluster by cluster, into `file`, which `store` writes. Nothing of
/// them can be read before [`Edit::finish`].
#[derive(Debug)]
pub(crate) struct Edit<'a> {
    file: &'a Qcow2File,
    store: &'a dyn WriteAt,
    counts: Counts<'a>,
    l1: Vec<u64>,
    /// L2 tables that are needed, by their index: where they are, and their bytes.
    tables: BTreeMap<u64, Table>,
    released: Vec<Range<u64>>,
}

#[derive(Debug)]
struct Table {
    host: u64,
    is_new: bool,
    bytes: Vec<u8>,
    changed: Option<Range<usize>>,
}

impl<'a> Edit<'a> {
    /// # Errors
    /// An internal snapshot would share what changes; the host cannot read.
    pub(crate) fn new(file: &'a Qcow2File, store: &'a dyn WriteAt) -> Result<Self> {
        let header = &file.header;
        refuse_shared(file)?;
        clear_autoclear(file, store)?;
        Ok(Self {
            file,
            store,
            counts: Counts::new(file, store)?,
            l1: file
                .read_l1(header.l1_table_offset, header.l1_size)?
                .to_vec(),
            tables: BTreeMap::new(),
            released: Vec::new(),
        })
    }

    /// Writes `bytes` at `guest`, all of which is one cluster's or less; `old` reads what is there.
    pub(crate) fn write(&mut self, guest: u64, bytes: &[u8], old: &mut dyn Reader) -> Result<()> {
        let geometry = self.file.header.geometry();
        let bits = geometry.cluster_bits;
        let skip = usize::try_from(bits.offset_in(guest)).unwrap_or(0);
        let cluster_at = guest - skip as u64;
        let entry = self.entry(cluster_at)?;
        let mapping = entry
            .decode(geometry, cluster_at)
            .map_err(|corruption| self.file.corrupt(corruption).at_guest(cluster_at))?;
        let unmapped = matches!(
            mapping,
            L2Mapping::Unallocated | L2Mapping::Zero { host: None }
        );
        let has_backing = self.file.header.backing_file.is_some();
        if let L2Mapping::Data { host } = mapping
            && entry.word & COPIED != 0
        {
            return self.store.write_all_at(bytes, host.0 + skip as u64);
        }
        // A cluster that reads as zeros need not be there for more of them.
        let reads_zero = unmapped && (!has_backing || !matches!(mapping, L2Mapping::Unallocated));
        if reads_zero && is_zero(bytes) {
            return Ok(());
        }
        let mut cluster = vec![0; bits.len()];
        let shown = self.file.header.virtual_size().saturating_sub(cluster_at);
        let shown = usize::try_from(shown).map_or(bits.len(), |shown| shown.min(bits.len()));
        let covers = skip == 0 && bytes.len() >= shown;
        if !reads_zero && !covers {
            old.read_at(cluster_at, cluster.get_mut(..shown).unwrap_or_default())?;
        }
        if let Some(part) = cluster.get_mut(skip..skip + bytes.len()) {
            part.copy_from_slice(bytes);
        }
        let host = self.counts.allocate(1)?;
        self.store.write_all_at(&cluster, host)?;
        self.release(mapping);
        let bitmap = if geometry.extended_l2 {
            join_bitmap(u32::MAX, 0)
        } else {
            0
        };
        let data = L2Entry {
            bitmap,
            ..L2Entry::data(HostOffset(host))
        };
        self.set_entry(cluster_at, data)
    }

    /// Remembers what a mapping refers to.
    fn release(&mut self, mapping: L2Mapping) {
        let size = self.file.header.cluster_bits.size();
        let range = match mapping {
            L2Mapping::Data { host }
            | L2Mapping::Zero { host: Some(host) }
            | L2Mapping::Subclusters {
                host: Some(host), ..
            } => host.0..host.0 + size,
            L2Mapping::Compressed(CompressedDescriptor { host, length }) => host.0..host.0 + length,
            _ => return,
        };
        self.released.push(range);
    }

    /// Index of the table of a guest cluster, and the place of its entry there.
    fn place(&self, guest: u64) -> (u64, Range<usize>) {
        let geometry = self.file.header.geometry();
        let table = guest / geometry.l2_span();
        let index = guest % geometry.l2_span() / geometry.cluster_bits.size();
        let size = geometry.l2_entry_size();
        let at = usize::try_from(index * size).unwrap_or(0);
        (table, at..at + usize::try_from(size).unwrap_or(8))
    }

    fn entry(&mut self, guest: u64) -> Result<L2Entry> {
        let (number, place) = self.place(guest);
        if !self.tables.contains_key(&number) {
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            let word = self.l1.get(index).copied().unwrap_or(0);
            let Some(host) = self.file.check_table(L1Entry(word))? else {
                return Ok(L2Entry::default());
            };
            let mut bytes = vec![0; self.file.header.cluster_bits.len()];
            self.store.read_zero_filled(&mut bytes, host)?;
            let table = Table {
                host,
                is_new: false,
                bytes,
                changed: None,
            };
            self.tables.insert(number, table);
        }
        let table = self.tables.get(&number);
        let bytes = table.and_then(|table| table.bytes.get(place));
        let words = bytes.map_or(&[][..], |bytes| bytes.as_chunks().0);
        let mut words = words.iter().map(|word| u64::from_be_bytes(*word));
        Ok(L2Entry {
            word: words.next().unwrap_or(0),
            bitmap: words.next().unwrap_or(0),
        })
    }

    fn set_entry(&mut self, guest: u64, entry: L2Entry) -> Result<()> {
        let (number, place) = self.place(guest);
        if !self.tables.contains_key(&number) {
            let host = self.counts.allocate(1)?;
            let table = Table {
                host,
                is_new: true,
                bytes: vec![0; self.file.header.cluster_bits.len()],
                changed: None,
            };
            self.tables.insert(number, table);
        }
        let Some(table) = self.tables.get_mut(&number) else {
            return Ok(());
        };
        let field = table.bytes.get_mut(place.clone()).unwrap_or_default();
        let words = [entry.word, entry.bitmap];
        for (to, word) in field.as_chunks_mut().0.iter_mut().zip(words) {
            *to = word.to_be_bytes();
        }
        table.changed = Some(match &table.changed {
            None => place,
            Some(before) => before.start.min(place.start)..before.end.max(place.end),
        });
        Ok(())
    }

    /// Makes all that was written the guest's, for good.
    ///
    /// # Errors
    /// The host cannot write.
    pub(crate) fn finish(mut self) -> Result<()> {
        for table in self.tables.values().filter(|table| table.is_new) {
            self.store.write_all_at(&table.bytes, table.host)?;
        }
        self.counts.write()?;
        for (number, table) in &self.tables {
            if table.is_new {
                let entry = L1Entry::to_table(HostOffset(table.host)).0;
                let at = self.file.header.l1_table_offset + number * 8;
                self.store.write_all_at(&entry.to_be_bytes(), at)?;
            } else if let Some(changed) = &table.changed {
                let start = changed.start / SECTOR * SECTOR;
                let end = changed.end.next_multiple_of(SECTOR);
                if let Some(bytes) = table.bytes.get(start..end) {
                    self.store.write_all_at(bytes, table.host + start as u64)?;
                }
            }
        }
        self.store.sync()?;
        let bits = self.file.header.cluster_bits.bits();
        for range in std::mem::take(&mut self.released) {
            for cluster in range.start >> bits..=(range.end - 1) >> bits {
                self.counts.release(cluster)?;
            }
        }
        self.counts.write_blocks()?;
        self.store.sync()
    }
}
