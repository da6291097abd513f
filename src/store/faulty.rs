//! A test double that fails on demand.
//!
//! Knows how host storage goes wrong. Must not know what is stored.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{FileId, HostRun, ReadAt, WriteAt};
use crate::error::{Error, Result};

/// What a store is asked to do, as far as [`Faulty`] counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`ReadAt::read_exact_at`], also through [`ReadAt::read_zero_filled`].
    Read,
    /// [`WriteAt::write_all_at`].
    Write,
    /// [`WriteAt::set_len`].
    SetLen,
    /// [`WriteAt::punch_hole`] and [`WriteAt::deallocate`].
    PunchHole,
    /// [`WriteAt::preallocate`].
    Preallocate,
    /// [`WriteAt::sync`].
    Sync,
    /// Any of the above that changes the store or syncs it: all but [`Operation::Read`].
    Change,
}

impl Operation {
    const COUNT: usize = 7;
}

/// How an operation goes wrong. Error numbers are those of errno(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing happens, and the operation fails with this error number.
    Fail(i32),
    /// A write stores this many of its bytes, then fails with this error number.
    /// Any other operation just fails.
    Short(usize, i32),
    /// Nothing happens, and the operation claims success.
    Lose,
    /// Nothing happens, in this operation and in every later one that [`Operation::Change`]
    /// counts; all fail with this error number. So a process looks to its files when it dies.
    Die(i32),
}

/// How many operations there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Reads, failed ones included.
    pub reads: u64,
    /// Bytes that the reads asked for.
    pub bytes_read: u64,
    /// Writes, failed ones included.
    pub writes: u64,
    /// Bytes that the writes asked for.
    pub bytes_written: u64,
    /// Syncs, failed and lost ones included.
    pub syncs: u64,
    /// All operations but reads.
    pub changes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Fault {
    on: Operation,
    nth: u64,
    effect: Effect,
}

/// A store that counts its operations and fails those it is told to.
///
/// It never copies inside the kernel, so that every byte is counted.
///
/// ```
/// use qimg::store::{Effect, Faulty, Memory, Operation, WriteAt};
///
/// const ENOSPC: i32 = 28;
/// let store = Faulty::new(Memory::new()).failing(Operation::Write, 1, Effect::Fail(ENOSPC));
/// assert!(store.write_all_at(b"first", 0).is_ok());
/// assert!(store.write_all_at(b"second", 5).is_err());
/// assert!(store.write_all_at(b"third", 5).is_ok());
/// assert_eq!(store.count().writes, 3);
/// ```
#[derive(Debug)]
pub struct Faulty<S> {
    inner: S,
    faults: Vec<Fault>,
    seen: [AtomicU64; Operation::COUNT],
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    dead: Mutex<Option<i32>>,
}

impl<S> Faulty<S> {
    /// Counts what is done to `inner`, and so far lets all of it succeed.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            faults: Vec::new(),
            seen: Default::default(),
            bytes_read: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            dead: Mutex::new(None),
        }
    }

    /// Lets the `nth` operation of a kind, counted from 0, go wrong.
    #[must_use]
    pub fn failing(mut self, on: Operation, nth: u64, effect: Effect) -> Self {
        self.faults.push(Fault { on, nth, effect });
        self
    }

    /// What was asked of the store so far.
    pub fn count(&self) -> Count {
        let seen = |operation| self.seen[operation as usize].load(Ordering::Relaxed);
        Count {
            reads: seen(Operation::Read),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            writes: seen(Operation::Write),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
            syncs: seen(Operation::Sync),
            changes: seen(Operation::Change),
        }
    }

    /// The store behind, which holds what did succeed.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Gives the store behind back.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// Counts one operation and tells what is to go wrong with it.
    fn note(&self, operation: Operation) -> Option<Effect> {
        let count = |kind| self.seen[kind as usize].fetch_add(1, Ordering::Relaxed);
        let own = count(operation);
        let change = (operation != Operation::Read).then(|| count(Operation::Change));

        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(errno), Some(_)) = (*dead, change) {
            return Some(Effect::Fail(errno));
        }
        let fault = self.faults.iter().find(|fault| {
            (fault.on == operation && fault.nth == own)
                || (fault.on == Operation::Change && change == Some(fault.nth))
        })?;
        if let Effect::Die(errno) = fault.effect {
            *dead = Some(errno);
        }
        Some(fault.effect)
    }
}

impl<S: ReadAt> Faulty<S> {
    /// Performs an operation, unless a fault says otherwise.
    fn perform(
        &self,
        operation: Operation,
        host: u64,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        match self.note(operation) {
            None => work(),
            Some(Effect::Lose) => Ok(()),
            Some(Effect::Fail(errno) | Effect::Die(errno) | Effect::Short(_, errno)) => {
                Err(self.error(operation, errno, host))
            }
        }
    }

