//! Linux swap areas: all pages but the first and the bad ones are free.
//!
//! Source: `union swap_header` of the kernel's `include/linux/swap.h`, mkswap(8). The signature ends the first page,
//! so its place tells the page size. Hibernation puts its own over it: then the area holds a system's memory.

use std::ops::Range;

use super::{FreeOptions, FreeSpace, Identity, Refusal};
use crate::error::Result;
use crate::fields::Fields;
use crate::free::FreeMapBuilder;
use crate::volume::Volume;

/// Pages of all machines that Linux swaps on.
const PAGE_SIZES: [u64; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
/// Bytes of a signature, at the end of the first page.
const SIGNATURE: usize = 10;
const OLD: &[u8; SIGNATURE] = b"SWAP-SPACE";
const NEW: &[u8; SIGNATURE] = b"SWAPSPACE2";
/// Of the kernel (`HIBERNATE_SIG` and its predecessor), of uswsusp, of a LinHibernate, of TuxOnIce.
const HIBERNATED: [&[u8]; 5] = [
    b"S1SUSPEND",
    b"S2SUSPEND",
    b"ULSUSPEND",
    b"LINHIB0001",
    b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c",
];
/// Where the header begins, behind room for a boot sector, and where its list of bad pages does.
const HEADER: u64 = 1024;
const BAD_PAGES: u64 = 1536;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Old,
    New,
    Hibernated,
}

/// The kind of area for each page size that a signature is there for.
fn signatures(volume: &Volume<'_>) -> Result<Vec<(u64, Kind)>> {
    let mut found = Vec::new();
    for size in PAGE_SIZES.into_iter().filter(|&size| size <= volume.size()) {
        let signature = volume.read_array::<SIGNATURE>(size - SIGNATURE as u64)?;
        let kind = match &signature {
            OLD => Kind::Old,
            NEW => Kind::New,
            other if HIBERNATED.iter().any(|known| other.starts_with(known)) => Kind::Hibernated,
            _ => continue,
        };
        found.push((size, kind));
    }
    Ok(found)
}

/// The header of a new area, in the byte order of its machine.
struct Header {
    /// `info.last_page`.
    last_page: u32,
    bad_pages: u32,
    big_endian: bool,
    bytes: [u8; 512],
}

impl Header {
    /// `None` for a version that does not exist.
    fn read(volume: &Volume<'_>) -> Result<Option<Self>> {
        let bytes = volume.read_array::<512>(HEADER)?;
        let fields = Fields(&bytes);
        let big_endian = match (fields.le32(0), fields.be32(0)) {
            (1, _) => false,
            (_, 1) => true,
            _ => return Ok(None),
        };
        let number = |at| {
            if big_endian {
                fields.be32(at)
            } else {
                fields.le32(at)
            }
        };
        Ok(Some(Self {
            last_page: number(4),
            bad_pages: number(8),
            big_endian,
            bytes,
        }))
    }
}

/// What the header says of itself; `None` when there is none.
///
/// # Errors
/// Whatever the image fails with.
pub(super) fn identify(volume: &Volume<'_>) -> Result<Option<Identity>> {
    let found = signatures(volume)?;
    let Some(&(page, kind)) = found.first() else {
        return Ok(None);
    };
    let hibernated = found.iter().any(|(_, kind)| *kind == Kind::Hibernated);
    let mut identity = Identity {
        kind: if hibernated { "swsuspend" } else { "swap" },
        version: Some(if kind == Kind::Old { "0" } else { "1" }.to_owned()),
        block_size: Some(page),
        ..Identity::default()
    };
    if kind != Kind::Old
        && let Some(header) = Header::read(volume)?
    {
        let fields = Fields(&header.bytes);
        let uuid = uuid::Uuid::from_bytes(fields.array(12));
        let label = fields.slice(28, 16);
        let label = label.split(|&byte| byte == 0).next().unwrap_or_default();
        identity.uuid = (!uuid.is_nil()).then(|| uuid.to_string());
        identity.label = (!label.is_empty()).then(|| String::from_utf8_lossy(label).into_owned());
        identity.size = Some((u64::from(header.last_page) + 1) * page);
    }
    Ok(Some(identity))
}

/// Whether a system's memory is in there.
pub(super) fn is_hibernated(volume: &Volume<'_>) -> bool {
    signatures(volume).is_ok_and(|found| found.iter().any(|(_, kind)| *kind == Kind::Hibernated))
}

