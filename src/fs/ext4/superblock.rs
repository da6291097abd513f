//! The superblock: geometry, state and features.
//!
//! Source: `struct ext4_super_block` of the kernel's `fs/ext4/ext4.h`; what is sound is what `fs/ext4/super.c` mounts
//! and e2fsprogs' `lib/ext2fs/openfs.c` opens for writing.

use super::checksum::{START, agree, crc32c};
use super::features::Features;
use crate::fields::Fields;
use crate::fs::{Identity, Refusal};
use crate::volume::Volume;

/// Where it lies in the volume, whatever the size of a block, and how long it is.
pub(super) const PLACE: u64 = 1024;
pub(super) const LENGTH: usize = 1024;

const MAGIC: u16 = 0xef53;
/// `EXT4_MAX_BLOCK_LOG_SIZE` less 10: blocks of 64 KiB.
const MOST_LOG_BLOCK_SIZE: u32 = 6;
/// `EXT4_MAX_CLUSTER_LOG_SIZE` less 10.
const MOST_LOG_CLUSTER_SIZE: u32 = 20;
/// Groups that are read at most, and bytes of their bitmaps: enough for 256 TiB in blocks of 4 KiB.
const MOST_GROUPS: u64 = 1 << 21;
const MOST_BITMAPS: u64 = 8 << 30;

/// `s_state`.
const STATE_VALID: u16 = 1;
const STATE_ERROR: u16 = 2;

/// `EXT4_OS_HURD`.
const CREATOR_HURD: u32 = 1;

/// `EXT4_CRC32C_CHKSUM`.
const CHECKSUM_CRC32C: u8 = 1;

/// The first superblock, its geometry checked.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    pub(super) features: Features,
    /// Bytes of a block: a power of two from 1 to 64 KiB.
    pub(super) block_size: u64,
    /// Blocks of the filesystem; all of them lie in the volume.
    pub(super) blocks: u64,
    /// The first block of group 0: 1 when blocks are so small that the boot sector has one of its own.
    pub(super) first_data_block: u64,
    pub(super) blocks_per_group: u64,
    pub(super) clusters_per_group: u64,
    /// Blocks that one bit of a bitmap stands for: a power of two.
    pub(super) cluster_blocks: u64,
    pub(super) groups: u64,
    pub(super) inodes: u64,
    pub(super) inodes_per_group: u64,
    pub(super) inode_size: u64,
    /// Bytes of a group's descriptor: a power of two.
    pub(super) descriptor_size: u64,
    /// Blocks behind each copy of the descriptors that they may grow into.
    pub(super) reserved_descriptors: u64,
    pub(super) first_meta_bg: u64,
    /// The groups with copies, under sparse_super2.
    pub(super) backup_groups: [u64; 2],
    pub(super) free_blocks: u64,
    pub(super) uuid: [u8; 16],
    /// What checksums of metadata begin with.
    pub(super) seed: u32,
    /// 0 when the journal is on another device.
    pub(super) journal_inode: u64,
    pub(super) mmp_block: u64,
    /// GNU Hurd made it, whose inodes have a block of their own kind.
    pub(super) hurd: bool,
    state: u16,
}

/// What the superblock says of itself, sound or not; `None` when there is none.
pub(super) fn identify(volume: &Volume<'_>) -> crate::Result<Option<Identity>> {
    if volume.size() < PLACE + LENGTH as u64 {
        return Ok(None);
    }
    let bytes = volume.read_array::<LENGTH>(PLACE)?;
    let fields = Fields(&bytes);
    if fields.le16(0x38) != MAGIC {
        return Ok(None);
    }
    let features = features(fields);
    let log_block_size = fields.le32(0x18);
    let block_size = (log_block_size <= MOST_LOG_BLOCK_SIZE).then(|| 1024 << log_block_size);
    let high = if features.wide() {
        fields.le32(0x150)
    } else {
        0
    };
    let blocks = u64::from(high) << 32 | u64::from(fields.le32(4));
    let label = fields.slice(0x78, 16);
    let label = label.split(|&byte| byte == 0).next().unwrap_or_default();
    let uuid = uuid::Uuid::from_bytes(fields.array(0x68));
    Ok(Some(Identity {
        kind: features.kind(),
        version: Some(format!("{}.{}", fields.le32(0x4c), fields.le16(0x3e))),
        label: (!label.is_empty()).then(|| String::from_utf8_lossy(label).into_owned()),
        uuid: (!uuid.is_nil()).then(|| uuid.to_string()),
        size: block_size.and_then(|size: u64| size.checked_mul(blocks)),
        block_size,
    }))
}

