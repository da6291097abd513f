//! Whether a file occupies visibly less host space than its reference counts
//! say: then its clusters were allocated, but never written.
//!
//! The judgement is QEMU's, number for number, because `map` depends on it.
//! Reads the refcount table and its blocks, no guest table.

use super::Qcow2File;
use crate::error::Result;

/// Host offset field of a refcount table entry.
const BLOCK_MASK: u64 = 0xffff_ffff_ffff_fe00;

impl Qcow2File {
    /// Whether more clusters are counted than the host has space allocated for, by a margin.
    ///
    /// An image with preallocated metadata is like that; so is one whose data was made of holes.
    ///
    /// # Errors
    /// The host fails to tell the file's space, or to read.
    pub(crate) fn counts_unwritten_clusters(&self) -> Result<bool> {
        let bits = self.header.cluster_bits;
        let stored = self.store.allocated_bytes()? >> bits.bits();
        let threshold = (stored.saturating_mul(10) / 9).max(stored.saturating_add(2));
        let mut clusters = bits.clusters_for(self.file_length);
        let order = self.header.refcount_order;
        let per_block = order.entries_per_block(bits);
        let mut counted = 0u64;
        let table_bytes = u64::from(self.header.refcount_table_clusters) << bits.bits();
        let mut entries = vec![0; usize::try_from(table_bytes).unwrap_or(0)];
        self.store
            .read_zero_filled(&mut entries, self.header.refcount_table_offset)?;
        let mut block = vec![0; bits.len()];
        for entry in entries.as_chunks().0 {
            if clusters == 0 {
                break;
            }
            let here = clusters.min(per_block);
            clusters -= here;
            let host = u64::from_be_bytes(*entry) & BLOCK_MASK;
            if host == 0 {
                continue;
            }
            if !bits.is_aligned(host) {
                // QEMU gives up on such an image, and does not look for holes.
                return Ok(false);
            }
            self.store.read_zero_filled(&mut block, host)?;
            let here = usize::try_from(here).unwrap_or(usize::MAX);
            counted += (0..here)
                .filter(|&index| order.load(&block, index).is_some_and(|count| count != 0))
                .count() as u64;
            if counted >= threshold {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
