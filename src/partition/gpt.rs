//! GPT: both headers, their entries, and what of them is to be believed.
//!
//! Source: the UEFI specification 2.10, section 5.3. Every number is checked against the disk before it is used, and
//! both checksums before anything is.

use std::borrow::Cow;
use std::ops::Range;

use uuid::Uuid;

use super::Partition;
use super::kind::PartitionKind;
use crate::error::Result;
use crate::fields::Fields;
use crate::volume::Volume;

pub(super) const SIGNATURE: &[u8; 8] = b"EFI PART";
/// Bytes of a header that mean something.
const HEADER: usize = 92;
const LEAST_ENTRY: u32 = 128;
/// Most bytes of entries: 8192 partitions of the usual 128 bytes; the specification asks for 16 KiB at least.
const MOST_ENTRIES: u64 = 1 << 20;
/// Attribute bit 2, "Legacy BIOS Bootable".
pub(super) const LEGACY_BOOTABLE: u64 = 1 << 2;
/// Sizes of sectors that disks show.
pub(super) const SECTOR_SIZES: [u64; 2] = [512, 4096];

/// What a disk has of a GPT.
#[derive(Debug, Default)]
pub(super) struct Gpt {
    /// Whether one of both copies is sound.
    pub(super) found: bool,
    /// Whether that is the first.
    pub(super) primary: bool,
    pub(super) sector_size: u64,
    pub(super) uuid: Option<String>,
    pub(super) partitions: Vec<Partition>,
    /// Headers and entries.
    pub(super) structure: Vec<Range<u64>>,
    /// Sectors before the first that a partition may use.
    pub(super) reserved: Range<u64>,
    pub(super) notes: Vec<String>,
    pub(super) damaged: Option<Cow<'static, str>>,
}

/// A header with its entries, both sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) lba: u64,
    alternate: u64,
    pub(super) first_usable: u64,
    pub(super) last_usable: u64,
    pub(super) disk: u128,
    pub(super) entry_size: usize,
    pub(super) entries: Vec<u8>,
    /// Header and entries, in bytes of the disk.
    pub(super) structure: [Range<u64>; 2],
}

/// What is where a header should be.
#[derive(Debug)]
enum Place {
    Nothing,
    Damaged(&'static str),
    Sound(Copy),
}

impl Place {
    fn fault(&self) -> &'static str {
        match self {
            Self::Nothing => "missing",
            Self::Damaged(why) => why,
            Self::Sound(_) => "sound",
        }
    }
}

/// Reads both copies. Whether there should be any is for the MBR to say.
pub(super) fn read(disk: &Volume<'_>) -> Result<Gpt> {
    let mut gpt = Gpt::default();
    let mut first = Vec::new();
    let mut last = Vec::new();
    let mut fault = "missing";
    for sector_size in SECTOR_SIZES {
        let Some(end) = (disk.size() / sector_size).checked_sub(1) else {
            continue;
        };
        match copy(disk, sector_size, 1)? {
            Place::Sound(copy) => first.push((sector_size, copy)),
            Place::Damaged(why) => fault = why,
            Place::Nothing => {}
        }
        if let Place::Sound(copy) = copy(disk, sector_size, end)? {
            last.push((sector_size, copy));
        }
    }
    if first.len() > 1 || (first.is_empty() && last.len() > 1) {
        let damage = "there is a GPT for sectors of 512 bytes, and one for sectors of 4096";
        gpt.damaged = Some(damage.into());
    }
    gpt.primary = !first.is_empty();
    let chosen = first.into_iter().next().or_else(|| {
        gpt.notes.push(format!(
            "the first GPT is {fault}; the one at the end is used"
        ));
        last.first().cloned()
    });
    let Some((sector_size, chosen)) = chosen else {
        gpt.notes.clear();
        let damage = format!("the first GPT is {fault}, and there is none at the end");
        gpt.damaged = Some(damage.into());
        return Ok(gpt);
    };
    gpt.found = true;
    gpt.sector_size = sector_size;
    gpt.uuid = Some(Uuid::from_u128(chosen.disk).to_string());
    gpt.structure.extend(chosen.structure.iter().cloned());
    gpt.reserved = 0..chosen.first_usable.saturating_mul(sector_size);
    if gpt.primary {
        let last = last.into_iter().find(|(size, _)| *size == sector_size);
        gpt.compare(disk, &chosen, last.map(|(_, copy)| copy))?;
    }
    gpt.list(disk, &chosen);
    Ok(gpt)
}

