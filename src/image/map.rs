//! Where guest ranges are stored: the view of a chain that
//! `qemu-img map --output=json` gives, entry for entry.
//!
//! Knows chains, layers and the holes of host files. Reads metadata alone,
//! and holds a bounded part of it: entries are given away one by one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::backing::{Chain, Layer};
use super::qcow2::Qcow2File;
use crate::error::Result;
use crate::extent::{Extent, ExtentKind};
use crate::source::Source;
use crate::store::{ReadAt, RunKind};

/// Runs of a host file that are remembered at most.
const MAX_RUNS: usize = 4096;

/// A guest range whose bytes are stored in one way.
///
/// Serialises to the object that `qemu-img map --output=json` prints for it. `data` and `zero` together: a cluster is
/// allocated, and its host space is a hole that reads as zeros.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MapEntry {
    /// First guest byte.
    pub start: u64,
    /// Length in bytes; 0 only in the one entry of an empty range.
    pub length: u64,
    /// Which image of the chain answers: 0 is the image itself.
    pub depth: u32,
    /// That image has an entry for the range, if only one that says it is zero.
    pub present: bool,
    /// Reads as zeros.
    pub zero: bool,
    /// Bytes are stored for it.
    pub data: bool,
    /// They are stored in compressed clusters, whose place is not told.
    pub compressed: bool,
    /// Where `start` is stored in [`MapEntry::file`], in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The host file that the range is stored in, or would be; JSON leaves it out.
    #[serde(skip)]
    pub file: Option<Arc<Path>>,
}

impl MapEntry {
    /// Appends `next`, which starts where this entry ends, when it is of the same kind and follows in the file.
    fn absorb(&mut self, next: &Self) -> bool {
        let same = self.length > 0
            && self.zero == next.zero
            && self.data == next.data
            && self.present == next.present
            && self.compressed == next.compressed
            && self.depth == next.depth
            && self.file == next.file
            && self.offset.and_then(|at| at.checked_add(self.length)) == next.offset;
        if same {
            self.length += next.length;
        }
        same
    }
}

/// Calls `each` with the entries of `range` in guest order; what exceeds the virtual disk is cut off.
///
/// An empty range has one entry of length 0, as in qemu-img. In a chain whose backing file is not open, what is left
/// to that file is neither present, zero nor data.
///
/// # Errors
/// Metadata that cannot be read or contradicts its format; a data cluster behind the end of its file; what `each`
/// returns, which ends the walk.
pub fn map(
    chain: &Chain,
    range: Range<u64>,
    each: &mut dyn FnMut(MapEntry) -> Result<()>,
) -> Result<()> {
    let end = range.end.min(chain.virtual_size());
    let mut walk = Walk::new(chain)?;
    let mut current = MapEntry {
        start: range.start,
        length: 0,
        depth: 0,
        present: false,
        zero: false,
        data: false,
        compressed: false,
        offset: None,
        file: None,
    };
    let mut at = range.start;
    while at < end {
        let next = walk.entry_at(at..end)?;
        at += next.length;
        if current.absorb(&next) {
            continue;
        }
        if current.length > 0 {
            each(current)?;
        }
        current = next;
    }
    each(current)
}

/// A chain, and what was learnt about its files on the way.
struct Walk<'a> {
    layers: Vec<LayerWalk<'a>>,
    is_partial: bool,
}

struct LayerWalk<'a> {
    layer: &'a Layer,
    /// The file in which `layer` keeps guest data.
    holes: HoleMap<'a>,
    path: Option<Arc<Path>>,
    /// Host offsets mean something: nothing is encrypted.
    tells_offsets: bool,
    /// Data clusters may be holes of the file.
    looks_for_holes: bool,
}

impl<'a> Walk<'a> {
    fn new(chain: &'a Chain) -> Result<Self> {
        let layers = chain.layers().iter().map(LayerWalk::new);
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
            is_partial: chain.is_partial(),
        })
    }

    /// The entry that starts at `range.start`, which need not reach as far as it could.
    fn entry_at(&mut self, range: Range<u64>) -> Result<MapEntry> {
        let Range { start, mut end } = range;
        let last = self.layers.len() - 1;
        let mut depth = 0;
        loop {
            let below = self.layers.get(depth + 1).map(LayerWalk::virtual_size);
            let layer = &mut self.layers[depth];
            let mut entry = layer.entry_at(start..end.min(layer.virtual_size()))?;
            entry.depth = u32::try_from(depth).unwrap_or(u32::MAX);
            if entry.present {
                return Ok(entry);
            }
            // Nothing behind it, or a backing file that is too short.
            entry.zero = match below {
                None => !self.is_partial,
                Some(size) => start >= size,
            };
            if entry.zero || depth == last {
                return Ok(entry);
            }
            end = start + entry.length;
            depth += 1;
        }
    }
}

