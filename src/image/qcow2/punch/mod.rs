//! Dropping clusters from a qcow2 image where it is.
//!
//! ```text
//! check and count -> decide -> L2 entries -> sync -> reference counts -> sync -> holes, length -> sync
//! ```
//!
//! Nothing is allocated, and each step only takes away what no earlier one
//! leaves in use: an entry first, the count of its host cluster next, the
//! cluster's contents last. So an image whose writer ends at any moment has
//! leaks at worst. Tables and clusters that a snapshot shares are left alone:
//! they would free nothing, and the copied flags of whoever is left need not be
//! looked for.

mod counts;
mod decide;
mod zeros;

use std::ops::Range;

use super::Qcow2File;
use super::format::entry::{L1Entry, L2Entry, L2Mapping};
use super::format::{Geometry, features};
use super::l2_cache::read_words;
use crate::error::{Error, Result};
use crate::image::check::CheckOptions;
use crate::image::in_place::{PunchOptions, PunchProgress, Punched, stored_bytes, whole_blocks};
use crate::image::raw;
use crate::image::workers::worker_pool;
use crate::store::{FileId, ReadAt, Sync, WriteAt};
use counts::{Counts, SECTOR};
use decide::{Decider, TableDrops};

/// Where the autoclear features are in a version 3 header.
const AUTOCLEAR_AT: u64 = 88;

/// Refuses an image that must not be written as it is, by its header alone.
///
/// # Errors
/// It was not closed, is marked corrupt, or is encrypted.
pub(crate) fn refuse(file: &Qcow2File) -> Result<()> {
    let header = &file.header;
    let remedy = "run `qemu-img check -r all` on it";
    if header.has(features::CORRUPT) {
        return Err(Error::refused("is marked corrupt", remedy));
    }
    if header.has(features::DIRTY) {
        let message = "was not closed: its reference counts may be wrong";
        return Err(Error::refused(message, remedy));
    }
    if let Some(how) = file.encryption() {
        return Err(Error::unsupported(format!(
            "is encrypted ({how}): what is in it cannot be told"
        )));
    }
    Ok(())
}

/// Drops what `options` name from `file`, which `store` writes; `data` is its external data file, where it has one.
///
/// # Errors
/// As [`InPlace::punch`](crate::image::InPlace::punch).
pub(crate) fn punch(
    file: &Qcow2File,
    store: &dyn WriteAt,
    data: Option<&dyn WriteAt>,
    options: &PunchOptions<'_>,
    progress: &mut dyn FnMut(PunchProgress),
) -> Result<Punched> {
    let raw_data = file.header.autoclear_features & features::RAW_EXTERNAL_DATA != 0;
    if let (Some(data), true) = (data, raw_data) {
        return punch_raw_data(file, data, options, progress);
    }
    let pool = worker_pool(options.threads)?;
    let check = CheckOptions {
        threads: options.threads,
        cancel: options.cancel,
        progress: None,
    };
    let counts = pool
        .install(|| Counts::survey(file, &check))
        .map_err(|error| {
            // In the words that tell of the image, too.
            options.go_on().err().unwrap_or(error)
        })?;
    let mut punched = Punched {
        cluster_size: Some(file.header.cluster_bits.size()),
        disk_size_before: disk_size(store, data)?,
        file_length_before: file.file_length,
        file_length: file.file_length,
        ..Punched::default()
    };
    let readable: &dyn ReadAt = match data {
        Some(data) => data,
        None => &*file.store,
    };
    let decider = Decider {
        file,
        data: readable,
        counts: &counts,
        options,
    };
    let drops = decider.decide(&pool, &mut punched, progress)?;
    let tally = counts.rewrite(None)?;
    punched.freed_clusters = tally.freed;
    punched.leaked_clusters = tally.leaked;
    let tables = drops.iter().filter(|drops| drops.whole).count() as u64;
    punched.metadata_bytes =
        metadata_bytes(file, &counts)? - (tables << file.header.cluster_bits.bits());
    let edit = Edit {
        file,
        store,
        data,
        options,
        counts: &counts,
        drops: &drops,
        overlay: decider.is_overlay(),
    };
    if options.dry_run {
        edit.estimate(&mut punched)?;
        return Ok(punched);
    }
    options.go_on()?;
    edit.check_host()?;
    let changes = !drops.is_empty() || tally.changed > 0;
    if changes {
        edit.write_metadata().map_err(|error| {
            error.with_remedy(
                "the image is sound, with leaked clusters at worst: run it again when the cause is gone",
            )
        })?;
    }
    edit.give_back(&mut punched)?;
    punched.disk_size = disk_size(store, data)?;
    Ok(punched)
}

/// With a data file that is a raw image by itself the tables must go on saying what they say.
fn punch_raw_data(
    file: &Qcow2File,
    data: &dyn WriteAt,
    options: &PunchOptions<'_>,
    progress: &mut dyn FnMut(PunchProgress),
) -> Result<Punched> {
    let own = file.store.allocated_bytes()?;
    let mut punched = raw::punch::punch(data, options, progress)?;
    punched.disk_size_before += own;
    punched.disk_size += own;
    punched.file_length_before = file.file_length;
    punched.file_length = file.file_length;
    punched.cluster_size = Some(file.header.cluster_bits.size());
    Ok(punched)
}

