//! The superblock: identity, geometry, features.
//!
//! Source: `struct btrfs_super_block` and the `BTRFS_FEATURE_*` flags of the kernel's `include/uapi/linux/btrfs.h` and
//! `btrfs_tree.h`.

use super::tree::Root;
use super::{CHUNK_TREE, ROOT_TREE};
use crate::fields::Fields;
use crate::fs::{Identity, Refusal};
use crate::volume::Volume;

/// Where the superblock is, and where its copies are on devices that reach there.
pub(super) const COPIES: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];
const SIZE: usize = 4096;
const MAGIC: &[u8; 8] = b"_BHRfS_M";

/// Bytes of the chunk items that are needed to read the chunk tree.
const SYSTEM_CHUNKS: usize = 2048;

/// Mixed back references, default subvolume, mixed groups, LZO, zstd, big metadata, extended references, skinny
/// metadata, no holes, a uuid of the metadata, simple quota.
const KNOWN_INCOMPAT: u64 = 0b0111_0111_1111 | 1 << 16;
const INCOMPAT_METADATA_UUID: u64 = 1 << 10;
/// Free space tree, its validity, verity, block group tree.
const KNOWN_RO_COMPAT: u64 = 0b1111;
/// Both bits of the free space tree.
const RO_COMPAT_FREE_SPACE: u64 = 0b11;
const RO_COMPAT_BLOCK_GROUP_TREE: u64 = 1 << 3;
/// `BTRFS_HEADER_FLAG_WRITTEN`; all others tell of errors, seeds, dumps and changes under way.
const FLAG_WRITTEN: u64 = 1;

const INCOMPAT_NAMES: [(u64, &str); 6] = [
    (7, "raid56"),
    (11, "raid1c34"),
    (12, "zoned"),
    (13, "extent_tree_v2"),
    (14, "raid_stripe_tree"),
    (17, "remap_tree"),
];

/// The first superblock, its checksum and geometry sound.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    fsid: [u8; 16],
    /// What tree blocks carry.
    pub(super) metadata_uuid: [u8; 16],
    generation: u64,
    pub(super) root: Root,
    pub(super) chunk_root: Root,
    pub(super) node_size: usize,
    pub(super) sector_size: u64,
    log_root: u64,
    devices: u64,
    /// Of this device: its number, its length, and how much of that chunks are made of.
    pub(super) device: u64,
    pub(super) device_uuid: [u8; 16],
    pub(super) device_bytes: u64,
    pub(super) device_used: u64,
    /// Bytes of all extents.
    pub(super) used: u64,
    pub(super) system_chunks: Vec<u8>,
    flags: u64,
    incompat: u64,
    ro_compat: u64,
}

/// What the superblock says of itself, sound or not; `None` when there is none.
pub(super) fn identify(volume: &Volume<'_>) -> crate::Result<Option<Identity>> {
    if volume.size() < COPIES[0] + SIZE as u64 {
        return Ok(None);
    }
    let block = volume.read_array::<SIZE>(COPIES[0])?;
    let fields = Fields(&block);
    if fields.array(0x40) != *MAGIC {
        return Ok(None);
    }
    let uuid = uuid::Uuid::from_bytes(fields.array(0x20));
    let label = fields.slice(0x12b, 256);
    let label = label.split(|&byte| byte == 0).next().unwrap_or_default();
    // Of this device; the filesystem may have more of them.
    let devices = fields.le64(0x88);
    Ok(Some(Identity {
        kind: "btrfs",
        version: (devices != 1).then(|| format!("one of {devices} devices")),
        label: (!label.is_empty()).then(|| String::from_utf8_lossy(label).into_owned()),
        uuid: (!uuid.is_nil()).then(|| uuid.to_string()),
        size: Some(fields.le64(0xc9 + 8)),
        block_size: Some(u64::from(fields.le32(0x90))),
    }))
}

