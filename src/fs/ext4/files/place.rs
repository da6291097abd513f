//! Where an inode is.
//!
//! Source: `ext4_get_inode_loc` of the kernel's `fs/ext4/inode.c`.

use super::blocks::Blocks;
use super::damaged;
use crate::error::Result;
use crate::fields::Fields;
use crate::fs::ext4::superblock::Superblock;

/// The byte of the volume where inode `number` is; `None` when there is no such inode.
pub(super) fn inode_at(
    superblock: &Superblock,
    blocks: &Blocks<'_>,
    number: u64,
) -> Result<Option<u64>> {
    let Some(index) = number
        .checked_sub(1)
        .filter(|_| number <= superblock.inodes)
    else {
        return Ok(None);
    };
    let group = index / superblock.inodes_per_group;
    let per_block = superblock.descriptors_per_block();
    let block = superblock.descriptor_block(group / per_block);
    if block >= superblock.blocks {
        return Ok(None);
    }
    let at = block * superblock.block_size + group % per_block * superblock.descriptor_size;
    let length = usize::try_from(superblock.descriptor_size).unwrap_or(0);
    let bytes = blocks.read(at, length)?;
    let fields = Fields(&bytes);
    // Shorter ones have no upper half.
    let table = u64::from(fields.le32(8));
    let table = if superblock.descriptor_size >= 64 {
        table | u64::from(fields.le32(0x28)) << 32
    } else {
        table
    };
    let inside = index % superblock.inodes_per_group * superblock.inode_size;
    let block = table.saturating_add(inside / superblock.block_size);
    if table <= superblock.first_data_block || block >= superblock.blocks {
        return Err(damaged(format!(
            "ext4 group {group} has its inodes outside the filesystem"
        )));
    }
    Ok(Some(
        block * superblock.block_size + inside % superblock.block_size,
    ))
}
