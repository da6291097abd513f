//! The boot sector: geometry.

use std::ops::Range;

use crate::error::Result;
use crate::fields::Fields;
use crate::fs::Refusal;
use crate::volume::Volume;

const SECTOR: usize = 512;
/// What Windows can count; also what bounds the length of the bitmap.
const MOST_CLUSTERS: u64 = u32::MAX as u64;
const MAGIC: &[u8; 8] = b"NTFS    ";

/// Geometry, every number of it possible; whether it fits in the volume is another matter.
#[derive(Debug, Clone)]
pub(super) struct Boot {
    pub(super) sector_size: u64,
    pub(super) cluster_size: u64,
    sectors: u64,
    /// Whole clusters. Behind them lies a copy of the boot sector.
    pub(super) clusters: u64,
    /// First clusters of `$MFT` and of `$MFTMirr`.
    pub(super) mft: u64,
    pub(super) mirror: u64,
    pub(super) record_size: usize,
    pub(super) serial: u64,
}

impl Boot {
    /// `None` when there is none, or one that nobody could mount.
    pub(super) fn find(volume: &Volume<'_>) -> Result<Option<Self>> {
        if volume.size() < SECTOR as u64 {
            return Ok(None);
        }
        let sector = volume.read_array::<SECTOR>(0)?;
        Ok(Self::parse(Fields(&sector)))
    }

    fn parse(fields: Fields<'_>) -> Option<Self> {
        if fields.array(3) != *MAGIC {
            return None;
        }
        let power = |size: u64, least: u64, most: u64| {
            (size.is_power_of_two() && (least..=most).contains(&size)).then_some(size)
        };
        let sector_size = power(u64::from(fields.le16(11)), 512, 4096)?;
        // Up to 128 as it is; beyond, the power of two that a negative number says.
        let per_cluster = match fields.u8(13) {
            count @ ..=0x80 => u64::from(count),
            negative => 1_u64.checked_shl(256 - u32::from(negative))?,
        };
        let cluster_size = power(sector_size.checked_mul(per_cluster)?, sector_size, 2 << 20)?;
        // Clusters, or the power of two that a negative number says.
        let per_record = fields.u8(64).cast_signed();
        let record_size = if per_record > 0 {
            cluster_size.checked_mul(u64::from(per_record.unsigned_abs()))?
        } else {
            1_u64.checked_shl(u32::from(per_record.unsigned_abs()))?
        };
        let record_size = power(record_size, 512, 64 << 10)?;
        let sectors = fields.le64(40);
        let clusters = sectors / (cluster_size / sector_size);
        let (mft, mirror) = (fields.le64(48), fields.le64(56));
        let inside = |cluster: u64| cluster > 0 && cluster < clusters;
        (inside(mft) && inside(mirror) && clusters <= MOST_CLUSTERS).then(|| Self {
            sector_size,
            cluster_size,
            sectors,
            clusters,
            mft,
            mirror,
            record_size: usize::try_from(record_size).unwrap_or(SECTOR),
            serial: fields.le64(72),
        })
    }

    /// Bytes that it claims, without the copy of its boot sector.
    pub(super) fn bytes(&self) -> u64 {
        self.sectors * self.sector_size
    }

    pub(super) fn require_inside(&self, volume: &Volume<'_>) -> Result<(), Refusal> {
        if self.bytes() > volume.size() {
            return Err(Refusal::damaged(format!(
                "ntfs of {} bytes reaches past the end of its volume",
                self.bytes()
            )));
        }
        Ok(())
    }

    /// Where clusters lie; both numbers are below [`Boot::clusters`].
    pub(super) fn bytes_of(&self, cluster: u64, count: u64) -> Range<u64> {
        let start = cluster.saturating_mul(self.cluster_size);
        start..start.saturating_add(count.saturating_mul(self.cluster_size))
    }
}
