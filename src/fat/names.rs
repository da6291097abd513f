//! Names as directories store them: short ones, and pieces of long ones.
//!
//! A name gets a long form only when the short one cannot say it. Names all in lower case, or with an extension in
//! another case than the rest, are said by two bits beside the short name, which Windows NT, Linux, mtools, GRUB and
//! UEFI's own driver know.

use std::collections::BTreeSet;

use crate::error::{Error, Escaped, Result};

/// A short name: 8 bytes and 3, padded with blanks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Short(pub(super) [u8; 11]);

/// How a name is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) short: Short,
    /// Which parts of the short name are in lower case.
    pub(super) case: u8,
    /// Units of the long name; none when the short one says it all.
    pub(super) long: Vec<u16>,
}

/// Bits of the case.
const LOWER_BASE: u8 = 0x08;
const LOWER_EXTENSION: u8 = 0x10;
/// Units of UTF-16 in a piece.
const UNITS: usize = 13;
/// Bytes of a record.
pub(super) const RECORD: usize = 32;
const ATTRIBUTE_LONG_NAME: u8 = 0x0f;
const LAST_PIECE: u8 = 0x40;

/// Stores the names of one directory; they are all different, even without their case.
pub(super) fn store<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Result<Vec<Stored>> {
    // A name that needs no other form keeps it, whatever comes before.
    let mut used: BTreeSet<Short> = names.clone().filter_map(exact).map(|(it, _)| it).collect();
    names
        .map(|name| {
            if let Some((short, case)) = exact(name) {
                return Ok(Stored {
                    short,
                    case,
                    long: Vec::new(),
                });
            }
            let short = generate(name, &used)?;
            used.insert(short);
            Ok(Stored {
                short,
                case: 0,
                long: name.encode_utf16().collect(),
            })
        })
        .collect()
}

/// The volume's name.
pub(super) fn label(text: &str) -> Result<Short> {
    let allowed = |c: char| matches!(c, ' '..='~') && !"\"*+,./:;<=>?[\\]|".contains(c);
    if text.trim().is_empty()
        || text.starts_with(' ')
        || text.len() > 11
        || !text.chars().all(allowed)
    {
        return Err(
            Error::usage(format!("'{}' is no name for a FAT volume", Escaped(text)))
                .with_remedy("write 1 to 11 letters, digits, blanks or signs such as - and _"),
        );
    }
    Ok(Short(padded(text.as_bytes(), b"", b"")))
}

impl Stored {
    /// Records of the directory that it takes.
    pub(super) fn records(&self) -> usize {
        1 + self.long.len().div_ceil(UNITS)
    }

    /// The pieces of its long name as they stand in the directory, the last one first.
    pub(super) fn pieces(&self) -> impl Iterator<Item = [u8; RECORD]> + '_ {
        let count = self.long.len().div_ceil(UNITS);
        let checksum = self.short.checksum();
        let pieces = self.long.chunks(UNITS).enumerate().rev();
        pieces.map(move |(n, units)| {
            let mut record = [0xff; RECORD];
            let number = u8::try_from(n + 1).unwrap_or(LAST_PIECE);
            let last = if n + 1 == count { LAST_PIECE } else { 0 };
            let marks = [(0, number | last), (11, ATTRIBUTE_LONG_NAME), (12, 0)];
            let marks = marks.into_iter().chain([(13, checksum), (26, 0), (27, 0)]);
            for (at, byte) in marks {
                put(&mut record, at, &[byte]);
            }
            let places = (1..11).step_by(2).chain((14..26).step_by(2));
            let places = places.chain((28..32).step_by(2));
            // A name that does not fill its last piece ends with a zero.
            for (unit, at) in units.iter().chain(&[0]).zip(places) {
                put(&mut record, at, &unit.to_le_bytes());
            }
            record
        })
    }
}

/// Writes `bytes` at `at` of a record or sector; all places are constants within it.
pub(super) fn put(record: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(field) = record.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}

impl Short {
    /// What every piece of a long name says of the short name that it belongs to.
    fn checksum(self) -> u8 {
        self.0
            .iter()
            .fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
    }
}

/// The short form that says all of `name`, and its case.
fn exact(name: &str) -> Option<(Short, u8)> {
    let (base, extension) = match name.rsplit_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (name, ""),
    };
    let fits = (1..=8).contains(&base.len()) && extension.len() <= 3;
    let plain = |part: &str| part.bytes().all(|byte| is_short(byte.to_ascii_uppercase()));
    let one_case = |part: &str| {
        let lower = part.bytes().any(|byte| byte.is_ascii_lowercase());
        let upper = part.bytes().any(|byte| byte.is_ascii_uppercase());
        (!(lower && upper)).then_some(lower)
    };
    if !fits || !plain(base) || !plain(extension) {
        return None;
    }
    let base_bit = if one_case(base)? { LOWER_BASE } else { 0 };
    let extension_bit = if one_case(extension)? {
        LOWER_EXTENSION
    } else {
        0
    };
    let upper = (base.to_ascii_uppercase(), extension.to_ascii_uppercase());
    let short = Short(padded(upper.0.as_bytes(), b"", upper.1.as_bytes()));
    Some((short, base_bit | extension_bit))
}

