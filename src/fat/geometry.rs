//! How a volume is divided: reserved sectors, tables, root directory, clusters.
//!
//! Which FAT a volume has follows from its number of clusters alone. Readers disagree by a few about where the borders
//! are, so that counts within [`MARGIN`] of them are avoided.

use super::directory::Directories;
use super::{Options, Size};
use crate::error::{Error, Result};
use crate::units::ByteSize;

/// Width of the table's entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 12 bits.
    Fat12,
    /// 16 bits.
    Fat16,
    /// 32 bits, of which 28 count.
    Fat32,
}

/// Copies of the table.
pub(super) const TABLES: u64 = 2;
/// Bytes of a record of a directory.
const RECORD: u64 = 32;
/// Records of a root directory that has a fixed place: as many as everyone makes, more where they are needed.
const ROOT_RECORDS: u64 = 512;
const MOST_ROOT_RECORDS: u64 = 65_520;
const MARGIN: u64 = 16;
const LARGEST_CLUSTER: u64 = 64 << 10;
/// Clusters begin at whole blocks of hosts and guests, if the volume does.
const BLOCK: u64 = 4096;
/// Volumes that are sized to their content have a multiple of this.
const STEP: u64 = 64 << 10;
const LEAST: u64 = 2 * STEP;

impl Kind {
    fn bits(self) -> u64 {
        match self {
            Self::Fat12 => 12,
            Self::Fat16 => 16,
            Self::Fat32 => 32,
        }
    }

    /// Clusters of a volume that everybody takes for this kind.
    fn clusters(self) -> std::ops::RangeInclusive<u64> {
        match self {
            Self::Fat12 => 1..=4084 - MARGIN,
            Self::Fat16 => 4085 + MARGIN..=65_524 - MARGIN,
            Self::Fat32 => 65_525 + MARGIN..=0x0fff_fff5,
        }
    }

    /// Sectors before the tables, at least.
    fn reserved(self) -> u64 {
        match self {
            Self::Fat12 | Self::Fat16 => 1,
            Self::Fat32 => 32,
        }
    }
}

/// Numbers are of sectors unless they say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) kind: Kind,
    /// In bytes.
    pub(super) sector_size: u64,
    /// In bytes.
    pub(super) cluster_size: u64,
    pub(super) sectors: u64,
    pub(super) reserved: u64,
    pub(super) table_sectors: u64,
    /// Records of the root directory; 0 when it is in clusters.
    pub(super) root_records: u64,
    pub(super) clusters: u64,
}

impl Geometry {
    /// The one that `options` ask for, with room for `directories`.
    pub(super) fn choose(options: &Options, directories: &Directories<'_>) -> Result<Self> {
        if !matches!(options.sector_size, 512 | 1024 | 2048 | 4096) {
            return Err(Error::usage(format!(
                "FAT has no sectors of {} bytes",
                options.sector_size
            ))
            .with_remedy("sectors have 512, 1024, 2048 or 4096 bytes"));
        }
        if directories.root_records() > MOST_ROOT_RECORDS {
            return Err(Error::usage("the root directory has too many names"));
        }
        match options.size {
            Size::Fixed(size) => {
                let geometry = Self::of_size(size, options, directories)?;
                let needed = directories.clusters(&geometry);
                if needed > geometry.clusters {
                    return Err(Error::usage(format!(
                        "the files need {} on {}, which has {}",
                        ByteSize(needed.saturating_mul(geometry.cluster_size)),
                        geometry.kind,
                        ByteSize(geometry.clusters * geometry.cluster_size),
                    ))
                    .with_remedy("make the volume larger"));
                }
                Ok(geometry)
            }
            Size::Minimal { spare } => Self::minimal(spare, options, directories),
        }
    }

    /// The first that is large enough, growing by what is lacking.
    fn minimal(spare: u64, options: &Options, directories: &Directories<'_>) -> Result<Self> {
        let too_large = || Error::usage("the files are too many for a FAT volume");
        let mut size = LEAST;
        // Each step adds what the last one lacked; only where a cluster becomes larger does that lack anything again.
        for _ in 0..256 {
            let lacking = match Self::of_size(size, options, directories) {
                // Too small for the kind that was asked for.
                Err(_) if options.kind.is_some() && size < 1 << 40 => STEP.max(size / 16),
                Err(error) => return Err(error),
                Ok(geometry) => {
                    let spare = spare.div_ceil(geometry.cluster_size);
                    let needed = directories.clusters(&geometry).saturating_add(spare);
                    if needed <= geometry.clusters {
                        return Ok(geometry);
                    }
                    (needed - geometry.clusters).saturating_mul(geometry.cluster_size)
                }
            };
            size = size
                .checked_add(lacking)
                .and_then(|size| size.checked_next_multiple_of(STEP))
                .ok_or_else(too_large)?;
        }
        Err(too_large())
    }

