//! Reference counts as the image stores them.
//!
//! Knows refcount table and blocks. Keeps one bit for each cluster (is its count
//! exactly 1?) and reads the counts themselves again when they are compared.

use std::collections::HashMap;
use std::sync::Arc;

use byteorder::{BigEndian, ByteOrder};
use rayon::iter::{IntoParallelIterator, IntoParallelRefIterator, ParallelIterator};

use super::references::Settled;
use crate::error::Result;
use crate::image::check::{CheckOptions, CheckReport, Finding};
use crate::image::qcow2::Qcow2File;

/// Host offset of a refcount block in its table entry; the other bits are reserved.
pub(in crate::image::qcow2) const BLOCK_MASK: u64 = !0x1ff;

/// Stored reference counts of one image.
#[derive(Debug)]
pub(super) struct Stored<'a> {
    file: &'a Qcow2File,
    /// Entries of the refcount table.
    pub(super) table: Vec<u64>,
    per_block: u64,
    /// For each block that counts clusters of the file.
    blocks: Vec<Block>,
}

#[derive(Debug, Clone)]
enum Block {
    /// All counts are 0.
    Absent,
    Unreadable,
    /// Bit n: the count of cluster n of the block is 1.
    Ones(Arc<[u64]>),
}

impl<'a> Stored<'a> {
    /// Reads the refcount table, and all blocks that count any of `clusters` clusters.
    ///
    /// # Errors
    /// The table cannot be read; cancelled.
    pub(super) fn load(
        file: &'a Qcow2File,
        clusters: u64,
        options: &CheckOptions<'_>,
    ) -> Result<Self> {
        let header = &file.header;
        let bits = header.cluster_bits;
        let bytes = u64::from(header.refcount_table_clusters) << bits.bits();
        let table = super::read_table(file, header.refcount_table_offset, bytes)?;
        let per_block = header.refcount_order.entries_per_block(bits);
        let mut stored = Self {
            file,
            table,
            per_block,
            blocks: Vec::new(),
        };
        let used = usize::try_from(clusters.div_ceil(per_block)).unwrap_or(usize::MAX);
        let entries = &stored.table[..used.min(stored.table.len())];
        // Each block once, however many entries point to it.
        let mut offsets: Vec<u64> = entries.iter().map(|entry| entry & BLOCK_MASK).collect();
        offsets.sort_unstable();
        offsets.dedup();
        let blocks: HashMap<u64, Block> = offsets
            .par_iter()
            .map(|&offset| {
                options.go_on()?;
                Ok((offset, stored.load_block(offset)))
            })
            .collect::<Result<_>>()?;
        let block = |entry: &u64| blocks.get(&(entry & BLOCK_MASK)).cloned();
        stored.blocks = entries
            .iter()
            .map(|entry| block(entry).unwrap_or(Block::Absent))
            .collect();
        Ok(stored)
    }

    /// The bytes of the block at `offset`; empty when there is none, `None` when it cannot be read.
    fn read_block(&self, offset: u64) -> Option<Vec<u8>> {
        let bits = self.file.header.cluster_bits;
        if offset == 0 || (bits.is_aligned(offset) && offset >= self.file.file_length) {
            // QEMU reads zeros behind the end, as far as it can address.
            return (offset <= i64::MAX as u64 - bits.size()).then(Vec::new);
        }
        if !bits.is_aligned(offset) {
            return None;
        }
        let mut bytes = vec![0; bits.len()];
        self.file.store.read_zero_filled(&mut bytes, offset).ok()?;
        Some(bytes)
    }

    fn load_block(&self, offset: u64) -> Block {
        let Some(bytes) = self.read_block(offset) else {
            return Block::Unreadable;
        };
        if crate::zero::is_zero(&bytes) {
            return Block::Absent;
        }
        let order = self.file.header.refcount_order;
        let length = usize::try_from(self.per_block).unwrap_or(0);
        let mut ones = vec![0u64; length.div_ceil(64)];
        for index in 0..length {
            if order.load(&bytes, index) == Some(1) {
                ones[index / 64] |= 1 << (index % 64);
            }
        }
        Block::Ones(ones.into())
    }

