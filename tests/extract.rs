//! What comes out of a guest is whole, true, and never outside of its destination, whatever the guest holds.

mod mock_guest;
mod patterns;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use mock_guest::{Content, Guest, Part, TIME};
use patterns::Random;
use qimg::extract::{ExtractProgress, ExtractRequest, Extracted, extract};
use qimg::fs::tree::{FileKind, Node, Tree};
use qimg::store::{HostFile, Locking, ReadAt, Sync};
use qimg::{ErrorKind, Result};
use tempfile::TempDir;

/// A directory to copy to, with something beside it that must never change.
struct Host {
    scratch: TempDir,
    before: BTreeMap<PathBuf, String>,
}

impl Host {
    fn new() -> Self {
        let scratch = TempDir::new().unwrap();
        let victim = scratch.path().join("victim");
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("secret"), "untouched").unwrap();
        fs::create_dir(scratch.path().join("to")).unwrap();
        let mut host = Self {
            scratch,
            before: BTreeMap::new(),
        };
        host.before = host.outside();
        host
    }

    fn to(&self) -> PathBuf {
        self.scratch.path().join("to")
    }

    fn out(&self) -> PathBuf {
        self.to().join("out")
    }

    fn victim(&self) -> PathBuf {
        self.scratch.path().join("victim")
    }

    /// Everything that is not in the destination's directory.
    fn outside(&self) -> BTreeMap<PathBuf, String> {
        assert_eq!(names(self.scratch.path()), ["to", "victim"]);
        listed(&self.victim())
    }

    /// Nothing outside of `out` has changed.
    fn assert_confined(&self) {
        assert_eq!(self.outside(), self.before);
        let others: Vec<_> = names(&self.to())
            .into_iter()
            .filter(|name| name != "out")
            .collect();
        assert!(others.is_empty(), "{others:?}");
    }

    fn copy(&self, guest: &Guest, node: Node) -> Result<Extracted> {
        self.copy_with(guest, node, false, &AtomicBool::new(false), &mut |_| {})
    }

    fn copy_with(
        &self,
        guest: &Guest,
        node: Node,
        replace: bool,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(ExtractProgress),
    ) -> Result<Extracted> {
        let request = ExtractRequest {
            tree: guest,
            node,
            metadata: guest.metadata(node)?,
            destination: &self.out(),
            replace,
            sync: Sync::None,
        };
        extract(&request, cancel, progress)
    }

    fn assert_nothing_left(&self) {
        assert_eq!(names(&self.to()), Vec::<String>::new());
        self.assert_confined();
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// What is at each path below `directory`: kind, mode, contents.
fn listed(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let what = if metadata.is_dir() {
                waiting.push(path.clone());
                String::from("directory")
            } else if metadata.is_symlink() {
                format!("-> {:?}", fs::read_link(&path).unwrap())
            } else {
                format!("{:?}", fs::read(&path).unwrap())
            };
            all.insert(path, format!("{:o} {what}", metadata.mode()));
        }
    }
    all
}

fn reasons(done: &Extracted) -> Vec<(&str, &str)> {
    let list = done.skipped_names.iter();
    list.map(|skipped| (skipped.path.as_str(), skipped.reason.as_str()))
        .collect()
}

