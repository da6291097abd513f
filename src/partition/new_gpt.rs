//! GPTs that are written: new ones, and those of disks that change.
//!
//! A table is held as bytes, so that what is not understood of one that is there (code in its first sector, entries longer
//! than usual, a hybrid MBR) stays. Nothing is written here: [`NewGpt::backup`] and [`NewGpt::primary`] say what bytes
//! belong where. On a disk that is in use the backup goes first and the primary when that is stored for good, so that
//! one of them is whole at any moment.
//!
//! Source: the UEFI specification 2.10, sections 5.2.3 and 5.3.

use std::ops::Range;

use uuid::Uuid;

use super::gpt::{Copy, Gpt};
use super::kind::PartitionKind;
use super::type_bytes::PROTECTIVE;
use super::{Partition, boot};
use crate::error::{Error, ErrorKind, Escaped, Result};
use crate::fields::Fields;
use crate::volume::Volume;

/// Bytes of a header that mean something.
const HEADER: usize = 92;
const REVISION: u32 = 0x0001_0000;
const ENTRY: usize = 128;
const ENTRIES: usize = 128;
/// Units of UTF-16 in a name.
const NAME: usize = 36;
/// The sector of the first header, and of the entries that belong to it.
const PRIMARY: u64 = 1;
/// Where the partitions of an MBR are in its sector, and how long each is.
const MBR_ENTRIES: usize = 446;
const MBR_ENTRY: usize = 16;

/// Bytes, and where on the disk they belong.
pub type Placed = (u64, Vec<u8>);

/// A partition that is to be entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPartition {
    /// Bytes of the disk, in whole sectors.
    pub range: Range<u64>,
    /// Its type GUID, as the number that its text spells.
    pub kind: u128,
    /// Its own GUID.
    pub uuid: u128,
    /// Its number, the first free one when absent.
    pub number: Option<u32>,
    /// Its name: 36 units of UTF-16 at most.
    pub name: String,
    /// Attribute bits.
    pub attributes: u64,
}

/// A GPT, on its way to a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGpt {
    sector_size: u64,
    sectors: u64,
    /// The first sector.
    mbr: Vec<u8>,
    disk: u128,
    first_usable: u64,
    /// Where the first entries are.
    entries_lba: u64,
    entry_size: usize,
    entries: Vec<u8>,
}

impl NewGpt {
    /// An empty table for a disk of `size` bytes.
    ///
    /// # Errors
    /// A sector size other than 512 and 4096; a disk that has no room for a table and one sector.
    pub fn new(size: u64, sector_size: u64, disk: u128) -> Result<Self> {
        if !super::gpt::SECTOR_SIZES.contains(&sector_size) {
            return Err(
                Error::usage(format!("disks have no sectors of {sector_size} bytes"))
                    .with_remedy("sectors have 512 or 4096 bytes"),
            );
        }
        let entries = vec![0; ENTRY * ENTRIES];
        let table = (entries.len() as u64).div_ceil(sector_size);
        let mut gpt = Self {
            sector_size,
            sectors: size / sector_size,
            mbr: vec![0; usize::try_from(sector_size).unwrap_or(512)],
            disk,
            first_usable: PRIMARY + 1 + table,
            entries_lba: PRIMARY + 1,
            entry_size: ENTRY,
            entries,
        };
        gpt.check_room()?;
        // One protective entry; the sector that it starts at has the CHS address 0/0/2 (section 5.2.3).
        let entry = [0, 0, 2, 0, PROTECTIVE, 0xff, 0xff, 0xff, 1, 0, 0, 0];
        put(&mut gpt.mbr, MBR_ENTRIES, &entry);
        put(&mut gpt.mbr, 510, &[0x55, 0xaa]);
        gpt.protect();
        Ok(gpt)
    }

