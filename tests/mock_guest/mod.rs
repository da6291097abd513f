//! A tree of files in memory, which may lie as no filesystem that can be made does.

use std::ops::{ControlFlow, Range};

use qimg::Result;
use qimg::error::Error;
use qimg::fs::tree::{DirEntry, FileKind, Metadata, Node, Piece, Timestamp, Tree};

/// A part of a file.
#[derive(Debug, Clone)]
pub enum Part {
    Data(Vec<u8>),
    Hole(u64),
    /// Reading fails here.
    Bad,
    /// Data that says it is somewhere else.
    Elsewhere(u64, Vec<u8>),
}

#[derive(Debug, Clone)]
pub enum Content {
    Directory(Vec<(Vec<u8>, Node)>),
    /// A directory whose reading fails in the end.
    CutDirectory(Vec<(Vec<u8>, Node)>),
    File(Vec<Part>),
    Symlink(Vec<u8>),
    Special,
    /// Nothing about it can be read.
    Broken,
}

#[derive(Debug)]
pub struct Guest {
    pub nodes: Vec<(Metadata, Content)>,
}

pub const TIME: Timestamp = Timestamp {
    seconds: 1_234_567_890,
    nanoseconds: 123_456_789,
};

impl Guest {
    /// An empty root directory.
    pub fn new() -> Self {
        let mut guest = Self { nodes: Vec::new() };
        guest.node(FileKind::Directory, 0o755, Content::Directory(Vec::new()));
        guest
    }

    pub fn node(&mut self, kind: FileKind, permissions: u16, content: Content) -> Node {
        let size = match &content {
            Content::File(parts) => parts
                .iter()
                .map(|part| match part {
                    Part::Data(bytes) | Part::Elsewhere(_, bytes) => bytes.len() as u64,
                    Part::Hole(length) => *length,
                    Part::Bad => 1,
                })
                .sum(),
            _ => 0,
        };
        let node = Node(self.nodes.len() as u64);
        let metadata = Metadata {
            kind,
            permissions,
            uid: 12345,
            gid: 54321,
            size,
            links: 1,
            inode: node.0,
            accessed: Some(Timestamp {
                seconds: TIME.seconds + 7,
                nanoseconds: 1,
            }),
            modified: Some(TIME),
            changed: None,
            created: None,
            device: None,
        };
        self.nodes.push((metadata, content));
        node
    }

    /// Another name for `node`.
    pub fn name(&mut self, directory: Node, name: impl AsRef<[u8]>, node: Node) {
        match &mut self.nodes[directory.0 as usize].1 {
            Content::Directory(names) | Content::CutDirectory(names) => {
                names.push((name.as_ref().to_vec(), node));
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn directory(&mut self, above: Node, name: impl AsRef<[u8]>) -> Node {
        let content = Content::Directory(Vec::new());
        let node = self.node(FileKind::Directory, 0o755, content);
        self.name(above, name, node);
        node
    }

    pub fn parts(&mut self, above: Node, name: impl AsRef<[u8]>, parts: &[Part]) -> Node {
        let node = self.node(FileKind::File, 0o644, Content::File(parts.to_vec()));
        self.name(above, name, node);
        node
    }

    pub fn file(&mut self, above: Node, name: impl AsRef<[u8]>, text: &str) -> Node {
        self.parts(above, name, &[Part::Data(text.into())])
    }

    pub fn symlink(&mut self, above: Node, name: impl AsRef<[u8]>, target: &str) -> Node {
        let content = Content::Symlink(target.into());
        let node = self.node(FileKind::Symlink, 0o777, content);
        self.name(above, name, node);
        node
    }

    pub fn metadata_mut(&mut self, node: Node) -> &mut Metadata {
        &mut self.nodes[node.0 as usize].0
    }

    fn content(&self, node: Node) -> Result<&Content> {
        match self.nodes.get(node.0 as usize) {
            Some((_, Content::Broken)) | None => Err(bad()),
            Some((_, content)) => Ok(content),
        }
    }
}

fn bad() -> Error {
    Error::corrupt("a block is damaged", "bad checksum")
}

impl Tree for Guest {
    fn format(&self) -> &'static str {
        "mock"
    }

    fn root(&self) -> Node {
        Node(0)
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        self.content(node)?;
        Ok(self.nodes[node.0 as usize].0)
    }

    fn read_dir(
        &self,
        node: Node,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let (names, cut) = match self.content(node)? {
            Content::Directory(names) => (names, false),
            Content::CutDirectory(names) => (names, true),
            _ => return Err(bad()),
        };
        for (name, node) in names {
            let entry = DirEntry {
                name,
                node: *node,
                kind: None,
            };
            if each(entry).is_break() {
                return Ok(());
            }
        }
        if cut { Err(bad()) } else { Ok(()) }
    }

    fn read_link(&self, node: Node) -> Result<Vec<u8>> {
        match self.content(node)? {
            Content::Symlink(target) => Ok(target.clone()),
            _ => Err(bad()),
        }
    }

    fn read_file(
        &self,
        node: Node,
        range: Range<u64>,
        each: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let Content::File(parts) = self.content(node)? else {
            return Err(bad());
        };
        assert_eq!(range.start, 0, "not needed yet");
        let mut offset = 0;
        for part in parts {
            let (piece, length) = match part {
                Part::Data(bytes) => (Piece::Data { offset, bytes }, bytes.len() as u64),
                Part::Hole(length) => (
                    Piece::Hole {
                        offset,
                        length: *length,
                    },
                    *length,
                ),
                Part::Bad => return Err(bad()),
                Part::Elsewhere(offset, bytes) => (
                    Piece::Data {
                        offset: *offset,
                        bytes,
                    },
                    bytes.len() as u64,
                ),
            };
            if each(piece).is_break() {
                return Ok(());
            }
            offset += length;
        }
        Ok(())
    }
}
