//! The superblock and the descriptors of groups: where inodes are.
//!
//! Source: `struct ext4_super_block` and `struct ext4_group_desc` of the kernel's `fs/ext4/ext4.h`; `descriptor_loc` of
//! its `fs/ext4/super.c`.

use std::collections::BTreeMap;

use super::blocks::{Blocks, Newer};
use super::damaged;
use crate::error::Result;
use crate::fields::Fields;
use crate::fs::Refusal;
use crate::volume::Volume;

const PLACE: u64 = 1024;
const LENGTH: usize = 1024;
const MAGIC: u16 = 0xef53;
/// Blocks of 64 KiB.
const MOST_BLOCK_LOG: u32 = 6;

const COMPAT_HAS_JOURNAL: u32 = 0x4;
const COMPAT_SPARSE_SUPER2: u32 = 0x200;

const INCOMPAT_FILE_TYPE: u32 = 0x2;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_CHECKSUM_SEED: u32 = 0x2000;
const INCOMPAT_LARGE_DIR: u32 = 0x4000;
/// Of these, and those above, all that there is to know is known here: extents, multiple mount protection, flexible
/// groups, attributes in inodes, data in directories, data in inodes, encryption (whose files are refused one by one),
/// names without case.
const KNOWN_INCOMPAT: u32 = INCOMPAT_FILE_TYPE
    | INCOMPAT_RECOVER
    | INCOMPAT_META_BG
    | 0x40
    | INCOMPAT_64BIT
    | 0x100
    | 0x200
    | 0x400
    | 0x1000
    | INCOMPAT_CHECKSUM_SEED
    | INCOMPAT_LARGE_DIR
    | 0x8000
    | 0x10000
    | 0x20000;

const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_METADATA_CHECKSUMS: u32 = 0x400;

/// What blkid calls ext3 at most.
const EXT3_INCOMPAT: u32 = 0x2 | 0x4 | 0x10;
const EXT3_RO_COMPAT: u32 = 0x1 | 0x2 | 0x4;

/// `EXT4_CRC32C_CHKSUM`.
const CHECKSUM_CRC32C: u8 = 1;

/// crc32c as ext4 has it: without the last inversion.
pub(super) fn checksum(from: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!from, bytes)
}

/// The first superblock.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    pub(super) kind: &'static str,
    /// Bytes of a block: a power of two from 1 to 64 KiB.
    pub(super) block_size: u64,
    /// Blocks of the filesystem; all of them lie in the volume.
    pub(super) blocks: u64,
    pub(super) inode_size: u64,
    /// What checksums begin with; `None` when there are none.
    pub(super) seed: Option<u32>,
    first_data_block: u64,
    blocks_per_group: u64,
    inodes_per_group: u64,
    inodes: u64,
    descriptor_size: u64,
    first_meta_bg: u64,
    backup_groups: [u64; 2],
    compat: u32,
    incompat: u32,
    ro_compat: u32,
}

impl Superblock {
    pub(super) fn read(volume: &Volume<'_>, newer: &BTreeMap<u64, Newer>) -> Result<Self, Refusal> {
        if volume.size() < PLACE + LENGTH as u64 {
            return Err(Refusal::damaged("ext4 volume is too small"));
        }
        let bytes = volume.read_array::<LENGTH>(PLACE)?;
        let mut superblock = Self::parse(Fields(&bytes), volume.size())?;
        let block = PLACE / superblock.block_size;
        if newer.contains_key(&block) {
            let size = superblock.block_size;
            let blocks = Blocks::new(volume, size, newer.clone());
            let bytes = blocks.read(PLACE, LENGTH)?;
            superblock = Self::parse(Fields(&bytes), volume.size())?;
            if superblock.block_size != size {
                return Err(Refusal::damaged("ext4 journal changes the block size"));
            }
        }
        Ok(superblock)
    }

    fn parse(fields: Fields<'_>, volume_size: u64) -> Result<Self, Refusal> {
        let contradicts = || Refusal::damaged("ext4 superblock contradicts itself");
        if fields.le16(0x38) != MAGIC {
            return Err(Refusal::damaged("ext4 superblock is not there"));
        }
        // Before revision 1 there were neither features nor inodes of other sizes.
        let is_dynamic = fields.le32(0x4c) > 0;
        let feature = |at| if is_dynamic { fields.le32(at) } else { 0 };
        let (compat, incompat, ro_compat) = (feature(0x5c), feature(0x60), feature(0x64));
        require_known(incompat)?;
        let has_checksums = ro_compat & RO_COMPAT_METADATA_CHECKSUMS != 0;
        if has_checksums {
            if fields.u8(0x175) != CHECKSUM_CRC32C {
                return Err(Refusal::unsupported(
                    "ext4 has checksums of an unknown kind",
                ));
            }
            if checksum(!0, fields.slice(0, 0x3fc)) != fields.le32(0x3fc) {
                return Err(Refusal::damaged("ext4 superblock fails its checksum"));
            }
        }
        let block_log = fields.le32(0x18);
        if block_log > MOST_BLOCK_LOG {
            return Err(contradicts());
        }
        let block_size = 1024_u64 << block_log;
        let is_wide = incompat & INCOMPAT_64BIT != 0;
        let high = if is_wide { fields.le32(0x150) } else { 0 };
        let seed = if incompat & INCOMPAT_CHECKSUM_SEED != 0 {
            fields.le32(0x270)
        } else {
            checksum(!0, fields.slice(0x68, 16))
        };
        let superblock = Self {
            kind: kind(compat, incompat, ro_compat),
            block_size,
            blocks: u64::from(high) << 32 | u64::from(fields.le32(0x4)),
            inode_size: if is_dynamic {
                u64::from(fields.le16(0x58))
            } else {
                128
            },
            seed: has_checksums.then_some(seed),
            first_data_block: u64::from(fields.le32(0x14)),
            blocks_per_group: u64::from(fields.le32(0x20)),
            inodes_per_group: u64::from(fields.le32(0x28)),
            inodes: u64::from(fields.le32(0)),
            descriptor_size: if is_wide {
                u64::from(fields.le16(0xfe))
            } else {
                32
            },
            first_meta_bg: u64::from(fields.le32(0x104)),
            backup_groups: [fields.le32(0x24c), fields.le32(0x250)].map(u64::from),
            compat,
            incompat,
            ro_compat,
        };
        let least_descriptor = if is_wide { 64 } else { 32 };
        let fits = superblock.inode_size.is_power_of_two()
            && (128..=block_size).contains(&superblock.inode_size)
            && superblock.descriptor_size.is_power_of_two()
            && (least_descriptor..=block_size).contains(&superblock.descriptor_size)
            && superblock.first_data_block <= 1
            && superblock.blocks > superblock.first_data_block
            && superblock.blocks_per_group > 0
            && (1..=block_size * 8).contains(&superblock.inodes_per_group);
        if !fits {
            return Err(contradicts());
        }
        let size = superblock.blocks.checked_mul(block_size);
        if size.is_none_or(|size| size > volume_size) {
            return Err(Refusal::damaged(format!(
                "ext4 claims {} blocks of {block_size} bytes of a volume of {volume_size} bytes",
                superblock.blocks
            )));
        }
        Ok(superblock)
    }

