//! FAT volumes that are written here are sound to fsck.fat and read back the same with mtools, the `fatfs` crate and the
//! reader in this crate.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use qimg::fat::{self, Kind, Options, Size, Timestamp, Tree, Volume};
use qimg::fs::probe::{identify, open_tree};
use qimg::fs::tree::{FileKind, Piece};
use qimg::image::{Depth, Format, Image, OpenOptions};
use qimg::store::{HostFile, Locking, Memory, ReadAt, WriteAt};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// Runs a tool that must be there, in `directory`.
fn run(directory: &Path, tool: &str, arguments: &[&str]) -> Output {
    Command::new(tool)
        .args(arguments)
        .current_dir(directory)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap_or_else(|error| panic!("{tool} must be installed: {error}"))
}

/// As [`run`], and it must succeed.
fn must(directory: &Path, tool: &str, arguments: &[&str]) -> Output {
    let output = run(directory, tool, arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    let more = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{tool} {arguments:?}: {text}{more}"
    );
    output
}

/// Bytes without a pattern, the same for the same seed.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// Paths and contents.
type Files = BTreeMap<String, Vec<u8>>;

/// Files of many shapes that take no more than `room` bytes.
fn many(count: usize, room: usize) -> Files {
    let mut files = Files::new();
    let mut left = room;
    for n in 0..count {
        let length = [0, 1, 511, 512, 513, 4096, 20_000, 70_001][n % 8].min(left);
        left -= length;
        let name = match n % 7 {
            0 => format!("F{n}.TXT"),
            1 => format!("lower{n}.txt"),
            2 => format!("Mixed case and long {n}.with.dots"),
            3 => format!("Größe {n} \u{3b1}\u{4e2d}.dat"),
            4 => format!("{n}{}", "x".repeat(200 - n % 40)),
            5 => format!("the same beginning {n}.cfg"),
            _ => format!("UP{n}.low"),
        };
        let directory = [
            "",
            "EFI/BOOT/",
            "d/",
            "Long directory name/with another below it/",
        ][n % 4];
        files.insert(format!("{directory}{name}"), noise(length, n as u64));
    }
    files
}

fn tree_of(files: &Files) -> Tree {
    let mut tree = Tree::new();
    for (path, bytes) in files {
        tree.add_bytes(path, bytes.clone()).unwrap();
    }
    tree
}

fn bytes_of(volume: &Volume) -> Vec<u8> {
    let mut bytes = Vec::new();
    volume.write_in_order(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, volume.size());
    bytes
}

/// The volume written over bytes that are not zeros.
fn over_old_bytes(volume: &Volume) -> Vec<u8> {
    let store = Memory::from(vec![0xa5; usize::try_from(volume.size()).unwrap()]);
    volume.write_to(&store, 0).unwrap();
    assert_eq!(store.len().unwrap(), volume.size());
    store.to_vec()
}

