//! Contents of files, directories and symbolic links.
//!
//! Source: the chapters "Directories" and "Symbolic Links" of the "XFS Algorithms & Data Structures" document and the
//! kernel's `fs/xfs/libxfs/xfs_da_format.h`.

use std::collections::HashSet;
use std::ops::{ControlFlow, Range};

use super::checksum::is_sound;
use super::extents::Leaf;
use super::inode::{Fork, Inode, corrupt};
use super::superblock::Superblock;
use crate::error::Result;
use crate::fields::Fields;
use crate::fs::Refusal;
use crate::fs::tree::{DirEntry, FileKind, Metadata, Node, Piece, Tree, send_data};
use crate::volume::Volume;

/// `XFS_DIR2_LEAF_OFFSET`: entries lie before, indexes of them behind.
const DIRECTORY_DATA_END: u64 = 1 << 35;
/// `XFS_SYMLINK_MAXLEN`.
const LONGEST_TARGET: u64 = 1024;
/// Marks a free piece of a directory's block.
const FREE: u16 = 0xffff;

/// The files of a filesystem, as they are on the disk: what a log that was not written back would change is not seen.
#[derive(Debug)]
pub(in crate::fs) struct Files<'a> {
    volume: Volume<'a>,
    superblock: Superblock,
}

/// Gets entries one by one, and says when it has enough.
type EachEntry<'a> = &'a mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>;

impl<'a> Files<'a> {
    /// What is on `volume`.
    pub(in crate::fs) fn open(volume: &Volume<'a>) -> Result<Self, Refusal> {
        let superblock = Superblock::read(volume)?;
        superblock.require_readable()?;
        Ok(Self {
            volume: volume.clone(),
            superblock,
        })
    }

    fn inode(&self, node: Node) -> Result<Inode> {
        Inode::read(&self.volume, &self.superblock, node.0)
    }

    /// Fills `buf` with what is in the blocks of `inode` from byte `at` on; `leaf` is what was learned of it before.
    fn read_blocks(
        &self,
        inode: &Inode,
        leaf: &mut Leaf,
        mut at: u64,
        mut buf: &mut [u8],
    ) -> Result<()> {
        let size = self.superblock.block_size;
        while !buf.is_empty() {
            let block = at / size;
            if !leaf.tells_of(block) {
                *leaf = Leaf::read(&self.volume, &self.superblock, inode, block)?;
            }
            let (place, end) = leaf.find(block, size);
            let length = end.saturating_mul(size).saturating_sub(at);
            let length = usize::try_from(length).unwrap_or(usize::MAX).min(buf.len());
            if length == 0 {
                return Err(corrupt(inode.number, "has impossible extents"));
            }
            let (part, rest) = buf.split_at_mut(length);
            match place {
                None => part.fill(0),
                Some(place) => self.volume.read_at(place + at % size, part)?,
            }
            at = at.saturating_add(length as u64);
            buf = rest;
        }
        Ok(())
    }

    /// The target of a symbolic link.
    fn target(&self, inode: &Inode) -> Result<Vec<u8>> {
        let corrupt = |what| corrupt(inode.number, what);
        if inode.metadata.kind != FileKind::Symlink {
            return Err(corrupt("is no symbolic link"));
        }
        if let Fork::Local(target) = &inode.fork {
            return Ok(target.clone());
        }
        if inode.metadata.size > LONGEST_TARGET {
            return Err(corrupt("has a target longer than it can be"));
        }
        let length = usize::try_from(inode.metadata.size).unwrap_or(0);
        let mut target = Vec::new();
        let leaf = Leaf::read(&self.volume, &self.superblock, inode, 0)?;
        for extent in leaf.extents() {
            // Whatever the target is as text, each extent has its piece of it.
            let left = length - target.len();
            let Some(at) = extent.at.filter(|_| left > 0) else {
                break;
            };
            if !self.superblock.v5 {
                let piece = (extent.blocks * self.superblock.block_size).min(left as u64);
                let piece = usize::try_from(piece).unwrap_or(0);
                target.extend(self.volume.read_vec(at, piece)?);
                continue;
            }
            // A target and its headers need no more.
            let most = (2 * LONGEST_TARGET).div_ceil(self.superblock.block_size);
            if extent.blocks > most {
                return Err(corrupt("has a damaged target"));
            }
            let piece = extent.blocks * self.superblock.block_size;
            let piece = usize::try_from(piece).unwrap_or(0);
            let bytes = self.volume.read_vec(at, piece)?;
            let fields = Fields(&bytes);
            let own = fields.array(0) == *b"XSLM"
                && usize::try_from(fields.be32(4)).is_ok_and(|offset| offset == target.len())
                && fields.array(16) == self.superblock.meta_uuid
                && fields.be64(32) == inode.number
                && fields.be64(40) == at / 512;
            if !own || !is_sound(fields, 12) {
                return Err(corrupt("has a damaged target"));
            }
            let stored = usize::try_from(fields.be32(8)).unwrap_or(usize::MAX);
            target.extend(fields.slice(56, stored.min(left)));
        }
        if target.len() != length {
            return Err(corrupt("has a target that is cut off"));
        }
        Ok(target)
    }

