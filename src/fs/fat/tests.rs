#![expect(clippy::disallowed_types, reason = "tests write images themselves")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;
use crate::fs::RefusalKind;
use crate::fs::tests::{contents, disk, disk_of, must, nightly, noise, walk};
use crate::fs::tree::{FileKind, Tree};

/// A directory with an image in it.
pub(super) struct Image {
    pub(super) directory: TempDir,
    pub(super) path: PathBuf,
}

impl Image {
    pub(super) fn make(size: u64, options: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("disk");
        let image = Self { directory, path };
        image.format(size, options);
        image
    }

    fn format(&self, size: u64, options: &str) {
        let _ = fs::remove_file(&self.path);
        File::create(&self.path).unwrap().set_len(size).unwrap();
        let mut arguments: Vec<&str> = options.split_whitespace().collect();
        arguments.extend(["-i", "1234abcd", self.name()]);
        must("mkfs.vfat", &arguments);
    }

    /// One with exactly this many clusters.
    fn with_clusters(clusters: u64, options: &str) -> Self {
        let words: Vec<&str> = options.split_whitespace().collect();
        let option = |name: &str, otherwise: u64| {
            let at = words.iter().position(|word| *word == name);
            at.map_or(otherwise, |at| words[at + 1].parse().unwrap())
        };
        let (bits, sector) = (option("-F", 0), option("-S", 0));
        let cluster = sector * option("-s", 0);
        let tables = ((clusters + 2) * bits).div_ceil(sector * 8) * option("-f", 2);
        let (reserved, root) = if bits == 32 { (32, 0) } else { (1, 512) };
        let (reserved, root) = (option("-R", reserved), option("-r", root) * 32);
        let mut size = clusters * cluster + (tables + reserved) * sector + root;
        let image = Self::make(size, options);
        for _ in 0..20 {
            let boot = image.boot();
            if boot.clusters == clusters {
                return image;
            }
            size = size + clusters * cluster - boot.clusters * cluster;
            image.format(size, options);
        }
        panic!("mkfs.vfat {options} makes no {clusters} clusters");
    }

    pub(super) fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    pub(super) fn boot(&self) -> Boot {
        Boot::require(&Volume::whole(&disk(&self.path))).unwrap()
    }

    fn free(&self) -> Result<FreeSpace, Refusal> {
        free_space(&Volume::whole(&disk(&self.path)), &FreeOptions::default())
    }
}

fn free_of(bytes: Vec<u8>) -> Result<FreeSpace, Refusal> {
    free_space(&Volume::whole(&disk_of(bytes)), &FreeOptions::default())
}

/// Free clusters as a second, simple reading of the table has them.
fn counted(image: &Image) -> Vec<bool> {
    let boot = image.boot();
    let bytes = image.bytes();
    let table = &bytes[usize::try_from(boot.tables_at).unwrap()..];
    (2..usize::try_from(boot.clusters).unwrap() + 2)
        .map(|n| match boot.kind {
            Kind::Fat12 if n % 2 == 0 => table[n / 2 * 3] == 0 && table[n / 2 * 3 + 1] & 15 == 0,
            Kind::Fat12 => table[n / 2 * 3 + 1] >> 4 == 0 && table[n / 2 * 3 + 2] == 0,
            Kind::Fat16 => table[n * 2..n * 2 + 2] == [0, 0],
            Kind::Fat32 => table[n * 4..n * 4 + 3] == [0; 3] && table[n * 4 + 3] & 15 == 0,
        })
        .collect()
}

/// Files and directories of many shapes below `at`.
fn populate(at: &Path, files: usize, room: usize) {
    for directory in ["EFI/BOOT", "Long directory name/with another below it", "d"] {
        fs::create_dir_all(at.join(directory)).unwrap();
    }
    let mut left = room;
    for n in 0..files {
        let length = [0, 1, 511, 512, 513, 4096, 20_000, 70_001][n % 8].min(left);
        left -= length;
        let name = match n % 6 {
            0 => format!("F{n}.TXT"),
            1 => format!("lower{n}.txt"),
            2 => format!("Mixed case and long {n}.with.dots"),
            3 => format!("Größe {n} \u{3b1}\u{4e2d}.dat"),
            4 => format!("{n}{}", "x".repeat(200 - n % 40)),
            _ => format!("UP{n}.low"),
        };
        let directory = [
            "",
            "EFI/BOOT",
            "d",
            "Long directory name/with another below it",
        ][n % 4];
        let path = at.join(directory).join(name);
        fs::write(&path, noise(length, n as u64)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + n as u64 * 86_402);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
}

/// Copies all that is below `from` with mtools.
fn copy_in(image: &Image, from: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let arguments = ["-i", image.name(), "-s", "-m", path.to_str().unwrap(), "::"];
        must("mcopy", &arguments);
    }
}

