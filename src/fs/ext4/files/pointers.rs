//! Block numbers as ext2 has them: twelve in the inode, and three trees of one, two and three levels.

use super::Run;
use super::blocks::Blocks;
use super::inode::{Inode, corrupt};
use crate::error::Result;
use crate::fields::Fields;
use crate::fs::ext4::superblock::Superblock;

/// `EXT4_NDIR_BLOCKS`.
const DIRECT: u64 = 12;
const LEVELS: u64 = 3;

/// Where block `block` of the file is, and up to which block it goes on like that, as far as one block of numbers tells.
pub(super) fn find(
    blocks: &Blocks<'_>,
    superblock: &Superblock,
    inode: &Inode,
    places: &[u8],
    block: u64,
) -> Result<Run> {
    let corrupt = |what| corrupt(inode.number, what);
    let per_block = superblock.block_size / 4;
    let Some(mut left) = block.checked_sub(DIRECT) else {
        return run(superblock, Fields(places), block, DIRECT, block).ok_or_else(|| outside(inode));
    };
    let mut level = 1;
    // Blocks below one number of the level that was looked at.
    let mut below = per_block;
    while left >= below {
        left -= below;
        level += 1;
        if level > LEVELS {
            return Err(corrupt("is larger than it can be"));
        }
        below *= per_block;
    }
    let at = usize::try_from((DIRECT + level - 1) * 4).unwrap_or(usize::MAX);
    let mut number = u64::from(Fields(places).le32(at));
    for _ in 0..level {
        if number == 0 {
            // Nothing below it.
            return Ok(Run {
                at: None,
                end: block - left + below,
            });
        }
        if number >= superblock.blocks {
            return Err(outside(inode));
        }
        let length = usize::try_from(superblock.block_size).unwrap_or(0);
        let bytes = blocks.read(number * superblock.block_size, length)?;
        below /= per_block;
        let index = left / below;
        if below == 1 {
            let run = run(superblock, Fields(&bytes), index, per_block, block);
            return run.ok_or_else(|| outside(inode));
        }
        left %= below;
        let at = usize::try_from(index * 4).unwrap_or(usize::MAX);
        number = u64::from(Fields(&bytes).le32(at));
    }
    Err(corrupt("has its data nowhere"))
}

fn outside(inode: &Inode) -> crate::error::Error {
    corrupt(inode.number, "has a block outside the filesystem")
}

/// What the numbers from `index` on say, of which there are `count`, and the first is of the file's block `block`.
fn run(
    superblock: &Superblock,
    numbers: Fields<'_>,
    index: u64,
    count: u64,
    block: u64,
) -> Option<Run> {
    let number = |index: u64| {
        let at = usize::try_from(index * 4).unwrap_or(usize::MAX);
        u64::from(numbers.le32(at))
    };
    let first = number(index);
    let mut length = 1;
    while index + length < count {
        let expected = if first == 0 { 0 } else { first + length };
        if number(index + length) != expected {
            break;
        }
        length += 1;
    }
    if first > 0 && first + length > superblock.blocks {
        return None;
    }
    Some(Run {
        at: (first > 0).then_some(first),
        end: block + length,
    })
}
