//! What goes where: results, progress, and readers that go away.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::program::{command, qemu_img, qimg, scratch};

#[test]
#[expect(clippy::disallowed_types, reason = "only a file can have holes")]
fn a_reader_that_goes_away_is_no_failure() {
    let (_keep, image) = scratch("fragmented.raw");
    // More ranges than any pipe holds.
    let file = std::fs::File::create(&image).unwrap();
    for number in 0..20_000 {
        std::os::unix::fs::FileExt::write_all_at(&file, b"data", number * 8192).unwrap();
    }
    let mut child = command()
        .args(["map", "--json", &image])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("[{ \"start\": 0, "), "{line}");
    drop(reader);
    let said = child.wait_with_output().unwrap();
    assert_eq!((said.status.code(), said.stderr), (Some(0), Vec::new()));
}

#[test]
fn the_exit_code_of_check_survives_a_closed_pipe() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = command()
        .args(["check", "leaked.qcow2"])
        .stdout(writer)
        .status();
    assert_eq!(status.unwrap().code(), Some(3));
}

#[test]
#[expect(clippy::disallowed_types, reason = "only a file can be a full disk")]
fn a_full_disk_under_stdout_is_a_failure() {
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let said = command()
        .args(["info", "v3.qcow2"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(1));
    let text = String::from_utf8(said.stderr).unwrap();
    assert!(
        text.starts_with("qimg: cannot write to standard output\n  caused by: "),
        "{text}"
    );
}

#[test]
fn progress_is_silent_away_from_terminals_unless_asked_for() {
    let (_keep, new) = scratch("new.qcow2");
    let convert = ["convert", "-O", "qcow2", "-c", "sample.qcow2", &new];
    assert_eq!(qimg(convert).well(), "");
    for options in [
        &["--progress=plain"][..],
        &["-p"],
        &["--progress=plain", "-q"],
    ] {
        let said = qimg(convert.iter().chain(options));
        assert_eq!((said.code, said.out.as_str()), (Some(0), ""));
        assert!(
            said.err
                .lines()
                .last()
                .unwrap()
                .starts_with("convert: 100.0 %, "),
            "{}",
            said.err
        );
    }
    for options in [
        &["-p", "-q"][..],
        &["-p", "--progress=none"],
        &["--progress=auto"],
    ] {
        assert_eq!(qimg(convert.iter().chain(options)).well(), "");
    }
}

#[test]
fn progress_comes_as_json_lines() {
    let (_keep, new) = scratch("new.qcow2");
    let said = qimg([
        "--progress",
        "json",
        "compress",
        "--exact",
        "--json",
        "sample.qcow2",
        &new,
    ]);
    let last = said.err.lines().last().unwrap();
    let progress: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(progress["done"], progress["total"]);
    assert_eq!(progress["eta"], 0);
    assert!(progress["rate"].as_u64().unwrap() > 0);
    let result: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(result["contents"]["stored-bytes"], progress["total"]);
}

#[test]
fn the_result_of_an_image_in_use_says_how_to_read_it_anyway() {
    let (_keep, image) = scratch("held.qcow2");
    qemu_img(["create", "-q", "-f", "qcow2", &image, "1M"]).well();
    let mut holder = std::process::Command::new("qemu-io")
        .arg(&image)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Its prompt comes when it holds the image.
    let mut prompt = [0; 9];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut prompt).unwrap();
    let refused = qimg(["info", &image]);
    let shared = qimg(["info", "-U", &image]);
    drop(holder.stdin.take());
    holder.wait().unwrap();
    let text = refused.failed(1);
    assert!(
        text.starts_with(&format!("qimg: {image}: ")) && text.contains("-U"),
        "{text}"
    );
    shared.well();
}
