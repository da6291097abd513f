//! Raw images: guest bytes are file bytes.
//!
//! Knows holes. Anything can be raw, so nothing here refuses contents.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::extent::{Extent, ExtentKind};
use crate::store::{FileId, ReadAt, RunKind};

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

    /// Which host file holds the bytes.
    pub(crate) fn data_file(&self) -> Option<FileId> {
        self.store.identity()
    }

    pub(crate) fn virtual_size(&self) -> u64 {
        self.virtual_size
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
