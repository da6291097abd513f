//! Records of directories: where a file is, and its name without any extension.
//!
//! Source: ECMA-119 chapter 9.1, "Format of a Directory Record"; the Joliet Specification.

use crate::fields::Fields;
use crate::fs::tree::Timestamp;

/// Bytes of a record before its name.
pub(super) const HEADER: usize = 33;

const FLAG_DIRECTORY: u8 = 1 << 1;
const FLAG_ASSOCIATED: u8 = 1 << 2;
const FLAG_MORE: u8 = 1 << 7;

/// Blocks of a file that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first block; it may be one of the file's own attributes, which are before the data.
    pub(super) block: u64,
    pub(super) length: u64,
}

/// A record, whole and of a name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) extent: Extent,
    pub(super) is_directory: bool,
    /// Something else that belongs to a file of the same name, as on a Macintosh.
    pub(super) is_associated: bool,
    /// The file goes on in the next record.
    pub(super) has_more: bool,
    pub(super) interleaved: bool,
    pub(super) time: Option<Timestamp>,
    pub(super) name: &'a [u8],
    /// Fields that the standard leaves to the system.
    pub(super) system: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record that `bytes` begin with; `None` where there is none that can be.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let length = usize::from(Fields(bytes).u8(0));
        let bytes = bytes.get(..length)?;
        let fields = Fields(bytes);
        let name_length = usize::from(fields.u8(32));
        if length < HEADER + 1 || name_length == 0 || HEADER + name_length > length {
            return None;
        }
        let flags = fields.u8(25);
        let extent = Extent {
            block: u64::from(fields.le32(2)).checked_add(u64::from(fields.u8(1)))?,
            length: u64::from(fields.le32(10)),
        };
        // Behind a name of even length is a byte that makes it odd.
        let system = (HEADER + name_length).next_multiple_of(2);
        Some(Self {
            bytes,
            extent,
            is_directory: flags & FLAG_DIRECTORY != 0,
            is_associated: flags & FLAG_ASSOCIATED != 0,
            has_more: flags & FLAG_MORE != 0,
            interleaved: fields.u8(26) != 0 || fields.u8(27) != 0,
            time: short_time(fields.array(18)),
            name: fields.slice(HEADER, name_length),
            system: bytes.get(system..).unwrap_or_default(),
        })
    }

    /// Whether it is that of the directory itself or of the one above.
    pub(super) fn is_dots(&self) -> bool {
        matches!(self.name, [0 | 1])
    }
}

/// The name as Linux shows it: in lower case, without a version and without a dot that nothing follows.
pub(super) fn plain_name(name: &[u8]) -> Vec<u8> {
    without_version(name.to_ascii_lowercase())
}

fn without_version(mut name: Vec<u8>) -> Vec<u8> {
    if name.ends_with(b";1") {
        name.truncate(name.len() - 2);
    }
    if name.ends_with(b".") {
        name.pop();
    }
    // Whatever other version it has is part of the name, but not with this sign.
    for byte in &mut name {
        if matches!(byte, b';' | b'/') {
            *byte = b'.';
        }
    }
    name
}

/// A name of Joliet's, which is UTF-16 with the higher byte first.
pub(super) fn joliet_name(name: &[u8]) -> Vec<u8> {
    let units = name.chunks_exact(2);
    let units: Vec<u16> = units
        .map(|unit| u16::from_be_bytes([unit[0], unit[1]]))
        .collect();
    without_version(String::from_utf16_lossy(&units).into_bytes())
}

/// Years since 1900, month, day, hour, minute, second, and the zone in quarters of an hour.
pub(super) fn short_time(fields: [u8; 7]) -> Option<Timestamp> {
    let [year, month, day, hour, minute, second, zone] = fields;
    timestamp(
        i64::from(year) + 1900,
        [month, day, hour, minute, second],
        0,
        zone.cast_signed(),
    )
}

/// The same in digits, with hundredths of a second.
pub(super) fn long_time(fields: [u8; 17]) -> Option<Timestamp> {
    let number = |from: usize, length: usize| -> Option<i64> {
        let digits = std::str::from_utf8(Fields(&fields).slice(from, length)).ok()?;
        digits.parse().ok()
    };
    let short = |from: usize| -> Option<u8> { number(from, 2)?.try_into().ok() };
    timestamp(
        number(0, 4)?,
        [short(4)?, short(6)?, short(8)?, short(10)?, short(12)?],
        short(14)?,
        fields[16].cast_signed(),
    )
}

/// `None` when there is no such day or time.
fn timestamp(year: i64, fields: [u8; 5], hundredths: u8, zone: i8) -> Option<Timestamp> {
    let [month, day, hour, minute, second] = fields.map(i64::from);
    let is_time = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && hundredths < 100;
    if !is_time {
        return None;
    }
    // Years begin in March: then the day that some lack is the last one.
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    // From 1970 back to the first of March of year 0 there are 719468 days.
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(Timestamp {
        seconds: days * 86400 + hour * 3600 + minute * 60 + second - i64::from(zone) * 900,
        nanoseconds: u32::from(hundredths) * 10_000_000,
    })
}
