//! A disk that is nowhere as a whole: pieces in memory, files, and the disks of images, one behind the other.
//!
//! To the data path it is a source like any image. Between pieces it reads as zeros.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Extent, ExtentKind};
use crate::image::{Chain, MAX_CHAIN, Target};
use crate::source::{Reader, Source, Stream};
use crate::store::{ReadAt, same_file};

/// What is read at once, if no image has larger clusters.
const UNIT: u64 = 1 << 16;
/// The largest unit: clusters that are larger may be decoded twice.
const LARGEST_UNIT: u64 = 1 << 21;

/// A disk of pieces.
#[derive(Debug)]
pub struct Assembly {
    size: u64,
    unit: u64,
    /// In ascending order and apart from each other.
    pieces: Vec<Piece>,
    images: Vec<Chain>,
}

#[derive(Debug, Clone)]
struct Piece {
    start: u64,
    length: u64,
    fill: Fill,
}

#[derive(Debug, Clone)]
enum Fill {
    Bytes(Arc<[u8]>),
    File(Arc<dyn ReadAt>),
    Image(usize),
}

impl Piece {
    fn end(&self) -> u64 {
        self.start + self.length
    }
}

impl Assembly {
    /// A disk of `size` bytes, all of them zeros.
    pub fn new(size: u64) -> Self {
        Self {
            size,
            unit: UNIT,
            pieces: Vec::new(),
            images: Vec::new(),
        }
    }

    /// Puts `bytes` at `start`, behind everything that is there.
    ///
    /// # Errors
    /// They overlap what is there, or the end of the disk.
    pub fn push_bytes(&mut self, start: u64, bytes: impl Into<Arc<[u8]>>) -> Result<()> {
        let bytes = bytes.into();
        self.push(start, bytes.len() as u64, Fill::Bytes(bytes))
    }

    /// Puts the first `length` bytes of `file` at `start`, behind everything that is there.
    ///
    /// # Errors
    /// As [`Assembly::push_bytes`].
    pub fn push_file(&mut self, start: u64, length: u64, file: Arc<dyn ReadAt>) -> Result<()> {
        self.push(start, length, Fill::File(file))
    }

    /// Puts the disk of an image at `start`, behind everything that is there.
    ///
    /// # Errors
    /// As [`Assembly::push_bytes`].
    pub fn push_image(&mut self, start: u64, image: Chain) -> Result<()> {
        let number = self.images.len();
        let length = image.virtual_size();
        self.unit = self.unit.max(image.cluster_size().min(LARGEST_UNIT));
        self.images.push(image);
        self.push(start, length, Fill::Image(number))
    }

    fn push(&mut self, start: u64, length: u64, fill: Fill) -> Result<()> {
        let end = self.pieces.last().map_or(0, Piece::end);
        if start < end || start.checked_add(length).is_none_or(|end| end > self.size) {
            return Err(Error::usage(
                "a part of the disk has no room where it is to be",
            ));
        }
        if length > 0 {
            self.pieces.push(Piece {
                start,
                length,
                fill,
            });
        }
        Ok(())
    }

    /// Fails when `path` names a file that is read.
    ///
    /// # Errors
    /// [`Usage`](ErrorKind::Usage) naming it.
    pub fn refuse_destination(&self, path: &Path) -> Result<()> {
        for image in &self.images {
            image.refuse_destination(path)?;
        }
        for piece in &self.pieces {
            if let Fill::File(file) = &piece.fill
                && same_file(&**file, path)?
            {
                return Err(
                    Error::usage("is read from and cannot be written to at the same time")
                        .at_path(path),
                );
            }
        }
        Ok(())
    }

    /// Whether the host can share the blocks of all images with `target`.
    ///
    /// # Errors
    /// The host fails to query the target.
    pub fn all_shared_with(&self, target: &Target) -> Result<bool> {
        for image in &self.images {
            if !image.all_shared_with(target)? {
                return Ok(false);
            }
        }
        Ok(!self.images.is_empty())
    }

    /// The piece at `guest` or the next one behind it.
    fn at(&self, guest: u64) -> Option<&Piece> {
        let next = self.pieces.partition_point(|piece| piece.end() <= guest);
        self.pieces.get(next)
    }

