//! Where things go in a new image: host clusters, packed streams, and the
//! reference counts of both.
//!
//! Knows host clusters and counts. Must not write, and must not know guest
//! offsets.

use super::format::{ClusterBits, RefcountOrder};

/// Room behind streams that is kept for smaller ones.
const MAX_FRAGMENTS: usize = 16;
/// Less room than this is not worth keeping.
const MIN_FRAGMENT: u64 = 64;

/// Hands out host space in ascending order; nothing is ever freed.
#[derive(Debug)]
pub(super) struct Allocator {
    cluster_bits: ClusterBits,
    /// References of each host cluster so far.
    counts: Vec<u16>,
    /// Greatest count that the image can store.
    limit: u16,
    /// Room at the end of the last cluster that holds streams.
    open: std::ops::Range<u64>,
    fragments: Vec<std::ops::Range<u64>>,
    /// Clusters set aside so that plain clusters do not interrupt the streams.
    reserved: std::ops::Range<u64>,
    /// How many are set aside at once; 0 when no streams are written.
    reserve: u64,
}

impl Allocator {
    pub(super) fn new(cluster_bits: ClusterBits, order: RefcountOrder, reserve: u64) -> Self {
        Self {
            cluster_bits,
            counts: Vec::new(),
            limit: u16::try_from(order.max()).unwrap_or(u16::MAX),
            open: 0..0,
            fragments: Vec::new(),
            reserved: 0..0,
            reserve,
        }
    }

    /// First host cluster that was never handed out.
    pub(super) fn end(&self) -> u64 {
        self.counts.len() as u64
    }

    /// The references of host cluster `cluster`.
    pub(super) fn counts(&self) -> &[u16] {
        &self.counts
    }

    /// `count` new clusters in a row, each with one reference; the first one's number.
    pub(super) fn append(&mut self, count: u64) -> u64 {
        let first = self.end();
        let length = self.counts.len() + usize::try_from(count).unwrap_or(0);
        self.counts.resize(length, 1);
        first
    }

    /// One cluster for plain data.
    pub(super) fn plain(&mut self) -> u64 {
        if self.reserve == 0 {
            return self.append(1);
        }
        if self.reserved.is_empty() {
            let first = self.append(self.reserve);
            self.reserved = first..first + self.reserve;
            for cluster in self.reserved.clone() {
                self.set(cluster, 0);
            }
        }
        self.set_aside().unwrap_or_default()
    }

    /// One cluster out of those set aside and not used, else a new one: for metadata, when all data is placed.
    pub(super) fn metadata(&mut self) -> u64 {
        self.set_aside().unwrap_or_else(|| self.append(1))
    }

    /// Clusters for the refcount blocks and for the refcount table, which count themselves too. The last to be handed out.
    pub(super) fn refcount_metadata(
        &mut self,
        order: RefcountOrder,
    ) -> (Vec<u64>, std::ops::Range<u64>) {
        let per_block = order.entries_per_block(self.cluster_bits);
        let mut blocks = Vec::new();
        let mut table = 0..0;
        // Each grows with what the other takes, until both are stable.
        loop {
            let tables = self.cluster_bits.clusters_for(blocks.len() as u64 * 8);
            if (blocks.len() as u64) < self.end().div_ceil(per_block) {
                blocks.push(self.metadata());
            } else if table.end - table.start < tables {
                for cluster in table {
                    self.set(cluster, 0);
                }
                let first = if tables == 1 {
                    self.metadata()
                } else {
                    self.append(tables)
                };
                table = first..first + tables;
            } else {
                return (blocks, table);
            }
        }
    }

    fn set_aside(&mut self) -> Option<u64> {
        let cluster = self.reserved.next()?;
        self.set(cluster, 1);
        Some(cluster)
    }

    fn set(&mut self, cluster: u64, count: u16) {
        if let Ok(index) = usize::try_from(cluster) {
            self.counts[index] = count;
        }
    }