fn disk_size(store: &dyn WriteAt, data: Option<&dyn WriteAt>) -> Result<u64> {
    let data = data.map_or(Ok(0), ReadAt::allocated_bytes)?;
    Ok(store.allocated_bytes()? + data)
}

fn metadata_bytes(file: &Qcow2File, counts: &Counts<'_>) -> Result<u64> {
    let header = &file.header;
    let bits = header.cluster_bits;
    let l1 = file.read_l1(header.l1_table_offset, header.l1_size)?;
    let mut l2 = 0;
    for &word in l1.iter() {
        l2 += u64::from(L1Entry(word).table(bits).is_ok_and(|table| table.is_some()));
    }
    let l1 = bits.clusters_for(l1.len() as u64 * 8);
    let table = u64::from(header.refcount_table_clusters);
    Ok((1 + l1 + l2 + table + counts.blocks()?) << bits.bits())
}

/// What has been decided, on its way into the image.
struct Edit<'a> {
    file: &'a Qcow2File,
    store: &'a dyn WriteAt,
    data: Option<&'a dyn WriteAt>,
    options: &'a PunchOptions<'a>,
    counts: &'a Counts<'a>,
    drops: &'a [TableDrops],
    overlay: bool,
}

impl Edit<'_> {
    /// Refuses a host that cannot give back anything before a byte is written.
    fn check_host(&self) -> Result<()> {
        let data = self.data.map_or(Ok(true), WriteAt::can_deallocate)?;
        if self.store.can_deallocate()? && data {
            return Ok(());
        }
        Err(raw::punch::cannot_deallocate())
    }

    fn write_metadata(&self) -> Result<()> {
        self.clear_autoclear()?;
        let (whole, parts): (Vec<_>, Vec<_>) = self.drops.iter().partition(|drops| drops.whole);
        for drops in parts {
            self.write_table(drops)?;
        }
        self.write_l1(&whole)?;
        // No count may fall, and no cluster lose its contents, that an old entry still leads to after a power loss.
        self.store.sync()?;
        self.counts.rewrite(Some(self.store))?;
        self.store.sync()
    }

    /// What an unknown autoclear feature promises is no longer true once somebody writes who does not know it.
    fn clear_autoclear(&self) -> Result<()> {
        let header = &self.file.header;
        let known = features::BITMAPS_CONSISTENT | features::RAW_EXTERNAL_DATA;
        let features = header.autoclear_features & known;
        if header.version < 3 || features == header.autoclear_features {
            return Ok(());
        }
        self.store
            .write_all_at(&features.to_be_bytes(), AUTOCLEAR_AT)?;
        self.store.sync()
    }

    /// Takes the tables in which nothing is left out of the L1 table.
    fn write_l1(&self, tables: &[&TableDrops]) -> Result<()> {
        let span = self.file.header.geometry().l2_span();
        let follows = |a: &&TableDrops, b: &&TableDrops| a.guest + span == b.guest;
        for run in tables.chunk_by(follows) {
            let first = run.first().map_or(0, |drops| drops.guest / span);
            let host = self.file.header.l1_table_offset + first * 8;
            self.store.write_all_at(&vec![0; run.len() * 8], host)?;
        }
        Ok(())
    }

    fn write_table(&self, drops: &TableDrops) -> Result<()> {
        let geometry = self.file.header.geometry();
        let mut table = vec![0; geometry.cluster_bits.len()];
        self.file.store.read_zero_filled(&mut table, drops.host)?;
        let size = usize::try_from(geometry.l2_entry_size()).unwrap_or(8);
        let mut changed: Option<Range<usize>> = None;
        for index in drops.indices() {
            let Some(bytes) = table.get_mut(index * size..(index + 1) * size) else {
                continue;
            };
            let entry = load_entry(bytes);
            let Some(emptied) = entry.emptied(geometry, self.overlay) else {
                continue;
            };
            store_entry(bytes, emptied);
            let first = changed.map_or(index * size, |changed| changed.start);
            changed = Some(first..(index + 1) * size);
        }
        let Some(changed) = changed else {
            return Ok(());
        };
        let start = changed.start / SECTOR * SECTOR;
        let end = changed.end.next_multiple_of(SECTOR).min(table.len());
        self.store
            .write_all_at(&table[start..end], drops.host + start as u64)
    }

    /// Gives back the space of all host clusters that nothing uses: what was dropped, and what was free before.
    fn give_back(&self, punched: &mut Punched) -> Result<()> {
        let block = self.store.block_size();
        let length = self.store.len()?;
        let is_device = matches!(self.store.identity(), Some(FileId::BlockDevice { .. }));
        let mut cut = None;
        self.counts.each_free_run(true, &mut |run| {
            self.options.go_on_giving_back()?;
            if run.end >= length && !is_device {
                cut = Some(run.start);
                return Ok(());
            }
            let run = whole_blocks(&run, block, length);
            if !run.is_empty() {
                // A device that cannot unmap keeps the bytes; the image has them free all the same.
                self.store.deallocate(run)?;
            }
            Ok(())
        })?;
        if let Some(cut) = cut.filter(|&cut| cut < length) {
            self.store.set_len(cut)?;
            punched.file_length = cut;
        }
        if let Some(data) = self.data {
            self.give_back_data(data)?;
        }
        if self.options.sync == Sync::Full {
            self.store.sync()?;
            self.data.map_or(Ok(()), WriteAt::sync)?;
        }
        Ok(())
    }

    /// Gives back what the tables no longer map of the external data file, which has no counts.
    fn give_back_data(&self, data: &dyn WriteAt) -> Result<()> {
        let (block, length) = (data.block_size(), data.len()?);
        let mut run = 0..0;
        let flush = |run: &Range<u64>| -> Result<()> {
            let run = whole_blocks(&(run.start..run.end.min(length)), block, length);
            if !run.is_empty() {
                self.options.go_on_giving_back()?;
                data.deallocate(run)?;
            }
            Ok(())
        };
        self.each_unmapped(&mut |range| {
            if run.end != range.start {
                flush(&run)?;
                run.start = range.start;
            }
            run.end = range.end;
            Ok(())
        })?;
        flush(&run)
    }

    /// The guest ranges without a place in the data file, in order.
    fn each_unmapped(&self, each: &mut dyn FnMut(Range<u64>) -> Result<()>) -> Result<()> {
        let header = &self.file.header;
        let geometry = header.geometry();
        let total = header.virtual_size();
        let l1 = self.file.read_l1(header.l1_table_offset, header.l1_size)?;
        for number in 0..geometry.l1_entries(total) {
            let guest = number * geometry.l2_span();
            let word = usize::try_from(number).ok().and_then(|at| l1.get(at));
            let word = word.copied().unwrap_or(0);
            let Some(host) = self.file.check_table(L1Entry(word))? else {
                each(guest..(guest + geometry.l2_span()).min(total))?;
                continue;
            };
            let table = read_words(&*self.file.store, host, geometry.cluster_bits.len())?;
            for (guest, entry) in entries(&table, geometry, guest).take_while(|(at, _)| *at < total)
            {
                if !is_mapped(entry, geometry, guest) {
                    each(guest..(guest + geometry.cluster_bits.size()).min(total))?;
                }
            }
        }
        Ok(())
    }

    /// What the host would hold afterwards, as far as it can be told.
    fn estimate(&self, punched: &mut Punched) -> Result<()> {
        let mut won = 0;
        let length = self.store.len()?;
        let mut cut = length;
        self.counts.each_free_run(false, &mut |run| {
            self.options.go_on()?;
            if run.end >= length {
                cut = cut.min(run.start);
            } else {
                let run = whole_blocks(&run, self.store.block_size(), length);
                won += stored_bytes(self.store, run)?;
            }
            Ok(())
        })?;
        won += stored_bytes(self.store, cut..length)?;
        if let Some(data) = self.data {
            let size = self.file.header.cluster_bits.size();
            for drops in self.drops {
                for index in drops.indices() {
                    let guest = drops.guest + index as u64 * size;
                    won += stored_bytes(data, guest..guest + size)?;
                }
            }
        }
        punched.file_length = cut;
        punched.disk_size = punched.disk_size_before.saturating_sub(won);
        Ok(())
    }
}

