//! Whether two disks have the same contents: qemu-img's compare, on all cores.
//!
//! Knows guest offsets and extents of two sources, whatever their formats. Must
//! not know files, and must not write. A shorter disk goes on as zeros; what
//! cannot differ (zeros on both sides, the same place in the same file) is
//! never read.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};

use serde::Serialize;

use crate::convert::reorder::Window;
use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentKind};
use crate::source::{Reader, Source};
use crate::store::ReadAt;
use crate::zero::is_zero;

/// Differences are told by sectors of so many bytes, as in qemu-img.
pub const SECTOR: u64 = 512;
/// Most ranges that a [`Comparison`] lists.
pub const MAX_RANGES: usize = 4096;

/// Bytes to be read of each side for one item of work, rounded up to the unit.
const ITEM_BYTES: u64 = 256 << 10;
/// Steps taken for one item: bounds it for fragmented and for empty sources.
const ITEM_STEPS: usize = 4096;

/// How two disks are compared.
#[derive(Debug, Clone, Copy)]
pub struct CompareOptions<'a> {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Sizes and allocation must be the same too.
    pub strict: bool,
    /// Go on behind the first difference, and list all of them.
    pub all: bool,
    /// Set by another thread to stop.
    pub cancel: &'a AtomicBool,
}

/// How far a comparison has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Guest bytes compared.
    pub guest: u64,
    /// Guest bytes to compare: the size of the larger disk.
    pub total: u64,
}

/// What came of a comparison. Offsets and lengths are guest bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Comparison {
    /// Virtual sizes of both disks; a difference alone is one only to a strict comparison.
    pub sizes: [u64; 2],
    /// Start of the first sector whose contents differ.
    pub first_difference: Option<u64>,
    /// First offset that is allocated in different ways, for a strict comparison.
    pub first_status_difference: Option<u64>,
    /// Differing ranges in order, merged; only the first sector without [`CompareOptions::all`].
    pub ranges: Vec<Range<u64>>,
    /// There are more ranges than [`MAX_RANGES`].
    pub truncated: bool,
    /// Bytes of all differing sectors, listed or not.
    pub different_bytes: u64,
}

impl Comparison {
    /// Whether the virtual sizes differ.
    pub fn sizes_differ(&self) -> bool {
        self.sizes[0] != self.sizes[1]
    }

    /// Whether the disks are the same in the sense of the comparison; a difference in size counts when `strict`.
    pub fn is_identical(&self, strict: bool) -> bool {
        self.first_difference.is_none()
            && self.first_status_difference.is_none()
            && !(strict && self.sizes_differ())
    }

    fn add(&mut self, range: Range<u64>) {
        self.first_difference.get_or_insert(range.start);
        self.different_bytes += range.end - range.start;
        let listed = self.ranges.len();
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if listed < MAX_RANGES => self.ranges.push(range),
            _ => self.truncated = true,
        }
    }
}

/// Why a comparison came to nothing.
#[derive(Debug)]
pub struct Failure {
    /// What was being done; none when the comparison itself was ended.
    pub stage: Option<Stage>,
    /// What went wrong.
    pub error: Error,
}

/// What a comparison does with an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Find out where it holds data.
    Map,
    /// Read that.
    Read,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { stage: None, error }
    }
}

/// Compares the contents of `a` and `b`.
///
/// Without [`CompareOptions::all`] the comparison ends with the first difference, which is the lowest whatever the
/// number of threads. A strict one of disks that differ in size ends there.
///
/// `progress` is called from time to time on the calling thread.
///
/// # Errors
/// The first failure in guest order of reading or decoding that no difference comes before;
/// [`Cancelled`](crate::ErrorKind::Cancelled).
pub fn compare(
    a: &dyn Source,
    b: &dyn Source,
    options: &CompareOptions<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Comparison, Failure> {
    let mut comparison = Comparison {
        sizes: [a.virtual_size(), b.virtual_size()],
        ..Comparison::default()
    };
    if options.strict && !options.all && comparison.sizes_differ() {
        return Ok(comparison);
    }
    let threads = options.threads.max(1);
    let plan = Mutex::new(Plan::new(a, b, options));
    let window = Window::new(threads * 2 + 2);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|number| format!("qimg-worker-{number}"))
        .build()
        .map_err(|error| Error::io("start worker threads", std::io::Error::other(error)))?;
    let total = a.virtual_size().max(b.virtual_size());
    let mut settled = false;
    let mut stage = None;
    let result = pool.in_place_scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..threads {
            let sender = sender.clone();
            let (plan, window) = (&plan, &window);
            scope.spawn(move |_| {
                let _guard = window.close_on_panic();
                work([a, b], options, plan, window, &sender);
            });
        }
        drop(sender);
        window.in_order(&receiver, |output: Output| {
            for range in output.differences {
                comparison.add(range);
            }
            if comparison.first_status_difference.is_none() {
                comparison.first_status_difference = output.status_difference;
            }
            settled = !options.all && !comparison.is_identical(false);
            if settled || options.cancel.load(Ordering::Relaxed) {
                // Closes the window: nothing behind this matters.
                return Err(Error::cancelled());
            }
            progress(Progress {
                guest: output.end,
                total,
            });
            output.failure.map_or(Ok(()), |(failed, error)| {
                stage = Some(failed);
                Err(error)
            })
        })
    });
    if let (false, Err(error)) = (settled, result) {
        return Err(Failure { stage, error });
    }
    Ok(comparison)
}

