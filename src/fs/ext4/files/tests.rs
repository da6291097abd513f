#![expect(clippy::disallowed_types, reason = "tests write files for the kernel")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;
use crate::fs::RefusalKind;
use crate::fs::ext4::checksum::crc32c;
use crate::fs::tests::{contents, disk, disk_of, must, names, nightly, noise, survive, walk};
use crate::fs::tree::{Device, Timestamp};

/// A directory with an image in it.
struct Image {
    directory: TempDir,
    path: PathBuf,
}

impl Image {
    fn make(size: &str, options: &str, from: Option<&Path>) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("disk");
        let name = path.to_str().unwrap().to_owned();
        must("truncate", &["-s", size, &name]);
        let mut arguments = vec!["-q", "-F"];
        arguments.extend(options.split_whitespace());
        if let Some(from) = from {
            arguments.extend(["-d", from.to_str().unwrap()]);
        }
        arguments.push(&name);
        must("mke2fs", &arguments);
        Self { directory, path }
    }

    fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn mount(&self, options: &str) -> Mount {
        let at = self.directory.path().join("mnt");
        fs::create_dir_all(&at).unwrap();
        let options = format!("loop,{options}");
        let options = options.trim_end_matches(',');
        must("mount", &["-o", options, self.name(), at.to_str().unwrap()]);
        Mount { at }
    }
}

struct Mount {
    at: PathBuf,
}

impl Drop for Mount {
    fn drop(&mut self) {
        must("umount", &[self.at.to_str().unwrap()]);
    }
}

/// Numbers of a device as the kernel gives them to programs.
fn device(number: u64) -> Device {
    Device {
        major: u32::try_from(number >> 8 & 0xfff | number >> 32 & 0xffff_f000).unwrap(),
        minor: u32::try_from(number & 0xff | number >> 12 & 0xffff_ff00).unwrap(),
    }
}

fn time(seconds: i64, nanoseconds: i64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds,
        nanoseconds: u32::try_from(nanoseconds).unwrap(),
    })
}

/// Compares everything below `path` with what the kernel says of it; how many names that were. `mounted` says that
/// the kernel reads the very same filesystem.
fn assert_same(tree: &dyn Tree, node: Node, path: &Path, mounted: bool) -> usize {
    let metadata = tree.metadata(node).unwrap();
    let kernel = fs::symlink_metadata(path).unwrap();
    let mode = metadata.kind.mode_bits() | metadata.permissions;
    assert_eq!(u32::from(mode), kernel.mode(), "{path:?}");
    let owner = (metadata.uid, metadata.gid);
    assert_eq!(owner, (kernel.uid(), kernel.gid()), "{path:?}");
    if mounted {
        assert_eq!(node.0, kernel.ino(), "{path:?}");
        assert_eq!(u64::from(metadata.links), kernel.nlink(), "{path:?}");
        let modified = time(kernel.mtime(), kernel.mtime_nsec());
        assert_eq!(metadata.modified, modified, "{path:?}");
        let changed = time(kernel.ctime(), kernel.ctime_nsec());
        assert_eq!(metadata.changed, changed, "{path:?}");
        let accessed = time(kernel.atime(), kernel.atime_nsec());
        assert_eq!(metadata.accessed, accessed, "{path:?}");
        let born = kernel.created().ok().map(|born| {
            let born = born.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let seconds = i64::try_from(born.as_secs()).unwrap();
            time(seconds, i64::from(born.subsec_nanos())).unwrap()
        });
        assert_eq!(metadata.created, born, "{path:?}");
    }
    let mut count = 1;
    match metadata.kind {
        FileKind::Directory => {
            let mut expected = fs::read_dir(path).unwrap().count();
            for (name, (child, kind)) in names(tree, node) {
                if name == b"lost+found" && !mounted {
                    continue;
                }
                let inner = path.join(OsStr::from_bytes(&name));
                assert!(fs::symlink_metadata(&inner).is_ok(), "{inner:?}");
                count += assert_same(tree, child, &inner, mounted);
                let is = tree.metadata(child).unwrap().kind;
                assert!(kind.is_none_or(|kind| kind == is));
                expected -= 1;
            }
            assert_eq!(expected, 0, "{path:?}");
            if mounted {
                assert_eq!(metadata.size, kernel.size());
            }
        }
        FileKind::File => {
            assert_eq!(metadata.size, kernel.size(), "{path:?}");
            if metadata.size < 64 << 20 {
                let bytes = fs::read(path).unwrap();
                assert!(contents(tree, node, 0..u64::MAX) == bytes, "{path:?}");
                let middle = metadata.size / 2;
                let end = metadata.size.min(middle + 70_001);
                let range = usize::try_from(middle).unwrap()..usize::try_from(end).unwrap();
                let part = contents(tree, node, middle..end);
                assert!(part == bytes[range], "{path:?}");
            }
        }
        FileKind::Symlink => {
            let target = fs::read_link(path).unwrap();
            let found = tree.read_link(node).unwrap();
            assert_eq!(OsStr::from_bytes(&found), target);
        }
        FileKind::CharDevice | FileKind::BlockDevice => {
            assert_eq!(metadata.device, Some(device(kernel.rdev())));
        }
        FileKind::Fifo | FileKind::Socket => assert_eq!(metadata.device, None),
    }
    count
}