/// Everything below `at` but what `gone` says, by its path.
fn host(at: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut left = vec![at.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(at).unwrap().to_str().unwrap();
            found.insert(format!("/{name}"), path.clone());
            if path.is_dir() {
                left.push(path);
            }
        }
    }
    found
}

/// The tree has what the host has, and reads as it.
fn assert_same(image: &Image, from: &Path) {
    let disk = disk(&image.path);
    let tree = Files::open(&Volume::whole(&disk)).unwrap();
    let found = walk(&tree, tree.root());
    let expected = host(from);
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    for (path, node) in &found {
        let metadata = tree.metadata(*node).unwrap();
        let file = fs::metadata(&expected[path]).unwrap();
        assert_eq!(
            metadata.kind == FileKind::Directory,
            file.is_dir(),
            "{path}"
        );
        if file.is_dir() {
            continue;
        }
        let bytes = fs::read(&expected[path]).unwrap();
        assert!(contents(&tree, *node, 0..u64::MAX) == bytes, "{path}");
        let length = bytes.len() as u64;
        let range = length / 3..length / 2 + 700;
        let middle =
            usize::try_from(range.start).unwrap()..usize::try_from(range.end.min(length)).unwrap();
        assert!(contents(&tree, *node, range) == bytes[middle], "{path}");
        let modified = metadata.modified.unwrap();
        assert_eq!(modified.seconds, file.mtime() & !1, "{path}");
        let upper = path.to_uppercase();
        let upper = upper.rsplit('/').next().unwrap();
        let parent = path.rsplit_once('/').unwrap().0;
        let parent = if parent.is_empty() {
            tree.root()
        } else {
            found[parent]
        };
        assert_eq!(tree.lookup(parent, upper.as_bytes()).unwrap(), Some(*node));
    }
}

/// The free map is that of the table and of fsck.fat, and what is in it matters to nobody.
fn assert_free(image: &Image, from: &Path) {
    let boot = image.boot();
    let space = image.free().unwrap();
    let counted = counted(image);
    for (n, is_free) in counted.iter().enumerate() {
        let cluster = n as u64 + 2;
        let bytes = boot.bytes_of(cluster..cluster + 1);
        assert_eq!(space.free.covers(bytes.clone()), *is_free);
        assert_eq!(space.free.within(bytes).next().is_some(), *is_free);
    }
    let free = counted.iter().filter(|is_free| **is_free).count() as u64;
    assert_eq!(space.free.total(), free * boot.cluster_size);
    let said = must("fsck.fat", &["-n", "-v", image.name()]);
    let used = boot.clusters - free;
    assert!(
        said.contains(&format!(", {used}/{} clusters", boot.clusters)),
        "{said}"
    );
    assert!(
        said.contains(&format!("{} bytes per logical sector", boot.sector_size))
            && said.contains(&format!("{} bytes per cluster", boot.cluster_size)),
        "{said}"
    );
    let file = File::options().write(true).open(&image.path).unwrap();
    for range in space.free.ranges() {
        let length = usize::try_from(range.end - range.start).unwrap();
        file.write_all_at(&vec![0xdb; length], range.start).unwrap();
    }
    drop(file);
    must("fsck.fat", &["-n", image.name()]);
    let out = image.directory.path().join("out");
    if fs::read_dir(from).unwrap().next().is_none() {
        return;
    }
    fs::create_dir(&out).unwrap();
    let arguments = ["-i", image.name(), "-s", "-n", "::*", out.to_str().unwrap()];
    must("mcopy", &arguments);
    must(
        "diff",
        &["-r", from.to_str().unwrap(), out.to_str().unwrap()],
    );
    fs::remove_dir_all(&out).unwrap();
    assert_eq!(image.free().unwrap(), space);
}