fn assert_times(path: &Path) {
    let metadata = fs::symlink_metadata(path).unwrap();
    assert_eq!(
        (metadata.mtime(), metadata.mtime_nsec()),
        (TIME.seconds, TIME.nanoseconds.into()),
        "{path:?}"
    );
    // Reading it, as this test does, may have changed the time of a directory's last reading.
    if !metadata.is_dir() {
        assert_eq!(
            (metadata.atime(), metadata.atime_nsec()),
            (TIME.seconds + 7, 1),
            "{path:?}"
        );
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn everything_that_a_file_has_comes_along() {
    let mut guest = Guest::new();
    let root = guest.root();
    guest.metadata_mut(root).permissions = 0o751;
    let plain = guest.file(root, "plain", "text");
    guest.metadata_mut(plain).permissions = 0o6754;
    let sticky = guest.directory(root, "sticky");
    guest.metadata_mut(sticky).permissions = 0o1777;
    guest.file(sticky, "inside", "");
    let closed = guest.directory(root, "closed");
    guest.metadata_mut(closed).permissions = 0o000;
    let below = guest.directory(closed, "below");
    guest.metadata_mut(below).permissions = 0o555;
    let first = guest.file(below, "first", "shared");
    guest.metadata_mut(first).links = 3;
    guest.name(below, "second", first);
    guest.name(root, "third", first);
    guest.symlink(root, "relative", "sticky/inside");
    guest.symlink(root, "dangling", "/nowhere/\u{1}");
    guest.parts(
        root,
        "sparse",
        &[
            Part::Hole(1 << 30),
            Part::Data(b"island".to_vec()),
            Part::Hole((1 << 30) - 6),
        ],
    );
    for kind in [FileKind::Fifo, FileKind::CharDevice, FileKind::Socket] {
        let node = guest.node(kind, 0o666, Content::Special);
        guest.name(root, format!("{kind:?}"), node);
    }
    guest.name(root, b"\xff\xfe not text\n", plain);

    let host = Host::new();
    let done = host.copy(&guest, root).unwrap();

    let out = host.out();
    assert_eq!(
        (done.files, done.directories, done.symlinks, done.hard_links),
        (5, 4, 2, 2)
    );
    assert_eq!((done.special, done.skipped), (3, 0));
    assert_eq!(
        (done.bytes, done.hole_bytes),
        (4 + 4 + 6 + 6, (2 << 30) - 6)
    );
    assert_eq!(names(&out).len(), 8);
    for (name, expected) in [
        ("", 0o751),
        ("plain", 0o754),
        ("sticky", 0o777),
        ("sticky/inside", 0o644),
        ("relative", 0o777),
        ("dangling", 0o777),
        ("sparse", 0o644),
        ("closed", 0),
        ("closed/below", 0o555),
        ("closed/below/first", 0o644),
    ] {
        let path = out.join(name);
        assert_eq!(mode(&path), expected, "{name}");
        assert_times(&path);
        if expected == 0 {
            // So that others than root can look into it.
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        }
    }
    assert_eq!(fs::read(out.join("plain")).unwrap(), b"text");
    assert_eq!(
        fs::read(out.join(OsStr::from_bytes(b"\xff\xfe not text\n"))).unwrap(),
        b"text"
    );
    let inode = |name: &str| fs::metadata(out.join(name)).unwrap().ino();
    assert_eq!(inode("third"), inode("closed/below/first"));
    assert_eq!(inode("third"), inode("closed/below/second"));
    assert_eq!(
        fs::read_link(out.join("dangling")).unwrap(),
        Path::new("/nowhere/\u{1}")
    );
    let sparse = fs::metadata(out.join("sparse")).unwrap();
    assert_eq!(sparse.len(), 2 << 30);
    assert!(sparse.blocks() * 512 <= 64 << 10, "{}", sparse.blocks());
    let store = HostFile::open_read(out.join("sparse"), Locking::Ignore).unwrap();
    let mut bytes = [1; 16];
    store.read_exact_at(&mut bytes, (1 << 30) - 5).unwrap();
    assert_eq!(&bytes, b"\0\0\0\0\0island\0\0\0\0\0");
    host.assert_confined();
    fs::set_permissions(out.join("closed/below"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_single_file_comes_whole() {
    let mut guest = Guest::new();
    let root = guest.root();
    let mut random = Random(1);
    let bytes = [random.text(50_000), random.noise(50_000)].concat();
    let parts = [Part::Data(bytes.clone()), Part::Hole(1 << 20)];
    let node = guest.parts(root, "ignored", &parts);
    guest.metadata_mut(node).permissions = 0o4711;
    let host = Host::new();
    let mut last = None;
    let never = AtomicBool::new(false);
    let done = host
        .copy_with(&guest, node, false, &never, &mut |step| last = Some(step))
        .unwrap();
    assert_eq!(
        (done.files, done.bytes, done.hole_bytes),
        (1, 100_000, 1 << 20)
    );
    let size = 100_000 + (1 << 20);
    let last = last.unwrap();
    assert_eq!((last.bytes, last.total), (size, Some(size)));
    let metadata = fs::metadata(host.out()).unwrap();
    assert_eq!((metadata.len(), metadata.mode() & 0o7777), (size, 0o711));
    assert_times(&host.out());
    let copied = fs::read(host.out()).unwrap();
    assert!(copied.starts_with(&bytes) && copied[100_000..].iter().all(|&byte| byte == 0));
    host.assert_confined();
}

#[test]
fn no_name_leads_out() {
    let mut guest = Guest::new();
    let root = guest.root();
    let victim = Host::new();
    let absolute = victim.victim().join("made").to_str().unwrap().to_owned();
    let hostile: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b".".to_vec(),
        b"..".to_vec(),
        b"../victim/made".to_vec(),
        b"../../victim/made".to_vec(),
        absolute.clone().into_bytes(),
        b"/".to_vec(),
        b"inner/".to_vec(),
        b"inner/..".to_vec(),
        b"inner/made".to_vec(),
        b"nul\0".to_vec(),
        b"\0".to_vec(),
        vec![b'x'; 256],
        vec![b'x'; 70_000],
    ];
    guest.directory(root, "inner");
    for name in &hostile {
        let directory = guest.directory(root, name);
        guest.file(directory, "made", "evil");
        guest.file(directory, "secret", "evil");
        guest.file(root, name, "evil");
        guest.symlink(root, name, "evil");
        let linked = guest.file(root, name, "evil");
        guest.metadata_mut(linked).links = 2;
    }
    let linked = guest.file(root, "linked", "harmless");
    guest.metadata_mut(linked).links = 100;
    for name in &hostile {
        guest.name(root, name, linked);
    }
    guest.file(root, "last", "harmless");

    let done = victim.copy(&guest, root).unwrap();
    assert_eq!(done.skipped, hostile.len() as u64 * 5);
    assert_eq!((done.files, done.directories), (2, 2));
    assert_eq!(names(&victim.out()), ["inner", "last", "linked"]);
    assert!(names(&victim.out().join("inner")).is_empty());
    victim.assert_confined();
    let longest = done.skipped_names.iter().map(|skipped| skipped.path.len());
    assert!(longest.max().unwrap() < 5000);
}

#[test]
fn no_link_made_before_leads_out() {
    let host = Host::new();
    let victim = host.victim();
    let mut guest = Guest::new();
    let root = guest.root();
    for (name, target) in [
        ("absolute", victim.to_str().unwrap()),
        ("up", "../../victim"),
    ] {
        guest.symlink(root, name, target);
        let directory = guest.directory(root, name);
        guest.file(directory, "secret", "evil");
        guest.file(directory, "made", "evil");
    }
    // A link to a file, and then a file of that name.
    let secret = victim.join("secret");
    guest.symlink(root, "file", secret.to_str().unwrap());
    guest.file(root, "file", "evil");
    guest.symlink(root, "absent", victim.join("made").to_str().unwrap());
    guest.file(root, "absent", "evil");
    // Another name for a link, and a name that was a link when its file was linked.
    let linked = guest.file(root, "file", "evil");
    guest.metadata_mut(linked).links = 9;
    guest.name(root, "other", linked);
    guest.name(root, "absent", linked);

    let done = host.copy(&guest, root).unwrap();
    host.assert_confined();
    assert_eq!(
        names(&host.out()),
        ["absent", "absolute", "file", "other", "up"]
    );
    assert_eq!(done.symlinks, 4);
    assert_eq!(done.skipped, 6);
    assert!(
        reasons(&done)
            .iter()
            .all(|(_, why)| why.contains("has that name"))
    );
    assert!(
        fs::symlink_metadata(host.out().join("file"))
            .unwrap()
            .is_symlink()
    );
}

#[test]
fn of_one_name_twice_the_first_stays() {
    let mut guest = Guest::new();
    let root = guest.root();
    guest.file(root, "twice", "first");
    guest.file(root, "twice", "second");
    let directory = guest.directory(root, "both");
    guest.file(directory, "inside", "first");
    let other = guest.directory(root, "both");
    guest.file(other, "inside", "second");
    guest.file(other, "more", "second");
    guest.symlink(root, "both", "/");
    guest.symlink(root, "twice", "/");
    let host = Host::new();
    let done = host.copy(&guest, root).unwrap();
    assert_eq!(done.skipped, 4);
    assert_eq!(fs::read(host.out().join("twice")).unwrap(), b"first");
    assert_eq!(names(&host.out().join("both")), ["inside"]);
    assert_eq!(fs::read(host.out().join("both/inside")).unwrap(), b"first");
    host.assert_confined();
}

#[test]
fn directories_with_two_names_or_within_themselves_are_entered_once() {
    let mut guest = Guest::new();
    let root = guest.root();
    let a = guest.directory(root, "a");
    let b = guest.directory(a, "b");
    for (name, node) in [("self", b), ("above", a), ("root", root)] {
        guest.name(b, name, node);
    }
    guest.name(root, "again", b);
    guest.file(b, "file", "once");
    let host = Host::new();
    let done = host.copy(&guest, root).unwrap();
    assert_eq!((done.directories, done.files, done.skipped), (3, 1, 4));
    assert_eq!(
        reasons(&done)[0],
        (
            "a/b/self",
            "the directory has another name, or contains itself"
        )
    );
    assert_eq!(names(&host.out().join("a/b")), ["file"]);
    host.assert_confined();
}

#[test]
fn depth_and_breadth_take_no_stack_and_few_descriptors() {
    let mut guest = Guest::new();
    let root = guest.root();
    // Deeper than descriptors may be open, with paths longer than the kernel takes.
    let mut here = root;
    let name = "n".repeat(200);
    let shared = guest.file(root, "shared", "x");
    guest.metadata_mut(shared).links = 100_000;
    for depth in 0..3000 {
        here = guest.directory(here, &name);
        guest.metadata_mut(here).permissions = if depth % 3 == 0 { 0o500 } else { 0o755 };
        if depth % 100 == 0 {
            let linked = guest.file(here, "early", "y");
            guest.metadata_mut(linked).links = 2;
            guest.name(root, format!("late-{depth}"), linked);
            guest.name(here, "shared", shared);
        }
    }
    for n in 0..1000 {
        guest.directory(root, format!("d{n}"));
    }
    for cancelled in [false, true] {
        let host = Host::new();
        let cancel = AtomicBool::new(false);
        let result = host.copy_with(&guest, root, false, &cancel, &mut |step| {
            if cancelled && step.names > 3000 {
                cancel.store(true, Ordering::Relaxed);
            }
        });
        if cancelled {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
            host.assert_nothing_left();
            continue;
        }
        let done = result.unwrap();
        assert_eq!(done.skipped, 1, "{:?}", done.skipped_names.len());
        assert_eq!(done.directories, 1 + 2047 + 1000);
        assert_eq!((done.files, done.hard_links), (1 + 21 + 9, 21 + 21));
        assert!(done.skipped_names[0].path.len() < 5000);
        let linked = fs::metadata(host.out().join("late-0")).unwrap();
        assert_eq!(linked.nlink(), 2);
        // The scratch directory's own way of removing may not go that deep.
        for command in [["chmod", "-R", "u+w"], ["rm", "-r", "-f"]] {
            let mut run = Command::new(command[0]);
            let status = run.args(&command[1..]).arg(host.out()).status();
            assert!(status.unwrap().success());
        }
        host.assert_nothing_left();
    }
}

#[test]
fn what_cannot_be_read_is_reported_and_the_rest_comes() {
    let mut guest = Guest::new();
    let root = guest.root();
    let directory = guest.directory(root, "directory");
    guest.file(directory, "before", "fine");
    guest.parts(directory, "bad", &[Part::Data(vec![1; 9000]), Part::Bad]);
    guest.parts(
        directory,
        "gap",
        &[Part::Data(vec![1; 10]), Part::Elsewhere(20, vec![2; 10])],
    );
    guest.parts(
        directory,
        "early",
        &[Part::Elsewhere(u64::MAX, vec![2; 10])],
    );
    let short = guest.file(directory, "short", "four");
    guest.metadata_mut(short).size = 5;
    let long = guest.file(directory, "long", "four");
    guest.metadata_mut(long).size = 3;
    for (name, size) in [("huge", u64::MAX), ("large", i64::MAX as u64)] {
        guest.parts(directory, name, &[Part::Hole(size)]);
    }
    let broken = guest.node(FileKind::File, 0o644, Content::Broken);
    guest.name(directory, "broken", broken);
    guest.name(directory, "nothing", Node(u64::MAX));
    let cut = guest.node(
        FileKind::Directory,
        0o755,
        Content::CutDirectory(Vec::new()),
    );
    guest.name(root, "cut", cut);
    guest.file(cut, "found", "fine");
    guest.symlink(root, "empty target", "");
    guest.symlink(root, "nul target", "a\0b");
    guest.symlink(root, "long target", &"x".repeat(5000));
    let odd = guest.file(root, "odd times", "");
    let metadata = guest.metadata_mut(odd);
    metadata.modified = Some(qimg::fs::tree::Timestamp {
        seconds: i64::MIN,
        nanoseconds: u32::MAX,
    });
    metadata.permissions = u16::MAX;
    guest.file(root, "last", "fine");
    let host = Host::new();
    let done = host.copy(&guest, root).unwrap();
    let out = host.out();
    assert_eq!(names(&out), ["cut", "directory", "last", "odd times"]);
    assert_eq!(names(&out.join("cut")), ["found"]);
    let kept = names(&out.join("directory"));
    // Some file systems do hold files of eight exbibytes.
    assert!(
        kept == ["before"] || kept == ["before", "large"],
        "{kept:?}"
    );
    assert_eq!(mode(&out.join("odd times")), 0o777);
    let reasons = reasons(&done);
    for (path, why) in [
        ("directory/bad", "a block is damaged: bad checksum"),
        ("directory/gap", "do not fit the file"),
        ("directory/early", "do not fit the file"),
        ("directory/short", "end before the file does"),
        ("directory/long", "do not fit the file"),
        ("directory/huge", "File too large"),
        ("directory/broken", "a block is damaged"),
        ("directory/nothing", "a block is damaged"),
        ("cut", "a block is damaged"),
        ("empty target", "empty or holds a NUL"),
        ("nul target", "empty or holds a NUL"),
        ("long target", "File name too long"),
    ] {
        assert!(
            reasons
                .iter()
                .any(|(at, reason)| *at == path && reason.contains(why)),
            "{path}: {reasons:?}"
        );
    }
    host.assert_confined();

    // By itself each of them leaves nothing, and what was there.
    for node in [short, long] {
        let host = Host::new();
        assert_eq!(
            host.copy(&guest, node).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        host.assert_nothing_left();
        fs::write(host.out(), "old").unwrap();
        let never = AtomicBool::new(false);
        let failed = host.copy_with(&guest, node, true, &never, &mut |_| {});
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(fs::read(host.out()).unwrap(), b"old");
        host.assert_confined();
    }
}

#[test]
fn lists_are_bounded_and_counts_are_not() {
    let mut guest = Guest::new();
    let root = guest.root();
    for n in 0..1000 {
        guest.file(root, format!("a/{n}"), "");
    }
    let host = Host::new();
    let done = host.copy(&guest, root).unwrap();
    assert_eq!(done.skipped, 1000);
    assert_eq!(done.skipped_names.len(), qimg::extract::MOST_LISTED);
}

#[test]
fn cancelled_at_any_step_it_leaves_nothing() {
    let mut guest = Guest::new();
    let root = guest.root();
    let a = guest.directory(root, "a");
    guest.metadata_mut(a).permissions = 0;
    let b = guest.directory(a, "b");
    guest.metadata_mut(b).permissions = 0o400;
    let parts = vec![Part::Data(vec![1; 1 << 16]); 4];
    let file = guest.parts(b, "file", &parts);
    guest.symlink(b, "link", "/");
    guest.parts(root, "file", &parts);
    for node in [root, file] {
        let mut cancelled = 0;
        for at in 0.. {
            let host = Host::new();
            let cancel = AtomicBool::new(at == 0);
            let mut steps = 0;
            let result = host.copy_with(&guest, node, false, &cancel, &mut |_| {
                steps += 1;
                if steps == at {
                    cancel.store(true, Ordering::Relaxed);
                }
                assert!(at == 0 || steps <= at, "it went on");
            });
            match result {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Cancelled);
                    host.assert_nothing_left();
                    cancelled += 1;
                }
                Ok(_) => break,
            }
        }
        assert!(cancelled >= 4, "{cancelled}");
    }
}

#[test]
fn what_is_at_the_destination_stays_unless_it_is_a_file_to_be_replaced() {
    let mut guest = Guest::new();
    let root = guest.root();
    let file = guest.file(root, "file", "new");
    let never = AtomicBool::new(false);

    let host = Host::new();
    fs::write(host.out(), "old").unwrap();
    let error = host.copy(&guest, file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(error.remedy(), Some("replace it with --force"));
    assert_eq!(fs::read(host.out()).unwrap(), b"old");
    assert_eq!(
        host.copy(&guest, root).unwrap_err().kind(),
        ErrorKind::Refused
    );
    host.copy_with(&guest, file, true, &never, &mut |_| {})
        .unwrap();
    assert_eq!(fs::read(host.out()).unwrap(), b"new");
    host.assert_confined();

    // A link is replaced itself, never what it names.
    let host = Host::new();
    symlink(host.victim().join("secret"), host.out()).unwrap();
    assert_eq!(
        host.copy(&guest, file).unwrap_err().kind(),
        ErrorKind::Refused
    );
    assert_eq!(
        host.copy(&guest, root).unwrap_err().kind(),
        ErrorKind::Refused
    );
    host.copy_with(&guest, file, true, &never, &mut |_| {})
        .unwrap();
    assert!(fs::symlink_metadata(host.out()).unwrap().is_file());
    host.assert_confined();

    // Directories are neither merged nor replaced, nor are pipes.
    let host = Host::new();
    fs::create_dir(host.out()).unwrap();
    for node in [file, root] {
        host.copy_with(&guest, node, true, &never, &mut |_| {})
            .unwrap_err();
        assert!(names(&host.out()).is_empty());
    }
    fs::remove_dir(host.out()).unwrap();
    let made = Command::new("mkfifo").arg(host.out()).status().unwrap();
    assert!(made.success());
    host.copy_with(&guest, file, true, &never, &mut |_| {})
        .unwrap_err();
    assert_eq!(names(&host.to()), ["out"]);

    // A missing directory has a remedy.
    let request = ExtractRequest {
        tree: &guest,
        node: file,
        metadata: guest.metadata(file).unwrap(),
        destination: &host.to().join("missing/file"),
        replace: true,
        sync: Sync::Full,
    };
    let error = extract(&request, &never, &mut |_| {}).unwrap_err();
    assert_eq!(error.remedy(), Some("create the directory first"));
}

#[test]
fn what_appears_meanwhile_stays() {
    let mut guest = Guest::new();
    let root = guest.root();
    let file = guest.file(root, "file", "new");
    // Removed even where modes were set that keep the user out.
    guest.metadata_mut(root).permissions = 0;
    let closed = guest.directory(root, "closed");
    guest.metadata_mut(closed).permissions = 0;
    let listed = guest.directory(closed, "listed");
    guest.metadata_mut(listed).permissions = 0o600;
    guest.file(listed, "file", "new");
    for node in [file, root] {
        for directory in [false, true] {
            let host = Host::new();
            let never = AtomicBool::new(false);
            let error = host
                .copy_with(&guest, node, false, &never, &mut |_| {
                    if directory {
                        let _ = fs::create_dir(host.out());
                    } else {
                        fs::write(host.out(), "newcomer").unwrap();
                    }
                })
                .unwrap_err();
            let kinds = [ErrorKind::Refused, ErrorKind::Usage];
            assert!(kinds.contains(&error.kind()), "{error}");
            if directory {
                assert!(names(&host.out()).is_empty());
            } else {
                assert_eq!(fs::read(host.out()).unwrap(), b"newcomer");
            }
            host.assert_confined();
        }
    }
}

#[test]
fn directories_exchanged_meanwhile_lead_nowhere() {
    // Somebody with the user's rights puts a link where a directory of the copy was, at every step in turn.
    let mut guest = Guest::new();
    let root = guest.root();
    let mut here = root;
    let linked = guest.file(root, "linked", "shared");
    guest.metadata_mut(linked).links = 100;
    for depth in 0..70 {
        here = guest.directory(here, format!("d{depth}"));
        if depth == 35 {
            guest.metadata_mut(here).permissions = 0o500;
        }
        guest.file(here, "secret", "evil");
        guest.file(here, "made", "evil");
        guest.name(here, "linked", linked);
    }
    let first = guest.file(here, "deep", "shared");
    guest.metadata_mut(first).links = 2;
    guest.name(root, "deep", first);
    for (at, depth) in [(5, 0), (150, 0), (150, 20), (215, 60), (281, 0), (283, 30)] {
        let host = Host::new();
        let never = AtomicBool::new(false);
        let mut steps = 0;
        let result = host.copy_with(&guest, root, false, &never, &mut |_| {
            steps += 1;
            if steps != at {
                return;
            }
            let staged = names(&host.to()).pop().unwrap();
            assert!(staged.starts_with(".qimg-"));
            assert_eq!(mode(&host.to().join(&staged)), 0o700);
            let mut path = host.to().join(staged);
            for depth in 0..=depth {
                path.push(format!("d{depth}"));
            }
            if fs::rename(&path, path.with_file_name("moved")).is_ok() {
                symlink(host.victim(), &path).unwrap();
            }
        });
        // It may fail, or copy what was moved; the victim is as it was.
        if let Err(error) = &result {
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        }
        assert_eq!(host.outside(), host.before, "{at} {depth}");
    }
    // And the whole temporary directory.
    for at in [3, 100, 280] {
        let host = Host::new();
        let never = AtomicBool::new(false);
        let mut steps = 0;
        let result = host.copy_with(&guest, root, false, &never, &mut |_| {
            steps += 1;
            if steps == at {
                let staged = host.to().join(names(&host.to()).pop().unwrap());
                fs::rename(&staged, host.to().join("moved")).unwrap();
                symlink(host.victim(), &staged).unwrap();
            }
        });
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Io);
        assert!(!host.out().exists());
        assert_eq!(host.outside(), host.before, "{at}");
    }
}

#[test]
fn random_hostile_trees_stay_within() {
    let nightly = std::env::var_os("QIMG_NIGHTLY").is_some();
    let rounds = if nightly { 3_000 } else { 300 };
    for round in 0..rounds {
        let mut random = Random(round + 1);
        let mut pick = |most: usize| random.below(most);
        let host = Host::new();
        let victim = host.victim().to_str().unwrap().to_owned();
        let pool = [
            "a",
            "b",
            "A",
            ".",
            "..",
            "",
            "a/b",
            "../victim",
            "x\0",
            "secret",
            &victim,
        ];
        let mut guest = Guest::new();
        let kinds = 3 + pick(20);
        for _ in 0..kinds {
            let node = match pick(5) {
                0 | 1 => guest.node(
                    FileKind::Directory,
                    0o777 * u16::from(pick(2) == 0),
                    Content::Directory(Vec::new()),
                ),
                2 => guest.node(
                    FileKind::Symlink,
                    0o777,
                    Content::Symlink(victim.clone().into()),
                ),
                3 => guest.node(
                    FileKind::Symlink,
                    0o777,
                    Content::Symlink("../../victim".into()),
                ),
                _ => guest.node(
                    FileKind::File,
                    0o600,
                    Content::File(vec![Part::Data(b"evil".to_vec())]),
                ),
            };
            guest.metadata_mut(node).links = 1 + u32::try_from(pick(4)).unwrap();
        }
        for node in 0..guest.nodes.len() {
            if guest.nodes[node].0.kind == FileKind::Directory {
                for _ in 0..pick(12) {
                    let target = Node(pick(kinds + 2) as u64);
                    guest.name(Node(node as u64), pool[pick(pool.len())], target);
                }
            }
        }
        host.copy(&guest, guest.root()).unwrap();
        host.assert_confined();
        assert!(host.out().is_dir());
    }
}

/// Something mounted, until it is dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(program: &str, arguments: &[&str], at: &Path) -> Self {
        let status = Command::new(program)
            .args(arguments)
            .arg(at)
            .status()
            .unwrap();
        assert!(status.success(), "{program} {arguments:?}");
        Self(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_file_system_leaves_nothing() {
    let mut guest = Guest::new();
    let root = guest.root();
    let big = guest.parts(root, "big", &vec![Part::Data(vec![1; 1 << 16]); 64]);
    let many = guest.directory(root, "many");
    for n in 0..300 {
        guest.directory(many, format!("{n}"));
        guest.file(many, format!("file-{n}"), "x");
    }
    let host = Host::new();
    for (options, nodes) in [
        ("size=1m", vec![root, big]),
        ("size=64k", vec![many, big]),
        ("nr_inodes=100", vec![root, many]),
        ("nr_inodes=1", vec![many, big]),
    ] {
        let mount = Mount::new("mount", &["-t", "tmpfs", "-o", options, "none"], &host.to());
        for node in nodes {
            let error = host.copy(&guest, node).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(
                cause.contains("No space left"),
                "{options}: {error} {cause}"
            );
            assert!(names(&host.to()).is_empty(), "{options}");
            // And what was there stays.
            if node == big && fs::write(host.out(), "old").is_ok() {
                let never = AtomicBool::new(false);
                host.copy_with(&guest, node, true, &never, &mut |_| {})
                    .unwrap_err();
                assert_eq!(names(&host.to()), ["out"]);
                assert_eq!(fs::read(host.out()).unwrap(), b"old");
                fs::remove_file(host.out()).unwrap();
            }
        }
        drop(mount);
    }
    host.assert_nothing_left();
}

/// NTFS without distinction of case, as the only such file system that every kernel can mount.
#[test]
fn names_that_are_one_to_the_destination_do_not_meet() {
    let host = Host::new();
    let place = TempDir::new().unwrap();
    let disk = place.path().join("disk");
    let made = Command::new("truncate")
        .args(["-s", "16m"])
        .arg(&disk)
        .status();
    assert!(made.unwrap().success());
    let made = Command::new("mkntfs")
        .args(["-F", "-q"])
        .arg(&disk)
        .output();
    assert!(made.unwrap().status.success());
    let arguments = ["-o", "ignore_case", disk.to_str().unwrap()];
    let mount = Mount::new("lowntfs-3g", &arguments, &host.to());

    let mut guest = Guest::new();
    let root = guest.root();
    guest.symlink(root, "Link", host.victim().to_str().unwrap());
    let directory = guest.directory(root, "LINK");
    guest.file(directory, "secret", "evil");
    guest.file(directory, "made", "evil");
    guest.file(root, "link", "evil");
    let upper = guest.directory(root, "D");
    guest.file(upper, "a", "first");
    let lower = guest.directory(root, "d");
    guest.file(lower, "a", "second");
    guest.file(lower, "b", "second");
    let linked = guest.file(root, "one", "shared");
    guest.metadata_mut(linked).links = 2;
    guest.name(root, "ONE", linked);
    let done = host.copy(&guest, root).unwrap();
    assert_eq!(done.skipped, 4, "{:?}", done.skipped_names);
    assert_eq!(done.files, 2);
    assert_eq!(names(&host.out().join("d")), ["a"]);
    assert_eq!(
        fs::read(host.victim().join("secret")).unwrap(),
        b"untouched"
    );
    assert_eq!(names(&host.victim()), ["secret"]);
    drop(mount);
}
