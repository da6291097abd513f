//! The consistency check of qcow2 metadata, as QEMU defines it.
//!
//! ```text
//! stored counts -> walk from L1 tables, snapshots, bitmaps, refcount table -> compare -> copied flags
//! ```
//!
//! Knows which structures use host clusters. Reads metadata alone, and must not
//! write. Every table is read once, tables lie inside the file, and the
//! references are counted in two bytes for each cluster: time and memory are
//! bounded by the length of the file, whatever it holds.

mod references;
mod stored;
mod walk;

use std::collections::HashMap;

use super::Qcow2File;
use super::format::bitmap::{BitmapEntry, IN_USE, TABLE_ALL_ONES, TABLE_OFFSET_MASK};
use super::format::header::MAX_L1_BYTES;
use crate::error::Result;
use crate::image::check::{CheckOptions, CheckReport, Finding};
use crate::image::workers::worker_pool;
pub(super) use references::{References, Settled};
pub(super) use stored::BLOCK_MASK;
use stored::{Stored, words};
use walk::{Walk, count};

/// Most bytes of bits of one bitmap, as in QEMU.
const MAX_BITMAP_BYTES: u64 = 512 << 20;

/// Checks `file`.
///
/// # Errors
/// The refcount table cannot be read; cancelled.
pub(crate) fn check(file: &Qcow2File, options: &CheckOptions<'_>) -> Result<CheckReport> {
    let pool = worker_pool(options.threads)?;
    let references = References::new(file.header.cluster_bits, file.file_length);
    pool.install(|| count_and_compare(file, options, &references, None))
}

/// Checks `file` on the threads of the current pool, and leaves behind what it counted: all references, and in
/// `streams`, where the caller wants them, those by compressed clusters alone.
///
/// # Errors
/// As [`check`].
pub(super) fn count_and_compare(
    file: &Qcow2File,
    options: &CheckOptions<'_>,
    references: &References,
    streams: Option<&References>,
) -> Result<CheckReport> {
    let header = &file.header;
    let bits = header.cluster_bits;
    let mut report = CheckReport::default();
    let clusters = bits.clusters_for(file.file_length);
    if clusters > i32::MAX as u64 {
        report.add(Finding::TooManyClusters { clusters }, 1);
        return Ok(report);
    }
    report.total_clusters = bits.clusters_for(header.virtual_size());
    check_snapshot_entries(file, &mut report)?;
    let stored = Stored::load(file, clusters, options)?;
    count(references, 0, bits.size(), 1, &mut report);

    let mut walk = Walk::new(file, references, streams, &stored);
    walk.add_l1(header.l1_table_offset, header.l1_size, 1, true);
    add_snapshots(file, &mut walk, options)?;
    let (found, copied) = walk.walk(options)?;
    report = report.merged(found);

    let regions = [
        (header.snapshots_offset, file.snapshot_table_bytes),
        (header.refcount_table_offset, stored.table.len() as u64 * 8),
        header.crypto_header.unwrap_or_default(),
    ];
    for (offset, size) in regions {
        // QEMU takes lengths for signed numbers, and negative ones for nothing.
        if size <= i64::MAX as u64 {
            count(references, offset, size, 1, &mut report);
        }
    }
    count_bitmaps(file, references, options, &mut report)?;
    count_blocks(file, references, &stored, &mut report);

    let settled = references.settled();
    let compared = stored.compare(&settled, references.clusters(), options)?;
    report = report.merged(compared).merged(copied);
    report.image_end_offset = report.image_end_offset.max(bits.size());
    Ok(report)
}

/// Reads `size` bytes of a table at `offset`; what lies behind the end of the file is 0.
fn read_table(file: &Qcow2File, offset: u64, size: u64) -> Result<Vec<u64>> {
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
    file.store.read_zero_filled(&mut bytes, offset)?;
    Ok(words(&bytes))
}

/// How many bytes of tables are read before they must lie over each other.
struct Budget(u64);

impl Budget {
    fn new(file: &Qcow2File) -> Self {
        Self(file.file_length.saturating_mul(2).saturating_add(1 << 20))
    }

