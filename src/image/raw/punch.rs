//! Holes into a raw file, or zeros by unmapping into a block device.
//!
//! Knows blocks of the host. Nothing but free and zero bytes is ever touched, so
//! that the work may end at any moment.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::image::in_place::{PunchOptions, PunchProgress, Punched, whole_blocks};
use crate::image::workers::worker_pool;
use crate::store::{FileId, ReadAt, RunKind, Sync, WriteAt};
use crate::zero::is_zero;

/// Bytes looked at between two changes.
const PIECE: u64 = 64 << 20;
/// Bytes looked at by one thread at once.
const SLICE: u64 = 1 << 20;
/// Blocks are no smaller than that: a hole for each 512 zeros would only be a burden.
const LEAST_BLOCK: u64 = 4096;

/// Drops what `options` name from the raw file `store`.
///
/// # Errors
/// The host cannot read, or cannot give space back; cancelled.
pub(crate) fn punch(
    store: &dyn WriteAt,
    options: &PunchOptions<'_>,
    progress: &mut dyn FnMut(PunchProgress),
) -> Result<Punched> {
    let before = store.allocated_bytes()?;
    let length = store.len()?;
    if !options.dry_run && !store.can_deallocate()? {
        return Err(cannot_deallocate());
    }
    let pool = worker_pool(options.threads)?;
    let mut punch = Punch {
        store,
        options,
        length,
        block: store.block_size().max(LEAST_BLOCK),
        pool,
        punched: Punched {
            disk_size_before: before,
            file_length_before: length,
            file_length: length,
            ..Punched::default()
        },
        pending: 0..0,
    };
    let done = punch.run(progress);
    let mut punched = punch.punched;
    done?;
    if options.dry_run {
        let dropped = punched.free_bytes + punched.zero_bytes;
        punched.disk_size = before.saturating_sub(dropped);
        return Ok(punched);
    }
    if options.sync == Sync::Full {
        store.sync()?;
    }
    punched.disk_size = store.allocated_bytes()?;
    Ok(punched)
}

/// What a file system without holes, or a device that cannot unmap, is told.
pub(crate) fn cannot_deallocate() -> Error {
    Error::unsupported(
        "the file system or device that holds the image cannot free a part of a file",
    )
    .with_remedy("make a smaller copy with `qimg compress` or `qimg convert`")
}

struct Punch<'a> {
    store: &'a dyn WriteAt,
    options: &'a PunchOptions<'a>,
    length: u64,
    block: u64,
    pool: rayon::ThreadPool,
    punched: Punched,
    /// Found, and not given back yet: more may follow directly.
    pending: Range<u64>,
}

/// Ranges to be dropped from a slice, in order, and how many of their bytes the free map has.
type Found = (Vec<Range<u64>>, u64);

