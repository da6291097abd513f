//! Images whose guest's disk becomes larger or smaller, or is written in places.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::super::{Depth, Driver, Image, OpenOptions};
use super::{InPlace, PunchOptions, qcow2};
use crate::error::{Error, ErrorKind, Result};
use crate::free::FreeMapBuilder;
use crate::source::Source;
use crate::store::{FileId, Locking, ReadAt, Sync, WriteAt};

/// What is written at once to an image without clusters.
const PIECE: u64 = 1 << 20;

/// How an image is changed.
#[derive(Debug, Clone, Copy)]
pub struct EditOptions<'a> {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Set by another thread to stop; heeded before anything is written.
    pub cancel: &'a AtomicBool,
}

impl InPlace {
    /// Fails for an image that [`InPlace::resize`] and [`InPlace::write`] would refuse. Reads all of its tables.
    ///
    /// # Errors
    /// The image has errors; it has persistent bitmaps or an external data file; cancelled.
    pub fn refuse_edit(&self, options: &EditOptions<'_>) -> Result<()> {
        match &self.image.driver {
            Driver::Raw => Ok(()),
            Driver::Qcow2(file) => qcow2::edit::refuse(file, options.threads, options.cancel),
        }
        .map_err(|error| self.name(error))
    }

    /// Fails when [`InPlace::write`] would refuse the image.
    ///
    /// # Errors
    /// It shares its clusters with internal snapshots.
    pub fn refuse_writes(&self) -> Result<()> {
        match &self.image.driver {
            Driver::Raw => Ok(()),
            Driver::Qcow2(file) => qcow2::edit::refuse_shared(file),
        }
        .map_err(|error| self.name(error))
    }

    /// Gives the guest's disk `size` bytes. What is added reads as zeros; what is cut off is lost.
    ///
    /// The image is sound whenever this ends: it has the old size or the new one, and leaked clusters at worst.
    ///
    /// # Errors
    /// As [`InPlace::refuse_edit`]; a size that the format does not have, or not with what the image contains; the host
    /// cannot write.
    pub fn resize(&mut self, size: u64, options: &EditOptions<'_>) -> Result<()> {
        self.refuse_edit(options)?;
        let old = self.image.virtual_size()?;
        let resized = match &self.image.driver {
            Driver::Raw => self.resize_raw(size),
            Driver::Qcow2(_) if size > old => self.grow(old, size),
            Driver::Qcow2(_) if size < old => self.shrink(old, size, options),
            Driver::Qcow2(_) => Ok(()),
        };
        resized.map_err(|error| self.name(error))
    }

    fn resize_raw(&self, size: u64) -> Result<()> {
        if let Some(FileId::BlockDevice { .. }) = self.store.identity() {
            return Err(Error::usage(
                "is a block device, which has the size that it has",
            ));
        }
        self.store.set_len(size)?;
        self.store.sync()
    }

    fn grow(&mut self, old: u64, size: u64) -> Result<()> {
        if let Some(backing) = self.image.open_next()?
            && backing.virtual_size()? > old
        {
            return Err(Error::unsupported(
                "its backing file is longer than the image, and would show through in what is added",
            )
            .with_remedy("`qemu-img resize` hides it; or merge both with `qimg convert`"));
        }
        self.clear_tail(old)?;
        let Driver::Qcow2(file) = &self.image.driver else {
            return Ok(());
        };
        if file.header.version < 3 && file.header.nb_snapshots > 0 {
            return Err(Error::unsupported(
                "is a version 2 image with internal snapshots, whose size would be lost",
            )
            .with_remedy("delete them with `qemu-img snapshot -d`, or convert the image"));
        }
        qcow2::edit::grow(file, &*self.store, size)?;
        self.reopen()
    }

