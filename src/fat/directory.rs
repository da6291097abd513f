//! Directories as a volume stores them, and where everything goes.
//!
//! Directories come first, each before what is in it, then files; each takes clusters in one run.

use std::ops::Range;

use super::geometry::{Geometry, Kind};
use super::names::{self, RECORD, Short, Stored, put};
use super::time::Timestamp;
use super::tree::{Directory, Node, Tree};
use super::{Fill, Piece};
use crate::error::{Error, Escaped, Result};

/// Bytes that a directory has at most: some readers count its records in 16 bits.
const LONGEST: usize = 2 << 20;

const ATTRIBUTE_LABEL: u8 = 0x08;
const ATTRIBUTE_DIRECTORY: u8 = 0x10;
const ATTRIBUTE_ARCHIVE: u8 = 0x20;

/// A tree whose names have been given their forms.
pub(super) struct Directories<'a> {
    tree: &'a Tree,
    /// In the order of the volume.
    directories: Vec<Planned<'a>>,
}

struct Planned<'a> {
    node: usize,
    directory: &'a Directory,
    /// In the order of its entries.
    names: Vec<Stored>,
    /// Records before those: the label, or itself and the one above.
    extra: usize,
}

/// Where everything is.
pub(super) struct Layout {
    /// Contents of directories and files.
    pub(super) pieces: Vec<Piece>,
    /// Clusters of each, in order and without gaps.
    pub(super) chains: Vec<Range<u64>>,
    pub(super) used_clusters: u64,
}

impl<'a> Directories<'a> {
    pub(super) fn new(tree: &'a Tree, has_label: bool) -> Result<Self> {
        let mut directories = Vec::new();
        for (node, entry) in tree.nodes.iter().enumerate() {
            let Node::Directory(directory) = entry else {
                continue;
            };
            let entries = directory.entries.values();
            let planned = Planned {
                node,
                directory,
                names: names::store(entries.map(|entry| entry.name.as_str()))?,
                extra: if node == 0 { usize::from(has_label) } else { 2 },
            };
            if planned.records() * RECORD > LONGEST {
                let some = directory.entries.values().next();
                return Err(Error::usage(format!(
                    "the directory with '{}' has more names than FAT can hold",
                    Escaped(some.map_or("", |entry| &entry.name))
                ))
                .with_remedy("spread its files over several directories"));
            }
            directories.push(planned);
        }
        Ok(Self { tree, directories })
    }

    /// Records of the root directory.
    pub(super) fn root_records(&self) -> u64 {
        self.directories
            .first()
            .map_or(0, |root| root.records() as u64)
    }

    /// Clusters that everything takes.
    pub(super) fn clusters(&self, geometry: &Geometry) -> u64 {
        let directories = self
            .directories
            .iter()
            .map(|directory| directory.clusters(geometry));
        let files = self.tree.nodes.iter().map(|node| match node {
            Node::Directory(_) => 0,
            Node::File(file) => file.length.div_ceil(geometry.cluster_size),
        });
        // Fewer than 2^64: each file has less than 2^32 bytes, and all of them are in memory.
        directories.chain(files).sum()
    }

    /// A number for the volume.
    pub(super) fn digest(&self, label: Option<&str>) -> u32 {
        let mut digest = crc32fast::Hasher::new();
        digest.update(label.unwrap_or_default().as_bytes());
        for directory in &self.directories {
            for entry in directory.directory.entries.values() {
                digest.update(&[0]);
                digest.update(entry.name.as_bytes());
                if let Some(Node::File(file)) = self.tree.nodes.get(entry.node) {
                    digest.update(&file.length.to_le_bytes());
                }
            }
            digest.update(&[0xff]);
        }
        digest.finalize()
    }