    /// Whether the journal holds what was not written back yet.
    pub(super) fn needs_recovery(&self) -> bool {
        self.incompat & INCOMPAT_RECOVER != 0
    }

    pub(super) fn has_file_types(&self) -> bool {
        self.incompat & INCOMPAT_FILE_TYPE != 0
    }

    pub(super) fn has_large_directories(&self) -> bool {
        self.incompat & INCOMPAT_LARGE_DIR != 0
    }

    /// The byte of the volume where inode `number` is; `None` when there is no such inode.
    pub(super) fn inode_at(&self, blocks: &Blocks<'_>, number: u64) -> Result<Option<u64>> {
        let Some(index) = number.checked_sub(1).filter(|_| number <= self.inodes) else {
            return Ok(None);
        };
        let group = index / self.inodes_per_group;
        let Some(at) = self.descriptor_at(group) else {
            return Ok(None);
        };
        let length = usize::try_from(self.descriptor_size).unwrap_or(0);
        let bytes = blocks.read(at, length)?;
        let fields = Fields(&bytes);
        // Shorter ones have no upper half.
        let table = u64::from(fields.le32(8));
        let table = if self.descriptor_size >= 64 {
            table | u64::from(fields.le32(0x28)) << 32
        } else {
            table
        };
        let inside = index % self.inodes_per_group * self.inode_size;
        let block = table.saturating_add(inside / self.block_size);
        if table <= self.first_data_block || block >= self.blocks {
            return Err(damaged(format!(
                "ext4 group {group} has its inodes outside the filesystem"
            )));
        }
        Ok(Some(block * self.block_size + inside % self.block_size))
    }

    /// The byte of the volume where a group's descriptor is; `None` when there is no such group.
    fn descriptor_at(&self, group: u64) -> Option<u64> {
        let groups = (self.blocks - self.first_data_block).div_ceil(self.blocks_per_group);
        if group >= groups {
            return None;
        }
        let per_block = self.block_size / self.descriptor_size;
        let number = group / per_block;
        // Where the superblock is, which does not have to be the first block of a group.
        let own = PLACE / self.block_size;
        let block = if self.incompat & INCOMPAT_META_BG == 0 || number < self.first_meta_bg {
            own.checked_add(1)?.checked_add(number)?
        } else {
            let first = number * per_block;
            let start = first.checked_mul(self.blocks_per_group)?;
            let start = start.checked_add(self.first_data_block)?;
            // Nothing lies before the superblock of the first group but what is not the filesystem's.
            let skipped = if first == 0 && self.first_data_block < own {
                own + 1
            } else {
                u64::from(self.has_copy(first))
            };
            start.checked_add(skipped)?
        };
        let at = block.checked_mul(self.block_size)?;
        (block < self.blocks).then(|| at + group % per_block * self.descriptor_size)
    }

    /// Whether a group begins with a superblock.
    fn has_copy(&self, group: u64) -> bool {
        let is_power = |base: u64| {
            let mut power = base;
            while power < group {
                power = power.saturating_mul(base);
            }
            power == group
        };
        if group == 0 {
            true
        } else if self.compat & COMPAT_SPARSE_SUPER2 != 0 {
            self.backup_groups.contains(&group)
        } else if self.ro_compat & RO_COMPAT_SPARSE_SUPER != 0 {
            group == 1 || is_power(3) || is_power(5) || is_power(7)
        } else {
            true
        }
    }
}

fn require_known(incompat: u32) -> Result<(), Refusal> {
    let unknown = incompat & !KNOWN_INCOMPAT;
    if unknown == 0 {
        return Ok(());
    }
    Err(Refusal::unsupported(match unknown {
        0x1 => "ext4 has the feature compression".to_owned(),
        0x8 => "ext4 has the feature journal_dev: it is the journal of another one".to_owned(),
        _ => format!("ext4 has unknown features ({unknown:#x})"),
    }))
}

/// The format's name as blkid has it.
fn kind(compat: u32, incompat: u32, ro_compat: u32) -> &'static str {
    if incompat & !EXT3_INCOMPAT != 0 || ro_compat & !EXT3_RO_COMPAT != 0 {
        "ext4"
    } else if compat & COMPAT_HAS_JOURNAL != 0 {
        "ext3"
    } else {
        "ext2"
    }
}
