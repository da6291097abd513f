//! The superblock: geometry and features.
//!
//! Source: `struct xfs_dsb` and the `XFS_SB_*` flags of the kernel's `fs/xfs/libxfs/xfs_format.h`, and the "XFS
//! Algorithms & Data Structures" document, chapter "Superblocks".

use std::borrow::Cow;

use super::checksum::is_sound;
use crate::fields::Fields;
use crate::fs::{Identity, Refusal};
use crate::volume::Volume;

pub(super) const MAGIC: &[u8; 4] = b"XFSB";

/// Bytes of the superblock that are read before its sector size is known: the smallest sector.
const LEAST_SECTOR: usize = 512;
/// `XFS_MIN_AG_BLOCKS`.
const LEAST_AG_BLOCKS: u64 = 64;

/// `sb_versionnum`: bits above the version that only say what is there; the kernel mounts no others.
const VERSION_BITS: u16 = 0xfff0;
const VERSION_SHARED: u16 = 0x0200;
const VERSION_LOG_V2: u16 = 0x0400;
const VERSION_EXTENT_FLAG: u16 = 0x1000;
const VERSION_DIRECTORY_V2: u16 = 0x2000;
const VERSION_MORE_BITS: u16 = 0x8000;

/// `sb_features2`.
const FEATURE2_LAZY_COUNT: u32 = 0x002;
const FEATURE2_FILE_TYPE: u32 = 0x200;
/// Lazy counters, attr2, 32-bit project ids, checksums, file types.
const KNOWN_FEATURES2: u32 = 0x002 | 0x008 | 0x080 | 0x100 | 0x200;

/// `sb_features_ro_compat`: free inode tree, reverse mappings, reflink, inode tree counters.
const KNOWN_RO_COMPAT: u32 = 0b1111;
const RO_COMPAT_RMAPBT: u32 = 1 << 1;

/// `sb_features_incompat`: file types, sparse inode chunks, a uuid of the metadata, big timestamps, large extent
/// counters, exchanged ranges, parent pointers.
const KNOWN_INCOMPAT: u32 = 0b1110_1111;
const INCOMPAT_FILE_TYPE: u32 = 1 << 0;
const INCOMPAT_META_UUID: u32 = 1 << 2;
const INCOMPAT_NEEDS_REPAIR: u32 = 1 << 4;
const INCOMPAT_METADIR: u32 = 1 << 8;
const INCOMPAT_ZONED: u32 = 1 << 9;
const INCOMPAT_ZONE_GAPS: u32 = 1 << 10;

/// `sb_features_log_incompat`: logged extended attributes. Only means something while the log is not empty.
const KNOWN_LOG_INCOMPAT: u32 = 1 << 0;

/// The first superblock, checked as far as every reader needs it.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    pub(super) v5: bool,
    /// Bytes of a block and of a sector: powers of two.
    pub(super) block_size: u64,
    pub(super) sector_size: u64,
    /// Blocks of the filesystem, and of every allocation group but the last.
    pub(super) blocks: u64,
    pub(super) ag_blocks: u64,
    pub(super) ag_count: u64,
    pub(super) ag_block_log: u32,
    pub(super) inode_size: u64,
    pub(super) inodes_per_block_log: u32,
    pub(super) directory_block_log: u32,
    pub(super) root_inode: u64,
    /// What metadata blocks carry; differs from the filesystem's uuid once that was changed.
    pub(super) meta_uuid: [u8; 16],
    pub(super) uuid: [u8; 16],
    /// The log's first block (0 when it is on another device), as a number of group and block, and its length.
    pub(super) log_start: u64,
    pub(super) log_blocks: u64,
    pub(super) log_v2: bool,
    /// Free blocks of the data device.
    pub(super) free_blocks: u64,
    pub(super) lazy_count: bool,
    /// Directory entries carry file types.
    pub(super) file_type: bool,
    pub(super) rmapbt: bool,
    version: u16,
    features2: u32,
    ro_compat: u32,
    incompat: u32,
    log_incompat: u32,
    realtime: bool,
    in_progress: bool,
}

/// What the superblock says of itself, sound or not; `None` when there is none.
pub(super) fn identify(volume: &Volume<'_>) -> crate::Result<Option<Identity>> {
    if volume.size() < LEAST_SECTOR as u64 {
        return Ok(None);
    }
    let sector = volume.read_array::<LEAST_SECTOR>(0)?;
    let fields = Fields(&sector);
    if fields.array(0) != *MAGIC {
        return Ok(None);
    }
    let version = fields.be16(100) & 0xf;
    let block_size = u64::from(fields.be32(4));
    let block_size =
        (block_size.is_power_of_two() && (512..=65536).contains(&block_size)).then_some(block_size);
    let label = fields.slice(108, 12);
    let label = label.split(|&byte| byte == 0).next().unwrap_or_default();
    let uuid = uuid::Uuid::from_bytes(fields.array(32));
    Ok(Some(Identity {
        kind: "xfs",
        version: matches!(version, 4 | 5).then(|| format!("v{version}")),
        label: (!label.is_empty()).then(|| String::from_utf8_lossy(label).into_owned()),
        uuid: (!uuid.is_nil()).then(|| uuid.to_string()),
        size: block_size.and_then(|size| size.checked_mul(fields.be64(8))),
        block_size,
    }))
}

