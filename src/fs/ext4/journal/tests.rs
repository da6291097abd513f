#![expect(clippy::disallowed_types, reason = "tests write files themselves")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Seek, Write};
use std::ops::Range;
use std::path::Path;

use super::super::tests::{Disk, Image, Mount, dumped, must, nightly, zero};
use super::super::*;
use super::*;

/// Numbers that are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Whether a replay would write anything, and whether it would mark blocks as in use that the bitmaps have free.
fn pending(disk: &Disk) -> (bool, bool) {
    let superblock = disk.superblock();
    let volume = Volume::whole(disk);
    let blocks = Blocks::new(&volume, superblock.block_length());
    let area = Area::find(&blocks, &superblock).unwrap();
    let header = Header::read(&blocks, &area).unwrap();
    let newer = replay::newest_copies(&blocks, &area, &header).unwrap();
    let pending = !newer.is_empty();
    let replayed = Blocks::replayed(&volume, superblock.block_length(), newer);
    let stale = (0..superblock.descriptor_blocks()).any(|number| {
        let groups = group::Group::read_block(&replayed, &superblock, number).unwrap();
        let written = groups.iter().filter(|group| !group.uninit);
        written.map(|group| group.block_bitmap).any(|at| {
            let [old, new] = [&blocks, &replayed].map(|blocks| blocks.read(at, 1).unwrap());
            old.iter().zip(&new).any(|(old, new)| new & !old != 0)
        })
    });
    (pending, stale)
}

/// Some random work on files, now and then made durable.
struct Work {
    chance: Chance,
    names: BTreeSet<u64>,
    /// Files that are deleted and still open.
    orphans: Vec<fs::File>,
    next: u64,
}

impl Work {
    fn step(&mut self, at: &Path, largest: u64) {
        let name = |n: u64| at.join(format!("d{}/f{n}", n % 5));
        let some = self
            .names
            .iter()
            .nth(usize::try_from(self.next % 31).unwrap());
        let some = some.copied();
        let length = self.chance.below(largest) + 1;
        match (self.chance.below(10), some) {
            (0..=3, _) | (_, None) => {
                let path = name(self.next);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                let mut file = fs::File::create(path).unwrap();
                // Contents that look like the journal's own blocks, and others.
                let first = if length.is_multiple_of(2) {
                    [0xc0, 0x3b, 0x39, 0x98]
                } else {
                    [7; 4]
                };
                let bytes: Vec<u8> = first
                    .into_iter()
                    .chain((0..length).map(|n| u8::try_from(n % 251).unwrap()))
                    .collect();
                // Some disks get full.
                let _ = file.write_all(&bytes);
                if self.chance.below(3) == 0 {
                    file.sync_all().unwrap();
                }
                self.names.insert(self.next);
                self.next += 1;
            }
            (4, Some(n)) => {
                let file = fs::OpenOptions::new().write(true).open(name(n)).unwrap();
                file.set_len(length / 3).unwrap();
            }
            (5, Some(n)) => {
                let mut file = fs::OpenOptions::new().write(true).open(name(n)).unwrap();
                file.seek(std::io::SeekFrom::End(5000)).unwrap();
                let _ = file.write_all(&vec![0x33; 9000]);
            }
            (6, Some(n)) if self.orphans.len() < 20 => {
                self.orphans.push(fs::File::open(name(n)).unwrap());
                fs::remove_file(name(n)).unwrap();
                self.names.remove(&n);
            }
            (7, _) => drop(self.orphans.pop()),
            (_, Some(n)) => {
                fs::remove_file(name(n)).unwrap();
                self.names.remove(&n);
                if n % 9 == 0 {
                    let _ = fs::remove_dir_all(at.join(format!("d{}", n % 5)));
                    self.names.retain(|other| other % 5 != n % 5);
                }
            }
        }
    }
}

/// All files, by name, with their sums.
fn contents(path: &Path, mnt: &Path) -> String {
    fs::create_dir_all(mnt).unwrap();
    let (path, at) = (path.to_str().unwrap(), mnt.to_str().unwrap());
    must("mount", &["-t", "ext4", "-o", "loop,ro", path, at]);
    let mount = Mount { at: mnt.to_owned() };
    let all = "find . -mindepth 1 -printf '%p %y %s %i %n\\n' | sort; find . -type f -print0 | sort -z | xargs -0 -r sha1sum";
    let text = must("sh", &["-c", &format!("cd {at} && {{ {all}; }}")]);
    mount.unmount();
    text
}