impl Gpt {
    /// Compares the first copy with the others: the one that it names, and what is at the end of the disk.
    fn compare(&mut self, disk: &Volume<'_>, first: &Copy, last: Option<Copy>) -> Result<()> {
        let sectors = disk.size() / self.sector_size;
        let at_end = first.alternate == sectors.saturating_sub(1);
        let named = if at_end || first.alternate <= first.lba {
            None
        } else {
            Some(copy(disk, self.sector_size, first.alternate)?)
        };
        match &named {
            None if last.is_none() => {
                let note = "the second GPT is missing or damaged; the first is used";
                self.notes.push(note.to_owned());
            }
            None => {}
            Some(_) if first.alternate >= sectors => {
                let note = "the second GPT should be past the end of the disk, which was cut off";
                self.notes.push(note.to_owned());
            }
            Some(Place::Sound(_)) => {
                let note = "the second GPT is not at the end of the disk, which has grown";
                self.notes.push(note.to_owned());
            }
            Some(place) => self.notes.push(format!(
                "the second GPT, not at the end of the disk, is {}; the first is used",
                place.fault()
            )),
        }
        let named = named.and_then(|place| match place {
            Place::Sound(copy) => Some(copy),
            _ => None,
        });
        for other in named.into_iter().chain(last) {
            self.structure.extend(other.structure.iter().cloned());
            if !first.agrees(&other) {
                let damage = "both of its copies are sound, but they differ";
                self.damaged.get_or_insert(damage.into());
            }
        }
        Ok(())
    }

    /// Enters the partitions.
    fn list(&mut self, disk: &Volume<'_>, copy: &Copy) {
        for (number, entry) in (1..).zip(copy.entries.chunks(copy.entry_size)) {
            let fields = Fields(entry);
            let kind = guid(fields.array(0));
            if kind == 0 {
                continue;
            }
            let (first, last) = (fields.le64(32), fields.le64(40));
            let bytes = |sectors: u64| sectors.checked_mul(self.sector_size);
            let range = bytes(first).zip(last.checked_add(1).and_then(bytes));
            let Some((start, end)) = range.filter(|(start, end)| start < end) else {
                let damage = format!("partition {number} has impossible limits");
                self.damaged.get_or_insert(damage.into());
                continue;
            };
            if end <= disk.size() && (first < copy.first_usable || last > copy.last_usable) {
                self.notes.push(format!(
                    "partition {number} is outside the range that the GPT has for partitions"
                ));
            }
            let attributes = fields.le64(48);
            let uuid = guid(fields.array(16));
            self.partitions.push(Partition {
                number,
                range: start..end,
                kind: PartitionKind::Gpt(kind),
                label: label(fields.slice(56, 72)),
                uuid: (uuid != 0).then(|| Uuid::from_u128(uuid).to_string()),
                bootable: attributes & LEGACY_BOOTABLE != 0,
                attributes,
            });
        }
    }
}

impl Copy {
    /// Whether both say the same of the disk.
    fn agrees(&self, other: &Self) -> bool {
        self.disk == other.disk
            && self.entry_size == other.entry_size
            && self.entries == other.entries
            && self.first_usable == other.first_usable
    }
}

