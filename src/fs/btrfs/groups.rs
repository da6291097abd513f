//! Block groups: what is free inside of chunks.
//!
//! Every extent in use is in the extent tree, every other byte in the free space tree. Both are read as a whole, and
//! believed once one is what the other leaves, and the counts of all block groups and of the superblock agree.
//!
//! Source: `struct btrfs_block_group_item`, `btrfs_free_space_info` of the kernel's `include/uapi/linux/btrfs_tree.h`,
//! and the comments of its `fs/btrfs/free-space-tree.c`.

use std::ops::Range;

use super::chunks::{Chunk, ChunkMap};
use super::root_of;
use super::superblock::Superblock;
use super::tree::{Item, walk};
use crate::fields::Fields;
use crate::fs::Refusal;
use crate::volume::Volume;

const EXTENT_TREE: u64 = 2;
const FREE_SPACE_TREE: u64 = 10;
const BLOCK_GROUP_TREE: u64 = 11;

const EXTENT_ITEM: u8 = 168;
const METADATA_ITEM: u8 = 169;
/// Owners and references of all kinds: back references of extents that have items themselves.
const REFERENCES: [u8; 6] = [172, 176, 178, 180, 182, 184];
const BLOCK_GROUP_ITEM: u8 = 192;
const FREE_SPACE_INFO: u8 = 198;
const FREE_SPACE_EXTENT: u8 = 199;
const FREE_SPACE_BITMAP: u8 = 200;

/// Free ranges that are kept in memory at most: 64 MiB.
const MOST_RANGES: usize = 1 << 22;

/// What is free in one chunk, in logical addresses.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) chunk: Chunk,
    pub(super) free: Vec<Range<u64>>,
    /// Bytes in use, as its item or its extents say, whichever was seen first.
    used: Option<u64>,
    /// Its item was seen.
    counted: bool,
}

impl Group {
    fn contains(&self, range: &Range<u64>) -> bool {
        range.start >= self.chunk.logical
            && range.start < range.end
            && range.end <= self.chunk.logical + self.chunk.length
    }
}

/// What no extent covers, for each chunk.
pub(super) fn free(
    volume: &Volume<'_>,
    superblock: &Superblock,
    chunks: &ChunkMap,
) -> Result<Vec<Group>, Refusal> {
    let mut groups = Gaps::new(superblock, chunks);
    let mut blocks = Vec::new();
    let extents = root_of(volume, superblock, chunks, EXTENT_TREE)?;
    blocks.extend(walk(volume, superblock, chunks, &extents, &mut |item| {
        groups.extent_item(item)
    })?);
    if superblock.has_block_group_tree() {
        let root = root_of(volume, superblock, chunks, BLOCK_GROUP_TREE)?;
        blocks.extend(walk(volume, superblock, chunks, &root, &mut |item| {
            groups.group_item(item)
        })?);
    }
    let groups = groups.finish()?;

    let mut listed = Listed::new(superblock, &groups);
    let root = root_of(volume, superblock, chunks, FREE_SPACE_TREE)?;
    blocks.extend(walk(volume, superblock, chunks, &root, &mut |item| {
        listed.item(item)
    })?);
    listed.finish()?;

    for root in [&superblock.root, &superblock.chunk_root] {
        blocks.extend(walk(volume, superblock, chunks, root, &mut |_| Ok(()))?);
    }
    let size = superblock.node_size as u64;
    if blocks.iter().any(|&at| is_free(&groups, &(at..at + size))) {
        return Err(Refusal::damaged("btrfs calls blocks of its own trees free"));
    }
    Ok(groups)
}

/// Whether any byte of a block that lies in a chunk is free.
fn is_free(groups: &[Group], block: &Range<u64>) -> bool {
    let next = groups.partition_point(|group| group.chunk.logical <= block.start);
    let group = next.checked_sub(1).and_then(|last| groups.get(last));
    group.is_some_and(|group| {
        let next = group.free.partition_point(|free| free.end <= block.start);
        group
            .free
            .get(next)
            .is_some_and(|free| free.start < block.end)
    })
}

/// What lies between extents.
struct Gaps<'s> {
    superblock: &'s Superblock,
    groups: Vec<Group>,
    /// The group of the last extent, where that ends, and what the group's extents come to.
    current: usize,
    end: u64,
    used: u64,
    all: u64,
    ranges: usize,
}

