//! Records of the master file table, and what protects them and index blocks from torn writes.
//!
//! Source: `MFT_RECORD`, `ATTR_RECORD` and `NTFS_RECORD` of the kernel's `fs/ntfs/layout.h`.

use crate::fields::Fields;
use crate::fs::Refusal;

/// The last two bytes of each so many are replaced by a number that is in the header, too.
const STRIDE: usize = 512;
const MAGIC: &[u8; 4] = b"FILE";
const IN_USE: u16 = 1;
const END: u32 = 0xffff_ffff;

/// Puts back what the numbers against torn writes replaced; false when they tell of one.
pub(super) fn restore(bytes: &mut [u8]) -> bool {
    let fields = Fields(bytes);
    let (at, count) = (usize::from(fields.le16(4)), usize::from(fields.le16(6)));
    let strides = bytes.len() / STRIDE;
    if count != strides + 1 || at < 8 || at + 2 * count > STRIDE - 2 {
        return false;
    }
    let number: [u8; 2] = fields.array(at);
    let saved: Vec<[u8; 2]> = (1..count).map(|n| fields.array(at + 2 * n)).collect();
    for (stride, saved) in bytes.chunks_exact_mut(STRIDE).zip(saved) {
        match stride.last_chunk_mut::<2>() {
            Some(last) if *last == number => *last = saved,
            _ => return false,
        }
    }
    // Differs between copies.
    if let Some(list) = bytes.get_mut(at..at + 2 * count) {
        list.fill(0);
    }
    true
}

/// UTF-16 as found.
pub(super) fn text(bytes: &[u8]) -> String {
    let units = bytes.as_chunks::<2>().0.iter();
    let units: Vec<u16> = units.map(|unit| u16::from_le_bytes(*unit)).collect();
    String::from_utf16_lossy(&units)
}

/// A record that is in use.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) number: u64,
    bytes: Vec<u8>,
}

/// A property of a file: a name, its data, an index.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attribute<'r> {
    pub(super) kind: u32,
    /// In UTF-16.
    pub(super) name: &'r [u8],
    /// `ATTR_IS_COMPRESSED` and so on.
    pub(super) flags: u16,
    /// All of it, from its header on.
    pub(super) bytes: &'r [u8],
    pub(super) record: u64,
}

impl<'r> Attribute<'r> {
    pub(super) fn is_resident(&self) -> bool {
        Fields(self.bytes).u8(8) == 0
    }

    /// Its value, when that is in the record itself.
    pub(super) fn resident(&self) -> Option<&'r [u8]> {
        let fields = Fields(self.bytes);
        let start = usize::from(fields.le16(20));
        let length = usize::try_from(fields.le32(16)).ok()?;
        let value = self.bytes.get(start..start.checked_add(length)?);
        value.filter(|_| self.is_resident())
    }
}

impl Record {
    /// Whether nothing is in a record that is sound as far as one can see.
    pub(super) fn is_unused(bytes: &[u8]) -> bool {
        let fields = Fields(bytes);
        fields.array(0) == *MAGIC && fields.le16(22) & IN_USE == 0
    }

    pub(super) fn parse(mut bytes: Vec<u8>, number: u64) -> Result<Self, Refusal> {
        let sound = bytes.starts_with(MAGIC) && restore(&mut bytes);
        let fields = Fields(&bytes);
        let in_use = usize::try_from(fields.le32(24)).unwrap_or(usize::MAX);
        if !sound || fields.le16(22) & IN_USE == 0 || in_use > bytes.len() {
            return Err(Refusal::damaged(format!(
                "ntfs record {number} is damaged or not in use"
            )));
        }
        bytes.truncate(in_use);
        Ok(Self { number, bytes })
    }

    /// Bytes in use, the same in every copy.
    pub(super) fn contents(&self) -> &[u8] {
        &self.bytes
    }

    /// All attributes that are in the record itself.
    pub(super) fn attributes(&self) -> Result<Vec<Attribute<'_>>, Refusal> {
        let damaged = || {
            Refusal::damaged(format!(
                "ntfs record {} has impossible attributes",
                self.number
            ))
        };
        let mut list = Vec::new();
        let mut at = usize::from(Fields(&self.bytes).le16(20));
        loop {
            let rest = self.bytes.get(at..).ok_or_else(damaged)?;
            let fields = Fields(rest);
            if rest.len() < 4 {
                return Err(damaged());
            }
            let kind = fields.le32(0);
            if kind == END {
                return Ok(list);
            }
            let length = usize::try_from(fields.le32(4)).unwrap_or(usize::MAX);
            let least = if fields.u8(8) == 0 { 24 } else { 64 };
            let bytes = rest.get(..length).filter(|_| length >= least);
            let bytes = bytes.ok_or_else(damaged)?;
            let start = usize::from(fields.le16(10));
            let name = bytes.get(start..start + 2 * usize::from(fields.u8(9)));
            list.push(Attribute {
                kind,
                name: name.ok_or_else(damaged)?,
                flags: fields.le16(12),
                bytes,
                record: self.number,
            });
            at += length;
        }
    }

    /// The only attribute of `kind` without a name, or with this one.
    pub(super) fn find(&self, kind: u32, name: &[u8]) -> Result<Option<Attribute<'_>>, Refusal> {
        let list = self.attributes()?;
        let mut found = list
            .into_iter()
            .filter(|attribute| attribute.kind == kind && attribute.name == name);
        match (found.next(), found.next()) {
            (found, None) => Ok(found),
            _ => Err(Refusal::damaged(format!(
                "ntfs record {} has an attribute twice",
                self.number
            ))),
        }
    }
}
