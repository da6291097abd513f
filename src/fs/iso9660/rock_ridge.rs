//! Rock Ridge: what a record's system use fields say of a file on a Unix.
//!
//! Source: IEEE P1281 1.12, "System Use Sharing Protocol", and P1282 1.12, "Rock Ridge Interchange Protocol".

use super::record::{long_time, short_time};
use crate::error::{Error, ErrorKind, Result};
use crate::fields::Fields;
use crate::fs::tree::{Device, MAX_LINK, Timestamp};
use crate::volume::Volume;

/// Areas that a record goes on in at most, and bytes of one.
const MOST_AREAS: usize = 64;
const LONGEST_AREA: u64 = 4096;
/// Bytes of a name that are kept.
const LONGEST_NAME: usize = 1024;

/// Fields of "PX": mode, links, owner, group and serial number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    pub(super) mode: u16,
    pub(super) links: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) serial: Option<u32>,
}

/// What is known of a file beyond its record.
#[derive(Debug, Clone, Default)]
pub(super) struct Extension {
    pub(super) name: Vec<u8>,
    pub(super) attributes: Option<Attributes>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) device: Option<Device>,
    pub(super) created: Option<Timestamp>,
    pub(super) modified: Option<Timestamp>,
    pub(super) accessed: Option<Timestamp>,
    pub(super) changed: Option<Timestamp>,
    /// The block where a directory is that had to be moved elsewhere: this is its place in the tree.
    pub(super) child: Option<u64>,
    /// A directory that was moved here; its place in the tree is another one.
    pub(super) relocated: bool,
    /// "SP" or "ER" was there: the tree is Rock Ridge's.
    pub(super) announced: Option<usize>,
    pub(super) is_compressed: bool,
}

/// A symbolic link in the making.
#[derive(Default)]
struct Target {
    bytes: Vec<u8>,
    /// The last component goes on in the next one.
    continues: bool,
}

impl Extension {
    /// Reads the fields in `system`, skipping as many bytes of each as the root says, and wherever they go on.
    pub(super) fn read(
        volume: &Volume<'_>,
        block_size: u64,
        system: &[u8],
        skip: usize,
    ) -> Result<Self> {
        let mut extension = Self::default();
        let mut target = None;
        let mut area = system.get(skip..).unwrap_or_default().to_vec();
        for _ in 0..MOST_AREAS {
            let Some((block, offset, length)) = extension.fields(&area, &mut target) else {
                extension.target = target.map(|target: Target| target.bytes);
                return Ok(extension);
            };
            let at = block.saturating_mul(block_size).saturating_add(offset);
            let length = usize::try_from(length.min(LONGEST_AREA)).unwrap_or(0);
            area = volume.read_vec(at, length)?;
        }
        Err(Error::new(
            ErrorKind::Corrupt,
            "iso9660 record goes on without an end",
        ))
    }

    /// Takes the fields in `area`; where they go on.
    fn fields(&mut self, area: &[u8], target: &mut Option<Target>) -> Option<(u64, u64, u64)> {
        let mut next = None;
        let mut at = 0;
        while let Some(length) = area.get(at + 2) {
            let length = usize::from(*length);
            let Some(bytes) = area.get(at..at + length).filter(|_| length >= 4) else {
                break;
            };
            at += length;
            let fields = Fields(bytes);
            let flags = fields.u8(4);
            match &fields.array(0) {
                b"CE" if length >= 28 => {
                    let words = [4, 12, 20].map(|at| u64::from(fields.le32(at)));
                    next = Some((words[0], words[1], words[2]));
                }
                b"SP" if length >= 7 && fields.array(4) == [0xbe, 0xef] => {
                    self.announced = Some(usize::from(fields.u8(6)));
                }
                b"ST" => break,
                b"NM" if flags & 0b110 == 0 => {
                    let part = bytes.get(5..).unwrap_or_default();
                    if self.name.len() + part.len() <= LONGEST_NAME {
                        self.name.extend_from_slice(part);
                    }
                }
                b"PX" if length >= 36 => {
                    self.attributes = Some(Attributes {
                        mode: u16::try_from(fields.le32(4) & 0xffff).unwrap_or(0),
                        links: fields.le32(12),
                        uid: fields.le32(20),
                        gid: fields.le32(28),
                        serial: (length >= 44).then(|| fields.le32(36)),
                    });
                }
                b"PN" if length >= 20 => self.device = Some(device(fields)),
                b"SL" => {
                    let target = target.get_or_insert_with(Target::default);
                    target.components(bytes.get(5..).unwrap_or_default());
                }
                b"TF" => self.times(fields),
                b"CL" if length >= 12 => self.child = Some(u64::from(fields.le32(4))),
                b"RE" => self.relocated = true,
                b"ZF" => self.is_compressed = true,
                _ => {}
            }
        }
        next
    }

    /// One time for each flag that is set, in the order of the flags.
    fn times(&mut self, fields: Fields<'_>) {
        let flags = fields.u8(4);
        let is_long = flags & 1 << 7 != 0;
        let mut at = 5;
        for bit in 0..7 {
            if flags & 1 << bit == 0 {
                continue;
            }
            let time = if is_long {
                long_time(fields.array(at))
            } else {
                short_time(fields.array(at))
            };
            at += if is_long { 17 } else { 7 };
            match bit {
                0 => self.created = time,
                1 => self.modified = time,
                2 => self.accessed = time,
                3 => self.changed = time,
                _ => {}
            }
        }
    }
}

/// Upper and lower half; some writers put all of Linux's number into the lower one.
fn device(fields: Fields<'_>) -> Device {
    let (high, low) = (fields.le32(4), fields.le32(12));
    if high == 0 && low & !0xff != 0 {
        Device {
            major: low >> 8,
            minor: low & 0xff,
        }
    } else {
        Device {
            major: high,
            minor: low,
        }
    }
}

impl Target {
    fn components(&mut self, mut bytes: &[u8]) {
        while let [flags, length, rest @ ..] = bytes {
            let length = usize::from(*length);
            let Some((text, behind)) = rest.split_at_checked(length) else {
                break;
            };
            bytes = behind;
            if self.bytes.len() as u64 > MAX_LINK {
                break;
            }
            let is_first = self.bytes.is_empty();
            if !is_first && !self.continues && !self.bytes.ends_with(b"/") {
                self.bytes.push(b'/');
            }
            match flags & 0b1110 {
                0b0010 => self.bytes.extend_from_slice(b"."),
                0b0100 => self.bytes.extend_from_slice(b".."),
                0b1000 if is_first => self.bytes.extend_from_slice(b"/"),
                0b1000 => {}
                _ => self.bytes.extend_from_slice(text),
            }
            self.continues = flags & 1 != 0;
        }
    }
}
