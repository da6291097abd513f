//! Names: long ones in pieces of UTF-16, and short ones in the OEM's code page.
//!
//! Which code page a guest has used is not on the disk; it is taken for 437, which mkfs.fat, mtools and Linux take.
//!
//! Source: "FAT: General Overview of On-Disk Format" 1.03, chapters "Long Directory Entries" and "Name Limits and
//! Character Sets"; `CASE_LOWER_BASE` of the kernel's `include/uapi/linux/msdos_fs.h`.

use super::boot::RECORD;
use crate::fields::Fields;

/// Units of UTF-16 in one piece, and the most pieces of a name.
const UNITS: usize = 13;
const MOST_PIECES: u8 = 20;

/// First byte of a name whose first byte is 0xe5 in truth, which would mean that it was deleted.
const KANJI_E5: u8 = 0x05;
/// Windows NT: the name, or what follows its dot, is all in lower case.
const LOWER_BASE: u8 = 0x08;
const LOWER_EXTENSION: u8 = 0x10;

/// Code page 437 from 0x80 on.
const CP437: [char; 128] = [
    'Ç', 'ü', 'é', 'â', 'ä', 'à', 'å', 'ç', 'ê', 'ë', 'è', 'ï', 'î', 'ì', 'Ä', 'Å', //
    'É', 'æ', 'Æ', 'ô', 'ö', 'ò', 'û', 'ù', 'ÿ', 'Ö', 'Ü', '¢', '£', '¥', '₧', 'ƒ', //
    'á', 'í', 'ó', 'ú', 'ñ', 'Ñ', 'ª', 'º', '¿', '⌐', '¬', '½', '¼', '¡', '«', '»', //
    '░', '▒', '▓', '│', '┤', '╡', '╢', '╖', '╕', '╣', '║', '╗', '╝', '╜', '╛', '┐', //
    '└', '┴', '┬', '├', '─', '┼', '╞', '╟', '╚', '╔', '╩', '╦', '╠', '═', '╬', '╧', //
    '╨', '╤', '╥', '╙', '╘', '╒', '╓', '╫', '╪', '┘', '┌', '█', '▄', '▌', '▐', '▀', //
    'α', 'ß', 'Γ', 'π', 'Σ', 'σ', 'µ', 'τ', 'Φ', 'Θ', 'Ω', 'δ', '∞', 'φ', 'ε', '∩', //
    '≡', '±', '≥', '≤', '⌠', '⌡', '÷', '≈', '°', '∙', '·', '√', 'ⁿ', '²', '■', '\u{a0}',
];

/// The pieces of a long name that were seen so far; the last one of a name comes first.
#[derive(Debug, Default)]
pub(super) struct LongName {
    /// Pieces in the order of the name; what is beyond the pieces that were seen is of another name.
    units: Vec<u16>,
    /// The piece that has to come next; 0 when all were seen.
    next: u8,
    checksum: u8,
    started: bool,
}

impl LongName {
    pub(super) fn forget(&mut self) {
        self.started = false;
    }

    /// Takes a piece.
    pub(super) fn push(&mut self, record: Fields<'_>) {
        let (order, checksum) = (record.u8(0), record.u8(13));
        let number = order & 0x3f;
        if order & 0x40 != 0 {
            *self = Self {
                units: vec![0; UNITS * usize::from(number.min(MOST_PIECES))],
                next: number,
                checksum,
                started: (1..=MOST_PIECES).contains(&number),
            };
        }
        if !self.started || number != self.next || checksum != self.checksum || number == 0 {
            self.forget();
            return;
        }
        self.next = number - 1;
        let places = (1..11).step_by(2).chain((14..26).step_by(2));
        let places = places.chain((28..32).step_by(2));
        let piece = self.units.chunks_mut(UNITS).nth(usize::from(number - 1));
        for (unit, at) in piece.into_iter().flatten().zip(places) {
            *unit = record.le16(at);
        }
    }

    /// The name, if all of it was seen and it is of this record, which has a short one.
    pub(super) fn finish(&mut self, record: Fields<'_>) -> Option<String> {
        let complete = self.started && self.next == 0 && self.checksum == checksum(record);
        self.forget();
        if !complete {
            return None;
        }
        let units = self.units.split(|&unit| unit == 0).next()?;
        (!units.is_empty()).then(|| String::from_utf16_lossy(units))
    }
}

/// What a piece of a long name says of the short name that it belongs to.
fn checksum(record: Fields<'_>) -> u8 {
    let name: [u8; 11] = record.array(0);
    name.iter()
        .fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// The short name of a record; empty when it has none.
pub(super) fn short_name(record: Fields<'_>) -> String {
    let mut bytes: [u8; 11] = record.array(0);
    if bytes[0] == KANJI_E5 {
        bytes[0] = 0xe5;
    }
    let case = record.u8(12);
    let mut name = decode(Fields(&bytes).slice(0, 8), case & LOWER_BASE != 0);
    let extension = decode(Fields(&bytes).slice(8, 3), case & LOWER_EXTENSION != 0);
    if !extension.is_empty() {
        name.push('.');
        name.push_str(&extension);
    }
    name
}

/// The name of a volume: blanks may be anywhere in it.
pub(super) fn label(record: Fields<'_>) -> String {
    let mut bytes: [u8; 11] = record.array(0);
    if bytes[0] == KANJI_E5 {
        bytes[0] = 0xe5;
    }
    decode(&bytes, false)
}

fn decode(bytes: &[u8], lower: bool) -> String {
    let text = bytes.iter().map(|&byte| {
        let high = usize::from(byte).checked_sub(CP437.len());
        high.and_then(|high| CP437.get(high).copied())
            .unwrap_or(char::from(byte))
    });
    let text: String = if lower {
        text.flat_map(char::to_lowercase).collect()
    } else {
        text.collect()
    };
    text.trim_end_matches(' ').to_owned()
}

/// Whether two names are the same to FAT, which knows no case.
pub(super) fn same(one: &str, other: &str) -> bool {
    let fold = |name: &str| -> Vec<char> { name.chars().flat_map(char::to_uppercase).collect() };
    one == other || fold(one) == fold(other)
}

/// Records of a directory, with their names put together.
#[derive(Debug, Default)]
pub(super) struct Names {
    long: LongName,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) long: Option<String>,
    pub(super) short: String,
}