impl Superblock {
    /// Reads and checks what every reader needs.
    pub(super) fn read(volume: &Volume<'_>) -> Result<Self, Refusal> {
        let block = volume.read_array::<SIZE>(COPIES[0])?;
        let fields = Fields(&block);
        if fields.array(0x40) != *MAGIC {
            return Err(Refusal::damaged("no btrfs superblock"));
        }
        match fields.le16(0xc4) {
            0 => {}
            kind @ 1..=3 => {
                let name = ["xxhash64", "sha256", "blake2b"][usize::from(kind) - 1];
                return Err(Refusal::unsupported(format!(
                    "btrfs with {name} checksums, which are not read here"
                )));
            }
            _ => {
                return Err(Refusal::unsupported(
                    "btrfs with checksums of an unknown kind",
                ));
            }
        }
        if crc32c::crc32c(fields.slice(32, SIZE - 32)) != fields.le32(0) {
            return Err(Refusal::damaged("btrfs superblock fails its checksum"));
        }
        let incompat = fields.le64(0xbc);
        let fsid = fields.array(0x20);
        let metadata_uuid = if incompat & INCOMPAT_METADATA_UUID != 0 {
            fields.array(0x23b)
        } else {
            fsid
        };
        let array = usize::try_from(fields.le32(0xa0)).unwrap_or(usize::MAX);
        let superblock = Self {
            fsid,
            metadata_uuid,
            generation: fields.le64(0x48),
            root: Root {
                owner: ROOT_TREE,
                at: fields.le64(0x50),
                generation: fields.le64(0x48),
                level: fields.u8(0xc6),
            },
            chunk_root: Root {
                owner: CHUNK_TREE,
                at: fields.le64(0x58),
                generation: fields.le64(0xa4),
                level: fields.u8(0xc7),
            },
            node_size: usize::try_from(fields.le32(0x94)).unwrap_or(0),
            sector_size: u64::from(fields.le32(0x90)),
            log_root: fields.le64(0x60),
            devices: fields.le64(0x88),
            device: fields.le64(0xc9),
            device_uuid: fields.array(0xc9 + 66),
            device_bytes: fields.le64(0xc9 + 8),
            device_used: fields.le64(0xc9 + 16),
            used: fields.le64(0x78),
            system_chunks: fields.slice(0x32b, array.min(SYSTEM_CHUNKS)).to_vec(),
            flags: fields.le64(0x38),
            incompat,
            ro_compat: fields.le64(0xb4),
        };
        let power = |size: u64| size.is_power_of_two() && (4096..=65536).contains(&size);
        let sound = power(superblock.sector_size)
            && power(superblock.node_size as u64)
            && superblock.node_size as u64 >= superblock.sector_size
            && array <= SYSTEM_CHUNKS
            && fields.le64(0x30) == COPIES[0]
            && fields.slice(0xc9 + 82, 16) == superblock.metadata_uuid
            && superblock.device_used <= superblock.device_bytes
            && superblock
                .device_bytes
                .is_multiple_of(superblock.sector_size);
        if !sound {
            return Err(Refusal::damaged("btrfs superblock: impossible geometry"));
        }
        if superblock.device_bytes > volume.size() {
            return Err(Refusal::damaged(format!(
                "btrfs device of {} bytes reaches past the end of its volume",
                superblock.device_bytes
            )));
        }
        Ok(superblock)
    }

    /// Whether there is a free space tree, kept up to date.
    pub(super) fn has_free_space_tree(&self) -> bool {
        self.ro_compat & RO_COMPAT_FREE_SPACE == RO_COMPAT_FREE_SPACE
    }

    /// Whether block groups have a tree of their own.
    pub(super) fn has_block_group_tree(&self) -> bool {
        self.ro_compat & RO_COMPAT_BLOCK_GROUP_TREE != 0
    }

    /// Refuses what a writer would have to know about, and states that are not the last word.
    pub(super) fn require_known_free_space(&self, volume: &Volume<'_>) -> Result<(), Refusal> {
        let unknown = self.incompat & !KNOWN_INCOMPAT;
        if unknown != 0 {
            let bit = u64::from(unknown.trailing_zeros());
            let known = INCOMPAT_NAMES.iter().find(|(other, _)| *other == bit);
            return Err(Refusal::unsupported(match known {
                Some((_, name)) => format!("btrfs has the feature {name}, which is not read here"),
                None => format!("btrfs has an unknown incompatible feature (bit {bit})"),
            }));
        }
        let unknown = self.ro_compat & !KNOWN_RO_COMPAT;
        if unknown != 0 {
            return Err(Refusal::unsupported(format!(
                "btrfs has an unknown feature for readers alone (bit {})",
                unknown.trailing_zeros()
            )));
        }
        if self.devices != 1 || self.device == 0 {
            return Err(Refusal::unsupported(format!(
                "btrfs on {} devices",
                self.devices
            )));
        }
        if self.flags != FLAG_WRITTEN {
            return Err(Refusal::unsupported(format!(
                "btrfs in an unusual state (flags {:#x}): a seed, a dump, or a change under way",
                self.flags
            )));
        }
        if self.log_root != 0 {
            return Err(Refusal::dirty("btrfs has a log that was not replayed")
                .with_remedy("mount it once, or shut the guest down cleanly"));
        }
        for copy in &COPIES[1..] {
            if copy.saturating_add(SIZE as u64) > self.device_bytes {
                continue;
            }
            let block = volume.read_array::<SIZE>(*copy)?;
            let fields = Fields(&block);
            let newer = fields.array(0x40) == *MAGIC
                && fields.array(0x20) == self.fsid
                && fields.le64(0x48) > self.generation
                && crc32c::crc32c(fields.slice(32, SIZE - 32)) == fields.le32(0);
            if newer {
                return Err(Refusal::damaged(
                    "btrfs has a copy of its superblock that is newer than the first",
                ));
            }
        }
        Ok(())
    }
}
