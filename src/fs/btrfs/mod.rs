//! btrfs on one device: what it is, and which of its device is free.
//!
//! A filesystem cuts its device into chunks, and keeps data and trees in those, once or twice. What lies in no chunk is
//! free: the device tree lists every piece that is taken, the chunk tree maps them, and both are compared. What lies in
//! chunks is free when the extent tree and the free space tree say so with one voice; without the latter it is kept.
//!
//! Nothing is ever written over in place: the superblock names a consistent state, whatever happened after it. Only
//! the log of fsync(2) may know more, so it has to be empty.

mod chunks;
mod groups;
mod superblock;
mod tree;

#[cfg(test)]
mod tests;

use crate::fields::Fields;
use crate::free::FreeMapBuilder;
use crate::fs::{FreeOptions, FreeSpace, Identity, Refusal};
use crate::volume::Volume;

use chunks::{Chunk, ChunkMap, Stripe};
use superblock::Superblock;
use tree::{Item, Key, Root, walk};

/// Owners of trees (`include/uapi/linux/btrfs_tree.h`).
const ROOT_TREE: u64 = 1;
const CHUNK_TREE: u64 = 3;
const DEVICE_TREE: u64 = 4;

/// Types of items.
/// `BTRFS_TREE_RELOC_OBJECTID`.
const RELOCATION_TREE: u64 = 8_u64.wrapping_neg();
const ROOT_ITEM: u8 = 132;
const DEVICE_EXTENT: u8 = 204;
const DEVICE_REPLACE: u8 = 250;

/// `BTRFS_DEVICE_RANGE_RESERVED`: boot loaders may use it.
const RESERVED: u64 = 1 << 20;
/// `BTRFS_STRIPE_LEN`: a copy of the superblock has that much for itself.
const COPY: u64 = 64 << 10;

/// What the superblock says of itself; `None` when there is none.
///
/// # Errors
/// Whatever the image fails with.
pub(super) fn identify(volume: &Volume<'_>) -> crate::Result<Option<Identity>> {
    superblock::identify(volume)
}

/// What belongs to no chunk, and what is free in each.
///
/// # Errors
/// More than one device; a log that was not replayed; features that are not known; whatever contradicts itself.
pub(super) fn free_space(volume: &Volume<'_>, _: &FreeOptions) -> Result<FreeSpace, Refusal> {
    let superblock = Superblock::read(volume)?;
    superblock.require_known_free_space(volume)?;
    let chunks = ChunkMap::read(volume, &superblock)?;
    let extents = device_extents(volume, &superblock, &chunks)?;

    let mut map = FreeMapBuilder::new();
    map.used(0..RESERVED);
    for copy in superblock::COPIES {
        map.used(copy..copy + COPY);
    }
    let mut at = 0;
    for stripe in &extents {
        map.free(at..stripe.physical);
        at = stripe.bytes().end;
    }
    map.free(at..superblock.device_bytes);
    if !superblock.has_free_space_tree() {
        return Ok(FreeSpace {
            free: map.build(),
            note: Some("no free space tree: free space inside of its chunks is kept".into()),
        });
    }
    if is_unfinished(volume, &superblock, &chunks)? {
        return Ok(FreeSpace {
            free: map.build(),
            note: Some(
                "a subvolume is still being deleted, or a balance under way: free space inside of its chunks is kept"
                    .into(),
            ),
        });
    }
    for group in groups::free(volume, &superblock, &chunks)? {
        for stripe in group.chunk.on_device() {
            // Both are inside of the chunk, and that is inside of the device.
            let place = |logical: u64| stripe.physical + (logical - stripe.logical);
            for free in &group.free {
                map.free(place(free.start)..place(free.end));
            }
        }
    }
    Ok(FreeSpace {
        free: map.build(),
        note: None,
    })
}