fn fsck(directory: &Path, bytes: &[u8]) {
    std::fs::write(directory.join("fat"), bytes).unwrap();
    let output = must(directory, "fsck.fat", &["-n", "-v", "fat"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let odd = [
        "differ",
        "Dirty",
        "wrong",
        "Wrong",
        "Bad",
        "bad",
        "Free cluster summary",
        "Warning",
    ];
    assert!(!odd.iter().any(|word| text.contains(word)), "{text}");
}

/// What this crate reads of it.
fn read_back(bytes: Vec<u8>) -> Files {
    let store: Arc<dyn ReadAt> = Arc::new(Memory::from(bytes));
    let options = OpenOptions {
        format: Some(Format::Raw),
        ..OpenOptions::default()
    };
    let image = Image::from_store(store, "fat", &options).unwrap();
    let chain = image.chain(Depth::Chain, None).unwrap();
    let disk = qimg::volume::Volume::whole(&chain);
    let tree = open_tree(&disk).unwrap().unwrap();
    let mut files = Files::new();
    let mut left = vec![(String::new(), tree.root())];
    while let Some((path, node)) = left.pop() {
        let mut entries = Vec::new();
        tree.read_dir(node, &mut |entry| {
            let name = String::from_utf8(entry.name.to_vec()).unwrap();
            entries.push((format!("{path}{name}"), entry.node));
            ControlFlow::Continue(())
        })
        .unwrap();
        for (path, node) in entries {
            if tree.metadata(node).unwrap().kind == FileKind::Directory {
                left.push((format!("{path}/"), node));
                continue;
            }
            let mut bytes = Vec::new();
            tree.read_file(node, 0..u64::MAX, &mut |piece| {
                match piece {
                    Piece::Data { bytes: more, .. } => bytes.extend_from_slice(more),
                    Piece::Hole { .. } => panic!("a hole in FAT"),
                }
                ControlFlow::Continue(())
            })
            .unwrap();
            files.insert(path, bytes);
        }
    }
    files
}

/// What mtools read of the file `fat`.
fn mtools(directory: &Path) -> Files {
    let out = directory.join("out");
    let _ = std::fs::remove_dir_all(&out);
    std::fs::create_dir(&out).unwrap();
    must(
        directory,
        "mcopy",
        &["-i", "fat", "-s", "-n", "-Q", "::*", "out"],
    );
    host(&out)
}

fn host(at: &Path) -> Files {
    let mut files = Files::new();
    let mut left = vec![at.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(at).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    files
}

fn assert_equal(found: &Files, expected: &Files, who: &str) {
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>(),
        "{who}"
    );
    for (path, bytes) in found {
        assert!(*bytes == expected[path], "{who}: {path}");
    }
}

/// All witnesses agree.
fn prove(directory: &Path, files: &Files, options: &Options) -> Volume {
    let volume = fat::plan(&tree_of(files), options).unwrap();
    let bytes = bytes_of(&volume);
    let old = over_old_bytes(&volume);
    fsck(directory, &old);
    assert_equal(&read_back(old), files, "over old bytes");
    fsck(directory, &bytes);
    assert_equal(&mtools(directory), files, "mtools");
    assert_equal(&read_back(bytes), files, "qimg");
    volume
}

fn fixed(size: u64, sector_size: u64) -> Options {
    Options {
        size: Size::Fixed(size),
        sector_size,
        label: Some("A label".to_owned()),
        ..Options::default()
    }
}

#[test]
fn every_kind_reads_back() {
    let directory = TempDir::new().unwrap();
    for (size, sector_size, kind) in [
        (128 << 10, 512, Kind::Fat12),
        (2 * MIB, 512, Kind::Fat12),
        (4 * MIB, 512, Kind::Fat16),
        (32 * MIB, 512, Kind::Fat16),
        (33 * MIB, 512, Kind::Fat32),
        (100 * MIB, 512, Kind::Fat32),
        (16 * MIB, 4096, Kind::Fat12),
        (100 * MIB, 4096, Kind::Fat16),
        (260 * MIB, 4096, Kind::Fat32),
    ] {
        let room = usize::try_from(size / 3).unwrap().min(2 << 20);
        let files = many(if size < MIB { 20 } else { 150 }, room);
        let volume = prove(directory.path(), &files, &fixed(size, sector_size));
        assert_eq!(volume.kind(), kind, "{size}");
        assert_eq!(volume.size(), size);
    }
}

#[test]
fn sizes_about_the_borders_are_sound() {
    let directory = TempDir::new().unwrap();
    let files = many(4, 2000);
    let mut kinds = BTreeMap::new();
    let around = |center: u64, step: u64, count: u64| {
        (0..count).map(move |n| center - count / 2 * step + n * step)
    };
    let sizes = around(2 * MIB + 20_480, 512 * 5, 40)
        .chain(around(4 * MIB, 512 * 3, 40))
        .chain(around(32 * MIB + 400_000, 512 * 97, 60))
        .chain(around(33 * MIB, 512 * 63, 20));
    for size in sizes {
        let volume = fat::plan(&tree_of(&files), &fixed(size, 512)).unwrap();
        fsck(directory.path(), &over_old_bytes(&volume));
        // mtools tells the kinds apart by itself.
        let text = must(directory.path(), "minfo", &["-i", "fat", "::"]).stdout;
        let text = String::from_utf8_lossy(&text).into_owned();
        let says = format!("disk type=\"{:8}\"", volume.kind().to_string());
        assert!(text.contains(&says), "{size}: {text}");
        *kinds.entry(volume.kind().to_string()).or_insert(0) += 1;
    }
    assert_eq!(kinds.len(), 3, "{kinds:?}");
}

#[test]
fn a_seed_is_sized_to_its_files_and_named_as_cloud_init_looks_for_it() {
    let directory = TempDir::new().unwrap();
    for length in [0, 1000, 120_000, 3_000_000, 40_000_000] {
        let mut files = Files::new();
        for name in ["meta-data", "network-config", "user-data", "vendor-data"] {
            files.insert(name.to_owned(), noise(100, 1));
        }
        files.insert("user-data".to_owned(), noise(length, 2));
        let options = Options {
            label: Some("cidata".to_owned()),
            ..Options::default()
        };
        let volume = prove(directory.path(), &files, &options);
        assert!(volume.size().is_multiple_of(64 << 10));
        assert!(
            volume.size() <= (length as u64 * 11 / 10 + (192 << 10)),
            "{length}"
        );
        let blkid = must(directory.path(), "blkid", &["-p", "-o", "export", "fat"]).stdout;
        let blkid = String::from_utf8_lossy(&blkid).into_owned();
        for line in ["LABEL_FATBOOT=cidata", "LABEL=cidata", "TYPE=vfat"] {
            assert!(blkid.lines().any(|found| found == line), "{blkid}");
        }
    }
}

#[test]
fn names_that_collide_are_all_there() {
    let directory = TempDir::new().unwrap();
    let mut files = Files::new();
    for n in 0..300_u16 {
        files.insert(format!("colliding name {n}.text"), n.to_le_bytes().to_vec());
    }
    files.insert("COLLID~1.TEX".to_owned(), b"first come".to_vec());
    files.insert("collid~2.tex".to_owned(), b"lower".to_vec());
    prove(directory.path(), &files, &fixed(8 * MIB, 512));
    let listing = must(directory.path(), "mdir", &["-i", "fat", "-b", "::"]);
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    assert_eq!(listing.lines().count(), files.len());
}

#[test]
fn long_and_deep_trees_are_all_there() {
    let directory = TempDir::new().unwrap();
    let mut files = Files::new();
    files.insert(format!("{}leaf.txt", "d/".repeat(60)), b"deep".to_vec());
    files.insert(format!("{0}/{0}", "n".repeat(255)), b"long".to_vec());
    for n in 0..3000_u16 {
        files.insert(format!("wide/entry number {n}"), n.to_le_bytes().to_vec());
    }
    for n in 0..700 {
        files.insert(format!("root{n}"), Vec::new());
    }
    for size in [30 * MIB, 64 * MIB] {
        prove(directory.path(), &files, &fixed(size, 512));
    }
    let mut tree = Tree::new();
    for n in 0..25_000 {
        tree.add_bytes(&format!("too/wide for FAT {n}"), Vec::new())
            .unwrap();
    }
    assert!(fat::plan(&tree, &fixed(64 * MIB, 512)).is_err());
}

#[test]
fn the_crate_reads_what_it_would_not_write() {
    let files = many(100, 1 << 20);
    for size in [8 * MIB, 40 * MIB] {
        let volume = fat::plan(&tree_of(&files), &fixed(size, 512)).unwrap();
        let image = std::io::Cursor::new(bytes_of(&volume));
        let filesystem = fatfs::FileSystem::new(image, fatfs::FsOptions::new()).unwrap();
        assert_eq!(filesystem.volume_label(), "A label");
        for (path, bytes) in &files {
            let mut found = Vec::new();
            let mut file = filesystem.root_dir().open_file(path).unwrap();
            file.read_to_end(&mut found).unwrap();
            assert!(found == *bytes, "{path}");
        }
        let free = filesystem.stats().unwrap();
        let (clusters, used) = volume.clusters();
        assert_eq!(u64::from(free.free_clusters()), clusters - used);
    }
}

#[test]
fn a_full_volume_is_sound() {
    let directory = TempDir::new().unwrap();
    for size in [MIB, 8 * MIB, 34 * MIB] {
        let (mut low, mut high) = (0, size);
        while low + 1 < high {
            let middle = (low + high) / 2;
            let mut tree = Tree::new();
            tree.add_file("all", Arc::new(Hollow(middle))).unwrap();
            if fat::plan(&tree, &fixed(size, 512)).is_ok() {
                low = middle;
            } else {
                high = middle;
            }
        }
        let files = Files::from([("all".to_owned(), noise(usize::try_from(low).unwrap(), 3))]);
        let volume = prove(directory.path(), &files, &fixed(size, 512));
        let (clusters, used) = volume.clusters();
        assert_eq!(clusters, used);
    }
}

/// So many zeros that are nowhere.
#[derive(Debug)]
struct Hollow(u64);

impl ReadAt for Hollow {
    fn len(&self) -> qimg::Result<u64> {
        Ok(self.0)
    }

    fn read_exact_at(&self, buf: &mut [u8], _: u64) -> qimg::Result<()> {
        buf.fill(0);
        Ok(())
    }
}

#[test]
fn the_longest_file_fits_and_a_longer_one_is_refused() {
    let mut tree = Tree::new();
    tree.add_file("longest", Arc::new(Hollow(fat::LONGEST_FILE)))
        .unwrap();
    let error = tree
        .add_file("longer", Arc::new(Hollow(fat::LONGEST_FILE + 1)))
        .unwrap_err();
    assert!(error.to_string().contains("4294967295"), "{error}");
    fat::plan(&tree, &Options::default()).unwrap();
    // fsck.fat 4.2 counts bytes of a chain of clusters in 32 bits: the last cluster of the longest file is too much for it.
    let mut tree = Tree::new();
    let length = fat::LONGEST_FILE - 4095;
    tree.add_file("longest", Arc::new(Hollow(length))).unwrap();
    let volume = fat::plan(&tree, &Options::default()).unwrap();
    assert_eq!(volume.kind(), Kind::Fat32);
    // Sparse: only what is not zeros is written.
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("fat");
    std::fs::write(&path, []).unwrap();
    let file = HostFile::open_write(&path, Locking::Check).unwrap();
    file.set_len(volume.size()).unwrap();
    for piece in volume.pieces() {
        if let fat::Fill::Bytes(bytes) = &piece.fill {
            file.write_all_at(bytes, piece.start).unwrap();
        }
    }
    drop(file);
    let output = run(directory.path(), "fsck.fat", &["-n", "fat"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
}

#[test]
fn what_fat_cannot_hold_is_refused_in_one_line() {
    let mut tree = Tree::new();
    for bad in [
        "a:b",
        "trailing.",
        "blank ",
        "..",
        "d/./f",
        "back\\slash",
        &"x".repeat(256),
        "",
    ] {
        let error = tree.add_bytes(bad, Vec::new()).unwrap_err();
        assert!(!error.to_string().contains('\n'), "{bad}");
    }
    tree.add_bytes("EFI/Boot/x.efi", Vec::new()).unwrap();
    tree.add_bytes("efi/boot/y.efi", Vec::new()).unwrap();
    for taken in ["EFI/BOOT/X.EFI", "efi", "EFI/boot/x.efi/z"] {
        assert!(tree.add_bytes(taken, Vec::new()).is_err(), "{taken}");
    }
    assert!(fat::plan(&tree, &fixed(10_000, 512)).is_err());
    assert!(fat::plan(&tree, &fixed(MIB, 600)).is_err());
    assert!(fat::plan(&tree, &fixed(3 << 41, 512)).is_err());
    let narrow = Options {
        kind: Some(Kind::Fat32),
        ..fixed(MIB, 512)
    };
    assert!(fat::plan(&tree, &narrow).is_err());
    let label = Options {
        label: Some("much too long".to_owned()),
        ..fixed(MIB, 512)
    };
    assert!(fat::plan(&tree, &label).is_err());
    tree.add_bytes("large", vec![1; 3 << 20]).unwrap();
    let error = fat::plan(&tree, &fixed(MIB, 512)).unwrap_err();
    assert!(error.remedy().is_some());
}

#[test]
fn kinds_can_be_asked_for() {
    let directory = TempDir::new().unwrap();
    let files = many(10, 10_000);
    for kind in [Kind::Fat12, Kind::Fat16, Kind::Fat32] {
        let options = Options {
            kind: Some(kind),
            ..Options::default()
        };
        assert_eq!(prove(directory.path(), &files, &options).kind(), kind);
        let options = Options {
            kind: Some(kind),
            ..fixed(64 * MIB, 512)
        };
        assert_eq!(prove(directory.path(), &files, &options).kind(), kind);
    }
}

#[test]
fn bytes_depend_on_the_inputs_alone() {
    let files = many(60, 300_000);
    let mut digests = Vec::new();
    for size in [MIB, 8 * MIB, 40 * MIB] {
        let options = Options {
            hidden_sectors: 2048,
            written: Timestamp::from_unix(1_700_000_000),
            ..fixed(size, 512)
        };
        let one = bytes_of(&fat::plan(&tree_of(&files), &options).unwrap());
        // In another order.
        let mut tree = Tree::new();
        for (path, bytes) in files.iter().rev() {
            tree.add_bytes(path, bytes.clone()).unwrap();
        }
        let other = bytes_of(&fat::plan(&tree, &options).unwrap());
        assert!(read_back(one.clone()) == read_back(other));
        assert_eq!(
            one,
            bytes_of(&fat::plan(&tree_of(&files), &options).unwrap())
        );
        digests.push(format!("{:08x}", crc32fast::hash(&one)));
        let store: Arc<dyn ReadAt> = Arc::new(Memory::from(one));
        let raw = OpenOptions {
            format: Some(Format::Raw),
            ..OpenOptions::default()
        };
        let image = Image::from_store(store, "fat", &raw).unwrap();
        let chain = image.chain(Depth::Chain, None).unwrap();
        let found = identify(&qimg::volume::Volume::whole(&chain)).unwrap();
        assert!(format!("{found:?}").contains("A label"), "{found:?}");
    }
    // These change only for a reason that the change log names.
    assert_eq!(digests, ["186ea1b2", "4aa74a19", "9a7ef558"]);
}
