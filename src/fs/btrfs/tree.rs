//! B-trees: every block checked against what leads to it, items in order.
//!
//! Source: `struct btrfs_header`, `btrfs_item` and `btrfs_key_ptr` of the kernel's `include/uapi/linux/btrfs_tree.h`.

use super::chunks::ChunkMap;
use super::superblock::Superblock;
use crate::fields::Fields;
use crate::fs::Refusal;
use crate::volume::Volume;

const HEADER: usize = 0x65;
const ITEM: usize = 25;
const POINTER: usize = 33;
/// `BTRFS_MAX_LEVEL`.
const LEVELS: u8 = 8;

/// What leads to a tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root {
    /// What the tree is called.
    pub(super) owner: u64,
    pub(super) at: u64,
    pub(super) generation: u64,
    pub(super) level: u8,
}

/// A key; all items of a tree are in the order of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) object: u64,
    pub(super) kind: u8,
    pub(super) offset: u64,
}

impl Key {
    pub(super) const SIZE: usize = 17;

    pub(super) fn parse(fields: Fields<'_>, at: usize) -> Self {
        Self {
            object: fields.le64(at),
            kind: fields.u8(at + 8),
            offset: fields.le64(at + 9),
        }
    }
}

/// An item of a leaf.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) key: Key,
    pub(super) data: &'a [u8],
}

/// Gets items one by one.
type EachItem<'a> = &'a mut dyn FnMut(Item<'_>) -> Result<(), Refusal>;

/// Calls `each` with all items of a tree, in the order of their keys; where the tree's blocks lie, in logical addresses.
///
/// Ends, whatever the pointers: keys rise from leaf to leaf, so no block is seen twice.
pub(super) fn walk(
    volume: &Volume<'_>,
    superblock: &Superblock,
    chunks: &ChunkMap,
    root: &Root,
    each: EachItem<'_>,
) -> Result<Vec<u64>, Refusal> {
    if root.level >= LEVELS {
        return Err(Refusal::damaged(format!(
            "btrfs tree {} has too many levels",
            root.owner
        )));
    }
    let mut walk = Walk {
        volume,
        superblock,
        chunks,
        owner: root.owner,
        last: None,
        blocks: Vec::new(),
    };
    walk.block(root.at, root.generation, root.level, None, each)?;
    Ok(walk.blocks)
}

struct Walk<'w, 'a> {
    volume: &'w Volume<'a>,
    superblock: &'w Superblock,
    chunks: &'w ChunkMap,
    owner: u64,
    /// The key of the last item.
    last: Option<Key>,
    blocks: Vec<u64>,
}

impl Walk<'_, '_> {
    fn damaged(&self, at: u64, what: &str) -> Refusal {
        Refusal::damaged(format!(
            "btrfs tree {}: block at {at:#x} {what}",
            self.owner
        ))
    }

    /// A block's bytes, once they are what its parent expects.
    fn read(&self, at: u64, generation: u64, level: u8) -> Result<Vec<u8>, Refusal> {
        let size = self.superblock.node_size;
        let place = self
            .chunks
            .place(at, size as u64)
            .filter(|_| at.is_multiple_of(self.superblock.sector_size))
            .ok_or_else(|| self.damaged(at, "is in no chunk"))?;
        let bytes = self.volume.read_vec(place, size)?;
        let fields = Fields(&bytes);
        if crc32c::crc32c(fields.slice(32, size)) != fields.le32(0) {
            return Err(self.damaged(at, "fails its checksum"));
        }
        let expected = fields.slice(0x20, 16) == self.superblock.metadata_uuid
            && fields.le64(0x30) == at
            && fields.le64(0x50) == generation
            && fields.le64(0x58) == self.owner
            && fields.u8(0x64) == level;
        if !expected {
            return Err(self.damaged(at, "is not the one that was expected"));
        }
        Ok(bytes)
    }

    fn block(
        &mut self,
        at: u64,
        generation: u64,
        level: u8,
        first: Option<Key>,
        each: EachItem<'_>,
    ) -> Result<(), Refusal> {
        let bytes = self.read(at, generation, level)?;
        self.blocks.push(at);
        let fields = Fields(&bytes);
        let count = usize::try_from(fields.le32(0x60)).unwrap_or(usize::MAX);
        let record = if level == 0 { ITEM } else { POINTER };
        // Only a tree without any item has an empty block: its root.
        let fits = count <= (bytes.len() - HEADER) / record && (count > 0 || first.is_none());
        if !fits || (level > 0 && count == 0) {
            return Err(self.damaged(at, "has an impossible number of items"));
        }
        let leads = |key: Key| first.is_none_or(|first| first == key);
        if count > 0 && !leads(Key::parse(fields, HEADER)) {
            return Err(self.damaged(at, "does not begin with its parent's key"));
        }
        for n in 0..count {
            let record = HEADER + n * record;
            let key = Key::parse(fields, record);
            if level > 0 {
                let (child, generation) = (
                    fields.le64(record + Key::SIZE),
                    fields.le64(record + Key::SIZE + 8),
                );
                self.block(child, generation, level - 1, Some(key), each)?;
                continue;
            }
            if self.last.is_some_and(|last| last >= key) {
                return Err(self.damaged(at, "has its items out of order"));
            }
            self.last = Some(key);
            // From the end of the header on; behind all item records.
            let start = usize::try_from(fields.le32(record + Key::SIZE)).unwrap_or(usize::MAX);
            let length = usize::try_from(fields.le32(record + Key::SIZE + 4)).unwrap_or(usize::MAX);
            let data = bytes
                .get(HEADER..)
                .and_then(|rest| rest.get(start..start.checked_add(length)?))
                .filter(|_| start >= count * ITEM)
                .ok_or_else(|| self.damaged(at, "has an item that is cut off"))?;
            each(Item { key, data })?;
        }
        Ok(())
    }
}
