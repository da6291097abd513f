//! Inodes: where they lie, what they say of a file, and the root of its data fork.
//!
//! Source: `struct xfs_dinode` of the kernel's `fs/xfs/libxfs/xfs_format.h` and the chapter "On-disk Inode" of the "XFS
//! Algorithms & Data Structures" document.

use super::checksum::is_sound;
use super::extents::{Extent, Root};
use super::superblock::Superblock;
use crate::error::{Error, ErrorKind, Result};
use crate::fields::Fields;
use crate::fs::tree::{Device, FileKind, Metadata, Timestamp};
use crate::volume::Volume;

/// Bytes before the data fork, by version of the inode.
const OLD_CORE: usize = 100;
const NEW_CORE: usize = 176;

/// `XFS_DIFLAG_REALTIME`: the data lies on another device or behind this one's.
const FLAG_REALTIME: u16 = 1 << 0;
/// `XFS_DIFLAG2_BIGTIME` and `XFS_DIFLAG2_NREXT64`.
const FLAG2_BIG_TIME: u64 = 1 << 3;
const FLAG2_LARGE_COUNTERS: u64 = 1 << 4;

/// Where the contents of a file are.
#[derive(Debug, Clone)]
pub(super) enum Fork {
    /// In the inode.
    Local(Vec<u8>),
    /// In extents that the inode lists, in order.
    Extents(Vec<Extent>),
    /// In extents of a tree.
    Btree(Root),
    /// Nowhere: a device, a pipe, a socket.
    Special,
}

/// An inode in use.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) number: u64,
    pub(super) metadata: Metadata,
    pub(super) fork: Fork,
}

pub(super) fn corrupt(number: u64, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("xfs inode {number} {what}"))
}

impl Inode {
    /// Reads inode `number` and checks that it is that one and in use.
    pub(super) fn read(volume: &Volume<'_>, superblock: &Superblock, number: u64) -> Result<Self> {
        // Number of the group, of the block in it, of the inode in that, from the highest bits to the lowest.
        let (ag, block) = superblock.split(number >> superblock.inodes_per_block_log);
        let index = number & ((1 << superblock.inodes_per_block_log) - 1);
        let at = superblock
            .byte_of(ag, block)
            .ok_or_else(|| corrupt(number, "lies outside the filesystem"))?
            + index * superblock.inode_size;
        let length = usize::try_from(superblock.inode_size).unwrap_or(0);
        let bytes = volume.read_vec(at, length)?;
        Self::parse(&bytes, superblock, number)
    }

    fn parse(bytes: &[u8], superblock: &Superblock, number: u64) -> Result<Self> {
        let fields = Fields(bytes);
        let corrupt = |what| corrupt(number, what);
        if fields.array(0) != *b"IN" {
            return Err(corrupt("is not there"));
        }
        let version = fields.u8(4);
        let core = match (superblock.v5, version) {
            (false, 1 | 2) => OLD_CORE,
            (true, 3) => NEW_CORE,
            _ => return Err(corrupt("is of an unknown version")),
        };
        if superblock.v5 {
            if !is_sound(fields, 100) {
                return Err(corrupt("fails its checksum"));
            }
            if fields.be64(152) != number || fields.array(160) != superblock.meta_uuid {
                return Err(corrupt("belongs elsewhere"));
            }
        }
        let mode = fields.be16(2);
        if mode == 0 {
            return Err(corrupt("is not in use"));
        }
        let flags2 = if superblock.v5 { fields.be64(120) } else { 0 };
        let time = |at| timestamp(fields, at, flags2 & FLAG2_BIG_TIME != 0);
        let extents = if flags2 & FLAG2_LARGE_COUNTERS != 0 {
            fields.be64(24)
        } else {
            u64::from(fields.be32(76))
        };
        let room = bytes.len().saturating_sub(core);
        // Attributes begin where the data fork ends, in units of 8 bytes.
        let fork = match usize::from(fields.u8(82)) * 8 {
            0 => fields.slice(core, room),
            end if end < room => fields.slice(core, end),
            _ => return Err(corrupt("has no room for its data fork")),
        };
        let kind = FileKind::from_mode(mode).ok_or_else(|| corrupt("is of no kind"))?;
        let size = fields.be64(56);
        if size > i64::MAX.unsigned_abs() {
            return Err(corrupt("is larger than it can be"));
        }
        let (is_file, is_directory) = (kind == FileKind::File, kind == FileKind::Directory);
        if is_file && fields.be16(90) & FLAG_REALTIME != 0 {
            return Err(Error::unsupported(format!(
                "xfs inode {number} has its data in the realtime section"
            )));
        }
        let has_data = is_file || is_directory || kind == FileKind::Symlink;
        // Both numbers as in System V, which is not how Linux packs them.
        let numbers = Fields(fork).be32(0);
        let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        let device = is_device.then_some(Device {
            major: numbers >> 18,
            minor: numbers & 0x3_ffff,
        });
        let fork = match fields.u8(5) {
            _ if !has_data => Fork::Special,
            1 if !is_file => {
                let length = usize::try_from(size).ok();
                let content = length.and_then(|length| fork.get(..length));
                let content = content.ok_or_else(|| corrupt("is larger than it can be"))?;
                Fork::Local(content.to_vec())
            }
            2 => {
                let length = extents.checked_mul(16);
                let length = length.and_then(|length| usize::try_from(length).ok());
                let list = length.and_then(|length| fork.get(..length));
                let list = list.ok_or_else(|| corrupt("has more extents than it has room for"))?;
                let list = Extent::list(list, superblock, 0..u64::MAX);
                Fork::Extents(list.ok_or_else(|| corrupt("has impossible extents"))?)
            }
            3 => Fork::Btree(Root::parse(fork)),
            _ => return Err(corrupt("has its data in an unknown form")),
        };
        Ok(Self {
            number,
            metadata: Metadata {
                kind,
                permissions: mode & 0o7777,
                uid: fields.be32(8),
                gid: fields.be32(12),
                size,
                links: if version == 1 {
                    u32::from(fields.be16(6))
                } else {
                    fields.be32(16)
                },
                inode: number,
                accessed: Some(time(32)),
                modified: Some(time(40)),
                changed: Some(time(48)),
                created: superblock.v5.then(|| time(144)),
                device,
            },
            fork,
        })
    }
}

/// Old: signed seconds and nanoseconds. Big: nanoseconds since the earliest second that the old ones know.
fn timestamp(fields: Fields<'_>, at: usize, big: bool) -> Timestamp {
    const SECOND: u64 = 1_000_000_000;
    if big {
        let time = fields.be64(at);
        Timestamp {
            // At most 2^64 / 10^9 - 2^31.
            seconds: i64::try_from(time / SECOND).unwrap_or(i64::MAX) - (1 << 31),
            nanoseconds: u32::try_from(time % SECOND).unwrap_or(0),
        }
    } else {
        Timestamp {
            seconds: i64::from(i32::from_be_bytes(fields.array(at))),
            nanoseconds: fields.be32(at.saturating_add(4)).min(999_999_999),
        }
    }
}
