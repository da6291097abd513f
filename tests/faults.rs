//! Whatever fails or kills the program, the source is untouched and the destination whole, or what it was.
//!
//! Faults come from the real system: full file systems, limits, system calls refused by the kernel, signals, and other
//! programs. What needs privileges gets them in a user namespace (`unshare`), which must be allowed here.

mod oracle;
mod patterns;

use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use oracle::{Scratch, qemu_img};
use patterns::Random;
use qimg::codec::CompressionType;
use qimg::compress::{CompressRequest, Effort, compress};
use qimg::image::{Image, OpenOptions};
use qimg::store::{Effect, Faulty, HostFile, Locking, Operation, ReadAt, Sync};

const QIMG: &str = env!("CARGO_BIN_EXE_qimg");
const OLD: &[u8] = b"what was there before";

/// A source of `length` bytes in a directory of its own, so that the destination's is empty.
struct Setting {
    scratch: Scratch,
    source: String,
    destination: String,
    bytes: Vec<u8>,
}

impl Setting {
    fn new(length: usize) -> Self {
        let scratch = Scratch::new();
        let mut random = Random(length as u64);
        let mut bytes = random.text(length / 2);
        bytes.extend(random.noise(length - length / 2));
        let raw = scratch.path("in.raw");
        std::fs::write(&raw, &bytes).unwrap();
        let source = scratch.path("source.qcow2");
        qemu_img(&["convert", "-f", "raw", "-O", "qcow2", &raw, &source]);
        std::fs::remove_file(raw).unwrap();
        std::fs::create_dir(scratch.path("out")).unwrap();
        let destination = scratch.path("out/disk.qcow2");
        let bytes = std::fs::read(&source).unwrap();
        Self {
            scratch,
            source,
            destination,
            bytes,
        }
    }

    fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.scratch.path("out")).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn assert_source_untouched(&self) {
        assert!(std::fs::read(&self.source).unwrap() == self.bytes);
    }

    fn assert_whole(&self) {
        qemu_img(&["check", "-q", &self.destination]);
        let said = qemu_img(&["compare", &self.source, &self.destination]);
        assert!(said.contains("identical"), "{said}");
    }

    /// Runs the command line that `before` begins, with and without an old destination; it must fail tidily.
    fn assert_fails(&self, before: &[&str], what: &str) {
        for old in [None, Some(OLD)] {
            if let Some(old) = old {
                std::fs::write(&self.destination, old).unwrap();
            }
            let output = run(&[
                before,
                &[
                    QIMG,
                    "compress",
                    "--threads",
                    "2",
                    &self.source,
                    &self.destination,
                ],
            ]
            .concat());
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{what}: {said}");
            assert!(
                said.contains("disk.qcow2") || said.contains("source.qcow2"),
                "{what}: {said}"
            );
            match old {
                None => assert!(self.left().is_empty(), "{what}: {:?}", self.left()),
                Some(old) => {
                    assert_eq!(self.left(), ["disk.qcow2"], "{what}");
                    assert_eq!(std::fs::read(&self.destination).unwrap(), old, "{what}");
                    std::fs::remove_file(&self.destination).unwrap();
                }
            }
            self.assert_source_untouched();
        }
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(arguments[0])
        .args(&arguments[1..])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{} is needed: {error}", arguments[0]))
}

fn compress_command(source: &str, destination: &str) -> Command {
    let mut command = Command::new(QIMG);
    command
        .args(["compress", "--threads", "2", source, destination])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

#[test]
fn a_full_file_system_leaves_the_destination_as_it_was() {
    let setting = Setting::new(1 << 20);
    // Within a mount namespace of its own; says what is left there.
    let script = r#"
        set -e
        mount -t tmpfs -o "size=$1k" none "$2"
        if [ -n "$5" ]; then printf %s "$5" >"$2/disk.qcow2"; fi
        set +e
        "$3" compress --threads 2 "$4" "$2/disk.qcow2"
        code=$?
        ls -A "$2"
        if [ $code -ne 0 ] && [ -n "$5" ]; then cat "$2/disk.qcow2"; fi
        exit $code
    "#;
    let mut failures = 0;
    for kib in [16, 64, 128, 300, 500, 600, 4096] {
        for old in ["", "old"] {
            let size = kib.to_string();
            let directory = setting.scratch.path("out");
            let arguments = [
                "unshare",
                "-rm",
                "sh",
                "-c",
                script,
                "sh",
                &size,
                &directory,
                QIMG,
                &setting.source,
                old,
            ];
            let output = run(&arguments);
            let said = String::from_utf8_lossy(&output.stderr);
            let listed = String::from_utf8_lossy(&output.stdout);
            if output.status.success() {
                assert!(kib > 500, "{said}");
                continue;
            }
            failures += 1;
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("No space left"), "{kib}: {said}");
            let expected = if old.is_empty() {
                ""
            } else {
                "disk.qcow2\nold"
            };
            assert_eq!(listed, expected, "{kib}");
        }
    }
    assert!((8..14).contains(&failures), "{failures}");
    setting.assert_source_untouched();
}