/// One of everything that a filesystem can hold.
fn populate(at: &Path, files: usize, far: u64) {
    for n in 0..files {
        let directory = at.join(format!("tree/{}/{}", n % 7, n % 53));
        if n < 7 * 53 {
            fs::create_dir_all(&directory).unwrap();
        }
        fs::write(
            directory.join(format!("file-{n}")),
            noise(n % 5000, n as u64),
        )
        .unwrap();
    }
    fs::create_dir_all(at.join("d/".repeat(300))).unwrap();
    for (directory, names) in [("one", 1), ("few", 5), ("block", 40), ("huge", files)] {
        let directory = at.join(directory);
        fs::create_dir(&directory).unwrap();
        for n in 0..names {
            File::create(directory.join(format!("{n}{}", "-long".repeat(n % 50)))).unwrap();
        }
        if names > 100 {
            for n in (0..names).filter(|n| n % 3 == 0 || (names / 4..names / 2).contains(n)) {
                fs::remove_file(directory.join(format!("{n}{}", "-long".repeat(n % 50)))).unwrap();
            }
        }
    }
    // Those that an inode may hold, and just longer ones.
    for length in [1, 59, 60, 61, 100, 130, 155, 156, 157, 160, 300] {
        fs::write(at.join(format!("small-{length}")), noise(length, 4)).unwrap();
    }
    let grown = File::create(at.join("grown")).unwrap();
    grown.write_all_at(b"grown", 0).unwrap();
    grown.set_len(90).unwrap();
    fs::write(at.join("plain"), noise(3 << 20, 1)).unwrap();
    fs::write(at.join("empty"), []).unwrap();
    let pieces = File::create(at.join("pieces")).unwrap();
    for n in 0..1500_u64 {
        pieces.write_all_at(&noise(1000, 3), n * 20_000).unwrap();
        if n % 100 == 0 {
            pieces.sync_all().unwrap();
        }
    }
    let mixed = File::create(at.join("mixed")).unwrap();
    mixed.write_all_at(&noise(100_000, 9), 300_000).unwrap();
    mixed.set_len(2_345_678).unwrap();
    let distant = File::create(at.join("far")).unwrap();
    distant.write_all_at(b"far away", far).unwrap();
    for length in [1, 58, 59, 60, 61, 300, 900, 1000] {
        let target = "x/".repeat(512);
        symlink(target.split_at(length).0, at.join(format!("link-{length}"))).unwrap();
    }
    fs::hard_link(at.join("plain"), at.join("another name")).unwrap();
    for (name, numbers) in [
        ("c", ["c", "5", "1"]),
        ("b", ["b", "259", "70000"]),
        ("b2", ["b", "8", "300"]),
    ] {
        let path = at.join(name);
        let path = path.to_str().unwrap();
        must("mknod", &[path, numbers[0], numbers[1], numbers[2]]);
    }
    must("mkfifo", &[at.join("pipe").to_str().unwrap()]);
    drop(UnixListener::bind(at.join("socket")).unwrap());
    must(
        "chown",
        &["1234:4000000000", at.join("empty").to_str().unwrap()],
    );
    must("chmod", &["7751", at.join("one").to_str().unwrap()]);
    for (name, seconds) in [
        ("empty", 4_000_000_000),
        ("mixed", 1),
        ("plain", 9_000_000_000),
    ] {
        let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, 123_456_789);
        let file = File::options().write(true).open(at.join(name)).unwrap();
        // Small inodes have no room for such times.
        let _ = file.set_modified(time);
    }
    let early = SystemTime::UNIX_EPOCH - Duration::new(1_000_000_000, 500);
    distant.set_modified(early).unwrap();
}

