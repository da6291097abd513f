//! Blocks of the filesystem as they are, or as they will be once the journal was replayed.

use std::collections::BTreeMap;
use std::ops::Range;

use super::superblock::{LENGTH, PLACE};
use crate::fs::Refusal;
use crate::volume::Volume;

/// The first bytes of a block of the journal; data that begins with them is stored without.
pub(super) const JOURNAL_MAGIC: [u8; 4] = [0xc0, 0x3b, 0x39, 0x98];

/// Where the journal has a newer copy of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy {
    /// The volume's byte at which it begins.
    pub(super) at: u64,
    /// Its first four bytes were those of the journal's magic, and zeros stand for them.
    pub(super) escaped: bool,
}

/// Reads blocks.
#[derive(Debug)]
pub(super) struct Blocks<'a, 'v> {
    pub(super) volume: &'a Volume<'v>,
    block_size: usize,
    newer: BTreeMap<u64, Copy>,
}

impl<'a, 'v> Blocks<'a, 'v> {
    /// Blocks as they are.
    pub(super) fn new(volume: &'a Volume<'v>, block_size: usize) -> Self {
        Self::replayed(volume, block_size, BTreeMap::new())
    }

    /// Blocks as they will be.
    pub(super) fn replayed(
        volume: &'a Volume<'v>,
        block_size: usize,
        newer: BTreeMap<u64, Copy>,
    ) -> Self {
        Self {
            volume,
            block_size,
            newer,
        }
    }

    /// Where the journal has newer copies of blocks.
    pub(super) fn into_newer(self) -> BTreeMap<u64, Copy> {
        self.newer
    }

    /// Bytes of a block.
    pub(super) fn block_length(&self) -> usize {
        self.block_size
    }

    /// `count` blocks from `block` on; the caller bounds `count`.
    pub(super) fn read(&self, block: u64, count: usize) -> Result<Vec<u8>, Refusal> {
        let outside = || Refusal::damaged(format!("ext4 block {block} lies outside the volume"));
        let at = block
            .checked_mul(self.block_size as u64)
            .ok_or_else(outside)?;
        let mut bytes = self
            .volume
            .read_vec(at, count.saturating_mul(self.block_size))?;
        for (&place, copy) in self.newer.range(block..block.saturating_add(count as u64)) {
            let skipped = usize::try_from(place - block).unwrap_or(usize::MAX);
            let place = bytes.chunks_exact_mut(self.block_size).nth(skipped);
            if let Some(place) = place {
                self.volume.read_at(copy.at, place)?;
                if copy.escaped
                    && let Some(first) = place.first_chunk_mut()
                {
                    *first = JOURNAL_MAGIC;
                }
            }
        }
        Ok(bytes)
    }

    /// The first blocks of `range` that follow each other and that the image or the journal has; what is before them
    /// reads as zeros. Empty, at its end, when there are none.
    pub(super) fn first_written(&self, range: Range<u64>) -> Result<Range<u64>, Refusal> {
        let size = (self.block_size as u64).max(1);
        let mut at = range.start;
        while at < range.end {
            let bytes = at.saturating_mul(size)..range.end.saturating_mul(size);
            let (has_data, end) = self.volume.has_data(bytes)?;
            if has_data {
                return Ok(at..end.div_ceil(size).min(range.end));
            }
            // A block of which the image has a part counts as there.
            let end = (end / size).max(at);
            if let Some((&newer, _)) = self.newer.range(at..end).next() {
                return Ok(newer..newer + 1);
            }
            if end == at {
                return Ok(at..at + 1);
            }
            at = end;
        }
        Ok(range.end..range.end)
    }

    /// The superblock's bytes.
    pub(super) fn superblock(&self) -> Result<Vec<u8>, Refusal> {
        let place = usize::try_from(PLACE).unwrap_or(0);
        let first = (PLACE / (self.block_size as u64).max(1)).min(1);
        let skipped = if first == 0 { place } else { 0 };
        let mut bytes = self.read(first, 1)?;
        bytes.drain(..skipped.min(bytes.len()));
        bytes.truncate(LENGTH);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Image;
    use super::*;

    #[test]
    fn a_newer_copy_stands_for_its_block_and_has_its_first_bytes_back() {
        let mut disk = Image::make("2M", "-t ext2 -b 1024").disk();
        disk.patch(100 << 10, &[1, 2, 3, 4, 5, 6]);
        disk.patch(101 << 10, &[7]);
        let volume = Volume::whole(&disk);
        let copy = |escaped| Copy {
            at: 100 << 10,
            escaped,
        };
        let newer = BTreeMap::from([(501, copy(true)), (502, copy(false)), (503, copy(true))]);
        let blocks = Blocks::replayed(&volume, 1024, newer);
        let read = blocks.read(500, 3).unwrap();
        assert_eq!(read.len(), 3 << 10);
        assert!(read.iter().take(1024).all(|&byte| byte == 0));
        assert_eq!(read[1024..1030], [0xc0, 0x3b, 0x39, 0x98, 5, 6]);
        assert_eq!(read[2048..2054], [1, 2, 3, 4, 5, 6]);
        assert_eq!(blocks.read(101, 1).unwrap()[0], 7);
        assert!(blocks.read(2048, 1).is_err() && blocks.read(u64::MAX, 2).is_err());
    }
}
