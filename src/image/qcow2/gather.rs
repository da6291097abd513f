//! Writes gathered: what follows each other on the host goes out at once.
//!
//! Knows host offsets and bytes. Must not know what they mean.

use std::ops::Range;

use byteorder::{BigEndian, ByteOrder};

use crate::error::Result;
use crate::store::WriteAt;

/// Bytes of tables gathered for one write.
const TABLE_BATCH: usize = 2 << 20;

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
    host: u64,
    bytes: Vec<u8>,
}

impl Batch {
    pub(super) fn new(cluster: usize) -> Self {
        Self {
            cluster,
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
        store.write_all_at(&self.bytes, self.host)?;
        self.bytes.clear();
        Ok(())
    }
}
