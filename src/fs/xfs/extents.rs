//! Extents of a file: which of its blocks lie where.
//!
//! Source: `struct xfs_bmbt_rec`, `struct xfs_bmdr_block` and "long form" B+trees of the "XFS Algorithms & Data
//! Structures" document, chapter "Data Extents".

use std::ops::Range;

use super::checksum::is_sound;
use super::inode::{Fork, Inode, corrupt};
use super::superblock::Superblock;
use crate::error::Result;
use crate::fields::Fields;
use crate::volume::Volume;

/// More than `XFS_BM_MAXLEVELS` ever is.
const MOST_LEVELS: u16 = 9;

/// Blocks of a file that lie in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Its first block in the file, and how many they are.
    pub(super) first: u64,
    pub(super) blocks: u64,
    /// Byte of the volume; nothing was ever written there when there is none.
    pub(super) at: Option<u64>,
}

impl Extent {
    fn end(self) -> u64 {
        self.first + self.blocks
    }

    /// All records in `bytes`; `None` unless they are in order and lie within the filesystem and within `range`.
    pub(super) fn list(
        bytes: &[u8],
        superblock: &Superblock,
        range: Range<u64>,
    ) -> Option<Vec<Self>> {
        let mut free_from = range.start;
        let mut list = Vec::with_capacity(bytes.len() / 16);
        for record in bytes.chunks_exact(16) {
            let fields = Fields(record);
            let (high, low) = (fields.be64(0), fields.be64(8));
            let blocks = low & 0x1f_ffff;
            let (ag, block) = superblock.split((high & 0x1ff) << 43 | low >> 21);
            let at = superblock.byte_of(ag, block)?;
            let extent = Self {
                first: high >> 9 & ((1 << 54) - 1),
                blocks,
                at: (high >> 63 == 0).then_some(at),
            };
            let fits = blocks > 0
                && block.checked_add(blocks)? <= superblock.ag_length(ag)
                && extent.first >= free_from
                && extent.end() <= range.end;
            if !fits {
                return None;
            }
            free_from = extent.end();
            list.push(extent);
        }
        Some(list)
    }
}

/// The part of a tree of extents that is in the inode: its highest level.
#[derive(Debug, Clone)]
pub(super) struct Root {
    level: u16,
    /// Keys and where their blocks are.
    children: Vec<(u64, u64)>,
}

impl Root {
    pub(super) fn parse(fork: &[u8]) -> Self {
        let fields = Fields(fork);
        Self {
            level: fields.be16(0),
            children: children(fields, 4, fork.len(), fields.be16(2)),
        }
    }
}

/// At most as many children as there is room for.
fn children(fields: Fields<'_>, header: usize, length: usize, count: u16) -> Vec<(u64, u64)> {
    let most = length.saturating_sub(header) / 16;
    (0..usize::from(count).min(most))
        .map(|n| {
            let key = header + 8 * n;
            (fields.be64(key), fields.be64(key + 8 * most))
        })
        .collect()
}

/// All extents within some of a file's blocks; what none of them has is a hole.
#[derive(Debug, Clone, Default)]
pub(super) struct Leaf {
    blocks: Range<u64>,
    extents: Vec<Extent>,
}

impl Leaf {
    /// The part of `inode` that says where its block `block` is.
    pub(super) fn read(
        volume: &Volume<'_>,
        superblock: &Superblock,
        inode: &Inode,
        block: u64,
    ) -> Result<Self> {
        match &inode.fork {
            Fork::Extents(extents) => Ok(Self {
                blocks: 0..u64::MAX,
                extents: extents.clone(),
            }),
            Fork::Btree(root) => Self::search(volume, superblock, inode, root, block),
            Fork::Local(_) | Fork::Special => Err(corrupt(inode.number, "has no extents")),
        }
    }

    fn search(
        volume: &Volume<'_>,
        superblock: &Superblock,
        inode: &Inode,
        root: &Root,
        block: u64,
    ) -> Result<Self> {
        let corrupt = |what| corrupt(inode.number, what);
        let mut blocks = 0..u64::MAX;
        let mut list = root.children.clone();
        if !(1..=MOST_LEVELS).contains(&root.level) {
            return Err(corrupt("has a tree of extents of an impossible height"));
        }
        let mut bytes = vec![0; superblock.block_length()];
        for level in (0..root.level).rev() {
            let next = list.partition_point(|(key, _)| *key <= block);
            // Before the first key there is only a hole, which the first child tells of.
            let chosen = next.saturating_sub(1);
            let Some(&(key, place)) = list.get(chosen) else {
                return Err(corrupt("has an empty block in its tree of extents"));
            };
            if let Some(&(end, _)) = list.get(chosen + 1) {
                blocks.end = blocks.end.min(end);
            }
            if chosen > 0 {
                blocks.start = blocks.start.max(key);
            }
            let (ag, place) = superblock.split(place);
            let at = superblock.byte_of(ag, place);
            let at = at.ok_or_else(|| corrupt("has a tree of extents that leads outside"))?;
            volume.read_at(at, &mut bytes)?;
            let fields = Fields(&bytes);
            let header = if superblock.v5 { 72 } else { 24 };
            let magic = if superblock.v5 { b"BMA3" } else { b"BMAP" };
            if fields.array(0) != *magic || fields.be16(4) != level {
                return Err(corrupt(
                    "has a tree of extents with a block that is none of its own",
                ));
            }
            if superblock.v5 {
                if !is_sound(fields, 64) {
                    return Err(corrupt("has a tree of extents that fails its checksum"));
                }
                let own = fields.be64(24) == at / 512
                    && fields.array(40) == superblock.meta_uuid
                    && fields.be64(56) == inode.number;
                if !own {
                    return Err(corrupt("has a tree of extents that belongs elsewhere"));
                }
            }
            let count = fields.be16(6);
            if level > 0 {
                list = children(fields, header, bytes.len(), count);
                continue;
            }
            let records = bytes
                .get(header..)
                .and_then(|rest| rest.get(..usize::from(count) * 16));
            let extents =
                records.and_then(|records| Extent::list(records, superblock, blocks.clone()));
            return Ok(Self {
                blocks,
                extents: extents.ok_or_else(|| corrupt("has impossible extents"))?,
            });
        }
        Err(corrupt("has a tree of extents without leaves"))
    }

    /// Whether it says where `block` is.
    pub(super) fn tells_of(&self, block: u64) -> bool {
        self.blocks.contains(&block)
    }

    /// The byte of the volume where `block` is, and up to which block of the file it goes on like that.
    pub(super) fn find(&self, block: u64, block_size: u64) -> (Option<u64>, u64) {
        let next = self.extents.partition_point(|extent| extent.end() <= block);
        match self.extents.get(next) {
            Some(extent) if extent.first <= block => {
                let inside = (block - extent.first) * block_size;
                (extent.at.map(|at| at + inside), extent.end())
            }
            Some(extent) => (None, extent.first),
            None => (None, self.blocks.end),
        }
    }

    /// The extents that it knows, in the order of the file.
    pub(super) fn extents(&self) -> &[Extent] {
        &self.extents
    }
}
