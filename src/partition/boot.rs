//! The first sector as a BIOS sees it: code, or the start of a filesystem.

use std::ops::Range;

use crate::error::Result;
use crate::fields::Fields;
use crate::volume::Volume;

pub(super) const SECTOR: usize = 512;

/// Where an MBR's code may lie: up to the disk's number.
const CODE: Range<usize> = 0..440;

/// Code in the first sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootCode {
    /// Whose it is, where that is known.
    pub loader: Option<&'static str>,
    /// Whether it does no more than start the active partition.
    pub starts_active: bool,
}

/// Text that gives away whose code it is; whether it only starts the active partition.
const LOADERS: &[(&[u8], &str, bool)] = &[
    (b"GRUB", "GRUB", false),
    (b"LILO", "LILO", false),
    (b"isolinux.bin missing", "ISOLINUX", false),
    (b"SYSLINUX", "Syslinux", false),
    // Syslinux's MBRs: two for MBR tables, one for GPT.
    (b"Operating system load error", "Syslinux MBR", true),
    (b"OS load error", "Syslinux MBR", true),
    // Of all versions from DOS to Windows 11.
    (b"Error loading operating system", "Windows MBR", true),
];

/// What those put there who made a filesystem that is not meant to be booted.
const NO_CODE: &[u8] = b"This is not a bootable disk";

/// The code in the first sector; `None` where there is none, or no BIOS would start it.
///
/// # Errors
/// Whatever the image fails with.
pub fn boot_code(disk: &Volume<'_>) -> Result<Option<BootCode>> {
    let sector = first_sector(disk)?;
    let fields = Fields(&sector);
    let code = fields.slice(CODE.start, CODE.len());
    if !is_signed(&sector) || code.iter().all(|&byte| byte == 0) || contains(&sector, NO_CODE) {
        return Ok(None);
    }
    let known = LOADERS.iter().find(|(text, ..)| contains(&sector, text));
    Ok(Some(match known {
        Some(&(_, name, starts_active)) => BootCode {
            loader: Some(name),
            starts_active,
        },
        None => BootCode {
            loader: None,
            starts_active: filesystem(&sector).is_none(),
        },
    }))
}

/// The first sector; zeros for what a disk that is shorter lacks.
pub(super) fn first_sector(disk: &Volume<'_>) -> Result<[u8; SECTOR]> {
    let mut sector = [0; SECTOR];
    let length = usize::try_from(disk.size()).map_or(SECTOR, |size| size.min(SECTOR));
    disk.read_at(0, sector.get_mut(..length).unwrap_or_default())?;
    Ok(sector)
}

/// Whether the sector ends as boot sectors, MBRs and those of extended partitions do.
pub(super) fn is_signed(sector: &[u8; SECTOR]) -> bool {
    Fields(sector).array(510) == [0x55, 0xaa]
}

/// The filesystem whose boot sector this is.
///
/// FAT has no signature that all its makers write: as blkid and the kernel do, the parameters in it are asked whether
/// they make sense (Microsoft's "FAT: General Overview of On-Disk Format", section "Boot Sector and BPB").
pub(super) fn filesystem(sector: &[u8; SECTOR]) -> Option<&'static str> {
    let fields = Fields(sector);
    match &fields.array::<8>(3) {
        b"NTFS    " => return Some("NTFS"),
        b"EXFAT   " => return Some("exFAT"),
        b"-FVE-FS-" => return Some("BitLocker"),
        _ => {}
    }
    let jumps = fields.u8(0) == 0xe9 || (fields.u8(0) == 0xeb && fields.u8(2) == 0x90);
    let sector_size = fields.le16(11);
    let sectors_per_cluster = fields.u8(13);
    let media = fields.u8(21);
    let fat = jumps
        && sector_size.is_power_of_two()
        && (512..=4096).contains(&sector_size)
        && sectors_per_cluster.is_power_of_two()
        && fields.le16(14) != 0
        && matches!(fields.u8(16), 1 | 2)
        && (media == 0xf0 || media >= 0xf8);
    fat.then_some("FAT")
}

fn contains(sector: &[u8], text: &[u8]) -> bool {
    sector.windows(text.len()).any(|window| window == text)
}
