//! A disk without what its filesystems do not use: free ranges read as zeros.
//!
//! Stands between an image and the data path, so that the latter needs to know
//! nothing of filesystems. Knows extents and free maps; neither formats nor
//! filesystems.

use std::ops::Range;

use crate::error::Result;
use crate::extent::{Extent, ExtentKind};
use crate::free::FreeMap;
use crate::source::{Reader, Source, Stream};
use crate::store::ReadAt;

/// `source` with the ranges of `free` reading as zeros.
///
/// What a cluster that is free in part holds in the rest stays; its stored form
/// does not, so it counts as plain data without a place of its own.
#[derive(Clone, Copy)]
pub struct Pruned<'a> {
    source: &'a dyn Source,
    free: &'a FreeMap,
    overlay: bool,
}

impl std::fmt::Debug for Pruned<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pruned")
            .field("free", &self.free)
            .field("overlay", &self.overlay)
            .finish_non_exhaustive()
    }
}

impl<'a> Pruned<'a> {
    /// `overlay` says that the result keeps its backing file: what only that one holds stays its own business, and
    /// free ranges of the top layer become zeros that hide it.
    pub fn new(source: &'a dyn Source, free: &'a FreeMap, overlay: bool) -> Self {
        Self {
            source,
            free,
            overlay,
        }
    }

    /// What a free range is.
    fn free_extent(&self, range: Range<u64>) -> Result<Extent> {
        let zero = Extent {
            start: range.start,
            length: range.end - range.start,
            kind: ExtentKind::Zero,
            host: None,
            depth: 0,
        };
        if !self.overlay {
            return Ok(zero);
        }
        let extent = self.source.extent_at(range)?;
        if extent.depth > 0 || extent.kind == ExtentKind::Unallocated {
            return Ok(extent);
        }
        Ok(zero.clipped(extent.end()))
    }
}

impl Source for Pruned<'_> {
    fn virtual_size(&self) -> u64 {
        self.source.virtual_size()
    }

    fn cluster_size(&self) -> u64 {
        self.source.cluster_size()
    }

    fn cluster_size_at(&self, depth: u32) -> u64 {
        self.source.cluster_size_at(depth)
    }

    fn data_store(&self, depth: u32) -> Option<&dyn ReadAt> {
        self.source.data_store(depth)
    }

    fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        let (free, until) = self.free.at(range.start);
        if free {
            return self.free_extent(range.start..until.min(range.end));
        }
        let mut extent = self.source.extent_at(range)?;
        if let ExtentKind::Compressed(_) = extent.kind {
            let size = self.source.cluster_size_at(extent.depth);
            let aligned = extent.start.is_multiple_of(size);
            if aligned && until >= extent.end() {
                return Ok(extent);
            }
            let whole = until - until % size;
            if aligned && whole > extent.start {
                return Ok(extent.clipped(whole));
            }
            let cluster_end = (extent.start - extent.start % size).saturating_add(size);
            // Its stream holds what is free, too.
            extent.kind = ExtentKind::Data;
            extent.host = None;
            extent = extent.clipped(cluster_end);
        }
        Ok(extent.clipped(until))
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        Box::new(PrunedReader {
            inner: self.source.reader(),
            disk: *self,
        })
    }
}

struct PrunedReader<'a> {
    inner: Box<dyn Reader + 'a>,
    disk: Pruned<'a>,
}

impl Reader for PrunedReader<'_> {
    fn read_at(&mut self, guest: u64, buf: &mut [u8]) -> Result<()> {
        let end = guest + buf.len() as u64;
        let mut rest = buf;
        let mut at = guest;
        while at < end {
            let (free, until) = self.disk.free.at(at);
            let mut until = until.min(end);
            let mut hidden = free;
            if free {
                let extent = self.disk.free_extent(at..until)?;
                until = extent.end();
                hidden = extent.kind == ExtentKind::Zero;
            }
            let length = usize::try_from(until - at).unwrap_or(usize::MAX);
            let (part, tail) = rest.split_at_mut(length);
            if hidden {
                part.fill(0);
            } else {
                self.inner.read_at(at, part)?;
            }
            rest = tail;
            at = until;
        }
        Ok(())
    }

    fn read_streams(
        &mut self,
        guest: Range<u64>,
        out: &mut Vec<u8>,
        streams: &mut Vec<Stream>,
    ) -> Result<()> {
        self.inner.read_streams(guest, out, streams)
    }
}