fn is_short(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"!#$%&'()-@^_`{}~".contains(&byte)
}

/// `base` cut so that `tail` fits behind it, and the extension.
fn padded(base: &[u8], tail: &[u8], extension: &[u8]) -> [u8; 11] {
    let mut name = [b' '; 11];
    let room = if extension.is_empty() && tail.is_empty() {
        11
    } else {
        8 - tail.len().min(8)
    };
    let base = base.get(..room).unwrap_or(base);
    put(&mut name, 0, base);
    put(&mut name, base.len(), tail);
    put(&mut name, 8, extension);
    name
}

/// A short form that no other name has, for a name that needs a long one.
///
/// As Windows does it: the first letters with `~1` to `~4`; when those are taken, two letters, four digits of a checksum of
/// the name, and `~1`. So names that begin alike by the thousand need no long search.
fn generate(name: &str, used: &BTreeSet<Short>) -> Result<Short> {
    let upper = name.to_ascii_uppercase();
    if let Some((short, _)) = exact(&upper).filter(|(short, _)| !used.contains(short)) {
        return Ok(short);
    }
    let body = upper.trim_start_matches(['.', ' ']);
    let (base, extension) = body.rsplit_once('.').unwrap_or((body, ""));
    let convert = |part: &str, most: usize| -> Vec<u8> {
        part.chars()
            .filter(|c| !matches!(c, ' ' | '.'))
            .map(|c| {
                u8::try_from(c)
                    .ok()
                    .filter(|byte| is_short(*byte))
                    .unwrap_or(b'_')
            })
            .take(most)
            .collect()
    };
    let mut base = convert(base, 6);
    if base.is_empty() {
        base.push(b'_');
    }
    let extension = convert(extension, 3);
    for number in 1..=4 {
        let short = Short(padded(&base, format!("~{number}").as_bytes(), &extension));
        if !used.contains(&short) {
            return Ok(short);
        }
    }
    base.truncate(2);
    let mut digest = crc32fast::hash(name.as_bytes());
    for _ in 0..1 << 16 {
        for number in 1..=9 {
            let tail = format!("{:04X}~{number}", digest & 0xffff);
            let short = Short(padded(&base, tail.as_bytes(), &extension));
            if !used.contains(&short) {
                return Ok(short);
            }
        }
        digest = digest.wrapping_add(1);
    }
    Err(Error::usage(format!(
        "there are too many names like '{}' in one directory",
        Escaped(name)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shorts(names: &[&str]) -> Vec<String> {
        store(names.iter().copied())
            .unwrap()
            .iter()
            .map(|stored| {
                let name = String::from_utf8(stored.short.0.to_vec()).unwrap();
                format!("{name} {:x} {}", stored.case, stored.records())
            })
            .collect()
    }

    #[test]
    fn a_long_form_is_written_only_where_it_is_needed() {
        assert_eq!(
            shorts(&["BOOTX64.EFI", "grub.cfg", "README", "x.EFI", "A.b", "~1"]),
            [
                "BOOTX64 EFI 0 1",
                "GRUB    CFG 18 1",
                "README      0 1",
                "X       EFI 8 1",
                "A       B   10 1",
                "~1          0 1",
            ]
        );
        assert_eq!(
            shorts(&[
                "user-data",
                "Mixed.Txt",
                ".profile",
                "a b",
                "größe",
                "a.b.c",
                "x.conf"
            ]),
            [
                "USER-D~1    0 2",
                "MIXED   TXT 0 2",
                "PROFIL~1    0 2",
                "AB~1        0 2",
                "GR__E~1     0 2",
                "AB~1    C   0 2",
                "X~1     CON 0 2",
            ]
        );
    }

    #[test]
    fn short_forms_differ_whatever_the_names_are() {
        let names: Vec<String> = (0..20_000)
            .map(|n| format!("the same start {n}.txt"))
            .collect();
        let stored = store(names.iter().map(String::as_str)).unwrap();
        let different: BTreeSet<Short> = stored.iter().map(|stored| stored.short).collect();
        assert_eq!(different.len(), names.len());
        assert_eq!(
            shorts(&["longer name.txt", "LONGER~1.TXT", "Longer~2.txt"])[..2],
            ["LONGER~2TXT 0 3", "LONGER~1TXT 0 1"]
        );
    }

    #[test]
    fn a_label_is_kept_as_it_is() {
        assert_eq!(label("cidata").unwrap().0, *b"cidata     ");
        assert_eq!(label("ELEVEN CHAR").unwrap().0, *b"ELEVEN CHAR");
        for bad in ["", " ", "twelve chars", "a/b", "ü", "a.b", " a"] {
            assert!(label(bad).is_err(), "{bad}");
        }
    }
}
