//! The blocks that one inode has: of its contents, of the trees that say where these are, and of its attributes.
//!
//! Lengths of files do not matter: blocks behind the end are allocated as others are.
//!
//! Source: `struct ext4_inode` of the kernel's `fs/ext4/ext4.h`, `ext4_inode_is_fast_symlink` of its `fs/ext4/inode.c`,
//! `fs/ext4/ext4_extents.h`; `struct ext2_inode` of e2fsprogs for GNU Hurd's fields.

use std::ops::Range;

use crate::fields::Fields;
use crate::free::FreeMap;
use crate::fs::Refusal;
use crate::fs::ext4::blocks::Blocks;
use crate::fs::ext4::superblock::Superblock;

const MODE_TYPE: u16 = 0xf000;
const MODE_FIFO: u16 = 0x1000;
const MODE_CHAR_DEVICE: u16 = 0x2000;
const MODE_BLOCK_DEVICE: u16 = 0x6000;
const MODE_SYMLINK: u16 = 0xa000;
const MODE_SOCKET: u16 = 0xc000;

const FLAG_EXTENTS: u32 = 0x8_0000;
const FLAG_INLINE_DATA: u32 = 0x1000_0000;

/// Where block numbers are, and their bytes.
const PLACES_AT: usize = 0x28;
const PLACES: usize = 60;
/// `EXT4_NDIR_BLOCKS`.
const DIRECT: usize = 12;

const EXTENT_MAGIC: u16 = 0xf30a;
/// Bytes of a node's header, and of each of its entries.
const ENTRY: usize = 12;
/// `EXT4_MAX_EXTENT_DEPTH`.
const MOST_DEPTH: u16 = 5;
/// `EXT_INIT_MAX_LEN`: longer extents are not written yet, and as much shorter.
const LONGEST_EXTENT: u64 = 1 << 15;

/// Nodes of trees that are read before it is asked how many there can be.
const NODES_UNASKED: u64 = 1 << 14;

/// Whether an inode names no block at all, in use or not.
pub(super) fn names_nothing(superblock: &Superblock, inode: Fields<'_>) -> bool {
    let places = inode.slice(PLACES_AT, PLACES);
    places.iter().all(|&byte| byte == 0)
        && attributes(superblock, inode) == 0
        && translator(superblock, inode) == 0
}

/// The block of attributes that do not fit into the inode, 0 when there is none.
fn attributes(superblock: &Superblock, inode: Fields<'_>) -> u64 {
    // Others have something else there.
    let high = if superblock.features.wide() {
        inode.le16(0x76)
    } else {
        0
    };
    u64::from(high) << 32 | u64::from(inode.le32(0x68))
}

/// The block that tells GNU Hurd which program stands for the file, 0 when there is none.
fn translator(superblock: &Superblock, inode: Fields<'_>) -> u64 {
    match superblock.hurd {
        true => u64::from(inode.le32(0x24)),
        false => 0,
    }
}

/// Whether there is something else where block numbers would be.
fn has_no_tree(superblock: &Superblock, inode: Fields<'_>) -> bool {
    let inline = superblock.features.inline_data() && inode.le32(0x20) & FLAG_INLINE_DATA != 0;
    match inode.le16(0) & MODE_TYPE {
        MODE_FIFO | MODE_CHAR_DEVICE | MODE_BLOCK_DEVICE | MODE_SOCKET => true,
        MODE_SYMLINK => inline || is_short_link(superblock, inode),
        // Also inodes of no kind: the list of bad blocks is one.
        _ => inline,
    }
}

/// Whether the target of a symbolic link is in its inode: when it fits, and no block is counted but that of attributes.
fn is_short_link(superblock: &Superblock, inode: Fields<'_>) -> bool {
    let attributes = match attributes(superblock, inode) {
        0 => 0,
        _ => superblock.cluster_blocks * superblock.block_size / 512,
    };
    // Blocks of attributes that have inodes of their own are counted as well.
    u64::from(inode.le32(4)) < PLACES as u64
        && (superblock.features.attribute_inodes() || u64::from(inode.le32(0x1c)) == attributes)
}

/// Holds inodes against a map.
pub(super) struct Claims<'c, 'a, 'v> {
    blocks: &'c Blocks<'a, 'v>,
    superblock: &'c Superblock,
    free: &'c FreeMap,
    /// The inode that is looked at.
    number: u64,
    /// Bytes that are not free, around those that were asked for last.
    used: Range<u64>,
    /// Nodes that were read, and how many there can be, as far as is known.
    nodes: u64,
    most_nodes: u64,
    counted: bool,
}

impl<'c, 'a, 'v> Claims<'c, 'a, 'v> {
    pub(super) fn new(
        blocks: &'c Blocks<'a, 'v>,
        superblock: &'c Superblock,
        free: &'c FreeMap,
    ) -> Self {
        Self {
            blocks,
            superblock,
            free,
            number: 0,
            used: 0..0,
            nodes: 0,
            most_nodes: NODES_UNASKED,
            counted: false,
        }
    }