#[test]
fn a_write_cut_short_by_a_limit_leaves_the_destination_as_it_was() {
    let setting = Setting::new(1 << 20);
    // The signal that comes with it is ignored, so that the write itself fails.
    let script = r#"trap "" XFSZ; ulimit -f "$1"; shift; exec "$@""#;
    for blocks in ["1", "7", "64", "129", "400", "1000"] {
        setting.assert_fails(&["sh", "-c", script, "sh", blocks], blocks);
    }
}

/// Runs a program in which the kernel refuses one system call.
const REFUSE: &str = r#"
import ctypes, os, struct, sys
numbers = {
    'x86_64': {'pwrite64': (18,), 'fsync': (74,), 'ftruncate': (77,), 'rename': (82, 264, 316)},
    'aarch64': {'pwrite64': (68,), 'fsync': (82,), 'ftruncate': (46,), 'rename': (38, 276)},
}[os.uname().machine][sys.argv[1]]
LOAD, EQUAL, RETURN, ALLOW, ERRNO = 0x20, 0x15, 0x06, 0x7fff0000, 0x00050000
code = [(LOAD, 0, 0, 0)]
for left, number in zip(range(len(numbers), 0, -1), numbers):
    code.append((EQUAL, left, 0, number))
code += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ERRNO | int(sys.argv[2]))]
program = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *line) for line in code))
rules = ctypes.create_string_buffer(struct.pack('HxxxxxxP', len(code), ctypes.addressof(program)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, rules, 0, 0):
    sys.exit('prctl: ' + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[3], sys.argv[3:])
"#;

#[test]
fn a_refused_system_call_leaves_the_destination_as_it_was() {
    let setting = Setting::new(300_000);
    let (eio, enospc) = ("5", "28");
    for (call, errno) in [
        ("pwrite64", eio),
        ("pwrite64", enospc),
        ("fsync", eio),
        ("fsync", enospc),
        ("ftruncate", eio),
        ("rename", eio),
        ("rename", enospc),
    ] {
        setting.assert_fails(&["python3", "-c", REFUSE, call, errno], call);
    }
}

#[test]
fn whichever_read_of_the_source_fails_nothing_is_left() {
    let setting = Setting::new(3 << 20);
    let destination = Path::new(&setting.destination);
    let attempt = |fault: Option<u64>| {
        let file = HostFile::open_read(&setting.source, Locking::Ignore).unwrap();
        let mut store = Faulty::new(file);
        if let Some(nth) = fault {
            store = store.failing(Operation::Read, nth, Effect::Fail(5));
        }
        let store = Arc::new(store);
        let counted = Arc::clone(&store);
        let result = Image::from_store(
            store as Arc<dyn ReadAt>,
            &setting.source,
            &OpenOptions::default(),
        )
        .and_then(|source| {
            let request = CompressRequest {
                source: &source,
                free: None,
                destination: Some(destination),
                codec: CompressionType::Zlib,
                effort: Effort::Level(1),
                window: None,
                cluster_size: None,
                flatten: false,
                drop_snapshots: false,
                drop_bitmaps: false,
                existing: false,
                threads: 2,
                sync: Sync::None,
            };
            compress(&request, &AtomicBool::new(false), &mut |_, _| {})
        });
        (result, counted.count().reads)
    };
    let (result, reads) = attempt(None);
    result.unwrap();
    setting.assert_whole();
    std::fs::remove_file(destination).unwrap();
    assert!(reads > 4, "{reads}");
    for nth in 0..reads {
        // Which read is the last of all depends on the threads; that it fails does not.
        let error = attempt(Some(nth))
            .0
            .expect_err("a read that fails must not pass");
        assert_eq!(error.kind(), qimg::ErrorKind::Io, "{nth}: {error}");
        assert!(error.path().is_some(), "{nth}: {error}");
        assert!(setting.left().is_empty(), "{nth}: {:?}", setting.left());
    }
}

#[test]
fn killed_at_any_time_it_leaves_the_destination_whole_or_absent() {
    let setting = Setting::new(6 << 20);
    let started = Instant::now();
    let status = compress_command(&setting.source, &setting.destination)
        .status()
        .unwrap();
    assert!(status.success());
    let whole = started.elapsed();
    setting.assert_whole();
    let rounds = if std::env::var_os("QIMG_NIGHTLY").is_some() {
        200
    } else {
        24
    };
    let (mut killed, mut finished) = (0, 0);
    for round in 0..rounds {
        // With an old destination in every other round.
        let _ = std::fs::remove_file(&setting.destination);
        let has_old = round % 2 == 1;
        if has_old {
            std::fs::write(&setting.destination, OLD).unwrap();
        }
        let mut child = compress_command(&setting.source, &setting.destination)
            .spawn()
            .unwrap();
        std::thread::sleep(whole.mul_f64(1.1 * f64::from(round) / f64::from(rounds)));
        let _ = child.kill();
        let status = child.wait().unwrap();
        match (status.signal(), std::fs::read(&setting.destination)) {
            (Some(9), Err(_)) if !has_old => killed += 1,
            (Some(9), Ok(bytes)) if has_old && bytes == OLD => killed += 1,
            // It may be killed after the last step.
            (Some(9) | None, Ok(_)) => {
                setting.assert_whole();
                finished += 1;
            }
            (signal, destination) => panic!(
                "{round}: {signal:?} {:?}",
                destination.map(|bytes| bytes.len())
            ),
        }
        // Each run sweeps what the one before it left, but one that is killed after it made its own file and before that.
        let temporary = setting
            .left()
            .iter()
            .filter(|name| name.starts_with(".qimg-"))
            .count();
        assert!(temporary <= 2, "{:?}", setting.left());
    }
    let last = compress_command(&setting.source, &setting.destination).status();
    assert!(last.unwrap().success());
    assert_eq!(setting.left().len(), 1, "{:?}", setting.left());
    assert!(killed > rounds / 4, "{killed} killed, {finished} finished");
    setting.assert_source_untouched();
    let status = compress_command(&setting.source, &setting.destination)
        .status()
        .unwrap();
    assert!(status.success());
    setting.assert_whole();
    assert_eq!(setting.left(), ["disk.qcow2"]);
}

#[test]
fn killed_in_place_it_leaves_the_source_whole() {
    let setting = Setting::new(4 << 20);
    let copy = setting.scratch.path("out/copy.qcow2");
    for round in 0..8 {
        std::fs::copy(&setting.source, &copy).unwrap();
        let mut child = Command::new(QIMG)
            .args(["compress", "--in-place", "--threads", "2", &copy])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(20 * round));
        let _ = child.kill();
        child.wait().unwrap();
        qemu_img(&["check", "-q", &copy]);
        assert!(qemu_img(&["compare", &setting.source, &copy]).contains("identical"));
    }
}

