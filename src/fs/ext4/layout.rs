//! Where things lie that no bitmap has to tell: copies of the superblock, descriptors, whole groups.
//!
//! Source: `ext4_bg_has_super`, `ext4_bg_num_gdb` and `descriptor_loc` of the kernel's `fs/ext4/`, and
//! `ext2fs_super_and_bgd_loc2` of e2fsprogs.

use std::ops::Range;

use super::superblock::Superblock;

impl Superblock {
    /// Descriptors in a block of them, which under META_BG is how many groups make a meta group.
    pub(super) fn descriptors_per_block(&self) -> u64 {
        self.block_size / self.descriptor_size
    }

    /// Blocks of one whole set of descriptors.
    pub(super) fn descriptor_blocks(&self) -> u64 {
        self.groups.div_ceil(self.descriptors_per_block())
    }

    /// Blocks of a group's inode table.
    pub(super) fn table_blocks(&self) -> u64 {
        (self.inodes_per_group * self.inode_size).div_ceil(self.block_size)
    }

    /// The blocks of group `group`.
    pub(super) fn group_range(&self, group: u64) -> Range<u64> {
        let start = self.first_data_block + group * self.blocks_per_group;
        start..(start + self.blocks_per_group).min(self.blocks)
    }

    /// Bits of its bitmap that mean something.
    pub(super) fn clusters_in(&self, group: u64) -> u64 {
        let range = self.group_range(group);
        (range.end - range.start).div_ceil(self.cluster_blocks)
    }

    /// Whether `group` begins with a copy of the superblock.
    pub(super) fn has_copy(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.features.sparse_super2() {
            return self.backup_groups.contains(&group);
        }
        let is_power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power *= base;
            }
            power == group
        };
        !self.features.sparse_super() || group == 1 || [3, 5, 7].into_iter().any(is_power_of)
    }

    /// The blocks that `group` begins with: copies of the superblock and of descriptors, and room for more of these.
    pub(super) fn head(&self, group: u64) -> Range<u64> {
        let range = self.group_range(group);
        let copy = u64::from(self.has_copy(group));
        let position = group % self.descriptors_per_block();
        let meta_group = group / self.descriptors_per_block();
        let descriptors = if self.features.meta_bg() && meta_group >= self.first_meta_bg {
            let last = self.descriptors_per_block() - 1;
            u64::from(position <= 1 || position == last)
        } else if self.features.meta_bg() {
            copy * self.first_meta_bg
        } else {
            copy * (self.descriptor_blocks() + self.reserved_descriptors)
        };
        let boot = if group == 0 { self.boot_blocks() } else { 0 };
        let end = range.start + boot + copy + descriptors;
        range.start..end.min(self.blocks)
    }

    /// Where block `number` of the descriptors lies; perhaps past the end.
    pub(super) fn descriptor_block(&self, number: u64) -> u64 {
        if !self.features.meta_bg() || number < self.first_meta_bg {
            return self.first_data_block + self.boot_blocks() + 1 + number;
        }
        let group = number * self.descriptors_per_block();
        let boot = if group == 0 { self.boot_blocks() } else { 0 };
        self.group_range(group).start + boot + u64::from(self.has_copy(group))
    }

    /// Blocks of group 0 in front of the superblock: one when bigalloc gives the boot sector's block to the group.
    fn boot_blocks(&self) -> u64 {
        u64::from(self.block_size == 1024 && self.first_data_block == 0)
    }

    /// The bytes of a range of blocks inside the filesystem.
    pub(super) fn bytes(&self, blocks: Range<u64>) -> Range<u64> {
        blocks.start * self.block_size..blocks.end * self.block_size
    }
}