    /// The table of `disk`: its first copy if that is sound, else the one at its end.
    ///
    /// # Errors
    /// There is none; its partitions contradict each other; the image cannot be read.
    pub fn read(disk: &Volume<'_>) -> Result<Self> {
        let sector = boot::first_sector(disk)?;
        let Some((sector_size, copy)) = Gpt::best_copy(disk)? else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "has no GPT that is sound: only such a table can be changed",
            ));
        };
        let protects = |n: usize| Fields(&sector).u8(MBR_ENTRIES + n * MBR_ENTRY + 4) == PROTECTIVE;
        if !boot::is_signed(&sector) || !(0..4).any(protects) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "has a GPT, but no protective MBR that says so: which of its tables counts cannot be told",
            ));
        }
        let mut mbr = disk.read_vec(0, usize::try_from(sector_size).unwrap_or(512))?;
        put(&mut mbr, 0, &sector);
        let [_, entries] = &copy.structure;
        let is_primary = copy.lba == PRIMARY;
        let gpt = Self {
            sector_size,
            sectors: disk.size() / sector_size,
            mbr,
            disk: copy.disk,
            first_usable: copy.first_usable,
            entries_lba: if is_primary {
                entries.start / sector_size
            } else {
                PRIMARY + 1
            },
            entry_size: copy.entry_size,
            entries: copy.entries,
        };
        gpt.check_room()?;
        gpt.check_partitions(copy.last_usable)?;
        Ok(gpt)
    }

    fn check_room(&self) -> Result<()> {
        if self.sectors < self.first_usable + self.table_sectors() + 2 {
            return Err(Error::usage("the disk has no room for a partition table"));
        }
        Ok(())
    }

    /// Partitions lie between the copies and apart from each other.
    fn check_partitions(&self, last_usable: u64) -> Result<()> {
        let mut ranges: Vec<(Range<u64>, u32)> = self
            .used()
            .map(|(number, entry)| (entry.range(), number))
            .collect();
        ranges.sort_unstable_by_key(|(range, _)| range.start);
        let mut end = self.first_usable;
        for (range, number) in ranges {
            if range.start < end || range.start >= range.end || range.end - 1 > last_usable {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("partition {number} overlaps another one, or the table itself"),
                ));
            }
            end = range.end;
        }
        let table = self.entries_lba..self.entries_lba.saturating_add(self.table_sectors());
        if table.end > self.first_usable || table.start <= PRIMARY {
            return Err(Error::unsupported(
                "the entries of its partitions are not where they are on other disks",
            ));
        }
        Ok(())
    }

    /// Bytes of a sector.
    pub fn sector_size(&self) -> u64 {
        self.sector_size
    }

    /// The disk's GUID, as the number that its text spells.
    pub fn disk(&self) -> u128 {
        self.disk
    }

    /// The first number that no partition has; one too many when all are taken.
    pub fn free_number(&self) -> u32 {
        let entries = self.entries.chunks_exact(self.entry_size);
        let taken = entries.take_while(|entry| !is_unused(entry)).count();
        u32::try_from(taken + 1).unwrap_or(u32::MAX)
    }

    /// Bytes that partitions may use.
    pub fn usable(&self) -> Range<u64> {
        let last = self.sectors - self.table_sectors() - 1;
        self.first_usable * self.sector_size..last * self.sector_size
    }

    /// The partitions, in the order of their numbers.
    pub fn partitions(&self) -> Vec<Partition> {
        self.used()
            .map(|(number, entry)| entry.partition(number, self.sector_size))
            .collect()
    }

    /// Enters a partition; the number that it has from now on.
    ///
    /// # Errors
    /// A range outside of what is usable, or that overlaps another; a name that is too long; no entry is left.
    pub fn add(&mut self, partition: &NewPartition) -> Result<u32> {
        let name = Escaped(&partition.name);
        let range = &partition.range;
        let usable = self.usable();
        let fits = range.start < range.end
            && usable.start <= range.start
            && range.end <= usable.end
            && range.start.is_multiple_of(self.sector_size)
            && range.end.is_multiple_of(self.sector_size);
        let overlaps =
            |other: &Partition| other.range.start < range.end && range.start < other.range.end;
        if !fits || self.partitions().iter().any(overlaps) {
            return Err(Error::usage(format!(
                "partition '{name}' has no room at {:#x} to {:#x}",
                range.start, range.end
            )));
        }
        let units: Vec<u8> = partition
            .name
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        if units.len() > NAME * 2 || partition.name.contains('\0') {
            return Err(
                Error::usage(format!("'{name}' is too long for the name of a partition"))
                    .with_remedy("names have 36 characters at most"),
            );
        }
        let free = self
            .entries
            .chunks_exact_mut(self.entry_size)
            .zip(1..)
            .filter(|(entry, _)| is_unused(entry))
            .find(|(_, number)| partition.number.is_none_or(|wish| wish == *number));
        let Some((entry, number)) = free else {
            return Err(match partition.number {
                Some(number) => Error::usage(format!("there is no free partition number {number}")),
                None => Error::usage("the partition table has no free entry"),
            });
        };
        entry.fill(0);
        put(entry, 0, &Uuid::from_u128(partition.kind).to_bytes_le());
        put(entry, 16, &Uuid::from_u128(partition.uuid).to_bytes_le());
        put(entry, 32, &(range.start / self.sector_size).to_le_bytes());
        put(entry, 40, &(range.end / self.sector_size - 1).to_le_bytes());
        put(entry, 48, &partition.attributes.to_le_bytes());
        put(entry, 56, &units);
        Ok(number)
    }

    /// Moves the end of the table to that of a disk of `size` bytes.
    ///
    /// # Errors
    /// A partition would reach past what is usable there.
    pub fn resize(&mut self, size: u64) -> Result<()> {
        let mut resized = self.clone();
        resized.sectors = size / self.sector_size;
        resized.check_room()?;
        let end = resized.usable().end;
        if let Some(cut) = self
            .partitions()
            .iter()
            .find(|partition| partition.range.end > end)
        {
            return Err(Error::refused(
                format!("partition {} would be cut", cut.number),
                "choose a larger size, or make the partition smaller first, from inside of the guest",
            ));
        }
        resized.protect();
        *self = resized;
        Ok(())
    }

    /// Moves the end of the last partition on the disk to the end of what is usable, in whole units of `alignment`
    /// bytes; its number and its range then, if that is larger than it was.
    pub fn extend_last(&mut self, alignment: u64) -> Option<(u32, Range<u64>)> {
        let last = self
            .partitions()
            .into_iter()
            .max_by_key(|partition| partition.range.end)?;
        let usable = self.usable().end;
        let aligned = usable - usable % alignment.max(self.sector_size);
        // A partition that ends later than that has its own idea of an end.
        let end = if aligned > last.range.end {
            aligned
        } else {
            usable
        };
        if end <= last.range.end {
            return None;
        }
        let index = usize::try_from(last.number).ok()?.checked_sub(1)?;
        let entry = self.entries.chunks_exact_mut(self.entry_size).nth(index)?;
        put(entry, 40, &(end / self.sector_size - 1).to_le_bytes());
        Some((last.number, last.range.start..end))
    }

    /// The largest run of usable bytes that no partition has, in whole units of `alignment` bytes.
    pub fn largest_gap(&self, alignment: u64) -> Range<u64> {
        let alignment = alignment.max(self.sector_size);
        let usable = self.usable();
        let mut taken: Vec<Range<u64>> = self
            .partitions()
            .into_iter()
            .map(|partition| partition.range)
            .collect();
        taken.sort_unstable_by_key(|range| range.start);
        taken.push(usable.end..usable.end);
        let mut at = usable.start;
        let mut best = 0..0;
        for range in taken {
            let start = at.next_multiple_of(alignment);
            let end = range.start - range.start % alignment;
            if end > start && end - start > best.end - best.start {
                best = start..end;
            }
            at = at.max(range.end);
        }
        best
    }

    /// What belongs at the end of the disk: entries and header, in one.
    pub fn backup(&self) -> Placed {
        let at = self.sectors - 1 - self.table_sectors();
        let mut bytes = self.padded_entries();
        bytes.extend(self.header(self.sectors - 1, PRIMARY, at));
        (at * self.sector_size, bytes)
    }

    /// What belongs at the start of the disk behind its first sector: header, then entries.
    pub fn primary(&self) -> [Placed; 2] {
        let header = self.header(PRIMARY, self.sectors - 1, self.entries_lba);
        [
            (PRIMARY * self.sector_size, header),
            (self.entries_lba * self.sector_size, self.padded_entries()),
        ]
    }

    /// The first sector, with the MBR that keeps others away.
    pub fn mbr(&self) -> Placed {
        (0, self.mbr.clone())
    }

    fn table_sectors(&self) -> u64 {
        (self.entries.len() as u64).div_ceil(self.sector_size)
    }

    fn padded_entries(&self) -> Vec<u8> {
        let mut entries = self.entries.clone();
        let length = self.table_sectors() * self.sector_size;
        entries.resize(usize::try_from(length).unwrap_or(entries.len()), 0);
        entries
    }

    fn header(&self, lba: u64, alternate: u64, entries_lba: u64) -> Vec<u8> {
        let mut header = vec![0; usize::try_from(self.sector_size).unwrap_or(512)];
        let last_usable = self.sectors - self.table_sectors() - 2;
        let count = self.entries.len() / self.entry_size;
        put(&mut header, 0, super::gpt::SIGNATURE);
        put(&mut header, 8, &REVISION.to_le_bytes());
        put(&mut header, 12, &le32(HEADER));
        put(&mut header, 24, &lba.to_le_bytes());
        put(&mut header, 32, &alternate.to_le_bytes());
        put(&mut header, 40, &self.first_usable.to_le_bytes());
        put(&mut header, 48, &last_usable.to_le_bytes());
        put(&mut header, 56, &Uuid::from_u128(self.disk).to_bytes_le());
        put(&mut header, 72, &entries_lba.to_le_bytes());
        put(&mut header, 80, &le32(count));
        put(&mut header, 84, &le32(self.entry_size));
        let entries = crc32fast::hash(&self.entries);
        put(&mut header, 88, &entries.to_le_bytes());
        let own = crc32fast::hash(header.get(..HEADER).unwrap_or_default());
        put(&mut header, 16, &own.to_le_bytes());
        header
    }

    /// Gives the protective entry the disk's length. One beside others, of a hybrid MBR, has limits of its own.
    fn protect(&mut self) {
        let length = u32::try_from(self.sectors - 1).unwrap_or(u32::MAX);
        let places = (0..4).map(|n| MBR_ENTRIES + n * MBR_ENTRY);
        let fields = Fields(&self.mbr);
        let used: Vec<usize> = places.filter(|at| fields.u8(at + 4) != 0).collect();
        if let [at] = used[..]
            && fields.u8(at + 4) == PROTECTIVE
            && fields.le32(at + 8) == 1
        {
            put(&mut self.mbr, at + 12, &length.to_le_bytes());
        }
    }

    fn used(&self) -> impl Iterator<Item = (u32, Entry<'_>)> {
        let entries = self.entries.chunks_exact(self.entry_size);
        let numbered = (1..).zip(entries);
        numbered
            .filter(|(_, entry)| !is_unused(entry))
            .map(|(number, entry)| (number, Entry(Fields(entry))))
    }
}

