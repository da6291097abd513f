use std::ops::Range;

use super::*;
use crate::fs::RefusalKind;
use crate::fs::probe::tests::{Disk, Image};

fn free_of(disk: &Disk) -> Result<FreeSpace, Refusal> {
    free_space(&disk.volume(), &FreeOptions::default())
}

/// `in_mount OPTIONS SCRIPT` runs one in the mounted image, `hashes IMAGE` prints one hash for all of its files.
const IN: &str = "
    in_mount() { mkdir -p m; mount -o loop,$1 disk m; shift; (cd m; eval \"$@\"); unmount; }
    unmount() { for n in 1 2 3 4 5 6 7 8 9 10; do umount m && return; sleep 0.1; done; false; }
    hashes() { mkdir -p m; mount -o loop,ro $1 m
        (cd m; find . -type f | sort | xargs -r sha256sum | sha256sum); unmount; }
";

/// Whether there is time for everything.
fn nightly() -> bool {
    std::env::var_os("QIMG_NIGHTLY").is_some()
}

fn step(image: &Image, script: &str) -> String {
    image.run(&format!("exec 2>&1; {IN} {script}"))
}

/// What no chunk and no extent covers, as btrfs tells it.
fn expected(image: &Image, inside: bool) -> Vec<Range<u64>> {
    let print = image.run(
        "btrfs inspect-internal dump-super disk; btrfs inspect-internal dump-tree -t chunk disk
         btrfs inspect-internal dump-tree -t extent disk",
    );
    let number = |text: &str| text.trim_end_matches(')').parse::<u64>().unwrap();
    let (mut size, mut node) = (0, 0);
    let mut chunks: Vec<(Range<u64>, Vec<u64>)> = Vec::new();
    let mut extents = Vec::new();
    let mut in_chunk = false;
    for line in print.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["dev_item.total_bytes", bytes] => size = number(bytes),
            ["nodesize", bytes] => node = number(bytes),
            ["item", _, "key", "(FIRST_CHUNK_TREE", "CHUNK_ITEM", at, ..] => {
                chunks.push((number(at)..0, Vec::new()));
                in_chunk = true;
            }
            ["length", length, "owner", ..] if in_chunk => {
                let last = &mut chunks.last_mut().unwrap().0;
                last.end = last.start + number(length);
            }
            ["stripe", _, "devid", "1", "offset", at] if in_chunk => {
                chunks.last_mut().unwrap().1.push(number(at));
            }
            ["item", _, "key", at, "EXTENT_ITEM", length, ..] => {
                let at = number(at.trim_start_matches('('));
                extents.push(at..at + number(length));
            }
            ["item", _, "key", at, "METADATA_ITEM", ..] => {
                let at = number(at.trim_start_matches('('));
                extents.push(at..at + node);
            }
            ["item", ..] => in_chunk = false,
            _ => {}
        }
    }
    assert!(size > 0 && node > 0 && chunks.len() > 1);
    let mut map = FreeMapBuilder::new();
    map.free(1 << 20..size);
    for copy in [64 << 10, 64 << 20] {
        map.used(copy..copy + (64 << 10));
    }
    for (chunk, places) in &chunks {
        for place in places {
            if !inside {
                map.used(*place..place + (chunk.end - chunk.start));
            }
            for extent in extents
                .iter()
                .filter(|extent| chunk.contains(&extent.start))
            {
                let start = place + (extent.start - chunk.start);
                map.used(start..start + (extent.end - extent.start));
            }
        }
    }
    map.build().ranges().to_vec()
}

/// Nothing but what no extent covers is free, and nobody misses it.
fn assert_sound(image: &Image) {
    let space = free_of(&image.disk()).unwrap();
    let inside = space.note.is_none();
    assert_eq!(space.free.ranges(), expected(image, inside));
    image.zero_free(space.free.ranges());
    let checked = |name: &str| {
        let script = format!("btrfs check --check-data-csum {name} 2>&1 || echo failed");
        step(image, &script).replace(name, "NAME")
    };
    let before = checked("disk");
    // What is half deleted does not please it, whoever looks.
    assert!(!before.contains("failed") || !inside, "{before}");
    assert_eq!(checked("zeroed"), before);
    let hashes = step(image, "hashes disk; hashes zeroed");
    let hashes: Vec<&str> = hashes.lines().collect();
    assert!(hashes.len() == 2 && hashes[0] == hashes[1], "{hashes:?}");
}

