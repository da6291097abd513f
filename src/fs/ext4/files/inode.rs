//! Inodes: what they say of a file, and where its contents are.
//!
//! Source: `struct ext4_inode` of the kernel's `fs/ext4/ext4.h`; `struct ext4_xattr_entry` of its `fs/ext4/xattr.h` for
//! what does not fit where block numbers would be.

use super::blocks::Blocks;
use super::place::inode_at;
use crate::error::{Error, ErrorKind, Result};
use crate::fields::Fields;
use crate::fs::ext4::checksum::crc32c;
use crate::fs::ext4::superblock::Superblock;
use crate::fs::tree::{Device, FileKind, Metadata, Timestamp};

const FLAG_COMPRESSED: u32 = 0x4;
const FLAG_ENCRYPTED: u32 = 0x800;
const FLAG_INDEX: u32 = 0x1000;
const FLAG_EXTENTS: u32 = 0x8_0000;
const FLAG_INLINE_DATA: u32 = 0x1000_0000;

/// Bytes of an inode that all have.
const CORE: usize = 128;
/// Where block numbers are, and their bytes.
const PLACES_AT: usize = 0x28;
const PLACES: usize = 60;

/// `EXT4_XATTR_MAGIC`, before attributes in an inode.
const ATTRIBUTES_MAGIC: u32 = 0xea02_0000;
/// `EXT4_XATTR_INDEX_SYSTEM`; the name of the attribute with inline data is "data" then.
const INDEX_SYSTEM: u8 = 7;

/// Where the contents of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Contents {
    /// In the inode.
    Inline(Vec<u8>),
    /// In extents; the root of their tree.
    Extents([u8; PLACES]),
    /// In blocks, or blocks with their numbers, and so on.
    Pointers([u8; PLACES]),
    /// Nowhere: a device, a pipe, a socket.
    None,
}

/// An inode in use.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) number: u64,
    pub(super) metadata: Metadata,
    pub(super) contents: Contents,
    /// What checksums of its blocks begin with; `None` when there are none.
    pub(super) seed: Option<u32>,
    flags: u32,
}

pub(super) fn corrupt(number: u64, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("ext4 inode {number} {what}"))
}

impl Inode {
    /// Reads inode `number` and checks that it is in use.
    pub(super) fn read(blocks: &Blocks<'_>, superblock: &Superblock, number: u64) -> Result<Self> {
        let at = inode_at(superblock, blocks, number)?;
        let at = at.ok_or_else(|| corrupt(number, "is not there"))?;
        let length = usize::try_from(superblock.inode_size).unwrap_or(CORE);
        let bytes = blocks.read(at, length)?;
        Self::parse(&bytes, superblock, number)
    }

    fn parse(bytes: &[u8], superblock: &Superblock, number: u64) -> Result<Self> {
        let fields = Fields(bytes);
        let corrupt = |what| corrupt(number, what);
        let (mode, links) = (fields.le16(0), fields.le16(0x1a));
        if mode == 0 || links == 0 {
            return Err(corrupt("is not in use"));
        }
        // Bytes behind the core that are fields.
        let extra = match bytes.len() {
            CORE => 0,
            _ => usize::from(fields.le16(0x80)),
        };
        if CORE + extra > bytes.len() || extra % 4 != 0 {
            return Err(corrupt("has more fields than room"));
        }
        let seed = superblock.sums_seed().map(|seed| {
            let number = u32::try_from(number).unwrap_or(0).to_le_bytes();
            crc32c(crc32c(seed, &number), &fields.array::<4>(0x64))
        });
        if let Some(seed) = seed
            && !is_sound(bytes, seed, extra)
        {
            return Err(corrupt("fails its checksum"));
        }
        let kind = FileKind::from_mode(mode).ok_or_else(|| corrupt("is of no kind"))?;
        let flags = fields.le32(0x20);
        let is_long = kind == FileKind::File
            || kind == FileKind::Directory && superblock.features.large_directories();
        let high = if is_long { fields.le32(0x6c) } else { 0 };
        let size = u64::from(high) << 32 | u64::from(fields.le32(4));
        if size > i64::MAX.unsigned_abs() {
            return Err(corrupt("is larger than it can be"));
        }
        let places: [u8; PLACES] = fields.array(PLACES_AT);
        let time = |at: usize, more: usize| {
            // Where the field ends, from the core's end on.
            let has_more = more + 4 <= CORE + extra;
            timestamp(
                fields.le32(at),
                if has_more { fields.le32(more) } else { 0 },
            )
        };
        let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        let device = is_device.then(|| match fields.le16(PLACES_AT) {
            0 => Device::from_linux(fields.le32(PLACES_AT + 4)),
            old => Device::from_old(old),
        });
        let has_data = matches!(
            kind,
            FileKind::File | FileKind::Directory | FileKind::Symlink
        );
        let contents = if !has_data {
            Contents::None
        } else if flags & FLAG_INLINE_DATA != 0 {
            Contents::Inline(inline_data(fields, extra))
        } else if flags & FLAG_EXTENTS != 0 {
            Contents::Extents(places)
        } else if kind == FileKind::Symlink && size < PLACES as u64 {
            Contents::Inline(places.to_vec())
        } else {
            Contents::Pointers(places)
        };
        Ok(Self {
            number,
            metadata: Metadata {
                kind,
                permissions: mode & 0o7777,
                uid: u32::from(fields.le16(2)) | u32::from(fields.le16(0x78)) << 16,
                gid: u32::from(fields.le16(0x18)) | u32::from(fields.le16(0x7a)) << 16,
                size,
                links: u32::from(links),
                inode: number,
                accessed: Some(time(0x8, 0x8c)),
                modified: Some(time(0x10, 0x88)),
                changed: Some(time(0xc, 0x84)),
                created: (extra >= 0x94 - CORE).then(|| time(0x90, 0x94)),
                device,
            },
            contents,
            seed,
            flags,
        })
    }

