//! The two trees of an allocation group's free extents: by where they begin (bnobt) and by length (cntbt).
//!
//! Source: "short form" B+trees of the "XFS Algorithms & Data Structures" document, `struct xfs_btree_block` and
//! `struct xfs_alloc_rec` of the kernel's `fs/xfs/libxfs/xfs_format.h`.

use super::ag::Root;
use super::checksum::is_sound;
use super::superblock::Superblock;
use crate::fields::Fields;
use crate::fs::Refusal;
use crate::volume::Volume;

/// `NULLAGBLOCK`: no sibling there.
const NONE: u32 = u32::MAX;

/// Which of the two trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    ByBlock,
    ByCount,
}

/// A free extent: blocks of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FreeExtent {
    pub(super) start: u32,
    pub(super) count: u32,
}

impl FreeExtent {
    fn read(fields: Fields<'_>, at: usize) -> Self {
        Self {
            start: fields.be32(at),
            count: fields.be32(at.saturating_add(4)),
        }
    }

    pub(super) fn end(self) -> u64 {
        u64::from(self.start) + u64::from(self.count)
    }
}

/// All of a tree, in few words: two trees of the same extents have the same sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) extents: u64,
    pub(super) blocks: u64,
    pub(super) longest: u64,
    /// Hashes of all extents added up, so that their order does not matter.
    mix: u64,
}

impl Sum {
    fn add(&mut self, extent: FreeExtent) {
        self.extents = self.extents.saturating_add(1);
        self.blocks = self.blocks.saturating_add(u64::from(extent.count));
        self.longest = self.longest.max(u64::from(extent.count));
        // The finalizer of SplitMix64: each bit of the extent turns half the bits of the sum.
        let mut hash = u64::from(extent.start) << 32 | u64::from(extent.count);
        hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.mix = self.mix.wrapping_add(hash ^ hash >> 31);
    }
}

/// A walk through one tree, all nodes of it.
///
/// Every block is checked against its neighbours at its level and the key in its parent. A block names the one to its
/// left, and only the first has none there: so none can come twice, and the walk ends whatever the tree says.
#[derive(Debug)]
pub(super) struct Walk<'a, 'v> {
    pub(super) volume: &'a Volume<'v>,
    pub(super) superblock: &'a Superblock,
    pub(super) ag: u64,
    pub(super) order: Order,
}

/// What the walk has seen of a level: its last block so far and what that says is to its right.
#[derive(Debug, Clone, Copy)]
struct Level {
    block: u32,
    right: u32,
}

/// A child to visit: its level (leaves are 0), its place, the key its parent has for it.
#[derive(Debug, Clone, Copy)]
struct Child {
    level: usize,
    block: u32,
    key: Option<FreeExtent>,
}

impl Walk<'_, '_> {
    /// Gives every block of the tree to `on_block` and every extent to `on_extent`, in order.
    pub(super) fn run(
        &self,
        root: Root,
        on_block: &mut dyn FnMut(u32),
        on_extent: &mut dyn FnMut(FreeExtent) -> Result<(), Refusal>,
    ) -> Result<Sum, Refusal> {
        let height = usize::try_from(root.levels).unwrap_or(0);
        let mut levels: Vec<Option<Level>> = vec![None; height];
        let mut sum = Sum::default();
        let mut last: Option<FreeExtent> = None;
        let mut block = vec![0; self.superblock.block_length()];
        let mut pending = vec![Child {
            level: height.saturating_sub(1),
            block: root.block,
            key: None,
        }];
        while let Some(child) = pending.pop() {
            self.read(child.block, &mut block)?;
            on_block(child.block);
            let fields = Fields(&block);
            let is_root = child.level + 1 == height;
            let entries = self.check(child, fields, is_root, &mut levels)?;
            let header = self.header();
            if child.level > 0 {
                let pointers = header + 8 * self.most_entries(child.level);
                for n in (0..entries).rev() {
                    pending.push(Child {
                        level: child.level - 1,
                        block: fields.be32(pointers + 4 * n),
                        key: Some(FreeExtent::read(fields, header + 8 * n)),
                    });
                }
                continue;
            }
            for n in 0..entries {
                let extent = FreeExtent::read(fields, header + 8 * n);
                let follows = last.is_none_or(|last| self.follows(last, extent));
                if !follows
                    || extent.count == 0
                    || extent.end() > self.superblock.ag_length(self.ag)
                {
                    return Err(self.damaged("has extents out of order", child.block));
                }
                last = Some(extent);
                sum.add(extent);
                on_extent(extent)?;
            }
        }
        if levels.iter().flatten().any(|level| level.right != NONE) {
            return Err(self.damaged("has blocks that no node leads to", root.block));
        }
        Ok(sum)
    }

