//! Free maps: ranges that nothing in a guest uses, as its filesystems say.
//!
//! Plain data. A free map may only under-report: what is not in it is in use.
//! That is also how its memory stays bounded, whatever an image says: of too
//! many ranges the shortest are forgotten.

use std::ops::Range;

/// Ranges kept at most, in a map or while it is made: 32 MiB.
const MOST_RANGES: usize = 1 << 21;

/// Sorted byte ranges that are free; they neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FreeMap {
    ranges: Vec<Range<u64>>,
}

impl FreeMap {
    /// The ranges, in order.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Whether nothing is known to be free.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Free bytes.
    pub fn total(&self) -> u64 {
        self.ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }

    /// Whether the byte at `at` is free, and up to where all bytes are as it is (`u64::MAX` behind the last range).
    pub fn at(&self, at: u64) -> (bool, u64) {
        let next = self.ranges.partition_point(|range| range.end <= at);
        match self.ranges.get(next) {
            None => (false, u64::MAX),
            Some(range) if range.start <= at => (true, range.end),
            Some(range) => (false, range.start),
        }
    }

    /// The free parts of `range`, in order.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self.ranges.partition_point(|free| free.end <= range.start);
        self.ranges[first..]
            .iter()
            .take_while({
                let end = range.end;
                move |free| free.start < end
            })
            .map(move |free| free.start.max(range.start)..free.end.min(range.end))
    }

    /// Whether all of `range` is free.
    pub fn covers(&self, range: Range<u64>) -> bool {
        range.is_empty() || matches!(self.at(range.start), (true, end) if end >= range.end)
    }
}

/// Makes a [`FreeMap`] of ranges that come in any order.
#[derive(Debug)]
pub struct FreeMapBuilder {
    free: Ranges,
    used: Ranges,
}

impl Default for FreeMapBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl FreeMapBuilder {
    /// Nothing is free yet.
    pub fn new() -> Self {
        Self::with_limit(MOST_RANGES)
    }

    fn with_limit(limit: usize) -> Self {
        Self {
            free: Ranges::new(limit),
            used: Ranges::new(limit),
        }
    }

    /// Says that `range` is free. Cheapest in ascending order.
    pub fn free(&mut self, range: Range<u64>) {
        self.free.push(range);
        if self.free.is_full() {
            self.free.forget_short();
        }
    }

    /// Says that `range` is in use, whatever [`FreeMapBuilder::free`] said or will say.
    pub fn used(&mut self, range: Range<u64>) {
        self.used.push(range);
        if self.used.is_full() {
            self.used.bridge_gaps();
        }
    }

    /// What is free and not in use.
    pub fn build(mut self) -> FreeMap {
        self.free.tidy();
        self.used.tidy();
        if self.used.list.is_empty() {
            return FreeMap {
                ranges: self.free.list,
            };
        }
        let mut left = Ranges::new(self.free.limit);
        let mut used = self.used.list.iter().peekable();
        for free in self.free.list {
            let mut at = free.start;
            while let Some(range) = used.peek() {
                if range.start >= free.end {
                    break;
                }
                if range.start > at {
                    left.push(at..range.start);
                }
                at = at.max(range.end);
                if range.end > free.end {
                    break;
                }
                used.next();
            }
            if at < free.end {
                left.push(at..free.end);
            }
            if left.is_full() {
                left.forget_short();
            }
        }
        FreeMap { ranges: left.list }
    }
}

/// Ranges in the making.
#[derive(Debug)]
struct Ranges {
    list: Vec<Range<u64>>,
    limit: usize,
    sorted: bool,
    /// Shorter ranges (or gaps) than this are no longer told apart.
    least: u64,
}

impl Ranges {
    fn new(limit: usize) -> Self {
        Self {
            list: Vec::new(),
            limit,
            sorted: true,
            least: 512,
        }
    }

    fn push(&mut self, range: Range<u64>) {
        if range.start >= range.end {
            return;
        }
        match self.list.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            Some(last) => {
                self.sorted &= last.end < range.start;
                self.list.push(range);
            }
            None => self.list.push(range),
        }
    }

    fn is_full(&self) -> bool {
        self.list.len() >= self.limit
    }

    /// Sorts, and joins what overlaps or touches.
    fn tidy(&mut self) {
        if self.sorted {
            return;
        }
        self.list.sort_unstable_by_key(|range| range.start);
        self.join(0);
        self.sorted = true;
    }

    fn join(&mut self, gap: u64) {
        self.list.dedup_by(|next, last| {
            let joins = next.start <= last.end.saturating_add(gap);
            if joins {
                last.end = last.end.max(next.end);
            }
            joins
        });
    }

    /// Forgets the shortest ranges until half of them are left.
    fn forget_short(&mut self) {
        self.tidy();
        while self.list.len() > self.limit / 2 {
            self.least = self.least.saturating_mul(2);
            let least = self.least;
            self.list.retain(|range| range.end - range.start >= least);
        }
    }

    /// Takes the shortest gaps for part of the ranges around them until half of them are left.
    fn bridge_gaps(&mut self) {
        self.tidy();
        while self.list.len() > self.limit / 2 {
            self.least = self.least.saturating_mul(2);
            self.join(self.least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(free: &[Range<u64>], used: &[Range<u64>]) -> FreeMap {
        let mut builder = FreeMapBuilder::new();
        for range in free {
            builder.free(range.clone());
        }
        for range in used {
            builder.used(range.clone());
        }
        builder.build()
    }

    #[test]
    fn what_is_in_use_wins() {
        let free = [100..200, 0..50, 50..60, 300..400];
        let used = [150..160, 190..320, 20..20, 55..58, 399..500];
        let map = map(&free, &used);
        assert_eq!(map.ranges(), [0..55, 58..60, 100..150, 160..190, 320..399]);
        assert_eq!(map.total(), 55 + 2 + 50 + 30 + 79);
        assert_eq!(map.at(0), (true, 55));
        assert_eq!(map.at(55), (false, 58));
        assert_eq!(map.at(399), (false, u64::MAX));
        assert!(map.covers(160..190) && !map.covers(160..191) && map.covers(7..7));
        assert_eq!(
            map.within(50..101).collect::<Vec<_>>(),
            [50..55, 58..60, 100..101]
        );
    }

    #[test]
    fn one_range_in_use_spans_many_free_ones() {
        let free: Vec<_> = (0..100).map(|n| n * 10..n * 10 + 5).collect();
        let used = std::slice::from_ref(&(3..983));
        assert_eq!(map(&free, used).ranges(), [0..3, 983..985, 990..995]);
    }

    #[test]
    fn too_many_ranges_lose_the_shortest_and_gain_nothing() {
        let mut builder = FreeMapBuilder::with_limit(64);
        let mut all = 0;
        for n in 0..10_000_u64 {
            let start = n * (1 << 20);
            let length = 512 << (n % 9);
            builder.free(start..start + length);
            builder.used(start + 256..start + 257);
            all += length;
        }
        let map = builder.build();
        assert!(map.ranges().len() <= 64 && map.total() < all);
        for range in map.ranges() {
            assert!(range.start % (1 << 20) + (range.end - range.start) <= 512 << 8);
        }
    }
}
