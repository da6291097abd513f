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

/// What no device extent covers, as btrfs tells it.
fn outside_chunks(image: &Image) -> Vec<Range<u64>> {
    let print = image
        .run("btrfs inspect-internal dump-tree -d disk; btrfs inspect-internal dump-super disk");
    let mut extents = Vec::new();
    let mut size = 0;
    for line in print.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["item", _, "key", "(1", "DEV_EXTENT", at, ..] => {
                extents.push(at.trim_end_matches(')').parse::<u64>().unwrap());
            }
            ["chunk_objectid", _, "chunk_offset", _, "length", length, ..] => {
                extents.push(length.parse().unwrap());
            }
            ["dev_item.total_bytes", bytes] => size = bytes.parse().unwrap(),
            _ => {}
        }
    }
    let mut map = FreeMapBuilder::new();
    map.free(1 << 20..size);
    for copy in [64 << 10, 64 << 20] {
        map.used(copy..copy + (64 << 10));
    }
    for extent in extents.as_chunks::<2>().0 {
        map.used(extent[0]..extent[0] + extent[1]);
    }
    map.build().ranges().to_vec()
}

/// Nothing but what no chunk was made of is free, and nobody misses it.
fn assert_sound(image: &Image) {
    let space = free_of(&image.disk()).unwrap();
    assert_eq!(space.free.ranges(), outside_chunks(image));
    image.zero_free(space.free.ranges());
    step(image, "btrfs check --check-data-csum zeroed");
    let hashes = step(image, "hashes disk; hashes zeroed");
    let hashes: Vec<&str> = hashes.lines().collect();
    assert!(hashes.len() == 2 && hashes[0] == hashes[1], "{hashes:?}");
}

#[test]
fn what_no_chunk_was_made_of_is_free() {
    let kinds = [
        ("400M", "", ""),
        ("300M", "-n 4096 -m dup -d single", ""),
        ("300M", "--mixed -n 4096", ""),
        ("400M", "-m single -d dup -n 65536", "compress=zstd"),
        ("350M", "-O ^no-holes -R ^free-space-tree", "space_cache=v1"),
    ];
    let step_by = if nightly() { 1 } else { 3 };
    for (size, options, mount) in kinds.into_iter().step_by(step_by) {
        let image = Image::make(size, &format!("mkfs.btrfs -q -L lab {options} disk 2>&1"));
        let identity = identify(&image.disk().volume()).unwrap().unwrap();
        assert_eq!(identity.kind, "btrfs");
        assert_eq!(identity.uuid, image.blkid("UUID"));
        assert_eq!(identity.label, image.blkid("LABEL"));
        assert_eq!(identity.size, Some(image.disk().0.len() as u64));
        assert_sound(&image);
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
    let chunk_tree = 0x58;
    let place = |disk: &Disk, at: usize| {
        let superblock = Superblock::read(&disk.volume()).unwrap();
        let chunks = ChunkMap::read(&disk.volume(), &superblock).unwrap();
        let logical = match at {
            0x58 => superblock.chunk_root.at,
            0 => {
                root_of(&disk.volume(), &superblock, &chunks, DEVICE_TREE)
                    .unwrap()
                    .at
            }
            _ => superblock.root.at,
        };
        usize::try_from(chunks.place(logical, 4096).unwrap()).unwrap()
    };
    let places = [
        65536,
        place(&disk, chunk_tree),
        place(&disk, 0x50),
        place(&disk, 0),
    ];
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