impl<'s> Gaps<'s> {
    fn new(superblock: &'s Superblock, chunks: &ChunkMap) -> Self {
        let groups = chunks.list().iter().map(|chunk| Group {
            chunk: *chunk,
            free: Vec::new(),
            used: None,
            counted: false,
        });
        let groups: Vec<Group> = groups.collect();
        Self {
            superblock,
            end: groups.first().map_or(0, |group| group.chunk.logical),
            groups,
            current: 0,
            used: 0,
            all: 0,
            ranges: 0,
        }
    }

    fn extent_item(&mut self, item: Item<'_>) -> Result<(), Refusal> {
        let length = match item.key.kind {
            EXTENT_ITEM => item.key.offset,
            METADATA_ITEM => self.superblock.node_size as u64,
            BLOCK_GROUP_ITEM if !self.superblock.has_block_group_tree() => {
                return self.group_item(item);
            }
            kind if REFERENCES.contains(&kind) => return Ok(()),
            kind => {
                return Err(Refusal::unsupported(format!(
                    "btrfs has an unknown item of type {kind} among its extents"
                )));
            }
        };
        let start = item.key.object;
        let damaged = || Refusal::damaged(format!("btrfs has an impossible extent at {start:#x}"));
        let end = start.checked_add(length).ok_or_else(damaged)?;
        let sector = self.superblock.sector_size;
        while self
            .groups
            .get(self.current)
            .is_some_and(|group| start >= group.chunk.logical + group.chunk.length)
        {
            self.close()?;
        }
        let group = self.groups.get_mut(self.current).ok_or_else(damaged)?;
        let sound = group.contains(&(start..end))
            && start >= self.end
            && start.is_multiple_of(sector)
            && length.is_multiple_of(sector);
        if !sound {
            return Err(damaged());
        }
        if start > self.end {
            group.free.push(self.end..start);
            self.ranges += 1;
        }
        if self.ranges > MOST_RANGES {
            return Err(Refusal::unsupported("btrfs with too many free extents"));
        }
        self.end = end;
        self.used += length;
        Ok(())
    }

    /// Goes on to the next group.
    fn close(&mut self) -> Result<(), Refusal> {
        let Some(group) = self.groups.get_mut(self.current) else {
            return Ok(());
        };
        let end = group.chunk.logical + group.chunk.length;
        if self.end < end {
            group.free.push(self.end..end);
            self.ranges += 1;
        }
        // A group's item may come before its extents or after them.
        match group.used {
            Some(used) if used != self.used => return Err(miscounted(group, self.used)),
            _ => group.used = Some(self.used),
        }
        self.all = self.all.saturating_add(self.used);
        self.current += 1;
        self.used = 0;
        self.end = self
            .groups
            .get(self.current)
            .map_or(u64::MAX, |group| group.chunk.logical);
        Ok(())
    }

    fn group_item(&mut self, item: Item<'_>) -> Result<(), Refusal> {
        if item.key.kind != BLOCK_GROUP_ITEM {
            return Ok(());
        }
        let fields = Fields(item.data);
        let found = self
            .groups
            .binary_search_by_key(&item.key.object, |group| group.chunk.logical);
        let group = found.ok().and_then(|n| self.groups.get_mut(n));
        let group = group.filter(|group| {
            item.key.offset == group.chunk.length && fields.le64(16) == group.chunk.flags
        });
        let Some(group) = group else {
            return Err(Refusal::damaged("btrfs has a block group without a chunk"));
        };
        group.counted = true;
        let used = fields.le64(0);
        match group.used {
            Some(other) if other != used => Err(miscounted(group, other)),
            _ => {
                group.used = Some(used);
                Ok(())
            }
        }
    }

    fn finish(mut self) -> Result<Vec<Group>, Refusal> {
        while self.current < self.groups.len() {
            self.close()?;
        }
        if self.all != self.superblock.used {
            return Err(Refusal::damaged(format!(
                "btrfs superblock counts {} bytes in use, its extents {}",
                self.superblock.used, self.all
            )));
        }
        if self.groups.iter().any(|group| !group.counted) {
            return Err(Refusal::damaged("btrfs has a chunk without a block group"));
        }
        Ok(self.groups)
    }
}

fn miscounted(group: &Group, extents: u64) -> Refusal {
    Refusal::damaged(format!(
        "btrfs block group at {:#x} counts other than the {extents} bytes of its extents",
        group.chunk.logical
    ))
}

