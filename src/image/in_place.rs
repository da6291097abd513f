//! Images that are edited where they are: free and zero clusters are dropped,
//! and their host space is given back, without a second copy.
//!
//! Knows when an image may be written at all. How a format drops clusters is
//! the format's own. Must not know where a free map comes from.

mod edit;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

pub use edit::EditOptions;

use super::backing::Role;
use super::{Driver, Image, OpenOptions, qcow2, raw};
use crate::error::{Error, ErrorKind, Result};
use crate::free::FreeMap;
use crate::store::{HostFile, ReadAt, Sync, WriteAt};

/// An image that is open for writing, and held under QEMU's lock against everybody else.
#[derive(Debug)]
pub struct InPlace {
    image: Image,
    store: Arc<dyn WriteAt>,
    /// The external data file, where there is one.
    data: Option<Arc<dyn WriteAt>>,
}

/// What is dropped, and how.
#[derive(Debug, Clone, Copy)]
pub struct PunchOptions<'a> {
    /// Guest bytes that nothing uses: they read as zeros afterwards, or as before.
    pub free: &'a FreeMap,
    /// Drop what reads as zeros, too: the data is read to find it.
    pub zeros: bool,
    /// Write nothing.
    pub dry_run: bool,
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Whether the end of the work must survive a power loss. Its steps are kept in order in any case.
    pub sync: Sync,
    /// Set by another thread to stop.
    pub cancel: &'a AtomicBool,
}

impl PunchOptions<'_> {
    /// # Errors
    /// [`Cancelled`](ErrorKind::Cancelled), when the caller asked to stop before anything was written.
    pub(crate) fn go_on(&self) -> Result<()> {
        self.heed_cancel("interrupted: the image is what it was")
    }

    /// As [`PunchOptions::go_on`], when all that is left to do is to give space back.
    pub(crate) fn go_on_giving_back(&self) -> Result<()> {
        self.heed_cancel(
            "interrupted: the image is sound, but not all of its free space was given back",
        )
        .map_err(|error| error.with_remedy("run it again"))
    }

    fn heed_cancel(&self, message: &'static str) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled, message));
        }
        Ok(())
    }
}

/// How far the search for what can be dropped has come; what follows it is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PunchProgress {
    /// Guest bytes looked at.
    pub guest: u64,
    /// Guest bytes to look at.
    pub total: u64,
}

/// What was dropped, or would be. All in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Punched {
    /// Guest bytes dropped because the free map has all of their cluster or block.
    pub free_bytes: u64,
    /// Guest bytes dropped because what the free map leaves of their cluster or block is zeros.
    pub zero_bytes: u64,
    /// Free guest bytes that stay: an internal snapshot, or another cluster, uses the same host cluster.
    pub shared_bytes: u64,
    /// Free guest bytes that stay: version 2 has no cluster that hides a backing file without being stored.
    pub unmappable_bytes: u64,
    /// Host clusters that became free; none in a raw image.
    pub freed_clusters: u64,
    /// Host clusters that were counted although nothing used them, and became free.
    pub leaked_clusters: u64,
    /// Bytes of a cluster; absent for raw images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_size: Option<u64>,
    /// What header, L1 and L2 tables, refcount table and blocks of the active disk still take.
    pub metadata_bytes: u64,
    /// Bytes held on the host before, with the external data file.
    pub disk_size_before: u64,
    /// The same afterwards; an estimate when nothing was written.
    pub disk_size: u64,
    /// Length of the file before.
    pub file_length_before: u64,
    /// The same afterwards.
    pub file_length: u64,
}

