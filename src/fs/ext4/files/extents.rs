//! Trees of extents: which blocks of a file lie where.
//!
//! Source: `struct ext4_extent_header`, `ext4_extent`, `ext4_extent_idx` and `ext4_extent_tail` of the kernel's
//! `fs/ext4/ext4_extents.h`.

use std::ops::Range;

use super::Run;
use super::blocks::Blocks;
use super::inode::{Inode, corrupt};
use crate::error::Result;
use crate::fields::Fields;
use crate::fs::ext4::checksum::crc32c;
use crate::fs::ext4::superblock::Superblock;

const MAGIC: u16 = 0xf30a;
/// `EXT4_MAX_EXTENT_DEPTH`.
const MOST_LEVELS: u16 = 5;
/// `EXT_INIT_MAX_LEN`: longer ones were never written to.
const LONGEST: u64 = 1 << 15;
/// Bytes of the header and of each entry.
const ENTRY: usize = 12;

#[derive(Debug, Clone, Copy)]
struct Extent {
    first: u64,
    end: u64,
    at: Option<u64>,
}

/// All extents within some of a file's blocks; what none of them has is a hole.
#[derive(Debug)]
pub(super) struct Leaf {
    blocks: Range<u64>,
    extents: Vec<Extent>,
}

impl Leaf {
    /// The part of the tree with this root that says where block `block` of the file is.
    pub(super) fn search(
        blocks: &Blocks<'_>,
        superblock: &Superblock,
        inode: &Inode,
        root: &[u8],
        block: u64,
    ) -> Result<Self> {
        let corrupt = |what| corrupt(inode.number, what);
        let mut range = 0..u64::MAX;
        let mut node = root.to_vec();
        let mut level = Fields(root).le16(6);
        if level > MOST_LEVELS {
            return Err(corrupt("has a tree of extents of an impossible height"));
        }
        loop {
            let fields = Fields(&node);
            let count = usize::from(fields.le16(2));
            let most = usize::from(fields.le16(4));
            let is_own = fields.le16(0) == MAGIC && fields.le16(6) == level;
            if !is_own || count > most || (most + 1) * ENTRY > node.len() {
                return Err(corrupt("has a tree of extents with a block that is none"));
            }
            let entries: Vec<Fields<'_>> = (1..=count)
                .map(|n| Fields(fields.slice(n * ENTRY, ENTRY)))
                .collect();
            if level == 0 {
                let extents = extents(&entries, superblock, &range);
                let extents = extents.ok_or_else(|| corrupt("has impossible extents"))?;
                return Ok(Self {
                    blocks: range,
                    extents,
                });
            }
            let first = |entry: &Fields<'_>| u64::from(entry.le32(0));
            let next = entries.partition_point(|entry| first(entry) <= block);
            // Before the first key there is only a hole, which the first child tells of.
            let chosen = next.saturating_sub(1);
            let Some(entry) = entries.get(chosen) else {
                return Err(corrupt("has an empty block in its tree of extents"));
            };
            if let Some(behind) = entries.get(chosen + 1) {
                range.end = range.end.min(first(behind));
            }
            if chosen > 0 {
                range.start = range.start.max(first(entry));
            }
            let place = u64::from(entry.le16(8)) << 32 | u64::from(entry.le32(4));
            if place == 0 || place >= superblock.blocks {
                return Err(corrupt("has a tree of extents that leads outside"));
            }
            let length = usize::try_from(superblock.block_size).unwrap_or(0);
            node = blocks.read(place * superblock.block_size, length)?;
            level -= 1;
            if let Some(seed) = inode.seed {
                let fields = Fields(&node);
                let tail = (usize::from(fields.le16(4)) + 1) * ENTRY;
                let sum = crc32c(seed, fields.slice(0, tail));
                if tail + 4 > node.len() || fields.le32(tail) != sum {
                    return Err(corrupt("has a tree of extents that fails its checksum"));
                }
            }
        }
    }

    /// Whether it says where `block` is.
    pub(super) fn tells_of(&self, block: u64) -> bool {
        self.blocks.contains(&block)
    }

    /// Where `block` is, and up to which block of the file it goes on like that.
    pub(super) fn find(&self, block: u64) -> Run {
        let next = self.extents.partition_point(|extent| extent.end <= block);
        match self.extents.get(next) {
            Some(extent) if extent.first <= block => Run {
                at: extent.at.map(|at| at + (block - extent.first)),
                end: extent.end,
            },
            Some(extent) => Run {
                at: None,
                end: extent.first,
            },
            None => Run {
                at: None,
                end: self.blocks.end,
            },
        }
    }
}

/// `None` unless they are in order and lie within the filesystem and within `range`.
fn extents(
    entries: &[Fields<'_>],
    superblock: &Superblock,
    range: &Range<u64>,
) -> Option<Vec<Extent>> {
    let mut free_from = range.start;
    let mut list = Vec::with_capacity(entries.len());
    for entry in entries {
        let first = u64::from(entry.le32(0));
        let length = u64::from(entry.le16(4));
        let at = u64::from(entry.le16(6)) << 32 | u64::from(entry.le32(8));
        let (blocks, is_written) = match length {
            LONGEST.. if length > LONGEST => (length - LONGEST, false),
            _ => (length, true),
        };
        let end = first + blocks;
        let fits = blocks > 0
            && first >= free_from
            && end <= range.end
            && at > 0
            && at.checked_add(blocks)? <= superblock.blocks;
        if !fits {
            return None;
        }
        free_from = end;
        list.push(Extent {
            first,
            end,
            at: is_written.then_some(at),
        });
    }
    Some(list)
}
