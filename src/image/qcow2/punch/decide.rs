//! Which clusters go: those that are free, and those that are free or zero in
//! every byte.
//!
//! Knows L2 entries and what the free map says. Reads, never writes. Decides for
//! each cluster by itself, so that the number of threads changes nothing.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::counts::Counts;
use super::zeros::Zeros;
use crate::error::Result;
use crate::image::in_place::{PunchOptions, PunchProgress, Punched};
use crate::image::qcow2::Qcow2File;
use crate::image::qcow2::format::entry::{COPIED, L1Entry, L2Entry, L2Mapping, SUBCLUSTERS};
use crate::image::qcow2::format::{CompressedDescriptor, Geometry, HostOffset};
use crate::image::qcow2::l2_cache::read_words;
use crate::store::ReadAt;

/// Guest bytes judged by one thread at once.
const PIECE: u64 = 4 << 20;
/// Pieces judged between two reports of progress.
const PIECES: usize = 32;

/// The clusters of one L2 table that go.
#[derive(Debug)]
pub(super) struct TableDrops {
    /// Host offset of the table.
    pub(super) host: u64,
    /// First guest byte of the table.
    pub(super) guest: u64,
    /// Nothing is left in the table: its L1 entry goes instead.
    pub(super) whole: bool,
    /// Bit n: entry n.
    drops: Vec<u64>,
}

impl TableDrops {
    /// Indices of the entries that go.
    pub(super) fn indices(&self) -> impl Iterator<Item = usize> + '_ {
        self.drops.iter().enumerate().flat_map(|(word, &bits)| {
            (0..64)
                .filter(move |bit| bits >> bit & 1 == 1)
                .map(move |bit| word * 64 + bit)
        })
    }
}

/// What is to become of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Keep,
    /// Free, but something else uses its host cluster.
    Shared,
    /// Free, but the version has no entry for that.
    Unmappable,
    Free,
    Zero,
}

/// What all decisions depend on.
#[derive(Debug)]
pub(super) struct Decider<'a> {
    pub(super) file: &'a Qcow2File,
    /// Where plain clusters are.
    pub(super) data: &'a dyn ReadAt,
    pub(super) counts: &'a Counts<'a>,
    pub(super) options: &'a PunchOptions<'a>,
}