/// What came of one item.
#[derive(Debug)]
struct Output {
    /// End of the item's guest range.
    end: u64,
    differences: Vec<Range<u64>>,
    status_difference: Option<u64>,
    /// What ended the item, behind everything above.
    failure: Option<(Stage, Error)>,
}

/// Which sides of a range have to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    Both,
    /// The other side is zeros.
    Only(usize),
}

#[derive(Debug)]
struct Segment {
    range: Range<u64>,
    reads: Reads,
}

/// One piece of work.
#[derive(Debug)]
struct Item {
    end: u64,
    segments: Vec<Segment>,
    status_difference: Option<u64>,
    failure: Option<(Stage, Error)>,
}

/// What is still to be compared, in guest order.
struct Plan<'a> {
    sources: [&'a dyn Source; 2],
    /// The extents around `at`, as far as known: a long one on one side is not looked up for each short one on the
    /// other.
    extents: [Option<Extent>; 2],
    /// Items end at multiples of it: no cluster of either side is cut.
    unit: u64,
    at: u64,
    end: u64,
    number: u64,
    options: &'a CompareOptions<'a>,
    finished: bool,
}

impl<'a> Plan<'a> {
    fn new(a: &'a dyn Source, b: &'a dyn Source, options: &'a CompareOptions<'a>) -> Self {
        Self {
            sources: [a, b],
            extents: [None; 2],
            unit: a.cluster_size().max(b.cluster_size()),
            at: 0,
            end: a.virtual_size().max(b.virtual_size()),
            number: 0,
            options,
            finished: false,
        }
    }

    fn next(&mut self) -> Option<(u64, Item)> {
        if self.finished || self.at >= self.end {
            return None;
        }
        let mut item = Item {
            end: self.at,
            segments: Vec::new(),
            status_difference: None,
            failure: None,
        };
        item.failure = self.fill(&mut item).err().map(|error| (Stage::Map, error));
        item.end = self.at;
        // Contents before a difference in status still count; nothing behind it does.
        let settled = item.status_difference.is_some() && !self.options.all;
        self.finished = settled || item.failure.is_some();
        let number = self.number;
        self.number += 1;
        Some((number, item))
    }

    fn fill(&mut self, item: &mut Item) -> Result<()> {
        let mut limit = self.end;
        let mut room = ITEM_BYTES;
        for _ in 0..ITEM_STEPS {
            if self.at >= limit {
                break;
            }
            let a = self.extent(0)?;
            let b = self.extent(1)?;
            if self.options.strict
                && item.status_difference.is_none()
                && self.status_differs(&a, &b)
            {
                item.status_difference = Some(self.at);
                if !self.options.all {
                    break;
                }
            }
            let mut end = a.end().min(b.end()).min(limit);
            if let Some(reads) = self.reads(&a, &b) {
                if end - self.at >= room {
                    let full = self.at.saturating_add(room);
                    let cut = full.checked_next_multiple_of(self.unit);
                    limit = cut.unwrap_or(u64::MAX).min(limit);
                    end = end.min(limit);
                }
                room = room.saturating_sub(end - self.at).max(1);
                match item.segments.last_mut() {
                    Some(last) if last.reads == reads && last.range.end == self.at => {
                        last.range.end = end;
                    }
                    _ => item.segments.push(Segment {
                        range: self.at..end,
                        reads,
                    }),
                }
            }
            self.at = end;
        }
        Ok(())
    }

    /// The part from `at` on of the extent of one side that covers it.
    fn extent(&mut self, side: usize) -> Result<Extent> {
        let at = self.at;
        let size = self.sources[side].virtual_size();
        let mut extent = match self.extents[side] {
            Some(extent) if extent.end() > at => extent,
            _ if at >= size => Extent {
                start: at,
                length: self.end - at,
                kind: ExtentKind::Zero,
                host: None,
                depth: 0,
            },
            _ => self.sources[side].extent_at(at..size)?,
        };
        let passed = at - extent.start;
        extent.host = extent.host.map(|host| host.saturating_add(passed));
        extent.length -= passed;
        extent.start = at;
        self.extents[side] = Some(extent);
        Ok(extent)
    }

    fn status_differs(&self, a: &Extent, b: &Extent) -> bool {
        let common = self
            .sources
            .iter()
            .all(|source| self.at < source.virtual_size());
        common && (a.kind != b.kind || a.host.is_some() != b.host.is_some())
    }

