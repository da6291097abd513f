//! Runs qimg and qemu-img, and looks at what they said.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a program left behind.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("stdout is text"),
            err: String::from_utf8(output.stderr).expect("stderr is text"),
        }
    }
}

impl Said {
    /// Exit code 0 and nothing on stderr; hands out stdout.
    #[track_caller]
    pub fn well(self) -> String {
        assert_eq!(
            (self.code, self.err.as_str()),
            (Some(0), ""),
            "{}",
            self.out
        );
        self.out
    }

    /// This exit code and nothing on stdout; hands out stderr.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(
            (self.code, self.out.as_str()),
            (Some(code), ""),
            "{}",
            self.err
        );
        self.err
    }

    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// `qimg`, not started yet, in the directory of the test images.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qimg"));
    command.current_dir(testdata());
    command
}

pub fn qimg<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Said {
    command().args(args).output().expect("qimg runs").into()
}

/// The real one, in the same directory; it tells dates in UTC, as qimg does.
pub fn qemu_img<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Said {
    let mut command = Command::new("qemu-img");
    command.current_dir(testdata()).env("TZ", "UTC").args(args);
    command.output().expect("qemu-img runs").into()
}

/// The directory of the test images.
pub fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// The names of all test images that `wanted` asks for.
pub fn images(wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = testdata().read_dir().expect("the test images are there");
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter(|name| (name.ends_with(".qcow2") || name.ends_with(".raw")) && wanted(name))
        .collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

/// An empty directory, and the path of a file in it that is not there yet.
pub fn scratch(name: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory
        .path()
        .join(name)
        .into_os_string()
        .into_string()
        .unwrap();
    (directory, path)
}
