//! The label of a physical volume, its header, and the areas that hold the metadata.
//!
//! Source: `struct label_header`, `struct pv_header`, `struct mda_header` and `struct raw_locn` of LVM2's
//! `lib/label/label.h` and `lib/format_text/layout.h`. All numbers are little-endian.

use std::ops::Range;

use crate::fields::Fields;
use crate::fs::Refusal;
use crate::volume::Volume;

const SECTOR: u64 = 512;
const SECTOR_LENGTH: usize = 512;
/// Sectors of which one may hold the label.
const LABEL_SECTORS: u64 = 4;
const ID: &[u8; 8] = b"LABELONE";
const TYPE: &[u8; 8] = b"LVM2 001";
const AREA_MAGIC: &[u8; 16] = b" LVM2 x[5A%r0N*>";
/// Bytes of an area's header; the ring of texts follows it.
const AREA_HEADER: u64 = 512;
const IGNORED: u32 = 1;
/// Most bytes of metadata: ten thousand volumes and more. LVM's own default leaves room for half a MiB.
const MOST_TEXT: u64 = 4 << 20;

/// What a physical volume says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    /// As metadata has it, without hyphens.
    pub(super) uuid: [u8; 32],
    /// The first byte of its extents.
    pub(super) data_start: u64,
    areas: Vec<Range<u64>>,
    /// What must stay as it is: label, metadata, boot loaders.
    pub(super) reserved: Vec<Range<u64>>,
}

impl Label {
    /// The label in the first sectors; `None` when there is none.
    pub(super) fn read(volume: &Volume<'_>) -> Result<Option<Self>, Refusal> {
        let mut found = None;
        let mut damaged = None;
        for number in 0..LABEL_SECTORS.min(volume.size() / SECTOR) {
            let sector = volume.read_array::<SECTOR_LENGTH>(number * SECTOR)?;
            let fields = Fields(&sector);
            if fields.array(0) != *ID {
                continue;
            }
            if fields.le64(8) != number || !is_right(fields.slice(20, 492), fields.le32(16)) {
                damaged = Some(Refusal::damaged(
                    "the label of the physical volume fails its checksum",
                ));
            } else if fields.array(24) != *TYPE {
                damaged = Some(Refusal::unsupported(
                    "a physical volume of a type that is not known here",
                ));
            } else if found.replace(Self::parse(fields)?).is_some() {
                damaged = Some(Refusal::damaged("the physical volume has two labels"));
            }
        }
        match (found, damaged) {
            (_, Some(refusal)) => Err(refusal),
            (found, None) => Ok(found),
        }
    }

    fn parse(sector: Fields<'_>) -> Result<Self, Refusal> {
        let odd = || Refusal::damaged("the header of the physical volume makes no sense");
        let header = usize::try_from(sector.le32(20)).map_err(|_| odd())?;
        if !(32..SECTOR_LENGTH).contains(&header) {
            return Err(odd());
        }
        let mut at = header + 40;
        let data = list(sector, &mut at).ok_or_else(odd)?;
        let areas = list(sector, &mut at).ok_or_else(odd)?;
        let [data] = data.as_slice() else {
            return Err(Refusal::unsupported(format!(
                "a physical volume with {} data areas",
                data.len()
            )));
        };
        let mut reserved = areas.clone();
        reserved.push(0..LABEL_SECTORS * SECTOR);
        // `struct pv_header_extension`: version, flags, areas for boot loaders.
        if sector.le32(at) > 0 {
            at += 8;
            reserved.extend(list(sector, &mut at).ok_or_else(odd)?);
        }
        Ok(Self {
            uuid: sector.array(header),
            data_start: data.start,
            areas,
            reserved,
        })
    }

