//! A test double that remembers every change, so that a crash can be played
//! again at each of them.
//!
//! Knows the order of changes and syncs. Must not know what is stored.

use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::{FileId, HostRun, ReadAt, WriteAt};
use crate::error::Result;

/// One change to a store, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// [`WriteAt::write_all_at`]: host offset and bytes.
    Write(u64, Vec<u8>),
    /// [`WriteAt::set_len`].
    SetLen(u64),
    /// [`WriteAt::punch_hole`] and [`WriteAt::deallocate`].
    PunchHole(Range<u64>),
    /// [`WriteAt::preallocate`].
    Preallocate(Range<u64>),
    /// [`WriteAt::sync`]: everything before it survives a power loss, and nothing after it did without it.
    Sync,
}

impl Change {
    /// Does to `store` what was done then.
    ///
    /// # Errors
    /// As the method of [`WriteAt`] concerned.
    pub fn replay(&self, store: &dyn WriteAt) -> Result<()> {
        match self {
            Self::Write(host, bytes) => store.write_all_at(bytes, *host),
            Self::SetLen(len) => store.set_len(*len),
            Self::PunchHole(host) => store.punch_hole(host.clone()),
            Self::Preallocate(host) => store.preallocate(host.clone()),
            Self::Sync => Ok(()),
        }
    }
}

/// A store that lets everything through and keeps a record of all changes that succeeded.
///
/// It never copies inside the kernel, so that no change escapes it.
///
/// ```
/// use qimg::store::{Change, Memory, Recorder, WriteAt};
///
/// let store = Recorder::new(Memory::new());
/// store.write_all_at(b"bytes", 0)?;
/// store.sync()?;
/// assert_eq!(store.changes(), [Change::Write(0, b"bytes".to_vec()), Change::Sync]);
/// # Ok::<(), qimg::Error>(())
/// ```
#[derive(Debug)]
pub struct Recorder<S> {
    inner: S,
    changes: Mutex<Vec<Change>>,
}

impl<S> Recorder<S> {
    /// Records what is done to `inner` from now on.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            changes: Mutex::default(),
        }
    }

    /// All changes so far, in the order in which they ended.
    pub fn changes(&self) -> Vec<Change> {
        self.changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The store behind.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn note<T>(&self, result: Result<T>, change: Change) -> Result<T> {
        if result.is_ok() {
            self.changes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(change);
        }
        result
    }
}

impl<S: ReadAt> ReadAt for Recorder<S> {
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], host: u64) -> Result<()> {
        self.inner.read_exact_at(buf, host)
    }

    fn run_at(&self, host: u64) -> Result<HostRun> {
        self.inner.run_at(host)
    }

    fn will_need(&self, host: Range<u64>) {
        self.inner.will_need(host);
    }

    fn allocated_bytes(&self) -> Result<u64> {
        self.inner.allocated_bytes()
    }

    fn block_size(&self) -> u64 {
        self.inner.block_size()
    }

    fn path(&self) -> Option<&Path> {
        self.inner.path()
    }

    fn identity(&self) -> Option<FileId> {
        self.inner.identity()
    }
}

impl<S: WriteAt> WriteAt for Recorder<S> {
    fn write_all_at(&self, buf: &[u8], host: u64) -> Result<()> {
        let change = Change::Write(host, buf.to_vec());
        self.note(self.inner.write_all_at(buf, host), change)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.note(self.inner.set_len(len), Change::SetLen(len))
    }

    fn punch_hole(&self, host: Range<u64>) -> Result<()> {
        let change = Change::PunchHole(host.clone());
        self.note(self.inner.punch_hole(host), change)
    }

    fn deallocate(&self, host: Range<u64>) -> Result<bool> {
        let change = Change::PunchHole(host.clone());
        match self.inner.deallocate(host) {
            Ok(true) => self.note(Ok(true), change),
            other => other,
        }
    }

    fn can_deallocate(&self) -> Result<bool> {
        self.inner.can_deallocate()
    }

    fn preallocate(&self, host: Range<u64>) -> Result<()> {
        let change = Change::Preallocate(host.clone());
        self.note(self.inner.preallocate(host), change)
    }

    fn sync(&self) -> Result<()> {
        self.note(self.inner.sync(), Change::Sync)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;

    #[test]
    fn what_was_recorded_leads_to_the_same_bytes() {
        let store = Recorder::new(Memory::new());
        store.write_all_at(b"abcdef", 2).unwrap();
        assert!(store.deallocate(3..5).unwrap());
        store.sync().unwrap();
        store.set_len(7).unwrap();
        store.preallocate(0..9).unwrap();
        let again = Memory::new();
        for change in store.changes() {
            change.replay(&again).unwrap();
        }
        assert_eq!(again.to_vec(), store.inner().to_vec());
        assert_eq!(again.to_vec(), b"\0\0a\0\0de\0\0");
    }
}
