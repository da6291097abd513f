//! Superblocks as they are looked for: bytes at a place, short where the volume ends, and what they say of names.

use uuid::Uuid;

use crate::error::Result;
use crate::fields::Fields;
use crate::volume::Volume;

/// The start of a volume, read once, and whatever else is asked for.
pub(super) struct Looker<'v, 'a> {
    pub(super) volume: &'v Volume<'a>,
    head: Vec<u8>,
}

/// Most superblocks lie here.
const HEAD: u64 = 72 << 10;

impl<'v, 'a> Looker<'v, 'a> {
    pub(super) fn new(volume: &'v Volume<'a>) -> Result<Self> {
        let length = usize::try_from(volume.size().min(HEAD)).unwrap_or(0);
        Ok(Self {
            volume,
            head: volume.read_vec(0, length)?,
        })
    }

    /// At most `length` bytes from `at` on: as many as there are.
    pub(super) fn record(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        let rest = self.volume.size().saturating_sub(at);
        let length = usize::try_from(rest).unwrap_or(usize::MAX).min(length);
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let known = self.head.get(start..start.saturating_add(length));
        match known {
            Some(known) => Ok(known.to_vec()),
            None if length == 0 => Ok(Vec::new()),
            None => self.volume.read_vec(at, length),
        }
    }
}

/// A UUID in its usual form, unless it is all zeros.
pub(super) fn uuid(record: Fields<'_>, at: usize) -> Option<String> {
    let uuid = Uuid::from_bytes(record.array(at));
    (!uuid.is_nil()).then(|| uuid.to_string())
}

/// Text up to the first NUL, unless it is empty.
pub(super) fn text(record: Fields<'_>, at: usize, length: usize) -> Option<String> {
    let bytes = record.slice(at, length);
    let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

/// As [`text`], of `length` bytes of UTF-16 in little-endian order.
pub(super) fn text16(record: Fields<'_>, at: usize, length: usize) -> Option<String> {
    let (units, _) = record.slice(at, length).as_chunks::<2>();
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit));
    let text: String = char::decode_utf16(units.take_while(|&unit| unit != 0))
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    (!text.is_empty()).then_some(text)
}

/// Two to the power of what a field says, if a block may be so large.
pub(super) fn block_size(log: u32) -> Option<u64> {
    (9..=16).contains(&log).then(|| 1 << log)
}