/// Every piece of the device that a chunk is made of, in the device's order.
fn device_extents(
    volume: &Volume<'_>,
    superblock: &Superblock,
    chunks: &ChunkMap,
) -> Result<Vec<Stripe>, Refusal> {
    let root = root_of(volume, superblock, chunks, DEVICE_TREE)?;
    let mut extents = Vec::new();
    walk(volume, superblock, chunks, &root, &mut |item: Item<'_>| {
        match item.key.kind {
            DEVICE_EXTENT if item.key.object == superblock.device => {
                if item.data.len() < 32 {
                    return Err(Refusal::damaged("btrfs device extent is cut off"));
                }
                let fields = Fields(item.data);
                extents.push(Stripe {
                    physical: item.key.offset,
                    length: fields.le64(24),
                    logical: fields.le64(16),
                });
            }
            DEVICE_EXTENT => {
                return Err(Refusal::unsupported("btrfs with extents of another device"));
            }
            // `struct btrfs_dev_replace_item`: started, or suspended.
            DEVICE_REPLACE if matches!(Fields(item.data).le64(32), 1 | 4) => {
                return Err(Refusal::dirty("btrfs is replacing a device"));
            }
            _ => {}
        }
        Ok(())
    })?;
    let mut last = 0;
    let mut taken = 0_u64;
    for stripe in &extents {
        let end = stripe.physical.checked_add(stripe.length);
        match end.filter(|&end| end <= superblock.device_bytes) {
            Some(end) if stripe.physical >= last && stripe.length > 0 => last = end,
            _ => return Err(Refusal::damaged("btrfs has impossible device extents")),
        }
        taken = taken.saturating_add(stripe.length);
    }
    if taken != superblock.device_used {
        return Err(Refusal::damaged(format!(
            "btrfs device counts {} bytes in use, its extents {taken}",
            superblock.device_used
        )));
    }
    let mut stripes: Vec<Stripe> = chunks.list().iter().flat_map(Chunk::on_device).collect();
    stripes.sort_by_key(|stripe| stripe.physical);
    if stripes != extents {
        return Err(Refusal::damaged(
            "btrfs chunks and device extents contradict each other",
        ));
    }
    Ok(extents)
}

/// Whether a tree is half gone: one that the kernel is still deleting, or to which a balance moves extents. What was
/// taken from such a tree is free already, though some of what is left of it still names it.
fn is_unfinished(
    volume: &Volume<'_>,
    superblock: &Superblock,
    chunks: &ChunkMap,
) -> Result<bool, Refusal> {
    let mut unfinished = false;
    walk(volume, superblock, chunks, &superblock.root, &mut |item| {
        if item.key.kind == ROOT_ITEM {
            let fields = Fields(item.data);
            // `refs` and `drop_progress` of `struct btrfs_root_item`.
            let is_deleted = fields.le32(216) == 0;
            let is_being_dropped = fields.slice(220, Key::SIZE).iter().any(|&byte| byte != 0);
            unfinished |= is_deleted || is_being_dropped || item.key.object == RELOCATION_TREE;
        }
        Ok(())
    })?;
    Ok(unfinished)
}

/// The root of the tree that is called `owner`.
fn root_of(
    volume: &Volume<'_>,
    superblock: &Superblock,
    chunks: &ChunkMap,
    owner: u64,
) -> Result<Root, Refusal> {
    let mut found = None;
    walk(volume, superblock, chunks, &superblock.root, &mut |item| {
        if item.key.object == owner && item.key.kind == ROOT_ITEM {
            // `struct btrfs_root_item`, whose first 160 bytes are an inode.
            let fields = Fields(item.data);
            if item.data.len() < 239 || found.is_some() {
                return Err(Refusal::damaged("btrfs has an impossible root"));
            }
            found = Some(Root {
                owner,
                at: fields.le64(176),
                generation: fields.le64(160),
                level: fields.u8(238),
            });
        }
        Ok(())
    })?;
    found.ok_or_else(|| Refusal::damaged(format!("btrfs has no tree {owner}")))
}
