//! qimg and QEMU respect each other's image locks, with the real QEMU tools as oracle.
//!
//! A missing tool is a failure: install qemu-utils.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use qimg::ErrorKind;
use qimg::store::{HostFile, Locking, Staged, Sync, WriteAt};
use tempfile::TempDir;

/// A qemu-io that has an image open until it is dropped.
struct Holder(Child);

impl Holder {
    fn open(args: &[&str], image: &Path) -> Self {
        let mut child = Command::new("qemu-io")
            .args(args)
            .arg(image)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("qemu-io must be installed");
        // It prompts once it has opened the image.
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
        let mut stdin = self.0.stdin.take().unwrap();
        let _ = stdin.write_all(b"quit\n");
        drop(stdin);
        self.0.wait().unwrap();
    }
}

fn image(format: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let output = qemu_img(&["create", "-q", "-f", format], &path, &["1M"]);
    assert!(output.status.success(), "{output:?}");
    (dir, path)
}

fn qemu_img(before: &[&str], image: &Path, after: &[&str]) -> Output {
    Command::new("qemu-img")
        .args(before)
        .arg(image)
        .args(after)
        .output()
        .expect("qemu-img must be installed")
}

fn assert_refuses(output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("Failed to get"), "{stderr}");
}

fn assert_locked<T: std::fmt::Debug>(opened: qimg::Result<T>, image: &Path, words: &str) {
    let error = opened.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert_eq!(error.path(), Some(image));
    assert!(error.to_string().contains(words), "{error}");
}

const FOR_WRITING: &str = "is held for writing by another process";

#[test]
fn what_qemu_writes_qimg_refuses() {
    for format in ["qcow2", "raw"] {
        let (dir, image) = image(format);
        let holder = Holder::open(&["-f", format], &image);
        let read = HostFile::open_read(&image, Locking::Check);
        let remedy = read.as_ref().unwrap_err().remedy().unwrap().to_owned();
        assert!(remedy.contains("-U"), "{remedy}");
        assert_locked(read, &image, FOR_WRITING);
        let write = HostFile::open_write(&image, Locking::Check);
        assert_locked(write, &image, FOR_WRITING);
        assert_locked(Staged::create(&image), &image, FOR_WRITING);
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);

        HostFile::open_read(&image, Locking::Ignore).unwrap();
        drop(holder);
        HostFile::open_write(&image, Locking::Check).unwrap();
    }
}

#[test]
fn what_qemu_reads_qimg_reads_but_does_not_write() {
    let (_dir, image) = image("qcow2");
    let holder = Holder::open(&["-r"], &image);
    HostFile::open_read(&image, Locking::Check).unwrap();
    let in_use = "is in use by another process";
    let write = HostFile::open_write(&image, Locking::Check);
    assert_locked(write, &image, in_use);
    assert_locked(Staged::create(&image), &image, in_use);
    drop(holder);
    Staged::create(&image).unwrap();
}

#[test]
fn what_qimg_writes_qemu_refuses() {
    let (_dir, image) = image("qcow2");
    let writer = HostFile::open_write(&image, Locking::Check).unwrap();
    assert_refuses(&qemu_img(&["info"], &image, &[]));
    assert_refuses(&qemu_img(&["check"], &image, &[]));
    assert_refuses(&qemu_img(&["resize"], &image, &["2M"]));
    assert!(qemu_img(&["info", "-U"], &image, &[]).status.success());
    drop(writer);
    assert!(qemu_img(&["info"], &image, &[]).status.success());
}

#[test]
fn what_qimg_reads_qemu_reads_but_does_not_write() {
    for format in ["qcow2", "raw"] {
        let (_dir, image) = image(format);
        let reader = HostFile::open_read(&image, Locking::Check).unwrap();
        let info = ["info", "-f", format];
        assert!(qemu_img(&info, &image, &[]).status.success());
        let resize = ["resize", "-q", "-f", format];
        assert_refuses(&qemu_img(&resize, &image, &["2M"]));
        drop(reader);
        assert!(qemu_img(&resize, &image, &["2M"]).status.success());
    }
}

#[test]
fn without_locking_qimg_stops_nobody() {
    let (_dir, image) = image("qcow2");
    let _writer = HostFile::open_write(&image, Locking::Ignore).unwrap();
    assert!(
        qemu_img(&["resize", "-q"], &image, &["2M"])
            .status
            .success()
    );
}

#[test]
fn a_destination_is_held_until_it_is_replaced() {
    let (_dir, image) = image("qcow2");
    let bytes = std::fs::read(&image).unwrap();
    let staged = Staged::create(&image).unwrap();
    assert_refuses(&qemu_img(&["info"], &image, &[]));
    staged.write_all_at(&bytes, 0).unwrap();
    let still_open = staged.file();
    staged.commit(Sync::Full).unwrap();
    assert!(qemu_img(&["check"], &image, &[]).status.success());
    drop(still_open);
}
