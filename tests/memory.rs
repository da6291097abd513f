//! The memory of whole commands on an image much larger than memory should be: 100 GiB virtual, 8 GiB of data.
//!
//! Of the nightly set: without `QIMG_TEST_BIG_IMAGE` there is nothing to measure.

use std::path::Path;
use std::process::Command;

/// KiB at most, metadata in use included.
const MOST: u64 = 128 << 10;

/// Runs qimg with `args`; gives its peak memory in KiB, and its exit code.
fn peak(scratch: &Path, args: &[&str]) -> (u64, Option<i32>) {
    let report = scratch.join("peak");
    let status = Command::new("/usr/bin/time")
        .args(["-f", "%M", "-o"])
        .arg(&report)
        .arg(env!("CARGO_BIN_EXE_qimg"))
        .args(args)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    let told = std::fs::read_to_string(&report).unwrap();
    // A status other than 0 comes on a line of its own before.
    let peak = told.lines().last().unwrap().parse().unwrap();
    (peak, status.code())
}

#[test]
#[expect(clippy::print_stdout, reason = "`--nocapture` shows the numbers")]
fn no_command_needs_memory_by_the_size_of_the_image() {
    let Ok(big) = std::env::var("QIMG_TEST_BIG_IMAGE") else {
        return;
    };
    let beside = Path::new(&big).parent().unwrap();
    let scratch = tempfile::tempdir_in(beside).unwrap();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let (zlib, zstd, raw, plain) = (
        path("zlib.qcow2"),
        path("zstd.qcow2"),
        path("disk.raw"),
        path("plain.qcow2"),
    );
    let small = path("small.qcow2");
    for args in [
        vec!["info", &big],
        vec!["info", "--clusters", &big],
        vec!["inspect", &big],
        vec!["map", "--json", &big],
        vec!["map", "--usage", &big],
        vec!["check", &big],
        vec!["measure", &big],
        vec!["compress", "-q", "--no-sync", "--dry-run", &big],
        vec![
            "compress",
            "-q",
            "--no-sync",
            "--codec",
            "zstd",
            &big,
            &zstd,
        ],
        vec!["compare", &big, &zstd],
        vec!["check", &zstd],
        vec!["compress", "-q", "--no-sync", &zstd, &zlib],
        vec!["compare", &zlib, &zstd],
        vec!["convert", "-q", &zlib, &raw],
        vec!["compare", &zlib, &raw],
        vec!["convert", "-q", &big, &plain],
        vec!["convert", "-q", "--sparsify", &raw, &small],
        vec!["sparsify", "-q", &plain],
        vec!["sparsify", "-q", &raw],
        vec!["resize", "-q", &plain, "+1G"],
    ] {
        let (kib, code) = peak(scratch.path(), &args);
        assert_eq!(code, Some(0), "{args:?}");
        assert!(kib <= MOST, "{args:?}: {kib} KiB");
        println!("{kib:>7} KiB  qimg {}", args[..args.len() - 1].join(" "));
        if args[0] == "convert" && args.contains(&"--sparsify") {
            std::fs::remove_file(&small).unwrap();
        }
    }
}
