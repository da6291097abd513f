//! A directory with a template of the small guest, a cache and runs of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where the small guest's files are; made once by tests/guest/small-guest.
pub fn small() -> PathBuf {
    let cache = std::env::var_os("QIMG_TEST_CACHE").map_or_else(
        || {
            let home = PathBuf::from(std::env::var_os("HOME").expect("there is a home"));
            home.join(".cache/qimg-tests")
        },
        PathBuf::from,
    );
    let kernel = cache.join("small/vmlinux");
    assert!(
        kernel.is_file(),
        "{kernel:?} is missing; tests/guest/small-guest makes it"
    );
    cache
}

pub struct World {
    pub directory: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A template whose steps are these tables.
    pub fn template(&self, name: &str, cache: &str, steps: &str) {
        let small = small();
        let append = std::fs::read_to_string(small.join("small/append")).unwrap();
        let path = |name: &str| small.join(name).to_str().unwrap().to_owned();
        let arguments = serde_json::to_string(&[
            ["-kernel".to_owned(), path("small/vmlinux")],
            ["-initrd".to_owned(), path("small/initrd")],
            [
                "-append".to_owned(),
                format!("{} root=/dev/vda1", append.trim()),
            ],
        ])
        .unwrap();
        let text = format!(
            "[base]\nimage = {:?}\nchecksum = \"none\"\n\
             [machine]\naccelerator = \"tcg\"\nmemory = \"256M\"\ncpus = 1\nqemu-args = {arguments}\n\
             [ssh]\nusername = \"root\"\n[shutdown]\ncommand = \"poweroff\"\n\
             [output]\ndirectory = \"output-{name}\"\nname = \"disk.qcow2\"\ncompression = \"none\"\n\
             [cache]\nafter = \"0s\"\n{cache}\n{steps}",
            path("small.qcow2")
        );
        std::fs::write(self.at(&format!("{name}.toml")), text).unwrap();
    }

    /// Writes `to` in a template in the one place where `from` stands.
    #[track_caller]
    pub fn change(&self, name: &str, from: &str, to: &str) {
        let path = self.at(&format!("{name}.toml"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from}: {text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    }

    /// Takes the kernel out of a template: the disk has one of its own.
    pub fn boots_by_itself(&self, name: &str) {
        let path = self.at(&format!("{name}.toml"));
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with("qemu-args"));
        let lines: Vec<&str> = lines.collect();
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qimg"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env("QIMG_CACHE", self.at("cache"))
            .env("XDG_STATE_HOME", self.at("state"))
            .stdin(Stdio::null());
        command
    }

    pub fn qimg(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().unwrap().into()
    }

    /// Builds, and hands out all that was said.
    #[track_caller]
    pub fn build(&self, name: &str, more: &[&str]) -> String {
        let template = format!("{name}.toml");
        let mut arguments = vec!["build", "--force", template.as_str()];
        arguments.extend(more);
        let said = self.qimg(&arguments);
        assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
        said.out
    }

    /// All files of the artifact below `place` with their bytes.
    pub fn tree(&self, name: &str, place: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let to = tempfile::tempdir_in(self.directory.path()).unwrap();
        let to = to.path().join("tree");
        let from = format!("output-{name}/disk.qcow2:{place}");
        let said = self.qimg(&["cp", "-r", &from, to.to_str().unwrap()]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        let mut files = BTreeMap::new();
        collect(&to, &to, &mut files);
        files
    }

    /// States that are kept: after what, and where.
    pub fn states(&self) -> Vec<(String, PathBuf)> {
        let said = self.qimg(&["cache", "list", "--json"]);
        let all: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        let all = all.as_array().unwrap().iter();
        all.filter(|item| item["kind"] == "state" && item["whole"] == true)
            .map(|item| {
                let text = item["text"].as_str().unwrap().to_owned();
                (text, PathBuf::from(item["path"].as_str().unwrap()))
            })
            .collect()
    }
}

fn collect(top: &Path, directory: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(top).unwrap().to_owned();
        if path.is_symlink() {
            let to = std::fs::read_link(&path).unwrap();
            files.insert(name, to.into_os_string().into_encoded_bytes());
        } else if path.is_dir() {
            collect(top, &path, files);
        } else {
            files.insert(name, std::fs::read(&path).unwrap());
        }
    }
}

pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
