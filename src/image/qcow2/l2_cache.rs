//! A bounded cache of L2 tables, shared by all readers of one image.
//!
//! Knows tables by their host offset. Must not know what their entries mean.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, RwLock};

use byteorder::{BigEndian, ByteOrder};

use crate::error::Result;
use crate::store::ReadAt;

/// Bytes of tables kept at most, whatever the image's size.
const CAPACITY: usize = 24 << 20;

/// For an image deep in a chain, of which there may be hundreds.
const CAPACITY_DEEP: usize = 1 << 20;

/// The words of one L2 table, in host byte order.
pub(super) type Table = Arc<[u64]>;

/// Recently used L2 tables.
#[derive(Debug)]
pub(super) struct L2Cache {
    table_bytes: usize,
    capacity: usize,
    kept: RwLock<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    tables: HashMap<u64, Table>,
    // Oldest first: walks are sequential, so age is as good as use and needs no write lock on a hit.
    order: VecDeque<u64>,
}

impl L2Cache {
    /// For tables of `table_bytes` (one cluster).
    pub(super) fn new(table_bytes: usize) -> Self {
        Self {
            table_bytes,
            capacity: (CAPACITY / table_bytes).max(4),
            kept: RwLock::default(),
        }
    }

    /// Keeps only a few tables from now on.
    pub(super) fn keep_few(&mut self) {
        self.capacity = (CAPACITY_DEEP / self.table_bytes).max(4);
    }

    /// The table at host offset `host`, from memory or from `store`.
    pub(super) fn load(&self, store: &dyn ReadAt, host: u64) -> Result<Table> {
        if let Ok(kept) = self.kept.read()
            && let Some(table) = kept.tables.get(&host)
        {
            return Ok(Arc::clone(table));
        }
        let table = read_words(store, host, self.table_bytes)?;
        if let Ok(mut kept) = self.kept.write()
            && kept.tables.insert(host, Arc::clone(&table)).is_none()
        {
            kept.order.push_back(host);
            if kept.order.len() > self.capacity
                && let Some(oldest) = kept.order.pop_front()
            {
                kept.tables.remove(&oldest);
            }
        }
        Ok(table)
    }
}

/// Reads `bytes` bytes of big-endian words; what lies past the end of the file is zero.
pub(super) fn read_words(store: &dyn ReadAt, host: u64, bytes: usize) -> Result<Table> {
    let mut raw = vec![0; bytes];
    store.read_zero_filled(&mut raw, host)?;
    let mut words = vec![0; bytes / 8];
    BigEndian::read_u64_into(&raw[..words.len() * 8], &mut words);
    Ok(words.into())
}