impl InPlace {
    /// Opens the image at `path` for writing; an external data file as well, if the policy of `options` allows that.
    ///
    /// # Errors
    /// As [`Image::open`]; another process, even one that only reads, holds the image; it may not be written as it is:
    /// see [`InPlace::from_store`].
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let path = path.as_ref();
        let store = Arc::new(HostFile::open_write(path, options.locking)?);
        Self::from_store(store, path, options)
    }

    /// Takes an opened store for an image that is to be written.
    ///
    /// # Errors
    /// As [`InPlace::open`]: the image was not closed, is marked corrupt, or is encrypted.
    pub fn from_store(
        store: Arc<dyn WriteAt>,
        path: impl AsRef<Path>,
        options: &OpenOptions,
    ) -> Result<Self> {
        let path = path.as_ref();
        let readable: Arc<dyn ReadAt> = Arc::clone(&store) as _;
        let image =
            Image::from_store(readable, path, options).map_err(|error| error.at_path(path))?;
        let data = match image.qcow2() {
            None => None,
            Some(file) => {
                qcow2::punch::refuse(file).map_err(|error| error.at_path(path))?;
                image.named_data_file(file)?.map(|name| {
                    options
                        .backing
                        .open_write(Role::DataFile, name, path, options.locking)
                })
            }
        };
        let data = data.transpose()?.map(|data| data as Arc<dyn WriteAt>);
        Ok(Self::joined(image, store, data))
    }

    /// As [`InPlace::from_store`], with the external data file that the image names.
    ///
    /// # Errors
    /// As [`InPlace::from_store`]; the image names no external data file.
    pub fn from_stores(
        store: Arc<dyn WriteAt>,
        data: Arc<dyn WriteAt>,
        path: impl AsRef<Path>,
        options: &OpenOptions,
    ) -> Result<Self> {
        let path = path.as_ref();
        let readable: Arc<dyn ReadAt> = Arc::clone(&store) as _;
        let image =
            Image::from_store(readable, path, options).map_err(|error| error.at_path(path))?;
        let Some(file) = image
            .qcow2()
            .filter(|file| file.header.geometry().external_data)
        else {
            return Err(Error::usage("the image has no external data file").at_path(path));
        };
        qcow2::punch::refuse(file).map_err(|error| error.at_path(path))?;
        Ok(Self::joined(image, store, Some(data)))
    }

    fn joined(mut image: Image, store: Arc<dyn WriteAt>, data: Option<Arc<dyn WriteAt>>) -> Self {
        // Opened a second time it would meet our own lock.
        image.data = data.clone().map(|data| data as Arc<dyn ReadAt>);
        Self { image, store, data }
    }

    /// The image as it can be read; its chain may be used until [`InPlace::punch`].
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Drops what `options` name. What was known of the image no longer holds then, so it is used up.
    ///
    /// Everything is validated before the first byte is written. Whatever ends the work at any moment, the guest's disk
    /// reads as it did but for free bytes, which may be zeros already, and the image is sound; a qcow2 image may have
    /// leaked clusters, which the next run takes back. `progress` is called from time to time on the calling thread.
    ///
    /// # Errors
    /// The image is corrupt, or cannot be read or written; the host cannot give space back; cancelled, which is heeded
    /// before the first and after the last change to metadata.
    pub fn punch(
        self,
        options: &PunchOptions<'_>,
        progress: &mut dyn FnMut(PunchProgress),
    ) -> Result<Punched> {
        let path = self.image.path().to_owned();
        let done = match &self.image.driver {
            Driver::Raw => raw::punch::punch(&*self.store, options, progress),
            Driver::Qcow2(file) => {
                qcow2::punch::punch(file, &*self.store, self.data.as_deref(), options, progress)
            }
        };
        done.map_err(|error| match error.kind() {
            ErrorKind::Cancelled => error,
            _ => error.at_path(path),
        })
    }
}

/// The largest part of `range` that starts and ends where a block of `size` bytes does; the end of the file counts as
/// such a place.
pub(super) fn whole_blocks(
    range: &std::ops::Range<u64>,
    size: u64,
    file_length: u64,
) -> std::ops::Range<u64> {
    let start = range.start.next_multiple_of(size);
    let end = if range.end >= file_length {
        file_length
    } else {
        range.end - range.end % size
    };
    start..end.max(start)
}

/// Bytes of `range` that the host stores, as far as it tells holes.
pub(super) fn stored_bytes(store: &dyn ReadAt, range: std::ops::Range<u64>) -> Result<u64> {
    let end = range.end.min(store.len()?);
    let mut at = range.start;
    let mut stored = 0;
    while at < end {
        let run = store.run_at(at)?;
        let until = run.end.min(end);
        if until <= at {
            break;
        }
        if run.kind == crate::store::RunKind::Data {
            stored += until - at;
        }
        at = until;
    }
    Ok(stored)
}
