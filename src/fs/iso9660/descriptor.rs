//! Volume descriptors: the roots of the trees of names that a volume has, and what the volume is called.
//!
//! Source: ECMA-119 chapter 8, "Volume Descriptors"; the Joliet Specification for the escape sequences.

use crate::error::Result;
use crate::fields::Fields;
use crate::fs::Identity;
use crate::volume::Volume;

/// Bytes of a descriptor, which all writers use for a logical block as well.
pub(super) const SECTOR: u64 = 2048;
/// Where descriptors begin.
const FIRST: u64 = 16;
/// Descriptors that are looked at at most.
const MOST: u64 = 64;

const PRIMARY: u8 = 1;
const SUPPLEMENTARY: u8 = 2;
const TERMINATOR: u8 = 255;

/// Where a volume's files are.
#[derive(Debug, Clone)]
pub(super) struct Descriptors {
    /// Bytes of a block: a power of two from 512 to 2048.
    pub(super) block_size: u64,
    /// Bytes of the volume.
    pub(super) size: u64,
    /// The record of the root directory.
    pub(super) root: [u8; 34],
    /// The same in Joliet's tree.
    pub(super) joliet: Option<[u8; 34]>,
    primary: [u8; SECTOR as usize],
    joliet_label: Option<[u8; 32]>,
}

impl Descriptors {
    /// `None` when there is no sound primary one.
    pub(super) fn read(volume: &Volume<'_>) -> Result<Option<Self>> {
        let mut found: Option<Self> = None;
        for n in FIRST..FIRST + MOST {
            if (n + 1) * SECTOR > volume.size() {
                break;
            }
            let sector = volume.read_array::<{ SECTOR as usize }>(n * SECTOR)?;
            let fields = Fields(&sector);
            if fields.array(1) != *b"CD001" {
                break;
            }
            match (fields.u8(0), &mut found) {
                (PRIMARY, None) => {
                    let block_size = u64::from(fields.le16(128));
                    let is_sound = matches!(block_size, 512 | 1024 | 2048)
                        && fields.le16(128) == fields.be16(130)
                        && fields.u8(6) == 1;
                    if !is_sound {
                        return Ok(None);
                    }
                    found = Some(Self {
                        block_size,
                        size: u64::from(fields.le32(80)) * block_size,
                        root: fields.array(156),
                        joliet: None,
                        primary: sector,
                        joliet_label: None,
                    });
                }
                (SUPPLEMENTARY, Some(found)) => {
                    let is_joliet = matches!(&fields.array(88), b"%/@" | b"%/C" | b"%/E");
                    if is_joliet && u64::from(fields.le16(128)) == found.block_size {
                        found.joliet = Some(fields.array(156));
                        found.joliet_label = Some(fields.array(40));
                    }
                }
                (TERMINATOR, _) => break,
                _ => {}
            }
        }
        Ok(found)
    }
}

pub(super) fn identify(volume: &Volume<'_>) -> Result<Option<Identity>> {
    let Some(found) = Descriptors::read(volume)? else {
        return Ok(None);
    };
    let fields = Fields(&found.primary);
    let label = text(fields.slice(40, 32));
    // As blkid: Joliet's where it is the same but for what the other may not hold; that is the longer one.
    let joliet = found.joliet_label.map(|label| wide(&label));
    let label = match joliet {
        Some(joliet) if !joliet.is_empty() && is_shortened(&label, &joliet) => {
            let rest = label.chars().skip(joliet.chars().count());
            joliet.chars().chain(rest).collect()
        }
        _ => label,
    };
    let uuid = [830, 813].iter().find_map(|at| uuid(fields.array(*at)));
    Ok(Some(Identity {
        kind: "iso9660",
        version: found.joliet.map(|_| "Joliet Extension".to_owned()),
        label: (!label.is_empty()).then_some(label),
        uuid,
        size: Some(found.size),
        block_size: Some(found.block_size),
    }))
}

/// Whether `label` is what is left of `joliet` in upper case and with underscores.
fn is_shortened(label: &str, joliet: &str) -> bool {
    let mut ours = label.chars();
    joliet.chars().all(|c| match ours.next() {
        Some(o) => o == '_' || o == c || c.to_uppercase().eq([o]),
        None => true,
    })
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    let bytes = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or(bytes);
    String::from_utf8_lossy(bytes)
        .trim_end_matches(' ')
        .to_owned()
}

fn wide(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2);
    let units = units.map(|unit| u16::from_be_bytes([unit[0], unit[1]]));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16_lossy(&units)
        .trim_end_matches(' ')
        .to_owned()
}

/// A date of 16 digits and a zone, as blkid makes it a name; `None` when it was not set.
fn uuid(date: [u8; 17]) -> Option<String> {
    let digits = std::str::from_utf8(date.get(..16)?).ok()?;
    // Not set are zeros as digits, with a zone of zero.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || digits.bytes().all(|byte| byte == b'0')
    {
        return None;
    }
    let parts = [0..4, 4..6, 6..8, 8..10, 10..12, 12..14, 14..16];
    let parts: Option<Vec<&str>> = parts.into_iter().map(|part| digits.get(part)).collect();
    Some(parts?.join("-"))
}