    /// Whether the stored count of `cluster` is 1; `None` when it cannot be read.
    pub(super) fn is_one(&self, cluster: u64) -> Option<bool> {
        let block = usize::try_from(cluster / self.per_block).unwrap_or(usize::MAX);
        match self.blocks.get(block) {
            Some(Block::Absent) => Some(false),
            Some(Block::Unreadable) => None,
            Some(Block::Ones(ones)) => {
                let index = usize::try_from(cluster % self.per_block).unwrap_or(0);
                Some(ones.get(index / 64)? >> (index % 64) & 1 == 1)
            }
            None => self.count(cluster).map(|count| count == 1),
        }
    }

    /// The stored count of `cluster`, read for it alone; `None` when it cannot be read.
    pub(super) fn count(&self, cluster: u64) -> Option<u64> {
        let block = usize::try_from(cluster / self.per_block).unwrap_or(usize::MAX);
        let Some(entry) = self.table.get(block) else {
            return Some(0);
        };
        let offset = entry & BLOCK_MASK;
        let bits = self.file.header.cluster_bits;
        if !bits.is_aligned(offset) || offset > i64::MAX as u64 - bits.size() {
            return None;
        }
        if offset == 0 {
            return Some(0);
        }
        let order = self.file.header.refcount_order;
        let bit = (cluster % self.per_block) * order.bits();
        let mut field = [0; 8];
        let width = usize::try_from(order.bits().div_ceil(8)).unwrap_or(8);
        let field = &mut field[..width];
        self.file
            .store
            .read_zero_filled(field, offset + bit / 8)
            .ok()?;
        order.load(field, usize::try_from(bit % 8 / order.bits()).unwrap_or(0))
    }

    /// Compares stored counts with the references there are, for `clusters` clusters.
    ///
    /// # Errors
    /// Cancelled.
    pub(super) fn compare(
        &self,
        references: &Settled<'_>,
        clusters: u64,
        options: &CheckOptions<'_>,
    ) -> Result<CheckReport> {
        let blocks = clusters.div_ceil(self.per_block);
        (0..blocks)
            .into_par_iter()
            .map(|block| {
                options.go_on()?;
                let first = block * self.per_block;
                let end = (first + self.per_block).min(clusters);
                Ok(self.compare_block(block, first, end, references))
            })
            .try_reduce(CheckReport::default, |a, b| Ok(a.merged(b)))
    }

    fn compare_block(
        &self,
        block: u64,
        first: u64,
        end: u64,
        references: &Settled<'_>,
    ) -> CheckReport {
        let mut report = CheckReport::default();
        let order = self.file.header.refcount_order;
        let index = usize::try_from(block).unwrap_or(usize::MAX);
        let bytes = match self.blocks.get(index) {
            Some(Block::Unreadable) => None,
            Some(Block::Ones(_)) => self.read_block(self.table[index] & BLOCK_MASK),
            Some(Block::Absent) | None => Some(Vec::new()),
        };
        let untouched = bytes.as_ref().is_some_and(Vec::is_empty);
        if untouched && !references.any(first, end) {
            return report;
        }
        let mut highest = None;
        for (index, cluster) in (first..end).enumerate() {
            let counted = references.count(cluster);
            let references = counted.min(order.max());
            if counted > references {
                let offset = cluster << self.file.header.cluster_bits.bits();
                report.add(Finding::RefcountOverflow { offset }, counted - references);
            }
            let Some(bytes) = &bytes else {
                report.add(Finding::RefcountUnreadable { cluster }, 1);
                continue;
            };
            let refcount = order.load(bytes, index).unwrap_or(0);
            if refcount > 0 || references > 0 {
                highest = Some(cluster);
            }
            if refcount < references {
                let finding = Finding::RefcountTooLow {
                    cluster,
                    refcount,
                    references,
                };
                report.add(finding, 1);
            } else if refcount > references {
                let finding = Finding::Leaked {
                    cluster,
                    refcount,
                    references,
                };
                report.add(finding, 1);
            }
        }
        if let Some(highest) = highest {
            report.image_end_offset = (highest + 1) << self.file.header.cluster_bits.bits();
        }
        report
    }
}

/// Big-endian words.
pub(super) fn words(bytes: &[u8]) -> Vec<u64> {
    let mut words = vec![0; bytes.len() / 8];
    BigEndian::read_u64_into(&bytes[..words.len() * 8], &mut words);
    words
}
