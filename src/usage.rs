//! How a disk's bytes are used: the numbers behind a picture of it.
//!
//! Joins the extents of an image with the survey of the disk in it. Knows no
//! colours and no widths: cells are numbers.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::extent::ExtentKind;
use crate::free::{FreeMap, FreeMapBuilder};
use crate::source::Source;
use crate::survey::Survey;

/// Cells at most.
pub const MOST_CELLS: usize = 1 << 16;

/// Bytes of a guest range, by what stands behind them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tally {
    /// Stored as they are, and in use as far as it is known.
    pub data: u64,
    /// Stored in compressed clusters, and in use as far as it is known.
    pub compressed: u64,
    /// Stored, though no filesystem uses them.
    pub free: u64,
    /// Not stored: they read as zeros, or are left to a backing file.
    pub zero: u64,
    /// Partition tables.
    pub metadata: u64,
}

impl Tally {
    /// All bytes.
    pub fn total(&self) -> u64 {
        self.data + self.compressed + self.free + self.zero + self.metadata
    }

    fn add(&mut self, class: Class, bytes: u64) {
        let counter = match class {
            Class::Data => &mut self.data,
            Class::Compressed => &mut self.compressed,
            Class::Free => &mut self.free,
            Class::Zero => &mut self.zero,
            Class::Metadata => &mut self.metadata,
        };
        *counter += bytes;
    }
}

#[derive(Clone, Copy)]
enum Class {
    Data,
    Compressed,
    Free,
    Zero,
    Metadata,
}

/// How a disk is used.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Usage {
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes of a cell; the last one may be shorter.
    pub cell_size: u64,
    /// Of the whole disk.
    pub total: Tally,
    /// Parts that lie on the disk in one run, and what is between them.
    pub regions: Vec<Region>,
    /// In guest order.
    pub cells: Vec<Tally>,
}

/// A run of the disk that belongs to one part, or to none.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Region {
    /// The part's name; none for what lies between parts.
    pub part: Option<String>,
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// What it holds.
    pub tally: Tally,
}

/// Counts the bytes of `source` in `cells` cells (at most [`MOST_CELLS`]).
///
/// # Errors
/// Metadata of the image that cannot be read; [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
pub fn usage(
    source: &dyn Source,
    survey: &Survey,
    cells: usize,
    cancel: &AtomicBool,
) -> Result<Usage> {
    let size = source.virtual_size();
    let count = u64::try_from(cells.clamp(1, MOST_CELLS)).unwrap_or(1);
    let cell_size = size.div_ceil(count).next_multiple_of(512).max(512);
    let mut metadata = FreeMapBuilder::new();
    for range in &survey.metadata {
        metadata.free(range.clone());
    }
    let mut counter = Counter {
        cell_size,
        cells: vec![Tally::default(); usize::try_from(size.div_ceil(cell_size)).unwrap_or(0)],
        regions: regions(survey, size),
        region: 0,
        total: Tally::default(),
    };
    let metadata = metadata.build();
    let mut at = 0;
    while at < size {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::cancelled());
        }
        let extent = source.extent_at(at..size)?;
        let stored = match extent.kind {
            ExtentKind::Data => Some(Class::Data),
            ExtentKind::Compressed(_) => Some(Class::Compressed),
            ExtentKind::Zero | ExtentKind::Unallocated => None,
        };
        while at < extent.end() {
            let (class, end) = classify(at, stored, &survey.free, &metadata);
            let end = end.min(extent.end());
            counter.count(at..end, class);
            at = end;
        }
    }
    Ok(Usage {
        size,
        cell_size,
        total: counter.total,
        regions: counter.regions,
        cells: counter.cells,
    })
}

/// What the byte at `at` is, and up to where all are alike.
fn classify(at: u64, stored: Option<Class>, free: &FreeMap, metadata: &FreeMap) -> (Class, u64) {
    let (is_metadata, table_end) = metadata.at(at);
    if is_metadata {
        return (Class::Metadata, table_end);
    }
    let Some(class) = stored else {
        return (Class::Zero, table_end);
    };
    let (is_free, free_end) = free.at(at);
    let class = if is_free { Class::Free } else { class };
    (class, table_end.min(free_end))
}

/// The disk from end to end, in runs of one part each.
fn regions(survey: &Survey, size: u64) -> Vec<Region> {
    let mut placed: Vec<(u64, u64, &str)> = survey
        .parts
        .iter()
        .filter_map(|part| Some((part.start?, part.size, part.name.as_str())))
        .collect();
    placed.sort_unstable_by_key(|&(start, ..)| start);
    let mut regions = Vec::new();
    let mut at = 0;
    let mut push = |part: Option<&str>, range: Range<u64>| {
        if range.start < range.end {
            regions.push(Region {
                part: part.map(ToOwned::to_owned),
                start: range.start,
                size: range.end - range.start,
                tally: Tally::default(),
            });
        }
    };
    for (start, length, name) in placed {
        // Parts of a damaged table may overlap: each byte is counted once.
        let start = start.clamp(at, size);
        let end = start.saturating_add(length).clamp(start, size);
        push(None, at..start);
        push(Some(name), start..end);
        at = end;
    }
    push(None, at..size);
    regions
}

struct Counter {
    cell_size: u64,
    cells: Vec<Tally>,
    regions: Vec<Region>,
    /// The region that counting has reached.
    region: usize,
    total: Tally,
}

impl Counter {
    fn count(&mut self, range: Range<u64>, class: Class) {
        self.total.add(class, range.end - range.start);
        let mut at = range.start;
        while at < range.end {
            let cell = at / self.cell_size;
            let end = range.end.min((cell + 1) * self.cell_size);
            if let Some(tally) = usize::try_from(cell)
                .ok()
                .and_then(|cell| self.cells.get_mut(cell))
            {
                tally.add(class, end - at);
            }
            at = end;
        }
        let mut at = range.start;
        while let Some(region) = self.regions.get_mut(self.region) {
            let end = range.end.min(region.start + region.size);
            if at < end {
                region.tally.add(class, end - at);
                at = end;
            }
            if at >= range.end {
                break;
            }
            self.region += 1;
        }
    }
}
