//! Where the journal's blocks lie: its inode, and what that says of them.
//!
//! Source: `struct ext4_inode` of the kernel's `fs/ext4/ext4.h` and `fs/ext4/ext4_extents.h`.

use crate::fields::Fields;
use crate::fs::Refusal;
use crate::fs::ext4::blocks::Blocks;
use crate::fs::ext4::checksum::{agree, crc32c};
use crate::fs::ext4::group::Group;
use crate::fs::ext4::superblock::Superblock;

use super::damaged;

/// What mke2fs makes at most.
const MOST_BLOCKS: u64 = 10_240_000;
/// Runs of blocks that are kept at most.
const MOST_RUNS: usize = 1 << 16;
/// Blocks of extents or pointers that are read at most: enough for a journal of that size in blocks of pointers.
const MOST_NODES: u32 = 1 << 16;

const MODE_TYPE: u16 = 0xf000;
const MODE_REGULAR: u16 = 0x8000;
const FLAG_EXTENTS: u32 = 0x8_0000;

const EXTENT_MAGIC: u16 = 0xf30a;
/// `EXT4_MAX_EXTENT_DEPTH`.
const MOST_DEPTH: u16 = 5;
/// `EXT_INIT_MAX_LEN`: longer ones are not written yet.
const LONGEST_EXTENT: u16 = 1 << 15;

/// The journal's blocks in the filesystem, in order.
#[derive(Debug, Clone)]
pub(super) struct Area {
    runs: Vec<Run>,
    blocks: u64,
    /// Blocks of the filesystem, which all of them lie in.
    limit: u64,
}

/// Blocks that follow each other in the journal and in the filesystem.
#[derive(Debug, Clone, Copy)]
struct Run {
    logical: u64,
    physical: u64,
    length: u64,
}

impl Area {
    /// Reads the inode that the superblock names, which nothing in the journal changes.
    pub(super) fn find(blocks: &Blocks<'_, '_>, superblock: &Superblock) -> Result<Self, Refusal> {
        let number = superblock.journal_inode;
        let index = number
            .checked_sub(1)
            .filter(|_| number <= superblock.inodes);
        let index = index.ok_or_else(|| damaged("its inode is not there"))?;
        let group = index / superblock.inodes_per_group;
        let per_block = superblock.descriptors_per_block();
        let groups = Group::read_block(blocks, superblock, group / per_block)?;
        let group = groups.iter().find(|other| other.number == group);
        let group = group.ok_or_else(|| damaged("its inode is not there"))?;
        let at = index % superblock.inodes_per_group * superblock.inode_size;
        let table = blocks.read(group.inode_table.start + at / superblock.block_size, 1)?;
        let at = usize::try_from(at % superblock.block_size).unwrap_or(0);
        let size = usize::try_from(superblock.inode_size).unwrap_or(128);
        let inode = Fields(Fields(&table).slice(at, size));
        let seed =
            inode_seed(superblock, inode).ok_or_else(|| damaged("its inode fails its checksum"))?;

        let length = u64::from(inode.le32(0x6c)) << 32 | u64::from(inode.le32(0x4));
        let length = length / superblock.block_size;
        let is_file = inode.le16(0) & MODE_TYPE == MODE_REGULAR && inode.le16(0x1a) > 0;
        if !is_file || length == 0 {
            return Err(damaged("its inode is none of a file"));
        }
        if length > MOST_BLOCKS {
            return Err(Refusal::unsupported(format!(
                "ext4 journal of {length} blocks, more than are read here"
            )));
        }
        let area = Self {
            runs: Vec::new(),
            blocks: length,
            limit: superblock.blocks,
        };
        let root = inode.slice(0x28, 60);
        let mut walk = Walk {
            blocks,
            area,
            nodes: 0,
            seed: superblock.features.metadata_checksums().then_some(seed),
        };
        if inode.le32(0x20) & FLAG_EXTENTS != 0 {
            walk.extents(root, None)?;
        } else {
            walk.pointers(root)?;
        }
        if walk.area.mapped() < length {
            return Err(damaged("its inode does not say where all of it lies"));
        }
        Ok(walk.area)
    }

    /// Its length in blocks.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The filesystem's block at `logical`, and how many follow it.
    pub(super) fn block(&self, logical: u64) -> Option<(u64, u64)> {
        let after = self.runs.partition_point(|run| run.logical <= logical);
        let run = self.runs.get(after.checked_sub(1)?)?;
        let skipped = logical - run.logical;
        let left = run.length.checked_sub(skipped).filter(|&left| left > 0)?;
        Some((run.physical + skipped, left))
    }