#[test]
fn what_no_extent_covers_is_free() {
    let kinds = [
        ("400M", "", ""),
        ("300M", "-n 4096 -m dup -d single", ""),
        ("300M", "--mixed -n 4096", ""),
        ("400M", "-m single -d dup -n 65536", "compress=zstd"),
        ("350M", "-O ^no-holes -R ^free-space-tree", "space_cache=v1"),
    ];
    let step_by = if nightly() { 1 } else { 4 };
    for (size, options, mount) in kinds.into_iter().step_by(step_by) {
        let image = Image::make(size, &format!("mkfs.btrfs -q -L lab {options} disk 2>&1"));
        let identity = identify(&image.disk().volume()).unwrap().unwrap();
        assert_eq!(identity.kind, "btrfs");
        assert_eq!(identity.uuid, image.blkid("UUID"));
        assert_eq!(identity.label, image.blkid("LABEL"));
        assert_eq!(identity.size, Some(image.disk().0.len() as u64));
        assert_sound(&image);
        let space = free_of(&image.disk()).unwrap();
        assert_eq!(space.note.is_some(), options.contains("^free-space-tree"));
        let mount = if mount.is_empty() { "rw" } else { mount };
        step(
            &image,
            &format!(
                "in_mount {mount} '
            btrfs subvolume create s
            for n in $(seq 300); do head -c $((n * 200)) /dev/urandom >s/f$n; done
            head -c 30000000 /dev/urandom >s/big
            btrfs subvolume snapshot s t
            rm t/f1*; head -c 2000000 /dev/urandom >t/new'"
            ),
        );
        assert_sound(&image);
        step(
            &image,
            &format!(
                "in_mount {mount} '
            btrfs subvolume delete -c s; btrfs subvolume sync .
            rm t/big; sync; btrfs balance start --full-balance .
            btrfs filesystem resize -20m .'"
            ),
        );
        assert_sound(&image);
    }
}

/// Long series of what users do, and of free space in so many pieces that it is kept as bitmaps.
#[test]
fn nothing_that_happens_to_a_filesystem_frees_what_is_in_use() {
    let rounds = if nightly() { 12 } else { 1 };
    let mut bitmaps = false;
    for seed in 1..=rounds {
        let options = ["-n 4096", "--mixed", "-m dup -d dup", "-m single -n 8192"][seed % 4];
        let image = Image::make("350M", &format!("mkfs.btrfs -q {options} disk 2>&1"));
        for round in 0..if nightly() { 3 } else { 1 } {
            step(&image, &format!("in_mount rw '
                n=$(({seed} * 7919 + {round} * 104729))
                for turn in $(seq 120); do
                    n=$(((n * 1103515245 + 12345) % 2147483648)); r=$((n / 256))
                    file=f$((r % 60))
                    case $((r / 60 % 12)) in
                    0) btrfs subvolume snapshot . .snap{round}-$turn >/dev/null;;
                    1) ls -d .snap* 2>/dev/null | head -n 1 | xargs -r btrfs subvolume delete >/dev/null;;
                    2) truncate -s $((r % 300000)) $file;;
                    3) fallocate -l 400000 $file;;
                    4) rm -f f*$((r / 1000 % 10));;
                    5) cp --reflink=always $file g$turn 2>/dev/null || :;;
                    6) sync;;
                    *) head -c $((r % 800000)) /dev/urandom \
                        | dd of=$file bs=4k seek=$((r / 1000 % 50)) conv=notrunc status=none || :;;
                    esac
                done
                for k in $(seq 300); do head -c 8192 /dev/urandom >s$k; done; sync; rm -f s*[13579]
                btrfs balance start -dusage=$((r % 50)) -musage=50 --force . >/dev/null || :'"));
            assert_sound(&image);
            let tree = image.run("btrfs inspect-internal dump-tree -t 10 disk");
            bitmaps |= tree.contains("FREE_SPACE_BITMAP");
        }
    }
    assert!(bitmaps);
}