fn load_entry(bytes: &[u8]) -> L2Entry {
    let mut words = bytes
        .as_chunks()
        .0
        .iter()
        .map(|word| u64::from_be_bytes(*word));
    L2Entry {
        word: words.next().unwrap_or(0),
        bitmap: words.next().unwrap_or(0),
    }
}

fn store_entry(bytes: &mut [u8], entry: L2Entry) {
    let words = [entry.word, entry.bitmap];
    for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
        *place = word.to_be_bytes();
    }
}

/// The entries of a table, and where their clusters are in the guest.
fn entries(
    table: &[u64],
    geometry: Geometry,
    guest: u64,
) -> impl Iterator<Item = (u64, L2Entry)> + '_ {
    let step = if geometry.extended_l2 { 2 } else { 1 };
    let guests = (0..).map(move |index| guest + index * geometry.cluster_bits.size());
    guests.zip(table.chunks_exact(step).map(move |words| L2Entry {
        word: words[0],
        bitmap: if step == 2 { words[1] } else { 0 },
    }))
}

/// Whether an entry has a host cluster; one that cannot be understood may have.
fn is_mapped(entry: L2Entry, geometry: Geometry, guest: u64) -> bool {
    match entry.decode(geometry, guest) {
        Ok(
            L2Mapping::Unallocated
            | L2Mapping::Zero { host: None }
            | L2Mapping::Subclusters { host: None, .. },
        ) => false,
        Ok(_) | Err(_) => true,
    }
}
