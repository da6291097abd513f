//! Contents of files and directories.
//!
//! A node is the byte of the volume where its record lies, which is in the directory that has its name; the root, which
//! has none, is 0. Permissions are made up as Linux makes them up: all may read and run, root may write what is not
//! read-only. Times are the guest's local ones, of a zone that is not on the disk: they are taken for UTC.

use std::ops::{ControlFlow, Range};

use super::boot::{Boot, Kind, RECORD};
use super::names::{
    ATTRIBUTE_DIRECTORY, ATTRIBUTE_READ_ONLY, Named, Names, Record, is_entry, is_long_name, same,
};
use super::table::{Chain, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::fields::Fields;
use crate::fs::Refusal;
use crate::fs::tree::{DirEntry, FileKind, Metadata, Node, Piece, Timestamp, Tree, send_data};
use crate::volume::Volume;

const ROOT: Node = Node(0);
/// A directory has as many records at most (`FAT_MAX_DIR_ENTRIES`).
const MOST_RECORDS: u64 = 65536;

/// Directories in the root that are compared with where they are.
const MOST_DIRECTORIES: usize = 64;

/// The files of a filesystem.
#[derive(Debug)]
pub(in crate::fs) struct Files<'a> {
    volume: Volume<'a>,
    boot: Boot,
    table: Table,
}

/// A record that names a file or directory.
#[derive(Debug, Clone, Copy)]
struct File {
    at: u64,
    is_directory: bool,
    read_only: bool,
    first: u64,
    size: u64,
    created: Option<Timestamp>,
    accessed: Option<Timestamp>,
    modified: Option<Timestamp>,
}

/// Gets records one by one with the places and bytes that they have, and says when it has enough.
type EachRecord<'a> = &'a mut dyn FnMut(u64, &[u8], Record) -> ControlFlow<()>;

/// Where the records of a directory are.
enum Place {
    Root(Range<u64>),
    Chain(Chain),
}

fn corrupt(node: Node, what: &str) -> Error {
    let message = match node {
        ROOT => format!("fat root directory {what}"),
        Node(at) => format!("fat directory entry at {at:#x} {what}"),
    };
    Error::new(ErrorKind::Corrupt, message)
}

impl<'a> Files<'a> {
    /// What is on `volume`.
    pub(in crate::fs) fn open(volume: &Volume<'a>) -> Result<Self, Refusal> {
        Ok(Self {
            volume: volume.clone(),
            boot: Boot::require(volume)?,
            table: Table::default(),
        })
    }

    /// What is on `volume`, which has this boot sector; `None` when it has no room for all of it.
    pub(super) fn of(volume: &Volume<'a>, boot: &Boot) -> Option<Self> {
        (boot.size() <= volume.size()).then(|| Self {
            volume: volume.clone(),
            boot: boot.clone(),
            table: Table::default(),
        })
    }

