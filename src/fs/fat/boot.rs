//! The boot sector: geometry, and the marks that a mount leaves.
//!
//! Source: "FAT: General Overview of On-Disk Format" 1.03, chapters "Boot Sector and BPB" and "FAT Type
//! Determination"; `struct fat_boot_sector` of the kernel's `include/uapi/linux/msdos_fs.h`.

use std::ops::Range;

use super::table::Entry;
use crate::fields::Fields;
use crate::fs::Refusal;
use crate::volume::Volume;

/// Bytes that are read of the boot sector: the smallest sector.
const SECTOR: usize = 512;
/// Bytes of a record of a directory.
pub(super) const RECORD: u64 = 32;

/// State byte: mounted, and not unmounted since.
pub(super) const STATE_DIRTY: u8 = 1 << 0;
/// State byte: something went wrong with the medium.
pub(super) const STATE_ERROR: u8 = 1 << 1;

/// `FVE`, as a GUID: BitLocker's mark in what looks like a FAT32 boot sector, `4967d63b-2e29-4ad8-8399-f6a339e3d001`.
const BITLOCKER_TO_GO: [u8; 16] = [
    0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01,
];

/// Clusters that FAT12 and FAT16 have at most.
const MOST_FAT12: u64 = 4084;
const MOST_FAT16: u64 = 65524;
/// Clusters that FAT32 has at most: numbers from 0x0ffffff7 on mean something else.
const MOST_FAT32: u64 = 0x0fff_fff5;

/// Width of an entry in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fat12 => "FAT12",
            Self::Fat16 => "FAT16",
            Self::Fat32 => "FAT32",
        }
    }

    pub(super) fn bits(self) -> u64 {
        match self {
            Self::Fat12 => 12,
            Self::Fat16 => 16,
            Self::Fat32 => 32,
        }
    }

    /// Bits of an entry that count: the highest four of FAT32's are reserved.
    pub(super) fn mask(self) -> u32 {
        match self {
            Self::Fat12 => 0xfff,
            Self::Fat16 => 0xffff,
            Self::Fat32 => 0x0fff_ffff,
        }
    }
}

/// A boot sector whose numbers fit each other. All places are bytes of the volume, and may lie past its end.
#[derive(Debug, Clone)]
pub(super) struct Boot {
    pub(super) kind: Kind,
    pub(super) sector_size: u64,
    pub(super) cluster_size: u64,
    /// Where the tables begin, how long one is, and how many they are.
    pub(super) tables_at: u64,
    pub(super) table_size: u64,
    pub(super) tables: u64,
    /// The one table that counts, when the others are not kept equal.
    pub(super) active_table: Option<u64>,
    /// Where the root directory is; empty in FAT32.
    pub(super) root: Range<u64>,
    /// Where the root directory begins in FAT32; otherwise 0.
    pub(super) root_cluster: u64,
    /// Where cluster 2 is.
    pub(super) data_at: u64,
    pub(super) clusters: u64,
    pub(super) media: u8,
    pub(super) state: u8,
    pub(super) serial: u32,
    sectors: u64,
}

impl Boot {
    /// `None` when the first sector is not FAT's.
    pub(super) fn read(volume: &Volume<'_>) -> crate::Result<Option<Self>> {
        if volume.size() < SECTOR as u64 {
            return Ok(None);
        }
        let sector = volume.read_array::<SECTOR>(0)?;
        Ok(Self::parse(Fields(&sector)))
    }

    /// One that the volume has room for.
    pub(super) fn require(volume: &Volume<'_>) -> Result<Self, Refusal> {
        let boot = Self::read(volume)?
            .ok_or_else(|| Refusal::damaged("fat boot sector contradicts itself"))?;
        if boot.size() > volume.size() {
            return Err(Refusal::damaged(format!(
                "fat claims {} bytes of a volume of {}",
                boot.size(),
                volume.size()
            )));
        }
        Ok(boot)
    }