/// What became of a filesystem whose machine stopped.
#[derive(Debug, Default)]
struct Tally {
    images: usize,
    /// With something to replay.
    pending: usize,
    /// The bitmaps before the replay would have lost something.
    stale: usize,
    /// e2fsck found nothing more to free.
    exact: usize,
}

impl Tally {
    /// Compares with what e2fsck makes of it, without and with zeros in place of all that is free; all of what it frees
    /// has to be found when it has no orphans to delete and no extent trees to make shorter.
    fn crashed(&mut self, crashed: &Path) {
        let directory = crashed.parent().unwrap();
        let copy = |name: &str| {
            let to = directory.join(name);
            let (from, name) = (crashed.to_str().unwrap(), to.to_str().unwrap());
            must("cp", &["--sparse=always", from, name]);
            to
        };
        let disk = Disk::open(crashed);
        let refusal = disk.free_space().unwrap_err();
        assert_eq!(refusal.reason, "ext4 needs journal recovery");
        let space = disk.replayed().unwrap();
        assert_eq!(space.note.as_deref(), Some("journal replayed in memory"));

        // Leaves 1 when it mended something, as it does when it frees orphans.
        let repair = |path: &Path| {
            let command = format!("e2fsck -fy {} || [ $? = 1 ]", path.display());
            must("sh", &["-c", &command])
        };
        let repaired = copy("repaired");
        let said = repair(&repaired);
        let after = dumped(&repaired);
        assert_within(space.free.ranges(), &after);
        // Beside orphans, e2fsck frees the blocks of extent trees that it makes shorter.
        if !said.contains("orphaned inode") && !said.contains("Optimize? yes") {
            assert_eq!(space.free.ranges(), after, "{said}");
        }
        let zeroed = copy("zeroed");
        zero(&zeroed, space.free.ranges());
        if self.images.is_multiple_of(2) {
            repair(&zeroed);
        } else {
            contents_by_kernel(&zeroed, &directory.join("mnt2"));
        }
        must("e2fsck", &["-fn", zeroed.to_str().unwrap()]);
        let mnt = directory.join("mnt2");
        assert_eq!(contents(&repaired, &mnt), contents(&zeroed, &mnt));

        self.images += 1;
        let (pending, stale) = pending(&disk);
        self.pending += usize::from(pending);
        self.stale += usize::from(stale);
        self.exact += usize::from(space.free.ranges() == after);
    }
}

/// Lets the kernel replay and delete orphans.
fn contents_by_kernel(path: &Path, mnt: &Path) {
    fs::create_dir_all(mnt).unwrap();
    let (path, at) = (path.to_str().unwrap(), mnt.to_str().unwrap());
    must("mount", &["-t", "ext4", "-o", "loop", path, at]);
    Mount { at: mnt.to_owned() }.unmount();
}

fn assert_within(ranges: &[Range<u64>], all: &[Range<u64>]) {
    let mut map = FreeMapBuilder::new();
    all.iter().for_each(|range| map.free(range.clone()));
    let map = map.build();
    for range in ranges {
        assert!(map.covers(range.clone()), "{range:?} is in use");
    }
}