    /// The text that all areas agree upon.
    pub(super) fn metadata(&self, volume: &Volume<'_>) -> Result<Vec<u8>, Refusal> {
        let mut found: Option<Vec<u8>> = None;
        let mut empty = false;
        for area in &self.areas {
            match text(volume, area)? {
                Area::Ignored => {}
                Area::Empty => empty = true,
                Area::Text(text) => match &found {
                    Some(other) if *other != text => return Err(differ()),
                    Some(_) => {}
                    None => found = Some(text),
                },
            }
        }
        match found {
            Some(_) if empty => Err(differ()),
            Some(text) => Ok(text),
            None if empty => Err(Refusal::unsupported(
                "a physical volume that belongs to no volume group",
            )),
            None => Err(Refusal::unsupported(
                "a physical volume that carries no metadata",
            )),
        }
    }
}

fn differ() -> Refusal {
    Refusal::damaged("the copies of the volume group's metadata differ")
}

/// Pairs of offset and size up to one without an offset; `None` when the sector ends before, or one ends nowhere.
fn list(sector: Fields<'_>, at: &mut usize) -> Option<Vec<Range<u64>>> {
    let mut list = Vec::new();
    loop {
        if *at + 16 > SECTOR_LENGTH {
            return None;
        }
        let (start, size) = (sector.le64(*at), sector.le64(*at + 8));
        *at += 16;
        if start == 0 {
            return Some(list);
        }
        list.push(start..start.checked_add(size)?);
    }
}

/// What an area holds.
enum Area {
    /// Not kept up to date: `vgchange --metadatacopies`.
    Ignored,
    Empty,
    Text(Vec<u8>),
}

fn text(volume: &Volume<'_>, area: &Range<u64>) -> Result<Area, Refusal> {
    let odd = || Refusal::damaged("an area for the volume group's metadata makes no sense");
    let size = area.end - area.start;
    if size <= AREA_HEADER || area.end > volume.size() {
        return Err(odd());
    }
    let header = volume.read_array::<SECTOR_LENGTH>(area.start)?;
    let fields = Fields(&header);
    if !is_right(fields.slice(4, 508), fields.le32(0)) {
        return Err(Refusal::damaged(
            "an area for the volume group's metadata fails its checksum",
        ));
    }
    let sound = fields.array(4) == *AREA_MAGIC
        && fields.le32(20) == 1
        && fields.le64(24) == area.start
        && fields.le64(32) == size;
    if !sound {
        return Err(odd());
    }
    let (offset, length, flags) = (fields.le64(40), fields.le64(48), fields.le32(60));
    if flags & !IGNORED != 0 {
        return Err(odd());
    }
    if flags & IGNORED != 0 {
        return Ok(Area::Ignored);
    }
    if fields.le64(64) != 0 {
        return Err(Refusal::dirty(
            "a change of the volume group's metadata was not finished",
        ));
    }
    if offset == 0 {
        return Ok(Area::Empty);
    }
    let ring = size - AREA_HEADER;
    if offset < AREA_HEADER || offset >= size || length == 0 || length > ring {
        return Err(odd());
    }
    if length > MOST_TEXT {
        return Err(Refusal::unsupported(format!(
            "a volume group with {length} bytes of metadata"
        )));
    }
    let first = length.min(size - offset);
    let bytes = |length: u64| usize::try_from(length).unwrap_or(0);
    let mut text = volume.read_vec(area.start + offset, bytes(first))?;
    // What does not fit at the end goes on after the header.
    text.extend(volume.read_vec(area.start + AREA_HEADER, bytes(length - first))?);
    if !is_right(&text, fields.le32(56)) {
        return Err(Refusal::damaged(
            "the volume group's metadata fails its checksum",
        ));
    }
    Ok(Area::Text(text))
}

/// Whether `stored` is the checksum of `bytes`: the usual polynomial, but begun with a number of LVM's own
/// (`INITIAL_CRC`) and without the inversion at the end. A fuzzer does not find checksums.
fn is_right(bytes: &[u8], stored: u32) -> bool {
    checksum(bytes) == stored || cfg!(fuzzing)
}

pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!0xf597_a6cf);
    hasher.update(bytes);
    !hasher.finalize()
}