#[test]
fn every_width_of_entry_is_read_up_to_its_last_cluster() {
    let mut cases = vec![
        (4080, "-a -F 12 -s 1 -S 512", "FAT12"),
        (4087, "-a -F 16 -s 1 -S 512", "FAT16"),
        (65520, "-a -F 16 -s 1 -S 512", "FAT16"),
        (65529, "-a -F 32 -s 1 -S 512", "FAT32"),
        (700, "-a -F 12 -s 4 -S 1024 -f 1", "FAT12"),
        (5000, "-a -F 16 -s 2 -S 2048 -r 256 -R 8", "FAT16"),
        (9000, "-a -F 32 -s 1 -S 4096", "FAT32"),
        (3000, "-a -F 32 -s 8 -S 512", "FAT32"),
        (300, "-a -F 12 -s 128 -S 512", "FAT12"),
    ];
    if nightly() {
        cases.extend([
            (65529, "-a -F 32 -s 1 -S 4096", "FAT32"),
            (65519, "-a -F 16 -s 2 -S 4096", "FAT16"),
            (4079, "-a -F 12 -s 16 -S 1024", "FAT12"),
            (200_000, "-a -F 32 -s 4 -S 512", "FAT32"),
        ]);
    }
    for (clusters, options, version) in cases {
        let image = Image::with_clusters(clusters, &format!("-n NAME {options}"));
        let sources = TempDir::new().unwrap();
        let at = sources.path();
        let room = usize::try_from(clusters * image.boot().cluster_size / 3).unwrap();
        // To mtools a FAT32 as small as this is none; Linux and mkfs.vfat take it for one.
        if version == "FAT32" && clusters < 65525 {
            assert_free(&image, at);
            continue;
        }
        populate(at, 60, room.min(1 << 20));
        copy_in(&image, at);
        // Holes between files, which a larger one fills in pieces.
        for (n, (path, host)) in host(at).into_iter().enumerate() {
            if host.is_file() && n % 3 == 0 {
                must("mdel", &["-i", image.name(), &format!("::{path}")]);
                fs::remove_file(host).unwrap();
            }
        }
        fs::write(at.join("d/pieces"), noise(room.min(300_000), 99)).unwrap();
        let pieces = at.join("d/pieces");
        let arguments = ["-i", image.name(), "-m", pieces.to_str().unwrap(), "::/d"];
        must("mcopy", &arguments);
        assert_same(&image, at);
        assert_free(&image, at);
        let disk = disk(&image.path);
        let identity = identify(&Volume::whole(&disk)).unwrap().unwrap();
        let said = must("blkid", &["-p", "-o", "export", image.name()]);
        for (key, value) in [
            ("TYPE", Some(identity.kind.to_owned())),
            ("VERSION", identity.version.clone()),
            ("LABEL", identity.label.clone()),
            ("UUID", identity.uuid.clone()),
        ] {
            let line = format!("{key}={}", value.unwrap());
            assert!(said.lines().any(|found| found == line), "{line} {said}");
        }
        assert_eq!(identity.version.as_deref(), Some(version));
        assert_eq!(identity.uuid.as_deref(), Some("1234-ABCD"));
        assert_eq!(image.boot().clusters, clusters);
    }
}

/// mkfs.vfat stays away from these.
#[test]
fn the_number_of_clusters_decides_between_12_and_16_bits() {
    let mut sector = Image::make(4 << 20, "-a -F 16 -s 1").bytes();
    sector.truncate(512);
    let boot = Boot::read(&Volume::whole(&disk_of(sector.clone())));
    let boot = boot.unwrap().unwrap();
    let before = boot.data_at / 512;
    // Tables as long as they can be.
    sector[22..24].copy_from_slice(&300_u16.to_le_bytes());
    let before = before - 2 * boot.table_size / 512 + 600;
    for (clusters, kind) in [
        (1, Some(Kind::Fat12)),
        (4084, Some(Kind::Fat12)),
        (4085, Some(Kind::Fat16)),
        (65524, Some(Kind::Fat16)),
        (65525, None),
        (0, None),
    ] {
        let sectors = u32::try_from(before + clusters).unwrap();
        sector[19..21].fill(0);
        sector[32..36].copy_from_slice(&sectors.to_le_bytes());
        let boot = Boot::read(&Volume::whole(&disk_of(sector.clone()))).unwrap();
        assert_eq!(boot.map(|boot| boot.kind), kind, "{clusters}");
    }
}

