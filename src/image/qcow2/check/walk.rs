//! From L1 tables to everything they use.
//!
//! Knows L1 and L2 entries. Each L2 table is read once, however many entries
//! lead to it: what is found in it counts as often as it is reached.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};

use super::references::References;
use super::stored::{Stored, words};
use crate::error::Result;
use crate::image::check::{CheckOptions, CheckProgress, CheckReport, Finding, MAX_FINDINGS};
use crate::image::qcow2::Qcow2File;
use crate::image::qcow2::format::entry::{
    COMPRESSED, COPIED, L1_RESERVED, L2_RESERVED, OFFSET_MASK, ZERO,
};
use crate::image::qcow2::format::{CompressedDescriptor, Geometry};

/// Most L2 tables that are followed though they do not start with a cluster: those can lie over each other.
const MAX_UNALIGNED: usize = 4096;
/// L2 tables walked by one thread before it looks for other work.
const TABLES: usize = 8;

/// How often a table is reached.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    /// From any L1 table.
    all: u64,
    /// From the active one.
    active: u64,
    /// From entries of the active one whose tables' copied flags count.
    copied: u64,
}

/// The L2 tables found so far.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    file: &'a Qcow2File,
    geometry: Geometry,
    references: &'a References,
    /// Those by compressed clusters, counted apart on demand.
    streams: Option<&'a References>,
    stored: &'a Stored<'a>,
    tables: Vec<(u64, Times)>,
    index: HashMap<u64, usize>,
    unaligned: usize,
    /// What was found about references.
    pub(super) report: CheckReport,
    /// What was found about copied flags.
    pub(super) copied: CheckReport,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        file: &'a Qcow2File,
        references: &'a References,
        streams: Option<&'a References>,
        stored: &'a Stored<'a>,
    ) -> Self {
        Self {
            file,
            geometry: file.header.geometry(),
            references,
            streams,
            stored,
            tables: Vec::new(),
            index: HashMap::new(),
            unaligned: 0,
            report: CheckReport::default(),
            copied: CheckReport::default(),
        }
    }

    /// Takes up the L1 table of `entries` entries at `offset`, which `times` snapshots have, or the active disk.
    pub(super) fn add_l1(&mut self, offset: u64, entries: u32, times: u64, active: bool) {
        let size = u64::from(entries) * 8;
        if entries == 0 {
            return;
        }
        count(self.references, offset, size, times, &mut self.report);
        let Ok(l1) = super::read_table(self.file, offset, size) else {
            self.report.add(Finding::Unreadable { offset }, times);
            return;
        };
        for (l1_index, &entry) in (0..).zip(&l1) {
            if entry != 0 {
                self.add_entry(l1_index, entry, times, active);
            }
        }
    }

    fn add_entry(&mut self, l1_index: u64, l1_entry: u64, times: u64, active: bool) {
        let bits = self.geometry.cluster_bits;
        if l1_entry & L1_RESERVED != 0 {
            self.report.add(Finding::L1Reserved { l1_entry }, times);
        }
        let offset = l1_entry & OFFSET_MASK;
        count(
            self.references,
            offset,
            bits.size(),
            times,
            &mut self.report,
        );
        let aligned = bits.is_aligned(offset);
        if !aligned {
            self.report.add(Finding::TableUnaligned { offset }, times);
        }
        // As in QEMU, a table whose own count cannot be read has none of its flags checked.
        let one = (active && offset != 0)
            .then(|| self.stored.is_one(offset >> bits.bits()))
            .flatten();
        if let Some(one) = one
            && one != (l1_entry & COPIED != 0)
        {
            let refcount = self.stored.count(offset >> bits.bits()).unwrap_or(0);
            let finding = Finding::CopiedTable {
                l1_index,
                l1_entry,
                refcount,
            };
            self.copied.add(finding, 1);
        }
        // Behind the end of the file there are only zeros.
        if offset >= self.file.file_length {
            return;
        }
        let known = self.index.get(&offset).copied();
        let index = known.unwrap_or_else(|| {
            self.unaligned += usize::from(!aligned);
            if !aligned && self.unaligned > MAX_UNALIGNED {
                self.report.add(Finding::NotFollowed { offset }, 1);
            }
            self.tables.push((offset, Times::default()));
            self.index.insert(offset, self.tables.len() - 1);
            self.tables.len() - 1
        });
        let reached = &mut self.tables[index].1;
        reached.all = reached.all.saturating_add(times);
        reached.active += u64::from(active);
        reached.copied += u64::from(one.is_some());
    }

    /// Walks all tables taken up, on all threads of the current pool: what was found about references, and about
    /// copied flags.
    ///
    /// # Errors
    /// Cancelled.
    pub(super) fn walk(self, options: &CheckOptions<'_>) -> Result<(CheckReport, CheckReport)> {
        let bits = self.geometry.cluster_bits;
        let done = AtomicU64::new(0);
        let total = self.tables.len() as u64;
        let followed = |offset: u64| bits.is_aligned(offset) || self.unaligned <= MAX_UNALIGNED;
        let (report, copied) = self
            .tables
            .par_iter()
            .with_min_len(TABLES)
            .filter(|(offset, _)| followed(*offset))
            .map_init(
                || vec![0; bits.len()],
                |buffer, &(offset, times)| {
                    options.go_on()?;
                    let found = self.walk_table(offset, times, buffer);
                    let tables = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if let Some(progress) = options.progress {
                        progress(CheckProgress { tables, total });
                    }
                    Ok(found)
                },
            )
            .try_reduce(Default::default, |a, b| {
                Ok((a.0.merged(b.0), a.1.merged(b.1)))
            })?;
        Ok((self.report.merged(report), self.copied.merged(copied)))
    }

    fn walk_table(
        &self,
        offset: u64,
        times: Times,
        buffer: &mut [u8],
    ) -> (CheckReport, CheckReport) {
        let mut found = Table {
            walk: self,
            times,
            next_contiguous: None,
            report: CheckReport::default(),
            copied: CheckReport::default(),
        };
        if self.file.store.read_zero_filled(buffer, offset).is_err() {
            found.report.add(Finding::Unreadable { offset }, times.all);
            return (found.report, found.copied);
        }
        let words = words(buffer);
        let step = if self.geometry.extended_l2 { 2 } else { 1 };
        for (index, entry) in (0..).zip(words.chunks_exact(step)) {
            let bitmap = entry.get(1).copied().unwrap_or(0);
            if entry[0] & COMPRESSED != 0 {
                found.compressed(index, entry[0], bitmap);
            } else if entry[0] != 0 || bitmap != 0 {
                found.standard(entry[0], bitmap);
            }
        }
        (found.report, found.copied)
    }
}