fn features(fields: Fields<'_>) -> Features {
    Features {
        compat: fields.le32(0x5c),
        incompat: fields.le32(0x60),
        ro_compat: fields.le32(0x64),
    }
}

fn damaged(what: &str) -> Refusal {
    Refusal::damaged(format!("ext4 superblock: {what}"))
}

impl Superblock {
    /// Checks the checksum, the features and the geometry of a superblock in a volume of that size.
    pub(super) fn parse(bytes: &[u8], volume_size: u64) -> Result<Self, Refusal> {
        let superblock = Self::parse_readable(bytes, volume_size)?;
        superblock.features.require_known()?;
        Ok(superblock)
    }

    /// As [`Superblock::parse`], for who changes nothing: features that only a writer has to know may be unknown.
    pub(super) fn parse_readable(bytes: &[u8], volume_size: u64) -> Result<Self, Refusal> {
        let fields = Fields(bytes);
        if fields.le16(0x38) != MAGIC {
            return Err(damaged("is not there"));
        }
        let features = features(fields);
        let revision = fields.le32(0x4c);
        let dynamic = match revision {
            0 => false,
            1 => true,
            _ => {
                return Err(Refusal::unsupported(format!(
                    "ext4 of revision {revision}, which is not known here"
                )));
            }
        };
        if !dynamic && !features.is_empty() {
            return Err(damaged("features in a revision that has none"));
        }
        features.require_readable()?;
        if features.metadata_checksums() {
            if fields.u8(0x175) != CHECKSUM_CRC32C {
                return Err(Refusal::unsupported(
                    "ext4 with an unknown kind of checksum",
                ));
            }
            if !agree(fields.le32(0x3fc), crc32c(START, fields.slice(0, 0x3fc))) {
                return Err(damaged("its checksum is wrong"));
            }
        }
        let uuid = fields.array(0x68);
        let seed = if features.checksum_seed() {
            fields.le32(0x270)
        } else {
            crc32c(START, &uuid)
        };
        let superblock = Self {
            features,
            uuid,
            seed,
            inodes: u64::from(fields.le32(0)),
            inodes_per_group: u64::from(fields.le32(0x28)),
            inode_size: if dynamic {
                u64::from(fields.le16(0x58))
            } else {
                128
            },
            reserved_descriptors: u64::from(fields.le16(0xce)),
            first_meta_bg: u64::from(fields.le32(0x104)),
            backup_groups: [0x24c, 0x250].map(|at| u64::from(fields.le32(at))),
            journal_inode: u64::from(fields.le32(0xe0)),
            mmp_block: fields.le64(0x168),
            hurd: fields.le32(0x48) == CREATOR_HURD,
            state: fields.le16(0x3a),
            ..Self::geometry(fields, features)?
        };
        superblock.check(volume_size)?;
        Ok(superblock)
    }