/// The free space tree, compared as it is read.
struct Listed<'g> {
    sector: u64,
    groups: &'g [Group],
    /// The next group, and what the tree says of the last one.
    next: usize,
    expected: usize,
    bitmaps: bool,
    /// What comes is of a group that there no longer is.
    gone: bool,
    /// Ranges that were seen of the last group; they do not touch.
    seen: usize,
    last: Option<Range<u64>>,
}

impl<'g> Listed<'g> {
    fn new(superblock: &Superblock, groups: &'g [Group]) -> Self {
        Self {
            sector: superblock.sector_size,
            groups,
            next: 0,
            expected: 0,
            bitmaps: false,
            gone: true,
            seen: 0,
            last: None,
        }
    }

    fn contradiction() -> Refusal {
        Refusal::damaged("btrfs extents and free space contradict each other")
    }

    fn item(&mut self, item: Item<'_>) -> Result<(), Refusal> {
        let (start, length) = (item.key.object, item.key.offset);
        let end = start.checked_add(length).ok_or_else(Self::contradiction)?;
        match item.key.kind {
            FREE_SPACE_INFO => {
                self.close()?;
                let next = self.groups.get(self.next);
                let fields = Fields(item.data);
                let is_next = next.is_some_and(|group| {
                    start == group.chunk.logical && length == group.chunk.length
                });
                // mkfs.btrfs leaves what it knew of chunks that it took away again.
                self.gone = !is_next;
                if self.gone {
                    let before = self
                        .groups
                        .partition_point(|group| group.chunk.logical < end);
                    let last = before.checked_sub(1).and_then(|n| self.groups.get(n));
                    let touches =
                        last.is_some_and(|last| start < last.chunk.logical + last.chunk.length);
                    return if touches {
                        Err(Self::contradiction())
                    } else {
                        Ok(())
                    };
                }
                self.next += 1;
                self.expected = usize::try_from(fields.le32(0)).unwrap_or(usize::MAX);
                self.bitmaps = match fields.le32(4) {
                    0 => false,
                    1 => true,
                    _ => return Err(Self::contradiction()),
                };
                Ok(())
            }
            FREE_SPACE_EXTENT | FREE_SPACE_BITMAP if self.gone => Ok(()),
            FREE_SPACE_EXTENT if !self.bitmaps => self.free(start..end),
            FREE_SPACE_BITMAP if self.bitmaps => {
                let bits = length / self.sector;
                let bytes = item.data;
                if bytes.len() as u64 != bits.div_ceil(8) {
                    return Err(Self::contradiction());
                }
                let is_set = |bit: u64| {
                    let byte = usize::try_from(bit / 8).ok().and_then(|at| bytes.get(at));
                    byte.is_some_and(|byte| byte >> (bit % 8) & 1 != 0)
                };
                for bit in (0..bits).filter(|&bit| is_set(bit)) {
                    let at = start + bit * self.sector;
                    self.free(at..at + self.sector)?;
                }
                Ok(())
            }
            _ => Err(Self::contradiction()),
        }
    }

    /// Adds a free range, which may touch the last one.
    fn free(&mut self, range: Range<u64>) -> Result<(), Refusal> {
        match &mut self.last {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => {
                self.compare()?;
                self.last = Some(range);
            }
        }
        Ok(())
    }

    /// Holds the last range against what the extents leave.
    fn compare(&mut self) -> Result<(), Refusal> {
        let Some(last) = self.last.take() else {
            return Ok(());
        };
        let group = self.next.checked_sub(1).and_then(|n| self.groups.get(n));
        if group.and_then(|group| group.free.get(self.seen)) != Some(&last) {
            return Err(Self::contradiction());
        }
        self.seen += 1;
        Ok(())
    }

    /// Ends a group.
    fn close(&mut self) -> Result<(), Refusal> {
        if self.gone {
            return Ok(());
        }
        self.compare()?;
        let group = self.next.checked_sub(1).and_then(|n| self.groups.get(n));
        let free = group.map_or(0, |group| group.free.len());
        if self.seen != free || self.expected != free {
            return Err(Self::contradiction());
        }
        self.seen = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<(), Refusal> {
        self.close()?;
        if self.next != self.groups.len() {
            return Err(Self::contradiction());
        }
        Ok(())
    }
}
