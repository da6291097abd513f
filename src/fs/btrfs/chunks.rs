//! Chunks: where logical addresses lie on the device.
//!
//! Source: `struct btrfs_chunk`, `struct btrfs_stripe` and `struct btrfs_dev_item` of the kernel's
//! `include/uapi/linux/btrfs_tree.h`. The few chunks that hold the chunk tree itself are in the superblock.

use std::ops::Range;

use super::superblock::Superblock;
use super::tree::{Item, Key, walk};
use crate::fields::Fields;
use crate::fs::Refusal;
use crate::volume::Volume;

const CHUNK_ITEM: u8 = 228;
const DEVICE_ITEM: u8 = 216;
/// `BTRFS_FIRST_CHUNK_TREE_OBJECTID`.
const CHUNKS: u64 = 256;

const CHUNK_HEADER: usize = 48;
const STRIPE: usize = 32;

/// `BTRFS_BLOCK_GROUP_*`: data, system, metadata; two copies on one device.
const KINDS: u64 = 0b111;
const DUP: u64 = 1 << 5;

/// A piece of the device, and the chunk that it is a copy of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stripe {
    pub(super) physical: u64,
    pub(super) length: u64,
    pub(super) logical: u64,
}

impl Stripe {
    pub(super) fn bytes(self) -> Range<u64> {
        self.physical..self.physical.saturating_add(self.length)
    }
}

/// A run of logical addresses, once or twice on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) logical: u64,
    pub(super) length: u64,
    pub(super) flags: u64,
    first: u64,
    second: Option<u64>,
}

impl Chunk {
    fn parse(superblock: &Superblock, logical: u64, bytes: &[u8]) -> Result<Self, Refusal> {
        let fields = Fields(bytes);
        let flags = fields.le64(24);
        if flags & !(KINDS | DUP) != 0 {
            return Err(Refusal::unsupported(format!(
                "btrfs with a chunk of type {flags:#x}: RAID, or unknown"
            )));
        }
        let copies = if flags & DUP != 0 { 2 } else { 1 };
        let length = fields.le64(0);
        let mut places = [0; 2];
        let mut sound = bytes.len() == CHUNK_HEADER + copies * STRIPE
            && usize::from(fields.le16(44)) == copies
            && flags & KINDS != 0
            && length > 0
            && length.is_multiple_of(superblock.sector_size)
            && logical.is_multiple_of(superblock.sector_size)
            && logical.checked_add(length).is_some();
        for (place, at) in places
            .iter_mut()
            .zip((CHUNK_HEADER..).step_by(STRIPE))
            .take(copies)
        {
            *place = fields.le64(at + 8);
            let end = place.checked_add(length);
            sound &= fields.le64(at) == superblock.device
                && fields.slice(at + 16, 16) == superblock.device_uuid
                && end.is_some_and(|end| end <= superblock.device_bytes);
        }
        if !sound {
            return Err(Refusal::damaged(format!(
                "btrfs has an impossible chunk at {logical:#x}"
            )));
        }
        Ok(Self {
            logical,
            length,
            flags,
            first: places[0],
            second: (copies == 2).then_some(places[1]),
        })
    }

    /// Its copies.
    pub(super) fn on_device(&self) -> impl Iterator<Item = Stripe> + use<> {
        let Self {
            logical, length, ..
        } = *self;
        let places = [Some(self.first), self.second];
        places.into_iter().flatten().map(move |physical| Stripe {
            physical,
            length,
            logical,
        })
    }
}

/// All chunks that are known, by logical address.
#[derive(Debug, Default)]
pub(super) struct ChunkMap(Vec<Chunk>);

impl ChunkMap {
    /// Reads the chunk tree by means of what the superblock has of it.
    pub(super) fn read(volume: &Volume<'_>, superblock: &Superblock) -> Result<Self, Refusal> {
        let system = Self::bootstrap(superblock)?;
        let mut all = Vec::new();
        let mut devices = 0;
        walk(
            volume,
            superblock,
            &system,
            &superblock.chunk_root,
            &mut |item: Item<'_>| {
                match item.key.kind {
                    CHUNK_ITEM if item.key.object == CHUNKS => {
                        all.push(Chunk::parse(superblock, item.key.offset, item.data)?);
                    }
                    DEVICE_ITEM => {
                        let fields = Fields(item.data);
                        let same = item.key.offset == superblock.device
                            && fields.le64(0) == superblock.device
                            && fields.le64(8) == superblock.device_bytes
                            && fields.le64(16) == superblock.device_used
                            && fields.slice(66, 16) == superblock.device_uuid;
                        if !same {
                            return Err(Refusal::damaged(
                                "btrfs superblock and chunk tree differ on the device",
                            ));
                        }
                        devices += 1;
                    }
                    _ => {}
                }
                Ok(())
            },
        )?;
        let all = Self::ordered(all)?;
        if devices != 1 || system.0.iter().any(|chunk| !all.0.contains(chunk)) {
            return Err(Refusal::damaged(
                "btrfs superblock and chunk tree contradict each other",
            ));
        }
        Ok(all)
    }

    fn bootstrap(superblock: &Superblock) -> Result<Self, Refusal> {
        let mut rest = superblock.system_chunks.as_slice();
        let mut list = Vec::new();
        while !rest.is_empty() {
            let key = Key::parse(Fields(rest), 0);
            let stripes = usize::from(Fields(rest).le16(Key::SIZE + 44));
            let length = Key::SIZE + CHUNK_HEADER + stripes * STRIPE;
            let (Some(item), Some(after)) = (rest.get(Key::SIZE..length), rest.get(length..))
            else {
                return Err(Refusal::damaged("btrfs superblock: chunks are cut off"));
            };
            if key.object != CHUNKS || key.kind != CHUNK_ITEM {
                return Err(Refusal::damaged("btrfs superblock: no chunks"));
            }
            list.push(Chunk::parse(superblock, key.offset, item)?);
            rest = after;
        }
        Self::ordered(list)
    }

    fn ordered(mut list: Vec<Chunk>) -> Result<Self, Refusal> {
        list.sort_by_key(|chunk| chunk.logical);
        let overlap = list
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a.logical + a.length > b.logical));
        if overlap {
            return Err(Refusal::damaged("btrfs chunks overlap"));
        }
        Ok(Self(list))
    }

    pub(super) fn list(&self) -> &[Chunk] {
        &self.0
    }

    /// The chunk that holds all of `range`.
    pub(super) fn find(&self, range: &Range<u64>) -> Option<&Chunk> {
        let next = self.0.partition_point(|chunk| chunk.logical <= range.start);
        let chunk = self.0.get(next.checked_sub(1)?)?;
        (range.end <= chunk.logical + chunk.length && range.start < range.end).then_some(chunk)
    }

    /// Where the first copy of `length` bytes at `logical` begins.
    pub(super) fn place(&self, logical: u64, length: u64) -> Option<u64> {
        let chunk = self.find(&(logical..logical.checked_add(length)?))?;
        Some(chunk.first + (logical - chunk.logical))
    }
}