    fn clusters(&self, host: u64, length: u64) -> std::ops::RangeInclusive<usize> {
        let index =
            |host: u64| usize::try_from(host >> self.cluster_bits.bits()).unwrap_or(usize::MAX);
        index(host)..=index(host + length.max(1) - 1)
    }

    fn count_at(&self, host: u64) -> u16 {
        let cluster = usize::try_from(host >> self.cluster_bits.bits()).unwrap_or(usize::MAX);
        self.counts.get(cluster).copied().unwrap_or(0)
    }

    fn is_full(&self, host: u64) -> bool {
        self.count_at(host) >= self.limit
    }

    /// Whether a descriptor has as many sectors as `length` bytes at `host` touch.
    fn is_in_reach(&self, host: u64, length: u64) -> bool {
        (host % 512 + length).div_ceil(512) <= self.cluster_bits.size() / 256
    }

    /// Room for a stream of `length` bytes, directly behind the last one where possible; its host offset.
    pub(super) fn stream(&mut self, length: u64) -> u64 {
        let fragment = (0..self.fragments.len()).find(|&index| {
            let fragment = &self.fragments[index];
            fragment.end - fragment.start >= length
                && !self.is_full(fragment.start)
                && self.is_in_reach(fragment.start, length)
        });
        let host = match fragment {
            Some(index) => {
                let fragment = &mut self.fragments[index];
                let host = fragment.start;
                fragment.start += length;
                if fragment.end - fragment.start < MIN_FRAGMENT {
                    self.fragments.remove(index);
                }
                host
            }
            None => {
                // The longest streams must start where a sector does.
                let phase = (!self.is_in_reach(self.open.start, length)).then_some(0);
                self.at_end(length, phase)
            }
        };
        for cluster in self.clusters(host, length) {
            self.counts[cluster] += 1;
        }
        host
    }

    /// Room for streams in a row, each given by its distance from the first and the bytes it may reach; the host offset
    /// of the first, which lies at `phase` within its sector.
    ///
    /// `None` when a count might not fit: the streams must then be placed one by one.
    pub(super) fn run(&mut self, streams: &[(u64, u64)], length: u64, phase: u16) -> Option<u64> {
        let count = u16::try_from(streams.len()).ok()?;
        let open = self.count_at(self.open.start);
        if open
            .checked_add(count)
            .is_none_or(|count| count > self.limit)
        {
            return None;
        }
        let host = self.at_end(length, Some(phase));
        for &(distance, reach) in streams {
            for cluster in self.clusters(host + distance, reach) {
                self.counts[cluster] += 1;
            }
        }
        Some(host)
    }

    fn at_end(&mut self, length: u64, phase: Option<u16>) -> u64 {
        let bits = self.cluster_bits.bits();
        if !self.open.is_empty() && self.is_full(self.open.start) {
            self.open = 0..0;
        }
        if let Some(phase) = phase {
            let ahead = (u64::from(phase) + 512 - self.open.start % 512) % 512;
            self.open.start = self.open.start.saturating_add(ahead).min(self.open.end);
        }
        let fits = self.open.end - self.open.start >= length;
        let extends = self.open.end == self.end() << bits;
        if !fits && !extends {
            // Something else stands behind the open cluster: its room waits for a small stream.
            if self.open.end - self.open.start >= MIN_FRAGMENT {
                if self.fragments.len() == MAX_FRAGMENTS {
                    self.fragments.remove(0);
                }
                self.fragments.push(self.open.clone());
            }
            self.open = 0..0;
        }
        let stream_length = length;
        let mut length = length;
        if self.open.is_empty() {
            let start = self.end() << bits;
            self.open = start..start;
            // Nothing stands before it in a new cluster, but what its place in the sector asks for.
            length += u64::from(phase.unwrap_or(0));
        }
        let missing = length.saturating_sub(self.open.end - self.open.start);
        let clusters = self.cluster_bits.clusters_for(missing);
        let first = self.append(clusters);
        for cluster in first..first + clusters {
            self.set(cluster, 0);
        }
        self.open.end += clusters << bits;
        let end = self.open.start + length;
        self.open.start = end;
        end - stream_length
    }

