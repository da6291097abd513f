//! The files of ext2, ext3 and ext4.
//!
//! A node is the number of an inode. Directories are read block by block, also those with an index: its blocks look
//! like unused entries to who does not know it. Checksums of inodes, extents and directories are checked where there
//! are any.
//!
//! The crate ext4-view reads the same format and is not used here, but by the tests, as a second opinion: it keeps its
//! source for as long as the program runs, finds files by path alone, tells no inode numbers, links or holes, and
//! refuses several features that need nothing more to be read.

mod blocks;
mod directory;
mod extents;
mod inode;
mod place;
mod pointers;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

use crate::error::{Error, ErrorKind, Result};
use crate::fs::Refusal;
use crate::fs::ext4::blocks::Copy;
use crate::fs::ext4::superblock::Superblock;
use crate::fs::ext4::{blocks as replay, journal, superblock};
use crate::fs::tree::{DirEntry, FileKind, MAX_LINK, Metadata, Node, Piece, Tree, send_data};
use crate::volume::Volume;

use blocks::Blocks;
use extents::Leaf;
use inode::{Contents, Inode, corrupt};

/// `EXT4_ROOT_INO`.
const ROOT: Node = Node(2);

/// The files of a filesystem.
#[derive(Debug)]
pub(in crate::fs) struct Files<'a> {
    blocks: Blocks<'a>,
    superblock: Superblock,
}

/// Blocks of a file that follow each other in it and on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// Where the first one is; nothing was written to them when there is none.
    at: Option<u64>,
    /// The block of the file behind the last one.
    end: u64,
}

/// Gets entries one by one, and says when it has enough.
type EachEntry<'a> = &'a mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>;
/// Gets pieces of a file one by one, and says when it has enough.
type EachPiece<'a> = &'a mut dyn FnMut(Piece<'_>) -> ControlFlow<()>;

impl<'a> Files<'a> {
    /// What is on `volume`, or will be once its journal was replayed.
    pub(in crate::fs) fn open(volume: &Volume<'a>) -> Result<Self, Refusal> {
        let first = volume.read_vec(superblock::PLACE, superblock::LENGTH)?;
        let superblock = Superblock::parse_readable(&first, volume.size())?;
        if !superblock.features.needs_recovery() {
            return Ok(Self::new(volume, superblock, BTreeMap::new()));
        }
        let blocks = replay::Blocks::new(volume, superblock.block_length());
        let blocks = journal::replay(&blocks, &superblock)?;
        let newer = Superblock::parse_readable(&blocks.superblock()?, volume.size())?;
        if newer.block_size != superblock.block_size {
            return Err(Refusal::damaged("ext4 journal changes the block size"));
        }
        Ok(Self::new(volume, newer, blocks.into_newer()))
    }

    fn new(volume: &Volume<'a>, superblock: Superblock, newer: BTreeMap<u64, Copy>) -> Self {
        let blocks = Blocks::new(volume, superblock.block_size, newer);
        Self { blocks, superblock }
    }

    fn inode(&self, node: Node) -> Result<Inode> {
        Inode::read(&self.blocks, &self.superblock, node.0)
    }

    /// Where block `block` of a file is; `leaf` is what was learned of the file before.
    fn run(&self, inode: &Inode, leaf: &mut Option<Leaf>, block: u64) -> Result<Run> {
        let run = match &inode.contents {
            Contents::Extents(root) => {
                if leaf.as_ref().is_none_or(|leaf| !leaf.tells_of(block)) {
                    *leaf = Some(Leaf::search(
                        &self.blocks,
                        &self.superblock,
                        inode,
                        root,
                        block,
                    )?);
                }
                leaf.as_ref().map(|leaf| leaf.find(block))
            }
            Contents::Pointers(pointers) => Some(pointers::find(
                &self.blocks,
                &self.superblock,
                inode,
                pointers,
                block,
            )?),
            Contents::Inline(_) | Contents::None => None,
        };
        run.filter(|run| run.end > block)
            .ok_or_else(|| corrupt(inode.number, "has its data nowhere"))
    }

    /// Sends a part of a file, of whatever kind it is.
    fn send(&self, inode: &Inode, range: Range<u64>, each: EachPiece<'_>) -> Result<()> {
        let size = self.superblock.block_size;
        let end = range.end.min(inode.metadata.size);
        let mut at = range.start;
        if at >= end {
            return Ok(());
        }
        if let Contents::Inline(bytes) = &inode.contents {
            if inode.metadata.size > size {
                return Err(corrupt(inode.number, "is larger than its inode"));
            }
            // Such a file may have grown without anything being written.
            let stored = end.min(bytes.len() as u64);
            let part = usize::try_from(at).ok().zip(usize::try_from(stored).ok());
            if let Some(part) = part.and_then(|(at, stored)| bytes.get(at..stored))
                && !part.is_empty()
            {
                let piece = Piece::Data {
                    offset: at,
                    bytes: part,
                };
                if each(piece).is_break() {
                    return Ok(());
                }
                at = stored;
            }
            if at < end {
                let _ = each(Piece::Hole {
                    offset: at,
                    length: end - at,
                });
            }
            return Ok(());
        }
        let mut leaf = None;
        while at < end {
            let run = self.run(inode, &mut leaf, at / size)?;
            let next = run.end.saturating_mul(size).min(end);
            let length = next - at;
            let flow = match run.at {
                // The run lies within the filesystem.
                Some(block) => {
                    let place = block * size + at % size;
                    if self.blocks.has_newer(place..place + length) {
                        self.blocks.send(place, at, length, each)?
                    } else {
                        send_data(self.blocks.volume(), place, at, length, each)?
                    }
                }
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

impl Tree for Files<'_> {
    fn format(&self) -> &'static str {
        self.superblock.features.kind()
    }

    fn root(&self) -> Node {
        ROOT
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        Ok(self.inode(node)?.metadata)
    }

    fn read_dir(&self, node: Node, each: EachEntry<'_>) -> Result<()> {
        let inode = self.inode(node)?;
        if inode.metadata.kind != FileKind::Directory {
            return Err(corrupt(node.0, "is no directory"));
        }
        inode.require_plain()?;
        directory::read(self, &inode, each)
    }

    fn read_link(&self, node: Node) -> Result<Vec<u8>> {
        let inode = self.inode(node)?;
        let size = inode.metadata.size;
        if inode.metadata.kind != FileKind::Symlink {
            return Err(corrupt(node.0, "is no symbolic link"));
        }
        inode.require_plain()?;
        if size > MAX_LINK {
            return Err(corrupt(node.0, "has a target longer than it can be"));
        }
        let mut target = Vec::new();
        self.send(&inode, 0..size, &mut |piece| {
            match piece {
                Piece::Data { bytes, .. } => target.extend_from_slice(bytes),
                Piece::Hole { .. } => return ControlFlow::Break(()),
            }
            ControlFlow::Continue(())
        })?;
        // A target has no holes.
        if target.len() as u64 != size {
            return Err(corrupt(node.0, "has a target that is cut off"));
        }
        Ok(target)
    }

    fn read_file(&self, node: Node, range: Range<u64>, each: EachPiece<'_>) -> Result<()> {
        let inode = self.inode(node)?;
        if inode.metadata.kind != FileKind::File {
            return Err(corrupt(node.0, "is no regular file"));
        }
        inode.require_plain()?;
        self.send(&inode, range, each)
    }
}

/// What contradicts itself somewhere else than in an inode.
fn damaged(what: String) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}
