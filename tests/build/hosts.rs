//! What the host refuses, before or after there is a guest.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::workshop::{Native, Workshop, base};

/// Serves `bytes` of a body that is said to have `length`, to everybody, and keeps the connection.
fn serve(bytes: Vec<u8>, length: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&bytes);
            if bytes.len() == length {
                continue;
            }
            open.push(stream);
        }
    });
    format!("http://{address}/disk.qcow2")
}

fn from_base(lines: &str) -> Native {
    Native {
        base: lines.to_owned(),
        ..Native::default()
    }
}

#[test]
fn a_base_that_differs_from_its_checksum_starts_no_machine() {
    let workshop = Workshop::new();
    let zeros = "0".repeat(64);
    let lines = format!("image = {:?}\nchecksum = \"sha256:{zeros}\"", base());
    let ended = workshop.build(&from_base(&lines), &[]);
    ended
        .failed(1, &["small.qcow2", "sha256", &zeros])
        .has_not("Starting the machine");
    workshop.assert_tidy();
    assert!(!workshop.path("output").exists());

    let body = std::fs::read(workshop.path("build.toml")).unwrap();
    let url = serve(body.clone(), body.len());
    let lines = format!("image = {url:?}\nchecksum = \"sha256:{zeros}\"");
    let ended = workshop.build(&from_base(&lines), &[]);
    ended.failed(1, &[&url, &zeros]);
    workshop.assert_tidy();
    let mut cached = Vec::new();
    crate::workshop::below(&workshop.beside("cache"), &mut |path| {
        let length = path.metadata().unwrap().len();
        if length >= body.len() as u64 {
            cached.push(path.to_owned());
        }
    });
    assert_eq!(cached, Vec::<PathBuf>::new());
}

#[test]
fn a_downloaded_base_that_names_a_file_of_this_host_is_refused() {
    let workshop = Workshop::new();
    let overlay = workshop.path("overlay.qcow2");
    let status = Command::new("qemu-img")
        .args([
            "create",
            "-q",
            "-f",
            "qcow2",
            "-F",
            "raw",
            "-b",
            "/etc/passwd",
        ])
        .arg(&overlay)
        .arg("1M")
        .status();
    assert!(status.unwrap().success());
    let bytes = std::fs::read(&overlay).unwrap();
    let length = bytes.len();
    let url = serve(bytes, length);
    let ended = workshop.build(&from_base(&format!("image = {url:?}")), &[]);
    ended
        .failed(1, &["backing file", "/etc/passwd"])
        .has_not("Starting the machine");
    workshop.assert_tidy();
}

#[test]
fn a_second_build_of_one_directory_fails_at_once_and_names_the_first() {
    let workshop = Workshop::new();
    let template = Native::quick("[[provision]]\nlocal = \"echo here; sleep 100\"\n");
    let mut first = workshop.start(&template, &[]);
    first.wait_for(": here");
    let second = workshop.build(&template, &["--force"]);
    assert!(second.took < Duration::from_secs(20));
    let process = format!("process {}", first.id());
    second.failed(1, &["builds it already", &process]);
    first.signal("INT");
    first.end().failed(130, &[]);
    workshop.assert_tidy();
}

#[test]
fn an_old_output_is_set_aside_until_the_new_one_is_there() {
    let workshop = Workshop::new();
    let good = Native::quick("[[provision]]\nlocal = \"true\"\n");
    workshop.build(&good, &[]).well();
    workshop.write("output/mine", "1");
    let bad = Native::quick("[[provision]]\nlocal = \"exit 7\"\n");
    workshop
        .build(&bad, &["-force"])
        .failed(3, &["ended with exit code 7"]);
    assert!(workshop.path("output/mine").exists());
    workshop.assert_tidy();
    workshop.build(&good, &["-force"]).well();
    assert_eq!(
        workshop.files().into_iter().collect::<Vec<_>>(),
        ["build.toml", "output/disk.qcow2", "quick.qcow2"]
    );
    workshop.assert_tidy();
}

#[test]
fn a_machine_without_qemu_says_what_to_install() {
    let workshop = Workshop::new();
    workshop.make_quick();
    workshop.write("build.toml", &Native::quick("").text());
    let mut command = workshop.qimg(&["build", "build.toml"]);
    command.env("PATH", workshop.beside("bin"));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("install qemu-system-x86_64"), "{said}");
    workshop.assert_tidy();
}

/// A small file system of memory, for as long as this lives.
struct Small(PathBuf);

impl Small {
    fn mount(workshop: &Workshop, size: &str) -> Self {
        let directory = workshop.path("small");
        std::fs::create_dir(&directory).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(&directory)
            .status();
        assert!(status.unwrap().success(), "only root can mount");
        Self(directory)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn into_small(rest: &str) -> String {
    Native::with(rest)
        .text()
        .replace("directory = \"output\"", "directory = \"small/output\"")
}

#[test]
fn a_host_disk_that_is_full_before_the_start_ends_the_build() {
    let workshop = Workshop::new();
    let _small = Small::mount(&workshop, "8k");
    workshop.write("build.toml", &into_small(""));
    let ended = workshop.start_file("build.toml", &[]).end();
    ended.failed(1, &["No space left on device", "disk.qcow2"]);
    workshop.assert_tidy();
}

#[test]
fn a_host_disk_that_fills_up_while_the_guest_writes_is_told_at_once() {
    let workshop = Workshop::new();
    let _small = Small::mount(&workshop, "12M");
    let write =
        "[[provision]]\nshell = \"dd if=/dev/urandom of=/big bs=1M count=40; sync; echo not so\"\n";
    workshop.write("build.toml", &into_small(write));
    let ended = workshop.start_file("build.toml", &[]).end();
    ended
        .failed(
            2,
            &["the host has no space left for what it writes", "make room"],
        )
        .has_not("not so");
    workshop.assert_tidy();
}

#[test]
fn a_host_disk_that_is_full_when_the_image_is_made_leaves_no_half_an_image() {
    let workshop = Workshop::new();
    let _small = Small::mount(&workshop, "12M");
    workshop.write("build.toml", &into_small(""));
    let ended = workshop.start_file("build.toml", &[]).end();
    ended.failed(1, &["Making disk.qcow2", "No space left on device"]);
    assert!(!workshop.path("small/output").exists());
    workshop.assert_tidy();
}

#[test]
fn a_download_that_stalls_is_left_by_ctrl_c() {
    let workshop = Workshop::new();
    let url = serve(vec![0; 100], 1000);
    let mut building = workshop.start(&from_base(&format!("image = {url:?}")), &[]);
    building.wait_for("Getting the base image");
    std::thread::sleep(Duration::from_millis(500));
    building.signal("INT");
    building.end().failed(130, &["was interrupted"]);
    workshop.assert_tidy();
}
