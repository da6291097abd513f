//! The journal: whether it is empty, and what a replay would write.
//!
//! Nothing is written: a replay gives a map from blocks to their newest copies in the journal.
//!
//! Source: `include/linux/jbd2.h`, `fs/jbd2/journal.c` and `fs/jbd2/recovery.c` of the kernel.

mod area;
mod header;
mod replay;
mod tags;

#[cfg(test)]
mod tests;

use super::blocks::Blocks;
use super::superblock::Superblock;
use crate::fs::Refusal;

use area::Area;
use header::Header;

/// Refuses a journal with something in it although the superblock says that nothing has to be replayed.
pub(super) fn require_empty(
    blocks: &Blocks<'_, '_>,
    superblock: &Superblock,
) -> Result<(), Refusal> {
    if superblock.journal_inode == 0 {
        // On another device, which the superblock alone can speak for.
        return Ok(());
    }
    let area = Area::find(blocks, superblock)?;
    let header = Header::read(blocks, &area)?;
    if header.start != 0 {
        return Err(
            Refusal::damaged("ext4 journal is not empty, but not to be replayed either")
                .with_remedy("run e2fsck on it"),
        );
    }
    Ok(())
}

/// The blocks as they will be once the journal was replayed.
pub(super) fn replay<'a, 'v>(
    blocks: &Blocks<'a, 'v>,
    superblock: &Superblock,
) -> Result<Blocks<'a, 'v>, Refusal> {
    if superblock.journal_inode == 0 || !superblock.features.has_journal() {
        return Err(Refusal::dirty(
            "ext4 needs journal recovery, and its journal is on another device",
        )
        .with_remedy("shut the guest down cleanly"));
    }
    let area = Area::find(blocks, superblock)?;
    let header = Header::read(blocks, &area)?;
    if header.fast_commit() || superblock.features.fast_commit() {
        return Err(Refusal::unsupported(
            "ext4 needs journal recovery, and its journal may hold fast commits",
        )
        .with_remedy("shut the guest down cleanly"));
    }
    let newer = replay::newest_copies(blocks, &area, &header)?;
    Ok(Blocks::replayed(
        blocks.volume,
        superblock.block_length(),
        newer,
    ))
}

fn damaged(what: &str) -> Refusal {
    Refusal::damaged(format!("ext4 journal: {what}"))
}
