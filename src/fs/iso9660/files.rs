//! Contents of files and directories.
//!
//! A node is the byte of the volume where the file's record lies, the first of them when it has several; the root's is
//! in the descriptor of its tree. Rock Ridge's names and attributes are taken where there are any, else Joliet's names,
//! else those of the standard as Linux shows them.

use std::ops::{ControlFlow, Range};

use super::descriptor::{Descriptors, SECTOR};
use super::record::{Extent, Record, joliet_name, plain_name};
use super::rock_ridge::Extension;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Refusal;
use crate::fs::tree::{DirEntry, FileKind, MAX_LINK, Metadata, Node, Piece, Tree, send_data};
use crate::volume::Volume;

const ROOT: Node = Node(0);
/// Directories are read in pieces of this size, which no record crosses.
const PIECE: usize = SECTOR as usize;
/// Bytes of a record at most.
const LONGEST_RECORD: u64 = 255;
/// Records that make up one file at most: 64 times 4 GiB.
const MOST_EXTENTS: usize = 64;
/// Bytes of a directory that are read at most.
const LONGEST_DIRECTORY: u64 = 1 << 30;

/// Whose names are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// With as many bytes before its fields in each record.
    RockRidge(usize),
    Joliet,
    Plain,
}

/// The files of a filesystem.
#[derive(Debug)]
pub(in crate::fs) struct Files<'a> {
    volume: Volume<'a>,
    block_size: u64,
    root: [u8; 34],
    names: Names,
}

/// A file or directory, as its records have it.
struct File {
    kind: FileKind,
    /// In the order of the file; one for everything but large files.
    extents: Vec<Extent>,
    metadata: Metadata,
    target: Option<Vec<u8>>,
    is_compressed: bool,
}

fn corrupt(node: Node, what: &str) -> Error {
    let message = match node {
        ROOT => format!("iso9660 root directory {what}"),
        Node(at) => format!("iso9660 record at {at:#x} {what}"),
    };
    Error::new(ErrorKind::Corrupt, message)
}

impl<'a> Files<'a> {
    /// What is on `volume`.
    pub(in crate::fs) fn open(volume: &Volume<'a>) -> Result<Self, Refusal> {
        let found = Descriptors::read(volume)?;
        let found = found.ok_or_else(|| Refusal::damaged("iso9660 has no primary descriptor"))?;
        let mut files = Self {
            volume: volume.clone(),
            block_size: found.block_size,
            root: found.root,
            names: Names::Plain,
        };
        // Without Rock Ridge's mark in the first record of the root its fields mean nothing.
        let skip = files.rock_ridge()?;
        match (skip, found.joliet) {
            (Some(skip), _) => files.names = Names::RockRidge(skip),
            (None, Some(root)) => {
                files.names = Names::Joliet;
                files.root = root;
            }
            (None, None) => {}
        }
        Ok(files)
    }

    /// As many bytes as are before the fields in each record, if the root has them.
    fn rock_ridge(&self) -> Result<Option<usize>> {
        let Some(root) = Record::parse(&self.root) else {
            return Ok(None);
        };
        let at = root.extent.block.saturating_mul(self.block_size);
        if at.saturating_add(SECTOR) > self.volume.size() {
            return Ok(None);
        }
        let sector = self.volume.read_vec(at, PIECE)?;
        let Some(first) = Record::parse(&sector) else {
            return Ok(None);
        };
        let fields = Extension::read(&self.volume, self.block_size, first.system, 0);
        // Attributes or a name have to be there too: other extensions use the same mark.
        Ok(fields
            .ok()
            .filter(|fields| fields.attributes.is_some() || !fields.name.is_empty())
            .and_then(|fields| fields.announced))
    }

    /// The bytes from `at` on that a record there may have.
    fn read_record(&self, at: u64) -> Result<Vec<u8>> {
        let left = self.volume.size().saturating_sub(at).max(1);
        let length = LONGEST_RECORD.min(left);
        self.volume
            .read_vec(at, usize::try_from(length).unwrap_or(0))
    }

    fn extension(&self, record: &Record<'_>) -> Result<Extension> {
        match self.names {
            Names::RockRidge(skip) => {
                Extension::read(&self.volume, self.block_size, record.system, skip)
            }
            Names::Joliet | Names::Plain => Ok(Extension::default()),
        }
    }

    fn file(&self, node: Node) -> Result<File> {
        let sector = match node {
            ROOT => self.root.to_vec(),
            Node(at) => self.read_record(at)?,
        };
        let record = Record::parse(&sector).ok_or_else(|| corrupt(node, "is none"))?;
        let mut extension = match node {
            ROOT => {
                // The root's attributes are in its own first record.
                let at = record.extent.block.saturating_mul(self.block_size);
                let own = self.read_record(at)?;
                let own = Record::parse(&own);
                let own = own.ok_or_else(|| corrupt(node, "has no record of itself"))?;
                self.extension(&own)?
            }
            _ => self.extension(&record)?,
        };
        let mut extents = vec![record.extent];
        let mut is_directory = record.is_directory;
        if let Some(block) = extension.child {
            // A directory that was moved: its own first record says more.
            let own = self.read_record(block.saturating_mul(self.block_size))?;
            let own = Record::parse(&own).filter(|own| own.is_directory);
            let own = own.ok_or_else(|| corrupt(node, "leads to no directory"))?;
            let name = extension.name;
            extension = self.extension(&own)?;
            extension.name = name;
            extents = vec![own.extent];
            is_directory = true;
        } else if record.has_more {
            extents = self.extents(node)?;
        }
        if record.interleaved {
            return Err(Error::unsupported(format!(
                "iso9660 record at {:#x} is of a file in pieces between others",
                node.0
            )));
        }
        let attributes = extension.attributes;
        let claimed = attributes.and_then(|attributes| FileKind::from_mode(attributes.mode));
        let kind = match claimed {
            _ if is_directory => FileKind::Directory,
            Some(FileKind::Directory) | None => FileKind::File,
            Some(kind) => kind,
        };
        let size = match (&extension.target, kind) {
            (Some(target), FileKind::Symlink) => target.len() as u64,
            _ => extents.iter().map(|extent| extent.length).sum(),
        };
        let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        Ok(File {
            kind,
            metadata: Metadata {
                kind,
                permissions: attributes.map_or(0o555, |found| found.mode & 0o7777),
                uid: attributes.map_or(0, |found| found.uid),
                gid: attributes.map_or(0, |found| found.gid),
                size,
                links: attributes.map_or(1, |found| found.links.max(1)),
                inode: attributes
                    .and_then(|found| found.serial)
                    .filter(|serial| *serial > 0)
                    .map_or(node.0 / 2 + 1, u64::from),
                accessed: extension.accessed,
                modified: extension.modified.or(record.time),
                changed: extension.changed,
                created: extension.created,
                device: extension.device.filter(|_| is_device),
            },
            extents,
            target: extension.target,
            is_compressed: extension.is_compressed,
        })
    }