    fn shrink(&mut self, old: u64, size: u64, options: &EditOptions<'_>) -> Result<()> {
        let Driver::Qcow2(file) = &self.image.driver else {
            return Ok(());
        };
        if file.header.nb_snapshots > 0 {
            return Err(Error::refused(
                "has internal snapshots, which are of the old size",
                "delete them with `qemu-img snapshot -d`",
            ));
        }
        let cluster = file.header.cluster_bits.size();
        let end = old.checked_next_multiple_of(cluster).unwrap_or(old);
        let tail = size.next_multiple_of(cluster).min(end)..end;
        let mut free = FreeMapBuilder::new();
        free.free(tail);
        let tail = free.build();
        let punch = PunchOptions {
            free: &tail,
            zeros: false,
            dry_run: false,
            threads: options.threads,
            sync: Sync::Full,
            cancel: options.cancel,
        };
        qcow2::punch::punch(file, &*self.store, None, &punch, &mut |_| {})?;
        self.reopen()?;
        // What is left of the last cluster would come back with the next resize.
        self.clear_tail(size)?;
        if let Driver::Qcow2(file) = &self.image.driver {
            qcow2::edit::cut(file, &*self.store, size)?;
        }
        self.reopen()
    }

    /// Makes what a cluster holds behind `end`, the end of the disk, zeros.
    fn clear_tail(&mut self, end: u64) -> Result<()> {
        let Driver::Qcow2(file) = &self.image.driver else {
            return Ok(());
        };
        let bits = file.header.cluster_bits;
        let used = bits.offset_in(end);
        if used == 0 {
            return Ok(());
        }
        let zeros = vec![0; usize::try_from(bits.size() - used).unwrap_or(0)];
        let chain = self.image.chain(Depth::Chain, None)?;
        let mut edit = qcow2::edit::Edit::new(file, &*self.store)?;
        edit.write(end, &zeros, &mut *chain.reader())?;
        edit.finish()?;
        self.reopen()
    }

    /// Writes these ranges of `source`'s disk to the guest's, which is as long at least. When this returns they are there
    /// for good; until then any part of them may be, in whole sectors.
    ///
    /// # Errors
    /// The image shares its clusters with internal snapshots; a file cannot be read, or the host cannot write.
    pub fn write(&mut self, source: &dyn Source, ranges: &[Range<u64>]) -> Result<()> {
        let written = match &self.image.driver {
            Driver::Raw => self.write_raw(source, ranges),
            Driver::Qcow2(file) => self.write_clusters(file, source, ranges),
        };
        written.map_err(|error| self.name(error))?;
        self.reopen()
    }

    fn write_raw(&self, source: &dyn Source, ranges: &[Range<u64>]) -> Result<()> {
        each_piece(source, ranges, PIECE, &mut |at, bytes| {
            self.store.write_all_at(bytes, at)
        })?;
        self.store.sync()
    }

    fn write_clusters(
        &self,
        file: &qcow2::Qcow2File,
        source: &dyn Source,
        ranges: &[Range<u64>],
    ) -> Result<()> {
        let chain = self.image.chain(Depth::Chain, None)?;
        let mut old = chain.reader();
        let mut edit = qcow2::edit::Edit::new(file, &*self.store)?;
        let unit = file.header.cluster_bits.size();
        each_piece(source, ranges, unit, &mut |at, bytes| {
            edit.write(at, bytes, &mut *old)
        })?;
        edit.finish()
    }

    /// Learns what the image has become.
    fn reopen(&mut self) -> Result<()> {
        let options = OpenOptions {
            format: Some(self.image.format()),
            locking: Locking::Ignore,
            ..self.image.options
        };
        let readable: Arc<dyn ReadAt> = Arc::clone(&self.store) as _;
        let path = self.image.path.clone();
        self.image = Image::from_store(readable, &path, &options)?;
        self.image.data = self.data.clone().map(|data| data as Arc<dyn ReadAt>);
        Ok(())
    }

    fn name(&self, error: Error) -> Error {
        let path: &Path = &self.image.path;
        match error.kind() {
            ErrorKind::Cancelled => error,
            _ => error.at_path(path),
        }
    }
}

/// Reads `ranges` in pieces that end where a unit does.
fn each_piece(
    source: &dyn Source,
    ranges: &[Range<u64>],
    unit: u64,
    each: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut reader = source.reader();
    let mut buffer = Vec::new();
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let end = (at - at % unit).saturating_add(unit).min(range.end);
            buffer.resize(usize::try_from(end - at).unwrap_or(0), 0);
            reader.read_at(at, &mut buffer)?;
            each(at, &buffer)?;
            at = end;
        }
    }
    Ok(())
}