impl Punch<'_> {
    fn go_on(&self) -> Result<()> {
        if self.options.dry_run {
            self.options.go_on()
        } else {
            self.options.go_on_giving_back()
        }
    }

    fn run(&mut self, progress: &mut dyn FnMut(PunchProgress)) -> Result<()> {
        let mut at = 0;
        while at < self.length {
            self.go_on()?;
            let run = self.store.run_at(at)?;
            // A file that shrinks under us would stand still here.
            let end = run.end.max(at + 1).min(self.length);
            let until = match run.kind {
                RunKind::Hole => end,
                RunKind::Data => end.min((at + PIECE) / PIECE * PIECE),
            };
            match run.kind {
                RunKind::Hole => self.hole(at..until)?,
                RunKind::Data => self.data(at..until)?,
            }
            at = until;
            progress(PunchProgress {
                guest: at,
                total: self.length,
            });
        }
        self.give_back()
    }

    /// A hole may be space that was reserved and never written.
    fn hole(&mut self, range: Range<u64>) -> Result<()> {
        let mut free: Vec<_> = if self.options.zeros {
            vec![range]
        } else {
            self.options.free.within(range).collect()
        };
        if matches!(self.store.identity(), Some(FileId::BlockDevice { .. })) {
            free.clear();
        }
        for range in free {
            let range = whole_blocks(&range, self.block, self.length);
            self.found(range)?;
        }
        Ok(())
    }

    fn data(&mut self, range: Range<u64>) -> Result<()> {
        // Blocks that data and a hole share were looked at with whichever came first.
        let start = range.start - range.start % self.block;
        let slices: Vec<_> = (0..(range.end - start).div_ceil(SLICE))
            .map(|n| start + n * SLICE..(start + (n + 1) * SLICE).min(range.end))
            .collect();
        let (look, pool) = (Look::new(self), &self.pool);
        let found: Vec<Found> = pool.install(|| {
            slices
                .into_par_iter()
                .map_init(Vec::new, |buffer, slice| look.at(slice, buffer))
                .collect::<Result<_>>()
        })?;
        for (ranges, free) in found {
            let dropped: u64 = ranges.iter().map(|range| range.end - range.start).sum();
            self.punched.free_bytes += free;
            self.punched.zero_bytes += dropped - free;
            for range in ranges {
                self.found(range)?;
            }
        }
        Ok(())
    }

    fn found(&mut self, range: Range<u64>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        if self.pending.end != range.start {
            self.give_back()?;
            self.pending.start = range.start;
        }
        self.pending.end = range.end;
        Ok(())
    }

    fn give_back(&mut self) -> Result<()> {
        let range = std::mem::replace(&mut self.pending, 0..0);
        if range.is_empty() || self.options.dry_run || self.store.deallocate(range)? {
            return Ok(());
        }
        Err(cannot_deallocate())
    }
}

/// What a thread needs to look at a slice.
struct Look<'a> {
    store: &'a dyn ReadAt,
    options: &'a PunchOptions<'a>,
    block: u64,
    length: u64,
}

impl<'a> Look<'a> {
    fn new(punch: &Punch<'a>) -> Self {
        Self {
            store: punch.store,
            options: punch.options,
            block: punch.block,
            length: punch.length,
        }
    }

    /// What can go of `slice`, which starts with a block.
    fn at(&self, slice: Range<u64>, buffer: &mut Vec<u8>) -> Result<Found> {
        let mut found: Vec<Range<u64>> = Vec::new();
        let mut free_bytes = 0;
        let mut read = false;
        let mut at = slice.start;
        while at < slice.end {
            let block = at..(at + self.block).min(self.length);
            // A block is judged as a whole, even where the slice ends within it.
            let all_free = self.options.free.covers(block.clone());
            let goes = all_free
                || (self.options.zeros && {
                    if !read {
                        let until = slice.end.next_multiple_of(self.block).min(self.length);
                        buffer.resize(usize_of(until - slice.start), 0);
                        self.store.read_exact_at(buffer, slice.start)?;
                        read = true;
                    }
                    self.is_zero(&block, slice.start, buffer)
                });
            if goes {
                let length = block.end - block.start;
                free_bytes += if all_free { length } else { 0 };
                match found.last_mut() {
                    Some(last) if last.end == block.start => last.end = block.end,
                    _ => found.push(block.clone()),
                }
            }
            at = block.end;
        }
        Ok((found, free_bytes))
    }

    /// Whether what is not free of `block` is zeros; `buffer` starts at `start`.
    fn is_zero(&self, block: &Range<u64>, start: u64, buffer: &[u8]) -> bool {
        let mut at = block.start;
        while at < block.end {
            let (free, until) = self.options.free.at(at);
            let until = until.min(block.end);
            let bytes = buffer.get(usize_of(at - start)..usize_of(until - start));
            if !free && !bytes.is_some_and(is_zero) {
                return false;
            }
            at = until;
        }
        true
    }
}

/// A length of a slice as a length in memory.
fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
