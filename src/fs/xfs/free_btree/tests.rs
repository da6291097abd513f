use std::ops::Range;

use super::*;
use crate::fs::FreeSpace;
use crate::fs::xfs::ag::FreeHeader;
use crate::fs::xfs::tests::{Disk, Image, nightly, scattered_v4};

/// Every free block must have been free before.
fn assert_no_more(space: &FreeSpace, before: &FreeSpace, what: &dyn std::fmt::Debug) {
    for range in space.free.ranges() {
        assert!(
            before.free.covers(range.clone()),
            "{range:x?} after {what:?}"
        );
    }
}

/// Metadata that free space is read from: where it lies, what of it to change, where its checksum is, if it has one.
fn metadata(disk: &Disk) -> Vec<(Range<u64>, u64, Option<u64>)> {
    let volume = Volume::whole(disk);
    let superblock = Superblock::read(&volume).unwrap();
    let crc = |at| superblock.v5.then_some(at);
    let sector = superblock.sector_size;
    let mut list = vec![(0..sector, 264, crc(224))];
    for ag in 0..superblock.ag_count {
        let start = superblock.byte_of(ag, 0).unwrap();
        list.push((start + sector..start + 2 * sector, 224, crc(216)));
        list.push((start + 3 * sector..start + 4 * sector, 100, crc(32)));
        let header = FreeHeader::read(&volume, &superblock, ag).unwrap();
        for (order, root) in [
            (Order::ByBlock, header.by_block),
            (Order::ByCount, header.by_count),
        ] {
            let walk = Walk {
                volume: &volume,
                superblock: &superblock,
                ag,
                order,
            };
            let mut blocks = Vec::new();
            walk.run(root, &mut |block| blocks.push(block), &mut |_| Ok(()))
                .unwrap();
            // The root, the first leaf, and some others.
            for &block in blocks
                .iter()
                .take(3)
                .chain(blocks.iter().skip(3).step_by(7))
            {
                let at = superblock.byte_of(ag, u64::from(block)).unwrap();
                list.push((
                    at..at + superblock.block_size,
                    superblock.block_size,
                    crc(52),
                ));
            }
        }
    }
    list
}

fn flip_everything(image: &Image) {
    let disk = image.disk().in_memory();
    let before = disk.free_space().unwrap();
    let mut accepted = 0;
    let mut tried = 0;
    for (block, length, crc) in metadata(&disk) {
        // All of a header, then a sample of what is long.
        let step = if nightly() { 7 } else { 97 };
        for at in (0..length).filter(|at| *at < 264 || at % step == 0) {
            let old = disk.bytes(block.start + at..block.start + at + 1)[0];
            let all = [old ^ 0x80, 0, old ^ 1, 0xff];
            let some = if nightly() {
                0..4
            } else {
                [0..2, 2..4][usize::from(at % 3 > 0)].clone()
            };
            for &new in &all[some] {
                if new == old {
                    continue;
                }
                let mut changed = disk.clone();
                changed.patch(block.start + at, &[new]);
                tried += 1;
                let what = (block.start, at, new);
                if let Ok(space) = changed.free_space() {
                    assert_no_more(&space, &before, &what);
                    assert!(crc.is_none(), "no checksum noticed {what:x?}");
                    accepted += 1;
                }
                if let Some(crc) = crc.filter(|crc| !(*crc..*crc + 4).contains(&at)) {
                    changed.seal(block.clone(), crc);
                    if let Ok(space) = changed.free_space() {
                        assert_no_more(&space, &before, &what);
                        accepted += 1;
                    }
                }
            }
        }
    }
    assert!(tried > 3000 && accepted < tried, "{accepted} of {tried}");
}

#[test]
fn no_changed_byte_of_v5_frees_a_block() {
    let image = Image::make("80M", "-b size=1024 -m rmapbt=1 -d agcount=2 -l size=16m");
    let mount = image.mount("");
    mount.scatter(1200, 900);
    mount.unmount();
    flip_everything(&image);
}

#[test]
fn no_changed_byte_of_v4_frees_a_block() {
    flip_everything(&scattered_v4(
        "64M",
        "-b size=512 -d agcount=2 -l size=8m",
        1500,
    ));
    flip_everything(&scattered_v4(
        "64M",
        "-b size=1024 -d agcount=2 -l size=8m,lazy-count=0",
        600,
    ));
}