    fn mapped(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.logical + run.length)
    }

    /// Appends blocks; there are no holes in a journal.
    fn push(&mut self, logical: u64, physical: u64, length: u64) -> Result<(), Refusal> {
        let end = physical.checked_add(length);
        if logical != self.mapped() || physical == 0 || end.is_none_or(|end| end > self.limit) {
            return Err(damaged("its inode names blocks that cannot be right"));
        }
        match self.runs.last_mut() {
            Some(run) if run.physical + run.length == physical => run.length += length,
            _ => self.runs.push(Run {
                logical,
                physical,
                length,
            }),
        }
        if self.runs.len() > MOST_RUNS {
            return Err(Refusal::unsupported(
                "ext4 journal lies in more pieces than are read here",
            ));
        }
        Ok(())
    }
}

/// The sum that those of the inode's other blocks begin with; `None` when its own is wrong.
fn inode_seed(superblock: &Superblock, inode: Fields<'_>) -> Option<u32> {
    let number = u32::try_from(superblock.journal_inode).ok()?.to_le_bytes();
    let seed = crc32c(crc32c(superblock.seed, &number), inode.slice(0x64, 4));
    if !superblock.features.metadata_checksums() {
        return Some(seed);
    }
    let mut bytes = inode.0.to_vec();
    // `i_extra_isize` says whether the high half is there.
    let has_high = bytes.len() > 128 && inode.le16(0x80) >= 4;
    let mut stored = u32::from(inode.le16(0x7c));
    bytes.get_mut(0x7c..0x7e)?.fill(0);
    if has_high {
        stored |= u32::from(inode.le16(0x82)) << 16;
        bytes.get_mut(0x82..0x84)?.fill(0);
    }
    let mask = if has_high { !0 } else { 0xffff };
    agree(stored, crc32c(seed, &bytes) & mask).then_some(seed)
}

/// Goes through what an inode says of its blocks.
struct Walk<'w, 'a, 'v> {
    blocks: &'w Blocks<'a, 'v>,
    area: Area,
    nodes: u32,
    /// What checksums of nodes begin with, when they have one.
    seed: Option<u32>,
}

impl Walk<'_, '_, '_> {
    /// A node of extents: the root, or one that has to be of `depth`.
    fn extents(&mut self, node: &[u8], depth: Option<u16>) -> Result<(), Refusal> {
        let fields = Fields(node);
        let entries = usize::from(fields.le16(2));
        let most = usize::from(fields.le16(4));
        let own = fields.le16(6);
        let sound = fields.le16(0) == EXTENT_MAGIC
            && entries <= most
            && most <= (node.len() - 12) / 12
            && own <= MOST_DEPTH
            && depth.is_none_or(|depth| depth == own);
        if !sound {
            return Err(damaged("its inode has a damaged extent tree"));
        }
        if let (Some(seed), Some(_)) = (self.seed, depth) {
            let end = 12 + most * 12;
            if !agree(fields.le32(end), crc32c(seed, fields.slice(0, end))) {
                return Err(damaged(
                    "its inode has an extent tree with a wrong checksum",
                ));
            }
        }
        for entry in 1..=entries {
            let entry = Fields(fields.slice(entry * 12, 12));
            if own == 0 {
                let length = entry.le16(4);
                if length == 0 || length > LONGEST_EXTENT {
                    return Err(damaged("its inode has blocks that were never written"));
                }
                let physical = u64::from(entry.le16(6)) << 32 | u64::from(entry.le32(8));
                self.area
                    .push(u64::from(entry.le32(0)), physical, u64::from(length))?;
            } else {
                let child = u64::from(entry.le16(8)) << 32 | u64::from(entry.le32(4));
                let child = self.node(child)?;
                self.extents(&child, Some(own - 1))?;
            }
        }
        Ok(())
    }

    /// The fifteen pointers of an inode: to twelve blocks, and to blocks of pointers one, two and three deep.
    fn pointers(&mut self, root: &[u8]) -> Result<(), Refusal> {
        for (n, pointer) in root.as_chunks::<4>().0.iter().enumerate() {
            let depth = n.saturating_sub(11);
            self.pointer(u64::from(u32::from_le_bytes(*pointer)), depth)?;
        }
        Ok(())
    }

    fn pointer(&mut self, block: u64, depth: usize) -> Result<(), Refusal> {
        if self.area.mapped() >= self.area.blocks {
            return Ok(());
        }
        if depth == 0 {
            return self.area.push(self.area.mapped(), block, 1);
        }
        for pointer in self.node(block)?.as_chunks::<4>().0 {
            self.pointer(u64::from(u32::from_le_bytes(*pointer)), depth - 1)?;
        }
        Ok(())
    }

    fn node(&mut self, block: u64) -> Result<Vec<u8>, Refusal> {
        self.nodes += 1;
        if block == 0 || block >= self.area.limit || self.nodes > MOST_NODES {
            return Err(damaged("its inode names blocks that cannot be right"));
        }
        self.blocks.read(block, 1)
    }
}
