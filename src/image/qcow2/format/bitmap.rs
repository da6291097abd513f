//! The bitmap directory: persistent dirty bitmaps.

use bytes::{Buf, BufMut};

use super::Corruption;

/// Most entries of one bitmap table.
pub const MAX_TABLE_ENTRIES: u32 = 0x0800_0000;
/// Longest bitmap name in bytes.
pub const MAX_NAME: u16 = 1023;
/// Flag: the bitmap was not stored when its writer ended; its bits are stale.
pub const IN_USE: u32 = 1;
/// Flag: the bitmap records writes.
pub const AUTO: u32 = 2;
/// Flag: unknown extra data does not matter.
pub const EXTRA_DATA_COMPATIBLE: u32 = 4;
/// Host offset field of a bitmap table entry.
pub const TABLE_OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// Bitmap table entry without a cluster: all bits are set.
pub const TABLE_ALL_ONES: u64 = 1;

/// One entry of the bitmap directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitmapEntry {
    /// Host offset of its table in bytes.
    pub table_offset: u64,
    /// Entries of its table, one per cluster of bits.
    pub table_size: u32,
    /// [`IN_USE`], [`AUTO`], [`EXTRA_DATA_COMPATIBLE`].
    pub flags: u32,
    /// log2 of the guest bytes that one bit stands for.
    pub granularity_bits: u8,
    /// Its name.
    pub name: String,
}

impl BitmapEntry {
    /// Guest bytes that one bit stands for.
    pub fn granularity(&self) -> u64 {
        1u64.checked_shl(self.granularity_bits.into()).unwrap_or(0)
    }
}

/// Parses `count` entries of the bitmap directory.
///
/// # Errors
/// A directory that ends early, or an entry of unknown type, flags or size.
pub fn parse_directory(directory: &[u8], count: u32) -> Result<Vec<BitmapEntry>, Corruption> {
    let truncated = || Corruption::Truncated {
        what: "bitmap directory",
    };
    let entry_error = |why, entry: u64| Corruption::Entry { why, entry };
    let mut rest = directory;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let start = rest.len();
        if rest.len() < 24 {
            return Err(truncated());
        }
        let table_offset = rest.get_u64();
        let table_size = rest.get_u32();
        let flags = rest.get_u32();
        let kind = rest.get_u8();
        let granularity_bits = rest.get_u8();
        let name_length = rest.get_u16();
        let extra_length = rest.get_u32();
        if kind != 1 {
            return Err(entry_error("bitmap of unknown type", kind.into()));
        }
        if flags & !(IN_USE | AUTO | EXTRA_DATA_COMPATIBLE) != 0 {
            return Err(entry_error("bitmap with unknown flags", flags.into()));
        }
        if !(9..=31).contains(&granularity_bits) {
            return Err(entry_error(
                "bitmap granularity is not 2^9 to 2^31",
                granularity_bits.into(),
            ));
        }
        if table_size > MAX_TABLE_ENTRIES {
            return Err(Corruption::TooLarge {
                what: "bitmap table, entries",
                value: table_size.into(),
                limit: MAX_TABLE_ENTRIES.into(),
            });
        }
        if name_length == 0 || name_length > MAX_NAME {
            return Err(entry_error(
                "bitmap name length is not 1 to 1023",
                name_length.into(),
            ));
        }
        if extra_length != 0 && flags & EXTRA_DATA_COMPATIBLE == 0 {
            return Err(entry_error(
                "bitmap with extra data that must be understood",
                extra_length.into(),
            ));
        }
        let extra = usize::try_from(extra_length).map_err(|_| truncated())?;
        rest = rest.get(extra..).ok_or_else(truncated)?;
        let name = rest.get(..name_length.into()).ok_or_else(truncated)?;
        let name = String::from_utf8_lossy(name).into_owned();
        rest.advance(name_length.into());
        let used = start.saturating_sub(rest.len());
        let padding = used.next_multiple_of(8).saturating_sub(used);
        rest = rest.get(padding..).ok_or_else(truncated)?;
        entries.push(BitmapEntry {
            table_offset,
            table_size,
            flags,
            granularity_bits,
            name,
        });
    }
    if u32::try_from(entries.len()) != Ok(count) {
        return Err(Corruption::Entry {
            why: "bitmap directory holds another number of bitmaps than its extension says",
            entry: count.into(),
        });
    }
    Ok(entries)
}

/// Encodes a bitmap directory.
pub fn encode_directory(entries: &[BitmapEntry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        out.put_u64(entry.table_offset);
        out.put_u32(entry.table_size);
        out.put_u32(entry.flags);
        out.put_u8(1);
        out.put_u8(entry.granularity_bits);
        out.put_u16(u16::try_from(entry.name.len()).unwrap_or(MAX_NAME));
        out.put_u32(0);
        out.extend_from_slice(entry.name.as_bytes());
        out.resize(out.len().next_multiple_of(8), 0);
    }
    out
}