/// Whoever writes pauses and the log is committed, but nobody has written it back: a copy of the file is then what a
/// machine that stops would leave.
#[test]
fn a_crash_leaves_what_the_journal_tells() {
    let kinds = [
        ("64M", "-t ext4 -b 1024 -J size=1", "", 40_000),
        ("96M", "-t ext3 -b 1024 -J size=4", "data=journal", 30_000),
        ("256M", "-t ext4 -b 4096", "nodelalloc", 300_000),
        (
            "64M",
            "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg",
            "journal_checksum",
            60_000,
        ),
        (
            "128M",
            "-t ext4 -b 4096 -O orphan_file,metadata_csum_seed -J size=4",
            "",
            90_000,
        ),
        (
            "64M",
            "-t ext4 -b 2048 -O ^64bit,^extent -J size=2",
            "data=journal",
            60_000,
        ),
        (
            "128M",
            "-t ext4 -b 4096 -O bigalloc,^resize_inode -C 16384 -J size=4",
            "",
            90_000,
        ),
        (
            "96M",
            "-t ext4 -b 4096 -O ^metadata_csum -J size=4",
            "journal_async_commit,data=writeback",
            50_000,
        ),
        (
            "64M",
            "-t ext4 -b 1024 -O meta_bg,^resize_inode,^flex_bg -J size=1",
            "",
            40_000,
        ),
        (
            "64M",
            "-t ext4 -b 1024 -J size=1",
            "data=journal,commit=1",
            80_000,
        ),
        (
            "64M",
            "-t ext4 -b 1024 -O inline_data -J size=1",
            "journal_async_commit,data=writeback",
            20_000,
        ),
        ("20M", "-t ext4 -b 1024 -J size=1 -N 512", "", 200_000),
    ];
    let (rounds, copies, step) = if nightly() { (2, 4, 1) } else { (1, 2, 3) };
    let mut tally = Tally::default();
    for round in 0..rounds {
        for (n, (size, options, mounted, largest)) in kinds.into_iter().enumerate().step_by(step) {
            let image = Image::make(size, options);
            let mount = image.mount(mounted);
            let mut work = Work {
                chance: Chance(0x9e37_79b9 + round * 100 + n as u64),
                names: BTreeSet::new(),
                orphans: Vec::new(),
                next: 0,
            };
            let mut crashed = Vec::new();
            for copy in 0..copies {
                for _ in 0..100 + work.chance.below(400) {
                    work.step(&mount.at, largest);
                }
                if copy % 4 == 1 {
                    work.orphans.clear();
                }
                match copy % 4 {
                    // Blocks of other files are not given out yet.
                    0 => fs::File::open(&mount.at).unwrap().sync_all().unwrap(),
                    1 => drop(must("sync", &["-f", mount.at.to_str().unwrap()])),
                    _ => {}
                }
                crashed.push(image.copy(&format!("crashed{copy}")));
            }
            drop(work.orphans);
            mount.unmount();
            image.assert_exact();
            crashed.iter().for_each(|crashed| tally.crashed(crashed));
        }
    }
    // The proof would be none if there were nothing to replay.
    assert!(tally.pending * 2 > tally.images, "{tally:?}");
    assert!(
        tally.stale * 3 > tally.images && tally.exact > 0,
        "{tally:?}"
    );
    if nightly() {
        assert!(tally.images >= 90, "{tally:?}");
    }
}

/// A filesystem with a file, the same without it, and what of it is different.
struct Before {
    image: Image,
    /// Free with the file and without it.
    full: Vec<Range<u64>>,
    empty: Vec<Range<u64>>,
    /// Blocks of bitmaps and descriptors, and a file with their contents while the file was there.
    blocks: Vec<(u64, String)>,
}

fn deleted_file(options: &str) -> Before {
    let image = Image::make("16M", options);
    let source = image.directory.path().join("source");
    fs::write(&source, vec![1; 3 << 20]).unwrap();
    image.debugfs(&format!("write {} file\n", source.display()));
    let (old, full) = (image.disk(), dumped(&image.path));
    let old = old.bytes(0..old.size);
    image.debugfs("rm file\n");
    let empty = dumped(&image.path);
    let disk = image.disk();
    let superblock = disk.superblock();
    let volume = Volume::whole(&disk);
    let plain = Blocks::new(&volume, superblock.block_length());
    let groups = group::Group::read_block(&plain, &superblock, 0).unwrap();
    let bitmaps = groups
        .iter()
        .flat_map(|group| [group.block_bitmap, group.inode_bitmap]);
    let list = bitmaps.chain([superblock.descriptor_block(0)]);
    let blocks = list.map(|block| {
        let file = image.directory.path().join(format!("block{block}"));
        let range = superblock.bytes(block..block + 1);
        let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).unwrap());
        fs::write(&file, &old[start..end]).unwrap();
        (block, file.to_str().unwrap().to_owned())
    });
    Before {
        blocks: blocks.collect(),
        image,
        full,
        empty,
    }
}