/// The copy at sector `lba`, if it is sound.
pub(super) fn sound_copy(disk: &Volume<'_>, sector_size: u64, lba: u64) -> Result<Option<Copy>> {
    Ok(match copy(disk, sector_size, lba)? {
        Place::Sound(copy) => Some(copy),
        Place::Nothing | Place::Damaged(_) => None,
    })
}

/// What is at sector `lba`.
fn copy(disk: &Volume<'_>, sector_size: u64, lba: u64) -> Result<Place> {
    let sectors = disk.size() / sector_size;
    if lba == 0 || lba >= sectors {
        return Ok(Place::Nothing);
    }
    let header = disk.read_vec(lba * sector_size, usize::try_from(sector_size).unwrap_or(0))?;
    let fields = Fields(&header);
    if fields.array(0) != *SIGNATURE {
        return Ok(Place::Nothing);
    }
    let length = usize::try_from(fields.le32(12)).unwrap_or(usize::MAX);
    if !(HEADER..=header.len()).contains(&length) {
        return Ok(Place::Damaged(
            "damaged (its header's length is impossible)",
        ));
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(fields.slice(0, 16));
    hasher.update(&[0; 4]);
    hasher.update(fields.slice(20, length - 20));
    if !is_right(hasher.finalize(), fields.le32(16)) {
        return Ok(Place::Damaged("damaged (its header fails its checksum)"));
    }
    let (first_usable, last_usable) = (fields.le64(40), fields.le64(48));
    if fields.le64(24) != lba {
        return Ok(Place::Damaged("damaged (its header belongs elsewhere)"));
    }
    if first_usable < 2 || first_usable > last_usable || first_usable >= sectors {
        return Ok(Place::Damaged("damaged (its limits are impossible)"));
    }
    let (entries_lba, count, entry_size) = (fields.le64(72), fields.le32(80), fields.le32(84));
    let length = u64::from(count) * u64::from(entry_size);
    let known = entry_size >= LEAST_ENTRY && entry_size.is_power_of_two();
    if !known || length == 0 || length > MOST_ENTRIES {
        return Ok(Place::Damaged("damaged (its entries' size is impossible)"));
    }
    let start = entries_lba.checked_mul(sector_size);
    let end = start.and_then(|start| start.checked_add(length));
    let (Some(start), Some(end)) = (start, end.filter(|&end| end <= disk.size())) else {
        return Ok(Place::Damaged(
            "damaged (its entries are past the end of the disk)",
        ));
    };
    if entries_lba < 2 {
        return Ok(Place::Damaged(
            "damaged (its entries are where its header is)",
        ));
    }
    let entries = disk.read_vec(start, usize::try_from(length).unwrap_or(0))?;
    if !is_right(crc32fast::hash(&entries), fields.le32(88)) {
        return Ok(Place::Damaged("damaged (its entries fail their checksum)"));
    }
    Ok(Place::Sound(Copy {
        lba,
        alternate: fields.le64(32),
        first_usable,
        last_usable,
        disk: guid(fields.array(56)),
        entry_size: usize::try_from(entry_size).unwrap_or(usize::MAX),
        entries,
        structure: [lba * sector_size..(lba + 1) * sector_size, start..end],
    }))
}

/// A fuzzer does not find checksums.
fn is_right(computed: u32, stored: u32) -> bool {
    computed == stored || cfg!(fuzzing)
}

/// A GUID as the number that its text spells: its first three fields are little-endian.
pub(super) fn guid(bytes: [u8; 16]) -> u128 {
    Uuid::from_bytes_le(bytes).as_u128()
}

/// A name in UTF-16, up to the first zero.
pub(super) fn label(bytes: &[u8]) -> Option<String> {
    let units: Vec<u16> = bytes
        .chunks_exact(2)
        .map(|pair| Fields(pair).le16(0))
        .take_while(|&unit| unit != 0)
        .collect();
    (!units.is_empty()).then(|| String::from_utf16_lossy(&units))
}