/// An entry in use.
struct Entry<'a>(Fields<'a>);

impl Entry<'_> {
    /// In sectors. The end of an impossible one is its start.
    fn range(&self) -> Range<u64> {
        let first = self.0.le64(32);
        first..self.0.le64(40).checked_add(1).unwrap_or(first)
    }

    fn partition(&self, number: u32, sector_size: u64) -> Partition {
        let range = self.range();
        let fields = self.0;
        let uuid = super::gpt::guid(fields.array(16));
        let attributes = fields.le64(48);
        Partition {
            number,
            range: range.start.saturating_mul(sector_size)..range.end.saturating_mul(sector_size),
            kind: PartitionKind::Gpt(super::gpt::guid(fields.array(0))),
            label: super::gpt::label(fields.slice(56, NAME * 2)),
            uuid: (uuid != 0).then(|| Uuid::from_u128(uuid).to_string()),
            bootable: attributes & super::gpt::LEGACY_BOOTABLE != 0,
            attributes,
        }
    }
}

impl Gpt {
    /// The copy to believe, and the size of its sectors.
    fn best_copy(disk: &Volume<'_>) -> Result<Option<(u64, Copy)>> {
        for at_end in [false, true] {
            for sector_size in super::gpt::SECTOR_SIZES {
                let Some(end) = (disk.size() / sector_size).checked_sub(1) else {
                    continue;
                };
                let lba = if at_end { end } else { PRIMARY };
                if let Some(copy) = super::gpt::sound_copy(disk, sector_size, lba)? {
                    return Ok(Some((sector_size, copy)));
                }
            }
        }
        Ok(None)
    }
}

fn is_unused(entry: &[u8]) -> bool {
    entry.iter().take(16).all(|&byte| byte == 0)
}

fn le32(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

fn put(record: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(field) = record.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}
