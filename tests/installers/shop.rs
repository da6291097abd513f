//! A directory in which builds run, and the guest that asks questions.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the guests' files are; made once by tests/guest/questions-guest.
pub fn cache() -> PathBuf {
    let cache = std::env::var_os("QIMG_TEST_CACHE").map_or_else(
        || {
            let home = PathBuf::from(std::env::var_os("HOME").expect("there is a home"));
            home.join(".cache/qimg-tests")
        },
        PathBuf::from,
    );
    let medium = cache.join("questions/begin.iso");
    assert!(
        medium.is_file(),
        "{medium:?} is missing; tests/guest/questions-guest makes it"
    );
    cache
}

/// Words that the small guest's kernel begins with.
pub fn append() -> String {
    let append = std::fs::read_to_string(cache().join("small/append")).unwrap();
    append.trim().to_owned()
}

/// How a build ended, and what it said.
pub struct Ended {
    pub code: i32,
    pub said: String,
}

impl Ended {
    #[track_caller]
    pub fn well(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.said);
        self
    }

    #[track_caller]
    pub fn has(&self, words: &str) -> &Self {
        assert!(
            self.said.contains(words),
            "not said: {words}\n{}",
            self.said
        );
        self
    }

    #[track_caller]
    pub fn has_not(&self, words: &str) -> &Self {
        assert!(!self.said.contains(words), "said: {words}\n{}", self.said);
        self
    }
}

pub struct Shop {
    top: tempfile::TempDir,
}

impl Shop {
    pub fn new() -> Self {
        let top = tempfile::Builder::new().prefix("shop-").tempdir().unwrap();
        for name in ["here", "home", "state", "cache"] {
            std::fs::create_dir(top.path().join(name)).unwrap();
        }
        Self { top }
    }

    /// A path in the directory where builds run.
    pub fn path(&self, name: &str) -> PathBuf {
        self.top.path().join("here").join(name)
    }

    /// Where runs keep logs and pictures.
    pub fn runs(&self) -> PathBuf {
        self.top.path().join("state/qimg/runs")
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// `qimg` in this directory, with nothing of the environment but what a build needs.
    pub fn qimg(&self, args: &[&str]) -> Ended {
        let output = Command::new(env!("CARGO_BIN_EXE_qimg"))
            .args(args)
            .current_dir(self.path(""))
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap())
            .env("HOME", self.top.path().join("home"))
            .env("XDG_STATE_HOME", self.top.path().join("state"))
            .env("QIMG_CACHE", self.top.path().join("cache"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        Ended {
            code: output.status.code().unwrap_or(-1),
            said,
        }
    }

    /// Runs a build of this template.
    pub fn build(&self, name: &str, text: &str, args: &[&str]) -> Ended {
        self.write(name, text);
        let mut all = vec!["build"];
        all.extend(args);
        all.push(name);
        self.qimg(&all)
    }

    /// The first bytes of an image's disk.
    pub fn disk_start(&self, image: &str, most: usize) -> Vec<u8> {
        let raw = self.path("disk.raw");
        tool(
            Command::new("qemu-img")
                .args(["convert", "-O", "raw"])
                .arg(self.path(image))
                .arg(&raw),
        );
        let mut bytes = std::fs::read(&raw).unwrap();
        std::fs::remove_file(raw).unwrap();
        bytes.truncate(most);
        bytes
    }
}

/// Runs a tool that must succeed; what it printed.
#[track_caller]
pub fn tool(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// SHA-256 of a file, by coreutils.
pub fn sha256(path: &Path) -> String {
    let said = tool(Command::new("sha256sum").arg(path));
    said.split_whitespace().next().unwrap().to_owned()
}

/// Processes that keep this machine's processors busy, until this goes.
pub struct Load(Vec<std::process::Child>);

impl Load {
    pub fn of(count: usize) -> Self {
        let busy = |_| {
            Command::new("sh")
                .args(["-c", "while :; do :; done"])
                .spawn()
                .unwrap()
        };
        Self((0..count).map(busy).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
