//! Ctrl-C and its kin end long work early and tidily.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::program::scratch;

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
}

/// Text enough for many seconds at the greatest effort.
fn write_long_work(path: &str) {
    let mut seed = 1u32;
    let mut bytes = Vec::with_capacity(48 << 20);
    while bytes.len() < 48 << 20 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.extend_from_slice(format!("line {} of {seed:o}\n", seed % 777).as_bytes());
    }
    std::fs::write(path, bytes).unwrap();
}

fn entries(directory: &Path) -> usize {
    directory.read_dir().unwrap().count()
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_signal_ends_the_work_and_leaves_no_file_behind() {
    let (keep, source) = scratch("long.raw");
    write_long_work(&source);
    let destination = keep.path().join("small.qcow2");
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        // Whoever runs the tests may ignore signals (nohup, a shell's background job), and children inherit that.
        let child = Command::new("env")
            .args(["--default-signal=INT,TERM,HUP", env!("CARGO_BIN_EXE_qimg")])
            .args(["compress", "--best", "-f", "raw", &source])
            .arg(&destination)
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until("the work begins", || entries(keep.path()) == 2);
        // Between the staged file and the first look at the flag there is time to begin.
        sleep(Duration::from_millis(200));
        signal(&child, name);
        let said = child.wait_with_output().unwrap();
        assert_eq!(said.status.code(), Some(code), "{said:?}");
        assert_eq!(
            String::from_utf8(said.stderr).unwrap(),
            "qimg: interrupted\n"
        );
        assert_eq!(entries(keep.path()), 1, "{name}");
    }
}

#[test]
fn a_signal_that_nohup_ignores_stays_ignored() {
    let (keep, source) = scratch("long.raw");
    write_long_work(&source);
    let mut nohup = Command::new("nohup");
    nohup
        .arg(env!("CARGO_BIN_EXE_qimg"))
        .args(["compress", "--best", "-f", "raw", &source]);
    nohup
        .arg(keep.path().join("small.qcow2"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = nohup.process_group(0).spawn().unwrap();
    wait_until("the work begins", || entries(keep.path()) == 2);
    sleep(Duration::from_millis(200));
    signal(&child, "HUP");
    sleep(Duration::from_millis(500));
    assert_eq!(child.try_wait().unwrap(), None);
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(entries(keep.path()), 1);
}
