//! Foreign tools, mounts, and trees of files to compare.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A command as root, whoever runs the tests.
pub fn root(program: &str) -> Command {
    let path = format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    );
    let mut command = if nix::unistd::geteuid().is_root() {
        Command::new(program)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", program]);
        sudo
    };
    command.env("PATH", path).env("LC_ALL", "C.UTF-8");
    command.env("MTOOLS_SKIP_CHECK", "1").stdin(Stdio::null());
    command
}

/// Runs a tool that must succeed; hands out what it says.
#[track_caller]
pub fn must(words: &[&str]) -> String {
    let output = run(words);
    assert!(
        output.status.success(),
        "{words:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a tool, which must be there.
#[track_caller]
pub fn run(words: &[&str]) -> Output {
    let (program, arguments) = words.split_first().unwrap();
    root(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("the oracle {program} is needed: {error}"))
}

/// A sparse file of `size` bytes.
pub fn sparse(path: &Path, size: u64) {
    std::fs::File::create(path).unwrap().set_len(size).unwrap();
}

/// Writes `bytes` into a file that is there.
pub fn patch(path: &Path, at: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// `length` bytes of a file.
pub fn peek(path: &Path, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let file = std::fs::File::open(path).unwrap();
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

/// Copies `source` into `disk` at `at`, holes left out.
pub fn place(source: &Path, disk: &Path, at: u64) {
    must(&[
        "dd",
        &format!("if={}", source.display()),
        &format!("of={}", disk.display()),
        "bs=64K",
        "oflag=seek_bytes",
        &format!("seek={at}"),
        "conv=sparse,notrunc",
        "status=none",
    ]);
}

/// A mounted filesystem; unmounted when dropped.
pub struct Mount {
    directory: tempfile::TempDir,
    device: Option<String>,
}

impl Mount {
    /// Mounts the filesystem in `file` by a loop device, with the kernel's own driver.
    #[track_caller]
    pub fn new(file: &Path, options: &str) -> Self {
        let device = must(&["losetup", "--find", "--show", file.to_str().unwrap()]);
        let device = device.trim().to_owned();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let output = run(&["mount", "-o", options, &device, path]);
        if !output.status.success() {
            must(&["losetup", "--detach", &device]);
            panic!("mount: {}", String::from_utf8_lossy(&output.stderr));
        }
        Self {
            directory,
            device: Some(device),
        }
    }

    /// Mounts NTFS by FUSE.
    #[track_caller]
    pub fn ntfs(file: &Path) -> Self {
        let mount = Self {
            directory: tempfile::tempdir().unwrap(),
            device: None,
        };
        let directory = mount.path().to_str().unwrap();
        must(&["ntfs-3g", file.to_str().unwrap(), directory]);
        mount
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let directory = self.path().to_str().unwrap().to_owned();
        // A child that another test is starting may hold the directory for a moment.
        let tries = (0..50).any(|_| {
            let done = run(&["umount", &directory]).status.success();
            if !done {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            done
        });
        assert!(tries, "{directory} cannot be unmounted");
        if let Some(device) = &self.device {
            must(&["losetup", "--detach", device]);
        }
    }
}

/// What a name in a tree is: its kind, mode and size, and a hash of what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thing {
    kind: char,
    mode: u32,
    size: u64,
    hash: u32,
}

/// All names below `directory`.
pub fn tree(directory: &Path) -> BTreeMap<PathBuf, Thing> {
    let mut things = BTreeMap::new();
    collect(directory, directory, &mut things);
    things
}

fn collect(top: &Path, directory: &Path, things: &mut BTreeMap<PathBuf, Thing>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(top).unwrap().to_owned();
        let (kind, bytes) = if metadata.is_dir() {
            ('d', Vec::new())
        } else if metadata.is_symlink() {
            let target = std::fs::read_link(&path).unwrap();
            ('l', target.to_str().unwrap().as_bytes().to_vec())
        } else if metadata.is_file() {
            ('f', std::fs::read(&path).unwrap())
        } else {
            ('s', Vec::new())
        };
        things.insert(
            name,
            Thing {
                kind,
                mode: metadata.mode(),
                size: if kind == 'd' { 0 } else { metadata.len() },
                hash: crc32fast::hash(&bytes),
            },
        );
        if kind == 'd' {
            collect(top, &path, things);
        }
    }
}

/// What every deleted file holds, so that it can be looked for afterwards.
pub const SECRET: &[u8; 16] = b"deleted-secret: ";

/// Whether anything in `file` still tells of a deleted file.
pub fn tells_secrets(file: &Path) -> bool {
    let bytes = std::fs::read(file).unwrap();
    bytes
        .chunks(512)
        .any(|sector| sector.windows(SECRET.len()).any(|window| window == SECRET))
}

/// Fills `directory` as use does: files of all sizes come and go, some stay.
pub fn fill(directory: &Path, seed: u64) {
    let mut random = Random(seed | 1);
    let mut gone = Vec::new();
    for number in 0..160_u64 {
        let folder = directory.join(format!("folder-{}", number % 7));
        std::fs::create_dir_all(&folder).unwrap();
        let size = [700, 5_000, 30_000, 90_000, 400_000][random.below(5)] + random.below(4096);
        let path = folder.join(format!("file with a long name, number {number}.bin"));
        if number % 2 == 0 {
            std::fs::write(&path, random.bytes(size)).unwrap();
        } else {
            let secret = SECRET.repeat(size.div_ceil(SECRET.len()));
            std::fs::write(&path, secret).unwrap();
            gone.push(path);
        }
    }
    must(&["sync", "-f", directory.to_str().unwrap()]);
    for path in gone {
        std::fs::remove_file(path).unwrap();
    }
    // What comes afterwards takes some of the places.
    for number in 0..10_u64 {
        std::fs::write(
            directory.join(format!("later-{number}")),
            random.bytes(20_000),
        )
        .unwrap();
    }
}

/// Numbers that look random, the same each time.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
