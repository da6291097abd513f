//! Inodes that are in use or not in ways of their own, and such that cannot be read.

use super::*;
use crate::fs::FreeOptions;
use crate::image::{self, Depth, Format};

/// A filesystem with one file of eighty blocks in its root directory, and the number of its inode.
fn with_file(size: &str, options: &str) -> (Image, u64) {
    let image = Image::make(size, options);
    let source = image.directory.path().join("source");
    let block = usize::try_from(image.disk().superblock().block_size).unwrap();
    fs::write(&source, vec![1; 80 * block]).unwrap();
    image.debugfs(&format!("write {} file\n", source.display()));
    image.assert_exact();
    let number = inode_of(&image, "file");
    (image, number)
}

/// Clusters of the file, which debugfs puts where it says.
fn blocks_of(image: &Image, name: &str) -> Vec<u64> {
    let text = image.debugfs(&format!("blocks {name}\n"));
    let numbers = text.lines().flat_map(str::split_whitespace);
    numbers.filter_map(|word| word.parse().ok()).collect()
}

/// Every block of the file in turn: kept when it is lost.
fn assert_each_kept(layout: &Layout, sound: &Disk, blocks: &[u64]) {
    assert!(blocks.len() >= 80, "{blocks:?}");
    let mut chance = Chance(77);
    for &block in blocks {
        let mut disk = sound.clone();
        assert!(layout.lose(&mut disk, layout.cluster(block), &mut chance));
        assert_kept(disk.free_space(), &format!("block {block}"));
    }
}

/// Deleted while open, the list of such inodes in the superblock, and the filesystem unmounted without deleting them.
#[test]
fn a_file_that_was_deleted_while_open_has_its_blocks() {
    for options in [
        "-t ext2 -b 1024",
        "-t ext3 -b 1024 -J size=1",
        "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg -J size=1",
    ] {
        // The last one of the list, and one that names the next where the time of deletion would be.
        for next in [0, 14] {
            let (image, number) = with_file("16M", options);
            let blocks = blocks_of(&image, "file");
            image.debugfs(&format!(
                "sif file links_count 0\nsif file dtime {next}\nunlink file\nssv last_orphan {number}\n"
            ));
            let sound = image.disk().in_memory();
            assert!(sound.free_space().is_ok());
            assert_each_kept(&Layout::of(&sound), &sound, &blocks);
        }
    }
}

#[test]
fn an_inode_bitmap_that_lost_the_inode_as_well_hides_nothing() {
    for options in [
        "-t ext2 -b 1024",
        "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg -J size=1",
    ] {
        let (image, number) = with_file("16M", options);
        let blocks = blocks_of(&image, "file");
        let mut sound = image.disk().in_memory();
        let layout = Layout::of(&sound);
        let (at, bit) = layout.inode_bit(number);
        let old = sound.bytes(at..at + 1)[0];
        assert!(old & bit != 0);
        sound.patch(at, &[old & !bit]);
        assert_each_kept(&layout, &sound, &blocks);
        // e2fsck takes an inode with links for one in use even when it has a time of deletion.
        let place = layout.inode(number);
        sound.patch(place + 0x14, &[1, 2, 3, 4]);
        assert_each_kept(&layout, &sound, &blocks);
        // Neither links nor time.
        sound.patch(place + 0x14, &[0; 4]);
        sound.patch(place + 0x1a, &[0; 2]);
        assert_each_kept(&layout, &sound, &blocks);
    }
}

#[test]
fn a_deleted_file_that_still_names_its_blocks_keeps_nothing() {
    for options in [
        "-t ext2 -b 1024",
        "-t ext3 -b 1024 -J size=1",
        "-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg -J size=1",
        "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg -J size=1",
    ] {
        let (image, number) = with_file("16M", options);
        image.debugfs("rm file\n");
        image.assert_exact();
        let mut disk = image.disk();
        let layout = Layout::of(&disk);
        let place = layout.inode(number);
        assert!(
            disk.bytes(place + 0x28..place + 0x64)
                .iter()
                .any(|&byte| byte != 0)
        );
        // Once its bit is set nobody knows.
        let (at, bit) = layout.inode_bit(number);
        let old = disk.bytes(at..at + 1)[0];
        disk.patch(at, &[old | bit]);
        assert_kept(disk.free_space(), options);
        assert!(!is_clean(&image, &disk));
    }
}

