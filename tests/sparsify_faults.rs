//! Whatever ends `qimg sparsify`, its image is sound and holds what it held.
//!
//! Faults come from the real system: signals, other programs, file systems that cannot do what is asked. What needs
//! privileges gets them in a user namespace (`unshare`), which must be allowed here.

mod oracle;
mod patterns;

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use oracle::{Scratch, qemu_img};
use patterns::Random;

const QIMG: &str = env!("CARGO_BIN_EXE_qimg");

fn run(arguments: &[&str]) -> Output {
    Command::new(arguments[0])
        .args(&arguments[1..])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{} is needed: {error}", arguments[0]))
}

/// An image with data and stored zeros by turns, in as many tables as the time allows.
fn make(scratch: &Scratch, options: &str, bytes: usize) -> String {
    let mut random = Random(9);
    let mut disk = vec![0; bytes];
    for piece in disk.chunks_mut(4096) {
        match random.below(4) {
            0 => piece.copy_from_slice(&random.noise(piece.len())),
            1 => piece.copy_from_slice(&random.text(piece.len())),
            _ => {}
        }
    }
    let raw = scratch.path("in.raw");
    std::fs::write(&raw, disk).unwrap();
    let image = scratch.path("source.qcow2");
    let arguments = [
        "convert", "-S", "0", "-f", "raw", "-O", "qcow2", "-o", options,
    ];
    qemu_img(&[&arguments[..], &[&raw, &image]].concat());
    std::fs::remove_file(raw).unwrap();
    image
}

/// Sound, with leaks at worst, and with the contents of `source`.
fn assert_sound(source: &str, image: &str) -> i32 {
    let check = run(&["qemu-img", "check", "-q", image]);
    let code = check.status.code().unwrap();
    assert!(code == 0 || code == 3, "{check:?}");
    let said = qemu_img(&["compare", source, image]);
    assert!(said.contains("identical"), "{said}");
    code
}

fn sparsify(image: &str) -> Command {
    // Whoever starts the tests in the background makes them ignore Ctrl-C, and all that they start.
    let mut command = Command::new("env");
    command
        .args(["--default-signal=INT", QIMG])
        .args(["sparsify", "--threads", "2", image])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

#[test]
fn killed_at_any_time_it_leaves_a_sound_image() {
    let scratch = Scratch::new();
    let source = make(&scratch, "cluster_size=512,refcount_bits=64", 24 << 20);
    let image = scratch.path("image.qcow2");
    let started = Instant::now();
    std::fs::copy(&source, &image).unwrap();
    let started_work = Instant::now();
    assert!(sparsify(&image).status().unwrap().success());
    let whole = started_work.elapsed();
    assert_eq!(assert_sound(&source, &image), 0);
    let once = started.elapsed();
    let rounds = if std::env::var_os("QIMG_NIGHTLY").is_some() {
        200
    } else {
        (20.0 / once.as_secs_f64()).clamp(8.0, 24.0) as u32
    };
    let (mut killed, mut changed, mut leaking) = (0, 0, 0);
    let before = std::fs::read(&source).unwrap();
    for round in 0..rounds {
        std::fs::copy(&source, &image).unwrap();
        let mut child = sparsify(&image).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(1.1 * f64::from(round) / f64::from(rounds)));
        let _ = child.kill();
        killed += u32::from(child.wait().unwrap().signal() == Some(9));
        changed += u32::from(std::fs::read(&image).unwrap() != before);
        leaking += u32::from(assert_sound(&source, &image) == 3);
        if round % 4 == 0 {
            assert!(sparsify(&image).status().unwrap().success());
            assert_eq!(assert_sound(&source, &image), 0);
        }
    }
    let counts = format!("{rounds} rounds: {killed} killed, {changed} changed, {leaking} leaking");
    assert!(killed > rounds / 4, "{counts}");
    assert!(changed > 0, "{counts}");
}

