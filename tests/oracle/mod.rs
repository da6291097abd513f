//! qemu-img and qemu-io as the witnesses of tests, and a directory of each test's own.
//!
//! A missing oracle fails the test: without it nothing is proven.

#![expect(dead_code, reason = "no test needs all of it")]

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("the oracle {program} is needed: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What `qemu-img ARGUMENTS` prints; it must succeed.
pub fn qemu_img(arguments: &[&str]) -> String {
    run("qemu-img", arguments)
}

/// Runs `commands` in qemu-io on the image at `path`, which has `format`; all must succeed.
pub fn qemu_io(format: &str, path: &str, commands: &[&str]) -> String {
    let mut arguments = vec!["-f", format];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    arguments.push(path);
    let output = run("qemu-io", &arguments);
    assert!(!output.contains("failed"), "{commands:?}: {output}");
    output
}

/// A directory of a test's own, removed when it ends.
pub struct Scratch(TempDir);

impl Scratch {
    /// An empty directory.
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// The directory itself.
    pub fn directory(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    /// Where the file `name` in it is.
    pub fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.directory())
    }

    /// `qemu-img create -q ARGUMENTS NAME SIZE`.
    pub fn create(&self, name: &str, arguments: &[&str], size: &str) {
        let path = self.path(name);
        let mut all = vec!["create", "-q"];
        all.extend(arguments);
        all.extend([path.as_str(), size]);
        qemu_img(&all);
    }

    /// Copies `testdata/NAME`.
    pub fn copy_testdata(&self, name: &str) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("testdata")
            .join(name);
        std::fs::copy(from, self.path(name)).unwrap();
    }

    /// What `qemu-img ARGUMENTS` prints, read as JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&qemu_img(arguments)).unwrap()
    }

    /// As [`Scratch::json`]; `None` when qemu-img refuses.
    pub fn try_json(&self, arguments: &[&str]) -> Option<Value> {
        let output = Command::new("qemu-img")
            .args(arguments)
            .output()
            .expect("the oracle qemu-img is needed");
        let status = output.status;
        assert!(status.code().is_some(), "qemu-img {arguments:?}: {status}");
        status
            .success()
            .then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// As [`Scratch::json`], in this directory.
    pub fn json_there(&self, arguments: &[&str]) -> Value {
        let output = Command::new("qemu-img")
            .args(arguments)
            .current_dir(self.directory())
            .output()
            .expect("the oracle qemu-img is needed");
        assert!(output.status.success(), "qemu-img {arguments:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs `command` in qemu-io on a qcow2 image, and then ends it without closing the image.
    pub fn abort_after(&self, path: &str, command: &str) {
        let status = Command::new("qemu-io")
            .args(["-f", "qcow2", "-c", command, "-c", "abort", path])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("the oracle qemu-io is needed");
        assert!(!status.success());
    }
}
