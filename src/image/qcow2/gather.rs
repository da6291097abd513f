//! Writes gathered: what follows each other on the host goes out at once.
//!
//! Knows host offsets and bytes. Must not know what they mean.

use std::ops::Range;

use byteorder::{BigEndian, ByteOrder};

use crate::error::Result;
use crate::store::WriteAt;
use crate::zero::nonzero_runs;

/// Bytes of tables gathered for one write.
const TABLE_BATCH: usize = 2 << 20;
/// Zeros of this length in a table are left to a hole: what file systems allocate at once.
const BLOCK: usize = 4096;

/// Streams that follow each other both in the arena and on the host, gathered for one write.
#[derive(Default)]
pub(super) struct Pending {
    arena: Range<usize>,
    host: u64,
}

impl Pending {
    pub(super) fn push(
        &mut self,
        store: &dyn WriteAt,
        arena: &[u8],
        start: usize,
        length: usize,
        host: u64,
    ) -> Result<()> {
        let follows = self.arena.end == start && self.host + self.arena.len() as u64 == host;
        if !follows {
            self.flush(store, arena)?;
            (self.arena, self.host) = (start..start, host);
        }
        self.arena.end += length;
        Ok(())
    }

    pub(super) fn flush(&mut self, store: &dyn WriteAt, arena: &[u8]) -> Result<()> {
        let range = std::mem::take(&mut self.arena);
        store.write_all_at(&arena[range], self.host)
    }
}

/// Clusters of metadata that follow each other on the host, gathered for one write.
pub(super) struct Batch {
    cluster: usize,
    fresh: bool,
    host: u64,
    bytes: Vec<u8>,
}

impl Batch {
    /// `fresh` says that the store reads as zeros where nothing was written.
    pub(super) fn new(cluster: usize, fresh: bool) -> Self {
        Self {
            cluster,
            fresh,
            host: 0,
            bytes: Vec::new(),
        }
    }

    /// A zeroed cluster at `host`, to be filled.
    pub(super) fn push(&mut self, store: &dyn WriteAt, host: u64) -> Result<&mut [u8]> {
        if self.host + self.bytes.len() as u64 != host || self.bytes.len() >= TABLE_BATCH {
            self.flush(store)?;
            self.host = host;
        }
        let start = self.bytes.len();
        self.bytes.resize(start + self.cluster, 0);
        Ok(&mut self.bytes[start..])
    }

    pub(super) fn push_words(
        &mut self,
        store: &dyn WriteAt,
        host: u64,
        words: &[u64],
    ) -> Result<()> {
        BigEndian::write_u64_into(words, self.push(store, host)?);
        Ok(())
    }

    pub(super) fn flush(&mut self, store: &dyn WriteAt) -> Result<()> {
        write_table(store, &self.bytes, self.host, self.fresh)?;
        self.bytes.clear();
        Ok(())
    }
}

/// Writes a table, of which `fresh` stores need only what is not zero: with large clusters, little.
pub(super) fn write_table(store: &dyn WriteAt, bytes: &[u8], host: u64, fresh: bool) -> Result<()> {
    if !fresh {
        return store.write_all_at(bytes, host);
    }
    for run in nonzero_runs(bytes, BLOCK) {
        store.write_all_at(&bytes[run.clone()], host + run.start as u64)?;
    }
    Ok(())
}
