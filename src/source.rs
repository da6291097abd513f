//! What an operation reads: the guest-visible side of an image.
//!
//! Knows guest offsets and extents; must not know formats or writers, and of files
//! only whether two are the same.

use std::ops::Range;

use crate::error::Result;
use crate::extent::{Extent, ExtentKind};
use crate::store::ReadAt;

/// The guest-visible contents of an image, shared by all threads.
pub trait Source: Send + Sync {
    /// Size of the virtual disk in bytes, a multiple of 512.
    fn virtual_size(&self) -> u64;

    /// The unit in which contents are stored, in bytes (a power of two): reads that cover whole units decode each
    /// compressed cluster once.
    fn cluster_size(&self) -> u64;

    /// The unit of the layer at `depth`, in bytes: a compressed cluster there has this size.
    fn cluster_size_at(&self, depth: u32) -> u64;

    /// The file in which the layer at `depth` keeps plain data, at the host offsets of its extents.
    fn data_store(&self, depth: u32) -> Option<&dyn ReadAt>;

    /// The extent that starts at `range.start`, at most up to `range.end`.
    ///
    /// `range` is not empty and lies within the virtual size.
    ///
    /// # Errors
    /// Metadata that cannot be read or contradicts its format.
    fn extent_at(&self, range: Range<u64>) -> Result<Extent>;

    /// A reader with buffers of its own, one for each thread.
    fn reader(&self) -> Box<dyn Reader + '_>;
}

/// Reads guest bytes.
pub trait Reader: Send {
    /// Fills `buf` with the guest's bytes from `guest` on; all of them lie within the virtual size.
    ///
    /// # Errors
    /// Host failures, corrupt metadata or streams, a backing file that may not be read.
    fn read_at(&mut self, guest: u64, buf: &mut [u8]) -> Result<()>;

    /// Appends the streams of the compressed clusters in `guest` (whole clusters of one layer, all of them compressed)
    /// to `out` without decoding them, and names them in `streams` in host order.
    ///
    /// # Errors
    /// As [`Reader::read_at`].
    fn read_streams(
        &mut self,
        guest: Range<u64>,
        out: &mut Vec<u8>,
        streams: &mut Vec<Stream>,
    ) -> Result<()>;
}

/// A disk of plain bytes, without any format: whatever implements it is a [`Source`]. For tests, fuzz targets and examples.
pub trait PlainBytes: Send + Sync {
    /// Bytes of the disk.
    fn length(&self) -> u64;

    /// Fills `buf` with the bytes from `at` on; all of them lie within the length.
    ///
    /// # Errors
    /// Whatever they come from may fail.
    fn fill(&self, at: u64, buf: &mut [u8]) -> Result<()>;
}

/// As good as any: nothing is compressed.
const PLAIN_UNIT: u64 = 1 << 16;

impl<B: PlainBytes> Source for B {
    fn virtual_size(&self) -> u64 {
        self.length()
    }

    fn cluster_size(&self) -> u64 {
        PLAIN_UNIT
    }

    fn cluster_size_at(&self, _: u32) -> u64 {
        PLAIN_UNIT
    }

    fn data_store(&self, _: u32) -> Option<&dyn ReadAt> {
        None
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        Ok(Extent {
            start: range.start,
            length: range.end - range.start,
            kind: ExtentKind::Data,
            host: None,
            depth: 0,
        })
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        Box::new(PlainReader(self))
    }
}

struct PlainReader<'a, B>(&'a B);

impl<B: PlainBytes> Reader for PlainReader<'_, B> {
    fn read_at(&mut self, guest: u64, buf: &mut [u8]) -> Result<()> {
        self.0.fill(guest, buf)
    }

    /// There are none.
    fn read_streams(&mut self, _: Range<u64>, _: &mut Vec<u8>, _: &mut Vec<Stream>) -> Result<()> {
        Ok(())
    }
}

/// A compressed cluster's stream as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// Guest offset of its cluster.
    pub guest: u64,
    /// Where it starts in the buffer that it was read into.
    pub start: usize,
    /// Upper bound of its length in bytes.
    pub length: usize,
    /// Where another stream starts before that, if one does: most likely the exact length.
    pub neighbour: Option<usize>,
    /// Its host offset within a 512-byte sector.
    pub phase: u16,
}