    /// Depths of all images in one row.
    fn depth(image: usize, depth: u32) -> u32 {
        let images = image.saturating_mul(MAX_CHAIN);
        u32::try_from(images)
            .unwrap_or(u32::MAX)
            .saturating_add(depth)
    }
}

impl Source for Assembly {
    fn virtual_size(&self) -> u64 {
        self.size
    }

    fn cluster_size(&self) -> u64 {
        self.unit
    }

    fn cluster_size_at(&self, _: u32) -> u64 {
        self.unit
    }

    fn data_store(&self, depth: u32) -> Option<&dyn ReadAt> {
        let depth = usize::try_from(depth).ok()?;
        let image = self.images.get(depth / MAX_CHAIN)?;
        image.data_store(u32::try_from(depth % MAX_CHAIN).ok()?)
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        let extent = |end: u64, kind| Extent {
            start: range.start,
            length: end.min(range.end) - range.start,
            kind,
            host: None,
            depth: 0,
        };
        let Some(piece) = self.at(range.start) else {
            return Ok(extent(range.end, ExtentKind::Zero));
        };
        if piece.start > range.start {
            return Ok(extent(piece.start, ExtentKind::Zero));
        }
        let Fill::Image(number) = piece.fill else {
            return Ok(extent(piece.end(), ExtentKind::Data));
        };
        let Some(image) = self.images.get(number) else {
            return Ok(extent(piece.end(), ExtentKind::Zero));
        };
        let inner = range.start - piece.start..range.end.min(piece.end()) - piece.start;
        let mut found = image.extent_at(inner)?;
        found.start = range.start;
        if let ExtentKind::Compressed(_) = found.kind {
            found.kind = ExtentKind::Data;
            found.host = None;
        }
        found.depth = Self::depth(number, found.depth);
        Ok(found)
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        Box::new(AssemblyReader {
            disk: self,
            images: self.images.iter().map(|_| None).collect(),
        })
    }
}

struct AssemblyReader<'a> {
    disk: &'a Assembly,
    /// Made when they are needed.
    images: Vec<Option<Box<dyn Reader + 'a>>>,
}

impl AssemblyReader<'_> {
    fn read_piece(&mut self, piece: &Piece, skip: u64, buf: &mut [u8]) -> Result<()> {
        match &piece.fill {
            Fill::Bytes(bytes) => {
                let start = usize::try_from(skip).unwrap_or(usize::MAX);
                let bytes = bytes.get(start..).unwrap_or_default();
                for (to, from) in buf.iter_mut().zip(bytes) {
                    *to = *from;
                }
                Ok(())
            }
            Fill::File(file) => file.read_exact_at(buf, skip),
            Fill::Image(number) => {
                let Some((image, reader)) = self
                    .disk
                    .images
                    .get(*number)
                    .zip(self.images.get_mut(*number))
                else {
                    return Ok(());
                };
                reader
                    .get_or_insert_with(|| image.reader())
                    .read_at(skip, buf)
            }
        }
    }
}

impl Reader for AssemblyReader<'_> {
    fn read_at(&mut self, guest: u64, buf: &mut [u8]) -> Result<()> {
        let end = guest + buf.len() as u64;
        let (mut at, mut rest) = (guest, buf);
        let disk = self.disk;
        while at < end {
            let piece = disk.at(at).filter(|piece| piece.start < end);
            let until = match piece {
                Some(piece) if piece.start <= at => piece.end().min(end),
                Some(piece) => piece.start,
                None => end,
            };
            let length = usize::try_from(until - at).unwrap_or(usize::MAX);
            let (part, tail) = rest.split_at_mut(length.min(rest.len()));
            match piece {
                Some(piece) if piece.start <= at => {
                    self.read_piece(piece, at - piece.start, part)?;
                }
                _ => part.fill(0),
            }
            (at, rest) = (until, tail);
        }
        Ok(())
    }

    fn read_streams(&mut self, _: Range<u64>, _: &mut Vec<u8>, _: &mut Vec<Stream>) -> Result<()> {
        // No extent here is compressed.
        Err(Error::new(
            ErrorKind::Unsupported,
            "the parts of a disk have no compressed clusters",
        ))
    }
}