    /// Sizes and counts of blocks and groups; all else is still empty.
    fn geometry(fields: Fields<'_>, features: Features) -> Result<Self, Refusal> {
        let impossible = || damaged("impossible geometry");
        let log_block_size = fields.le32(0x18);
        let log_cluster_size = fields.le32(0x1c);
        if log_block_size > MOST_LOG_BLOCK_SIZE {
            return Err(damaged("impossible block size"));
        }
        let log_ratio = if features.bigalloc() {
            log_cluster_size
                .checked_sub(log_block_size)
                .filter(|_| log_cluster_size <= MOST_LOG_CLUSTER_SIZE)
                .ok_or_else(|| damaged("impossible cluster size"))?
        } else {
            0
        };
        let high = |at| {
            let high = u64::from(fields.le32(at)) << 32;
            (high == 0 || features.wide())
                .then_some(high)
                .ok_or_else(impossible)
        };
        let block_size = 1024 << log_block_size;
        let blocks = high(0x150)? | u64::from(fields.le32(4));
        let first_data_block = u64::from(fields.le32(0x14));
        let blocks_per_group = u64::from(fields.le32(0x20));
        let clusters_per_group = if features.bigalloc() {
            u64::from(fields.le32(0x24))
        } else {
            blocks_per_group
        };
        let first = u64::from(block_size == 1024 && !features.bigalloc());
        let sound = first_data_block == first
            && blocks > first
            && clusters_per_group > 0
            && clusters_per_group.is_multiple_of(8)
            && clusters_per_group <= block_size * 8
            && clusters_per_group << log_ratio == blocks_per_group;
        if !sound {
            return Err(impossible());
        }
        let descriptor_size = if features.wide() {
            u64::from(fields.le16(0xfe))
        } else {
            32
        };
        let least = if features.wide() { 64 } else { 32 };
        if !descriptor_size.is_power_of_two() || !(least..=1024).contains(&descriptor_size) {
            return Err(damaged("impossible size of descriptors"));
        }
        Ok(Self {
            block_size,
            blocks,
            first_data_block,
            blocks_per_group,
            clusters_per_group,
            cluster_blocks: 1 << log_ratio,
            groups: (blocks - first).div_ceil(blocks_per_group),
            descriptor_size,
            free_blocks: high(0x158)? | u64::from(fields.le32(0xc)),
            features,
            inodes: 0,
            inodes_per_group: 0,
            inode_size: 0,
            reserved_descriptors: 0,
            first_meta_bg: 0,
            backup_groups: [0; 2],
            uuid: [0; 16],
            seed: 0,
            journal_inode: 0,
            mmp_block: 0,
            hurd: false,
            state: 0,
        })
    }

    fn check(&self, volume_size: u64) -> Result<(), Refusal> {
        let size = self.blocks.checked_mul(self.block_size);
        if size.is_none_or(|size| size > volume_size) {
            return Err(Refusal::damaged(format!(
                "ext4 of {} blocks reaches past the end of its volume",
                self.blocks
            )));
        }
        if self.groups > MOST_GROUPS || self.groups * self.block_size > MOST_BITMAPS {
            return Err(Refusal::unsupported(format!(
                "ext4 of {} groups, more than are read here",
                self.groups
            )));
        }
        let inodes_fit = self.inode_size.is_power_of_two()
            && (128..=self.block_size).contains(&self.inode_size)
            && self.inodes_per_group > 0
            && self.inodes_per_group <= self.block_size * 8
            && self.inodes_per_group * self.groups == self.inodes;
        if !inodes_fit {
            return Err(damaged("impossible number or size of inodes"));
        }
        let meta_bg = self.features.meta_bg();
        let descriptors_fit = if meta_bg {
            self.first_meta_bg <= self.descriptor_blocks() && self.reserved_descriptors == 0
        } else {
            // `s_reserved_gdt_blocks` is at most what one indirect block of the resize inode lists.
            self.reserved_descriptors <= self.block_size / 4
        };
        if !descriptors_fit {
            return Err(damaged("impossible place of descriptors"));
        }
        Ok(())
    }

    /// Refuses a filesystem with errors, or that was not unmounted, the journal aside.
    pub(super) fn require_valid_state(&self) -> Result<(), Refusal> {
        let check = "run e2fsck on it";
        if self.state & STATE_ERROR != 0 {
            return Err(Refusal::damaged("ext4 is marked as having errors").with_remedy(check));
        }
        if self.state & STATE_VALID == 0 {
            return Err(Refusal::dirty("ext4 was not cleanly unmounted").with_remedy(check));
        }
        if self.state != STATE_VALID {
            return Err(Refusal::unsupported(format!(
                "ext4 is in an unknown state ({:#x})",
                self.state
            )));
        }
        Ok(())
    }

    /// What checksums of metadata begin with, where there are any.
    pub(super) fn sums_seed(&self) -> Option<u32> {
        self.features.metadata_checksums().then_some(self.seed)
    }

    /// Length of a block as memory has it: at most 64 KiB.
    pub(super) fn block_length(&self) -> usize {
        usize::try_from(self.block_size).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
