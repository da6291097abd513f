//! How often each host cluster is used: counted by many threads at once.
//!
//! Knows host clusters by number. Must not know what they hold. Two bytes for
//! each cluster near one that is used, none elsewhere; the few counts that do
//! not fit are carried into a map.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::image::qcow2::format::ClusterBits;

/// log2 of the clusters counted in one piece of memory.
const CHUNK_BITS: u32 = 16;

/// Reference counts of all host clusters.
#[derive(Debug)]
pub(in crate::image::qcow2) struct References {
    cluster_bits: ClusterBits,
    file_length: u64,
    clusters: u64,
    /// The cluster behind the end of the file is used in part.
    grown: AtomicBool,
    chunks: Vec<OnceLock<Box<[AtomicU16]>>>,
    /// How many times 65536 is to be added.
    carries: Mutex<HashMap<u64, u64>>,
}

impl References {
    /// For a file of `file_length` bytes.
    pub(in crate::image::qcow2) fn new(cluster_bits: ClusterBits, file_length: u64) -> Self {
        let clusters = cluster_bits.clusters_for(file_length);
        // Space may be used up to one cluster behind the end. More clusters than QEMU counts are never counted.
        let chunks = (clusters.min(1 << 31) >> CHUNK_BITS) + 1;
        Self {
            cluster_bits,
            file_length,
            clusters,
            grown: AtomicBool::new(false),
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
            carries: Mutex::default(),
        }
    }

    /// Clusters that are counted: those of the file, and one more when that is used.
    pub(in crate::image::qcow2) fn clusters(&self) -> u64 {
        self.clusters + u64::from(self.grown.load(Ordering::Relaxed))
    }

    /// Counts all clusters that `size` bytes at `offset` touch `times` times more. False, and nothing counted, when
    /// they lie behind the end of the file by a cluster or more.
    #[must_use]
    pub(in crate::image::qcow2) fn add(&self, offset: u64, size: u64, times: u64) -> bool {
        let bits = self.cluster_bits.bits();
        if size == 0 {
            return true;
        }
        let limit = self.file_length.saturating_add(self.cluster_bits.size());
        let Some(end) = offset.checked_add(size).filter(|&end| end < limit) else {
            return false;
        };
        for cluster in offset >> bits..=(end - 1) >> bits {
            self.add_one(cluster, times);
        }
        true
    }

    fn add_one(&self, cluster: u64, times: u64) {
        let Some(counter) = self.counter(cluster) else {
            return;
        };
        if cluster >= self.clusters {
            self.grown.store(true, Ordering::Relaxed);
        }
        let low = u16::try_from(times & 0xffff).unwrap_or(0);
        let before = counter.fetch_add(low, Ordering::Relaxed);
        let carry = (times >> 16) + u64::from(before.checked_add(low).is_none());
        if carry > 0 {
            let mut carries = self.carries.lock().unwrap_or_else(PoisonError::into_inner);
            let carried = carries.entry(cluster).or_insert(0);
            *carried = carried.saturating_add(carry).min(1 << 47);
        }
    }

    fn counter(&self, cluster: u64) -> Option<&AtomicU16> {
        let chunk = self
            .chunks
            .get(usize::try_from(cluster >> CHUNK_BITS).ok()?)?;
        let counters = chunk.get_or_init(|| {
            (0..1usize << CHUNK_BITS)
                .map(|_| AtomicU16::new(0))
                .collect()
        });
        counters.get(usize::try_from(cluster & ((1 << CHUNK_BITS) - 1)).ok()?)
    }

    /// How often `cluster` is used.
    pub(in crate::image::qcow2) fn count(&self, cluster: u64) -> u64 {
        let low = self.low(cluster);
        // Only counts that overflowed are in the map, and those are few.
        let carries = self.carries.lock().unwrap_or_else(PoisonError::into_inner);
        let carry = carries.get(&cluster).copied().unwrap_or(0);
        (carry << 16) + u64::from(low)
    }

    fn low(&self, cluster: u64) -> u16 {
        usize::try_from(cluster >> CHUNK_BITS)
            .ok()
            .and_then(|chunk| self.chunks.get(chunk)?.get())
            .and_then(|chunk| chunk.get(usize::try_from(cluster & ((1 << CHUNK_BITS) - 1)).ok()?))
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Whether any cluster in `first..end` may be used; false is certain.
    pub(in crate::image::qcow2) fn any(&self, first: u64, end: u64) -> bool {
        let chunks = (first >> CHUNK_BITS)..=(end.saturating_sub(1) >> CHUNK_BITS);
        chunks
            .filter_map(|chunk| self.chunks.get(usize::try_from(chunk).ok()?))
            .any(|chunk| chunk.get().is_some())
    }

    /// The counts once counting is over: no lock is taken for each.
    pub(in crate::image::qcow2) fn settled(&self) -> Settled<'_> {
        let carries = self.carries.lock().unwrap_or_else(PoisonError::into_inner);
        Settled {
            references: self,
            carries: carries.clone(),
        }
    }
}

/// Counts that do not change any more.
#[derive(Debug)]
pub(in crate::image::qcow2) struct Settled<'a> {
    references: &'a References,
    carries: HashMap<u64, u64>,
}

impl Settled<'_> {
    /// How often `cluster` is used.
    pub(in crate::image::qcow2) fn count(&self, cluster: u64) -> u64 {
        let low = u64::from(self.references.low(cluster));
        if self.carries.is_empty() {
            return low;
        }
        let carry = self.carries.get(&cluster).copied().unwrap_or(0);
        (carry << 16) + low
    }

    /// As [`References::any`].
    pub(in crate::image::qcow2) fn any(&self, first: u64, end: u64) -> bool {
        self.references.any(first, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_beyond_sixteen_bits_are_exact() {
        let bits = ClusterBits::new(9).unwrap();
        let references = References::new(bits, 512 * 10);
        for _ in 0..3 {
            assert!(references.add(512, 1024, 65535));
        }
        assert!(references.add(1024, 1, 1 << 40));
        assert_eq!(references.count(0), 0);
        assert_eq!(references.count(1), 3 * 65535);
        assert_eq!(references.settled().count(2), 3 * 65535 + (1 << 40));
        assert_eq!(references.count(3), 0);
    }

    #[test]
    fn less_than_a_cluster_behind_the_end_counts() {
        let bits = ClusterBits::new(9).unwrap();
        let references = References::new(bits, 1000);
        assert_eq!(references.clusters(), 2);
        assert!(!references.add(1000, 512, 1));
        assert!(!references.add(u64::MAX - 3, 4, 1));
        assert!(references.add(1024, 100, 1));
        assert_eq!(references.clusters(), 3);
        assert_eq!(references.count(2), 1);
    }
}
