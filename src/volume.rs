//! Volumes: runs of the guest's disk that hold something of their own.
//!
//! The whole disk is one, a partition is one, and so is a logical volume made of
//! several pieces of the disk. Knows where its bytes lie on the disk; must not
//! know what they mean, nor which image format stores them.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::extent::ExtentKind;
use crate::source::{Reader, Source};

/// Bytes of the guest's disk, addressed from 0.
#[derive(Clone)]
pub struct Volume<'a> {
    disk: Arc<Disk<'a>>,
    pieces: Arc<[Piece]>,
    size: u64,
}

/// The disk and the reader that all volumes on it share.
struct Disk<'a> {
    source: &'a dyn Source,
    reader: Mutex<Box<dyn Reader + 'a>>,
}

/// A part of a volume that lies on the disk in one run.
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// Its first byte within the volume.
    start: u64,
    /// Its first byte on the disk.
    guest: u64,
    length: u64,
}

impl fmt::Debug for Volume<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume")
            .field("size", &self.size)
            .field("pieces", &self.pieces)
            .finish_non_exhaustive()
    }
}

impl<'a> Volume<'a> {
    /// The whole disk.
    pub fn whole(source: &'a dyn Source) -> Self {
        let size = source.virtual_size();
        let disk = Disk {
            source,
            reader: Mutex::new(source.reader()),
        };
        let piece = Piece {
            start: 0,
            guest: 0,
            length: size,
        };
        Self {
            disk: Arc::new(disk),
            pieces: Arc::new([piece]),
            size,
        }
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The disk that it lies on.
    pub fn source(&self) -> &'a dyn Source {
        self.disk.source
    }

    /// The volume made of these ranges of this one, in this order; `None` when one reaches past the end or is turned
    /// around.
    pub fn join(&self, ranges: &[Range<u64>]) -> Option<Self> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut size = 0_u64;
        for range in ranges {
            if range.start > range.end || range.end > self.size {
                return None;
            }
            for guest in self.on_disk(range.clone()) {
                let length = guest.end - guest.start;
                match pieces.last_mut() {
                    Some(last) if last.guest + last.length == guest.start => last.length += length,
                    _ => pieces.push(Piece {
                        start: size,
                        guest: guest.start,
                        length,
                    }),
                }
                size = size.checked_add(length)?;
            }
        }
        Some(Self {
            disk: Arc::clone(&self.disk),
            pieces: pieces.into(),
            size,
        })
    }

    /// A part of this volume; `None` when it reaches past the end or is turned around.
    pub fn part(&self, range: Range<u64>) -> Option<Self> {
        self.join(&[range])
    }

    /// Where `range` of this volume lies on the disk, in the volume's order; what is past the end lies nowhere.
    pub fn on_disk(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self
            .pieces
            .partition_point(|piece| piece.start + piece.length <= range.start);
        self.pieces[first..]
            .iter()
            .take_while({
                let end = range.end;
                move |piece| piece.start < end
            })
            .filter_map(move |piece| {
                let start = range.start.max(piece.start);
                let end = range.end.min(piece.start + piece.length);
                let guest = piece.guest + (start - piece.start);
                (start < end).then(|| guest..guest + (end - start))
            })
    }

    /// Fills `buf` with the bytes from `at` on.
    ///
    /// # Errors
    /// Past the end of the volume; whatever the image fails with.
    pub fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let end = at.checked_add(buf.len() as u64);
        let Some(end) = end.filter(|&end| end <= self.size) else {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "{} bytes at {at:#x} lie past the end of a volume of {} bytes",
                    buf.len(),
                    self.size
                ),
            ));
        };
        // A reader is never left half changed by what another thread's panic cut off: it only caches.
        let reader = self.disk.reader.lock();
        let mut reader = reader.unwrap_or_else(PoisonError::into_inner);
        let mut rest = buf;
        for guest in self.on_disk(at..end) {
            let length = usize::try_from(guest.end - guest.start).unwrap_or(usize::MAX);
            let (part, tail) = rest.split_at_mut(length.min(rest.len()));
            reader.read_at(guest.start, part)?;
            rest = tail;
        }
        Ok(())
    }

    /// Whether the image has anything at `range.start`, and up to where in `range` that goes on; what it has nothing of
    /// reads as zeros. Where the image has data may be zeros as well.
    ///
    /// # Errors
    /// Metadata of the image that cannot be read.
    pub fn has_data(&self, range: Range<u64>) -> Result<(bool, u64)> {
        let Some(guest) = self.on_disk(range.clone()).next() else {
            // Who reads there is told that it is past the end.
            return Ok((true, range.end));
        };
        let extent = self.disk.source.extent_at(guest)?;
        let is_data = matches!(extent.kind, ExtentKind::Data | ExtentKind::Compressed(_));
        Ok((is_data, range.start.saturating_add(extent.length)))
    }

    /// `N` bytes from `at` on.
    ///
    /// # Errors
    /// As [`Volume::read_at`].
    pub fn read_array<const N: usize>(&self, at: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_at(at, &mut bytes)?;
        Ok(bytes)
    }

    /// `length` bytes from `at` on; the caller bounds `length`.
    ///
    /// # Errors
    /// As [`Volume::read_at`].
    pub fn read_vec(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        if at
            .checked_add(length as u64)
            .is_none_or(|end| end > self.size)
        {
            // Fails before memory is taken.
            self.read_at(at.max(self.size), &mut [0])?;
        }
        let mut bytes = vec![0; length];
        self.read_at(at, &mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::image::{Depth, Format, Image, OpenOptions};
    use crate::store::{Memory, ReadAt};

    #[test]
    fn pieces_read_in_their_own_order() {
        let bytes: Vec<u8> = (0..=255).cycle().take(4096).collect();
        let store: Arc<dyn ReadAt> = Arc::new(Memory::from(bytes));
        let options = OpenOptions {
            format: Some(Format::Raw),
            ..OpenOptions::default()
        };
        let image = Image::from_store(store, "disk", &options).unwrap();
        let chain = image.chain(Depth::Chain, None).unwrap();
        let disk = Volume::whole(&chain);
        let volume = disk.join(&[10..12, 300..303, 303..304]).unwrap();
        assert_eq!(volume.size(), 6);
        assert_eq!(volume.read_array(0).unwrap(), [10, 11, 44, 45, 46, 47]);
        let part = volume.part(1..4).unwrap();
        assert_eq!(part.read_array(0).unwrap(), [11, 44, 45]);
        assert_eq!(part.on_disk(0..9).collect::<Vec<_>>(), [11..12, 300..302]);
        assert!(part.read_array::<4>(0).is_err());
        assert!(part.read_vec(u64::MAX, 2).is_err());
        assert!(part.part(2..4).is_none());
    }
}