    /// Whether it is a directory with an index, which begins in its first block.
    pub(super) fn has_index(&self) -> bool {
        self.flags & FLAG_INDEX != 0
    }

    /// Refuses what is there, but not in the open.
    pub(super) fn require_plain(&self) -> Result<()> {
        let what = if self.flags & FLAG_ENCRYPTED != 0 {
            "is encrypted"
        } else if self.flags & FLAG_COMPRESSED != 0 {
            "is compressed"
        } else {
            return Ok(());
        };
        Err(Error::unsupported(format!(
            "ext4 inode {} {what}",
            self.number
        )))
    }
}

/// Whether an inode has the checksum that it should have; the upper half is only there when there is room.
fn is_sound(bytes: &[u8], seed: u32, extra: usize) -> bool {
    let fields = Fields(bytes);
    let mut copy = bytes.to_vec();
    let is_whole = bytes.len() > CORE && extra >= 4;
    for at in [0x7c, 0x82] {
        if let Some(place) = copy.get_mut(at..at + 2)
            && (at == 0x7c || is_whole)
        {
            place.fill(0);
        }
    }
    let computed = crc32c(seed, &copy);
    let low = u32::from(fields.le16(0x7c));
    if is_whole {
        computed == low | u32::from(fields.le16(0x82)) << 16
    } else {
        computed & 0xffff == low
    }
}

/// Seconds of 34 bits, of which the lower 32 count from 1901 on, and nanoseconds.
fn timestamp(seconds: u32, more: u32) -> Timestamp {
    Timestamp {
        seconds: i64::from(seconds.cast_signed()) + (i64::from(more & 3) << 32),
        nanoseconds: (more >> 2).min(999_999_999),
    }
}

/// What is where block numbers would be, and in the attribute "system.data".
fn inline_data(fields: Fields<'_>, extra: usize) -> Vec<u8> {
    let mut data = fields.slice(PLACES_AT, PLACES).to_vec();
    let first = CORE + extra + 4;
    if fields.le32(CORE + extra) != ATTRIBUTES_MAGIC || extra == 0 {
        return data;
    }
    let mut at = first;
    // Four bytes of zeros are the end.
    while at + 16 <= fields.0.len() && fields.le32(at) != 0 {
        let length = usize::from(fields.u8(at));
        let is_data = fields.u8(at + 1) == INDEX_SYSTEM && fields.slice(at + 16, length) == b"data";
        if is_data && fields.le32(at + 4) == 0 {
            let place = first + usize::from(fields.le16(at + 2));
            let size = usize::try_from(fields.le32(at + 8)).unwrap_or(usize::MAX);
            data.extend_from_slice(fields.slice(place, size));
            break;
        }
        at += (16 + length).next_multiple_of(4);
    }
    data
}