    /// Gives everything its place. `geometry` has room for it.
    pub(super) fn lay_out(
        &self,
        geometry: &Geometry,
        label: Option<&Short>,
        written: Timestamp,
    ) -> Result<Layout> {
        let mut next = 2;
        let mut chains = Vec::new();
        // First clusters of all nodes; 0 for what has none.
        let mut first = vec![0_u64; self.tree.nodes.len()];
        let mut place = |node: usize, count: u64| {
            if count > 0 {
                if let Some(first) = first.get_mut(node) {
                    *first = next;
                }
                chains.push(next..next + count);
                next += count;
            }
        };
        for directory in &self.directories {
            place(directory.node, directory.clusters(geometry));
        }
        for (node, entry) in self.tree.nodes.iter().enumerate() {
            if let Node::File(file) = entry {
                place(node, file.length.div_ceil(geometry.cluster_size));
            }
        }
        let used_clusters = next - 2;
        if used_clusters > geometry.clusters {
            return Err(Error::usage("the files have no room in the volume"));
        }
        let mut pieces = Vec::new();
        let mut parents = vec![0_usize; self.tree.nodes.len()];
        for directory in &self.directories {
            for entry in directory.directory.entries.values() {
                if let Some(parent) = parents.get_mut(entry.node) {
                    *parent = directory.node;
                }
            }
        }
        let records = Records {
            tree: self.tree,
            first: &first,
            written,
        };
        for directory in &self.directories {
            let parent = parents.get(directory.node).copied().unwrap_or(0);
            let bytes = records.of(directory, parent, label);
            let (at, size) = if directory.node == 0 && geometry.kind != Kind::Fat32 {
                (geometry.root_at(), geometry.root_records * RECORD as u64)
            } else {
                let first = first.get(directory.node).copied().unwrap_or(2);
                let clusters = directory.clusters(geometry);
                (geometry.cluster_at(first), clusters * geometry.cluster_size)
            };
            let end = at + bytes.len() as u64;
            super::push_bytes(&mut pieces, at, bytes);
            super::push_zeros(&mut pieces, end, at + size);
        }
        for (node, first) in self.tree.nodes.iter().zip(&first) {
            if let (Node::File(file), 2..) = (node, *first) {
                let at = geometry.cluster_at(*first);
                pieces.push(Piece {
                    start: at,
                    length: file.length,
                    fill: Fill::File(file.content.clone()),
                });
                let end = at + file.length.next_multiple_of(geometry.cluster_size);
                super::push_zeros(&mut pieces, at + file.length, end);
            }
        }
        Ok(Layout {
            pieces,
            chains,
            used_clusters,
        })
    }
}

impl Planned<'_> {
    fn records(&self) -> usize {
        let names: usize = self.names.iter().map(Stored::records).sum();
        names + self.extra
    }

    fn clusters(&self, geometry: &Geometry) -> u64 {
        if self.node == 0 && geometry.kind != Kind::Fat32 {
            return 0;
        }
        let bytes = (self.records() * RECORD) as u64;
        bytes.div_ceil(geometry.cluster_size).max(1)
    }
}

/// What records of all directories need to know.
struct Records<'a> {
    tree: &'a Tree,
    first: &'a [u64],
    written: Timestamp,
}

impl Records<'_> {
    fn of(&self, directory: &Planned<'_>, parent: usize, label: Option<&Short>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(directory.records() * RECORD);
        if directory.node == 0 {
            if let Some(label) = label {
                bytes.extend(self.record(label, 0, ATTRIBUTE_LABEL, 0, 0));
            }
        } else {
            let dot = Short(*b".          ");
            let dots = Short(*b"..         ");
            // The root is cluster 0 to what is in it, even where it has one.
            let above = if parent == 0 { 0 } else { self.first(parent) };
            let own = self.first(directory.node);
            bytes.extend(self.record(&dot, 0, ATTRIBUTE_DIRECTORY, own, 0));
            bytes.extend(self.record(&dots, 0, ATTRIBUTE_DIRECTORY, above, 0));
        }
        let entries = directory.directory.entries.values();
        for (entry, stored) in entries.zip(&directory.names) {
            bytes.extend(stored.pieces().flatten());
            let (attribute, length) = match self.tree.nodes.get(entry.node) {
                Some(Node::File(file)) => (ATTRIBUTE_ARCHIVE, file.length),
                _ => (ATTRIBUTE_DIRECTORY, 0),
            };
            let first = self.first(entry.node);
            bytes.extend(self.record(&stored.short, stored.case, attribute, first, length));
        }
        bytes
    }

    fn first(&self, node: usize) -> u64 {
        self.first.get(node).copied().unwrap_or(0)
    }

    fn record(
        &self,
        name: &Short,
        case: u8,
        attribute: u8,
        first: u64,
        length: u64,
    ) -> [u8; RECORD] {
        let (date, time) = (self.written.date(), self.written.time());
        let first = u32::try_from(first).unwrap_or(0).to_le_bytes();
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let mut record = [0; RECORD];
        put(&mut record, 0, &name.0);
        put(&mut record, 11, &[attribute, case]);
        // Made, used, changed.
        put(&mut record, 14, &time.to_le_bytes());
        put(&mut record, 16, &date.to_le_bytes());
        put(&mut record, 18, &date.to_le_bytes());
        put(&mut record, 22, &time.to_le_bytes());
        put(&mut record, 24, &date.to_le_bytes());
        let [a, b, c, d] = first;
        put(&mut record, 26, &[a, b]);
        put(&mut record, 20, &[c, d]);
        put(&mut record, 28, &length.to_le_bytes());
        record
    }
}