#[test]
fn interrupted_it_says_130_and_cleans_up() {
    // More than is encoded before a busy machine gets around to sending the signal.
    let setting = Setting::new(64 << 20);
    for old in [false, true] {
        if old {
            std::fs::write(&setting.destination, OLD).unwrap();
        }
        // Whoever starts the tests in the background makes them ignore the signal, and all that they start.
        let child = Command::new("env")
            .args([
                "--default-signal=INT",
                QIMG,
                "compress",
                "--best",
                "--codec",
                "zstd",
                "--threads",
                "2",
                &setting.source,
                &setting.destination,
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while !setting.left().iter().any(|name| name.starts_with(".qimg-")) {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "it does not begin"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(100));
        let interrupted = Instant::now();
        assert!(
            run(&["kill", "-s", "INT", &child.id().to_string()])
                .status
                .success()
        );
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert!(interrupted.elapsed() < Duration::from_secs(20));
        assert_eq!(
            setting.left().len(),
            usize::from(old),
            "{:?}",
            setting.left()
        );
        if old {
            assert_eq!(std::fs::read(&setting.destination).unwrap(), OLD);
        }
        setting.assert_source_untouched();
    }
}

#[test]
fn a_source_is_never_its_own_destination() {
    let setting = Setting::new(100_000);
    let (hard, soft) = (
        setting.scratch.path("out/hard"),
        setting.scratch.path("out/soft"),
    );
    std::fs::hard_link(&setting.source, &hard).unwrap();
    symlink(&setting.source, &soft).unwrap();
    for name in [&setting.source, &hard, &soft] {
        for command in [
            &["compress"][..],
            &["compress", "-n"],
            &["convert", "-O", "qcow2"],
            &["convert", "-n", "-O", "raw"],
        ] {
            let output = run(&[&[QIMG], command, &[&setting.source, name]].concat());
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{command:?} {name}: {said}");
            setting.assert_source_untouched();
        }
    }
    assert_eq!(setting.left(), ["hard", "soft"]);
}

#[test]
fn a_backing_file_is_never_the_destination() {
    let setting = Setting::new(100_000);
    let top = setting.scratch.path("top.qcow2");
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        &setting.source,
        "-F",
        "qcow2",
        &top,
    ]);
    for command in [
        &["compress", "--flatten"][..],
        &["compress"],
        &["convert", "-O", "qcow2"],
    ] {
        let output = run(&[
            &[QIMG],
            command,
            &["--backing", "any", &top, &setting.source],
        ]
        .concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        setting.assert_source_untouched();
    }
}

#[test]
fn what_can_hold_no_image_is_no_destination() {
    let setting = Setting::new(100_000);
    let directory = setting.scratch.path("out/directory");
    std::fs::create_dir(&directory).unwrap();
    let fifo = setting.scratch.path("out/fifo");
    assert!(run(&["mkfifo", &fifo]).status.success());
    let slash = setting.scratch.path("out/new/");
    let missing = setting.scratch.path("out/nowhere/disk.qcow2");
    for name in [directory.as_str(), &fifo, "/dev/null", &slash, &missing, ""] {
        for command in [&["compress"][..], &["convert", "-O", "raw"]] {
            let output =
                run(&[&["timeout", "20", QIMG], command, &[&setting.source, name]].concat());
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        }
    }
    assert_eq!(setting.left(), ["directory", "fifo"]);
}

#[test]
fn a_read_only_directory_is_refused() {
    let setting = Setting::new(100_000);
    let script =
        r#"set -e; mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; shift; exec "$@""#;
    let directory = setting.scratch.path("out");
    let before = ["unshare", "-rm", "sh", "-c", script, "sh", &directory];
    let output = run(&[
        &before[..],
        &[QIMG, "compress", &setting.source, &setting.destination],
    ]
    .concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    assert!(setting.left().is_empty());
}

/// A qemu-io that has an image open for writing until it is dropped.
struct Holder(Child);

impl Holder {
    fn open(image: &str) -> Self {
        let mut child = Command::new("qemu-io")
            .arg(image)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the oracle qemu-io is needed");
        let mut seen = Vec::new();
        let stdout = child.stdout.as_mut().unwrap();
        while !seen.ends_with(b"qemu-io> ") {
            let mut byte = [0];
            stdout
                .read_exact(&mut byte)
                .expect("qemu-io opens the image");
            seen.push(byte[0]);
        }
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.stdin.take().unwrap().write_all(b"quit\n");
        let _ = self.0.wait();
    }
}

#[test]
fn what_qemu_holds_is_neither_source_nor_destination() {
    let setting = Setting::new(100_000);
    std::fs::copy(&setting.source, &setting.destination).unwrap();
    let holder = Holder::open(&setting.destination);
    let held = std::fs::read(&setting.destination).unwrap();
    for (from, to) in [
        (&setting.source, &setting.destination),
        (&setting.destination, &setting.scratch.path("out/new.qcow2")),
    ] {
        for command in [&["compress"][..], &["convert", "-O", "qcow2"]] {
            let output = run(&[&[QIMG], command, &[from, to]].concat());
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("another process"), "{said}");
        }
    }
    assert_eq!(setting.left(), ["disk.qcow2"]);
    assert!(std::fs::read(&setting.destination).unwrap() == held);
    drop(holder);
    let status = compress_command(&setting.source, &setting.destination)
        .status()
        .unwrap();
    assert!(status.success());
    setting.assert_whole();
}
