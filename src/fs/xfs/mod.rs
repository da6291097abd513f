//! XFS, versions 4 and 5: what it is and which of its blocks are free.
//!
//! The truth about free space are two B+trees in each allocation group, of the same extents in two orders. Both are
//! walked as a whole and compared, with each other and with every count that the headers keep; a log that holds more
//! than the record of an unmount means that they may not be the truth.

mod ag;
mod checksum;
mod extents;
pub(super) mod files;
mod free_btree;
mod inode;
mod log;
mod superblock;

#[cfg(test)]
mod tests;

use crate::free::FreeMapBuilder;
use crate::fs::{FreeOptions, FreeSpace, Identity, Refusal};
use crate::volume::Volume;

use ag::FreeHeader;
use free_btree::{Order, Walk};
use log::Log;
use superblock::Superblock;

/// What the superblock says of itself; `None` when there is none.
///
/// # Errors
/// Whatever the image fails with.
pub(super) fn identify(volume: &Volume<'_>) -> crate::Result<Option<Identity>> {
    superblock::identify(volume)
}

/// The blocks that both free space trees of all allocation groups have.
///
/// # Errors
/// Anything that a writer would have to know about and this does not; a log that was not written back; whatever
/// contradicts itself.
pub(super) fn free_space(volume: &Volume<'_>, _: &FreeOptions) -> Result<FreeSpace, Refusal> {
    let superblock = Superblock::read(volume)?;
    superblock.require_known_free_space()?;
    let log = Log::new(volume, &superblock)?;
    log.require_clean()?;

    let mut map = FreeMapBuilder::new();
    map.used(log.bytes());
    let mut free_blocks = 0_u64;
    for ag in 0..superblock.ag_count {
        free_blocks = free_blocks.saturating_add(free_in(volume, &superblock, ag, &log, &mut map)?);
    }
    if free_blocks != superblock.free_blocks {
        return Err(Refusal::damaged(format!(
            "xfs superblock counts {} free blocks, its allocation groups {free_blocks}",
            superblock.free_blocks
        )));
    }
    Ok(FreeSpace {
        free: map.build(),
        note: None,
    })
}

/// Enters what is free in group `ag`; as many blocks as the superblock counts for it.
fn free_in(
    volume: &Volume<'_>,
    superblock: &Superblock,
    ag: u64,
    log: &Log<'_, '_>,
    map: &mut FreeMapBuilder,
) -> Result<u64, Refusal> {
    let header = FreeHeader::read(volume, superblock, ag)?;
    let size = superblock.block_size;
    // Inside the volume: the whole group is.
    let start = superblock.byte_of(ag, 0).unwrap_or_default();
    let bytes = |from: u64, to: u64| start + from * size..start + to * size;
    let headers = (4 * superblock.sector_size).div_ceil(size);
    map.used(bytes(0, headers));
    for &block in &header.free_list {
        map.used(bytes(u64::from(block), u64::from(block) + 1));
    }

    let mut walk = Walk {
        volume,
        superblock,
        ag,
        order: Order::ByBlock,
    };
    let mut blocks = 0_u64;
    let mut overlaps = false;
    let mut on_metadata = Vec::new();
    let by_block = walk.run(
        header.by_block,
        &mut |block| {
            blocks += 1;
            on_metadata.push(block);
        },
        &mut |extent| {
            let free = bytes(u64::from(extent.start), extent.end());
            let log = log.bytes();
            overlaps |= u64::from(extent.start) < headers;
            overlaps |= free.start < log.end && log.start < free.end;
            map.free(free);
            Ok(())
        },
    )?;
    walk.order = Order::ByCount;
    let by_count = walk.run(
        header.by_count,
        &mut |block| {
            blocks += 1;
            on_metadata.push(block);
        },
        &mut |_| Ok(()),
    )?;
    for block in on_metadata {
        map.used(bytes(u64::from(block), u64::from(block) + 1));
    }

    let damaged = |what: &str| {
        Err(Refusal::damaged(format!(
            "xfs allocation group {ag}: {what}"
        )))
    };
    if overlaps {
        return damaged("its headers or the log are among its free blocks");
    }
    if by_block != by_count {
        return damaged("its two free space trees differ");
    }
    if by_block.blocks != header.free_blocks || by_block.longest != header.longest {
        return damaged("its free space trees and its header differ");
    }
    // Both roots are not counted, nor is that of the reverse mappings.
    let trees = (blocks - 2).saturating_add(header.rmap_blocks.saturating_sub(1));
    if superblock.lazy_count && trees != header.btree_blocks {
        return damaged("its free space trees have lost or gained blocks");
    }
    let listed = u64::try_from(header.free_list.len()).unwrap_or(u64::MAX);
    Ok(header
        .free_blocks
        .saturating_add(listed)
        .saturating_add(if superblock.lazy_count {
            header.btree_blocks
        } else {
            trees
        }))
}
