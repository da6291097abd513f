#![expect(clippy::disallowed_types, reason = "tests write files for images")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::files::Files;
use super::*;
use crate::fs::tests::{contents, disk, disk_of, must, names, nightly, noise, survive, walk};
use crate::fs::tree::{FileKind, Node, Tree};

fn make(directory: &Path, tool: &[&str], options: &str, from: &Path) -> PathBuf {
    let path = directory.join("disk.iso");
    let _ = fs::remove_file(&path);
    let mut arguments = tool[1..].to_vec();
    arguments.extend(options.split_whitespace());
    arguments.extend([
        "-quiet",
        "-o",
        path.to_str().unwrap(),
        from.to_str().unwrap(),
    ]);
    must(tool[0], &arguments);
    path
}

const TOOLS: [&[&str]; 2] = [&["genisoimage"], &["xorriso", "-as", "mkisofs"]];

/// What a Unix has in its trees.
fn populate(at: &Path) {
    for n in 0..300_usize {
        let directory = at.join(format!("directory {}/Deeper-{}", n % 5, n % 9));
        fs::create_dir_all(&directory).unwrap();
        let name = format!("File {n} {}", "name".repeat(n % 50));
        fs::write(directory.join(name), noise(n * 37, n as u64)).unwrap();
    }
    fs::create_dir_all(at.join("one/two/three/four/five/six/seven/eight/nine/ten/eleven")).unwrap();
    fs::write(
        at.join("one/two/three/four/five/six/seven/eight/nine/ten/deep"),
        "deep",
    )
    .unwrap();
    fs::write(
        at.join("one/two/three/four/five/six/seven/deep too"),
        "deep too",
    )
    .unwrap();
    fs::write(at.join("empty"), "").unwrap();
    fs::write(at.join("Größe \u{4e2d}"), "unicode").unwrap();
    for (name, target) in [
        ("l1", "empty".to_owned()),
        ("l2", "/absolute/./path/../x".to_owned()),
        ("l3", "../..".to_owned()),
        ("l4", "x".repeat(200)),
        ("l6", "/".to_owned()),
        ("l7", ".".to_owned()),
    ] {
        symlink(target, at.join(name)).unwrap();
    }
    must("mknod", &[at.join("c").to_str().unwrap(), "c", "5", "1"]);
    must("mknod", &[at.join("b").to_str().unwrap(), "b", "8", "3"]);
    must("mkfifo", &[at.join("pipe").to_str().unwrap()]);
    must("chown", &["1234:70000", at.join("empty").to_str().unwrap()]);
    must("chmod", &["4751", at.join("empty").to_str().unwrap()]);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_234_567_890);
    let file = File::options().write(true).open(at.join("empty")).unwrap();
    file.set_modified(time).unwrap();
}

fn assert_same(tree: &dyn Tree, node: Node, path: &Path) -> usize {
    let metadata = tree.metadata(node).unwrap();
    let file = fs::symlink_metadata(path).unwrap();
    let mode = metadata.kind.mode_bits() | metadata.permissions;
    assert_eq!(u32::from(mode), file.mode(), "{path:?}");
    assert_eq!(
        (metadata.uid, metadata.gid),
        (file.uid(), file.gid()),
        "{path:?}"
    );
    let modified = metadata.modified.unwrap().seconds;
    assert_eq!(modified, file.mtime(), "{path:?}");
    let mut count = 1;
    match metadata.kind {
        FileKind::Directory => {
            let mut expected = fs::read_dir(path).unwrap().count();
            for (name, (child, _)) in names(tree, node) {
                // Where directories that lay too deep were moved from.
                if name == b"rr_moved" {
                    assert!(names(tree, child).is_empty());
                    continue;
                }
                count += assert_same(tree, child, &path.join(OsStr::from_bytes(&name)));
                expected -= 1;
            }
            assert_eq!(expected, 0, "{path:?}");
        }
        FileKind::File => {
            assert!(
                contents(tree, node, 0..u64::MAX) == fs::read(path).unwrap(),
                "{path:?}"
            );
        }
        FileKind::Symlink => {
            let target = tree.read_link(node).unwrap();
            assert_eq!(
                OsStr::from_bytes(&target),
                fs::read_link(path).unwrap(),
                "{path:?}"
            );
            assert_eq!(metadata.size, target.len() as u64);
        }
        FileKind::CharDevice | FileKind::BlockDevice => {
            let device = metadata.device.unwrap();
            assert_eq!(u64::from(device.major << 8 | device.minor), file.rdev());
        }
        FileKind::Fifo | FileKind::Socket => {}
    }
    count
}

