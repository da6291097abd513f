//! A writer of ISO9660 volumes with Rock Ridge and Joliet: files in a root directory.
//!
//! Knows names, bytes and one point in time, and gives the whole volume back; the same
//! input gives the same bytes. Must not know what the files are for. Sections are those of ECMA-119
//! (2nd edition), RRIP is the Rock Ridge Interchange Protocol 1.10, SUSP the System Use Sharing Protocol 1.10.
//!
//! ```text
//! sector 0..16   system area: zeros
//!        16      primary volume descriptor
//!        17      supplementary one (Joliet)
//!        18      terminator
//!        19, 20  path tables of the primary tree, little- and big-endian
//!        21, 22  those of the Joliet tree
//!        23..    the root directory of the primary tree, that of the Joliet tree, the files
//! ```
//!
//! Where a file is empty its record names no extent: sector 0, as readers expect it.

mod directory;
mod names;

#[cfg(test)]
mod tests;

use crate::error::{Error, ErrorKind, Result};
use directory::{Extent, Tree};

/// Bytes of a logical sector (6.1.2) and of a logical block here (6.2.2).
pub const SECTOR: usize = 2048;
/// Longest name of a file, in characters: what Joliet holds.
pub const MAX_NAME: usize = 64;
/// Longest volume label, in bytes: 16 UCS-2 characters of the Joliet descriptor (8.5.3 with Joliet).
pub const MAX_LABEL: usize = 16;

/// Path tables, and what precedes them.
const PRIMARY_TABLES: u32 = 19;
const JOLIET_TABLES: u32 = 21;
const ROOT: u32 = 23;
/// The whole is a multiple of this many sectors: 32 KiB, what drives read ahead.
const MULTIPLE: usize = 16;
/// More files than this would be no seed; their names stay unique in eight characters.
const MAX_FILES: usize = 1000;

/// A file of the root directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name, as it is to be seen: any but `/` and NUL, [`MAX_NAME`] characters at most.
    pub name: String,
    /// Its contents.
    pub bytes: Vec<u8>,
}

/// A volume to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume<'a> {
    /// The label; lower case is kept, which the standard does not know but all systems show.
    pub label: &'a str,
    /// What is in it.
    pub files: &'a [File],
    /// All timestamps: seconds since 1970 in UTC.
    pub time: i64,
}

/// The bytes of `volume`.
///
/// # Errors
/// A label or name that the format does not hold, a name twice, a file of 4 GiB or more.
pub fn write(volume: &Volume<'_>) -> Result<Vec<u8>> {
    check(volume)?;
    let time = Time::new(volume.time);
    let primary = names::primary(volume.files);
    let joliet = names::joliet(volume.files);
    let lengths = |tree: Tree| {
        let entries = match tree {
            Tree::Primary => &primary,
            Tree::Joliet => &joliet,
        };
        sectors(directory::length(tree, entries, volume.files))
    };
    let (primary_sectors, joliet_sectors) = (lengths(Tree::Primary), lengths(Tree::Joliet));
    let joliet_root = ROOT + primary_sectors;
    let mut next = joliet_root + joliet_sectors;
    let mut extents = Vec::with_capacity(volume.files.len());
    for file in volume.files {
        let length = u32::try_from(file.bytes.len()).map_err(|_| too_large(&file.name))?;
        let sector = if length == 0 { 0 } else { next };
        extents.push(Extent { sector, length });
        next = next
            .checked_add(sectors(file.bytes.len()))
            .ok_or_else(|| too_large(&file.name))?;
    }
    let total = (next as usize).next_multiple_of(MULTIPLE);
    let mut image = vec![0; total * SECTOR];

    let primary_root = root_extent(ROOT, primary_sectors);
    let joliet_root = root_extent(joliet_root, joliet_sectors);
    put(
        &mut image,
        16,
        &descriptor(Tree::Primary, volume.label, total, primary_root, &time),
    );
    put(
        &mut image,
        17,
        &descriptor(Tree::Joliet, volume.label, total, joliet_root, &time),
    );
    put(&mut image, 18, &terminator());
    for (first, root) in [(PRIMARY_TABLES, primary_root), (JOLIET_TABLES, joliet_root)] {
        put(
            &mut image,
            first,
            &path_table(root.sector.to_le_bytes(), 1u16.to_le_bytes()),
        );
        put(
            &mut image,
            first + 1,
            &path_table(root.sector.to_be_bytes(), 1u16.to_be_bytes()),
        );
    }
    for (tree, entries, root) in [
        (Tree::Primary, &primary, primary_root),
        (Tree::Joliet, &joliet, joliet_root),
    ] {
        let bytes = directory::write(tree, root, entries, volume.files, &extents, &time);
        put(&mut image, root.sector, &bytes);
    }
    for (file, extent) in volume.files.iter().zip(&extents) {
        put(&mut image, extent.sector, &file.bytes);
    }
    Ok(image)
}