/// Transactions that debugfs writes: with all versions of checksums, with blocks written and taken back.
#[test]
fn the_last_copy_that_was_not_taken_back_counts() {
    let kinds = [
        ("-t ext3 -b 1024", "jo"),
        ("-t ext3 -b 1024", "jo -c"),
        ("-t ext4 -b 1024 -O ^metadata_csum", "jo -c -v 2"),
        ("-t ext4 -b 1024", "jo -c -v 3"),
        ("-t ext4 -b 1024 -O ^64bit,^metadata_csum", "jo -c -v 3"),
        ("-t ext4 -b 1024 -O ^64bit", "jo -c -v 2"),
        ("-t ext4 -b 2048 -O 64bit,^metadata_csum,uninit_bg", "jo"),
    ];
    for (options, open) in kinds {
        // debugfs adds revocation blocks to sums of version 1, the kernel does not.
        let takes_back =
            open == "jo" || !options.contains("ext3") && !options.contains("^metadata");
        let Before {
            image,
            full,
            empty,
            blocks,
        } = deleted_file(options);
        assert!(full != empty);
        let clean = image.copy("clean");
        let write: String = blocks
            .iter()
            .map(|(block, file)| format!("jw -b {block} {file}\n"))
            .collect();
        let revoke: String = blocks
            .iter()
            .map(|(block, _)| format!("jw -r {block}\n"))
            .collect();
        for (commands, expected) in [
            (format!("{open}\n{write}jc\n"), &full),
            (format!("{open}\n{write}{revoke}jc\n"), &empty),
            (format!("{open}\n{revoke}{write}jc\n"), &full),
            (format!("{open}\n{write}{revoke}{write}jc\n"), &full),
            (
                format!("{open}\n{revoke}{}jc\n", write.replace("jw", "jw -c")),
                &empty,
            ),
        ] {
            if commands.contains("jw -r") && !takes_back {
                continue;
            }
            fs::copy(&clean, &image.path).unwrap();
            let said = image.debugfs(&commands);
            let disk = image.disk();
            let kept = disk.free_space();
            assert!(
                matches!(&kept, Err(refusal) if refusal.reason == "ext4 needs journal recovery"),
                "{options}: {said}"
            );
            let space = disk.replayed();
            let space = space.unwrap_or_else(|refusal| panic!("{options} {commands}: {refusal}"));
            assert_eq!(
                space.free.ranges(),
                expected.as_slice(),
                "{options} {commands}"
            );
            must("e2fsck", &["-y", "-E", "journal_only", image.name()]);
            assert_eq!(dumped(&image.path), *expected, "{options} {commands}");
        }
    }
}

/// Damage anywhere in a log: refused, or what e2fsck makes of it frees no less.
#[test]
fn a_damaged_log_frees_nothing_that_e2fsck_keeps() {
    let mut chance = Chance(0x1234_5678_9abc);
    for (options, open) in [
        ("-t ext4 -b 1024 -N 64", "jo -c -v 3"),
        ("-t ext3 -b 1024 -N 64", "jo -c"),
        ("-t ext3 -b 1024 -N 64", "jo"),
    ] {
        let before = deleted_file(options);
        let image = &before.image;
        let mut commands = format!("{open}\n");
        for (block, file) in before.blocks.iter().chain(&before.blocks) {
            commands.push_str(&format!("jw -b {block} {file}\n"));
        }
        image.debugfs(&format!("{commands}jc\n"));
        let disk = image.disk();
        assert_eq!(disk.replayed().unwrap().free.ranges(), before.full);
        let superblock = disk.superblock();
        let volume = Volume::whole(&disk);
        let blocks = Blocks::new(&volume, superblock.block_length());
        let area = Area::find(&blocks, &superblock).unwrap();
        let written = 1 + 3 * before.blocks.len() as u64 * 2;
        let copy = image.directory.path().join("damaged");
        for n in 0..if nightly() { 400 } else { 25 } {
            let mut damaged = disk.clone();
            // Mostly in the words that blocks begin with.
            let (logical, word) = (chance.below(written), chance.below(40));
            let word = if n % 3 == 0 { chance.below(1024) } else { word };
            let (block, _) = area.block(logical).unwrap();
            let at = block * superblock.block_size + word;
            let old = damaged.bytes(at..at + 1)[0];
            let new = old ^ 1 << chance.below(8);
            damaged.patch(at, &[new]);
            let Ok(space) = damaged.replayed() else {
                continue;
            };
            must(
                "cp",
                &["--sparse=always", image.name(), copy.to_str().unwrap()],
            );
            use std::os::unix::fs::FileExt;
            let file = fs::OpenOptions::new().write(true).open(&copy).unwrap();
            file.write_all_at(&[new], at).unwrap();
            let only = ["-y", "-E", "journal_only", copy.to_str().unwrap()];
            std::process::Command::new("e2fsck")
                .args(only)
                .output()
                .unwrap();
            let kept = must("sh", &["-c", &format!("dumpe2fs {} || :", copy.display())]);
            if !kept.contains("Run e2fsck now") {
                assert_within(space.free.ranges(), &dumped(&copy));
            }
        }
    }
}