#[test]
fn rock_ridge_holds_what_was_put_in() {
    let sources = TempDir::new().unwrap();
    let at = sources.path().join("root");
    fs::create_dir(&at).unwrap();
    populate(&at);
    for tool in TOOLS {
        if tool[0] == "xorriso" {
            // genisoimage does not come to an end with it.
            symlink("component/".repeat(90) + "end", at.join("l5")).unwrap();
        }
        for options in ["-R", "-R -J -joliet-long", "-R -V label"] {
            let path = make(sources.path(), tool, options, &at);
            let disk = disk(&path);
            let volume = Volume::whole(&disk);
            let tree = Files::open(&volume).unwrap();
            let count = assert_same(&tree, tree.root(), &at);
            assert!(count > 350, "{tool:?} {options}");
        }
    }
}

#[test]
fn joliet_and_plain_names_are_as_linux_shows_them() {
    let sources = TempDir::new().unwrap();
    let at = sources.path().join("root");
    fs::create_dir_all(at.join("Sub directory")).unwrap();
    let mut expected = BTreeMap::new();
    for n in 0..60_usize {
        let name = format!("Long Name {n}.größe{}", "x".repeat(n % 40));
        let bytes = noise(n * 100, n as u64);
        fs::write(at.join("Sub directory").join(&name), &bytes).unwrap();
        expected.insert(format!("/Sub directory/{name}"), bytes);
    }
    for tool in TOOLS {
        let options = if tool[0] == "xorriso" {
            "--norock -J"
        } else {
            "-J"
        };
        let path = make(sources.path(), tool, options, &at);
        let disk = disk(&path);
        let tree = Files::open(&Volume::whole(&disk)).unwrap();
        let found = walk(&tree, tree.root());
        assert_eq!(found.len(), expected.len() + 1);
        for (path, bytes) in &expected {
            assert!(
                contents(&tree, found[path], 0..u64::MAX) == *bytes,
                "{path}"
            );
            let metadata = tree.metadata(found[path]).unwrap();
            assert_eq!((metadata.permissions, metadata.uid), (0o555, 0));
        }
    }
    let at = sources.path().join("plain");
    fs::create_dir_all(at.join("SUB")).unwrap();
    for (name, bytes) in [("A.TXT", "a"), ("NODOT", "b"), ("SUB/FILE.C", "c")] {
        fs::write(at.join(name), bytes).unwrap();
    }
    for tool in TOOLS {
        let options = if tool[0] == "xorriso" {
            "--norock -iso-level 1"
        } else {
            "-iso-level 1"
        };
        let path = make(sources.path(), tool, options, &at);
        let disk = disk(&path);
        let tree = Files::open(&Volume::whole(&disk)).unwrap();
        let found = walk(&tree, tree.root());
        let paths: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(paths, ["/a.txt", "/nodot", "/sub", "/sub/file.c"]);
        assert_eq!(contents(&tree, found["/sub/file.c"], 0..9), b"c");
    }
}

#[test]
fn a_file_of_several_records_is_one_file() {
    let sources = TempDir::new().unwrap();
    let at = sources.path().join("root");
    fs::create_dir(&at).unwrap();
    let (first, second) = (noise(4096, 1), noise(3000, 2));
    fs::write(at.join("A.TXT"), &first).unwrap();
    fs::write(at.join("B.TXT"), &second).unwrap();
    fs::write(at.join("C.TXT"), "c").unwrap();
    let path = make(sources.path(), TOOLS[0], "-iso-level 1", &at);
    let mut bytes = fs::read(&path).unwrap();
    let place = bytes
        .windows(7)
        .position(|name| name == b"A.TXT;1")
        .unwrap();
    bytes[place - 33 + 25] |= 0x80;
    let disk = disk_of(bytes);
    let tree = Files::open(&Volume::whole(&disk)).unwrap();
    let found = walk(&tree, tree.root());
    assert_eq!(found.keys().collect::<Vec<_>>(), ["/a.txt", "/c.txt"]);
    let whole = [first, second].concat();
    assert!(contents(&tree, found["/a.txt"], 0..u64::MAX) == whole);
    assert!(contents(&tree, found["/a.txt"], 4000..5000) == whole[4000..5000]);
}

