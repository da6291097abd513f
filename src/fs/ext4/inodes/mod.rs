//! All inodes in use, held against what the block bitmaps say is free.
//!
//! Without `metadata_csum` a bitmap has no checksum. One that lost a block and gained another contradicts no count; only
//! the inode that has the lost block tells. So all inode tables are read, but for their ends that a descriptor with a
//! checksum says were never used and for what the image has nothing of, and where a block that an inode has is free,
//! nothing of the filesystem is believed.
//!
//! Which inodes are in use is told by more than the inode bitmap, as that has no checksum either. An inode counts as in
//! use when any of these says so:
//!
//! - It has links. That is what e2fsck goes by, whatever the bitmap and the time of deletion say.
//! - It has a mode and no time of deletion. Whoever deletes an inode writes the time; e2fsck finds fault with an inode
//!   without either links or that time.
//! - Its bit in the bitmap is set. So it is with inodes that were deleted while open: they have no links, and keep their
//!   place in the list of such inodes where the time would be. Also the filesystem's own inodes may have neither links
//!   nor mode, as the list of bad blocks has not.
//!
//! What is left are deleted inodes. They may still name blocks, which are rightly free or another's.
//!
//! Source: `e2fsck/pass1.c` and `lib/ext2fs/inode.c` of e2fsprogs.

mod claims;

#[cfg(test)]
mod tests;

use super::blocks::Blocks;
use super::group::Group;
use super::superblock::Superblock;
use crate::fields::Fields;
use crate::free::FreeMap;
use crate::fs::Refusal;

use claims::{Claims, names_nothing};

/// Bytes of a table that are read at once.
const READ_AT_ONCE: u64 = 1 << 20;

/// Refuses a map in which blocks of any inode in use are free.
///
/// # Errors
/// Such a block; blocks outside the filesystem; trees of blocks that cannot be read.
pub(super) fn require_in_use(
    blocks: &Blocks<'_, '_>,
    superblock: &Superblock,
    free: &FreeMap,
) -> Result<(), Refusal> {
    let mut claims = Claims::new(blocks, superblock, free);
    for number in 0..superblock.descriptor_blocks() {
        for group in Group::read_block(blocks, superblock, number)? {
            require_of_group(blocks, superblock, &group, &mut claims)?;
        }
    }
    Ok(())
}

fn require_of_group(
    blocks: &Blocks<'_, '_>,
    superblock: &Superblock,
    group: &Group,
    claims: &mut Claims<'_, '_, '_>,
) -> Result<(), Refusal> {
    let written = group.written_inodes(superblock).ok_or_else(|| {
        Refusal::damaged(format!(
            "ext4 group {}: its descriptor counts more unused inodes than there are",
            group.number
        ))
    })?;
    let per_block = superblock.block_size / superblock.inode_size;
    let at_once = (READ_AT_ONCE / superblock.block_size).max(1);
    let size = usize::try_from(superblock.inode_size).unwrap_or(128);
    let mut rest = group.inode_table.clone();
    rest.end = rest.start + written.div_ceil(per_block);
    let mut bits = Bits::new(group);
    loop {
        let mut piece = blocks.first_written(rest.clone())?;
        piece.end = piece.end.min(piece.start + at_once);
        if piece.is_empty() {
            return Ok(());
        }
        rest.start = piece.end;
        let count = usize::try_from(piece.end - piece.start).unwrap_or(0);
        let bytes = blocks.read(piece.start, count)?;
        let first = (piece.start - group.inode_table.start) * per_block;
        for (index, inode) in (first..written).zip(bytes.chunks_exact(size)) {
            let inode = Fields(inode);
            if names_nothing(superblock, inode)
                || !looks_in_use(inode) && !bits.is_set(blocks, index)?
            {
                continue;
            }
            let number = group.number * superblock.inodes_per_group + index + 1;
            claims.require_of(number, inode)?;
        }
    }
}

/// Whether an inode says itself that it is in use.
fn looks_in_use(inode: Fields<'_>) -> bool {
    let (mode, links, deleted) = (inode.le16(0), inode.le16(0x1a), inode.le32(0x14));
    links != 0 || mode != 0 && deleted == 0
}

/// The inode bitmap of a group, read once it is asked for.
struct Bits {
    place: u64,
    bytes: Option<Vec<u8>>,
}

impl Bits {
    fn new(group: &Group) -> Self {
        Self {
            place: group.inode_bitmap,
            bytes: None,
        }
    }

    fn is_set(&mut self, blocks: &Blocks<'_, '_>, index: u64) -> Result<bool, Refusal> {
        let bytes = match &mut self.bytes {
            Some(bytes) => bytes,
            none => none.insert(blocks.read(self.place, 1)?),
        };
        let at = usize::try_from(index / 8).unwrap_or(usize::MAX);
        // As many bits as there are inodes fit into a block.
        Ok(Fields(bytes).u8(at) >> (index % 8) & 1 != 0)
    }
}