#[test]
fn another_writer_s_files_are_read() {
    use std::io::{Cursor, Write};
    for (size, kind) in [
        (1 << 20, fatfs::FatType::Fat12),
        (16 << 20, fatfs::FatType::Fat16),
        (40 << 20, fatfs::FatType::Fat32),
    ] {
        let mut bytes = Cursor::new(vec![0_u8; size]);
        let options = fatfs::FormatVolumeOptions::new()
            .fat_type(kind)
            .bytes_per_cluster(512)
            .volume_label(*b"OTHER      ")
            .volume_id(0xdead_beef);
        fatfs::format_volume(&mut bytes, options).unwrap();
        let other = fatfs::FileSystem::new(&mut bytes, fatfs::FsOptions::new()).unwrap();
        assert_eq!(other.fat_type(), kind);
        let root = other.root_dir();
        let mut expected = BTreeMap::new();
        for n in 0..40_usize {
            let directory = format!("Directory {}", n % 5);
            let inner = root.create_dir(&directory).unwrap();
            let name = format!("Some file {n}");
            let contents = noise(n * 700, n as u64);
            let mut file = inner.create_file(&name).unwrap();
            file.write_all(&contents).unwrap();
            expected.insert(format!("/{directory}/{name}"), contents);
            expected.insert(format!("/{directory}"), Vec::new());
        }
        let free = other.stats().unwrap().free_clusters();
        drop(root);
        other.unmount().unwrap();
        let disk = disk_of(bytes.into_inner());
        let volume = Volume::whole(&disk);
        let tree = Files::open(&volume).unwrap();
        let found = walk(&tree, tree.root());
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>()
        );
        for (path, node) in found {
            if tree.metadata(node).unwrap().kind == FileKind::File {
                assert!(contents(&tree, node, 0..u64::MAX) == expected[&path]);
            }
        }
        let space = free_space(&volume, &FreeOptions::default()).unwrap();
        assert_eq!(space.free.total(), u64::from(free) * 512);
        let identity = identify(&volume).unwrap().unwrap();
        assert_eq!(identity.uuid.as_deref(), Some("DEAD-BEEF"));
    }
}

/// Small images of each kind with files in them, and where their free space begins.
pub(super) fn samples() -> Vec<Vec<u8>> {
    let options = ["-F 12 -s 1", "-F 16 -s 1", "-F 32 -s 1"];
    let sizes = [1 << 20, 4 << 20, 34 << 20];
    let sources = TempDir::new().unwrap();
    populate(sources.path(), 24, 200_000);
    options
        .iter()
        .zip(sizes)
        .map(|(options, size)| {
            let image = Image::make(size, options);
            copy_in(&image, sources.path());
            image.bytes()
        })
        .collect()
}

#[test]
fn marks_of_a_mount_and_tables_that_differ_keep_all() {
    for bytes in samples() {
        let boot = Boot::require(&Volume::whole(&disk_of(bytes.clone()))).unwrap();
        let before = free_of(bytes.clone()).unwrap();
        assert!(before.free.total() > 100_000);
        let state = if boot.kind == Kind::Fat32 { 0x41 } else { 0x25 };
        let refused = |at: usize, mask: u8, both: bool| {
            let mut bytes = bytes.clone();
            bytes[at] ^= mask;
            if both {
                bytes[at + usize::try_from(boot.table_size).unwrap()] ^= mask;
            }
            free_of(bytes).unwrap_err()
        };
        assert_eq!(refused(state, 1, false).kind, RefusalKind::Dirty);
        assert_eq!(refused(state, 2, false).kind, RefusalKind::Dirty);
        let table = usize::try_from(boot.tables_at).unwrap();
        let (place, bits) = match boot.kind {
            Kind::Fat12 => (0, [0, 0]),
            Kind::Fat16 => (table + 3, [0x80, 0x40]),
            Kind::Fat32 => (table + 7, [0x08, 0x04]),
        };
        if place > 0 {
            assert_eq!(refused(place, bits[0], true).kind, RefusalKind::Dirty);
            assert_eq!(refused(place, bits[1], true).kind, RefusalKind::Dirty);
        }
        assert_eq!(refused(table + 20, 1, false).kind, RefusalKind::Damaged);
        assert_eq!(refused(table, 1, true).kind, RefusalKind::Damaged);
        // Cut off: the filesystem claims more than there is.
        let short = bytes[..bytes.len() - 512].to_vec();
        assert_eq!(free_of(short).unwrap_err().kind, RefusalKind::Damaged);
        // What is behind it is nobody's to free.
        let mut long = bytes.clone();
        long.resize(bytes.len() + 70_000, 0);
        assert_eq!(free_of(long).unwrap(), before);
    }
}

