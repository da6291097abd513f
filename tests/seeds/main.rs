//! Seeds as others see them: the tools that read volumes, cloud-init itself, and what cloud-localds makes.

#[expect(dead_code, reason = "the program's own tests need all of it")]
#[path = "../cli/program.rs"]
mod program;

mod composed;
mod foreign;
mod served;
mod verdicts;
mod volumes;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory for one test, with user-data in it.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        bench.file(
            "user-data",
            "#cloud-config\nruncmd:\n  - [touch, /tmp/seeded]\n",
        );
        bench
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path().join(name)).unwrap()
    }

    /// `qimg` in this directory.
    fn qimg(&self, arguments: &[&str]) -> program::Said {
        let mut command = program::command();
        command
            .current_dir(self.path())
            .args(arguments)
            .env_remove("SOURCE_DATE_EPOCH");
        command.output().unwrap().into()
    }

    /// Another tool in this directory, which must succeed; what it says on stdout.
    #[track_caller]
    fn tool(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.run(name, arguments);
        assert!(
            output.status.success(),
            "{name} {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Output {
        let path = format!(
            "{}:/usr/sbin:/sbin",
            std::env::var("PATH").unwrap_or_default()
        );
        let mut command = Command::new(name);
        command
            .args(arguments)
            .current_dir(self.path())
            .env("PATH", path)
            .env("LC_ALL", "C.UTF-8");
        command
            .output()
            .unwrap_or_else(|error| panic!("{name} must be installed: {error}"))
    }
}