fn check(volume: &Volume<'_>) -> Result<()> {
    let usage = |what: String| Err(Error::new(ErrorKind::Usage, what));
    let label = volume.label;
    if label.is_empty() || label.len() > MAX_LABEL || !label.bytes().all(|b| b.is_ascii_graphic()) {
        return usage(format!(
            "'{label}': a label has 1 to {MAX_LABEL} printable ASCII characters without spaces"
        ));
    }
    if volume.files.len() > MAX_FILES {
        return usage(format!("more than {MAX_FILES} files"));
    }
    for (at, file) in volume.files.iter().enumerate() {
        let name = file.name.as_str();
        // Joliet is UCS-2: what lies beyond the basic plane has no place in it.
        let fits = !name.is_empty()
            && name.chars().count() <= MAX_NAME
            && name.len() <= 2 * MAX_NAME
            && name != "."
            && name != ".."
            && name
                .chars()
                .all(|c| !c.is_control() && !"/\\:*?;".contains(c) && u32::from(c) < 0x1_0000);
        if !fits {
            return usage(format!(
                "'{}': not a name for a file in a seed",
                crate::error::Escaped(name)
            ));
        }
        if volume.files.iter().take(at).any(|other| other.name == name) {
            return usage(format!("'{name}' is there twice"));
        }
    }
    Ok(())
}

fn too_large(name: &str) -> Error {
    Error::unsupported(format!("'{name}': a file of 4 GiB or more"))
}

/// Sectors that hold `length` bytes.
fn sectors(length: usize) -> u32 {
    u32::try_from(length.div_ceil(SECTOR)).unwrap_or(u32::MAX)
}

fn root_extent(sector: u32, sectors: u32) -> Extent {
    // At most MAX_FILES records of 255 bytes.
    Extent {
        sector,
        length: sectors * SECTOR as u32,
    }
}

/// Copies `bytes` to `sector`, which the image was made to hold.
fn put(image: &mut [u8], sector: u32, bytes: &[u8]) {
    let start = sector as usize * SECTOR;
    if let Some(place) = image.get_mut(start..start + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// A point in time, in both of the standard's forms.
struct Time {
    year: i64,
    /// Month, day, hour, minute, second.
    rest: [u8; 5],
}

impl Time {
    /// Years that the seven bytes of a directory record hold end with 2155.
    fn new(seconds: i64) -> Self {
        let seconds = seconds.clamp(0, 5_869_583_999);
        let (days, of_day) = (seconds / 86_400, seconds % 86_400);
        // Civil date from days since 1970: years begin in March, so that the leap day ends them.
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let small = |value: i64| u8::try_from(value).unwrap_or(0);
        Self {
            year,
            rest: [
                small(month),
                small(day),
                small(of_day / 3600),
                small(of_day / 60 % 60),
                small(of_day % 60),
            ],
        }
    }

    /// 9.1.5: years since 1900, month, day, hour, minute, second, zone.
    fn short(&self) -> [u8; 7] {
        let [month, day, hour, minute, second] = self.rest;
        let year = u8::try_from(self.year - 1900).unwrap_or(u8::MAX);
        [year, month, day, hour, minute, second, 0]
    }

    /// 8.4.26.1: digits up to hundredths, then the zone.
    fn long(&self) -> [u8; 17] {
        let [month, day, hour, minute, second] = self.rest;
        let text = format!(
            "{:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}00",
            self.year
        );
        let mut bytes = [0; 17];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        bytes
    }
}

/// 8.4 and 8.5: a volume descriptor.
fn descriptor(tree: Tree, label: &str, total: usize, root: Extent, time: &Time) -> Vec<u8> {
    let mut bytes = vec![0; SECTOR];
    let mut set = |at: usize, value: &[u8]| {
        if let Some(place) = bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    };
    let joliet = tree == Tree::Joliet;
    let text = |value: &str, length: usize| -> Vec<u8> {
        let mut field = Vec::with_capacity(length);
        if joliet {
            field.extend(value.encode_utf16().flat_map(u16::to_be_bytes));
            while field.len() + 2 <= length {
                field.extend([0, b' ']);
            }
        } else {
            field.extend(value.bytes());
        }
        field.resize(length, if joliet { 0 } else { b' ' });
        field
    };
    set(0, &[if joliet { 2 } else { 1 }]);
    set(1, b"CD001\x01");
    set(8, &text("", 32));
    set(40, &text(label, 32));
    let total = u32::try_from(total).unwrap_or(u32::MAX);
    set(80, &both_32(total));
    if joliet {
        // UCS-2 level 3.
        set(88, b"%/E");
    }
    set(120, &both_16(1));
    set(124, &both_16(1));
    set(128, &both_16(SECTOR as u16));
    let (table, tables) = (
        10,
        if joliet {
            JOLIET_TABLES
        } else {
            PRIMARY_TABLES
        },
    );
    set(132, &both_32(table));
    set(140, &tables.to_le_bytes());
    set(148, &(tables + 1).to_be_bytes());
    set(156, &directory::root_record(root, time));
    // Identifiers of volume set, publisher, preparer, application; copyright, abstract and bibliographic files.
    for (at, length) in [
        (190, 128),
        (318, 128),
        (446, 128),
        (574, 128),
        (702, 37),
        (739, 37),
        (776, 37),
    ] {
        set(at, &text("", length));
    }
    set(813, &time.long());
    set(830, &time.long());
    for at in [847, 864] {
        set(at, b"0000000000000000\0");
    }
    set(881, &[1]);
    bytes
}

/// 8.3: the volume descriptor set terminator.
fn terminator() -> Vec<u8> {
    let mut bytes = vec![0; SECTOR];
    bytes.splice(0..7, *b"\xffCD001\x01");
    bytes
}

/// 9.4: the one record of the root, which is its own parent, and a padding byte.
fn path_table(sector: [u8; 4], parent: [u8; 2]) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    bytes.extend(sector);
    bytes.extend(parent);
    bytes.extend([0, 0]);
    bytes
}

/// 7.2.3.
fn both_16(value: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d]
}

/// 7.3.3.
fn both_32(value: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d, e, f, g, h]
}