/// All pages that may be swapped to.
///
/// # Errors
/// A hibernated system; an old area, which has a map of its pages instead of a header; nonsense.
pub(super) fn free_space(volume: &Volume<'_>, _: &FreeOptions) -> Result<FreeSpace, Refusal> {
    let found = signatures(volume)?;
    if found.iter().any(|(_, kind)| *kind == Kind::Hibernated) {
        return Err(Refusal::hibernated());
    }
    let page = match found.as_slice() {
        [(page, Kind::New)] => *page,
        [(_, _)] => return Err(Refusal::unsupported("swap area of version 0")),
        [] => return Err(Refusal::damaged("no swap area")),
        _ => {
            return Err(Refusal::damaged(
                "swap area with signatures for more than one page size",
            ));
        }
    };
    let Some(header) = Header::read(volume)? else {
        return Err(Refusal::unsupported("swap area of an unknown version"));
    };
    // As the kernel has it: the list ends before the signature.
    let room = (page - BAD_PAGES - SIGNATURE as u64) / 4;
    let count = u64::from(header.bad_pages);
    let end = (u64::from(header.last_page) + 1) * page;
    if header.last_page == 0 || end > volume.size() || count > room {
        return Err(Refusal::damaged("swap area with an impossible header"));
    }
    let mut map = FreeMapBuilder::new();
    map.free(page..end);
    let length = usize::try_from(count * 4).unwrap_or(0);
    let list = volume.read_vec(BAD_PAGES, length)?;
    let (numbers, _) = list.as_chunks::<4>();
    for number in numbers {
        let number = if header.big_endian {
            u32::from_be_bytes(*number)
        } else {
            u32::from_le_bytes(*number)
        };
        map.used(bytes_of(number, page));
    }
    Ok(FreeSpace {
        free: map.build(),
        note: None,
    })
}

fn bytes_of(number: u32, page: u64) -> Range<u64> {
    let start = u64::from(number) * page;
    start..start + page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::RefusalKind;
    use crate::fs::probe::tests::{Disk, Image};

    fn free(disk: &Disk) -> Vec<Range<u64>> {
        let space = free_space(&disk.volume(), &FreeOptions::default()).unwrap();
        space.free.ranges().to_vec()
    }

    /// Big-endian machines write the same header the other way round.
    fn turned(disk: &Disk) -> Disk {
        let mut disk = disk.clone();
        for at in [1024, 1028, 1032, 1536, 1540] {
            disk.0[at..at + 4].reverse();
        }
        disk
    }

    #[test]
    fn all_pages_but_the_first_and_the_bad_ones_are_free() {
        for page in [4096, 8192, 16384, 32768, 65536] {
            let image = Image::make("1M", &format!("mkswap -p {page} disk 2>&1"));
            let mut disk = image.disk();
            assert_eq!(
                free(&disk).as_slice(),
                std::slice::from_ref(&(page..1 << 20))
            );
            disk.put(1032, &2_u32.to_le_bytes());
            disk.put(1536, &3_u32.to_le_bytes());
            disk.put(1540, &15_u32.to_le_bytes());
            let ranges = free(&disk);
            assert_eq!(ranges[..2], [page..3 * page, 4 * page..15 * page]);
            assert_eq!(free(&turned(&disk)), ranges);
            let size = identify(&turned(&disk).volume()).unwrap().unwrap().size;
            assert_eq!(size, Some(1 << 20));
        }
    }

    #[test]
    fn a_hibernated_system_keeps_its_memory() {
        let image = Image::make("1M", "mkswap disk 2>&1");
        for signature in HIBERNATED {
            let mut disk = image.disk();
            disk.put(4086, &[0; 10]);
            disk.put(4086, signature);
            let examined = disk.examine();
            assert!(examined.hibernated);
            assert_eq!(examined.space.unwrap_err().kind, RefusalKind::Protected);
            assert_eq!(examined.identity.unwrap().kind, "swsuspend");
        }
    }

    #[test]
    fn what_is_not_understood_is_kept() {
        let image = Image::make("1M", "mkswap disk 2>&1");
        let refused = |at, bytes: &[u8]| {
            let mut disk = image.disk();
            disk.put(at, bytes);
            let space = free_space(&disk.volume(), &FreeOptions::default());
            space.unwrap_err().kind
        };
        assert_eq!(refused(4086, OLD), RefusalKind::Unsupported);
        assert_eq!(refused(1024, &[2]), RefusalKind::Unsupported);
        assert_eq!(refused(1028, &[0xff; 4]), RefusalKind::Damaged);
        assert_eq!(refused(1028, &[0; 4]), RefusalKind::Damaged);
        assert_eq!(refused(1032, &[0xff; 4]), RefusalKind::Damaged);
        assert_eq!(refused(8182, NEW), RefusalKind::Damaged);
    }
}
