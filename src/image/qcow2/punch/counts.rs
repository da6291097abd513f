//! References before and after: which host clusters nobody needs any more.
//!
//! Knows reference counts, stored and counted. A stored count never falls below
//! the references that are left, and where copied flags depend on it (anything
//! but streams) it only ever falls to 0.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::image::check::CheckOptions;
use crate::image::qcow2::Qcow2File;
use crate::image::qcow2::check::{BLOCK_MASK, References, Settled, count_and_compare};
use crate::image::qcow2::format::features;
use crate::image::qcow2::l2_cache::read_words;
use crate::store::WriteAt;

/// Metadata is written in whole units of this size.
pub(super) const SECTOR: usize = 512;

/// The references to the host clusters of one sound image.
#[derive(Debug)]
pub(super) struct Counts<'a> {
    file: &'a Qcow2File,
    /// All there were.
    references: References,
    /// Those by compressed clusters.
    streams: References,
    /// Those that are dropped.
    removed: References,
    /// Clusters that are counted and not used are free. Not where something unknown here may use them.
    reclaims: bool,
}

/// What becomes of stored counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Clusters that were used, and are free.
    pub(super) freed: u64,
    /// Clusters that were counted only, and are free.
    pub(super) leaked: u64,
    /// Counts that change.
    pub(super) changed: u64,
}

/// One refcount block.
struct Block<'a> {
    /// The clusters of the file that it counts.
    clusters: Range<u64>,
    /// Where it is; all counts are 0 when there is none.
    host: Option<u64>,
    bytes: &'a mut [u8],
}

/// Counts that do not change any more.
struct Final<'a> {
    references: Settled<'a>,
    streams: Settled<'a>,
    removed: Settled<'a>,
    reclaims: bool,
}

impl<'a> Counts<'a> {
    /// Checks the whole image, and counts on the way.
    ///
    /// # Errors
    /// The image has corruptions, or could not be checked; cancelled.
    pub(super) fn survey(file: &'a Qcow2File, options: &CheckOptions<'_>) -> Result<Self> {
        let header = &file.header;
        let new = || References::new(header.cluster_bits, file.file_length);
        let (references, streams) = (new(), new());
        let report = count_and_compare(file, options, &references, Some(&streams))?;
        if report.corruptions > 0 || report.check_errors > 0 {
            let found = report.findings.iter().map(ToString::to_string).next();
            return Err(Error::corrupt(
                "the image has errors, so that it must not be written",
                found.unwrap_or_default(),
            )
            .with_remedy("`qimg check` lists them; `qemu-img check -r all` may repair them"));
        }
        let known = features::BITMAPS_CONSISTENT | features::RAW_EXTERNAL_DATA;
        let unknown = (header.compatible_features & !features::LAZY_REFCOUNTS)
            | (header.autoclear_features & !known);
        Ok(Self {
            file,
            references,
            streams,
            removed: new(),
            reclaims: unknown == 0 && header.unknown_extensions.is_empty(),
        })
    }

    /// Whether a host cluster that `size` bytes at `host` touch is used by anything but streams.
    pub(super) fn is_mixed(&self, host: u64, size: u64) -> bool {
        self.touched(host, size)
            .any(|cluster| self.references.count(cluster) > self.streams.count(cluster))
    }

    /// Takes away one reference to each cluster that `size` bytes at `host` touch.
    pub(super) fn remove(&self, host: u64, size: u64) {
        // What lies behind the end of the file did not pass the survey.
        let _ = self.removed.add(host, size, 1);
    }

    fn touched(&self, host: u64, size: u64) -> Range<u64> {
        let bits = self.file.header.cluster_bits.bits();
        let last = host.saturating_add(size.max(1)) - 1;
        host >> bits..(last >> bits) + 1
    }