    fn error(&self, operation: Operation, errno: i32, host: u64) -> Error {
        let doing = match operation {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::SetLen => "set the length",
            Operation::PunchHole => "punch a hole",
            Operation::Preallocate => "reserve space",
            Operation::Sync | Operation::Change => "sync",
        };
        let error = Error::io(doing, std::io::Error::from_raw_os_error(errno)).at_host(host);
        match self.inner.path() {
            Some(path) => error.at_path(path),
            None => error,
        }
    }
}

impl<S: ReadAt> ReadAt for Faulty<S> {
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], host: u64) -> Result<()> {
        let len = buf.len() as u64;
        self.bytes_read.fetch_add(len, Ordering::Relaxed);
        self.perform(Operation::Read, host, || {
            self.inner.read_exact_at(buf, host)
        })
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

impl<S: WriteAt> WriteAt for Faulty<S> {
    fn write_all_at(&self, buf: &[u8], host: u64) -> Result<()> {
        let len = buf.len() as u64;
        self.bytes_written.fetch_add(len, Ordering::Relaxed);
        match self.note(Operation::Write) {
            None => self.inner.write_all_at(buf, host),
            Some(Effect::Lose) => Ok(()),
            Some(Effect::Fail(errno) | Effect::Die(errno)) => {
                Err(self.error(Operation::Write, errno, host))
            }
            Some(Effect::Short(stored, errno)) => {
                let stored = stored.min(buf.len());
                self.inner.write_all_at(&buf[..stored], host)?;
                let stopped = host.saturating_add(stored as u64);
                Err(self.error(Operation::Write, errno, stopped))
            }
        }
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.perform(Operation::SetLen, len, || self.inner.set_len(len))
    }

    fn punch_hole(&self, host: Range<u64>) -> Result<()> {
        let start = host.start;
        self.perform(Operation::PunchHole, start, || self.inner.punch_hole(host))
    }

    fn deallocate(&self, host: Range<u64>) -> Result<bool> {
        let start = host.start;
        let mut done = true;
        self.perform(Operation::PunchHole, start, || {
            done = self.inner.deallocate(host)?;
            Ok(())
        })?;
        Ok(done)
    }

    fn can_deallocate(&self) -> Result<bool> {
        self.inner.can_deallocate()
    }

    fn preallocate(&self, host: Range<u64>) -> Result<()> {
        let start = host.start;
        self.perform(Operation::Preallocate, start, || {
            self.inner.preallocate(host)
        })
    }

    fn sync(&self) -> Result<()> {
        self.perform(Operation::Sync, 0, || self.inner.sync())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;

    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;

    fn errno(error: &Error) -> Option<i32> {
        let source = std::error::Error::source(error)?;
        source.downcast_ref::<std::io::Error>()?.raw_os_error()
    }

    #[test]
    fn the_nth_read_fails_with_its_errno_and_offset() {
        let inner = Memory::from(vec![7; 8]);
        let store = Faulty::new(inner).failing(Operation::Read, 1, Effect::Fail(EIO));
        let mut buf = [0; 2];
        store.read_exact_at(&mut buf, 0).unwrap();
        let error = store.read_zero_filled(&mut buf, 6).unwrap_err();
        assert_eq!((errno(&error), error.host_offset()), (Some(EIO), Some(6)));
        store.read_exact_at(&mut buf, 6).unwrap();
        assert_eq!((store.count().reads, store.count().bytes_read), (3, 6));
    }

    #[test]
    fn a_short_write_stores_its_beginning() {
        let effect = Effect::Short(2, ENOSPC);
        let store = Faulty::new(Memory::new()).failing(Operation::Write, 0, effect);
        let error = store.write_all_at(b"abcd", 4).unwrap_err();
        assert_eq!(
            (errno(&error), error.host_offset()),
            (Some(ENOSPC), Some(6))
        );
        assert_eq!(store.inner().to_vec(), b"\0\0\0\0ab");
    }

    #[test]
    fn a_lost_operation_claims_success() {
        let store = Faulty::new(Memory::from(vec![1; 4]))
            .failing(Operation::Sync, 0, Effect::Lose)
            .failing(Operation::PunchHole, 0, Effect::Lose);
        store.sync().unwrap();
        store.punch_hole(0..4).unwrap();
        assert_eq!(store.count().syncs, 1);
        assert_eq!(store.into_inner().to_vec(), [1; 4]);
    }

    #[test]
    fn the_dead_change_nothing_more_but_can_be_read() {
        let store = Faulty::new(Memory::new()).failing(Operation::Change, 2, Effect::Die(EIO));
        store.write_all_at(b"ab", 0).unwrap();
        store.set_len(3).unwrap();
        for _ in 0..2 {
            assert!(store.write_all_at(b"x", 0).is_err());
            assert!(store.preallocate(0..9).is_err());
            assert!(store.sync().is_err());
        }
        let mut buf = [0; 3];
        store.read_exact_at(&mut buf, 0).unwrap();
        assert_eq!(&buf, b"ab\0");
        assert_eq!(store.count().changes, 8);
    }
}
