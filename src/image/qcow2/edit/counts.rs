//! Reference counts of an image that takes on new clusters.
//!
//! New clusters come from behind the end of the file alone, so that nothing a crash leaves behind is in the way of what
//! is there. Knows the refcount table and its blocks; must not know what clusters hold.

use std::collections::{BTreeMap, BTreeSet};

use super::SECTOR;
use crate::error::{Error, Result};
use crate::image::qcow2::Qcow2File;
use crate::image::qcow2::check::BLOCK_MASK;
use crate::image::qcow2::format::header::MAX_REFCOUNT_TABLE_BYTES;
use crate::image::qcow2::l2_cache::read_words;
use crate::store::WriteAt;

/// Where the refcount table is in the header: its offset, then its clusters.
const TABLE_AT: usize = 48;

/// The counts of one image that nobody else writes.
#[derive(Debug)]
pub(super) struct Counts<'a> {
    file: &'a Qcow2File,
    store: &'a dyn WriteAt,
    /// Entries of the refcount table, as far as it reaches.
    table: Vec<u64>,
    /// Where the table is, and how many clusters it has.
    place: (u64, u64),
    /// The place that it had before, when it has a new one.
    old_place: Option<(u64, u64)>,
    /// Blocks that were looked at, by their index.
    blocks: BTreeMap<u64, Vec<u8>>,
    changed: BTreeSet<u64>,
    /// Blocks that the table on the host does not know yet.
    new_blocks: BTreeSet<u64>,
    next: u64,
    /// Clusters that are used and not counted yet.
    pending: Vec<u64>,
}

impl<'a> Counts<'a> {
    pub(super) fn new(file: &'a Qcow2File, store: &'a dyn WriteAt) -> Result<Self> {
        let header = &file.header;
        let bits = header.cluster_bits;
        let clusters = u64::from(header.refcount_table_clusters);
        let bytes = usize::try_from(clusters << bits.bits()).unwrap_or(0);
        let table = read_words(store, header.refcount_table_offset, bytes)?;
        Ok(Self {
            file,
            store,
            table: table.to_vec(),
            place: (header.refcount_table_offset, clusters),
            old_place: None,
            blocks: BTreeMap::new(),
            changed: BTreeSet::new(),
            new_blocks: BTreeSet::new(),
            next: bits.clusters_for(store.len()?.max(file.file_length)),
            pending: Vec::new(),
        })
    }

    fn per_block(&self) -> u64 {
        let header = &self.file.header;
        header.refcount_order.entries_per_block(header.cluster_bits)
    }

    fn cluster_bits(&self) -> u32 {
        self.file.header.cluster_bits.bits()
    }

    /// Host offset of `count` new clusters in one run.
    pub(super) fn allocate(&mut self, count: u64) -> Result<u64> {
        let first = loop {
            let first = self.next;
            let mut run = first..first.saturating_add(count);
            // What is counted behind the end of the file is leaked, or preallocated by somebody.
            let mut taken = None;
            for cluster in run.by_ref() {
                if self.stored(cluster)? > 0 {
                    taken = Some(cluster);
                }
            }
            match taken {
                None => break first,
                Some(cluster) => self.next = cluster + 1,
            }
        };
        self.next = first + count;
        // As many as QEMU counts.
        if self.next > i32::MAX as u64 {
            return Err(Error::unsupported("the image would have too many clusters"));
        }
        self.pending.extend(first..self.next);
        Ok(first << self.cluster_bits())
    }

    /// What is counted for a cluster.
    pub(super) fn stored(&mut self, cluster: u64) -> Result<u64> {
        let (number, index) = (cluster / self.per_block(), cluster % self.per_block());
        let order = self.file.header.refcount_order;
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let block = self.block(number)?;
        Ok(block
            .and_then(|block| order.load(block, index))
            .unwrap_or(0))
    }

    /// The block with a number, if there is one.
    fn block(&mut self, number: u64) -> Result<Option<&mut Vec<u8>>> {
        if !self.blocks.contains_key(&number) {
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            let host = self.table.get(index).copied().unwrap_or(0) & BLOCK_MASK;
            if host == 0 {
                return Ok(None);
            }
            let mut block = vec![0; self.file.header.cluster_bits.len()];
            self.store.read_zero_filled(&mut block, host)?;
            self.blocks.insert(number, block);
        }
        Ok(self.blocks.get_mut(&number))
    }

    /// Counts all new clusters, and what counting them takes.
    fn settle(&mut self) -> Result<()> {
        while let Some(cluster) = self.pending.pop() {
            let number = cluster / self.per_block();
            self.require_block(number)?;
            self.change(cluster, 1)?;
        }
        Ok(())
    }

