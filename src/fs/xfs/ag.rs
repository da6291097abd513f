//! The headers of an allocation group: free space and free list.
//!
//! Source: `struct xfs_agf` and `struct xfs_agfl` of the kernel's `fs/xfs/libxfs/xfs_format.h`.

use super::checksum::is_sound;
use super::superblock::Superblock;
use crate::fields::Fields;
use crate::fs::Refusal;
use crate::volume::Volume;

/// `XFS_BTREE_MAXLEVELS`.
const MOST_LEVELS: u32 = 9;

/// A root and how many levels it stands on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root {
    pub(super) block: u32,
    pub(super) levels: u32,
}

/// What an allocation group says of its free space.
#[derive(Debug, Clone)]
pub(super) struct FreeHeader {
    /// Free extents by where they begin, and by how long they are.
    pub(super) by_block: Root,
    pub(super) by_count: Root,
    /// Blocks in those trees, and the longest of their extents.
    pub(super) free_blocks: u64,
    pub(super) longest: u64,
    /// Blocks of the trees of free space and reverse mappings, without the roots.
    pub(super) btree_blocks: u64,
    /// Of them, those of reverse mappings, the root with them.
    pub(super) rmap_blocks: u64,
    /// Blocks set aside for those trees: in no tree, and not free either.
    pub(super) free_list: Vec<u32>,
}

impl FreeHeader {
    /// Reads and checks the headers of group `ag`.
    pub(super) fn read(
        volume: &Volume<'_>,
        superblock: &Superblock,
        ag: u64,
    ) -> Result<Self, Refusal> {
        let damaged = |what: &str| {
            Refusal::damaged(format!(
                "xfs allocation group {ag}: its free space header {what}"
            ))
        };
        let sector = usize::try_from(superblock.sector_size).unwrap_or(0);
        let start = superblock
            .byte_of(ag, 0)
            .ok_or_else(|| damaged("lies nowhere"))?;
        let headers = volume.read_vec(start, sector.saturating_mul(4))?;
        let fields = Fields(Fields(&headers).slice(sector, sector));
        if fields.array(0) != *b"XAGF" || fields.be32(4) != 1 {
            return Err(damaged("is not there"));
        }
        if superblock.v5 {
            if !is_sound(fields, 216) {
                return Err(damaged("fails its checksum"));
            }
            if fields.array(64) != superblock.meta_uuid {
                return Err(damaged("belongs to another filesystem"));
            }
        }
        let length = superblock.ag_length(ag);
        if u64::from(fields.be32(8)) != ag || u64::from(fields.be32(12)) != length {
            return Err(damaged("belongs to another group"));
        }
        let root = |block, levels| {
            let (block, levels) = (fields.be32(block), fields.be32(levels));
            ((1..=MOST_LEVELS).contains(&levels) && u64::from(block) < length)
                .then_some(Root { block, levels })
                .ok_or_else(|| damaged("has a root that lies nowhere"))
        };
        let list = Fields(Fields(&headers).slice(sector.saturating_mul(3), sector));
        let free_list = free_list(fields, list, superblock, ag).ok_or_else(|| {
            Refusal::damaged(format!(
                "xfs allocation group {ag}: its free list is damaged"
            ))
        })?;
        if free_list.iter().any(|&block| u64::from(block) >= length) {
            return Err(Refusal::damaged(format!(
                "xfs allocation group {ag}: its free list names a block outside"
            )));
        }
        Ok(Self {
            by_block: root(16, 28)?,
            by_count: root(20, 32)?,
            free_blocks: u64::from(fields.be32(52)),
            longest: u64::from(fields.be32(56)),
            btree_blocks: u64::from(fields.be32(60)),
            rmap_blocks: if superblock.rmapbt {
                u64::from(fields.be32(80))
            } else {
                0
            },
            free_list,
        })
    }
}

/// Blocks on the free list, a ring; `None` when it or what the header says of it cannot be right.
fn free_list(
    header: Fields<'_>,
    list: Fields<'_>,
    superblock: &Superblock,
    ag: u64,
) -> Option<Vec<u32>> {
    let entries_at = if superblock.v5 { 36 } else { 0 };
    if superblock.v5 {
        let sound = list.array(0) == *b"XAFL"
            && is_sound(list, 32)
            && u64::from(list.be32(4)) == ag
            && list.array(8) == superblock.meta_uuid;
        if !sound {
            return None;
        }
    }
    let size = list.0.len().checked_sub(entries_at)? / 4;
    let first = usize::try_from(header.be32(40)).ok()?;
    let last = usize::try_from(header.be32(44)).ok()?;
    let count = usize::try_from(header.be32(48)).ok()?;
    if first >= size || last >= size || count > size {
        return None;
    }
    // An empty ring looks like a full one, but for the count.
    let span = if last >= first {
        last - first
    } else {
        last + size - first
    } + 1;
    if count != 0 && span != count {
        return None;
    }
    let entries = (0..count).map(|n| list.be32(entries_at + (first + n) % size * 4));
    Some(entries.collect())
}