    /// What has to be read to compare the two; nothing when they cannot differ.
    fn reads(&self, a: &Extent, b: &Extent) -> Option<Reads> {
        match (is_stored(a), is_stored(b)) {
            (false, false) => None,
            (true, false) => Some(Reads::Only(0)),
            (false, true) => Some(Reads::Only(1)),
            (true, true) => (!self.same_place(a, b)).then_some(Reads::Both),
        }
    }

    fn same_place(&self, a: &Extent, b: &Extent) -> bool {
        let files = [(0, a), (1, b)].map(|(side, extent)| {
            self.sources[side]
                .data_store(extent.depth)
                .and_then(ReadAt::identity)
        });
        if files[0].is_none() || files[0] != files[1] || a.kind != b.kind {
            return false;
        }
        match a.kind {
            ExtentKind::Data => a.host.is_some() && a.host == b.host,
            // Compressed clusters do not say where they are. Behind the top layer no snapshot is ever read: one
            // file has one stream for each guest offset.
            ExtentKind::Compressed(_) => a.depth > 0 && b.depth > 0,
            ExtentKind::Zero | ExtentKind::Unallocated => true,
        }
    }
}

fn is_stored(extent: &Extent) -> bool {
    matches!(extent.kind, ExtentKind::Data | ExtentKind::Compressed(_))
}

fn work(
    sources: [&dyn Source; 2],
    options: &CompareOptions<'_>,
    plan: &Mutex<Plan<'_>>,
    window: &Window,
    sender: &mpsc::Sender<(u64, Result<Output>)>,
) {
    let mut worker = Worker {
        readers: sources.map(Source::reader),
        buffers: [Vec::new(), Vec::new()],
        all: options.all,
    };
    loop {
        let (number, item) = {
            let Ok(mut plan) = plan.lock() else { return };
            match plan.next() {
                None => return,
                Some(numbered) => numbered,
            }
        };
        if !window.wait_for(number) || options.cancel.load(Ordering::Relaxed) {
            let _ = sender.send((number, Err(Error::cancelled())));
            return;
        }
        let output = worker.run(item);
        let failed = output.failure.is_some();
        if sender.send((number, Ok(output))).is_err() || failed {
            return;
        }
    }
}

struct Worker<'a> {
    readers: [Box<dyn Reader + 'a>; 2],
    buffers: [Vec<u8>; 2],
    all: bool,
}

impl Worker<'_> {
    fn run(&mut self, item: Item) -> Output {
        let mut output = Output {
            end: item.end,
            differences: Vec::new(),
            status_difference: item.status_difference,
            failure: item.failure,
        };
        for segment in &item.segments {
            if let Err(error) = self.compare(segment, &mut output.differences) {
                output.failure = Some((Stage::Read, error));
                output.status_difference = output
                    .status_difference
                    .filter(|&offset| offset <= segment.range.start);
                break;
            }
            if !self.all && !output.differences.is_empty() {
                // What comes later was not looked at.
                output.status_difference = None;
                break;
            }
        }
        output
    }

    fn compare(&mut self, segment: &Segment, differences: &mut Vec<Range<u64>>) -> Result<()> {
        let start = segment.range.start;
        let length = segment.range.end - start;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        for (side, (reader, buffer)) in self.readers.iter_mut().zip(&mut self.buffers).enumerate() {
            if segment.reads == Reads::Both || segment.reads == Reads::Only(side) {
                if buffer.len() < length {
                    buffer.resize(length, 0);
                }
                reader.read_at(start, &mut buffer[..length])?;
            }
        }
        let sector = usize::try_from(SECTOR).unwrap_or(512);
        let [a, b] = &self.buffers;
        match segment.reads {
            Reads::Both if a[..length] == b[..length] => {}
            Reads::Both => {
                let sectors = a[..length].chunks(sector).zip(b[..length].chunks(sector));
                let differ = sectors.map(|(a, b)| a != b);
                collect(start, length, differ, self.all, differences);
            }
            Reads::Only(side) => {
                let bytes = &self.buffers[side][..length];
                if !is_zero(bytes) {
                    let differ = bytes.chunks(sector).map(|sector| !is_zero(sector));
                    collect(start, length, differ, self.all, differences);
                }
            }
        }
        Ok(())
    }
}

/// Appends the runs of differing sectors of the segment at `start`; the first sector alone unless `all`.
fn collect(
    start: u64,
    length: usize,
    differ: impl Iterator<Item = bool>,
    all: bool,
    differences: &mut Vec<Range<u64>>,
) {
    let end = start + length as u64;
    for (index, differs) in differ.enumerate() {
        if !differs {
            continue;
        }
        let at = start + index as u64 * SECTOR;
        let sector = at..(at + SECTOR).min(end);
        match differences.last_mut() {
            Some(last) if last.end == at => last.end = sector.end,
            _ => differences.push(sector),
        }
        if !all {
            return;
        }
    }
}