    /// Refuses when a block of this inode, which is in use, is free.
    pub(super) fn require_of(&mut self, number: u64, inode: Fields<'_>) -> Result<(), Refusal> {
        self.number = number;
        for block in [
            attributes(self.superblock, inode),
            translator(self.superblock, inode),
        ] {
            if block != 0 {
                self.require(block, 1)?;
            }
        }
        let root = inode.slice(PLACES_AT, PLACES);
        if has_no_tree(self.superblock, inode) {
            Ok(())
        } else if inode.le32(0x20) & FLAG_EXTENTS != 0 {
            self.require_extents(root, None)
        } else {
            let (direct, trees) = root.split_at_checked(DIRECT * 4).unwrap_or_default();
            self.require_pointers(direct, 0)?;
            let trees = trees.as_chunks::<4>().0.iter();
            trees
                .zip(0..)
                .try_for_each(|(pointer, depth)| self.require_tree(*pointer, depth))
        }
    }

    /// A node of extents: the root, or one that has to be of `depth`.
    fn require_extents(&mut self, node: &[u8], depth: Option<u16>) -> Result<(), Refusal> {
        let fields = Fields(node);
        let entries = usize::from(fields.le16(2));
        let most = usize::from(fields.le16(4));
        let own = fields.le16(6);
        let sound = fields.le16(0) == EXTENT_MAGIC
            && entries <= most
            // The header takes as much room as an entry.
            && most < node.len() / ENTRY
            && own <= MOST_DEPTH
            && depth.is_none_or(|depth| depth == own);
        if !sound {
            return Err(self.damaged("has a damaged extent tree"));
        }
        for entry in 1..=entries {
            let entry = Fields(fields.slice(entry * ENTRY, ENTRY));
            if own == 0 {
                let length = match u64::from(entry.le16(4)) {
                    0 => return Err(self.damaged("has an extent of no length")),
                    length if length > LONGEST_EXTENT => length - LONGEST_EXTENT,
                    length => length,
                };
                let place = u64::from(entry.le16(6)) << 32 | u64::from(entry.le32(8));
                self.require(place, length)?;
            } else {
                let place = u64::from(entry.le16(8)) << 32 | u64::from(entry.le32(4));
                let child = self.node(place)?;
                self.require_extents(&child, Some(own - 1))?;
            }
        }
        Ok(())
    }

    /// A block of pointers, `depth` levels above those to contents; 0 stands for a hole.
    fn require_tree(&mut self, pointer: [u8; 4], depth: u32) -> Result<(), Refusal> {
        match u32::from_le_bytes(pointer) {
            0 => Ok(()),
            block => {
                let node = self.node(u64::from(block))?;
                self.require_pointers(&node, depth)
            }
        }
    }

    fn require_pointers(&mut self, pointers: &[u8], depth: u32) -> Result<(), Refusal> {
        let pointers = pointers.as_chunks::<4>().0.iter();
        if let Some(below) = depth.checked_sub(1) {
            return pointers
                .copied()
                .try_for_each(|pointer| self.require_tree(pointer, below));
        }
        for pointer in pointers {
            match u32::from_le_bytes(*pointer) {
                0 => {}
                block => self.require(u64::from(block), 1)?,
            }
        }
        Ok(())
    }

    /// Reads a node, whose block is the inode's as well.
    fn node(&mut self, block: u64) -> Result<Vec<u8>, Refusal> {
        self.require(block, 1)?;
        self.nodes += 1;
        if self.nodes > self.most_nodes && !self.counted {
            self.counted = true;
            self.most_nodes = self.most_nodes.max(self.written_blocks()?);
        }
        if self.nodes > self.most_nodes {
            return Err(self.damaged("has a block more than once, or another inode has"));
        }
        self.blocks.read(block, 1)
    }

    /// Blocks that the image or the journal has. No node is empty and none belongs to two, so there are not more: trees
    /// that run into themselves end in time.
    fn written_blocks(&self) -> Result<u64, Refusal> {
        let mut rest = 0..self.superblock.blocks;
        let mut count = 0;
        while !rest.is_empty() {
            let written = self.blocks.first_written(rest.clone())?;
            count += written.end - written.start;
            rest.start = written.end;
        }
        Ok(count)
    }

    /// Refuses when any of `count` blocks is free, or lies outside.
    fn require(&mut self, block: u64, count: u64) -> Result<(), Refusal> {
        let end = block.checked_add(count);
        let end = end.filter(|&end| block > 0 && end <= self.superblock.blocks);
        let end = end.ok_or_else(|| self.damaged("has a block outside the filesystem"))?;
        let bytes = self.superblock.bytes(block..end);
        if self.used.start <= bytes.start && bytes.end <= self.used.end {
            return Ok(());
        }
        let (is_free, until) = self.free.at(bytes.start);
        if is_free || until < bytes.end {
            return Err(self.damaged("has blocks that the block bitmap says are free"));
        }
        self.used = bytes.start..until;
        Ok(())
    }

    fn damaged(&self, what: &str) -> Refusal {
        Refusal::damaged(format!("ext4 inode {} {what}", self.number))
            .with_remedy("run e2fsck on it")
    }
}