/// What a record of a directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// The last one: nothing that follows was ever used.
    End,
    /// Of no use by itself: deleted, a piece of a name, the directory itself or the one above.
    Nothing,
    /// The volume's name.
    Label(String),
    /// A file or directory.
    Entry(Named),
}

/// Attributes of a record.
pub(super) const ATTRIBUTE_READ_ONLY: u8 = 0x01;
const ATTRIBUTE_LABEL: u8 = 0x08;
pub(super) const ATTRIBUTE_DIRECTORY: u8 = 0x10;
/// Read-only, hidden, system and label at once.
const ATTRIBUTE_LONG_NAME: u8 = 0x0f;

impl Names {
    /// Takes the next record of the directory.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Record {
        debug_assert_eq!(bytes.len() as u64, RECORD);
        let record = Fields(bytes);
        let attributes = record.u8(11);
        match record.u8(0) {
            0 => return Record::End,
            0xe5 => {}
            _ if is_long_name(record) => {
                self.long.push(record);
                return Record::Nothing;
            }
            _ if attributes & ATTRIBUTE_LABEL != 0 => {
                self.long.forget();
                return if attributes & ATTRIBUTE_DIRECTORY == 0 {
                    Record::Label(label(record))
                } else {
                    Record::Nothing
                };
            }
            _ => {
                let long = self.long.finish(record);
                let short = short_name(record);
                let shown = long.as_deref().unwrap_or(&short);
                if matches!(shown, "" | "." | "..") {
                    return Record::Nothing;
                }
                return Record::Entry(Named { long, short });
            }
        }
        self.long.forget();
        Record::Nothing
    }
}

/// Whether a record names a file or directory, whatever its name: not deleted, no piece of a name, no label.
pub(super) fn is_entry(record: Fields<'_>) -> bool {
    !matches!(record.u8(0), 0 | 0xe5) && record.u8(11) & ATTRIBUTE_LABEL == 0
}

/// Whether a record is a piece of a name.
pub(super) fn is_long_name(record: Fields<'_>) -> bool {
    record.u8(11) & 0x3f == ATTRIBUTE_LONG_NAME
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of a name whose short form is `short`, the way a writer makes them.
    fn records(units: &[u16], short: &[u8; 11]) -> Vec<[u8; 32]> {
        let mut entry = [0_u8; 32];
        entry[..11].copy_from_slice(short);
        let checksum = checksum(Fields(&entry));
        let pieces = units.chunks(UNITS).enumerate();
        let mut records: Vec<_> = pieces
            .map(|(n, piece)| {
                let mut record = [0xff_u8; 32];
                record[0] = u8::try_from(n + 1).unwrap();
                record[11] = ATTRIBUTE_LONG_NAME;
                record[12] = 0;
                record[13] = checksum;
                record[26..28].fill(0);
                let places = (1..11).step_by(2).chain((14..26).step_by(2));
                let places = places.chain((28..32).step_by(2));
                for (unit, at) in piece.iter().chain(&[0]).zip(places) {
                    record[at..at + 2].copy_from_slice(&unit.to_le_bytes());
                }
                record
            })
            .collect();
        if let Some(last) = records.last_mut() {
            last[0] |= 0x40;
        }
        records.reverse();
        records.push(entry);
        records
    }

    fn name(records: &[[u8; 32]]) -> Option<String> {
        let mut names = Names::default();
        let mut found = None;
        for record in records {
            if let Record::Entry(named) = names.take(record) {
                found = Some(named.long.unwrap_or(named.short));
            }
        }
        found
    }

    #[test]
    fn long_names_need_all_their_pieces_in_order() {
        for text in [
            "a",
            "thirteen-char",
            "\u{1f600}\u{1f600} and more than one piece",
            &"x".repeat(255),
        ] {
            let units: Vec<u16> = text.encode_utf16().collect();
            let all = records(&units, b"SHORT   TXT");
            assert_eq!(name(&all).as_deref(), Some(text));
            for n in 0..all.len() - 1 {
                let mut lacking = all.clone();
                lacking.remove(n);
                assert_eq!(name(&lacking).as_deref(), Some("SHORT.TXT"));
                let mut changed = all.clone();
                changed[n][13] ^= 1;
                assert_eq!(name(&changed).as_deref(), Some("SHORT.TXT"));
                let mut changed = all.clone();
                changed[n][0] = 0xe5;
                assert_eq!(name(&changed).as_deref(), Some("SHORT.TXT"));
            }
        }
        let half = records(&[0xd83d, 0x61], b"SHORT   TXT");
        assert_eq!(name(&half).as_deref(), Some("\u{fffd}a"));
        let hidden: Vec<u16> = "..".encode_utf16().collect();
        assert_eq!(name(&records(&hidden, b"SHORT   TXT")), None);
        assert_eq!(name(&records(&[], b"..         ")), None);
        assert_eq!(name(&records(&[], b"           ")), None);
        assert_eq!(
            name(&records(&[], b"\x05\x81  \x9a   X  ")).as_deref(),
            Some("σü  Ü.X")
        );
    }
}