/// What a table holds before anything was ever written there means nothing, where a checksum protects how far that is.
#[test]
fn stale_bytes_behind_the_inodes_that_were_ever_used_are_not_looked_at() {
    for (options, kept) in [
        (
            "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg -J size=1",
            false,
        ),
        (
            "-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg -J size=1",
            true,
        ),
        ("-t ext2 -b 1024", true),
    ] {
        let (image, number) = with_file("40M", options);
        let mut disk = image.disk();
        let layout = Layout::of(&disk);
        let inode = layout.inode(number);
        let mut bytes = disk.bytes(inode..inode + 128);
        let (_, all) = layout.used(&disk);
        let free = (0..)
            .find(|block| !all.contains(&layout.cluster(block + 1)))
            .unwrap()
            + 1;
        // One block of its own, which is free.
        bytes[0x20..0x24].fill(0);
        bytes[0x28..0x64].fill(0);
        bytes[0x28..0x2c].copy_from_slice(&u32::try_from(free).unwrap().to_le_bytes());
        let superblock = &layout.superblock;
        // The last of a group in use, and one of a group without any.
        for number in [
            superblock.inodes_per_group,
            superblock.inodes_per_group * 3 + 7,
        ] {
            disk.patches.clear();
            disk.patch(layout.inode(number), &bytes);
            assert_eq!(is_clean(&image, &disk), !kept, "{options}: {number}");
            match disk.free_space() {
                Ok(space) => assert!(!kept && space == image.disk().free_space().unwrap()),
                refused => {
                    assert!(kept, "{options}: {number}");
                    assert_kept(refused, options);
                }
            }
        }
    }
}