    fn read(&self, block: u32, buffer: &mut [u8]) -> Result<(), Refusal> {
        let at = self.superblock.byte_of(self.ag, u64::from(block));
        let at = at.ok_or_else(|| self.damaged("leads outside its group", block))?;
        Ok(self.volume.read_at(at, buffer)?)
    }

    /// Checks a block and where it stands; the number of its records or children.
    fn check(
        &self,
        child: Child,
        fields: Fields<'_>,
        is_root: bool,
        levels: &mut [Option<Level>],
    ) -> Result<usize, Refusal> {
        let damaged = |what| self.damaged(what, child.block);
        let magic = match (self.order, self.superblock.v5) {
            (Order::ByBlock, false) => b"ABTB",
            (Order::ByBlock, true) => b"AB3B",
            (Order::ByCount, false) => b"ABTC",
            (Order::ByCount, true) => b"AB3C",
        };
        if fields.array(0) != *magic {
            return Err(damaged("has a block that is none of its own"));
        }
        if self.superblock.v5 {
            if !is_sound(fields, 52) {
                return Err(damaged("has a block that fails its checksum"));
            }
            let at = self.superblock.byte_of(self.ag, u64::from(child.block));
            let own = fields.array(32) == self.superblock.meta_uuid
                && u64::from(fields.be32(48)) == self.ag
                && at.is_some_and(|at| fields.be64(16) == at / 512);
            if !own {
                return Err(damaged("has a block that belongs elsewhere"));
            }
        }
        let entries = usize::from(fields.be16(6));
        let fits = entries <= self.most_entries(child.level);
        let empty = entries == 0 && !(is_root && child.level == 0);
        if usize::from(fields.be16(4)) != child.level || !fits || empty {
            return Err(damaged("has a block of another level"));
        }
        let (left, right) = (fields.be32(8), fields.be32(12));
        let Some(level) = levels.get_mut(child.level) else {
            return Err(damaged("is too deep"));
        };
        let chained = match level {
            None => left == NONE,
            Some(level) => level.right == child.block && left == level.block,
        };
        if !chained || (is_root && right != NONE) {
            return Err(damaged("has neighbours that do not know each other"));
        }
        *level = Some(Level {
            block: child.block,
            right,
        });
        let first = FreeExtent::read(fields, self.header());
        let keyed = child.key.is_none_or(|key| match self.order {
            Order::ByBlock => key.start == first.start,
            Order::ByCount => key == first,
        });
        if !keyed {
            return Err(damaged("has a node that does not know its child"));
        }
        Ok(entries)
    }

    fn follows(&self, last: FreeExtent, next: FreeExtent) -> bool {
        match self.order {
            // Extents that touch would be one.
            Order::ByBlock => u64::from(next.start) > last.end(),
            Order::ByCount => (next.count, next.start) > (last.count, last.start),
        }
    }

    /// Bytes before a block's records or keys.
    fn header(&self) -> usize {
        if self.superblock.v5 { 56 } else { 16 }
    }

    /// Records of a leaf, or children of a node, at most.
    fn most_entries(&self, level: usize) -> usize {
        let room = self.superblock.block_length().saturating_sub(self.header());
        if level == 0 { room / 8 } else { room / 12 }
    }

    fn damaged(&self, what: &str, block: u32) -> Refusal {
        let tree = match self.order {
            Order::ByBlock => "by block",
            Order::ByCount => "by length",
        };
        Refusal::damaged(format!(
            "xfs allocation group {}: its free space tree {tree} {what} (block {block:#x})",
            self.ag
        ))
    }
}

#[cfg(test)]
mod tests;