    /// The name that the root directory gives to the volume.
    pub(super) fn label(&self) -> Option<String> {
        let mut label = None;
        // What comes before an error stands.
        let _ = self.records(ROOT, &mut |_, _, record| match record {
            Record::Label(found) => {
                label = Some(found);
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        });
        label.filter(|label| !label.is_empty())
    }

    /// Refuses unless the directories in the root are where they say that they are: then clusters lie where the boot
    /// sector says.
    pub(super) fn require_places(&self) -> Result<(), Refusal> {
        let mut first = Vec::new();
        self.records(ROOT, &mut |at, bytes, record| {
            let file = File::parse(bytes, at, self.boot.kind);
            if matches!(record, Record::Entry(_)) && file.is_directory {
                first.push(file.first);
            }
            if first.len() < MOST_DIRECTORIES {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        for cluster in first {
            let place = self.boot.bytes_of(cluster..cluster + 1);
            let is_there = self.boot.has(cluster) && {
                let length = usize::try_from(self.boot.sector_size).unwrap_or(0);
                let sector = self.volume.read_vec(place.start, length)?;
                // Some writers give it a long name.
                sector
                    .chunks_exact(RECORD as usize)
                    .find(|record| !is_long_name(Fields(record)))
                    .is_some_and(|record| {
                        record.starts_with(b".          ")
                            && File::parse(record, 0, self.boot.kind).first == cluster
                    })
            };
            if !is_there {
                return Err(Refusal::damaged(format!(
                    "fat directory in cluster {cluster} does not begin with itself"
                )));
            }
        }
        Ok(())
    }

    fn file(&self, node: Node) -> Result<File> {
        let at = node.0;
        let boot = &self.boot;
        let data = boot.bytes_of(2..boot.clusters + 2);
        let inside = boot.root.contains(&at) || data.contains(&at);
        if !inside || !at.is_multiple_of(RECORD) {
            return Err(corrupt(node, "lies where none can be"));
        }
        let bytes = self.volume.read_array::<32>(at)?;
        if !is_entry(Fields(&bytes)) {
            return Err(corrupt(node, "is none"));
        }
        Ok(File::parse(&bytes, at, boot.kind))
    }

    fn place(&self, node: Node) -> Result<Place> {
        let first = match node {
            ROOT if self.boot.kind != Kind::Fat32 => {
                return Ok(Place::Root(self.boot.root.clone()));
            }
            ROOT => self.boot.root_cluster,
            _ => {
                let file = self.file(node)?;
                if !file.is_directory {
                    return Err(corrupt(node, "is no directory"));
                }
                file.first
            }
        };
        Ok(Place::Chain(Chain::new(first)))
    }

    /// Gives all records of a directory up to the last one to `each`, with where they lie.
    fn records(&self, node: Node, each: EachRecord<'_>) -> Result<()> {
        let mut place = self.place(node)?;
        let mut names = Names::default();
        let mut left = MOST_RECORDS;
        loop {
            let range = match &mut place {
                Place::Root(range) => std::mem::take(range),
                Place::Chain(chain) => match chain.step(&self.volume, &self.boot, &self.table)? {
                    Some(cluster) => self.boot.bytes_of(cluster..cluster + 1),
                    None => 0..0,
                },
            };
            if range.is_empty() {
                return Ok(());
            }
            if left == 0 {
                return Err(corrupt(node, "is longer than a directory can be"));
            }
            let mut at = range.start;
            while at < range.end && left > 0 {
                // A sector is never more than 4 KiB, and both are multiples of it.
                let length = usize::try_from(self.boot.sector_size).unwrap_or(0);
                let sector = self.volume.read_vec(at, length)?;
                for record in sector.chunks_exact(RECORD as usize) {
                    let found = names.take(record);
                    if found == Record::End || each(at, record, found).is_break() {
                        return Ok(());
                    }
                    at += RECORD;
                    left = left.saturating_sub(1);
                }
            }
        }
    }

    /// Gives all files and directories in a directory to `each`, with their nodes.
    fn entries(
        &self,
        node: Node,
        each: &mut dyn FnMut(Named, Node, FileKind) -> ControlFlow<()>,
    ) -> Result<()> {
        self.records(node, &mut |at, bytes, record| match record {
            Record::Entry(named) => {
                let is_directory = Fields(bytes).u8(11) & ATTRIBUTE_DIRECTORY != 0;
                each(named, Node(at), kind_of(is_directory))
            }
            _ => ControlFlow::Continue(()),
        })
    }
}

fn kind_of(is_directory: bool) -> FileKind {
    if is_directory {
        FileKind::Directory
    } else {
        FileKind::File
    }
}

impl File {
    fn parse(bytes: &[u8], at: u64, kind: Kind) -> Self {
        let fields = Fields(bytes);
        let attributes = fields.u8(11);
        // Others than FAT32 have something else there.
        let high = match kind {
            Kind::Fat32 => u64::from(fields.le16(20)),
            Kind::Fat12 | Kind::Fat16 => 0,
        };
        let is_directory = attributes & ATTRIBUTE_DIRECTORY != 0;
        Self {
            at,
            is_directory,
            read_only: attributes & ATTRIBUTE_READ_ONLY != 0,
            first: high << 16 | u64::from(fields.le16(26)),
            // Of directories it is always 0.
            size: if is_directory {
                0
            } else {
                u64::from(fields.le32(28))
            },
            created: timestamp(fields.le16(16), fields.le16(14), fields.u8(13)),
            accessed: timestamp(fields.le16(18), 0, 0),
            modified: timestamp(fields.le16(24), fields.le16(22), 0),
        }
    }
}

/// A date, a time in steps of two seconds, and hundredths of a second; `None` when there is no such day or time.
fn timestamp(date: u16, time: u16, hundredths: u8) -> Option<Timestamp> {
    let (year, month, day) = (
        i64::from(date >> 9) + 1980,
        i64::from(date >> 5 & 0xf),
        i64::from(date & 0x1f),
    );
    let (hour, minute, second) = (
        i64::from(time >> 11),
        i64::from(time >> 5 & 0x3f),
        i64::from(time & 0x1f) * 2,
    );
    let is_time = (1..=12).contains(&month)
        && day > 0
        && hour < 24
        && minute < 60
        && second < 60
        && hundredths < 200;
    if !is_time {
        return None;
    }
    // Years begin in March: then the day that some lack is the last one.
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    // From 1970 to the first of March of year 0 there are 719468 days.
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(Timestamp {
        seconds: days * 86400 + hour * 3600 + minute * 60 + second + i64::from(hundredths / 100),
        nanoseconds: u32::from(hundredths % 100) * 10_000_000,
    })
}

impl Tree for Files<'_> {
    fn format(&self) -> &'static str {
        "vfat"
    }

    fn root(&self) -> Node {
        ROOT
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        let file = match node {
            ROOT => File {
                at: RECORD,
                is_directory: true,
                read_only: false,
                first: 0,
                size: 0,
                created: None,
                accessed: None,
                modified: None,
            },
            _ => self.file(node)?,
        };
        // Of a directory the bit says something else, as Windows uses it.
        let read_only = file.read_only && !file.is_directory;
        Ok(Metadata {
            kind: kind_of(file.is_directory),
            permissions: if read_only { 0o555 } else { 0o755 },
            uid: 0,
            gid: 0,
            size: file.size,
            links: 1,
            inode: file.at / RECORD,
            accessed: file.accessed,
            modified: file.modified,
            changed: None,
            created: file.created,
            device: None,
        })
    }

    fn read_dir(
        &self,
        node: Node,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.entries(node, &mut |named, node, kind| {
            let name = named.long.as_deref().unwrap_or(&named.short);
            each(DirEntry {
                name: name.as_bytes(),
                node,
                kind: Some(kind),
            })
        })
    }

    fn read_link(&self, node: Node) -> Result<Vec<u8>> {
        Err(corrupt(node, "is no symbolic link"))
    }

    fn read_file(
        &self,
        node: Node,
        range: Range<u64>,
        each: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let (volume, boot) = (&self.volume, &self.boot);
        let file = match node {
            ROOT => return Err(corrupt(node, "is no regular file")),
            _ => self.file(node)?,
        };
        if file.is_directory {
            return Err(corrupt(node, "is no regular file"));
        }
        let end = range.end.min(file.size);
        if range.start >= end {
            return Ok(());
        }
        let mut chain = Chain::new(file.first);
        // Where in the file the next cluster is, and clusters in one run that are to be sent: bytes of the volume.
        let mut at = 0;
        let mut run = 0..0;
        let mut run_at = range.start;
        while at < end {
            let cluster = chain.step(volume, boot, &self.table)?;
            let cluster = cluster.ok_or_else(|| corrupt(node, "has fewer clusters than bytes"))?;
            let place = boot.bytes_of(cluster..cluster + 1);
            let next = at + boot.cluster_size;
            if next > range.start {
                let skip = range.start.saturating_sub(at);
                let part = place.start + skip..place.end - next.saturating_sub(end);
                if run.end == part.start {
                    run.end = part.end;
                } else {
                    let length = run.end - run.start;
                    if send_data(volume, run.start, run_at, length, each)?.is_break() {
                        return Ok(());
                    }
                    run_at += length;
                    run = part;
                }
            }
            at = next;
        }
        // Whether there was enough of it no longer matters.
        let _ = send_data(volume, run.start, run_at, run.end - run.start, each)?;
        Ok(())
    }

    /// By the long name or the short one, whatever the case.
    fn lookup(&self, node: Node, name: &[u8]) -> Result<Option<Node>> {
        let Ok(name) = std::str::from_utf8(name) else {
            return Ok(None);
        };
        let mut found = None;
        self.entries(node, &mut |named, node, _| {
            let long = named.long.as_deref();
            if long.is_some_and(|long| same(long, name)) || same(&named.short, name) {
                found = Some(node);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
