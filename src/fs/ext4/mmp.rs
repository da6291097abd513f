//! Multiple mount protection: whether some host says that it has the filesystem mounted.
//!
//! Source: `struct mmp_struct` of the kernel's `fs/ext4/ext4.h`.

use super::blocks::Blocks;
use super::checksum::{agree, crc32c};
use super::superblock::Superblock;
use crate::fields::Fields;
use crate::fs::Refusal;

const MAGIC: u32 = 0x004d_4d50;
/// `EXT4_MMP_SEQ_CLEAN`.
const CLEAN: u32 = 0xff4d_4d50;

/// Refuses unless the last host left it.
pub(super) fn require_left(
    blocks: &Blocks<'_, '_>,
    superblock: &Superblock,
) -> Result<(), Refusal> {
    let damaged = || Refusal::damaged("ext4 mount protection block is damaged");
    if !(superblock.first_data_block..superblock.blocks).contains(&superblock.mmp_block) {
        return Err(damaged());
    }
    let block = blocks.read(superblock.mmp_block, 1)?;
    let fields = Fields(&block);
    let sum = crc32c(superblock.seed, fields.slice(0, 1020));
    let summed = superblock.features.metadata_checksums();
    if fields.le32(0) != MAGIC || summed && !agree(fields.le32(1020), sum) {
        return Err(damaged());
    }
    if fields.le32(4) != CLEAN {
        return Err(Refusal::dirty(
            "ext4 mount protection says that a host or e2fsck has it in use",
        )
        .with_remedy("shut the guest down cleanly"));
    }
    Ok(())
}
