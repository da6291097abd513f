//! Bitmaps of blocks: which clusters of a group are free.

use std::ops::Range;

use super::blocks::Blocks;
use super::group::Group;
use super::superblock::Superblock;
use crate::free::FreeMapBuilder;
use crate::fs::Refusal;

/// Bytes of adjacent bitmaps that are read at once.
const READ_AT_ONCE: u64 = 1 << 20;

/// Enters what is free in all groups and what their metadata takes; the number of free clusters.
///
/// # Errors
/// Checksums and counts that do not match; metadata that its own bitmap says is free.
pub(super) fn enter_groups(
    blocks: &Blocks<'_, '_>,
    superblock: &Superblock,
    map: &mut FreeMapBuilder,
) -> Result<u64, Refusal> {
    let mut total = 0_u64;
    for number in 0..superblock.descriptor_blocks() {
        let groups = Group::read_block(blocks, superblock, number)?;
        for group in &groups {
            map.used(superblock.bytes(superblock.head(group.number)));
        }
        // Kind by kind: with flexible groups all of one kind are neighbours.
        for kind in 0..3 {
            let ranges = groups
                .iter()
                .filter_map(|group| group.metadata().get(kind).cloned());
            ranges.for_each(|range| map.used(superblock.bytes(range)));
        }
        let mut rest = groups.as_slice();
        while let Some((first, after)) = rest.split_first() {
            let run = if first.uninit {
                enter_unwritten(superblock, first, map)?;
                1
            } else {
                let run = run_length(superblock, first, after);
                enter_run(blocks, superblock, rest.get(..run).unwrap_or_default(), map)?;
                run
            };
            rest = rest.get(run..).unwrap_or_default();
        }
        for group in &groups {
            total = total.saturating_add(group.free_clusters);
        }
    }
    Ok(total)
}

/// How many groups from `first` on have bitmaps that lie one after the other.
fn run_length(superblock: &Superblock, first: &Group, after: &[Group]) -> usize {
    let most = READ_AT_ONCE / superblock.block_size;
    let places = (1..most).map(|n| first.block_bitmap.checked_add(n));
    let follows = |(group, place): &(&Group, Option<u64>)| {
        !group.uninit && Some(group.block_bitmap) == *place
    };
    1 + after.iter().zip(places).take_while(follows).count()
}

/// A group whose bitmap was never written.
fn enter_unwritten(
    superblock: &Superblock,
    group: &Group,
    map: &mut FreeMapBuilder,
) -> Result<(), Refusal> {
    let clusters = superblock.clusters_in(group.number);
    let mut free = 0;
    let mut at = 0;
    let own = group.own_clusters(superblock);
    for used in own.into_iter().chain(std::iter::once(clusters..clusters)) {
        if at < used.start {
            free += used.start - at;
            map.free(bytes(superblock, group, at..used.start));
        }
        at = used.end;
    }
    require_count(group, free)
}

/// Groups whose bitmaps lie one after the other.
fn enter_run(
    blocks: &Blocks<'_, '_>,
    superblock: &Superblock,
    groups: &[Group],
    map: &mut FreeMapBuilder,
) -> Result<(), Refusal> {
    let Some(first) = groups.first() else {
        return Ok(());
    };
    let bitmaps = blocks.read(first.block_bitmap, groups.len())?;
    let size = superblock.block_length().max(1);
    for (group, bitmap) in groups.iter().zip(bitmaps.chunks_exact(size)) {
        let damaged = |what: &str| Refusal::damaged(format!("ext4 group {}: {what}", group.number));
        if !group.is_right_bitmap(superblock, bitmap) {
            return Err(damaged("its block bitmap fails its checksum"));
        }
        let own = group.own_clusters(superblock);
        let mut overlaps = false;
        let mut free = 0;
        each_free_run(bitmap, superblock.clusters_in(group.number), |run| {
            free += run.end - run.start;
            overlaps |= own
                .iter()
                .any(|own| own.start < run.end && run.start < own.end);
            map.free(bytes(superblock, group, run));
        });
        if overlaps {
            return Err(damaged("its block bitmap says that its metadata is free"));
        }
        require_count(group, free)?;
    }
    Ok(())
}

fn require_count(group: &Group, found: u64) -> Result<(), Refusal> {
    if group.free_clusters == found {
        return Ok(());
    }
    Err(Refusal::damaged(format!(
        "ext4 group {}: its descriptor counts {} free, its block bitmap {found}",
        group.number, group.free_clusters
    )))
}

/// The volume's bytes of some clusters of a group. The last cluster may reach past the end of the filesystem.
fn bytes(superblock: &Superblock, group: &Group, clusters: Range<u64>) -> Range<u64> {
    let blocks = superblock.group_range(group.number);
    let block = |cluster: u64| {
        let block = blocks.start + cluster * superblock.cluster_blocks;
        block.min(blocks.end)
    };
    superblock.bytes(block(clusters.start)..block(clusters.end))
}

/// Calls `found` with each run of clear bits among the first `bits`.
fn each_free_run(bitmap: &[u8], bits: u64, mut found: impl FnMut(Range<u64>)) {
    // Where the run began that has not ended yet.
    let mut open = None;
    let mut at = 0_u64;
    for word in bitmap.as_chunks::<8>().0 {
        if at >= bits {
            break;
        }
        let mut used = u64::from_le_bytes(*word);
        let left = bits - at;
        if left < 64 {
            used |= !0 << left;
        }
        match (used, open) {
            (0, Some(_)) | (u64::MAX, None) => {}
            _ => {
                let mut bit = 0;
                while bit < 64 {
                    let rest = used >> bit;
                    let clear = u64::from(rest.trailing_zeros()).min(64 - bit);
                    if clear > 0 {
                        open.get_or_insert(at + bit);
                        bit += clear;
                    } else {
                        if let Some(start) = open.take() {
                            found(start..at + bit);
                        }
                        bit += u64::from(rest.trailing_ones());
                    }
                }
            }
        }
        at += 64;
    }
    if let Some(start) = open {
        found(start..at.min(bits));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_free(bitmap: &[u8], bit: u64) -> bool {
        bitmap[usize::try_from(bit / 8).unwrap()] >> (bit % 8) & 1 == 0
    }

    proptest! {
        #[test]
        fn runs_are_those_that_single_bits_make(
            words in prop::collection::vec(
                prop_oneof![Just(0_u64), Just(!0), any::<u64>(), Just(1 << 63), Just(!0 << 7)], 0..6),
            short in 0_u64..64,
        ) {
            let bitmap: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let bits = (bitmap.len() as u64 * 8).saturating_sub(short);
            let mut found = Vec::new();
            each_free_run(&bitmap, bits, |run| found.push(run));
            let mut map = FreeMapBuilder::new();
            (0..bits).filter(|&bit| is_free(&bitmap, bit)).for_each(|bit| map.free(bit..bit + 1));
            let map = map.build();
            prop_assert_eq!(found.as_slice(), map.ranges());
        }
    }
}