#[test]
fn a_tree_of_blocks_that_cannot_be_read_keeps_everything() {
    let options = "-t ext4 -b 1024 -O ^metadata_csum -J size=1";
    let (image, number) = with_file("16M", options);
    let sound = image.disk().in_memory();
    let place = Layout::of(&sound).inode(number) + 0x28;
    let first = u32::from_le_bytes(sound.bytes(place + 20..place + 24).try_into().unwrap());
    let word = |value: u32| value.to_le_bytes();
    for (at, bytes) in [
        // Magic, more entries than room, more room than there is, too deep.
        (0, vec![0]),
        (2, vec![5]),
        (4, vec![5, 0]),
        (6, vec![6]),
        // The length, and the place: outside, and 2^32 times further.
        (16, vec![0, 0]),
        (16, vec![0xff, 0x7f]),
        (20, word(20 << 10).to_vec()),
        (20, word(0).to_vec()),
        (18, vec![1]),
        // A child that is none.
        (6, vec![1]),
    ] {
        let mut disk = sound.clone();
        disk.patch(place + at, &bytes);
        assert_kept(disk.free_space(), &format!("{at} {bytes:?}"));
        assert!(!is_clean(&image, &disk), "{at} {bytes:?}");
    }
    // A child that is its own parent, and one of another depth.
    let mut disk = sound.clone();
    let block = u64::from(first) * 1024;
    disk.patch(place + 2, &[1, 0, 4, 0, 2, 0]);
    disk.patch(place + 12, &[0, 0, 0, 0]);
    disk.patch(place + 16, &word(first));
    disk.patch(place + 20, &[0, 0]);
    for depth in [1, 2] {
        disk.patch(
            block,
            &[0x0a, 0xf3, 1, 0, 84, 0, depth, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        );
        disk.patch(block + 16, &word(first));
        disk.patch(block + 20, &[0, 0]);
        assert_kept(disk.free_space(), "a tree without an end");
    }
}

/// Each number of a block of numbers is that of the block itself, which makes a thousand million of them.
#[test]
fn numbers_of_blocks_that_go_round_in_circles_come_to_an_end() {
    for levels in 1..4_u64 {
        let (image, number) = with_file("64M", "-t ext2 -b 4096");
        let mut disk = image.disk().in_memory();
        let blocks = blocks_of(&image, "file");
        let block = u32::try_from(blocks[0]).unwrap().to_le_bytes();
        disk.patch(blocks[0] * 4096, &block.repeat(1024));
        let place = Layout::of(&disk).inode(number) + 0x28;
        disk.patch(place, &[0; 60]);
        disk.patch(place + (11 + levels) * 4, &block);
        // In use are all of them; once they are more than there are blocks nothing is believed.
        match disk.free_space() {
            Ok(_) => assert!(levels < 3),
            refused => assert_kept(refused, "a circle"),
        }
    }
}

#[test]
fn what_stands_for_a_file_of_the_hurd_has_a_block() {
    let (image, number) = with_file("16M", "-t ext2 -b 1024 -o hurd");
    let mut disk = image.disk();
    let layout = Layout::of(&disk);
    let (_, all) = layout.used(&disk);
    let free = (1..)
        .find(|&block| !all.contains(&layout.cluster(block)))
        .unwrap();
    let translator = layout.inode(number) + 0x24;
    disk.patch(translator, &u32::try_from(free).unwrap().to_le_bytes());
    assert_kept(disk.free_space(), "a translator");
    // Others have something else there.
    disk.patch(1024 + 0x48, &[0]);
    assert!(disk.free_space().is_ok());
}

/// A file that is in the journal only, inode, bitmaps and all, as after a crash; then with a bitmap that lost a block.
#[test]
fn blocks_of_an_inode_in_the_journal_are_held_against_a_bitmap_in_the_journal() {
    for options in [
        "-t ext3 -b 1024 -N 2048 -J size=1",
        "-t ext4 -b 1024 -O ^metadata_csum -J size=1",
    ] {
        let empty = Image::make("16M", options);
        let before = empty.disk().in_memory();
        let clean = empty.copy("clean");
        let source = empty.directory.path().join("source");
        fs::write(&source, vec![1; 80 << 10]).unwrap();
        // Far from all else, where the image has nothing so far.
        let layout = Layout::of(&before);
        let number = layout.superblock.inodes_per_group + 200;
        empty.debugfs(&format!("write {} file\n", source.display()));
        let own = inode_of(&empty, "file");
        let blocks = blocks_of(&empty, "file");
        let mut after = empty.disk().in_memory();
        let (from, to) = (layout.inode(own), layout.inode(number));
        if after.bytes(1024 + 0x64..1024 + 0x65)[0] & 0x10 == 0 {
            // The file's inode moves: no descriptor says that nothing is there.
            let inode = after.bytes(from..from + 128);
            after.patch(to, &inode);
            after.patch(from, &[0; 128]);
        }
        let mut lost = after.clone();
        assert!(layout.lose(&mut lost, layout.cluster(blocks[30]), &mut Chance(5)));
        for (disk, kept) in [(after, false), (lost, true)] {
            let mut commands = "jo\n".to_owned();
            for block in 1..layout.superblock.blocks {
                let range = layout.superblock.bytes(block..block + 1);
                let bytes = disk.bytes(range.clone());
                // The superblock is written by itself.
                if block > 1 && bytes != before.bytes(range) {
                    let file = empty.directory.path().join(format!("block{block}"));
                    fs::write(&file, bytes).unwrap();
                    commands.push_str(&format!("jw -b {block} {}\n", file.display()));
                }
            }
            fs::copy(&clean, &empty.path).unwrap();
            must(
                "cp",
                &["--sparse=always", clean.to_str().unwrap(), empty.name()],
            );
            empty.debugfs(&format!("{commands}jc\n"));
            let options = FreeOptions {
                replay_journal: true,
            };
            let open = image::OpenOptions {
                format: Some(Format::Raw),
                ..image::OpenOptions::default()
            };
            let image = image::Image::open(&empty.path, &open).unwrap();
            let chain = image.chain(Depth::Top, None).unwrap();
            let result = super::super::super::free_space(&Volume::whole(&chain), &options);
            if kept {
                assert_kept(result, "a bitmap in the journal");
            } else {
                let space = result.unwrap();
                for &block in &blocks {
                    let bytes = layout.superblock.bytes(block..block + 1);
                    assert_eq!(space.free.within(bytes).count(), 0);
                }
            }
        }
    }
}

/// All tables are read of which the image has something; of a large filesystem that is little.
#[test]
fn a_tebibyte_without_checksums_is_read_at_once() {
    for options in [
        "-t ext2 -m 0",
        "-t ext4 -O ^metadata_csum,uninit_bg -m 0 -E lazy_itable_init=1",
    ] {
        let image = Image::make("1T", options);
        let mount = image.mount("");
        for n in 0..8 {
            let name = mount.at.join(format!("half{n}"));
            // The oldest has no way to allocate what is not written.
            let _ = Command::new("fallocate")
                .args(["-l", "64G"])
                .arg(&name)
                .output();
            let directory = mount.at.join(format!("d{n}"));
            fs::create_dir(&directory).unwrap();
            for n in 0..200 {
                fs::write(directory.join(format!("f{n}")), vec![0x5a; 3000 + n]).unwrap();
            }
        }
        mount.unmount();
        let open = image::OpenOptions {
            format: Some(Format::Raw),
            ..image::OpenOptions::default()
        };
        let file = image::Image::open(&image.path, &open).unwrap();
        let chain = file.chain(Depth::Top, None).unwrap();
        let started = std::time::Instant::now();
        let space =
            super::super::super::free_space(&Volume::whole(&chain), &FreeOptions::default());
        let taken = started.elapsed();
        assert_eq!(
            space.unwrap().free.ranges(),
            super::super::super::tests::dumped(&image.path)
        );
        assert!(taken.as_secs() < 20, "{options}: {taken:?}");
    }
}

/// Bytes of inodes and of their trees: nothing that is in use becomes free, and what is kept for them e2fsck finds
/// fault with as well.
#[test]
fn damaged_inodes_free_nothing_and_only_damage_keeps_what_is_free() {
    let mut chance = Chance(0x00c0_ffee);
    for options in [
        "-t ext2 -b 1024 -N 128",
        "-t ext4 -b 1024 -N 128 -O ^metadata_csum,uninit_bg,^has_journal",
    ] {
        let image = Image::make("8M", options);
        let source = image.directory.path().join("source");
        fs::write(&source, vec![1; 40 << 10]).unwrap();
        let mut commands = String::new();
        for n in 0..30 {
            commands.push_str(&format!("write {} f{n}\n", source.display()));
        }
        commands.push_str("symlink link target\nmkdir d\n");
        for n in (0..30).step_by(3) {
            commands.push_str(&format!("rm f{n}\n"));
        }
        image.debugfs(&commands);
        image.assert_exact();
        let sound = image.disk().in_memory();
        let truth = sound.free_space().unwrap().free;
        let superblock = sound.superblock();
        let layout = Layout::of(&sound);
        // e2fsck does not look into most of the filesystem's own inodes; here they count, as their bits are set.
        let mut places: Vec<Range<u64>> = (11..48)
            .map(|number| layout.inode(number))
            .map(|at| at..at + 128.min(superblock.inode_size))
            .collect();
        let files: Vec<String> = (0..30).map(|n| format!("f{n}")).collect();
        let names: Vec<&str> = files
            .iter()
            .skip(1)
            .step_by(3)
            .map(String::as_str)
            .collect();
        places.extend(
            nodes(&image, &names)
                .into_iter()
                .map(|block| superblock.bytes(block..block + 1)),
        );
        let mut judged = 0;
        for _ in 0..if nightly() { 4000 } else { 300 } {
            let place = &places[usize::try_from(chance.below(places.len() as u64)).unwrap()];
            let at = place.start + chance.below((place.end - place.start).min(128));
            let old = sound.bytes(at..at + 1)[0];
            let mut disk = sound.clone();
            disk.patch(at, &[old ^ 1 << chance.below(8)]);
            match disk.free_space() {
                Ok(space) => assert_eq!(space.free, truth),
                refused => {
                    assert_kept(refused, options);
                    if judged < 40 || nightly() {
                        assert!(!is_clean(&image, &disk), "{options}: {at:#x}");
                    }
                    judged += 1;
                }
            }
        }
        assert!(judged > 10, "{options}: {judged}");
    }
}