    /// Sees to it that there is a block with a number, and a place for it in the table.
    fn require_block(&mut self, number: u64) -> Result<()> {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        if index >= self.table.len() {
            self.move_table(number)?;
        }
        let known = self.table.get(index).copied().unwrap_or(0) & BLOCK_MASK;
        if known != 0 {
            return Ok(());
        }
        let host = self.allocate_uncounted(1);
        if let Some(entry) = self.table.get_mut(index) {
            *entry = host;
        }
        self.blocks
            .insert(number, vec![0; self.file.header.cluster_bits.len()]);
        self.new_blocks.insert(number);
        self.changed.insert(number);
        Ok(())
    }

    fn allocate_uncounted(&mut self, count: u64) -> u64 {
        let first = self.next;
        self.next += count;
        self.pending.extend(first..self.next);
        first << self.cluster_bits()
    }

    /// Gives the table a new place, in which a block with this number has an entry.
    fn move_table(&mut self, number: u64) -> Result<()> {
        let per_cluster = self.file.header.cluster_bits.size() / 8;
        // Half as much again, so that this does not come often.
        let clusters = (number + number / 2).div_ceil(per_cluster) + 1;
        if clusters << self.cluster_bits() > MAX_REFCOUNT_TABLE_BYTES {
            return Err(Error::unsupported(
                "the image would need a larger refcount table than there may be",
            ));
        }
        let host = self.allocate_uncounted(clusters);
        self.old_place.get_or_insert(self.place);
        self.place = (host, clusters);
        let entries = usize::try_from(clusters * per_cluster).unwrap_or(0);
        self.table.resize(entries, 0);
        Ok(())
    }

    fn change(&mut self, cluster: u64, count: u64) -> Result<()> {
        let (number, index) = (cluster / self.per_block(), cluster % self.per_block());
        let order = self.file.header.refcount_order;
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let stored = self
            .block(number)?
            .and_then(|block| order.store(block, index, count));
        if stored.is_none() {
            return Err(Error::unsupported("a reference count does not fit"));
        }
        self.changed.insert(number);
        Ok(())
    }

    /// Takes one reference away from a cluster.
    pub(super) fn release(&mut self, cluster: u64) -> Result<()> {
        let count = self.stored(cluster)?;
        match count.checked_sub(1) {
            Some(left) => self.change(cluster, left),
            None => Ok(()),
        }
    }

    /// Writes the counts of all new clusters: when this returns they are stored for good, and may be referred to.
    pub(super) fn write(&mut self) -> Result<()> {
        self.settle()?;
        self.write_blocks()?;
        self.store.sync()?;
        if self.new_blocks.is_empty() && self.old_place.is_none() {
            return Ok(());
        }
        let bytes: Vec<u8> = self
            .table
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect();
        if let Some(old) = self.old_place.take() {
            self.store.write_all_at(&bytes, self.place.0)?;
            self.store.sync()?;
            let clusters = u32::try_from(self.place.1).unwrap_or(u32::MAX);
            super::patch_header(
                self.store,
                &[
                    (TABLE_AT, &self.place.0.to_be_bytes()),
                    (TABLE_AT + 8, &clusters.to_be_bytes()),
                ],
            )?;
            self.store.sync()?;
            let first = old.0 >> self.cluster_bits();
            for cluster in first..first + old.1 {
                self.release(cluster)?;
            }
            self.write_blocks()?;
        } else {
            // A block is counted by itself or one behind it, which the table must know before.
            let sectors: BTreeSet<u64> = self
                .new_blocks
                .iter()
                .map(|number| number * 8 / SECTOR as u64)
                .collect();
            for sector in sectors.into_iter().rev() {
                let at = usize::try_from(sector).unwrap_or(0) * SECTOR;
                if let Some(entries) = bytes.get(at..at + SECTOR) {
                    self.store.write_all_at(entries, self.place.0 + at as u64)?;
                    self.store.sync()?;
                }
            }
        }
        self.new_blocks.clear();
        self.store.sync()
    }

    /// Writes blocks that have changed, whole: what has not changed in them stays what it is.
    pub(super) fn write_blocks(&mut self) -> Result<()> {
        for number in std::mem::take(&mut self.changed) {
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            let host = self.table.get(index).copied().unwrap_or(0) & BLOCK_MASK;
            if let (Some(block), 1..) = (self.blocks.get(&number), host) {
                self.store.write_all_at(block, host)?;
            }
        }
        Ok(())
    }
}