    /// Gives all names in a directory to `each`, as they are stored; not `.` and `..`.
    fn entries(&self, inode: &Inode, each: EachEntry<'_>) -> Result<()> {
        if inode.metadata.kind != FileKind::Directory {
            return Err(corrupt(inode.number, "is no directory"));
        }
        if let Fork::Local(bytes) = &inode.fork {
            return self.short_entries(inode, bytes, each);
        }
        let block = self.superblock.block_size << self.superblock.directory_block_log;
        let end = inode.metadata.size.min(DIRECTORY_DATA_END);
        let mut bytes = vec![0; usize::try_from(block).unwrap_or(0)];
        let mut leaf = Leaf::default();
        let mut seen = HashSet::new();
        let mut at = 0;
        while at < end {
            let first = at / self.superblock.block_size;
            if !leaf.tells_of(first) {
                leaf = Leaf::read(&self.volume, &self.superblock, inode, first)?;
            }
            match leaf.find(first, self.superblock.block_size) {
                (None, next) => {
                    // No entry begins in a hole; a block of the directory begins at a multiple of its size.
                    let next = next.saturating_mul(self.superblock.block_size).max(at + 1);
                    at = next.checked_next_multiple_of(block).unwrap_or(u64::MAX);
                    continue;
                }
                (Some(place), _) => {
                    // Ends whatever the extents say: they may not lead to a place twice.
                    if !seen.insert(place) {
                        return Err(corrupt(inode.number, "has impossible extents"));
                    }
                    self.read_blocks(inode, &mut leaf, at, &mut bytes)?;
                    if self.block_entries(inode, &bytes, place, each)?.is_break() {
                        return Ok(());
                    }
                }
            }
            at = at.saturating_add(block);
        }
        Ok(())
    }

    /// Names in the inode itself.
    fn short_entries(&self, inode: &Inode, bytes: &[u8], each: EachEntry<'_>) -> Result<()> {
        let fields = Fields(bytes);
        let count = fields.u8(0);
        let wide = fields.u8(1) > 0;
        let mut at = if wide { 10 } else { 6 };
        for _ in 0..count {
            let length = usize::from(fields.u8(at));
            let name = fields.slice(at + 3, length);
            let kind = at + 3 + length;
            let number = kind + usize::from(self.superblock.file_type);
            let kind = self.superblock.file_type.then(|| fields.u8(kind));
            let end = number + if wide { 8 } else { 4 };
            if end > bytes.len() {
                return Err(corrupt(inode.number, "has a name that is cut off"));
            }
            let number = if wide {
                fields.be64(number)
            } else {
                u64::from(fields.be32(number))
            };
            if entry(inode, name, number, kind, each)?.is_break() {
                break;
            }
            at = end;
        }
        Ok(())
    }

