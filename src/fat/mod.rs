//! A writer of FAT12, FAT16 and FAT32: a tree of files into a new volume, which is never changed afterwards.
//!
//! ```
//! use qimg::fat::{self, Options, Size, Tree};
//!
//! let mut tree = Tree::new();
//! tree.add_bytes("user-data", b"#cloud-config\n".to_vec())?;
//! tree.add_bytes("meta-data", b"instance-id: one\n".to_vec())?;
//! let options = Options { label: Some("cidata".to_owned()), ..Options::default() };
//! let volume = fat::plan(&tree, &options)?;
//! let mut image = Vec::new();
//! volume.write_in_order(&mut image)?;
//! assert_eq!(image.len() as u64, volume.size());
//! # Ok::<(), qimg::Error>(())
//! ```
//!
//! Everything is laid out before the first byte is written: directories first, then files, each in one run and in the
//! order of the tree. So a volume is a list of [`Piece`]s, its bytes depend on names, contents and options alone, and
//! file contents need not pass through here: whoever assembles a disk may read them from where they are.
//!
//! Every byte that means something is a piece, zeros too: only free clusters are in none. A volume written over old
//! bytes is as sound as one in a new file.
//!
//! The `fatfs` crate can write FAT as well. It is not used: the one there is gives "." and ".." long names and points
//! ".." of a first directory to the root's cluster, both of which fsck.fat complains of, dates files by the clock unless
//! told otherwise at compile time, has no hidden sectors, gives every name a long form, and writes through to storage
//! step by step, so that contents would be copied twice. It reads, in tests, what is written here.
//!
//! Knows FAT; must not know what a volume is for, nor where it lies on a disk. The reader is in `fs`.
//!
//! Source: "FAT: General Overview of On-Disk Format" 1.03.

mod boot;
mod directory;
mod geometry;
mod names;
mod table;
mod time;
mod tree;

use std::fmt;
use std::io;
use std::sync::Arc;

pub use geometry::Kind;
pub use time::Timestamp;
pub use tree::Tree;

use crate::error::{Error, Result};
use crate::store::{ReadAt, WriteAt};
use directory::Directories;
use geometry::Geometry;

/// The longest file: its length has 32 bits.
pub const LONGEST_FILE: u64 = 0xffff_ffff;

/// How large a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// So many bytes, of which whole sectors are used.
    Fixed(u64),
    /// As small as the tree allows, in steps of 64 KiB, with room for so many bytes more.
    Minimal {
        /// Bytes of free clusters, at least.
        spare: u64,
    },
}

/// What a volume is like, beside its files.
#[derive(Debug, Clone)]
pub struct Options {
    /// How large it is.
    pub size: Size,
    /// Bytes of a sector: 512, 1024, 2048 or 4096.
    pub sector_size: u64,
    /// Width of the table's entries; `None` takes FAT32 where there is room for as many clusters as it needs (33 MiB with
    /// sectors of 512 bytes), else FAT16, else FAT12.
    pub kind: Option<Kind>,
    /// Its name, kept as it is: 11 characters of ASCII at most.
    pub label: Option<String>,
    /// Its number; `None` derives one from the names and lengths in the tree and from the label.
    pub volume_id: Option<u32>,
    /// Sectors of the disk before it, in its own sectors.
    pub hidden_sectors: u32,
    /// When everything in it was written.
    pub written: Timestamp,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            size: Size::Minimal { spare: 0 },
            sector_size: 512,
            kind: None,
            label: None,
            volume_id: None,
            hidden_sectors: 0,
            written: Timestamp::default(),
        }
    }
}

/// A part of a volume.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Its first byte.
    pub start: u64,
    /// Its length in bytes, never 0.
    pub length: u64,
    /// What its bytes are.
    pub fill: Fill,
}

/// What the bytes of a piece are.
#[derive(Debug, Clone)]
pub enum Fill {
    /// These.
    Bytes(Arc<[u8]>),
    /// Zeros.
    Zeros,
    /// Those of a file, from its first on.
    File(Arc<dyn ReadAt>),
}

/// A volume that is laid out.
#[derive(Debug)]
pub struct Volume {
    geometry: Geometry,
    volume_id: u32,
    used_clusters: u64,
    pieces: Vec<Piece>,
}

/// Whether a volume may be called `label`.
///
/// # Errors
/// It may not.
pub fn check_label(label: &str) -> Result<()> {
    names::label(label).map(drop)
}