#[test]
fn interrupted_it_says_so_and_the_image_is_sound() {
    let scratch = Scratch::new();
    let source = make(&scratch, "cluster_size=512", 32 << 20);
    let image = scratch.path("image.qcow2");
    let (mut early, mut late) = (0, 0);
    for milliseconds in [40, 80, 160, 320, 640, 1280] {
        std::fs::copy(&source, &image).unwrap();
        let child = sparsify(&image).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        let _ = run(&["kill", "-s", "INT", &child.id().to_string()]);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(130) => {
                assert!(
                    said.starts_with("qimg: interrupted: the image is "),
                    "{said}"
                );
                early += 1;
            }
            // Before the program watches for signals, they end it as usual.
            None => assert_eq!(output.status.signal(), Some(2)),
            Some(0) => late += 1,
            code => panic!("{code:?}: {said}"),
        }
        // Never between an entry and its count.
        assert_eq!(assert_sound(&source, &image), 0);
    }
    assert!(early + late > 0);
}

/// A qemu-io that has an image open until it is dropped.
struct Holder(Child);

impl Holder {
    fn open(arguments: &[&str]) -> Self {
        let mut child = Command::new("qemu-io")
            .args(arguments)
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

fn assert_refused(image: &str) {
    let before = std::fs::read(image).unwrap();
    let output = sparsify(image).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another process"), "{said}");
    assert!(std::fs::read(image).unwrap() == before);
}

#[test]
fn what_qemu_has_open_even_to_read_is_refused() {
    let scratch = Scratch::new();
    let image = make(&scratch, "cluster_size=4k", 1 << 20);
    for arguments in [&["-r", image.as_str()][..], &[&image]] {
        let holder = Holder::open(arguments);
        assert_refused(&image);
        drop(holder);
    }
    assert!(sparsify(&image).status().unwrap().success());

    let drive = format!("if=none,id=disk,format=qcow2,file={image}");
    let mut machine = Command::new("qemu-system-x86_64")
        .args(["-machine", "none", "-nodefaults", "-display", "none"])
        .args(["-drive", &drive, "-monitor", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the oracle qemu-system-x86_64 is needed");
    let mut seen = Vec::new();
    let stdout = machine.stdout.as_mut().unwrap();
    while !seen.ends_with(b"(qemu) ") {
        let mut byte = [0];
        stdout.read_exact(&mut byte).expect("the machine starts");
        seen.push(byte[0]);
    }
    assert_refused(&image);
    machine.stdin.take().unwrap().write_all(b"quit\n").unwrap();
    machine.wait().unwrap();
    assert!(sparsify(&image).status().unwrap().success());
}

#[test]
fn a_file_system_without_holes_is_told_before_the_first_byte() {
    let scratch = Scratch::new();
    let image = make(&scratch, "cluster_size=4k", 1 << 20);
    // ramfs cannot punch holes.
    let script = r#"
        set -e
        mkdir -p "$1/mnt"
        mount -t ramfs none "$1/mnt"
        cp "$2" "$1/mnt/disk"
        set +e
        "$3" sparsify $4 "$1/mnt/disk"
        code=$?
        cmp "$2" "$1/mnt/disk" || exit 99
        exit $code
    "#;
    let raw = scratch.path("disk.raw");
    qemu_img(&["convert", "-S", "0", "-O", "raw", &image, &raw]);
    for (file, format) in [(&image, ""), (&raw, "-f raw")] {
        let directory = scratch.directory();
        let output = run(&[
            "unshare", "-rm", "sh", "-c", script, "sh", directory, file, QIMG, format,
        ]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("cannot free a part of a file"), "{said}");
        assert!(said.contains("/mnt/disk"), "{said}");
    }
}

#[test]
fn a_file_that_may_not_be_written_is_refused() {
    let scratch = Scratch::new();
    let image = make(&scratch, "cluster_size=4k", 1 << 20);
    let script =
        r#"set -e; mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; shift; exec "$@""#;
    let directory = scratch.directory();
    let before = ["unshare", "-rm", "sh", "-c", script, "sh", directory];
    let output = run(&[&before[..], &[QIMG, "sparsify", &image]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
}