    /// Names in one block of a directory, which begins at byte `place` of the volume.
    fn block_entries(
        &self,
        inode: &Inode,
        bytes: &[u8],
        place: u64,
        each: EachEntry<'_>,
    ) -> Result<ControlFlow<()>> {
        let corrupt = |what| corrupt(inode.number, what);
        let fields = Fields(bytes);
        let (alone, magic_is_known) = match (self.superblock.v5, &fields.array(0)) {
            (false, b"XD2B") | (true, b"XDB3") => (true, true),
            (false, b"XD2D") | (true, b"XDD3") => (false, true),
            _ => (false, false),
        };
        if !magic_is_known {
            return Err(corrupt("has a directory block that is none"));
        }
        if self.superblock.v5 {
            if !is_sound(fields, 4) {
                return Err(corrupt("has a directory block that fails its checksum"));
            }
            let own = fields.be64(8) == place / 512
                && fields.array(24) == self.superblock.meta_uuid
                && fields.be64(40) == inode.number;
            if !own {
                return Err(corrupt("has a directory block that belongs elsewhere"));
            }
        }
        // A directory of one block has its index at the end.
        let index = if alone {
            let count = fields.be32(bytes.len().saturating_sub(8));
            usize::try_from(count)
                .ok()
                .and_then(|count| count.checked_mul(8)?.checked_add(8))
        } else {
            Some(0)
        };
        let end = index.and_then(|index| bytes.len().checked_sub(index));
        let end = end.ok_or_else(|| corrupt("has an index larger than its block"))?;
        let mut at = if self.superblock.v5 { 64 } else { 16 };
        while at < end {
            let length = if fields.be16(at) == FREE {
                usize::from(fields.be16(at + 2))
            } else {
                let name = usize::from(fields.u8(at + 8));
                (8 + 1 + name + usize::from(self.superblock.file_type) + 2).next_multiple_of(8)
            };
            let next = at + length;
            // Each piece ends with where it begins.
            let sound = length >= 8
                && length % 8 == 0
                && next <= end
                && usize::from(fields.be16(next - 2)) == at;
            if !sound {
                return Err(corrupt(
                    "has a directory block whose entries do not follow each other",
                ));
            }
            if fields.be16(at) != FREE {
                let length = usize::from(fields.u8(at + 8));
                let name = fields.slice(at + 9, length);
                let kind = self
                    .superblock
                    .file_type
                    .then(|| fields.u8(at + 9 + length));
                if entry(inode, name, fields.be64(at), kind, each)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            at = next;
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// A name as the directory `inode` has it, with what it says that it names.
fn entry(
    inode: &Inode,
    name: &[u8],
    number: u64,
    kind: Option<u8>,
    each: EachEntry<'_>,
) -> Result<ControlFlow<()>> {
    if name.is_empty() {
        return Err(corrupt(inode.number, "has an entry without a name"));
    }
    if matches!(name, b"." | b"..") {
        return Ok(ControlFlow::Continue(()));
    }
    Ok(each(DirEntry {
        name,
        node: Node(number),
        kind: kind.and_then(file_kind),
    }))
}

/// `XFS_DIR3_FT_*`.
fn file_kind(kind: u8) -> Option<FileKind> {
    Some(match kind {
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

impl Tree for Files<'_> {
    fn format(&self) -> &'static str {
        "xfs"
    }

    fn root(&self) -> Node {
        Node(self.superblock.root_inode)
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        Ok(self.inode(node)?.metadata)
    }

    fn read_dir(&self, node: Node, each: EachEntry<'_>) -> Result<()> {
        self.entries(&self.inode(node)?, each)
    }

    fn read_link(&self, node: Node) -> Result<Vec<u8>> {
        self.target(&self.inode(node)?)
    }

    fn read_file(
        &self,
        node: Node,
        range: Range<u64>,
        each: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let inode = self.inode(node)?;
        if inode.metadata.kind != FileKind::File {
            return Err(corrupt(node.0, "is no regular file"));
        }
        let size = self.superblock.block_size;
        let end = range.end.min(inode.metadata.size);
        let mut leaf = Leaf::default();
        let mut at = range.start;
        while at < end {
            let block = at / size;
            if !leaf.tells_of(block) {
                leaf = Leaf::read(&self.volume, &self.superblock, &inode, block)?;
            }
            let (place, next) = leaf.find(block, size);
            let next = next.saturating_mul(size).min(end);
            if next <= at {
                return Err(corrupt(node.0, "has impossible extents"));
            }
            let length = next - at;
            let flow = match place {
                Some(place) => send_data(&self.volume, place + at % size, at, length, each)?,
                None => each(Piece::Hole { offset: at, length }),
            };
            if flow.is_break() {
                break;
            }
            at = next;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
