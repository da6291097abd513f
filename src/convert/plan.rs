//! Guest ranges cut into items of work, in guest order.
//!
//! Pure arithmetic over extents; reads metadata through the source, no data.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Options;
use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentKind};
use crate::source::Source;

/// Stored bytes in one item, rounded up to the unit.
const ITEM_BYTES: u64 = 1 << 20;
/// Extents in one item: bounds it for fragmented sources.
const ITEM_EXTENTS: usize = 4096;

/// One piece of work: a guest range and its extents, which cover it.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) range: Range<u64>,
    pub(super) extents: Vec<Extent>,
}

/// What is still to be done.
pub(super) struct Plan<'a> {
    source: &'a dyn Source,
    /// Items start at multiples of it: no cluster of either side is cut.
    unit: u64,
    at: u64,
    end: u64,
    number: u64,
    overlay: bool,
    /// Zeros are read and written like data.
    fills: bool,
    failed: bool,
}

impl<'a> Plan<'a> {
    pub(super) fn new(source: &'a dyn Source, target_cluster: u64, options: &Options<'_>) -> Self {
        Self {
            source,
            unit: source.cluster_size().max(target_cluster),
            at: 0,
            end: source.virtual_size(),
            number: 0,
            overlay: options.overlay,
            fills: options.sparse == 0,
            failed: false,
        }
    }

    /// The number of the next item, used up.
    pub(super) fn take_number(&mut self) -> u64 {
        let number = self.number;
        self.number += 1;
        number
    }

    /// The next item with its number; an error ends the plan.
    pub(super) fn next(&mut self) -> Option<(u64, Result<Item>)> {
        if self.failed || self.at >= self.end {
            return None;
        }
        let item = self.cut();
        self.failed = item.is_err();
        Some((self.take_number(), item))
    }

    fn cut(&mut self) -> Result<Item> {
        let start = self.at;
        let mut at = start;
        let mut limit = self.end;
        let mut room = ITEM_BYTES;
        let mut extents: Vec<Extent> = Vec::new();
        while at < limit {
            let mut extent = self.source.extent_at(at..limit)?;
            if self.is_work(&extent) {
                if extent.length >= room {
                    limit = self.unit_end(at + room.max(1)).min(limit);
                    extent = extent.clipped(limit);
                }
                room = room.saturating_sub(extent.length);
            }
            if extents.len() >= ITEM_EXTENTS {
                limit = self.unit_end(at).min(limit);
                extent = extent.clipped(limit);
                if at >= limit {
                    break;
                }
            }
            at = extent.end();
            extents.push(extent);
        }
        self.at = at;
        Ok(Item {
            range: start..at,
            extents,
        })
    }

    fn is_work(&self, extent: &Extent) -> bool {
        let filled = match extent.kind {
            ExtentKind::Zero => self.fills,
            ExtentKind::Unallocated => self.fills && !self.overlay,
            ExtentKind::Data | ExtentKind::Compressed(_) => true,
        };
        filled && !(self.overlay && extent.depth > 0)
    }

    fn unit_end(&self, at: u64) -> u64 {
        at.checked_next_multiple_of(self.unit).unwrap_or(u64::MAX)
    }
}

fn is_stored(kind: ExtentKind) -> bool {
    matches!(kind, ExtentKind::Data | ExtentKind::Compressed(_))
}

pub(super) fn stored_bytes(source: &dyn Source, cancel: &AtomicBool) -> Result<u64> {
    let end = source.virtual_size();
    let (mut at, mut stored) = (0, 0);
    while at < end {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::cancelled());
        }
        let extent = source.extent_at(at..end)?;
        if is_stored(extent.kind) {
            stored += extent.length;
        }
        at = extent.end();
    }
    Ok(stored)
}
