//! A writer of ISO9660 volumes with Rock Ridge and Joliet: a tree of files.
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
//!        19..    path tables of the primary tree, little- and big-endian, and those of the Joliet tree
//!                the directories of the primary tree, those of the Joliet tree, the files
//! ```
//!
//! Where a file is empty its record names no extent: sector 0, as readers expect it.

mod directory;
mod names;
mod tree;

#[cfg(test)]
mod tests;

use crate::error::{Error, Escaped, Result};
use directory::{Extent, Places, Tree};
use names::Entry;
use tree::{Directory, Node};

/// Bytes of a logical sector (6.1.2) and of a logical block here (6.2.2).
pub const SECTOR: usize = 2048;
/// Longest name of a file, in characters: what Joliet holds.
pub const MAX_NAME: usize = 64;
/// Longest volume label, in bytes: the volume identifier of the primary descriptor (8.4.8).
pub const MAX_LABEL: usize = 32;
/// What of it Joliet's descriptor holds, in UCS-2 characters; the rest is cut there, as by xorriso.
const JOLIET_LABEL: usize = 16;

/// The first path table.
const TABLES: u32 = 19;
/// The whole is a multiple of this many sectors: 32 KiB, what drives read ahead.
const MULTIPLE: usize = 16;
/// More files than this are refused.
const MAX_FILES: usize = 60_000;

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path, as it is to be seen: names of [`MAX_NAME`] characters at most, with `/` between them.
    pub name: String,
    /// Its contents.
    pub bytes: Vec<u8>,
}

/// A volume to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume<'a> {
    /// The label; lower case and blanks are kept, which the standard does not know but all systems show.
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
    let files: Vec<(&str, u64)> = volume
        .files
        .iter()
        .map(|file| (file.name.as_str(), file.bytes.len() as u64))
        .collect();
    let plan = plan(volume.label, &files, volume.time)?;
    let mut image = plan.head;
    for (file, start) in volume.files.iter().zip(&plan.starts) {
        if !file.bytes.is_empty() {
            // Sectors follow one another in the order of the files.
            image.resize(usize::try_from(*start).unwrap_or(usize::MAX), 0);
            image.extend(&file.bytes);
        }
    }
    image.resize(usize::try_from(plan.size).unwrap_or(usize::MAX), 0);
    Ok(image)
}

/// A volume that is laid out: whoever writes it puts the head first, and each file where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Everything before the first file.
    pub head: Vec<u8>,
    /// Where each file begins, in bytes; in the order of the files, which is that of their places. Of one that is empty it
    /// means nothing.
    pub starts: Vec<u64>,
    /// Bytes of the whole; what belongs to nothing is zero.
    pub size: u64,
}

/// One of the two trees.
struct Laid {
    tree: Tree,
    /// Names of each directory, in its order.
    entries: Vec<Vec<Entry>>,
    /// Numbers of directories in the order of the path table (6.9.1), the root first.
    order: Vec<usize>,
    /// Where each directory lies.
    extents: Vec<Extent>,
    /// Lengths of the directories' identifiers, in the order of the path table.
    names: Vec<usize>,
    /// The first sector of its little-endian path table.
    tables: u32,
}

/// Lays out a volume of `files`: paths and lengths in bytes.
///
/// # Errors
/// As [`write()`].
pub fn plan(label: &str, files: &[(&str, u64)], time: i64) -> Result<Plan> {
    check_label(label)?;
    let time = Time::new(time);
    let directories = tree::directories(files.iter().map(|(name, _)| *name))?;
    let mut next = TABLES;
    let mut primary = lay_names(Tree::Primary, &directories);
    let mut joliet = lay_names(Tree::Joliet, &directories);
    for laid in [&mut primary, &mut joliet] {
        laid.tables = next;
        next += 2 * sectors(table_length(laid));
    }
    for laid in [&mut primary, &mut joliet] {
        for &number in &laid.order {
            let bytes = directory::length(
                laid.tree,
                number,
                &directories[number],
                &laid.entries[number],
            );
            let count = sectors(bytes);
            laid.extents[number] = root_extent(next, count);
            next += count;
        }
    }
    let mut head = vec![0; next as usize * SECTOR];
    let mut extents = Vec::with_capacity(files.len());
    for (name, length) in files {
        let length = u32::try_from(*length).map_err(|_| too_large(name))?;
        let sector = if length == 0 { 0 } else { next };
        extents.push(Extent { sector, length });
        next = next
            .checked_add(sectors(length as usize))
            .ok_or_else(|| too_large(name))?;
    }
    let total = (next as usize).next_multiple_of(MULTIPLE);

    for (sector, laid) in [(16, &primary), (17, &joliet)] {
        put(&mut head, sector, &descriptor(laid, label, total, &time));
    }
    put(&mut head, 18, &terminator());
    for laid in [&primary, &joliet] {
        let count = sectors(table_length(laid));
        let little = path_table(laid, &directories, u32::to_le_bytes, u16::to_le_bytes);
        let big = path_table(laid, &directories, u32::to_be_bytes, u16::to_be_bytes);
        put(&mut head, laid.tables, &little);
        put(&mut head, laid.tables + count, &big);
        let places = Places {
            directories: &laid.extents,
            files: &extents,
        };
        for &number in &laid.order {
            let bytes = directory::write(
                laid.tree,
                number,
                &directories[number],
                &laid.entries[number],
                &places,
                &time,
            );
            put(&mut head, laid.extents[number].sector, &bytes);
        }
    }
    Ok(Plan {
        head,
        starts: extents
            .iter()
            .map(|extent| u64::from(extent.sector) * SECTOR as u64)
            .collect(),
        size: total as u64 * SECTOR as u64,
    })
}