/// One L2 table on its way.
struct Table<'a> {
    walk: &'a Walk<'a>,
    times: Times,
    next_contiguous: Option<u64>,
    report: CheckReport,
    copied: CheckReport,
}

impl Table<'_> {
    fn compressed(&mut self, index: u64, entry: u64, bitmap: u64) {
        let geometry = self.walk.geometry;
        let descriptor = CompressedDescriptor::decode(entry, geometry.cluster_bits);
        let offset = descriptor.host.0;
        let times = self.times.all;
        if entry & COPIED != 0 {
            self.report.add(Finding::CopiedCompressed { offset }, times);
        }
        let l2_entry = entry & !COPIED;
        if geometry.external_data {
            let finding = Finding::CompressedWithDataFile { index, l2_entry };
            self.report.add(finding, times);
            return;
        }
        if bitmap != 0 {
            let finding = Finding::CompressedWithBitmap { index, l2_entry };
            self.report.add(finding, times);
            return;
        }
        let references = self.walk.references;
        count(
            references,
            offset,
            descriptor.length,
            times,
            &mut self.report,
        );
        if let Some(streams) = self.walk.streams {
            // What lies behind the end was reported above.
            let _ = streams.add(offset, descriptor.length, times);
        }
        self.report.allocated_clusters += self.times.active;
        self.report.compressed_clusters += self.times.active;
        self.report.fragmented_clusters += self.times.active;
    }

    fn standard(&mut self, l2_entry: u64, bitmap: u64) {
        let geometry = self.walk.geometry;
        let bits = geometry.cluster_bits;
        let times = self.times.all;
        if l2_entry & L2_RESERVED != 0 {
            self.report.add(Finding::L2Reserved { l2_entry }, times);
        }
        let offset = l2_entry & OFFSET_MASK;
        let zero = l2_entry & ZERO != 0 && !geometry.extended_l2;
        let allocated = bitmap & 0xffff_ffff;
        // With a data file, offset 0 is a place like any other: only the copied flag tells.
        if offset == 0 && (zero || !geometry.external_data || l2_entry & COPIED == 0) {
            if !zero && allocated != 0 {
                let finding = Finding::SubclustersWithoutCluster { bitmap };
                self.report.add(finding, times);
            }
            return;
        }
        if (bitmap >> 32) & allocated != 0 {
            self.report
                .add(Finding::SubclustersContradict { offset }, times);
        }
        if !bits.is_aligned(offset) {
            let preallocated = if geometry.extended_l2 {
                allocated == 0
            } else {
                zero
            };
            let finding = Finding::ClusterUnaligned {
                offset,
                preallocated,
            };
            self.report.add(finding, times);
        }
        self.report.allocated_clusters += self.times.active;
        if self.next_contiguous.is_some_and(|next| next != offset) {
            self.report.fragmented_clusters += self.times.active;
        }
        self.next_contiguous = Some(offset + bits.size());
        if !geometry.external_data {
            count(
                self.walk.references,
                offset,
                bits.size(),
                times,
                &mut self.report,
            );
        }
        if self.times.copied > 0 {
            self.check_copied(l2_entry, offset >> bits.bits());
        }
    }

    fn check_copied(&mut self, l2_entry: u64, cluster: u64) {
        let external = self.walk.geometry.external_data;
        let stored = self.walk.stored;
        let Some(one) = (if external {
            Some(true)
        } else {
            stored.is_one(cluster)
        }) else {
            return;
        };
        if one == (l2_entry & COPIED != 0) {
            return;
        }
        // The count costs a read: only where it will be shown.
        let refcount = if external {
            1
        } else if self.copied.findings.len() < MAX_FINDINGS {
            stored.count(cluster).unwrap_or(0)
        } else {
            0
        };
        let finding = Finding::CopiedCluster { l2_entry, refcount };
        self.copied.add(finding, self.times.copied);
    }
}

/// Counts `size` bytes at `offset` as used `times` times, or says that they are not in the file.
pub(super) fn count(
    references: &References,
    offset: u64,
    size: u64,
    times: u64,
    report: &mut CheckReport,
) {
    if !references.add(offset, size, times) {
        report.add(Finding::OutsideFile { offset, size }, times);
    }
}
