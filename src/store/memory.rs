//! A store in memory, for tests, fuzzing and doc examples.
//!
//! Knows only its bytes. Must not know files: it has no path, no identity and no holes.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{ReadAt, WriteAt};
use crate::error::{Error, ErrorKind, Result};

/// Bytes in memory behind [`ReadAt`] and [`WriteAt`]; a clone shares them.
///
/// ```
/// use qimg::store::{Memory, ReadAt, WriteAt};
///
/// let store = Memory::new();
/// store.write_all_at(b"QFI\xfb", 0)?;
/// let mut magic = [0; 4];
/// store.read_exact_at(&mut magic, 0)?;
/// assert_eq!(&magic, b"QFI\xfb");
/// # Ok::<(), qimg::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<RwLock<Vec<u8>>>);

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes().clone()
    }

    // A panic while the lock is held leaves bytes, never an invalid state.
    fn bytes(&self) -> RwLockReadGuard<'_, Vec<u8>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes_mut(&self) -> RwLockWriteGuard<'_, Vec<u8>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Vec<u8>> for Memory {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(RwLock::new(bytes)))
    }
}

impl ReadAt for Memory {
    fn len(&self) -> Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], host: u64) -> Result<()> {
        let bytes = self.bytes();
        let stored = usize::try_from(host)
            .ok()
            .and_then(|start| bytes.get(start..start.checked_add(buf.len())?));
        match stored {
            Some(stored) => {
                buf.copy_from_slice(stored);
                Ok(())
            }
            None => Err(Error::io(
                format_args!("read {} bytes", buf.len()),
                std::io::ErrorKind::UnexpectedEof.into(),
            )
            .at_host(host)),
        }
    }
}

impl WriteAt for Memory {
    fn write_all_at(&self, buf: &[u8], host: u64) -> Result<()> {
        let range = range_in_memory(host, buf.len() as u64)?;
        let mut bytes = self.bytes_mut();
        if buf.is_empty() {
            return Ok(());
        }
        if bytes.len() < range.end {
            bytes.resize(range.end, 0);
        }
        bytes[range].copy_from_slice(buf);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let range = range_in_memory(0, len)?;
        self.bytes_mut().resize(range.end, 0);
        Ok(())
    }

    fn punch_hole(&self, host: Range<u64>) -> Result<()> {
        let mut bytes = self.bytes_mut();
        let inside = |host| usize::try_from(host).map_or(bytes.len(), |at| bytes.len().min(at));
        let range = inside(host.start)..inside(host.end);
        if !range.is_empty() {
            bytes[range].fill(0);
        }
        Ok(())
    }

    fn deallocate(&self, host: Range<u64>) -> Result<bool> {
        self.punch_hole(host).map(|()| true)
    }

    fn preallocate(&self, host: Range<u64>) -> Result<()> {
        let range = range_in_memory(0, host.end)?;
        let mut bytes = self.bytes_mut();
        if !host.is_empty() && bytes.len() < range.end {
            bytes.resize(range.end, 0);
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

/// A range as indices, if a `Vec` can be that long.
fn range_in_memory(host: u64, len: u64) -> Result<Range<usize>> {
    let end = host
        .checked_add(len)
        .and_then(|end| usize::try_from(end).ok())
        .filter(|end| isize::try_from(*end).is_ok());
    match (usize::try_from(host), end) {
        (Ok(start), Some(end)) => Ok(start..end),
        _ => Err(Error::new(ErrorKind::Unsupported, "more than memory can hold").at_host(host)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{HostRun, RunKind};

    #[test]
    fn writes_extend_with_zeros_and_clones_share() {
        let store = Memory::new();
        let clone = store.clone();
        store.write_all_at(b"ab", 3).unwrap();
        assert_eq!(clone.to_vec(), b"\0\0\0ab");
        clone.set_len(4).unwrap();
        assert_eq!(store.len().unwrap(), 4);
    }

    #[test]
    fn a_short_store_is_an_error_or_zeros_as_asked() {
        let store = Memory::from(b"abc".to_vec());
        let mut buf = [9; 4];
        let error = store.read_exact_at(&mut buf, 1).unwrap_err();
        assert_eq!(error.host_offset(), Some(1));
        assert!(store.read_exact_at(&mut buf, u64::MAX).is_err());
        store.read_zero_filled(&mut buf, 1).unwrap();
        assert_eq!(&buf, b"bc\0\0");
        store.read_zero_filled(&mut buf, 10).unwrap();
        assert_eq!(buf, [0; 4]);
    }

    #[test]
    fn a_punched_hole_is_zero_and_keeps_the_length() {
        let store = Memory::from(b"abcdef".to_vec());
        store.punch_hole(1..3).unwrap();
        store.punch_hole(5..100).unwrap();
        store.punch_hole(7..9).unwrap();
        assert_eq!(store.to_vec(), b"a\0\0de\0");
    }

    #[test]
    fn everything_is_data_up_to_the_end() {
        let store = Memory::from(vec![0; 10]);
        let run = |kind| HostRun { kind, end: 10 };
        assert_eq!(store.run_at(4).unwrap(), run(RunKind::Data));
        assert_eq!(store.run_at(10).unwrap(), run(RunKind::Hole));
        assert_eq!(store.allocated_bytes().unwrap(), 10);
        assert!(store.identity().is_none() && store.path().is_none());
    }

    #[test]
    fn lengths_beyond_memory_are_refused() {
        let store = Memory::new();
        assert!(store.set_len(u64::MAX).is_err());
        assert!(store.write_all_at(b"a", u64::MAX).is_err());
        assert!(store.preallocate(0..u64::MAX).is_err());
    }
}