    fn of_size(size: u64, options: &Options, directories: &Directories<'_>) -> Result<Self> {
        let sector_size = options.sector_size;
        let sectors = size / sector_size;
        if sectors > u64::from(u32::MAX) {
            return Err(Error::usage(format!(
                "{} are too many for a FAT volume with sectors of {sector_size} bytes",
                ByteSize(size)
            )));
        }
        let root = directories.root_records().max(ROOT_RECORDS);
        let kinds: &[Kind] = match options.kind {
            Some(Kind::Fat12) => &[Kind::Fat12],
            Some(Kind::Fat16) => &[Kind::Fat16],
            Some(Kind::Fat32) => &[Kind::Fat32],
            None => &[Kind::Fat32, Kind::Fat16, Kind::Fat12],
        };
        let candidates = kinds.iter().flat_map(|&kind| {
            let least = least_cluster(kind, size).max(sector_size);
            std::iter::successors(Some(least), |size| Some(size * 2))
                .take_while(|size| *size <= LARGEST_CLUSTER.min(sector_size * 128))
                .map(move |cluster_size| (kind, cluster_size))
        });
        let found = candidates
            .filter_map(|(kind, cluster_size)| {
                Self::divide(kind, sector_size, cluster_size, sectors, root)
            })
            .find(|geometry| geometry.kind.clusters().contains(&geometry.clusters));
        found.ok_or_else(|| {
            let kind = options
                .kind
                .map_or("FAT".to_owned(), |kind| kind.to_string());
            Error::usage(format!(
                "no {kind} volume has {} and sectors of {sector_size} bytes",
                ByteSize(size)
            ))
            .with_remedy("choose another size, or leave the kind open")
        })
    }

    fn divide(
        kind: Kind,
        sector_size: u64,
        cluster_size: u64,
        sectors: u64,
        root_records: u64,
    ) -> Option<Self> {
        let root_records = if kind == Kind::Fat32 { 0 } else { root_records };
        let root_sectors = (root_records * RECORD).div_ceil(sector_size);
        let per_cluster = cluster_size / sector_size;
        let table_sectors =
            |clusters: u64| ((clusters + 2) * kind.bits()).div_ceil(sector_size * 8);
        let divided = |table: u64| {
            let fixed = TABLES * table + root_sectors;
            // What is reserved besides makes the clusters begin with a block.
            let start = (fixed + kind.reserved()) * sector_size;
            let reserved = start.next_multiple_of(BLOCK) / sector_size - fixed;
            let data = sectors.checked_sub(fixed + reserved)?;
            Some((reserved, data / per_cluster))
        };
        // Without tables there would be more clusters: what suffices for those suffices for what is left of them.
        let mut table = table_sectors(divided(0)?.1);
        let (mut reserved, mut clusters) = divided(table)?;
        while table_sectors(clusters) < table {
            let (more_reserved, more_clusters) = divided(table - 1)?;
            if table_sectors(more_clusters) > table - 1 {
                break;
            }
            (table, reserved, clusters) = (table - 1, more_reserved, more_clusters);
        }
        let fits_fields = reserved <= u64::from(u16::MAX)
            && (kind == Kind::Fat32 || table <= u64::from(u16::MAX));
        fits_fields.then_some(Self {
            kind,
            sector_size,
            cluster_size,
            sectors,
            reserved,
            table_sectors: table,
            root_records: root_sectors * sector_size / RECORD,
            clusters,
        })
    }

    /// Bytes of the volume.
    pub(super) fn size(&self) -> u64 {
        self.sectors * self.sector_size
    }

    /// It is that of a floppy disk of 1.44 MB.
    pub(super) fn is_floppy(&self) -> bool {
        self.kind == Kind::Fat12 && self.sector_size == 512 && self.sectors == 2880
    }

    /// Where the first table is, in bytes.
    pub(super) fn tables_at(&self) -> u64 {
        self.reserved * self.sector_size
    }

    /// Bytes of a table.
    pub(super) fn table_size(&self) -> u64 {
        self.table_sectors * self.sector_size
    }

    /// Where the root directory is that has a fixed place, in bytes.
    pub(super) fn root_at(&self) -> u64 {
        self.tables_at() + TABLES * self.table_size()
    }

    /// Where a cluster is, in bytes; the first has the number 2.
    pub(super) fn cluster_at(&self, cluster: u64) -> u64 {
        self.root_at() + self.root_records * RECORD + (cluster - 2) * self.cluster_size
    }
}

/// The smallest cluster for a volume of so many bytes: as Microsoft's tables have it for FAT32; for the others whatever
/// their number of clusters allows.
fn least_cluster(kind: Kind, size: u64) -> u64 {
    match kind {
        Kind::Fat12 | Kind::Fat16 => 512,
        Kind::Fat32 => match size >> 20 {
            0..=260 => 512,
            261..=8191 => 4 << 10,
            8192..=16_383 => 8 << 10,
            16_384..=32_767 => 16 << 10,
            _ => 32 << 10,
        },
    }
}