#[test]
fn a_bad_cluster_is_never_free_and_reserved_bits_are_no_number() {
    for mut bytes in samples() {
        let boot = Boot::require(&Volume::whole(&disk_of(bytes.clone()))).unwrap();
        let before = free_of(bytes.clone()).unwrap().free;
        let last = boot.clusters + 1;
        let mut set = |value: u32| {
            for copy in 0..boot.tables {
                let table = usize::try_from(boot.tables_at + copy * boot.table_size).unwrap();
                let n = usize::try_from(last).unwrap();
                match boot.kind {
                    Kind::Fat12 => {
                        let at = table + n * 3 / 2;
                        let old = u16::from_le_bytes([bytes[at], bytes[at + 1]]);
                        let value = u16::try_from(value & 0xfff).unwrap();
                        let new = if n % 2 == 0 {
                            old & 0xf000 | value
                        } else {
                            old & 0xf | value << 4
                        };
                        bytes[at..at + 2].copy_from_slice(&new.to_le_bytes());
                    }
                    Kind::Fat16 => bytes[table + n * 2..table + n * 2 + 2]
                        .copy_from_slice(&value.to_le_bytes()[..2]),
                    Kind::Fat32 => bytes[table + n * 4..table + n * 4 + 4]
                        .copy_from_slice(&value.to_le_bytes()),
                }
            }
            free_of(bytes.clone())
        };
        let place = boot.bytes_of(last..last + 1);
        assert!(before.covers(place.clone()));
        for used in [0x0fff_fff7, 0x0fff_fff8, 0x0fff_ffff, 2, 0xffff_ffff] {
            let free = set(used).unwrap().free;
            assert!(free.within(place.clone()).next().is_none());
            assert_eq!(free.total() + boot.cluster_size, before.total());
        }
        for impossible in [1, 0x0fff_fff6, u32::try_from(boot.clusters + 2).unwrap()] {
            assert_eq!(set(impossible).unwrap_err().kind, RefusalKind::Damaged);
        }
        if boot.kind == Kind::Fat32 {
            assert_eq!(set(0xf000_0000).unwrap().free, before);
        }
    }
}

#[test]
fn without_mirrors_only_the_active_table_counts() {
    let mut bytes = samples().pop().unwrap();
    let before = free_of(bytes.clone()).unwrap();
    let boot = Boot::require(&Volume::whole(&disk_of(bytes.clone()))).unwrap();
    let table = usize::try_from(boot.tables_at).unwrap();
    let size = usize::try_from(boot.table_size).unwrap();
    bytes[table + 8..table + size].fill(0);
    assert!(free_of(bytes.clone()).is_err());
    bytes[40] = 0x81;
    assert_eq!(free_of(bytes.clone()).unwrap(), before);
    bytes[40] = 0x80;
    assert!(free_of(bytes.clone()).is_err());
    bytes[40] = 0x82;
    assert!(free_of(bytes).is_err());
}

#[test]
fn other_formats_and_noise_are_not_taken_for_fat() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("disk");
    for (tool, arguments) in [
        ("mkntfs", vec!["-Q", "-F", "-q"]),
        ("mke2fs", vec!["-q", "-F"]),
        ("mkswap", vec!["-q"]),
    ] {
        let _ = fs::remove_file(&path);
        File::create(&path).unwrap().set_len(8 << 20).unwrap();
        let mut arguments = arguments;
        arguments.push(path.to_str().unwrap());
        must(tool, &arguments);
        let disk = disk(&path);
        assert_eq!(identify(&Volume::whole(&disk)).unwrap(), None, "{tool}");
    }
    for seed in 0..2000 {
        let mut bytes = noise(1024, seed);
        // As hostile as noise gets.
        bytes[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        let disk = disk_of(bytes);
        assert_eq!(identify(&Volume::whole(&disk)).unwrap(), None);
    }
    let mut bytes = samples().swap_remove(2);
    bytes[424..440].copy_from_slice(&[
        0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0,
        0x01,
    ]);
    assert_eq!(identify(&Volume::whole(&disk_of(bytes))).unwrap(), None);
}

#[test]
fn damage_to_the_boot_sector_frees_nothing_in_use() {
    let rounds = if nightly() { 1 } else { 7 };
    for bytes in samples().into_iter().take(2) {
        let before = free_of(bytes.clone()).unwrap().free;
        let mut unchanged = 0;
        for bit in (0..512 * 8).filter(|bit| bit / 8 < 90 || bit % rounds == 0) {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let volume = disk_of(bytes);
            let volume = Volume::whole(&volume);
            let _ = identify(&volume).unwrap();
            if let Ok(space) = free_space(&volume, &FreeOptions::default()) {
                unchanged += 1;
                for range in space.free.ranges() {
                    assert!(before.covers(range.clone()), "bit {bit}");
                }
            }
        }
        assert!(unchanged > 100);
    }
}
