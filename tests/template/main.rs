//! Templates beside Packer itself: the same values, the same verdicts, and what is known to differ.

mod console;
mod convert;
mod inspect;
mod mistakes;
mod mutations;
mod native;
mod shapes;
mod traps;
mod verdicts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use qimg::template::model::{Build, Scripts, Text};
use qimg::template::{GivenFile, LoadRequest, Loaded, load};

/// A directory for one test.
struct Bench(tempfile::TempDir);

/// Random bytes that are none.
fn fixed() -> [u8; 12] {
    [7; 12]
}

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, contents).unwrap();
        path
    }

    /// A request for the template `name` in this directory.
    fn request(&self, name: &str) -> LoadRequest<'static> {
        LoadRequest {
            path: name.into(),
            bytes: Some(std::fs::read(self.path().join(name)).unwrap()),
            var_files: Vec::new(),
            variables: Vec::new(),
            only: Vec::new(),
            except: Vec::new(),
            environment: BTreeMap::new(),
            directory: self.path().to_owned(),
            started: Duration::new(1_700_000_000, 123_456_789),
            random: &fixed,
        }
    }

    /// Loads `text` as the file `name`.
    fn load(&self, name: &str, text: &str) -> qimg::Result<Loaded> {
        self.file(name, text);
        load(&self.request(name))
    }

    /// The only build of `text`, which must be without fault.
    #[track_caller]
    fn build(&self, name: &str, text: &str) -> Build {
        let loaded = self
            .load(name, text)
            .unwrap_or_else(|error| panic!("{error}: {:?}", error.remedy()));
        assert_eq!(loaded.template.builds.len(), 1);
        loaded.template.builds.into_iter().next().unwrap()
    }

    /// What is said of `text` when it does not load, with the remedy behind it.
    #[track_caller]
    fn refused(&self, name: &str, text: &str) -> String {
        let error = self
            .load(name, text)
            .and_then(|loaded| loaded.usable())
            .expect_err(text);
        format!("{error} | {}", error.remedy().unwrap_or(""))
    }

    /// Messages of findings.
    #[track_caller]
    fn findings(&self, name: &str, text: &str) -> Vec<String> {
        let loaded = self
            .load(name, text)
            .unwrap_or_else(|error| panic!("{error}"));
        let findings = loaded.findings.into_iter();
        findings
            .map(|finding| {
                format!(
                    "{}:{} {:?}: {} | {}",
                    finding.line, finding.column, finding.severity, finding.message, finding.remedy
                )
            })
            .collect()
    }

    /// Packer in this directory.
    fn packer(&self, arguments: &[&str], input: &str) -> Output {
        use std::io::Write;
        let mut child = Command::new("packer")
            .args(arguments)
            .current_dir(self.path())
            .env("CHECKPOINT_DISABLE", "1")
            .env("PACKER_NO_COLOR", "1")
            .env("PACKER_CACHE_DIR", self.path().join("packer-cache"))
            .env("PACKER_CONFIG_DIR", self.path())
            .env("HOME", self.path())
            .env("TMPDIR", self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("packer must be installed: {error}"));
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }
}

/// A template in a file that somebody gives.
fn var_file(name: &str, text: &str) -> GivenFile {
    GivenFile {
        path: name.into(),
        bytes: Some(text.as_bytes().to_vec()),
    }
}

/// A qemu builder that wants nothing more, with `more` options in front.
fn builder(more: &str) -> String {
    format!(
        r#"{{{more} "type": "qemu", "iso_url": "base.qcow2", "iso_checksum": "{}", "disk_image": true, "ssh_username": "root"}}"#,
        "0".repeat(64)
    )
}

/// The lines of an inline script.
fn inline(scripts: &Scripts) -> Vec<String> {
    match scripts {
        Scripts::Inline(lines) => lines.iter().map(text).collect(),
        Scripts::Files(_) => panic!("no inline script"),
    }
}

fn text(text: &Text) -> String {
    text.as_literal()
        .unwrap_or_else(|| panic!("{text:?} waits for something"))
}