#[test]
fn the_kernel_sees_the_same_files() {
    for (options, files, far) in [
        ("-t ext4 -b 4096", 1500, 1 << 40),
        (
            "-t ext4 -b 1024 -I 256 -O metadata_csum,metadata_csum_seed",
            700,
            1 << 38,
        ),
        ("-t ext4 -O inline_data,^has_journal -I 512", 700, 1 << 40),
        ("-t ext3 -b 1024", 700, 1 << 33),
        (
            "-t ext4 -O bigalloc,meta_bg,^resize_inode -C 65536",
            700,
            1 << 40,
        ),
        ("-t ext2 -b 2048 -I 128", 700, 1 << 33),
        (
            "-t ext2 -b 4096 -O meta_bg,^resize_inode,sparse_super2",
            400,
            1 << 40,
        ),
        (
            "-t ext4 -b 1024 -g 1024 -O meta_bg,^resize_inode,^64bit",
            700,
            1 << 38,
        ),
    ]
    .into_iter()
    .take(if nightly() { 8 } else { 3 })
    {
        let image = Image::make("300M", options, None);
        let mount = image.mount("");
        populate(&mount.at, files, far);
        if options.starts_with("-t ext4") {
            let mixed = mount.at.join("mixed");
            must(
                "fallocate",
                &["-o", "100k", "-l", "1m", mixed.to_str().unwrap()],
            );
            let unwritten = mount.at.join("unwritten");
            must("fallocate", &["-l", "3m", unwritten.to_str().unwrap()]);
        }
        drop(mount);
        let disk = disk(&image.path);
        let tree = Files::open(&Volume::whole(&disk)).unwrap();
        let mount = image.mount("ro,noatime");
        let count = assert_same(&tree, tree.root(), &mount.at, true);
        assert!(count > files, "{options}");
        let of = |name: &[u8]| tree.lookup(tree.root(), name).unwrap().unwrap();
        assert_eq!(
            contents(&tree, of(b"far"), far - 3..far + 50),
            b"\0\0\0far away"
        );
        assert_eq!(tree.lookup(tree.root(), b"farther").unwrap(), None);
        let is_inline = matches!(
            tree.inode(of(b"small-59")).unwrap().contents,
            Contents::Inline(_)
        );
        assert_eq!(is_inline, options.contains("inline_data"), "{options}");
        let holes = holes(&tree, of(b"mixed"));
        assert!(holes > 2_000_000, "{options} {holes}");
        let kind = options.split(' ').nth(1).unwrap();
        let said = must("blkid", &["-p", "-o", "value", "-s", "TYPE", image.name()]);
        assert_eq!(tree.format(), said.trim());
        assert!(
            kind == tree.format() || options.contains("meta_bg"),
            "{kind}"
        );
    }
}