#[test]
fn blkid_reads_the_same_names_of_the_volume() {
    let sources = TempDir::new().unwrap();
    let at = sources.path().join("root");
    fs::create_dir(&at).unwrap();
    fs::write(at.join("user-data"), "#cloud-config\n").unwrap();
    for tool in TOOLS {
        for options in [
            "-R -J -V cidata",
            "-V CIDATA",
            "-J -V Mixed_case_of_letters",
            "-R",
        ] {
            let path = make(sources.path(), tool, options, &at);
            let disk = disk(&path);
            let volume = Volume::whole(&disk);
            let identity = identify(&volume).unwrap().unwrap();
            let said = must("blkid", &["-p", "-o", "export", path.to_str().unwrap()]);
            let value = |key: &str| {
                let line = said.lines().find_map(|line| line.strip_prefix(key));
                line.map(|line| line.replace('\\', ""))
            };
            assert_eq!(identity.label, value("LABEL="), "{tool:?} {options}");
            assert_eq!(identity.uuid, value("UUID="), "{tool:?} {options}");
            assert_eq!(identity.version, value("VERSION="), "{tool:?} {options}");
            assert_eq!(Some(identity.kind.to_owned()), value("TYPE="));
            assert_eq!(identity.block_size, Some(2048));
            assert!(identity.size.unwrap() <= fs::metadata(&path).unwrap().len());
            assert!(free_space(&volume, &FreeOptions::default()).is_err());
        }
    }
    assert_eq!(
        identify(&Volume::whole(&disk_of(noise(70_000, 3)))).unwrap(),
        None
    );
}

#[test]
fn damage_of_any_kind_ends_without_a_panic() {
    let sources = TempDir::new().unwrap();
    let at = sources.path().join("root");
    fs::create_dir(&at).unwrap();
    populate(&at);
    fs::remove_dir_all(at.join("directory 1")).unwrap();
    for options in ["-R", "-J", ""] {
        let path = make(sources.path(), TOOLS[0], options, &at);
        let bytes = fs::read(&path).unwrap();
        let used: Vec<usize> = (32768..bytes.len())
            .filter(|at| bytes[*at] != 0)
            .take(150_000)
            .collect();
        let rounds = if nightly() { 1000 } else { 60 };
        for places in noise(rounds * 128, 5).chunks(128) {
            let mut bytes = bytes.clone();
            for place in places.chunks(4) {
                let place = u32::from_le_bytes(place.try_into().unwrap()) as usize;
                let at = used[place % used.len()];
                bytes[at] = bytes[at].wrapping_add(places[0] | 1);
            }
            let disk = disk_of(bytes);
            let volume = Volume::whole(&disk);
            let _ = identify(&volume).unwrap();
            if let Ok(tree) = Files::open(&volume) {
                survive(&tree);
            }
        }
    }
}

#[test]
fn fields_that_go_on_in_a_circle_end() {
    let sources = TempDir::new().unwrap();
    let at = sources.path().join("root");
    fs::create_dir(&at).unwrap();
    symlink("component/".repeat(90), at.join("link")).unwrap();
    let path = make(sources.path(), TOOLS[1], "-R", &at);
    let mut bytes = fs::read(&path).unwrap();
    let place = bytes
        .windows(4)
        .rposition(|name| name == b"CE\x1c\x01")
        .unwrap();
    // Where it lies itself.
    let (block, offset) = (place / 2048, place % 2048);
    bytes[place + 4..place + 8].copy_from_slice(&u32::try_from(block).unwrap().to_le_bytes());
    bytes[place + 12..place + 16].copy_from_slice(&u32::try_from(offset).unwrap().to_le_bytes());
    let disk = disk_of(bytes);
    let tree = Files::open(&Volume::whole(&disk)).unwrap();
    let mut count = 0;
    let result = tree.read_dir(tree.root(), &mut |_| {
        count += 1;
        ControlFlow::Continue(())
    });
    let error = result.unwrap_err().to_string();
    assert_eq!(
        (count, error.as_str()),
        (0, "iso9660 record goes on without an end")
    );
}