fn lay_names(tree: Tree, directories: &[Directory]) -> Laid {
    let entries: Vec<Vec<Entry>> = directories
        .iter()
        .map(|directory| match tree {
            Tree::Primary => names::primary(&directory.children),
            Tree::Joliet => names::joliet(&directory.children),
        })
        .collect();
    let mut order = vec![0];
    let mut at = 0;
    // Level by level, and in each the children of one directory after those of another.
    while let Some(&number) = order.get(at) {
        at += 1;
        for entry in &entries[number] {
            if let Node::Directory(below) = directories[number].children[entry.child].node {
                order.push(below);
            }
        }
    }
    let mut laid = Laid {
        tree,
        entries,
        order,
        extents: vec![root_extent(0, 0); directories.len()],
        names: Vec::new(),
        tables: 0,
    };
    let names = identifiers(&laid, directories);
    laid.names = names.iter().map(|name| name.len()).collect();
    laid
}

/// Identifiers of directories in the order of the path table; that of the root is one zero byte.
fn identifiers<'l>(laid: &'l Laid, directories: &[Directory]) -> Vec<&'l [u8]> {
    let mut found: Vec<&[u8]> = vec![&[0]; directories.len()];
    for (directory, entries) in directories.iter().zip(&laid.entries) {
        for entry in entries {
            if let Node::Directory(number) = directory.children[entry.child].node {
                found[number] = &entry.identifier;
            }
        }
    }
    laid.order.iter().map(|number| found[*number]).collect()
}

/// Whether a volume may be called `label`.
///
/// # Errors
/// It may not.
pub fn check_label(label: &str) -> Result<()> {
    let printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    if label.trim().is_empty() || label.len() > MAX_LABEL || !label.bytes().all(printable) {
        return Err(Error::usage(format!(
            "'{}': a label has 1 to {MAX_LABEL} printable ASCII characters",
            Escaped(label)
        )));
    }
    Ok(())
}

fn too_large(name: &str) -> Error {
    Error::unsupported(format!("'{}': a file of 4 GiB or more", Escaped(name)))
}

/// Sectors that hold `length` bytes.
fn sectors(length: usize) -> u32 {
    u32::try_from(length.div_ceil(SECTOR)).unwrap_or(u32::MAX)
}

fn root_extent(sector: u32, sectors: u32) -> Extent {
    // At most MAX_FILES records of 255 bytes.
    Extent {
        sector,
        length: sectors.saturating_mul(SECTOR as u32),
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
fn descriptor(laid: &Laid, label: &str, total: usize, time: &Time) -> Vec<u8> {
    let mut bytes = vec![0; SECTOR];
    let mut set = |at: usize, value: &[u8]| {
        if let Some(place) = bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    };
    let joliet = laid.tree == Tree::Joliet;
    let text = |value: &str, length: usize| -> Vec<u8> {
        let mut field = Vec::with_capacity(length);
        if joliet {
            let cut = value.encode_utf16().take(JOLIET_LABEL);
            field.extend(cut.flat_map(u16::to_be_bytes));
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
    let table = table_length(laid);
    set(132, &both_32(u32::try_from(table).unwrap_or(u32::MAX)));
    set(140, &laid.tables.to_le_bytes());
    set(148, &(laid.tables + sectors(table)).to_be_bytes());
    set(156, &directory::root_record(laid.extents[0], time));
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

/// Bytes of a path table.
fn table_length(laid: &Laid) -> usize {
    laid.names
        .iter()
        .map(|length| 8 + length.next_multiple_of(2))
        .sum()
}

/// 9.4: a record for each directory, with its parent's place in this table, counted from 1.
fn path_table(
    laid: &Laid,
    directories: &[Directory],
    four: fn(u32) -> [u8; 4],
    two: fn(u16) -> [u8; 2],
) -> Vec<u8> {
    let mut place = vec![0u16; directories.len()];
    for (at, number) in laid.order.iter().enumerate() {
        place[*number] = u16::try_from(at + 1).unwrap_or(u16::MAX);
    }
    let mut bytes = Vec::new();
    for (number, identifier) in laid.order.iter().zip(identifiers(laid, directories)) {
        bytes.push(u8::try_from(identifier.len()).unwrap_or(u8::MAX));
        bytes.push(0);
        bytes.extend(four(laid.extents[*number].sector));
        bytes.extend(two(place[directories[*number].parent]));
        bytes.extend(identifier);
        if !identifier.len().is_multiple_of(2) {
            bytes.push(0);
        }
    }
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
