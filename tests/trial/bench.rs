//! Runs `qimg test` in a place of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// A directory for one test, with its own state of the user.
pub struct Bench {
    directory: tempfile::TempDir,
}

/// What came of a run.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// An image of the test cache.
pub fn image(name: &str) -> PathBuf {
    let cache = std::env::var_os("QIMG_TEST_CACHE").map_or_else(
        || {
            PathBuf::from(std::env::var_os("HOME").expect("there is a home"))
                .join(".cache/qimg-tests")
        },
        PathBuf::from,
    );
    let image = cache.join(name);
    assert!(
        image.is_file(),
        "{image:?} is missing; tests/guest makes it"
    );
    image
}

impl Bench {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("qt")
            .tempdir_in("/tmp")
            .unwrap();
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// `qimg test`, not started yet.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qimg"));
        command
            .arg("test")
            .current_dir(self.directory.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .env("QIMG_CACHE", self.path("cache"))
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null());
        command
    }

    pub fn test(&self, arguments: &[&str]) -> Said {
        let output = self.command().args(arguments).output().unwrap();
        Said {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("stdout is text"),
            err: String::from_utf8(output.stderr).expect("stderr is text"),
        }
    }

    /// Files of runs that are left, by name.
    pub fn left(&self) -> Vec<String> {
        fn walk(directory: &Path, names: &mut Vec<String>) {
            let Ok(entries) = std::fs::read_dir(directory) else {
                return;
            };
            for entry in entries {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, names);
                } else {
                    names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        let mut names = Vec::new();
        walk(&self.path("state"), &mut names);
        names.sort();
        names
    }
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Each result as `Type id property`, and whether it is as expected.
    pub fn results(&self) -> Vec<(String, bool, String)> {
        self.json()["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| {
                let text = |name: &str| result[name].as_str().unwrap_or_default();
                let name = format!(
                    "{} {} {}",
                    text("resource-type"),
                    text("resource-id"),
                    text("property")
                );
                (
                    name,
                    result["successful"] == true,
                    text("summary-line").to_owned(),
                )
            })
            .collect()
    }
}