impl Superblock {
    /// Reads and checks geometry and checksum, not what is asked for free space alone.
    pub(super) fn read(volume: &Volume<'_>) -> Result<Self, Refusal> {
        let first = volume.read_array::<LEAST_SECTOR>(0)?;
        let fields = Fields(&first);
        let version = fields.be16(100);
        if fields.array(0) != *MAGIC {
            return Err(Refusal::damaged("no xfs superblock"));
        }
        if !matches!(version & 0xf, 4 | 5) {
            return Err(Refusal::unsupported(format!(
                "xfs of version {}, which is not known here",
                version & 0xf
            )));
        }
        let v5 = version & 0xf == 5;
        let block_size = size_field(u64::from(fields.be32(4)), fields.u8(120), 512..=65536)
            .ok_or_else(|| Refusal::damaged("xfs superblock: impossible block size"))?;
        let sector_size = size_field(u64::from(fields.be16(102)), fields.u8(121), 512..=32768)
            .filter(|&sector| sector <= block_size)
            .ok_or_else(|| Refusal::damaged("xfs superblock: impossible sector size"))?;
        if v5 {
            let length = usize::try_from(sector_size).unwrap_or(LEAST_SECTOR);
            let sector = volume.read_vec(0, length)?;
            if !is_sound(Fields(&sector), 224) {
                return Err(Refusal::damaged("xfs superblock fails its checksum"));
            }
        }
        let inode_size = size_field(u64::from(fields.be16(104)), fields.u8(122), 256..=2048)
            .filter(|&inode| inode <= block_size)
            .ok_or_else(|| Refusal::damaged("xfs superblock: impossible inode size"))?;
        let incompat = if v5 { fields.be32(216) } else { 0 };
        // A padding fault of old put the field behind its place; the kernel joins both.
        let features2 = if version & VERSION_MORE_BITS != 0 || v5 {
            fields.be32(200) | fields.be32(204)
        } else {
            0
        };
        let uuid = fields.array(32);
        let meta_uuid = if incompat & INCOMPAT_META_UUID != 0 {
            fields.array(248)
        } else {
            uuid
        };
        let superblock = Self {
            v5,
            block_size,
            sector_size,
            blocks: fields.be64(8),
            ag_blocks: u64::from(fields.be32(84)),
            ag_count: u64::from(fields.be32(88)),
            ag_block_log: u32::from(fields.u8(124)),
            inode_size,
            inodes_per_block_log: (block_size / inode_size).trailing_zeros(),
            directory_block_log: u32::from(fields.u8(192)),
            root_inode: fields.be64(56),
            meta_uuid,
            uuid,
            log_start: fields.be64(48),
            log_blocks: u64::from(fields.be32(96)),
            log_v2: version & VERSION_LOG_V2 != 0,
            free_blocks: fields.be64(144),
            lazy_count: v5 || features2 & FEATURE2_LAZY_COUNT != 0,
            file_type: if v5 {
                incompat & INCOMPAT_FILE_TYPE != 0
            } else {
                features2 & FEATURE2_FILE_TYPE != 0
            },
            rmapbt: v5 && fields.be32(212) & RO_COMPAT_RMAPBT != 0,
            version,
            features2,
            ro_compat: if v5 { fields.be32(212) } else { 0 },
            incompat,
            log_incompat: if v5 { fields.be32(220) } else { 0 },
            realtime: fields.be64(16) != 0 || fields.be64(24) != 0,
            in_progress: fields.u8(126) != 0,
        };
        superblock.check_geometry(volume)?;
        Ok(superblock)
    }

    fn check_geometry(&self, volume: &Volume<'_>) -> Result<(), Refusal> {
        let groups = self.blocks.div_ceil(self.ag_blocks.max(1));
        let ag_block_log = self.ag_blocks.max(1).next_power_of_two().trailing_zeros();
        let sound = self.ag_blocks >= LEAST_AG_BLOCKS
            && groups == self.ag_count
            && ag_block_log == self.ag_block_log
            // As in the kernel, the last group is not shorter than any may be.
            && self.ag_length(groups.saturating_sub(1)) >= LEAST_AG_BLOCKS
            && self.directory_block_log <= 7
            && self.block_size << self.directory_block_log <= 65536
            && (!self.v5 || self.block_size >= 1024);
        if !sound {
            return Err(Refusal::damaged("xfs superblock: impossible geometry"));
        }
        let size = self.blocks.checked_mul(self.block_size);
        if size.is_none_or(|size| size > volume.size()) {
            return Err(Refusal::damaged(format!(
                "xfs of {} blocks reaches past the end of its volume",
                self.blocks
            )));
        }
        if self.version & VERSION_DIRECTORY_V2 == 0 || self.version & VERSION_EXTENT_FLAG == 0 {
            return Err(Refusal::unsupported(
                "xfs in the form before directories of version 2",
            ));
        }
        Ok(())
    }