    fn settled(&self) -> Final<'_> {
        Final {
            references: self.references.settled(),
            streams: self.streams.settled(),
            removed: self.removed.settled(),
            reclaims: self.reclaims,
        }
    }

    /// Finds out what changes; writes it to `store`, where there is one.
    ///
    /// # Errors
    /// The host cannot read or write.
    pub(super) fn rewrite(&self, store: Option<&dyn WriteAt>) -> Result<Tally> {
        let order = self.file.header.refcount_order;
        let settled = self.settled();
        let mut tally = Tally::default();
        self.each_block(&mut |block| {
            let Some(host) = block.host else {
                return Ok(());
            };
            let mut changed: Option<Range<usize>> = None;
            for (index, cluster) in block.clusters.enumerate() {
                let stored = order.load(block.bytes, index).unwrap_or(0);
                let target = settled.target(cluster, stored);
                if target == stored {
                    continue;
                }
                tally.changed += 1;
                if target == 0 {
                    let used = settled.references.count(cluster) > 0;
                    tally.freed += u64::from(used);
                    tally.leaked += u64::from(!used);
                }
                let _ = order.store(block.bytes, index, target);
                let at = index << order.order() >> 3;
                let first = changed.map_or(at, |changed| changed.start);
                changed = Some(first..at + 1);
            }
            if let (Some(store), Some(changed)) = (store, changed) {
                let start = changed.start / SECTOR * SECTOR;
                // A count of several bytes does not cross a sector.
                let end = changed.end.next_multiple_of(SECTOR).min(block.bytes.len());
                store.write_all_at(&block.bytes[start..end], host + start as u64)?;
            }
            Ok(())
        })?;
        Ok(tally)
    }

    /// Hands out the runs of host bytes that nothing uses, in order, up to the end of the file: what is free when the
    /// counts have been written, or, before that, what will be.
    ///
    /// # Errors
    /// The host cannot read; whatever `each` fails with.
    pub(super) fn each_free_run(
        &self,
        written: bool,
        each: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let order = self.file.header.refcount_order;
        let bits = self.file.header.cluster_bits.bits();
        let settled = self.settled();
        let mut run = 0..0;
        self.each_block(&mut |block| {
            for (index, cluster) in block.clusters.enumerate() {
                let stored = match block.host {
                    Some(_) => order.load(block.bytes, index).unwrap_or(u64::MAX),
                    None => 0,
                };
                let left = if written {
                    stored
                } else {
                    settled.target(cluster, stored)
                };
                if left != 0 || settled.left(cluster) != 0 {
                    continue;
                }
                if run.end != cluster {
                    if run.start < run.end {
                        each(run.start << bits..run.end << bits)?;
                    }
                    run.start = cluster;
                }
                run.end = cluster + 1;
            }
            Ok(())
        })?;
        if run.start < run.end {
            each(run.start << bits..run.end << bits)?;
        }
        Ok(())
    }

    /// Refcount blocks that there are.
    pub(super) fn blocks(&self) -> Result<u64> {
        let table = self.table()?;
        Ok(table
            .iter()
            .filter(|&&entry| entry & BLOCK_MASK != 0)
            .count() as u64)
    }

    fn table(&self) -> Result<std::sync::Arc<[u64]>> {
        let header = &self.file.header;
        let bytes = u64::from(header.refcount_table_clusters) << header.cluster_bits.bits();
        let bytes = usize::try_from(bytes).unwrap_or(0);
        read_words(&*self.file.store, header.refcount_table_offset, bytes)
    }

    /// Reads the refcount blocks of all clusters of the file, one after the other.
    fn each_block(&self, each: &mut dyn FnMut(Block<'_>) -> Result<()>) -> Result<()> {
        let header = &self.file.header;
        let per_block = header.refcount_order.entries_per_block(header.cluster_bits);
        let clusters = self.references.clusters();
        let table = self.table()?;
        let mut block = vec![0; header.cluster_bits.len()];
        for number in 0..clusters.div_ceil(per_block) {
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            let host = table.get(index).map_or(0, |entry| entry & BLOCK_MASK);
            if host != 0 {
                self.file.store.read_zero_filled(&mut block, host)?;
            }
            let first = number * per_block;
            each(Block {
                clusters: first..(first + per_block).min(clusters),
                host: (host != 0).then_some(host),
                bytes: &mut block,
            })?;
        }
        Ok(())
    }
}

impl Final<'_> {
    /// References that are left.
    fn left(&self, cluster: u64) -> u64 {
        let all = self.references.count(cluster);
        all.saturating_sub(self.removed.count(cluster))
    }

    /// What the stored count becomes.
    fn target(&self, cluster: u64, stored: u64) -> u64 {
        if stored == 0 {
            return 0;
        }
        let removed = self.removed.count(cluster);
        if !self.reclaims {
            return stored.saturating_sub(removed);
        }
        let left = self.left(cluster);
        let streams = self.streams.count(cluster).saturating_sub(removed);
        if left > streams {
            // Its users' copied flags tell whether the count is 1, right or wrong.
            stored
        } else {
            stored.min(left)
        }
    }
}