    /// Whether `size` more bytes may be read.
    fn take(&mut self, size: u64) -> bool {
        let left = self.0.checked_sub(size);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

/// Version 3 demands that snapshots record their disk's size.
fn check_snapshot_entries(file: &Qcow2File, report: &mut CheckReport) -> Result<()> {
    if file.header.version < 3 || file.snapshots.is_empty() {
        return Ok(());
    }
    let mut table = vec![0; usize::try_from(file.snapshot_table_bytes).unwrap_or(0)];
    file.store
        .read_zero_filled(&mut table, file.header.snapshots_offset)?;
    let mut rest = &table[..];
    for index in 0..file.snapshots.len() as u64 {
        let Some(fixed) = rest.get(..40) else { break };
        let half = |at: usize| usize::from(u16::from_be_bytes([fixed[at], fixed[at + 1]]));
        let extra = u32::from_be_bytes([fixed[36], fixed[37], fixed[38], fixed[39]]);
        if extra < 16 {
            report.add(Finding::SnapshotIncomplete { index }, 1);
        }
        let length = 40 + half(12) + half(14) + usize::try_from(extra).unwrap_or(0);
        rest = rest.get(length.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(())
}

/// Takes up the L1 tables of all snapshots, those they share once.
fn add_snapshots(file: &Qcow2File, walk: &mut Walk<'_>, options: &CheckOptions<'_>) -> Result<()> {
    let header = &file.header;
    if header.geometry().external_data && !file.snapshots.is_empty() {
        let count = file.snapshots.len() as u64;
        walk.report.add(Finding::SnapshotsWithDataFile { count }, 1);
    }
    let mut tables: Vec<((u64, u32), u64)> = Vec::new();
    let mut known = HashMap::new();
    for (index, snapshot) in (0..).zip(&file.snapshots) {
        let (offset, entries) = (snapshot.l1_table_offset, snapshot.l1_size);
        if !header.cluster_bits.is_aligned(offset) {
            let finding = Finding::SnapshotUnaligned { index, offset };
            walk.report.add(finding, 1);
        } else if u64::from(entries) * 8 > MAX_L1_BYTES {
            let entries = entries.into();
            let finding = Finding::SnapshotTooLarge { index, entries };
            walk.report.add(finding, 1);
        } else {
            let place = *known.entry((offset, entries)).or_insert(tables.len());
            match tables.get_mut(place) {
                Some((_, times)) => *times += 1,
                None => tables.push(((offset, entries), 1)),
            }
        }
    }
    let mut budget = Budget::new(file);
    for ((offset, entries), times) in tables {
        options.go_on()?;
        if !budget.take(u64::from(entries) * 8) {
            walk.report.add(Finding::NotFollowed { offset }, 1);
            break;
        }
        walk.add_l1(offset, entries, times, false);
    }
    Ok(())
}

fn count_bitmaps(
    file: &Qcow2File,
    references: &References,
    options: &CheckOptions<'_>,
    report: &mut CheckReport,
) -> Result<()> {
    let Some(extension) = file.header.bitmaps else {
        return Ok(());
    };
    let (offset, size) = (extension.directory_offset, extension.directory_size);
    count(references, offset, size, 1, report);
    let directory = file.bitmap_directory().ok();
    let Some(directory) = directory.filter(|entries| entries.iter().all(|e| is_sound(file, e)))
    else {
        report.add(Finding::BitmapDirectory, 1);
        return Ok(());
    };
    let mut budget = Budget::new(file);
    for entry in directory {
        options.go_on()?;
        let size = u64::from(entry.table_size) * 8;
        if !budget.take(size) {
            let offset = entry.table_offset;
            report.add(Finding::NotFollowed { offset }, 1);
            break;
        }
        count_bitmap(file, &entry, references, report);
    }
    Ok(())
}

/// What QEMU demands of a directory entry beyond its own fields.
fn is_sound(file: &Qcow2File, entry: &BitmapEntry) -> bool {
    let bits = file.header.cluster_bits;
    let bytes = u64::from(entry.table_size) << bits.bits();
    let covered = (u128::from(bytes) * 8) << entry.granularity_bits.min(63);
    entry.table_size > 0
        && entry.table_offset > 0
        && bits.is_aligned(entry.table_offset)
        && bytes <= MAX_BITMAP_BYTES
        && (entry.flags & IN_USE != 0 || covered >= u128::from(file.header.virtual_size()))
}

fn count_bitmap(
    file: &Qcow2File,
    entry: &BitmapEntry,
    references: &References,
    report: &mut CheckReport,
) {
    let bits = file.header.cluster_bits;
    let offset = entry.table_offset;
    let size = u64::from(entry.table_size) * 8;
    count(references, offset, size, 1, report);
    let granules = file
        .header
        .virtual_size()
        .div_ceil(entry.granularity().max(1));
    let fits = bits.clusters_for(granules.div_ceil(8)) == u64::from(entry.table_size);
    let table = read_table(file, offset, size).ok();
    let sound = |&word: &u64| {
        let host = word & TABLE_OFFSET_MASK;
        word & !(TABLE_OFFSET_MASK | TABLE_ALL_ONES) == 0
            && (host == 0 || (bits.is_aligned(host) && word & TABLE_ALL_ONES == 0))
    };
    let Some(table) = table
        .filter(|table| table.iter().all(sound))
        .filter(|_| fits || entry.flags & IN_USE != 0)
    else {
        report.add(Finding::BitmapTable { offset }, 1);
        return;
    };
    for host in table.iter().map(|word| word & TABLE_OFFSET_MASK) {
        if host != 0 {
            count(references, host, bits.size(), 1, report);
        }
    }
}

/// Counts the refcount blocks, which must have their clusters for themselves.
fn count_blocks(
    file: &Qcow2File,
    references: &References,
    stored: &Stored<'_>,
    report: &mut CheckReport,
) {
    let bits = file.header.cluster_bits;
    for (index, &entry) in (0..).zip(&stored.table) {
        let offset = entry & BLOCK_MASK;
        let cluster = offset >> bits.bits();
        if entry & !BLOCK_MASK != 0 {
            report.add(Finding::RefcountTableReserved { index }, 1);
        } else if !bits.is_aligned(offset) {
            report.add(Finding::RefcountBlockUnaligned { index }, 1);
        } else if cluster >= references.clusters() {
            report.add(Finding::RefcountBlockOutside { index }, 1);
        } else if offset != 0 {
            count(references, offset, bits.size(), 1, report);
            let references = references
                .count(cluster)
                .min(file.header.refcount_order.max());
            if references != 1 {
                let finding = Finding::RefcountBlockShared { index, references };
                report.add(finding, 1);
            }
        }
    }
}
