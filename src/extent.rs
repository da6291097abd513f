//! Extents: maximal guest ranges with one kind of allocation.
//!
//! The only word between formats and operations. Knows neither.

use std::ops::Range;

use crate::codec::CompressionType;

/// What stands behind a guest range in one view of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentKind {
    /// Bytes stored as they are.
    Data,
    /// Whole compressed clusters.
    Compressed(CompressionType),
    /// Reads as zeros, and hides a backing file.
    Zero,
    /// Nothing: a backing file shows through, else zeros.
    Unallocated,
}

/// A guest range of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First guest byte.
    pub start: u64,
    /// Length in bytes, never 0.
    pub length: u64,
    /// What stands behind it.
    pub kind: ExtentKind,
    /// Where `start` is stored, in bytes of its file; also set for preallocated zeros.
    pub host: Option<u64>,
    /// Which layer of a backing chain answers: 0 is the image itself.
    pub depth: u32,
}

impl Extent {
    /// One past the last guest byte.
    pub fn end(&self) -> u64 {
        self.start + self.length
    }

    /// The guest range.
    pub fn range(&self) -> Range<u64> {
        self.start..self.end()
    }

    /// The part before guest offset `end`, which lies behind `start`.
    #[must_use]
    pub fn clipped(mut self, end: u64) -> Self {
        self.length = self.length.min(end.saturating_sub(self.start));
        self
    }

    /// Appends `next` when it follows in guest and host and is of the same kind.
    pub fn absorb(&mut self, next: &Extent) -> bool {
        let host_follows = match (self.host, next.host) {
            (None, None) => true,
            (Some(host), Some(next)) => host.checked_add(self.length) == Some(next),
            _ => false,
        };
        let follows = self.end() == next.start
            && self.kind == next.kind
            && self.depth == next.depth
            && host_follows;
        if follows {
            self.length += next.length;
        }
        follows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(start: u64, length: u64, host: u64) -> Extent {
        Extent {
            start,
            length,
            kind: ExtentKind::Data,
            host: Some(host),
            depth: 0,
        }
    }

    #[test]
    fn extents_join_only_when_both_sides_follow() {
        let mut first = data(0, 512, 4096);
        assert!(first.absorb(&data(512, 512, 4608)));
        assert_eq!(first.length, 1024);
        assert!(!first.absorb(&data(1024, 512, 0)));
        assert!(!first.absorb(&data(2048, 512, 5120)));
    }
}
