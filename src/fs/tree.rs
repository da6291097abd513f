//! The tree of files in a filesystem, whatever its format: nodes, names, contents.
//!
//! A node is a number that its own tree understands: an inode, the place of a
//! directory record. Trees know nothing of paths: the path module walks them,
//! and resolves symlinks, in one place for all.
//!
//! Names, targets and contents are bytes as found, and hostile: a name may hold
//! slashes, be `..`, or occur twice; directories may contain each other.

use std::ops::{ControlFlow, Range};

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::volume::Volume;

/// The longest symlink target that is read, in bytes: Linux's `PATH_MAX`.
pub const MAX_LINK: u64 = 4096;

/// Most bytes of a [`Piece`] that a tree sends at once.
pub const PIECE: usize = 1 << 20;

/// A file, directory or anything else that a tree holds.
///
/// Two names for one node are hard links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node(pub u64);

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl FileKind {
    /// What the file type bits of a Unix mode say (`S_IFMT`, inode(7)).
    pub fn from_mode(mode: u16) -> Option<Self> {
        Some(match mode & 0xf000 {
            0x8000 => Self::File,
            0x4000 => Self::Directory,
            0xa000 => Self::Symlink,
            0x2000 => Self::CharDevice,
            0x6000 => Self::BlockDevice,
            0x1000 => Self::Fifo,
            0xc000 => Self::Socket,
            _ => return None,
        })
    }

    /// The file type bits of a Unix mode.
    pub fn mode_bits(self) -> u16 {
        match self {
            Self::File => 0x8000,
            Self::Directory => 0x4000,
            Self::Symlink => 0xa000,
            Self::CharDevice => 0x2000,
            Self::BlockDevice => 0x6000,
            Self::Fifo => 0x1000,
            Self::Socket => 0xc000,
        }
    }
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since 1970 in UTC.
    pub seconds: i64,
    /// Nanoseconds within the second, below 10^9.
    pub nanoseconds: u32,
}

/// Numbers of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Device {
    /// Its driver.
    pub major: u32,
    /// Which of its driver's devices.
    pub minor: u32,
}

impl Device {
    /// From Linux's 32-bit `dev_t` as ext4 and XFS hold it: 12 bits of major between two halves of minor.
    pub fn from_linux(number: u32) -> Self {
        Self {
            major: (number >> 8) & 0xfff,
            minor: (number & 0xff) | ((number >> 12) & 0xf_ff00),
        }
    }

    /// From the 16-bit numbers of old inodes: 8 bits of major, 8 bits of minor.
    pub fn from_old(number: u16) -> Self {
        Self {
            major: u32::from(number >> 8),
            minor: u32::from(number & 0xff),
        }
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, 0o7777 at most; made up where the format has none.
    pub permissions: u16,
    /// Owner; 0 where the format has none.
    pub uid: u32,
    /// Group; 0 where the format has none.
    pub gid: u32,
    /// Bytes of a file or of a symlink's target; of a directory, what the format counts.
    pub size: u64,
    /// Names that it has, as the format counts them; 1 where it does not.
    pub links: u32,
    /// Its number in the filesystem, as stat(2) would show it, or some number of its own.
    pub inode: u64,
    /// Last read.
    pub accessed: Option<Timestamp>,
    /// Last write.
    pub modified: Option<Timestamp>,
    /// Last change of the inode.
    pub changed: Option<Timestamp>,
    /// Birth.
    pub created: Option<Timestamp>,
    /// Of a device node.
    pub device: Option<Device>,
}

/// A name in a directory. `.` and `..` are not among them.
#[derive(Debug, Clone, Copy)]
pub struct DirEntry<'a> {
    /// As found, without any check but that it is not empty.
    pub name: &'a [u8],
    /// What it names.
    pub node: Node,
    /// What the directory claims that it is, where it does.
    pub kind: Option<FileKind>,
}

/// A part of a file's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// At most [`PIECE`] bytes.
    Data {
        /// Where in the file.
        offset: u64,
        /// What is there.
        bytes: &'a [u8],
    },
    /// Zeros without a place on the disk, of any length: holes, and extents never written.
    Hole {
        /// Where in the file.
        offset: u64,
        /// How many bytes.
        length: u64,
    },
}

/// A readable filesystem.
///
/// Every method fails with [`ErrorKind::Corrupt`] where the filesystem contradicts its format,
/// [`ErrorKind::Unsupported`] for a feature without a reader (the message names it), and with whatever the image
/// fails with. None panics, and none takes memory by a number on disk alone, whatever the node is.
pub trait Tree {
    /// The format's name as blkid has it: `ext4`, `xfs`, `vfat`, `iso9660`.
    fn format(&self) -> &'static str;

    /// The root directory.
    fn root(&self) -> Node;

    /// What `node` is.
    fn metadata(&self, node: Node) -> Result<Metadata>;

    /// Calls `each` with every entry of the directory `node`, in the order found, until it breaks off.
    ///
    /// Streams: at no time are all entries in memory. Ends, also where blocks or records refer to each other in a
    /// circle. A node that is no directory is [`ErrorKind::Corrupt`].
    fn read_dir(
        &self,
        node: Node,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()>;

    /// The target of the symlink `node`, of [`MAX_LINK`] bytes at most.
    fn read_link(&self, node: Node) -> Result<Vec<u8>>;

    /// Calls `each` with the contents of the file `node`, cut to `range` and to its size, until it breaks off.
    ///
    /// Pieces come in order and without gaps: each begins where the one before it ended.
    fn read_file(
        &self,
        node: Node,
        range: Range<u64>,
        each: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<()>;

    /// The node called `name` in the directory `node`, if there is one.
    ///
    /// The first one in the directory's order; trees without distinction of case override this.
    fn lookup(&self, node: Node, name: &[u8]) -> Result<Option<Node>> {
        let mut found = None;
        self.read_dir(node, &mut |entry| {
            if entry.name == name {
                found = Some(entry.node);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }
}

/// The first `limit` bytes of a file, or all of it where it is shorter.
///
/// # Errors
/// As [`Tree::read_file`].
pub fn read_start(tree: &dyn Tree, node: Node, limit: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let end = u64::try_from(limit).unwrap_or(u64::MAX);
    tree.read_file(node, 0..end, &mut |piece| {
        match piece {
            Piece::Data { bytes: more, .. } => bytes.extend_from_slice(more),
            Piece::Hole { length, .. } => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                bytes.resize(bytes.len().saturating_add(length).min(limit), 0);
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(bytes)
}

/// Sends the `length` bytes of `volume` from `at` on as the contents of a file from `offset` on; whether to go on.
///
/// For implementations of [`Tree::read_file`].
pub(crate) fn send_data(
    volume: &Volume<'_>,
    at: u64,
    offset: u64,
    length: u64,
    each: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let past = || {
        Error::new(
            ErrorKind::Corrupt,
            format!("file contents lie past the end of the filesystem, at {at:#x}"),
        )
    };
    let end = at.checked_add(length).ok_or_else(past)?;
    if end > volume.size() || offset.checked_add(length).is_none() {
        return Err(past());
    }
    let mut buffer = vec![0; PIECE.min(usize::try_from(length).unwrap_or(PIECE))];
    let mut done = 0;
    while done < length {
        let now =
            usize::try_from(length - done).map_or(buffer.len(), |left| left.min(buffer.len()));
        let part = buffer.get_mut(..now).unwrap_or_default();
        volume.read_at(at + done, part)?;
        let piece = Piece::Data {
            offset: offset + done,
            bytes: part,
        };
        if each(piece).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        done += now as u64;
    }
    Ok(ControlFlow::Continue(()))
}