/// A guest that was cut off after fsync(2): the log has what the trees do not.
#[test]
fn a_log_that_was_not_replayed_is_not_looked_over() {
    let image = Image::make("120M", "mkfs.btrfs -q disk 2>&1");
    step(
        &image,
        "in_mount rw '
        echo 1 >f; sync; head -c 100000 /dev/urandom | dd of=f conv=fsync; cp ../disk ../cut'",
    );
    let cut = Disk::open(&image.directory.path().join("cut"));
    assert_eq!(free_of(&cut).unwrap_err().kind, RefusalKind::Dirty);
    assert!(free_of(&image.disk()).is_ok());
}

fn patched(image: &Image, at: usize, bytes: &[u8]) -> Disk {
    let mut disk = image.disk();
    disk.put(65536 + at, bytes);
    let sum = crc32c::crc32c(&disk.0[65536 + 32..65536 + 4096]);
    disk.put(65536, &sum.to_le_bytes());
    disk
}

#[test]
fn what_a_writer_would_have_to_know_is_refused() {
    let image = Image::make("120M", "mkfs.btrfs -q disk 2>&1");
    let refused = |at, bytes: &[u8]| free_of(&patched(&image, at, bytes)).unwrap_err().kind;
    assert_eq!(refused(0x60, &[1]), RefusalKind::Dirty);
    for (at, bytes) in [
        (0x88, [2_u8, 0]),
        (0x3c, [1, 0]),
        (0xbd, [0x13, 0]),
        (0xbe, [2, 0]),
        (0xb4, [0x13, 0]),
        (0xc4, [1, 0]),
        (0xc4, [9, 0]),
    ] {
        assert_eq!(refused(at, &bytes), RefusalKind::Unsupported, "{at:#x}");
    }
    let mut disk = image.disk();
    disk.0.truncate(119 << 20);
    assert_eq!(free_of(&disk).unwrap_err().kind, RefusalKind::Damaged);
    let raid = Image::make(
        "200M",
        "truncate -s 200M two; mkfs.btrfs -q -m raid1 disk two 2>&1",
    );
    assert_eq!(
        free_of(&raid.disk()).unwrap_err().kind,
        RefusalKind::Unsupported
    );
    let other = Image::make("120M", "mkfs.btrfs -q --csum xxhash disk 2>&1");
    let refusal = free_of(&other.disk()).unwrap_err();
    assert!(refusal.reason.contains("xxhash64"), "{refusal}");
}

/// Whatever byte of the superblock or of a tree changes: refused, or nothing more is free.
#[test]
fn no_changed_byte_frees_a_block() {
    let image = Image::make("160M", "mkfs.btrfs -q -n 4096 disk 2>&1");
    let mut disk = image.disk();
    let truth = free_of(&disk).unwrap();
    let mut seen = 0;
    let places = {
        let volume = disk.volume();
        let superblock = Superblock::read(&volume).unwrap();
        let chunks = ChunkMap::read(&volume, &superblock).unwrap();
        let tree = |owner| root_of(&volume, &superblock, &chunks, owner).unwrap();
        let roots = [
            superblock.chunk_root,
            superblock.root,
            tree(DEVICE_TREE),
            tree(2),
            tree(10),
        ];
        let places = roots.map(|root| chunks.place(root.at, 4096).unwrap());
        let places = places.map(|place| usize::try_from(place).unwrap());
        [vec![65536], places.to_vec()].concat()
    };
    for start in places {
        for (at, sealed) in (0..4096).flat_map(|at| [(at, false), (at, true)]) {
            let old = disk.0[start..start + 4096].to_vec();
            if old[at] == 0 && at % 16 != 0 {
                continue;
            }
            disk.0[start + at] ^= 1 << (at % 8);
            if sealed {
                let sum = crc32c::crc32c(&disk.0[start + 32..start + 4096]);
                disk.put(start, &sum.to_le_bytes());
            }
            match free_of(&disk) {
                Ok(space) => assert!(
                    space
                        .free
                        .ranges()
                        .iter()
                        .all(|range| truth.free.covers(range.clone()))
                ),
                Err(_) => seen += 1,
            }
            disk.put(start, &old);
        }
    }
    assert!(seen > 1000, "{seen}");
}
