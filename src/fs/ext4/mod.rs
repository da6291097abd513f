//! ext2, ext3 and ext4: what it is, which of its blocks are free, and its files.
//!
//! The truth about free space are the block bitmaps of all groups, unless the journal holds newer ones. Each is checked
//! against its checksum, where there is one, against the counter of its descriptor, and all of them against that of the
//! superblock. Where bitmaps have no checksum the blocks of all inodes are held against them as well. Where metadata lies
//! is computed, and stays in use whatever a bitmap says.

mod bitmap;
mod blocks;
mod checksum;
mod features;
pub(super) mod files;
mod group;
mod inodes;
mod journal;
mod layout;
mod mmp;
mod superblock;

#[cfg(test)]
mod tests;

use crate::free::FreeMapBuilder;
use crate::fs::{FreeOptions, FreeSpace, Identity, Refusal};
use crate::volume::Volume;

use blocks::Blocks;
use superblock::Superblock;

/// What the superblock says of itself; `None` when there is none.
///
/// # Errors
/// Whatever the image fails with.
pub(super) fn identify(volume: &Volume<'_>) -> crate::Result<Option<Identity>> {
    superblock::identify(volume)
}

/// The blocks that the bitmaps of all groups say are free.
///
/// # Errors
/// Anything that a writer would have to know about and this does not; a filesystem that was not cleanly unmounted,
/// unless its journal tells all that is missing and is to be replayed; whatever contradicts itself.
pub(super) fn free_space(volume: &Volume<'_>, options: &FreeOptions) -> Result<FreeSpace, Refusal> {
    let first = volume.read_vec(superblock::PLACE, superblock::LENGTH)?;
    let mut superblock = Superblock::parse(&first, volume.size())?;
    superblock.require_valid_state()?;
    let mut blocks = Blocks::new(volume, superblock.block_length());
    let recover = superblock.features.needs_recovery();
    if recover {
        if !options.replay_journal {
            return Err(unclean("ext4 needs journal recovery"));
        }
        blocks = journal::replay(&blocks, &superblock)?;
        superblock = Superblock::parse(&blocks.superblock()?, volume.size())?;
        superblock.require_valid_state()?;
        if superblock.block_length() != blocks.block_length() {
            return Err(Refusal::damaged("ext4 journal changes the block size"));
        }
    } else if superblock.features.has_journal() {
        journal::require_empty(&blocks, &superblock)?;
    }
    // What is about to be deleted is still in use.
    if superblock.features.orphans() && !options.replay_journal {
        return Err(unclean("ext4 has files that were deleted while open"));
    }

    let mut map = FreeMapBuilder::new();
    if superblock.features.mmp() {
        mmp::require_left(&blocks, &superblock)?;
        let block = superblock.mmp_block;
        map.used(superblock.bytes(block..block + 1));
    }
    let clusters = bitmap::enter_groups(&blocks, &superblock, &mut map)?;
    let free = clusters.checked_mul(superblock.cluster_blocks);
    // While mounted the superblock's counter is written now and then: the groups' are journalled, it is not.
    if !recover && free != Some(superblock.free_blocks) {
        return Err(Refusal::damaged(format!(
            "ext4 superblock counts {} free blocks, its groups {}",
            superblock.free_blocks,
            free.unwrap_or(u64::MAX)
        )));
    }
    let free = map.build();
    if !superblock.features.metadata_checksums() {
        inodes::require_in_use(&blocks, &superblock, &free)?;
    }
    Ok(FreeSpace {
        free,
        note: recover.then(|| "journal replayed in memory".into()),
    })
}

fn unclean(reason: &'static str) -> Refusal {
    Refusal::dirty(reason)
        .with_remedy("shut the guest down cleanly, or have the journal read with --replay-journal")
}
