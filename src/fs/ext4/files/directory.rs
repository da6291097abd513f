//! Directories: names and the inodes that they name, block by block.
//!
//! Source: `struct ext4_dir_entry_2` and `ext4_dir_entry_tail` of the kernel's `fs/ext4/ext4.h`, and its
//! `Documentation/filesystems/ext4/inlinedata.rst`.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::inode::{Contents, Inode, corrupt};
use super::{EachEntry, Files};
use crate::error::Result;
use crate::fields::Fields;
use crate::fs::ext4::checksum::crc32c;
use crate::fs::tree::{DirEntry, FileKind, Node};

/// Bytes of an entry before its name.
const HEADER: usize = 8;
/// Bytes at the end of a block that look like an unused entry and hold its checksum, and the kind that they claim.
const TAIL: usize = 12;
const TAIL_KIND: u8 = 0xde;
/// Bytes in the inode where block numbers would be, and of the parent's number, which has no entry there.
const INLINE: usize = 60;
const INLINE_PARENT: usize = 4;

/// Gives all names in a directory to `each`, as they are stored; not `.` and `..`.
pub(super) fn read(files: &Files<'_>, inode: &Inode, each: EachEntry<'_>) -> Result<()> {
    if let Contents::Inline(bytes) = &inode.contents {
        let size = usize::try_from(inode.metadata.size).unwrap_or(usize::MAX);
        let bytes = Fields(bytes).slice(0, size);
        let first = bytes.get(INLINE_PARENT..).unwrap_or_default();
        let first = Fields(first).slice(0, INLINE - INLINE_PARENT);
        if entries(files, inode, first, each)?.is_continue() {
            let _ = entries(files, inode, bytes.get(INLINE..).unwrap_or_default(), each)?;
        }
        return Ok(());
    }
    let size = files.superblock.block_size;
    let length = usize::try_from(size).unwrap_or(0);
    let end = inode.metadata.size.div_ceil(size);
    let mut leaf = None;
    let mut seen = HashSet::new();
    let mut block = 0;
    while block < end {
        let run = files.run(inode, &mut leaf, block)?;
        let Some(first) = run.at else {
            block = run.end;
            continue;
        };
        for at in (first..).take(usize::try_from(run.end.min(end) - block).unwrap_or(usize::MAX)) {
            // Ends whatever the inode says: it may not lead to a place twice.
            if !seen.insert(at) {
                return Err(corrupt(inode.number, "has a block of names twice"));
            }
            let bytes = files.blocks.read(at * size, length)?;
            if !is_index(inode, at == first && block == 0, &bytes) {
                require_sound(inode, &bytes)?;
            }
            if entries(files, inode, &bytes, each)?.is_break() {
                return Ok(());
            }
        }
        block = run.end;
    }
    Ok(())
}

/// Whether a block is of the index: the first one, or one that looks like a single unused entry.
fn is_index(inode: &Inode, is_first: bool, bytes: &[u8]) -> bool {
    let fields = Fields(bytes);
    is_first && inode.has_index()
        || fields.le32(0) == 0 && length_of(fields.le16(4), bytes.len()) == bytes.len()
}

/// Bytes of an entry in a block of so many.
fn length_of(stored: u16, block: usize) -> usize {
    match usize::from(stored) {
        // A block of 64 KiB has no room for its own length; larger ones there are none.
        0 | 0xffff if block > 0xffff => block,
        length => length & !3 | (length & 3) << 16,
    }
}

/// Checks a block that has a checksum where blocks with names have it.
fn require_sound(inode: &Inode, bytes: &[u8]) -> Result<()> {
    let Some(seed) = inode.seed else {
        return Ok(());
    };
    let at = bytes.len().saturating_sub(TAIL);
    let tail = Fields(Fields(bytes).slice(at, TAIL));
    let is_tail = tail.le32(0) == 0
        && usize::from(tail.le16(4)) == TAIL
        && tail.u8(6) == 0
        && tail.u8(7) == TAIL_KIND;
    if is_tail && crc32c(seed, Fields(bytes).slice(0, at)) != tail.le32(8) {
        return Err(corrupt(
            inode.number,
            "has a block of names that fails its checksum",
        ));
    }
    Ok(())
}

fn entries(
    files: &Files<'_>,
    inode: &Inode,
    bytes: &[u8],
    each: EachEntry<'_>,
) -> Result<ControlFlow<()>> {
    let corrupt = |what| corrupt(inode.number, what);
    let fields = Fields(bytes);
    let mut at = 0;
    while at < bytes.len() {
        let length = length_of(fields.le16(at + 4), bytes.len());
        // Without the feature the second byte of the length was once there, always zero.
        let name_length = usize::from(fields.u8(at + 6));
        let has_kind = files.superblock.features.file_types();
        let kind = has_kind.then(|| fields.u8(at + 7));
        if length < HEADER || at + length > bytes.len() || HEADER + name_length > length {
            return Err(corrupt("has names that do not follow each other"));
        }
        let number = fields.le32(at);
        let name = fields.slice(at + HEADER, name_length);
        at += length;
        if number == 0 || matches!(name, b"." | b"..") {
            continue;
        }
        if name.is_empty() {
            return Err(corrupt("has an entry without a name"));
        }
        let entry = DirEntry {
            name,
            node: Node(u64::from(number)),
            kind: kind.and_then(file_kind),
        };
        if each(entry).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// `EXT4_FT_*`; the bits above are of the feature dirdata.
fn file_kind(kind: u8) -> Option<FileKind> {
    Some(match kind & 0xf {
        1 => FileKind::File,
        2 => FileKind::Directory,
        3 => FileKind::CharDevice,
        4 => FileKind::BlockDevice,
        5 => FileKind::Fifo,
        6 => FileKind::Socket,
        7 => FileKind::Symlink,
        _ => return None,
    })
}