/// Lays out `tree` as a volume. Reads no contents.
///
/// # Errors
/// [`Usage`](crate::ErrorKind::Usage): the tree has no room, a size that no such FAT has, a name or label that FAT
/// cannot hold, a file longer than [`LONGEST_FILE`].
pub fn plan(tree: &Tree, options: &Options) -> Result<Volume> {
    let label = options.label.as_deref().map(names::label).transpose()?;
    let directories = Directories::new(tree, label.is_some())?;
    let geometry = Geometry::choose(options, &directories)?;
    let volume_id = options
        .volume_id
        .unwrap_or_else(|| directories.digest(options.label.as_deref()));
    let layout = directories.lay_out(&geometry, label.as_ref(), options.written)?;
    let mut pieces = Vec::new();
    let boot = boot::Boot {
        geometry: &geometry,
        volume_id,
        label: label.as_ref(),
        hidden_sectors: options.hidden_sectors,
        used_clusters: layout.used_clusters,
    };
    push_bytes(&mut pieces, 0, boot.reserved_sectors());
    let reserved_end = pieces.last().map_or(0, Piece::end);
    push_zeros(&mut pieces, reserved_end, geometry.tables_at());
    let media = boot::media(&geometry);
    let table = table::table(geometry.kind, media, &layout.chains, layout.used_clusters);
    for number in 0..geometry::TABLES {
        let at = geometry.tables_at() + number * geometry.table_size();
        push_bytes(&mut pieces, at, table.clone());
        push_zeros(
            &mut pieces,
            at + table.len() as u64,
            at + geometry.table_size(),
        );
    }
    pieces.extend(layout.pieces);
    Ok(Volume {
        geometry,
        volume_id,
        used_clusters: layout.used_clusters,
        pieces,
    })
}

/// A piece of these bytes; zeros at their end need not be stored.
fn push_bytes(pieces: &mut Vec<Piece>, start: u64, bytes: Vec<u8>) {
    if !bytes.is_empty() {
        pieces.push(Piece {
            start,
            length: bytes.len() as u64,
            fill: Fill::Bytes(bytes.into()),
        });
    }
}

fn push_zeros(pieces: &mut Vec<Piece>, start: u64, end: u64) {
    if start < end {
        pieces.push(Piece {
            start,
            length: end - start,
            fill: Fill::Zeros,
        });
    }
}

impl Piece {
    /// One past its last byte.
    pub fn end(&self) -> u64 {
        self.start + self.length
    }
}

impl Volume {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.geometry.size()
    }

    /// FAT12, FAT16 or FAT32.
    pub fn kind(&self) -> Kind {
        self.geometry.kind
    }

    /// Bytes of a cluster.
    pub fn cluster_size(&self) -> u64 {
        self.geometry.cluster_size
    }

    /// Clusters, and how many of them are in use.
    pub fn clusters(&self) -> (u64, u64) {
        (self.geometry.clusters, self.used_clusters)
    }

    /// The number that tells it from others.
    pub fn volume_id(&self) -> u32 {
        self.volume_id
    }

    /// All that is not free, in ascending order and apart from each other.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Writes the volume into `store` from byte `at` on. Free clusters keep the bytes that are there.
    ///
    /// # Errors
    /// A file cannot be read, or has become shorter; the host fails to write.
    pub fn write_to(&self, store: &dyn WriteAt, at: u64) -> Result<()> {
        let end = at
            .checked_add(self.size())
            .ok_or_else(|| Error::usage("the volume ends past the end of all numbers"))?;
        if store.len()? < end {
            store.set_len(end)?;
        }
        for piece in &self.pieces {
            let start = at + piece.start;
            if matches!(piece.fill, Fill::Zeros) {
                store.punch_hole(start..start + piece.length)?;
            } else {
                piece.read(&mut |skip, bytes| store.write_all_at(bytes, start + skip))?;
            }
        }
        Ok(())
    }

    /// Writes the volume from its first byte to its last; free clusters are zeros.
    ///
    /// # Errors
    /// A file cannot be read, or has become shorter; `out` fails.
    pub fn write_in_order(&self, out: &mut dyn io::Write) -> Result<()> {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out.write_all(bytes)
                .map_err(|error| Error::io("write the volume", error))
        };
        for piece in &self.pieces {
            put_zeros(piece.start - at, &mut put)?;
            if matches!(piece.fill, Fill::Zeros) {
                put_zeros(piece.length, &mut put)?;
            } else {
                piece.read(&mut |_, bytes| put(bytes))?;
            }
            at = piece.end();
        }
        put_zeros(self.size() - at, &mut put)
    }
}

fn put_zeros(length: u64, put: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut left = length;
    while left > 0 {
        let part = usize::try_from(left).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        put(ZEROS.get(..part).unwrap_or(&ZEROS))?;
        left -= part as u64;
    }
    Ok(())
}

impl Piece {
    /// Calls `take` for all of its bytes in order, with how many came before.
    fn read(&self, take: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        const AT_ONCE: u64 = 1 << 20;
        match &self.fill {
            Fill::Zeros => Ok(()),
            Fill::Bytes(bytes) => take(0, bytes),
            Fill::File(file) => {
                let mut buffer = Vec::new();
                let mut at = 0;
                while at < self.length {
                    let part = AT_ONCE.min(self.length - at);
                    buffer.resize(usize::try_from(part).unwrap_or(0), 0);
                    file.read_exact_at(&mut buffer, at)?;
                    take(at, &buffer)?;
                    at += part;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fat12 => "FAT12",
            Self::Fat16 => "FAT16",
            Self::Fat32 => "FAT32",
        })
    }
}
