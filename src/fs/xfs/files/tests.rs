#![expect(clippy::disallowed_types, reason = "tests write files for the kernel")]

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;
use crate::fs::tree::{Device, Timestamp};
use crate::fs::xfs::tests::{Image, must};

fn contents(tree: &dyn Tree, node: Node, range: Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let start = range.start;
    let size = tree.metadata(node).unwrap().size;
    tree.read_file(node, range.clone(), &mut |piece| {
        match piece {
            Piece::Data {
                offset,
                bytes: more,
            } => {
                assert_eq!(offset, start + bytes.len() as u64);
                bytes.extend_from_slice(more);
            }
            Piece::Hole { offset, length } => {
                assert_eq!(offset, start + bytes.len() as u64);
                bytes.resize(bytes.len() + usize::try_from(length).unwrap(), 0);
            }
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    let end = range.end.min(size);
    assert_eq!(bytes.len() as u64, end.saturating_sub(start));
    bytes
}

fn names(tree: &dyn Tree, node: Node) -> BTreeMap<OsString, (Node, Option<FileKind>)> {
    let mut names = BTreeMap::new();
    tree.read_dir(node, &mut |entry| {
        let name = OsString::from_vec(entry.name.to_vec());
        assert!(names.insert(name, (entry.node, entry.kind)).is_none());
        ControlFlow::Continue(())
    })
    .unwrap();
    names
}

/// Numbers of a device as the kernel gives them to programs.
fn device(number: u64) -> Device {
    Device {
        major: u32::try_from(number >> 8 & 0xfff | number >> 32 & 0xffff_f000).unwrap(),
        minor: u32::try_from(number & 0xff | number >> 12 & 0xffff_ff00).unwrap(),
    }
}

/// Compares everything below `path` with what the kernel says of it; how many names that were.
fn assert_same(tree: &dyn Tree, node: Node, path: &Path) -> usize {
    let metadata = tree.metadata(node).unwrap();
    let kernel = fs::symlink_metadata(path).unwrap();
    let mode = metadata.kind.mode_bits() | metadata.permissions;
    assert_eq!(u32::from(mode), kernel.mode(), "{path:?}");
    assert_eq!(
        (metadata.uid, metadata.gid),
        (kernel.uid(), kernel.gid()),
        "{path:?}"
    );
    assert_eq!(u64::from(metadata.links), kernel.nlink(), "{path:?}");
    assert_eq!(
        (metadata.inode, node.0),
        (kernel.ino(), kernel.ino()),
        "{path:?}"
    );
    let time = |seconds, nanoseconds: i64| {
        Some(Timestamp {
            seconds,
            nanoseconds: u32::try_from(nanoseconds).unwrap(),
        })
    };
    assert_eq!(
        metadata.modified,
        time(kernel.mtime(), kernel.mtime_nsec()),
        "{path:?}"
    );
    assert_eq!(
        metadata.changed,
        time(kernel.ctime(), kernel.ctime_nsec()),
        "{path:?}"
    );
    assert_eq!(
        metadata.accessed,
        time(kernel.atime(), kernel.atime_nsec()),
        "{path:?}"
    );
    if let Ok(born) = kernel.created() {
        let born = born.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let seconds = i64::try_from(born.as_secs()).unwrap();
        assert_eq!(
            metadata.created,
            time(seconds, i64::from(born.subsec_nanos())),
            "{path:?}"
        );
    }
    let mut count = 1;
    match metadata.kind {
        FileKind::Directory => {
            let found = names(tree, node);
            let mut expected = fs::read_dir(path).unwrap().count();
            for (name, (child, kind)) in found {
                let inner = path.join(&name);
                assert!(
                    fs::symlink_metadata(&inner).is_ok(),
                    "{inner:?} is not there"
                );
                count += assert_same(tree, child, &inner);
                assert_eq!(kind, Some(tree.metadata(child).unwrap().kind));
                expected -= 1;
            }
            assert_eq!(expected, 0, "{path:?}");
            assert_eq!(metadata.size, kernel.size());
        }
        FileKind::File => {
            assert_eq!(metadata.size, kernel.size(), "{path:?}");
            if metadata.size < 64 << 20 {
                let bytes = fs::read(path).unwrap();
                assert!(contents(tree, node, 0..u64::MAX) == bytes, "{path:?}");
                let middle = metadata.size / 2;
                let end = metadata.size.min(middle + 70_001);
                let range = usize::try_from(middle).unwrap()..usize::try_from(end).unwrap();
                assert!(
                    contents(tree, node, middle..end) == bytes[range],
                    "{path:?}"
                );
            }
        }
        FileKind::Symlink => {
            let target = fs::read_link(path).unwrap();
            assert_eq!(OsStr::from_bytes(&tree.read_link(node).unwrap()), target);
        }
        FileKind::CharDevice | FileKind::BlockDevice => {
            assert_eq!(metadata.device, Some(device(kernel.rdev())));
        }
        FileKind::Fifo | FileKind::Socket => assert_eq!(metadata.device, None),
    }
    count
}

/// One of everything that a filesystem can hold.
fn populate(at: &Path, files: usize) {
    let pattern = |length: usize, seed: usize| -> Vec<u8> {
        (0..length)
            .map(|n| ((n * 31 + seed * 17) % 251) as u8)
            .collect()
    };
    for n in 0..files {
        let directory = at.join(format!("tree/{}/{}", n % 7, n % 53));
        if n < 7 * 53 {
            fs::create_dir_all(&directory).unwrap();
        }
        fs::write(directory.join(format!("file-{n}")), pattern(n % 5000, n)).unwrap();
    }
    // From names in the inode up to a directory that is itself mapped by a tree.
    for (directory, names) in [
        ("one", 1),
        ("few", 5),
        ("block", 40),
        ("leaf", 600),
        ("huge", files),
    ] {
        let directory = at.join(directory);
        fs::create_dir(&directory).unwrap();
        for n in 0..names {
            File::create(directory.join(format!("{n}{}", "-long".repeat(n % 40)))).unwrap();
            if n % 64 == 0 {
                // Puts something between the blocks of the directory.
                fs::write(at.join(format!("between-{names}-{n}")), [1; 5000]).unwrap();
            }
        }
        // Leaves holes between names, and directories with holes.
        if names > 100 {
            for n in (0..names).filter(|n| n % 3 == 0 || (names / 4..names / 2).contains(n)) {
                fs::remove_file(directory.join(format!("{n}{}", "-long".repeat(n % 40)))).unwrap();
            }
        }
    }
    fs::write(at.join("plain"), pattern(3 << 20, 1)).unwrap();
    fs::write(at.join("empty"), []).unwrap();
    let pieces = File::create(at.join("pieces")).unwrap();
    for n in 0..1500_u64 {
        pieces.write_all_at(&pattern(1000, 3), n * 20_000).unwrap();
        if n % 100 == 0 {
            pieces.sync_all().unwrap();
        }
    }
    must(
        "fallocate",
        &["-l", "3m", at.join("unwritten").to_str().unwrap()],
    );
    let mixed = File::create(at.join("mixed")).unwrap();
    must(
        "fallocate",
        &["-l", "1m", at.join("mixed").to_str().unwrap()],
    );
    mixed.write_all_at(&pattern(100_000, 9), 300_000).unwrap();
    mixed.set_len(2_345_678).unwrap();
    let far = File::create(at.join("far")).unwrap();
    far.write_all_at(b"far away", 1 << 40).unwrap();
    for length in [1, 60, 300, 335, 336, 900, 1023] {
        symlink(
            "x/".repeat(512).split_at(length).0,
            at.join(format!("link-{length}")),
        )
        .unwrap();
    }
    symlink("/etc/os-release", at.join("link with attributes")).unwrap();
    // Attributes take room from the target, and push a long one out of the inode.
    for (name, length) in [
        ("link with attributes", 20),
        ("link-300", 200),
        ("empty", 900),
        ("one", 300),
    ] {
        let path = at.join(name);
        rustix::fs::lsetxattr(
            &path,
            "trusted.a",
            &pattern(length, 5),
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
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
    for (name, seconds) in [("empty", 4_000_000_000), ("mixed", 1)] {
        let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, 123_456_789);
        File::options()
            .write(true)
            .open(at.join(name))
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    let early = SystemTime::UNIX_EPOCH - Duration::new(1_000_000_000, 500);
    File::options()
        .write(true)
        .open(at.join("far"))
        .unwrap()
        .set_modified(early)
        .unwrap();
}

#[test]
fn the_kernel_sees_the_same_files() {
    for (options, files) in [
        ("-m bigtime=1 -i nrext64=1", 6000),
        (
            "-b size=1024 -m bigtime=0,inobtcount=0,reflink=0 -n size=4096",
            2500,
        ),
        ("-b size=2048 -i size=1024 -n size=16384", 4000),
        ("-s size=4096 -i size=2048", 1000),
    ] {
        let image = Image::make("400M", options);
        let mount = image.mount("");
        populate(&mount.at, files);
        mount.unmount();
        let disk = image.disk();
        let volume = Volume::whole(&disk);
        let tree = Files::open(&volume).unwrap();
        let mount = image.mount("ro,noatime");
        let count = assert_same(&tree, tree.root(), &mount.at);
        assert!(count > files);
        for (name, is_btree) in [("pieces", true), ("plain", false), ("huge", true)] {
            let node = tree.lookup(tree.root(), name.as_bytes()).unwrap().unwrap();
            let fork = tree.inode(node).unwrap().fork;
            let is_btree_here = matches!(fork, Fork::Btree(_));
            assert!(
                is_btree_here == is_btree || name == "huge" && files == 1000,
                "{options} {name}"
            );
        }
        for (name, is_local) in [
            ("one", true),
            ("block", false),
            ("link-60", true),
            ("link-900", false),
        ] {
            let node = tree.lookup(tree.root(), name.as_bytes()).unwrap().unwrap();
            let fork = tree.inode(node).unwrap().fork;
            // The last kind has room for all of them.
            let is_local = is_local || name == "link-900" && options.contains("-i size=2048");
            assert_eq!(matches!(fork, Fork::Local(_)), is_local, "{options} {name}");
        }
        let far = tree.lookup(tree.root(), b"far").unwrap().unwrap();
        assert_eq!(
            contents(&tree, far, (1 << 40) - 3..(1 << 40) + 50),
            b"\0\0\0far away"
        );
        assert_eq!(tree.lookup(tree.root(), b"farther").unwrap(), None);
        mount.unmount();
    }
}

#[test]
fn files_of_a_dirty_filesystem_are_what_is_on_the_disk() {
    let image = Image::make("400M", "");
    let mount = image.mount("");
    fs::write(mount.at.join("a"), "old").unwrap();
    mount.unmount();
    let mount = image.mount("");
    fs::write(mount.at.join("b"), "new").unwrap();
    must(
        "xfs_io",
        &["-x", "-c", "shutdown -f", mount.at.to_str().unwrap()],
    );
    mount.unmount();
    let disk = image.disk();
    assert!(disk.free_space().is_err());
    let volume = Volume::whole(&disk);
    let tree = Files::open(&volume).unwrap();
    let old = tree.lookup(tree.root(), b"a").unwrap().unwrap();
    assert_eq!(contents(&tree, old, 0..10), b"old");
}

/// The kernel does not mount version 4: what is in it comes from a prototype.
#[test]
fn files_of_v4_are_those_of_the_prototype() {
    use std::fmt::Write;
    for options in [
        "",
        "-b size=512 -i size=256 -n ftype=1",
        "-b size=1024 -n size=8192 -i attr=1",
        "-b size=512 -n ftype=0",
    ] {
        let sources = tempfile::TempDir::new().unwrap();
        let mut expected = HashMap::new();
        let mut prototype = "boot\n0 0\nd--755 3 4\n".to_owned();
        for n in 0..40_usize {
            let path = sources.path().join(format!("{n}"));
            let bytes: Vec<u8> = (0..n * n * 100).map(|at| (at % 253) as u8 + 1).collect();
            fs::write(&path, &bytes).unwrap();
            writeln!(
                prototype,
                "file{n} ---64{} {n} {} {}",
                n % 8,
                n * 2,
                path.display()
            )
            .unwrap();
            expected.insert(format!("file{n}"), bytes);
        }
        for (name, count) in [
            ("none", 0),
            ("short", 4),
            ("block", 20),
            ("leaf", 300),
            ("node", 6000),
        ] {
            writeln!(prototype, "{name} d--755 0 0").unwrap();
            for n in 0..count {
                writeln!(
                    prototype,
                    "{name}-with-a-longer-name-{n} ---600 0 0 /dev/null"
                )
                .unwrap();
            }
            prototype.push_str("$\n");
        }
        let long = "t".repeat(800);
        writeln!(prototype, "s l--777 0 0 short/target\nl l--777 0 0 {long}").unwrap();
        writeln!(
            prototype,
            "c c--620 0 5 4 64\nb b--660 0 6 200 300\np p--600 0 0\n$\n$"
        )
        .unwrap();
        let path = sources.path().join("prototype");
        fs::write(&path, &prototype).unwrap();
        let image = Image::make("160M", &format!("-m crc=0 {options} -p {}", path.display()));
        let disk = image.disk();
        let volume = Volume::whole(&disk);
        let tree = Files::open(&volume).unwrap();
        let found = names(&tree, tree.root());
        assert_eq!(found.len(), 40 + 5 + 5);
        let of = |name: &str| {
            let node = found.get(OsStr::new(name)).unwrap().0;
            (node, tree.metadata(node).unwrap())
        };
        for n in 0..40_usize {
            let (node, metadata) = of(&format!("file{n}"));
            assert_eq!(metadata.kind, FileKind::File);
            assert_eq!(usize::from(metadata.permissions), 0o640 + n % 8);
            assert_eq!(
                (metadata.uid as usize, metadata.gid as usize, metadata.links),
                (n, n * 2, 1)
            );
            assert!(contents(&tree, node, 0..u64::MAX) == expected[&format!("file{n}")]);
            let core = image.db(&format!("inode {}\np core.mtime.sec core.size\n", node.0));
            let time = fs::metadata(&path).unwrap().mtime();
            let modified = metadata.modified.unwrap();
            assert!((modified.seconds - time).abs() < 60, "{core}");
        }
        for (name, count) in [
            ("none", 0),
            ("short", 4),
            ("block", 20),
            ("leaf", 300),
            ("node", 6000),
        ] {
            let (node, metadata) = of(name);
            assert_eq!((metadata.kind, metadata.links), (FileKind::Directory, 2));
            let inner = names(&tree, node);
            assert_eq!(inner.len(), count, "{options} {name}");
            for n in 0..count {
                let name = format!("{name}-with-a-longer-name-{n}");
                let (node, kind) = inner[OsStr::new(&name)];
                assert_eq!(tree.metadata(node).unwrap().size, 0);
                assert_eq!(
                    kind,
                    (!options.contains("ftype=0")).then_some(FileKind::File)
                );
            }
        }
        assert_eq!(tree.read_link(of("s").0).unwrap(), b"short/target");
        assert_eq!(tree.read_link(of("l").0).unwrap(), long.as_bytes());
        assert_eq!(
            of("c").1.device,
            Some(Device {
                major: 4,
                minor: 64
            })
        );
        assert_eq!(
            of("b").1.device,
            Some(Device {
                major: 200,
                minor: 300
            })
        );
        assert_eq!(of("p").1.kind, FileKind::Fifo);
    }
}

/// What a copy keeps of a file, and must have from the kernel's own view of it.
fn kept(metadata: &fs::Metadata) -> impl PartialEq + std::fmt::Debug {
    let directory = metadata.is_dir();
    (
        (metadata.file_type(), metadata.mode() & 0o777),
        (metadata.mtime(), metadata.mtime_nsec()),
        // Comparing reads directories.
        (!directory).then(|| (metadata.atime(), metadata.atime_nsec())),
        (!directory).then(|| (metadata.size(), metadata.nlink())),
    )
}

/// Compares everything below `kernel` with its copy, its `contents` or all else; how many names that were.
fn assert_copied(kernel: &Path, copy: &Path, contents: bool) -> usize {
    let (expected, found) = (
        fs::symlink_metadata(kernel).unwrap(),
        fs::symlink_metadata(copy).unwrap(),
    );
    if !contents {
        assert_eq!(kept(&found), kept(&expected), "{copy:?}");
    }
    let mut count = 1;
    if expected.is_dir() {
        let mut left = fs::read_dir(copy).unwrap().count();
        for entry in fs::read_dir(kernel).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() || kind.is_file() || kind.is_symlink() {
                count += assert_copied(&entry.path(), &copy.join(entry.file_name()), contents);
                left -= 1;
            }
        }
        assert_eq!(left, 0, "{copy:?}");
    } else if expected.is_symlink() {
        let target = fs::read_link(copy).unwrap();
        assert_eq!(target, fs::read_link(kernel).unwrap());
    } else {
        // Of the host's file system nothing is asked but that holes take no room.
        assert!(found.blocks() <= expected.blocks() + 16, "{copy:?}");
        if contents && expected.size() < 64 << 20 {
            assert!(
                fs::read(copy).unwrap() == fs::read(kernel).unwrap(),
                "{copy:?}"
            );
        }
    }
    count
}

#[test]
fn a_copy_is_what_the_kernel_sees() {
    use std::sync::atomic::AtomicBool;

    use crate::extract::{ExtractRequest, extract};
    use crate::store::Sync;

    let image = Image::make("500m", "");
    let mount = image.mount("");
    populate(&mount.at, 1000);
    mount.unmount();

    let disk = image.disk();
    let tree = Files::open(&Volume::whole(&disk)).unwrap();
    let out = image.directory.path().join("out");
    let request = ExtractRequest {
        tree: &tree,
        node: tree.root(),
        metadata: tree.metadata(tree.root()).unwrap(),
        destination: &out,
        replace: false,
        sync: Sync::None,
    };
    let done = extract(&request, &AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_eq!((done.special, done.skipped), (5, 0), "{done:?}");
    assert_eq!(done.hard_links, 1);

    let mount = image.mount("ro,noatime");
    let count = assert_copied(&mount.at, &out, false);
    // Afterwards, because reading one name of a file changes the times of them all.
    assert_eq!(assert_copied(&mount.at, &out, true), count);
    mount.unmount();
    let copied = done.files + done.directories + done.symlinks + done.hard_links;
    assert_eq!(count as u64, copied);
    let inode = |name: &str| fs::metadata(out.join(name)).unwrap().ino();
    assert_eq!(inode("plain"), inode("another name"));
}
