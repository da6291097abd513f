//! Bytes on the host: the only modules that open image files.
//!
//! Knows host files, block devices, their holes, locks and durability. Must not
//! know any image format, guest offset or operation: an offset here is always a
//! host offset in bytes.
//!
//! [`ReadAt`] and [`WriteAt`] are the whole contract. [`HostFile`] is a file or
//! block device, [`Staged`] an output that appears under its name only when it
//! is complete, [`Memory`] a `Vec` behind the same traits; [`Faulty`] wraps any of
//! them to fail on demand, [`Recorder`] to tell what a crash may leave behind.

mod attributes;
mod discard;
pub mod extraction;
mod faulty;
mod file;
mod hold;
mod later;
mod lock;
mod loops;
mod memory;
mod recorder;
mod sequential;
mod shelf;
mod staged;
mod sweep;
mod whole;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub use discard::Discard;
pub use faulty::{Count, Effect, Faulty, Operation};
pub use file::{HostFile, same_file};
pub use hold::{Attempt, Hold, Share};
pub use later::{LaterFile, Listed, list_below};
pub use lock::Locking;
pub use memory::Memory;
pub use recorder::{Change, Recorder};
pub use sequential::{SequentialReader, SequentialWriter, recovered};
pub use shelf::{
    Kind, Seen, free_bytes, look, make_directory, make_private, make_private_directory, mark_used,
    move_anywhere, move_file, names_in, point_to, remove_empty_directory, remove_file, remove_tree,
    sync_file,
};
pub use staged::{Staged, Sync, write_file};
pub use whole::{read_file, write_secret};

use crate::error::Result;

/// Whether a run of host bytes is stored or a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// Stored bytes, which may still all be zero.
    Data,
    /// Not stored: reads as zeros.
    Hole,
}

/// A maximal known run of host bytes of one kind, from a given host offset on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostRun {
    /// Data or hole.
    pub kind: RunKind,
    /// The first host offset past the run, in bytes; never beyond the length of the store.
    pub end: u64,
}

/// Which file this is, whatever name it was opened under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileId {
    /// A regular file.
    Inode {
        /// Device number of the file system that holds the file.
        dev: u64,
        /// Inode number on that file system.
        ino: u64,
    },
    /// A block device, whatever node names it.
    BlockDevice {
        /// Device number of the device itself.
        rdev: u64,
    },
}

/// Positional, shared, exact reads of host bytes.
pub trait ReadAt: Send + std::marker::Sync + std::fmt::Debug {
    /// Length in bytes, as known since the store was opened or last written through this value.
    ///
    /// # Errors
    /// When the host cannot tell.
    fn len(&self) -> Result<u64>;

