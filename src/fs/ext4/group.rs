//! Groups: what a descriptor says.
//!
//! Source: `struct ext4_group_desc` of the kernel's `fs/ext4/ext4.h`; what is sound is what `ext4_check_descriptors`
//! lets pass.

use std::ops::Range;

use super::blocks::Blocks;
use super::checksum::{agree, crc16, crc32c};
use super::superblock::Superblock;
use crate::fields::Fields;
use crate::fs::Refusal;

/// `EXT4_BG_INODE_UNINIT`.
const FLAG_INODE_UNINIT: u16 = 1;
/// `EXT4_BG_BLOCK_UNINIT`.
const FLAG_BLOCK_UNINIT: u16 = 2;

/// A group's descriptor, checked.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) number: u64,
    pub(super) block_bitmap: u64,
    pub(super) inode_bitmap: u64,
    pub(super) inode_table: Range<u64>,
    pub(super) free_clusters: u64,
    /// Its bitmap was never written: all is free but what the layout puts there.
    pub(super) uninit: bool,
    /// Inodes at the end of its table that were never used, and whose room may never have been written.
    unused_inodes: u64,
    /// The bitmap's checksum, and which bits of it are kept.
    bitmap_sum: u32,
    bitmap_sum_mask: u32,
}

impl Group {
    /// The groups whose descriptors lie in block `number` of them.
    pub(super) fn read_block(
        blocks: &Blocks<'_, '_>,
        superblock: &Superblock,
        number: u64,
    ) -> Result<Vec<Self>, Refusal> {
        let at = superblock.descriptor_block(number);
        if at >= superblock.blocks {
            return Err(Refusal::damaged(
                "ext4 descriptors reach past the end of the filesystem",
            ));
        }
        let bytes = blocks.read(at, 1)?;
        let first = number * superblock.descriptors_per_block();
        let size = usize::try_from(superblock.descriptor_size).unwrap_or(1024);
        (first..superblock.groups)
            .zip(bytes.chunks_exact(size))
            .map(|(group, bytes)| Self::parse(superblock, group, Fields(bytes)))
            .collect()
    }

    fn parse(superblock: &Superblock, number: u64, fields: Fields<'_>) -> Result<Self, Refusal> {
        let damaged =
            |what: &str| Refusal::damaged(format!("ext4 group {number}: its descriptor {what}"));
        if !has_right_sum(superblock, number, fields) {
            return Err(damaged("fails its checksum"));
        }
        let wide = superblock.descriptor_size >= 64;
        let block = |low, high| {
            let high = if wide { fields.le32(high) } else { 0 };
            u64::from(high) << 32 | u64::from(fields.le32(low))
        };
        let halves = |low, high, wide| {
            let high = if wide { fields.le16(high) } else { 0 };
            u32::from(high) << 16 | u32::from(fields.le16(low))
        };
        let table = block(0x8, 0x28);
        let (flags, unused_inodes) = match superblock.features.descriptor_checksums() {
            false => (0, 0),
            true if fields.le16(0x12) & FLAG_INODE_UNINIT != 0 => {
                (fields.le16(0x12), superblock.inodes_per_group)
            }
            true => (fields.le16(0x12), u64::from(halves(0x1c, 0x32, wide))),
        };
        let group = Self {
            number,
            block_bitmap: block(0x0, 0x20),
            inode_bitmap: block(0x4, 0x24),
            inode_table: table..table.saturating_add(superblock.table_blocks()),
            free_clusters: u64::from(halves(0xc, 0x2c, wide)),
            uninit: flags & FLAG_BLOCK_UNINIT != 0,
            unused_inodes,
            bitmap_sum: halves(0x18, 0x38, wide),
            bitmap_sum_mask: if wide { !0 } else { 0xffff },
        };
        // Only flexible groups keep their tables wherever they like.
        let allowed = if superblock.features.flex_bg() {
            superblock.first_data_block..superblock.blocks
        } else {
            superblock.group_range(number)
        };
        let inside = group
            .metadata()
            .iter()
            .all(|range| allowed.start <= range.start && range.end <= allowed.end);
        if !inside {
            return Err(damaged("names blocks outside the group or the filesystem"));
        }
        if number == 0 && group.uninit {
            return Err(damaged("says that nothing was ever written there"));
        }
        Ok(group)
    }

    /// The blocks of its bitmaps and its table.
    pub(super) fn metadata(&self) -> [Range<u64>; 3] {
        let block = |at: u64| at..at.saturating_add(1);
        [
            block(self.block_bitmap),
            block(self.inode_bitmap),
            self.inode_table.clone(),
        ]
    }

    /// How many inodes its table begins with that are or were in use, as its descriptor says; all of them where no
    /// checksum protects what it says. `None` when there are not so many.
    pub(super) fn written_inodes(&self, superblock: &Superblock) -> Option<u64> {
        superblock.inodes_per_group.checked_sub(self.unused_inodes)
    }

    /// Clusters of the group, counted from its first, that its own metadata and copies take: sorted and apart.
    pub(super) fn own_clusters(&self, superblock: &Superblock) -> Vec<Range<u64>> {
        let group = superblock.group_range(self.number);
        let [bitmap, inodes, table] = self.metadata();
        let mut list: Vec<_> = [superblock.head(self.number), bitmap, inodes, table]
            .into_iter()
            .map(|range| range.start.max(group.start)..range.end.min(group.end))
            .filter(|range| range.start < range.end)
            .map(|range| {
                let size = superblock.cluster_blocks;
                (range.start - group.start) / size..(range.end - group.start).div_ceil(size)
            })
            .collect();
        list.sort_unstable_by_key(|range| range.start);
        list.dedup_by(|next, last| {
            let joins = next.start <= last.end;
            if joins {
                last.end = last.end.max(next.end);
            }
            joins
        });
        list
    }

    /// Whether its bitmap is what was last written.
    pub(super) fn is_right_bitmap(&self, superblock: &Superblock, bitmap: &[u8]) -> bool {
        if !superblock.features.metadata_checksums() {
            return true;
        }
        let length = usize::try_from(superblock.clusters_per_group / 8).unwrap_or(0);
        let sum = crc32c(superblock.seed, Fields(bitmap).slice(0, length));
        agree(self.bitmap_sum, sum & self.bitmap_sum_mask)
    }
}

fn has_right_sum(superblock: &Superblock, number: u64, fields: Fields<'_>) -> bool {
    let stored = fields.le16(0x1e);
    // Fewer groups than that are allowed.
    let number = u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let before = fields.slice(0, 0x1e);
    let after = fields.0.get(0x20..).unwrap_or_default();
    let features = superblock.features;
    if features.metadata_checksums() {
        let parts: [&[u8]; 4] = [&number, before, &[0; 2], after];
        let sum = parts.into_iter().fold(superblock.seed, crc32c);
        return agree(u32::from(stored), sum & 0xffff);
    }
    if features.descriptor_crc16() {
        let parts: [&[u8]; 4] = [&superblock.uuid, &number, before, after];
        let sum = parts.into_iter().fold(!0, crc16);
        return agree(u32::from(stored), u32::from(sum));
    }
    true
}
