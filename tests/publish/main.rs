//! What is published arrives as it was, whatever happens on the way: against a real S3 server, against a cloud made of its
//! documentation, and in directories.

mod cloud;
mod directories;
mod instances;
mod jobs;
mod listing;
#[path = "../oracle_tools/mod.rs"]
mod oracle_tools;
mod puts;
mod servers;
mod templates;
mod uploads;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use qimg::fetch::HttpOptions;

/// Bytes that repeat nowhere, the same ones for the same seed.
fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Tries that follow one another quickly.
fn http() -> HttpOptions {
    HttpOptions {
        retries: 20,
        retry_pause: Duration::from_millis(100),
        ..HttpOptions::default()
    }
}

/// The program in a home of its own, with keys in its environment.
#[derive(Debug)]
struct Program {
    home: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Program {
    fn new() -> Self {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Self {
            home: tempfile::tempdir().unwrap(),
            variables: vec![
                variable("AWS_ACCESS_KEY_ID", servers::KEY),
                variable("AWS_SECRET_ACCESS_KEY", servers::SECRET),
            ],
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A file in its home.
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    fn unset(&mut self, name: &str) {
        self.variables.retain(|(known, _)| known != name);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qimg"));
        command
            .args(arguments)
            .current_dir(self.home.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Exit code 0; the result as JSON.
    #[track_caller]
    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// This exit code; what it said on stderr.
    #[track_caller]
    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    }
}

/// By the tool that everybody has.
fn sum(tool: &str, path: &Path) -> String {
    let output = oracle_tools::must(Path::new("/"), tool, &[path.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().to_owned()
}