    /// Whether there is not a single byte.
    ///
    /// # Errors
    /// As [`ReadAt::len`].
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` with the bytes from host offset `host` on.
    ///
    /// # Errors
    /// When the host fails to read, and when the store ends before `buf` is full,
    /// even if [`ReadAt::len`] promised otherwise. The error names path and host offset.
    fn read_exact_at(&self, buf: &mut [u8], host: u64) -> Result<()>;

    /// Fills `buf` from host offset `host` on; bytes past the end of the store are zero.
    ///
    /// # Errors
    /// When the host fails to read.
    fn read_zero_filled(&self, buf: &mut [u8], host: u64) -> Result<()> {
        let stored = self.len()?.saturating_sub(host);
        let stored = usize::try_from(stored).map_or(buf.len(), |stored| stored.min(buf.len()));
        let (stored, beyond) = buf.split_at_mut(stored);
        beyond.fill(0);
        if stored.is_empty() {
            return Ok(());
        }
        self.read_exact_at(stored, host)
    }

    /// The run that begins at `host` or contains it: whether it is data or hole, and where it ends.
    ///
    /// At or past the end of the store the answer is a hole that ends at the length.
    /// A store that cannot tell says that everything is data.
    ///
    /// # Errors
    /// When the host fails, or the file became shorter than it was.
    fn run_at(&self, host: u64) -> Result<HostRun> {
        let end = self.len()?;
        let kind = if host < end {
            RunKind::Data
        } else {
            RunKind::Hole
        };
        Ok(HostRun { kind, end })
    }

    /// Advises that these bytes are about to be read. Never fails, may do nothing.
    fn will_need(&self, host: Range<u64>) {
        let _ = host;
    }

    /// Bytes allocated on the host: qemu-img's `actual-size`.
    ///
    /// # Errors
    /// When the host cannot tell.
    fn allocated_bytes(&self) -> Result<u64> {
        self.len()
    }

    /// Bytes of the unit in which the host gives out space: what is deallocated in whole units costs no writing.
    fn block_size(&self) -> u64 {
        512
    }

    /// The name to use in messages, if there is one.
    fn path(&self) -> Option<&Path> {
        None
    }

    /// Which host file or device this is, if it is one.
    fn identity(&self) -> Option<FileId> {
        None
    }

    /// The host file behind this store, when its bytes are exactly that file's.
    fn as_host_file(&self) -> Option<&HostFile> {
        None
    }
}

/// Positional, shared writes of host bytes.
///
/// Ranges that do not overlap may be written from many threads at once.
pub trait WriteAt: ReadAt {
    /// Writes all of `buf` from host offset `host` on, extending the store where needed.
    ///
    /// # Errors
    /// When the host fails to write; a part may have been written. The error names path and host offset.
    fn write_all_at(&self, buf: &[u8], host: u64) -> Result<()>;

    /// Cuts or extends the store to `len` bytes; what is added reads as zeros.
    ///
    /// A block device keeps its size: any `len` up to it is accepted and changes nothing.
    ///
    /// # Errors
    /// When the host refuses, or `len` exceeds a block device.
    fn set_len(&self, len: u64) -> Result<()>;

    /// Makes `host` read as zeros, and frees its host space where the file system can.
    ///
    /// The length does not change: what lies beyond it is ignored.
    ///
    /// # Errors
    /// When the host fails to write.
    fn punch_hole(&self, host: Range<u64>) -> Result<()>;

    /// Gives the host space of `host` back, so that it reads as zeros; false, and nothing has changed, when the host
    /// cannot do that. Unlike [`WriteAt::punch_hole`] it never writes zeros out instead.
    ///
    /// The length does not change: what lies beyond it is ignored.
    ///
    /// # Errors
    /// When the host fails; a part may have been given back.
    fn deallocate(&self, host: Range<u64>) -> Result<bool>;

    /// Whether [`WriteAt::deallocate`] does anything here, as far as can be found out without changing a byte.
    ///
    /// # Errors
    /// When the host fails to answer.
    fn can_deallocate(&self) -> Result<bool> {
        Ok(true)
    }

    /// Reserves host space for `host`, extending the store where needed; what is stored stays.
    ///
    /// A block device has its space already.
    ///
    /// # Errors
    /// [`Unsupported`](crate::error::ErrorKind::Unsupported) when the file system cannot reserve;
    /// otherwise when the host has no space or fails, or a block device is too small.
    fn preallocate(&self, host: Range<u64>) -> Result<()>;

    /// Returns when all earlier writes would survive a power loss.
    ///
    /// # Errors
    /// When the host cannot promise that. Earlier writes may then be lost for good:
    /// a later success does not bring them back.
    fn sync(&self) -> Result<()>;

    /// Copies up to `len` bytes from `from_host` in `from` to `to_host` here, inside the kernel,
    /// sharing blocks where the file system can.
    ///
    /// Returns the bytes copied. Fewer than `len`, down to 0, means that the kernel cannot
    /// (or `from` ends there): the caller reads and writes the rest.
    ///
    /// # Errors
    /// When reading or writing fails for a reason that an ordinary copy would meet too.
    fn copy_from(&self, from: &dyn ReadAt, from_host: u64, to_host: u64, len: u64) -> Result<u64> {
        let _ = (from, from_host, to_host, len);
        Ok(0)
    }
}

/// Implements both traits for a pointer to a store, including every default method.
macro_rules! forward_through {
    ($($pointer:ty),+) => {$(
        impl<T: ReadAt + ?Sized> ReadAt for $pointer {
            fn len(&self) -> Result<u64> {
                (**self).len()
            }
            fn read_exact_at(&self, buf: &mut [u8], host: u64) -> Result<()> {
                (**self).read_exact_at(buf, host)
            }
            fn read_zero_filled(&self, buf: &mut [u8], host: u64) -> Result<()> {
                (**self).read_zero_filled(buf, host)
            }
            fn run_at(&self, host: u64) -> Result<HostRun> {
                (**self).run_at(host)
            }
            fn will_need(&self, host: Range<u64>) {
                (**self).will_need(host);
            }
            fn allocated_bytes(&self) -> Result<u64> {
                (**self).allocated_bytes()
            }
            fn block_size(&self) -> u64 {
                (**self).block_size()
            }
            fn path(&self) -> Option<&Path> {
                (**self).path()
            }
            fn identity(&self) -> Option<FileId> {
                (**self).identity()
            }
            fn as_host_file(&self) -> Option<&HostFile> {
                (**self).as_host_file()
            }
        }

        impl<T: WriteAt + ?Sized> WriteAt for $pointer {
            fn write_all_at(&self, buf: &[u8], host: u64) -> Result<()> {
                (**self).write_all_at(buf, host)
            }
            fn set_len(&self, len: u64) -> Result<()> {
                (**self).set_len(len)
            }
            fn punch_hole(&self, host: Range<u64>) -> Result<()> {
                (**self).punch_hole(host)
            }
            fn deallocate(&self, host: Range<u64>) -> Result<bool> {
                (**self).deallocate(host)
            }
            fn can_deallocate(&self) -> Result<bool> {
                (**self).can_deallocate()
            }
            fn preallocate(&self, host: Range<u64>) -> Result<()> {
                (**self).preallocate(host)
            }
            fn sync(&self) -> Result<()> {
                (**self).sync()
            }
            fn copy_from(
                &self,
                from: &dyn ReadAt,
                from_host: u64,
                to_host: u64,
                len: u64,
            ) -> Result<u64> {
                (**self).copy_from(from, from_host, to_host, len)
            }
        }
    )+};
}

forward_through!(&T, Box<T>, Arc<T>);