impl Decider<'_> {
    fn geometry(&self) -> Geometry {
        self.file.header.geometry()
    }

    /// Whether entries must hide a backing file.
    pub(super) fn is_overlay(&self) -> bool {
        self.file.header.backing_file.is_some()
    }

    /// Decides on every cluster of the active disk, and takes what goes out of the counts.
    ///
    /// # Errors
    /// Tables or data cannot be read; an entry that its image may not hold; cancelled.
    pub(super) fn decide(
        &self,
        pool: &rayon::ThreadPool,
        punched: &mut Punched,
        progress: &mut dyn FnMut(PunchProgress),
    ) -> Result<Vec<TableDrops>> {
        let header = &self.file.header;
        let total = header.virtual_size();
        let geometry = self.geometry();
        let l1 = self.file.read_l1(header.l1_table_offset, header.l1_size)?;
        let mut all = Vec::new();
        // What lies behind the virtual disk is no guest data.
        let tables = usize::try_from(geometry.l1_entries(total)).unwrap_or(usize::MAX);
        for (number, &word) in l1.iter().enumerate().take(tables) {
            self.options.go_on()?;
            let guest = number as u64 * geometry.l2_span();
            if let Some(host) = self.file.check_table(L1Entry(word))? {
                let shared = word & COPIED == 0;
                let table = Table {
                    guest,
                    host,
                    shared,
                };
                all.extend(self.decide_table(&table, pool, punched, progress)?);
            }
            let guest = (guest + geometry.l2_span()).min(total);
            progress(PunchProgress { guest, total });
        }
        Ok(all)
    }

    fn decide_table(
        &self,
        table: &Table,
        pool: &rayon::ThreadPool,
        punched: &mut Punched,
        progress: &mut dyn FnMut(PunchProgress),
    ) -> Result<Option<TableDrops>> {
        let geometry = self.geometry();
        let size = geometry.cluster_bits.size();
        let total = self.file.header.virtual_size();
        let span = table.guest..table.guest + geometry.l2_span();
        if !self.options.zeros && self.options.free.within(span).next().is_none() {
            return Ok(None);
        }
        let words = read_words(&*self.file.store, table.host, geometry.cluster_bits.len())?;
        let words = Words {
            words,
            step: if geometry.extended_l2 { 2 } else { 1 },
        };
        let piece = usize::try_from((PIECE / size).max(1)).unwrap_or(1);
        let group = piece * PIECES;
        let mut drops = vec![0u64; words.len().div_ceil(64)];
        let (mut any, mut whole) = (false, !table.shared);
        for start in (0..words.len()).step_by(group) {
            let starts: Vec<_> = (start..(start + group).min(words.len()))
                .step_by(piece)
                .collect();
            let verdicts: Vec<Vec<Verdict>> = pool.install(|| {
                starts
                    .into_par_iter()
                    .map_init(
                        || Zeros::new(self.file, self.data),
                        |zeros, first| {
                            self.options.go_on()?;
                            (first..(first + piece).min(words.len()))
                                .map(|index| self.judge(table, index, words.entry(index), zeros))
                                .collect()
                        },
                    )
                    .collect::<Result<_>>()
            })?;
            for (index, verdict) in (start..).zip(verdicts.into_iter().flatten()) {
                let guest = table.guest + index as u64 * size;
                let bytes = total.saturating_sub(guest).min(size);
                let goes = matches!(verdict, Verdict::Free | Verdict::Zero);
                whole &= self.says_nothing(words.entry(index), guest, goes)?;
                match verdict {
                    Verdict::Keep => continue,
                    Verdict::Shared => punched.shared_bytes += bytes,
                    Verdict::Unmappable => punched.unmappable_bytes += bytes,
                    Verdict::Free => punched.free_bytes += bytes,
                    Verdict::Zero => punched.zero_bytes += bytes,
                }
                if goes {
                    drops[index / 64] |= 1 << (index % 64);
                    any = true;
                    self.remove(words.entry(index), guest)?;
                }
            }
            let guest = table.guest + (start + group).min(words.len()) as u64 * size;
            let guest = guest.min(total);
            progress(PunchProgress { guest, total });
        }
        if whole {
            self.counts.remove(table.host, geometry.cluster_bits.size());
        }
        Ok((any || whole).then_some(TableDrops {
            host: table.host,
            guest: table.guest,
            whole,
            drops,
        }))
    }

    /// Whether a table without this entry, which goes or not, reads as one with it does then.
    fn says_nothing(&self, entry: L2Entry, guest: u64, goes: bool) -> Result<bool> {
        if goes {
            let emptied = entry.emptied(self.geometry(), self.is_overlay());
            return Ok(emptied == Some(L2Entry::default()));
        }
        // Without a backing file zeros are what there is without a table.
        Ok(match self.decode(entry, guest)? {
            L2Mapping::Unallocated => true,
            L2Mapping::Zero { host: None } | L2Mapping::Subclusters { host: None, .. } => {
                !self.is_overlay()
            }
            L2Mapping::Data { .. }
            | L2Mapping::Zero { .. }
            | L2Mapping::Subclusters { .. }
            | L2Mapping::Compressed(_) => false,
        })
    }

    /// Takes the host clusters of an entry that goes out of the counts.
    fn remove(&self, entry: L2Entry, guest: u64) -> Result<()> {
        let geometry = self.geometry();
        match self.decode(entry, guest)? {
            L2Mapping::Compressed(stream) => self.counts.remove(stream.host.0, stream.length),
            L2Mapping::Data { host }
            | L2Mapping::Zero { host: Some(host) }
            | L2Mapping::Subclusters {
                host: Some(host), ..
            } if !geometry.external_data => {
                self.counts.remove(host.0, geometry.cluster_bits.size());
            }
            L2Mapping::Data { .. }
            | L2Mapping::Zero { .. }
            | L2Mapping::Subclusters { .. }
            | L2Mapping::Unallocated => {}
        }
        Ok(())
    }

    fn decode(&self, entry: L2Entry, guest: u64) -> Result<L2Mapping> {
        entry
            .decode(self.geometry(), guest)
            .map_err(|corruption| self.file.corrupt(corruption).at_guest(guest))
    }

    fn judge(
        &self,
        table: &Table,
        index: usize,
        entry: L2Entry,
        zeros: &mut Zeros<'_>,
    ) -> Result<Verdict> {
        let geometry = self.geometry();
        let size = geometry.cluster_bits.size();
        let guest = table.guest + index as u64 * size;
        // Of the last cluster nobody reads what lies behind the end of the disk. Whole clusters there are no guest data.
        let used = guest..(guest + size).min(self.file.header.virtual_size());
        if used.is_empty() {
            return Ok(Verdict::Keep);
        }
        let all_free = self.options.free.covers(used.clone());
        let contents = match self.decode(entry, guest)? {
            // There is no host cluster to win.
            L2Mapping::Unallocated
            | L2Mapping::Zero { host: None }
            | L2Mapping::Subclusters { host: None, .. } => return Ok(Verdict::Keep),
            L2Mapping::Compressed(stream) => Contents::Stream(stream),
            L2Mapping::Data { host } => Contents::Plain(host, u32::MAX),
            L2Mapping::Zero { host: Some(host) } => Contents::Plain(host, 0),
            L2Mapping::Subclusters {
                host: Some(host),
                allocated,
                ..
            } => Contents::Plain(host, allocated),
        };
        if !all_free && !self.options.zeros {
            return Ok(Verdict::Keep);
        }
        let shared = table.shared
            || match contents {
                Contents::Stream(stream) => self.counts.is_mixed(stream.host.0, stream.length),
                // The survey has proven that the flag tells the truth.
                Contents::Plain(..) => entry.word & COPIED == 0,
            };
        if shared {
            return Ok(if all_free {
                Verdict::Shared
            } else {
                Verdict::Keep
            });
        }
        let is_free = if all_free {
            Verdict::Free
        } else {
            Verdict::Zero
        };
        if entry.emptied(geometry, self.is_overlay()).is_none() {
            return Ok(if all_free {
                Verdict::Unmappable
            } else {
                Verdict::Keep
            });
        }
        if all_free || self.reads_as_zeros(&used, guest, contents, zeros)? {
            Ok(is_free)
        } else {
            Ok(Verdict::Keep)
        }
    }

    /// Whether all stored bytes of `used` that are not free are zeros.
    fn reads_as_zeros(
        &self,
        used: &Range<u64>,
        guest: u64,
        contents: Contents,
        zeros: &mut Zeros<'_>,
    ) -> Result<bool> {
        match contents {
            Contents::Stream(stream) => {
                let partly_free = self.options.free.within(used.clone()).next().is_some();
                if !partly_free && !self.may_be_zeros(stream) {
                    return Ok(false);
                }
                zeros.in_stream(stream, guest, self.kept_parts(used))
            }
            Contents::Plain(_, 0) => Ok(true),
            Contents::Plain(host, allocated) => {
                let unit = self.geometry().subcluster_size();
                for part in self.kept_parts(used) {
                    let mut at = part.start;
                    while at < part.end {
                        let (stored, until) = subclusters(at - guest, unit, allocated);
                        let until = (guest + until).min(part.end);
                        if stored && !zeros.at(host.0 + (at - guest), until - at)? {
                            return Ok(false);
                        }
                        at = until;
                    }
                }
                Ok(true)
            }
        }
    }

    /// Zeros are short streams in every codec: only those are decoded to see.
    fn may_be_zeros(&self, stream: CompressedDescriptor) -> bool {
        stream.length <= self.geometry().cluster_bits.size() / 32 + 1024
    }

    /// The parts of `used` that are not free.
    fn kept_parts<'a>(&'a self, used: &Range<u64>) -> impl Iterator<Item = Range<u64>> + 'a {
        let Range { start, end } = *used;
        let mut at = start;
        std::iter::from_fn(move || {
            while at < end {
                let (free, until) = self.options.free.at(at);
                let part = at..until.min(end);
                at = part.end;
                if !free {
                    return Some(part);
                }
            }
            None
        })
    }
}