    fn parse(fields: Fields<'_>) -> Option<Self> {
        let is_jump = matches!((fields.u8(0), fields.u8(2)), (0xeb, 0x90) | (0xe9, _));
        let other = [b"EXFAT   ", b"NTFS    ", b"-FVE-FS-"];
        let is_fat = is_jump
            && fields.array(510) == [0x55, 0xaa]
            && other.iter().all(|name| fields.array(3) != **name)
            && fields.array(424) != BITLOCKER_TO_GO;
        if !is_fat {
            return None;
        }
        let sector_size = u64::from(fields.le16(11));
        let per_cluster = u64::from(fields.u8(13));
        let reserved = u64::from(fields.le16(14));
        let tables = u64::from(fields.u8(16));
        let root_entries = u64::from(fields.le16(17));
        let media = fields.u8(21);
        let sound = matches!(sector_size, 512 | 1024 | 2048 | 4096)
            && per_cluster.is_power_of_two()
            && reserved > 0
            && (1..=2).contains(&tables)
            && (root_entries * RECORD).is_multiple_of(sector_size)
            && (media == 0xf0 || media >= 0xf8);
        if !sound {
            return None;
        }
        let (small, large) = (fields.le16(19), fields.le32(32));
        let sectors = match (small, large) {
            (0, large) => u64::from(large),
            (small, 0) => u64::from(small),
            (small, large) if u32::from(small) == large => u64::from(small),
            _ => return None,
        };
        // As Linux tells FAT32 apart: it never has the short field, the others always do.
        let is_fat32 = fields.le16(22) == 0;
        let table_sectors = if is_fat32 {
            u64::from(fields.le32(36))
        } else {
            u64::from(fields.le16(22))
        };
        let is_plausible = if is_fat32 {
            root_entries == 0 && fields.le16(42) == 0
        } else {
            root_entries > 0
        };
        if !is_plausible {
            return None;
        }
        let root_sectors = root_entries * RECORD / sector_size;
        let data_sector = reserved + tables * table_sectors + root_sectors;
        let clusters = sectors.checked_sub(data_sector)? / per_cluster;
        let kind = match clusters {
            _ if is_fat32 => Kind::Fat32,
            0..=MOST_FAT12 => Kind::Fat12,
            _ => Kind::Fat16,
        };
        let most = match kind {
            Kind::Fat12 => MOST_FAT12,
            Kind::Fat16 => MOST_FAT16,
            Kind::Fat32 => MOST_FAT32,
        };
        // Places of fields behind those that all have in common.
        let more = if is_fat32 { 64 } else { 36 };
        let root_cluster = if is_fat32 {
            u64::from(fields.le32(44))
        } else {
            0
        };
        let flags = if is_fat32 { fields.le16(40) } else { 0 };
        let active_table = (flags & 1 << 7 != 0).then_some(u64::from(flags & 0xf));
        let fits = (1..=most).contains(&clusters)
            && table_sectors * sector_size * 8 >= (clusters + 2) * kind.bits()
            && (!is_fat32 || (2..clusters + 2).contains(&root_cluster))
            && active_table.is_none_or(|active| active < tables);
        if !fits {
            return None;
        }
        let has_serial = matches!(fields.u8(more + 2), 0x28 | 0x29);
        let tables_at = reserved * sector_size;
        let table_size = table_sectors * sector_size;
        let root_at = tables_at + tables * table_size;
        Some(Self {
            kind,
            sector_size,
            cluster_size: per_cluster * sector_size,
            tables_at,
            table_size,
            tables,
            active_table,
            root: root_at..root_at + root_entries * RECORD,
            root_cluster,
            data_at: data_sector * sector_size,
            clusters,
            media,
            state: fields.u8(more + 1),
            serial: if has_serial { fields.le32(more + 3) } else { 0 },
            sectors,
        })
    }

    /// Bytes that the filesystem claims.
    pub(super) fn size(&self) -> u64 {
        self.sectors * self.sector_size
    }

    /// Where these clusters are; their numbers are of clusters that there are.
    pub(super) fn bytes_of(&self, clusters: Range<u64>) -> Range<u64> {
        let at = |cluster: u64| self.data_at + cluster.saturating_sub(2) * self.cluster_size;
        at(clusters.start)..at(clusters.end)
    }

    /// Whether there is such a cluster.
    pub(super) fn has(&self, cluster: u64) -> bool {
        (2..self.clusters + 2).contains(&cluster)
    }

    /// What an entry of the table says, after the mask.
    pub(super) fn entry(&self, value: u32) -> Entry {
        let mask = self.kind.mask();
        match value & mask {
            0 => Entry::Free,
            value if self.has(u64::from(value)) => Entry::Next(u64::from(value)),
            value if value == mask - 8 => Entry::Bad,
            value if value > mask - 8 => Entry::Last,
            _ => Entry::Impossible,
        }
    }
}
