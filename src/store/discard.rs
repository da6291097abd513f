//! A store that keeps nothing but its length: for finding out how long an output would become.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{ReadAt, WriteAt};
use crate::error::{Error, Result};

/// Takes writes and forgets them.
#[derive(Debug, Default)]
pub struct Discard {
    len: AtomicU64,
    written: AtomicU64,
}

impl ReadAt for Discard {
    fn len(&self) -> Result<u64> {
        Ok(self.len.load(Ordering::Relaxed))
    }

    /// Always fails: nothing was kept.
    fn read_exact_at(&self, _: &mut [u8], host: u64) -> Result<()> {
        Err(Error::usage("a discarded output cannot be read").at_host(host))
    }

    /// Bytes that were written.
    fn allocated_bytes(&self) -> Result<u64> {
        Ok(self.written.load(Ordering::Relaxed))
    }
}

impl WriteAt for Discard {
    fn write_all_at(&self, buf: &[u8], host: u64) -> Result<()> {
        let length = buf.len() as u64;
        self.len
            .fetch_max(host.saturating_add(length), Ordering::Relaxed);
        self.written.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.len.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn punch_hole(&self, _: std::ops::Range<u64>) -> Result<()> {
        Ok(())
    }

    fn deallocate(&self, _: std::ops::Range<u64>) -> Result<bool> {
        Ok(true)
    }

    fn preallocate(&self, host: std::ops::Range<u64>) -> Result<()> {
        self.len.fetch_max(host.end, Ordering::Relaxed);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}