    /// Counts one more reference to the stream at `host`; false when a count would not fit.
    pub(super) fn share(&mut self, host: u64, length: u64) -> bool {
        let clusters = self.clusters(host, length);
        if self.counts[clusters.clone()]
            .iter()
            .any(|&count| count >= self.limit)
        {
            return false;
        }
        for cluster in clusters {
            self.counts[cluster] += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocator(order: u32, reserve: u64) -> Allocator {
        let bits = ClusterBits::new(12).unwrap();
        Allocator::new(bits, RefcountOrder::new(order).unwrap(), reserve)
    }

    #[test]
    fn streams_are_packed_without_gaps() {
        let mut allocator = allocator(4, 4);
        assert_eq!(allocator.stream(3000), 0);
        assert_eq!(allocator.stream(3000), 3000);
        assert_eq!(allocator.counts(), [2, 1]);
    }

    #[test]
    fn a_plain_cluster_interrupts_once_and_the_room_is_used() {
        let mut allocator = allocator(4, 4);
        assert_eq!(allocator.stream(3000), 0);
        assert_eq!(allocator.plain(), 1);
        assert_eq!(allocator.plain(), 2);
        assert_eq!(allocator.stream(3000), 5 << 12);
        assert_eq!(allocator.stream(1000), 3000);
        assert_eq!(allocator.metadata(), 3);
        assert_eq!(allocator.counts(), [2, 1, 1, 1, 0, 1]);
    }

    #[test]
    fn a_row_does_not_overflow_the_counts_of_the_room_it_goes_to() {
        let mut allocator = allocator(1, 2);
        for _ in 0..3 {
            allocator.stream(100);
        }
        allocator.plain();
        assert_eq!(allocator.run(&[(0, 100), (100, 100)], 200, 0), None);
        assert_eq!(allocator.counts(), [3, 1, 0]);
    }

    #[test]
    fn a_row_keeps_its_place_within_a_sector() {
        let mut allocator = allocator(4, 2);
        allocator.stream(100);
        let host = allocator.run(&[(0, 900), (800, 500)], 1300, 7).unwrap();
        assert_eq!(host, 519);
        assert_eq!(
            allocator.run(&[(0, 4096), (4000, 1000)], 5000, 9).unwrap() % 512,
            9
        );
        assert_eq!(allocator.counts(), [4, 2]);
    }

    #[test]
    fn a_row_of_streams_never_overflows_the_count_of_an_older_cluster() {
        // Two bits: at most 3 references.
        let mut allocator = allocator(1, 4);
        allocator.stream(100);
        allocator.stream(100);
        allocator.plain();
        assert_eq!(allocator.run(&[(0, 100), (100, 100)], 200, 200), None);
        assert!(allocator.run(&[(0, 100)], 100, 200).is_some());
        assert!(allocator.counts().iter().all(|&count| count <= 3));
    }

    #[test]
    fn the_longest_stream_starts_where_its_descriptor_reaches_its_end() {
        let bits = ClusterBits::new(9).unwrap();
        let mut allocator = Allocator::new(bits, RefcountOrder::DEFAULT, 0);
        assert_eq!(allocator.stream(300), 0);
        // Two sectors are all that a descriptor has.
        assert_eq!(allocator.stream(1000), 512);
        assert_eq!(allocator.stream(17), 1512);
    }

    #[test]
    fn one_bit_counts_hold_one_stream_a_cluster() {
        let mut allocator = allocator(0, 0);
        assert_eq!(allocator.stream(100), 0);
        assert_eq!(allocator.stream(100), 1 << 12);
        assert!(!allocator.share(0, 100));
        assert_eq!(allocator.counts(), [1, 1]);
    }
}