/// Bytes of a file that lie nowhere.
fn holes(tree: &dyn Tree, node: Node) -> u64 {
    let mut holes = 0;
    tree.read_file(node, 0..u64::MAX, &mut |piece| {
        if let Piece::Hole { length, .. } = piece {
            holes += length;
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    holes
}

#[test]
fn files_of_filesystems_that_no_kernel_here_mounts_are_those_that_were_put_in() {
    let sources = TempDir::new().unwrap();
    populate(sources.path(), 400, 1 << 32);
    for options in [
        "-t ext4 -O casefold -E encoding=utf8",
        "-t ext4 -b 65536 -I 1024",
        "-t ext4 -b 16384 -O large_dir,ea_inode,encrypt,verity,project,quota",
        "-t ext4 -O mmp,orphan_file,fast_commit,stable_inodes",
        "-t ext2 -b 1024 -O none -I 128",
        "-t ext2 -r 0 -b 1024",
        "-t ext4 -O ^filetype",
    ]
    .into_iter()
    .take(if nightly() { 7 } else { 3 })
    {
        let image = Image::make("400M", options, Some(sources.path()));
        let disk = disk(&image.path);
        let tree = Files::open(&Volume::whole(&disk)).unwrap();
        let count = assert_same(&tree, tree.root(), sources.path(), false);
        assert!(count > 400, "{options}");
        let of = |name: &[u8]| tree.lookup(tree.root(), name).unwrap().unwrap();
        assert_eq!(of(b"plain"), of(b"another name"));
        assert_eq!(tree.metadata(of(b"plain")).unwrap().links, 2);
    }
}

#[test]
fn ext4_view_sees_the_same_files() {
    let sources = TempDir::new().unwrap();
    populate(sources.path(), 400, 1 << 32);
    fs::remove_file(sources.path().join("far")).unwrap();
    // It reads no inode with a time that mke2fs writes like this.
    for name in ["empty", "mixed", "plain"] {
        must(
            "touch",
            &[
                "-d",
                "2024-01-01",
                sources.path().join(name).to_str().unwrap(),
            ],
        );
    }
    let image = Image::make("120M", "-t ext4", Some(sources.path()));
    let disk = disk(&image.path);
    let tree = Files::open(&Volume::whole(&disk)).unwrap();
    let bytes = fs::read(&image.path).unwrap();
    let other = ext4_view::Ext4::load(Box::new(bytes)).unwrap();
    let found = walk(&tree, tree.root());
    for (path, node) in &found {
        let metadata = tree.metadata(*node).unwrap();
        let theirs = other.symlink_metadata(path.as_str()).unwrap();
        assert_eq!(theirs.mode(), metadata.permissions, "{path}");
        assert_eq!((theirs.uid(), theirs.gid()), (metadata.uid, metadata.gid));
        let modified = metadata.modified.unwrap();
        assert_eq!(theirs.modified().seconds(), modified.seconds);
        match metadata.kind {
            FileKind::File => {
                let bytes = other.read(path.as_str()).unwrap();
                assert!(contents(&tree, *node, 0..u64::MAX) == bytes, "{path}");
            }
            FileKind::Directory => {
                let count = other.read_dir(path.as_str()).unwrap().count();
                // With itself and the one above.
                assert_eq!(names(&tree, *node).len() + 2, count, "{path}");
            }
            FileKind::Symlink => {
                let target = other.read_link(path.as_str()).unwrap();
                assert_eq!(target.as_ref(), tree.read_link(*node).unwrap());
            }
            _ => {}
        }
    }
    assert!(found.len() > 800);
}

/// A small image with some of everything.
fn sample(options: &str) -> Vec<u8> {
    let sources = TempDir::new().unwrap();
    let at = sources.path();
    for n in 0..60_usize {
        fs::create_dir_all(at.join(format!("{}", n % 4))).unwrap();
        fs::write(
            at.join(format!("{}/{n}-{}", n % 4, "n".repeat(n * 3))),
            noise(n * 40, 1),
        )
        .unwrap();
    }
    let pieces = File::create(at.join("pieces")).unwrap();
    for n in 0..200_u64 {
        pieces.write_all_at(&noise(1024, n), n * 4096).unwrap();
    }
    symlink("y".repeat(200), at.join("long")).unwrap();
    symlink("short", at.join("short")).unwrap();
    let image = Image::make("3M", options, Some(at));
    fs::read(&image.path).unwrap()
}

/// As if the journal held `newer`.
fn replayed<'a>(volume: &Volume<'a>, newer: BTreeMap<u64, Copy>) -> Result<Files<'a>, Refusal> {
    let first = volume.read_vec(superblock::PLACE, superblock::LENGTH)?;
    let superblock = Superblock::parse_readable(&first, volume.size())?;
    Ok(Files::new(volume, superblock, newer))
}

#[test]
fn the_journal_s_copies_are_what_is_read() {
    let bytes = sample("-t ext4 -b 1024 -N 200");
    let files = |bytes: Vec<u8>, newer: BTreeMap<u64, Copy>| {
        let disk = disk_of(bytes);
        let tree = replayed(&Volume::whole(&disk), newer).unwrap();
        let found = walk(&tree, tree.root());
        let read = |node: Node| {
            (tree.metadata(node).unwrap().kind == FileKind::File)
                .then(|| contents(&tree, node, 0..u64::MAX))
        };
        found
            .into_iter()
            .map(|(path, node)| (path, read(node)))
            .collect::<Vec<_>>()
    };
    let before = files(bytes.clone(), BTreeMap::new());
    // All blocks but that of the superblock's size are moved behind the end, and lost where they were.
    let mut moved = bytes.clone();
    let mut newer = BTreeMap::new();
    for block in 1..bytes.len() / 1024 {
        let old = &bytes[block * 1024..][..1024];
        if old.iter().all(|byte| *byte == 0) {
            continue;
        }
        let mut copy = old.to_vec();
        let escaped = copy[..4] == [0xc0, 0x3b, 0x39, 0x98];
        if escaped {
            copy[..4].fill(0);
        }
        let at = moved.len() as u64;
        newer.insert(block as u64, Copy { at, escaped });
        moved.extend_from_slice(&copy);
        if block > 1 {
            moved[block * 1024..][..1024].fill(0xee);
        }
    }
    assert!(files(moved, newer) == before);
    let mut dirty = bytes;
    dirty[1024 + 0x60] |= 4;
    let sum = crc32c(!0, &dirty[1024..1024 + 0x3fc]);
    dirty[1024 + 0x3fc..2048].copy_from_slice(&sum.to_le_bytes());
    let disk = disk_of(dirty);
    // An empty journal is soon replayed.
    let tree = Files::open(&Volume::whole(&disk)).unwrap();
    assert_eq!(walk(&tree, tree.root()).len(), before.len());
}

#[test]
fn a_feature_without_a_reader_is_named() {
    let bytes = sample("-t ext2 -b 1024 -N 200");
    for (bit, expected) in [
        (
            0x1,
            "ext4 has incompat features that are not read here: compression",
        ),
        (
            0x8,
            "jbd has incompat features that are not read here: journal_dev",
        ),
        (
            0x800_0000,
            "ext4 has incompat features that are not read here: 0x8000000",
        ),
    ] {
        let mut bytes = bytes.clone();
        let word = &mut bytes[1024 + 0x60..1024 + 0x64];
        let old = u32::from_le_bytes(word.try_into().unwrap());
        word.copy_from_slice(&(old | bit).to_le_bytes());
        let refusal = Files::open(&Volume::whole(&disk_of(bytes))).unwrap_err();
        assert_eq!(refusal.reason, expected);
        assert_eq!(refusal.kind, RefusalKind::Unsupported);
    }
}

#[test]
fn an_encrypted_inode_is_refused_and_a_damaged_one_fails_its_checksum() {
    let bytes = sample("-t ext4 -b 1024 -N 200");
    let disk = disk_of(bytes.clone());
    let tree = Files::open(&Volume::whole(&disk)).unwrap();
    let node = tree.lookup(tree.root(), b"pieces").unwrap().unwrap();
    let at = place::inode_at(&tree.superblock, &tree.blocks, node.0)
        .unwrap()
        .unwrap();
    let at = usize::try_from(at).unwrap();
    let mut damaged = bytes;
    damaged[at + 0x21] |= 0x08;
    let read = |bytes: &[u8]| {
        let disk = disk_of(bytes.to_vec());
        let tree = Files::open(&Volume::whole(&disk)).unwrap();
        tree.read_file(node, 0..1, &mut |_| ControlFlow::Continue(()))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        read(&damaged),
        format!("ext4 inode {} fails its checksum", node.0)
    );
    let seed = tree.inode(node).unwrap().seed.unwrap();
    damaged[at + 0x7c..at + 0x7e].fill(0);
    damaged[at + 0x82..at + 0x84].fill(0);
    let sum = crc32c(seed, &damaged[at..at + 256]).to_le_bytes();
    damaged[at + 0x7c..at + 0x7e].copy_from_slice(&sum[..2]);
    damaged[at + 0x82..at + 0x84].copy_from_slice(&sum[2..]);
    assert_eq!(
        read(&damaged),
        format!("ext4 inode {} is encrypted", node.0)
    );
}

#[test]
fn damage_of_any_kind_ends_without_a_panic() {
    for options in [
        "-t ext2 -b 1024 -N 200",
        "-t ext4 -b 1024 -N 200 -O ^metadata_csum,inline_data",
        "-t ext4 -b 1024 -N 200",
    ] {
        let bytes = sample(options);
        // Where something is, that damage is worth doing to.
        let used: Vec<usize> = (1024..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let rounds = if nightly() { 2000 } else { 60 };
        for (round, places) in noise(rounds * 64, 5).chunks(64).enumerate() {
            let mut bytes = bytes.clone();
            for place in places.chunks(4) {
                let place = u32::from_le_bytes(place.try_into().unwrap()) as usize;
                let at = used[place % if round % 2 == 0 { used.len() } else { 20_000 }];
                bytes[at] = bytes[at].wrapping_add(places[0] | 1);
            }
            let disk = disk_of(bytes);
            if let Ok(tree) = replayed(&Volume::whole(&disk), BTreeMap::new()) {
                survive(&tree);
            }
        }
    }
}