impl<'a> LayerWalk<'a> {
    fn new(layer: &'a Layer) -> Result<Self> {
        let (store, tells_offsets, looks_for_holes) = match layer {
            Layer::Raw(layer) => (layer.store(), true, true),
            Layer::Qcow2(layer) => {
                let file = Qcow2File::open(Arc::clone(layer.store()))?;
                // Without its blocks the question is moot, and QEMU does not look for holes.
                let unwritten = file.counts_unwritten_clusters().unwrap_or(false);
                (layer.data_store(), !layer.is_encrypted(), unwritten)
            }
        };
        Ok(Self {
            layer,
            holes: HoleMap::new(&**store)?,
            path: store.path().map(Arc::from),
            tells_offsets,
            looks_for_holes: looks_for_holes && tells_offsets,
        })
    }

    fn virtual_size(&self) -> u64 {
        self.layer.virtual_size()
    }

    /// What this layer says about the start of `range`; not present is what it leaves to a backing file.
    fn entry_at(&mut self, range: Range<u64>) -> Result<MapEntry> {
        let extent = match self.layer {
            // The last sector of a raw file may be in part data, in part behind the end of the file.
            Layer::Raw(_) => {
                let (kind, length) = self.holes.run_at(range.start, range.end - range.start)?;
                return Ok(MapEntry {
                    start: range.start,
                    length,
                    depth: 0,
                    present: true,
                    zero: kind == RunKind::Hole,
                    data: kind == RunKind::Data,
                    compressed: false,
                    offset: Some(range.start),
                    file: self.path.clone(),
                });
            }
            Layer::Qcow2(layer) => layer.extent_at(range)?,
        };
        let mut entry = self.entry_of(&extent);
        if let (ExtentKind::Data, Some(host), true) =
            (extent.kind, entry.offset, self.looks_for_holes)
        {
            let (kind, length) = self.holes.run_at(host, extent.length)?;
            entry.zero = kind == RunKind::Hole;
            entry.length = length;
        }
        Ok(entry)
    }

    fn entry_of(&self, extent: &Extent) -> MapEntry {
        let offset = extent.host.filter(|_| self.tells_offsets);
        let compressed = matches!(extent.kind, ExtentKind::Compressed(_));
        MapEntry {
            start: extent.start,
            length: extent.length,
            depth: 0,
            present: extent.kind != ExtentKind::Unallocated,
            zero: extent.kind == ExtentKind::Zero,
            data: compressed || extent.kind == ExtentKind::Data,
            compressed,
            offset,
            file: offset.and(self.path.clone()),
        }
    }
}

/// The holes of one host file, as far as they were asked for.
///
/// Guest order is not host order: without a memory one large hole would cost a system call for each of its pieces.
struct HoleMap<'a> {
    store: &'a dyn ReadAt,
    length: u64,
    /// Start to end and kind; disjoint.
    runs: BTreeMap<u64, (u64, RunKind)>,
}

impl<'a> HoleMap<'a> {
    fn new(store: &'a dyn ReadAt) -> Result<Self> {
        Ok(Self {
            store,
            length: store.len()?,
            runs: BTreeMap::new(),
        })
    }

    /// Whether `host` is in data or in a hole, and how many of the `length` bytes from there on are alike.
    ///
    /// What is behind the end of the file continues a hole that reaches the end.
    fn run_at(&mut self, host: u64, length: u64) -> Result<(RunKind, u64)> {
        if host >= self.length {
            return Ok((RunKind::Hole, length));
        }
        let (end, kind) = match self.runs.range(..=host).next_back() {
            Some((_, &(end, kind))) if host < end => (end, kind),
            _ => self.ask(host)?,
        };
        if kind == RunKind::Hole && end >= self.length {
            return Ok((kind, length));
        }
        Ok((kind, length.min(end - host)))
    }

    fn ask(&mut self, host: u64) -> Result<(u64, RunKind)> {
        let run = self.store.run_at(host)?;
        let end = run.end.max(host + 1);
        if self.runs.len() >= MAX_RUNS {
            self.runs.clear();
        }
        // The same run, asked for further behind before.
        let known = self.runs.range(host..end).next();
        if let Some(start) = known.map(|(&start, _)| start) {
            self.runs.remove(&start);
        }
        self.runs.insert(host, (end, run.kind));
        Ok((end, run.kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;

    #[test]
    fn runs_are_remembered_from_their_earliest_known_byte() {
        let store = Memory::from(vec![1; 4096]);
        let mut holes = HoleMap::new(&store).unwrap();
        for host in [4000, 2000, 3000, 0] {
            let (kind, length) = holes.run_at(host, 10_000).unwrap();
            assert_eq!((kind, length), (RunKind::Data, 4096 - host));
        }
        assert_eq!(holes.runs.len(), 1);
        assert_eq!(holes.run_at(4096, 512).unwrap(), (RunKind::Hole, 512));
    }
}