    /// Refuses features whose metadata could not be read right.
    pub(super) fn require_readable(&self) -> Result<(), Refusal> {
        let gone = INCOMPAT_METADIR | INCOMPAT_ZONED | INCOMPAT_ZONE_GAPS;
        let unknown = self.incompat & !(KNOWN_INCOMPAT | INCOMPAT_NEEDS_REPAIR | gone);
        if unknown != 0 {
            return Err(Refusal::unsupported(unknown_bits("incompatible", unknown)));
        }
        for (bit, name) in [
            (INCOMPAT_METADIR, "metadir"),
            (INCOMPAT_ZONED, "zoned"),
            (INCOMPAT_ZONE_GAPS, "zone_gaps"),
        ] {
            if self.incompat & bit != 0 {
                let bit = bit.trailing_zeros();
                return Err(Refusal::unsupported(format!(
                    "xfs has the feature {name} (incompatible, bit {bit}), which is not read here"
                )));
            }
        }
        let known = (self.features2 & !KNOWN_FEATURES2) == 0
            && self.version & VERSION_BITS & VERSION_SHARED == 0;
        if !known {
            return Err(Refusal::unsupported(format!(
                "xfs has unknown features (versionnum {:#x}, features2 {:#x})",
                self.version, self.features2
            )));
        }
        Ok(())
    }

    /// Refuses whatever a writer would have to know about, and filesystems that are not whole or not alone.
    pub(super) fn require_known_free_space(&self) -> Result<(), Refusal> {
        if self.in_progress {
            return Err(Refusal::damaged("xfs whose making was not finished"));
        }
        if self.needs_repair() {
            return Err(Refusal::dirty("xfs is marked as needing repair")
                .with_remedy("run xfs_repair on it"));
        }
        self.require_readable()?;
        for (bits, known, kind) in [
            (self.ro_compat, KNOWN_RO_COMPAT, "read-only compatible"),
            (self.log_incompat, KNOWN_LOG_INCOMPAT, "log incompatible"),
        ] {
            if bits & !known != 0 {
                return Err(Refusal::unsupported(unknown_bits(kind, bits & !known)));
            }
        }
        if self.realtime {
            return Err(Refusal::unsupported("xfs with a realtime section"));
        }
        if self.log_start == 0 {
            return Err(Refusal::unsupported("xfs whose log is on another device"));
        }
        Ok(())
    }

    /// Whether a tool marked it as not to be mounted before `xfs_repair` ran.
    pub(super) fn needs_repair(&self) -> bool {
        self.incompat & INCOMPAT_NEEDS_REPAIR != 0
    }

    /// Blocks of group `ag`.
    pub(super) fn ag_length(&self, ag: u64) -> u64 {
        let start = ag.saturating_mul(self.ag_blocks);
        self.blocks.saturating_sub(start).min(self.ag_blocks)
    }

    /// The byte where block `block` of group `ag` begins; `None` when there is no such block.
    pub(super) fn byte_of(&self, ag: u64, block: u64) -> Option<u64> {
        if ag >= self.ag_count || block >= self.ag_length(ag) {
            return None;
        }
        let block = ag.checked_mul(self.ag_blocks)?.checked_add(block)?;
        block.checked_mul(self.block_size)
    }

    /// The group and the block in it that a number made of both stands for.
    pub(super) fn split(&self, fs_block: u64) -> (u64, u64) {
        let mask = (1_u64 << self.ag_block_log) - 1;
        (fs_block >> self.ag_block_log, fs_block & mask)
    }

    /// Length of a block as memory has it: at most 64 KiB.
    pub(super) fn block_length(&self) -> usize {
        usize::try_from(self.block_size).unwrap_or(0)
    }
}

/// A size that is a power of two within `allowed` and the one that its logarithm says.
fn size_field(size: u64, log: u8, allowed: std::ops::RangeInclusive<u64>) -> Option<u64> {
    let agrees = size.is_power_of_two() && size.trailing_zeros() == u32::from(log);
    (agrees && allowed.contains(&size)).then_some(size)
}

fn unknown_bits(kind: &str, bits: u32) -> Cow<'static, str> {
    let numbers: Vec<String> = (0..u32::BITS)
        .filter(|bit| bits >> bit & 1 != 0)
        .map(|bit| bit.to_string())
        .collect();
    format!(
        "xfs has unknown {kind} features (bit {})",
        numbers.join(", ")
    )
    .into()
}

#[cfg(test)]
mod tests;
