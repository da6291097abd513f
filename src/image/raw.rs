//! Raw images: guest bytes are file bytes, read and written.
//!
//! Knows holes. Anything can be raw, so nothing here refuses contents.

pub(super) mod punch;

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentKind};
use crate::store::{ReadAt, RunKind, WriteAt};
use crate::writer::{ImageWriter, Origin, StoredCluster, Written};

/// Guest view of a raw file or block device.
#[derive(Debug)]
pub(crate) struct RawLayer {
    store: Arc<dyn ReadAt>,
    virtual_size: u64,
}

impl RawLayer {
    /// Takes the file's length as the virtual size, rounded up to whole sectors as in QEMU.
    pub(crate) fn new(store: Arc<dyn ReadAt>) -> Result<Self> {
        let virtual_size = virtual_size(store.len()?);
        Ok(Self {
            store,
            virtual_size,
        })
    }

    pub(crate) fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// The file itself.
    pub(crate) fn store(&self) -> &Arc<dyn ReadAt> {
        &self.store
    }

    /// Data and holes, as the file system tells them.
    pub(crate) fn extent_at(&self, range: Range<u64>) -> Result<Extent> {
        let length = self.store.len()?;
        let (kind, end) = if range.start >= length {
            (ExtentKind::Zero, range.end)
        } else {
            let run = self.store.run_at(range.start)?;
            // The zeros that fill the last sector belong to its data.
            let end = if run.end >= length {
                self.virtual_size
            } else {
                run.end
            };
            let kind = match run.kind {
                RunKind::Data => ExtentKind::Data,
                RunKind::Hole => ExtentKind::Zero,
            };
            (kind, end.min(range.end))
        };
        let length = end - range.start;
        Ok(Extent {
            start: range.start,
            length,
            kind,
            host: Some(range.start),
            depth: 0,
        })
    }

    pub(crate) fn read(&self, guest: u64, buf: &mut [u8]) -> Result<()> {
        self.store.read_zero_filled(buf, guest)
    }
}

/// Virtual size of a raw file of `length` bytes: whole sectors.
pub(crate) fn virtual_size(length: u64) -> u64 {
    length
        .checked_next_multiple_of(512)
        .unwrap_or(length & !511)
}

/// Writes guest bytes where they belong; holes stay holes.
#[derive(Debug)]
pub(crate) struct RawWriter {
    store: Arc<dyn WriteAt>,
    virtual_size: u64,
    /// The store read as zeros before the first write.
    fresh: bool,
}

impl RawWriter {
    /// A writer of `virtual_size` bytes to `store`, which is made that long when it is fresh.
    ///
    /// # Errors
    /// The host cannot extend the file.
    pub(crate) fn new(store: Arc<dyn WriteAt>, virtual_size: u64, fresh: bool) -> Result<Self> {
        if fresh {
            store.set_len(virtual_size)?;
        }
        Ok(Self {
            store,
            virtual_size,
            fresh,
        })
    }
}

impl ImageWriter for RawWriter {
    fn cluster_size(&self) -> u64 {
        1 << 16
    }

    fn skips_zeros(&self) -> bool {
        self.fresh
    }

    fn write_data(&mut self, guest: u64, bytes: &[u8], origin: Option<Origin<'_>>) -> Result<()> {
        if let Some(origin) = origin
            && origin.share(&*self.store, 0, guest, bytes.len() as u64)?
        {
            return Ok(());
        }
        self.store.write_all_at(bytes, guest)
    }

    fn write_compressed(
        &mut self,
        _: &[StoredCluster],
        _: &[u8],
        _: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<()> {
        Err(Error::usage("a raw image has no compressed clusters"))
    }

    fn write_zeros(&mut self, range: Range<u64>) -> Result<()> {
        if self.fresh {
            return Ok(());
        }
        self.store.punch_hole(range)
    }

    fn finish(&mut self) -> Result<Written> {
        let file_length = if self.fresh {
            self.store.len()?
        } else {
            self.virtual_size
        };
        Ok(Written {
            file_length,
            shared_clusters: 0,
        })
    }
}
