//! The file allocation table: one entry for each cluster, which names the next one of its file.
//!
//! Source: "FAT: General Overview of On-Disk Format" 1.03, chapter "FAT Data Structure".

use std::cell::RefCell;

use super::boot::{Boot, Kind};
use crate::error::{Error, ErrorKind, Result};
use crate::fields::Fields;
use crate::fs::Refusal;
use crate::volume::Volume;

/// Bytes of a table that are looked at together: whole entries of each width.
const WINDOW: u64 = 3 << 13;

/// What the table says of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Free,
    /// In a file, before this one.
    Next(u64),
    /// The last one of a file.
    Last,
    /// Not to be used.
    Bad,
    /// None of the values that the format knows, or a cluster that is not there.
    Impossible,
}

/// Refuses unless the tables agree, where they have to.
pub(super) fn require_equal(volume: &Volume<'_>, boot: &Boot) -> Result<(), Refusal> {
    if boot.active_table.is_some() {
        return Ok(());
    }
    let used = used_bytes(boot);
    for copy in 1..boot.tables {
        let mut at = 0;
        while at < used {
            let length = usize::try_from(WINDOW.min(used - at)).unwrap_or(0);
            let first = volume.read_vec(boot.tables_at + at, length)?;
            let second = volume.read_vec(boot.tables_at + copy * boot.table_size + at, length)?;
            if first != second {
                return Err(Refusal::damaged("fat has tables that differ"));
            }
            at += WINDOW;
        }
    }
    Ok(())
}

/// Gives all entries of the table that counts to `each`, masked, with their numbers: two, and one for each cluster.
pub(super) fn scan(
    volume: &Volume<'_>,
    boot: &Boot,
    each: &mut dyn FnMut(u64, u32) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut window = Window::default();
    for cluster in 0..boot.clusters + 2 {
        each(cluster, window.value(volume, boot, cluster)?)?;
    }
    Ok(())
}

/// Bytes of a table that have entries.
fn used_bytes(boot: &Boot) -> u64 {
    // The boot sector was checked: the table is no shorter.
    ((boot.clusters + 2) * boot.kind.bits()).div_ceil(8)
}

/// The part of the table that was looked at last.
#[derive(Debug, Default)]
pub(super) struct Window {
    at: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// The entry of a cluster that there is.
    fn value(&mut self, volume: &Volume<'_>, boot: &Boot, cluster: u64) -> Result<u32> {
        let bit = cluster * boot.kind.bits();
        let at = bit / 8 / WINDOW * WINDOW;
        if self.bytes.is_empty() || self.at != at {
            let table = boot.tables_at + boot.active_table.unwrap_or(0) * boot.table_size;
            let length = WINDOW.min(used_bytes(boot).saturating_sub(at));
            self.bytes = volume.read_vec(table + at, usize::try_from(length).unwrap_or(0))?;
            self.at = at;
        }
        let place = usize::try_from(bit / 8 - at).unwrap_or(usize::MAX);
        let fields = Fields(&self.bytes);
        let value = match boot.kind {
            // Two entries share three bytes.
            Kind::Fat12 => u32::from(fields.le16(place) >> (bit % 8)),
            Kind::Fat16 => u32::from(fields.le16(place)),
            Kind::Fat32 => fields.le32(place),
        };
        Ok(value & boot.kind.mask())
    }
}

/// The table, to follow chains of clusters in.
#[derive(Debug, Default)]
pub(super) struct Table {
    window: RefCell<Window>,
}

impl Table {
    /// The cluster behind `cluster`, if that is not the last one of its file.
    fn next(&self, volume: &Volume<'_>, boot: &Boot, cluster: u64) -> Result<Option<u64>> {
        let corrupt = |what: &str| {
            let message = format!("fat cluster {cluster} {what}");
            Err(Error::new(ErrorKind::Corrupt, message))
        };
        if !boot.has(cluster) {
            return corrupt("is not there");
        }
        let value = self.window.borrow_mut().value(volume, boot, cluster)?;
        match boot.entry(value) {
            Entry::Next(next) => Ok(Some(next)),
            Entry::Last => Ok(None),
            Entry::Free => corrupt("is of a file, and free"),
            Entry::Bad => corrupt("is of a file, and bad"),
            Entry::Impossible => corrupt("is followed by one that is not there"),
        }
    }
}

/// The clusters of a file, from the first on.
#[derive(Debug)]
pub(super) struct Chain {
    cluster: Option<u64>,
    /// Brent's way to see a circle: a cluster that was passed, how many more until another is remembered, and how many
    /// that were the last time.
    passed: u64,
    left: u64,
    lap: u64,
}

impl Chain {
    pub(super) fn new(first: u64) -> Self {
        Self {
            cluster: Some(first),
            passed: 0,
            left: 1,
            lap: 1,
        }
    }

    /// The next cluster, which is one that there is; an error where the chain leads back into itself.
    pub(super) fn step(
        &mut self,
        volume: &Volume<'_>,
        boot: &Boot,
        table: &Table,
    ) -> Result<Option<u64>> {
        let Some(cluster) = self.cluster else {
            return Ok(None);
        };
        if cluster == self.passed {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("fat cluster {cluster} follows itself"),
            ));
        }
        self.left -= 1;
        if self.left == 0 {
            self.passed = cluster;
            self.lap = self.lap.saturating_mul(2);
            self.left = self.lap;
        }
        self.cluster = table.next(volume, boot, cluster)?;
        Ok(Some(cluster))
    }
}