    /// Where a file of several records is, of which the first is at byte `node` of the volume.
    fn extents(&self, node: Node) -> Result<Vec<Extent>> {
        let mut extents = Vec::new();
        let mut at = node.0;
        while extents.len() < MOST_EXTENTS {
            let sector = self.read_record(at)?;
            let Some(record) = Record::parse(&sector) else {
                // The directory goes on in its next sector.
                if at.is_multiple_of(SECTOR) {
                    return Err(corrupt(node, "ends early"));
                }
                at = at.next_multiple_of(SECTOR);
                continue;
            };
            extents.push(record.extent);
            if !record.has_more {
                return Ok(extents);
            }
            at = at.saturating_add(record.bytes.len() as u64);
        }
        Err(corrupt(node, "has more pieces than a file can have"))
    }

    /// The name that a record has; empty when it is to be left out.
    fn name(&self, record: &Record<'_>) -> Result<Vec<u8>> {
        Ok(match self.names {
            Names::RockRidge(_) => {
                let extension = self.extension(record)?;
                match extension {
                    Extension {
                        relocated: true, ..
                    } => Vec::new(),
                    Extension { name, .. } if name.is_empty() => plain_name(record.name),
                    Extension { name, .. } => name,
                }
            }
            Names::Joliet => joliet_name(record.name),
            Names::Plain => plain_name(record.name),
        })
    }
}

impl Tree for Files<'_> {
    fn format(&self) -> &'static str {
        "iso9660"
    }

    fn root(&self) -> Node {
        ROOT
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        Ok(self.file(node)?.metadata)
    }

    fn read_dir(
        &self,
        node: Node,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let file = self.file(node)?;
        let extent = file.extents.first().copied();
        let extent = extent.filter(|_| file.kind == FileKind::Directory);
        let extent = extent.ok_or_else(|| corrupt(node, "is no directory"))?;
        if extent.length > LONGEST_DIRECTORY {
            return Err(corrupt(node, "is longer than a directory can be"));
        }
        let start = extent.block.saturating_mul(self.block_size);
        let mut done = 0;
        let mut goes_on = false;
        while done < extent.length {
            let length = SECTOR.min(extent.length - done);
            let place = start.saturating_add(done);
            let sector = self
                .volume
                .read_vec(place, usize::try_from(length).unwrap_or(0))?;
            done += SECTOR;
            let mut at = 0;
            // What follows the last record of a sector is zero.
            while sector.get(at).is_some_and(|length| *length > 0) {
                let record = Record::parse(sector.get(at..).unwrap_or_default());
                let record = record
                    .ok_or_else(|| corrupt(node, "has records that do not follow each other"))?;
                let own = Node(place.saturating_add(at as u64));
                at += record.bytes.len();
                // All but the first record of a file only say where more of it is.
                let is_first = !goes_on;
                goes_on = record.has_more;
                if record.is_dots() || record.is_associated || !is_first {
                    continue;
                }
                let name = self.name(&record)?;
                if matches!(name.as_slice(), b"" | b"." | b"..") {
                    continue;
                }
                let entry = DirEntry {
                    name: &name,
                    node: own,
                    kind: record.is_directory.then_some(FileKind::Directory),
                };
                if each(entry).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn read_link(&self, node: Node) -> Result<Vec<u8>> {
        let file = self.file(node)?;
        let target = file.target.filter(|_| file.kind == FileKind::Symlink);
        let target = target.ok_or_else(|| corrupt(node, "is no symbolic link"))?;
        if target.len() as u64 > MAX_LINK {
            return Err(corrupt(node, "has a target longer than it can be"));
        }
        Ok(target)
    }

    fn read_file(
        &self,
        node: Node,
        range: Range<u64>,
        each: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let file = self.file(node)?;
        if file.kind != FileKind::File {
            return Err(corrupt(node, "is no regular file"));
        }
        if file.is_compressed {
            return Err(Error::unsupported(format!(
                "iso9660 record at {:#x} is of a compressed file",
                node.0
            )));
        }
        let mut start = 0_u64;
        for extent in file.extents {
            let end = start + extent.length;
            let part = range.start.max(start)..range.end.min(end);
            if part.start < part.end {
                let place = extent.block.saturating_mul(self.block_size);
                let place = place.saturating_add(part.start - start);
                let length = part.end - part.start;
                if send_data(&self.volume, place, part.start, length, each)?.is_break() {
                    break;
                }
            }
            start = end;
        }
        Ok(())
    }
}