/// Whether the byte at `within` of a cluster is stored, and up to where in the cluster that is so.
fn subclusters(within: u64, unit: u64, allocated: u32) -> (bool, u64) {
    if allocated == u32::MAX {
        return (true, u64::MAX >> 8);
    }
    let first = u32::try_from(within / unit).unwrap_or(SUBCLUSTERS - 1);
    let stored = |index: u32| allocated >> index.min(SUBCLUSTERS - 1) & 1 == 1;
    let same = (first..SUBCLUSTERS).take_while(|&index| stored(index) == stored(first));
    let end = u64::from(first) + same.count() as u64;
    (stored(first), end * unit)
}

/// An L2 table of the active disk.
struct Table {
    guest: u64,
    host: u64,
    /// A snapshot has it, too: then it has all of its clusters as well.
    shared: bool,
}

/// What a cluster with host space holds.
#[derive(Debug, Clone, Copy)]
enum Contents {
    Stream(CompressedDescriptor),
    /// Host cluster, and which subclusters are stored there.
    Plain(HostOffset, u32),
}

/// The entries of a table.
struct Words {
    words: Arc<[u64]>,
    step: usize,
}

impl Words {
    fn len(&self) -> usize {
        self.words.len() / self.step
    }

    fn entry(&self, index: usize) -> L2Entry {
        let word = |at: usize| self.words.get(at).copied().unwrap_or(0);
        L2Entry {
            word: word(index * self.step),
            bitmap: if self.step == 2 {
                word(index * 2 + 1)
            } else {
                0
            },
        }
    }
}
