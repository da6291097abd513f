//! The sectors before the tables: boot sector, and for FAT32 its copy and the count of free clusters.
//!
//! Source: "FAT: General Overview of On-Disk Format" 1.03, chapters "Boot Sector and BPB" and "FAT32 FSInfo Sector
//! Structure and Backup Boot Sector".

use super::geometry::{Geometry, Kind, TABLES};
use super::names::{Short, put};

/// What the boot sector says.
pub(super) struct Boot<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) volume_id: u32,
    pub(super) label: Option<&'a Short>,
    pub(super) hidden_sectors: u32,
    pub(super) used_clusters: u64,
}

/// The specification asks for this name: some readers look for it.
const OEM_NAME: &[u8; 8] = b"MSWIN4.1";
/// A fixed disk, and a floppy disk of 1.44 MB.
const MEDIA: [u8; 2] = [0xf8, 0xf0];
/// The first one of either kind, to a BIOS.
const DRIVE: [u8; 2] = [0x80, 0];
/// Sectors of a track, and heads, of that floppy disk.
const FLOPPY_TRACK: (u64, u64) = (18, 2);
/// Number, label and type follow.
const EXTENDED: u8 = 0x29;
/// `int 0x18`, then stand still: a BIOS that starts the volume goes on to the next disk.
const BOOT_CODE: [u8; 5] = [0xcd, 0x18, 0xf4, 0xeb, 0xfd];
/// By this readers know that the code boots nothing.
const NO_SYSTEM: &[u8] = b"This is not a bootable disk";
const SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// Sectors of FAT32.
const INFO: u16 = 1;
const BACKUP: u16 = 6;

impl Boot<'_> {
    /// The reserved sectors as far as they are not zeros.
    pub(super) fn reserved_sectors(&self) -> Vec<u8> {
        let boot = self.boot_sector();
        if self.geometry.kind != Kind::Fat32 {
            return boot;
        }
        let info = self.info_sector();
        let mut sectors = boot.clone();
        sectors.extend(&info);
        let backup = usize::from(BACKUP) * boot.len();
        sectors.resize(backup, 0);
        sectors.extend(&boot);
        sectors.extend(&info);
        sectors
    }

    fn sector(&self) -> Vec<u8> {
        vec![0; usize::try_from(self.geometry.sector_size).unwrap_or(512)]
    }

    fn boot_sector(&self) -> Vec<u8> {
        let geometry = self.geometry;
        let is_fat32 = geometry.kind == Kind::Fat32;
        let mut sector = self.sector();
        let floppy = usize::from(geometry.is_floppy());
        let (per_track, heads) = match sectors_per_track(geometry.sectors) {
            _ if geometry.is_floppy() => FLOPPY_TRACK,
            63 => (63, 255),
            sectors => (sectors, 64),
        };
        let in_sectors = geometry.cluster_size / geometry.sector_size;
        put(&mut sector, 3, OEM_NAME);
        put(&mut sector, 11, &le16(geometry.sector_size));
        put(&mut sector, 13, &[u8::try_from(in_sectors).unwrap_or(0)]);
        put(&mut sector, 14, &le16(geometry.reserved));
        put(&mut sector, 16, &[u8::try_from(TABLES).unwrap_or(0)]);
        put(&mut sector, 17, &le16(geometry.root_records));
        put(&mut sector, 21, &[media(geometry)]);
        put(&mut sector, 24, &le16(per_track));
        put(&mut sector, 26, &le16(heads));
        put(&mut sector, 28, &self.hidden_sectors.to_le_bytes());
        if geometry.sectors <= u64::from(u16::MAX) && !is_fat32 {
            put(&mut sector, 19, &le16(geometry.sectors));
        } else {
            put(&mut sector, 32, &le32(geometry.sectors));
        }
        let rest = if is_fat32 {
            put(&mut sector, 36, &le32(geometry.table_sectors));
            // The root directory comes first.
            put(&mut sector, 44, &2_u32.to_le_bytes());
            put(&mut sector, 48, &INFO.to_le_bytes());
            put(&mut sector, 50, &BACKUP.to_le_bytes());
            64
        } else {
            put(&mut sector, 22, &le16(geometry.table_sectors));
            36
        };
        put(&mut sector, rest, &[DRIVE[floppy], 0, EXTENDED]);
        put(&mut sector, rest + 3, &self.volume_id.to_le_bytes());
        let label = self.label.map_or(b"NO NAME    ", |label| &label.0);
        put(&mut sector, rest + 7, label);
        let name = format!("{:8}", geometry.kind.to_string());
        put(&mut sector, rest + 18, name.as_bytes());
        let code = rest + 26;
        // A jump over all of that; its distance counts from its own end.
        let distance = u8::try_from(code - 2).unwrap_or(0);
        put(&mut sector, 0, &[0xeb, distance, 0x90]);
        put(&mut sector, code, &BOOT_CODE);
        put(&mut sector, code + BOOT_CODE.len(), NO_SYSTEM);
        put(&mut sector, 510, &SIGNATURE);
        sector
    }

    fn info_sector(&self) -> Vec<u8> {
        let free = self.geometry.clusters - self.used_clusters;
        let next = if free == 0 {
            u64::from(u32::MAX)
        } else {
            self.used_clusters + 2
        };
        let mut sector = self.sector();
        put(&mut sector, 0, b"RRaA");
        put(&mut sector, 484, b"rrAa");
        put(&mut sector, 488, &le32(free));
        put(&mut sector, 492, &le32(next));
        put(&mut sector, 510, &SIGNATURE);
        sector
    }
}

/// What kind of medium it is.
pub(super) fn media(geometry: &Geometry) -> u8 {
    MEDIA[usize::from(geometry.is_floppy())]
}

/// Geometry that nobody uses any more, but mtools wants whole tracks.
fn sectors_per_track(sectors: u64) -> u64 {
    let divides = |tracks: &u64| sectors.is_multiple_of(*tracks);
    [63, 32, 16, 8, 4, 2].into_iter().find(divides).unwrap_or(1)
}

/// Numbers of 16 bits, where the geometry has seen to it that they are.
fn le16(value: u64) -> [u8; 2] {
    u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes()
}

fn le32(value: u64) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}
