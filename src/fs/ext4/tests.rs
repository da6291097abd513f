#![expect(clippy::disallowed_types, reason = "tests write images themselves")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::source::PlainBytes;

/// An image file with single bytes changed.
#[derive(Clone)]
pub(super) struct Disk {
    file: Arc<File>,
    /// All of the file, when it is to be read often.
    memory: Option<Arc<Vec<u8>>>,
    pub(super) size: u64,
    pub(super) patches: BTreeMap<u64, u8>,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let size = file.metadata().unwrap().len();
        Self {
            file: Arc::new(file),
            memory: None,
            size,
            patches: BTreeMap::new(),
        }
    }

    pub(super) fn in_memory(mut self) -> Self {
        self.memory = Some(Arc::new(self.bytes(0..self.size)));
        self
    }

    pub(super) fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
        self.fill(range.start, &mut bytes).unwrap();
        bytes
    }

    pub(super) fn patch(&mut self, at: u64, bytes: &[u8]) {
        self.patches.extend((at..).zip(bytes.iter().copied()));
    }

    /// Gives the superblock the checksum that it needs.
    pub(super) fn seal(&mut self) {
        let bytes = self.bytes(1024..1024 + 0x3fc);
        let sum = checksum::crc32c(checksum::START, &bytes);
        self.patch(1024 + 0x3fc, &sum.to_le_bytes());
    }

    /// As [`Disk::seal`], if it has any.
    pub(super) fn seal_if_summed(&mut self) {
        if self.bytes(1024 + 0x64..1024 + 0x68)[1] & 4 != 0 {
            self.seal();
        }
    }

    pub(super) fn superblock(&self) -> Superblock {
        Superblock::parse(&self.bytes(1024..2048), self.size).unwrap()
    }

    pub(super) fn free_space(&self) -> Result<FreeSpace, Refusal> {
        free_space(&Volume::whole(self), &FreeOptions::default())
    }

    pub(super) fn replayed(&self) -> Result<FreeSpace, Refusal> {
        let options = FreeOptions {
            replay_journal: true,
        };
        free_space(&Volume::whole(self), &options)
    }
}

impl PlainBytes for Disk {
    fn length(&self) -> u64 {
        self.size
    }

    fn fill(&self, at: u64, buf: &mut [u8]) -> crate::Result<()> {
        match &self.memory {
            Some(bytes) => {
                let from = usize::try_from(at).unwrap();
                buf.copy_from_slice(&bytes[from..from + buf.len()]);
            }
            None => self.file.read_exact_at(buf, at).unwrap(),
        }
        for (place, byte) in self.patches.range(at..at + buf.len() as u64) {
            buf[usize::try_from(place - at).unwrap()] = *byte;
        }
        Ok(())
    }
}

/// Whether there is time for everything.
pub(super) fn nightly() -> bool {
    std::env::var_os("QIMG_NIGHTLY").is_some()
}

/// Runs a tool that must be there; whether it succeeded, and what it printed.
fn run(tool: &str, arguments: &[&str], input: &str) -> (std::process::ExitStatus, String) {
    use std::io::Write;
    let mut child = Command::new(tool)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{tool} must be installed: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let feeder = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = feeder.join();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        text.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    (output.status, text)
}

/// As [`run`], and it must succeed.
pub(super) fn must(tool: &str, arguments: &[&str]) -> String {
    let (status, text) = run(tool, arguments, "");
    assert!(status.success(), "{tool} {arguments:?}: {text}");
    text
}

/// A directory with an image in it.
pub(super) struct Image {
    options: String,
    pub(super) directory: TempDir,
    pub(super) path: PathBuf,
}

impl Image {
    pub(super) fn make(size: &str, options: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("disk");
        must("truncate", &["-s", size, path.to_str().unwrap()]);
        let mut arguments = vec!["-q", "-F"];
        arguments.extend(options.split_whitespace());
        arguments.push(path.to_str().unwrap());
        must("mke2fs", &arguments);
        Self {
            options: options.to_owned(),
            directory,
            path,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    pub(super) fn disk(&self) -> Disk {
        Disk::open(&self.path)
    }

    /// Another file of the same bytes and holes.
    pub(super) fn copy(&self, name: &str) -> PathBuf {
        let to = self.directory.path().join(name);
        must(
            "cp",
            &["--sparse=always", self.name(), to.to_str().unwrap()],
        );
        to
    }

    pub(super) fn mount(&self, options: &str) -> Mount {
        let at = self.directory.path().join("mnt");
        std::fs::create_dir_all(&at).unwrap();
        let options = format!("loop,{options}");
        let options = options.trim_end_matches(',');
        let (status, text) = run(
            "mount",
            &[
                "-t",
                "ext4",
                "-o",
                options,
                self.name(),
                at.to_str().unwrap(),
            ],
            "",
        );
        assert!(
            status.success(),
            "this test needs to be root and to mount by loop: {text}"
        );
        Mount { at }
    }

    pub(super) fn debugfs(&self, commands: &str) -> String {
        let (status, text) = run("debugfs", &["-w", "-f", "-", self.name()], commands);
        assert!(status.success(), "debugfs: {text}");
        text
    }

    /// Writes files of many sizes without a mount and takes every other one away.
    fn scatter_unmounted(&self, files: usize) {
        let block = self.disk().superblock().block_size;
        let mut commands = String::new();
        for n in 0..files {
            let source = self.directory.path().join(format!("source{}", n % 7));
            let length = usize::try_from(block).unwrap() * (n % 7) * 3 + 1;
            std::fs::write(&source, vec![0x5a; length]).unwrap();
            writeln!(commands, "write {} f{n}", source.display()).unwrap();
        }
        for n in (0..files).step_by(2) {
            writeln!(commands, "rm f{n}").unwrap();
        }
        self.debugfs(&commands);
    }

    /// Both say the same, and e2fsck finds nothing wrong, not even when all that is free is zero.
    pub(super) fn assert_exact(&self) {
        let space = self.disk().free_space();
        let space = space.unwrap_or_else(|refusal| panic!("{}: {refusal}", self.options));
        assert_eq!(space.free.ranges(), dumped(&self.path), "{}", self.options);
        assert_eq!(space.note, None);
        let copy = self.copy("zeroed");
        zero(&copy, space.free.ranges());
        for path in [&self.path, &copy] {
            must("e2fsck", &["-fn", path.to_str().unwrap()]);
        }
    }
}

/// The free ranges of a filesystem in bytes, as dumpe2fs reads them.
pub(super) fn dumped(path: &Path) -> Vec<Range<u64>> {
    let disk = Disk::open(path);
    let superblock = disk.superblock();
    let dump = must("dumpe2fs", &[path.to_str().unwrap()]);
    let mut list: Vec<Range<u64>> = Vec::new();
    let lines = dump
        .lines()
        .filter_map(|line| line.strip_prefix("  Free blocks: "));
    let mut groups = 0;
    for line in lines {
        groups += 1;
        for range in line.split(", ").filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            // Of the last cluster some versions print the first block; it may reach further than the filesystem.
            let end = (last / superblock.cluster_blocks + 1) * superblock.cluster_blocks;
            let range = superblock.bytes(first..end.min(superblock.blocks));
            match list.last_mut() {
                Some(before) if before.end == range.start => before.end = range.end,
                _ => list.push(range),
            }
        }
    }
    assert_eq!(groups, superblock.groups);
    list
}

/// Makes zeros of these ranges of a file.
pub(super) fn zero(path: &Path, ranges: &[Range<u64>]) {
    use rustix::fs::{FallocateFlags, fallocate};
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    for range in ranges {
        fallocate(&file, flags, range.start, range.end - range.start).unwrap();
    }
}

/// A mounted image.
pub(super) struct Mount {
    pub(super) at: PathBuf,
}

impl Mount {
    pub(super) fn unmount(self) {
        // A child that another test forked holds this one's files until it has become another program.
        let at = self.at.to_str().unwrap();
        let mut patience = 200;
        while !run("umount", &[at], "").0.success() {
            patience -= 1;
            assert!(patience > 0, "{at} cannot be unmounted");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::mem::forget(self);
    }

    /// Writes `count` small files and takes every other one away, so that the free space lies in pieces.
    pub(super) fn scatter(&self, count: usize, size: usize) {
        let bytes = vec![0x5a; size];
        for n in 0..count {
            let directory = self.at.join(format!("d{}", n / 500));
            if n % 500 == 0 {
                std::fs::create_dir(&directory).unwrap();
            }
            std::fs::write(directory.join(format!("f{n}")), &bytes).unwrap();
        }
        must("sync", &["-f", self.at.to_str().unwrap()]);
        for n in (0..count).step_by(2) {
            std::fs::remove_file(self.at.join(format!("d{}/f{n}", n / 500))).unwrap();
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).output();
    }
}

/// Every way to lay out a filesystem that free space has to do with.
const LAYOUTS: [(&str, &str); 44] = [
    ("4M", "-r 0 -O none -b 1024"),
    ("6M", "-t ext2 -b 1024"),
    ("40M", "-t ext2 -b 2048 -O ^sparse_super,^resize_inode"),
    ("9M", "-t ext3 -b 1024"),
    ("70M", "-t ext3 -b 1024 -g 1024"),
    ("300M", "-t ext3 -b 4096"),
    ("40M", "-t ext4 -b 1024"),
    ("32769K", "-t ext4 -b 1024"),
    ("40M", "-t ext4 -b 2048 -O ^64bit"),
    ("300M", "-t ext4 -b 4096"),
    ("300M", "-t ext4 -b 4096 -O ^metadata_csum,uninit_bg,^64bit"),
    (
        "300M",
        "-t ext4 -b 4096 -O ^metadata_csum,uninit_bg,64bit -g 1024",
    ),
    (
        "300M",
        "-t ext4 -b 4096 -O ^metadata_csum,uninit_bg,^flex_bg -g 2048",
    ),
    ("300M", "-t ext4 -b 4096 -O ^metadata_csum,^uninit_bg"),
    ("80M", "-t ext4 -b 1024 -O meta_bg,^resize_inode"),
    (
        "80M",
        "-t ext4 -b 1024 -g 512 -O meta_bg,^resize_inode,^flex_bg",
    ),
    (
        "300M",
        "-t ext4 -b 4096 -O meta_bg,^resize_inode,^sparse_super -g 1024",
    ),
    (
        "80M",
        "-t ext4 -b 1024 -g 256 -O meta_bg,^resize_inode,^metadata_csum,uninit_bg",
    ),
    ("80M", "-t ext4 -O sparse_super2 -b 1024 -E num_backup_sb=1"),
    (
        "80M",
        "-t ext4 -O sparse_super2,^resize_inode -b 1024 -E num_backup_sb=2",
    ),
    ("80M", "-t ext4 -O sparse_super2 -b 1024 -E num_backup_sb=0"),
    ("200M", "-t ext4 -O bigalloc -b 4096 -C 16384"),
    ("100M", "-t ext4 -O bigalloc -b 1024 -C 16384"),
    ("100001K", "-t ext4 -O bigalloc -b 1024 -C 2048"),
    ("1G", "-t ext4 -O bigalloc -C 1048576"),
    (
        "300M",
        "-t ext4 -O bigalloc,meta_bg,^resize_inode -b 1024 -C 8192",
    ),
    (
        "300M",
        "-t ext4 -O bigalloc,^metadata_csum,uninit_bg -b 4096",
    ),
    ("300M", "-t ext4 -b 4096 -O metadata_csum_seed,orphan_file"),
    ("300M", "-t ext4 -b 4096 -O mmp"),
    (
        "300M",
        "-t ext4 -b 4096 -O quota,project,encrypt,casefold,verity,inline_data,ea_inode",
    ),
    (
        "300M",
        "-t ext4 -b 4096 -O large_dir,stable_inodes,dir_index,huge_file",
    ),
    ("3G", "-t ext4 -b 65536"),
    ("1G", "-t ext4 -b 65536 -O ^has_journal,bigalloc -C 262144"),
    ("300M", "-t ext4 -b 16384"),
    ("300M", "-t ext4 -b 8192 -O ^flex_bg"),
    ("33000K", "-t ext4 -b 1024 -O ^has_journal -N 64"),
    ("300M", "-t ext4 -b 4096 -G 4 -O fast_commit"),
    ("300M", "-t ext4 -b 4096 -E resize=4G -I 1024 -i 4096"),
    ("300M", "-t ext4 -b 1024 -E resize=40G,packed_meta_blocks=1"),
    ("20G", "-t ext4 -E lazy_itable_init=1"),
    ("300M", "-t ext4 -T small"),
    ("300M", "-t ext4 -b 4096 -O ^flex_bg,64bit -g 4096"),
    ("300M", "-t ext4 -b 4096 -E desc_size=128"),
    ("300M", "-t ext4 -b 1024 -E desc_size=1024 -J size=32"),
];

#[test]
fn every_layout_is_read_exactly() {
    for (n, (size, options)) in LAYOUTS.into_iter().enumerate() {
        let image = Image::make(size, options);
        // debugfs does not keep quotas.
        let quota = options.contains("quota");
        if nightly() || n % 2 == 0 || quota {
            image.assert_exact();
        }
        if !quota && (nightly() || n % 2 == 1) {
            image.scatter_unmounted(60);
            image.assert_exact();
        }
    }
}

/// New, scattered, grown, and at last almost full, as the kernel does these.
#[test]
fn what_the_kernel_wrote_is_read_exactly() {
    let mountable = LAYOUTS.into_iter().filter(|(_, options)| {
        let large = ["65536", "16384", "8192 -O ^flex_bg", "casefold", "20G"];
        !large.iter().any(|part| options.contains(part))
    });
    let step = if nightly() { 1 } else { 6 };
    for (size, options) in mountable.step_by(step) {
        let image = Image::make(size, options);
        let superblock = image.disk().superblock();
        let block = usize::try_from(superblock.block_size * superblock.cluster_blocks).unwrap();
        let mount = image.mount("");
        let room = dumped(&image.path)
            .iter()
            .map(|range| range.end - range.start)
            .sum::<u64>();
        let files = usize::try_from(room / 3).unwrap() / (block + 1024);
        mount.scatter(
            files
                .min(2000)
                .min(usize::try_from(superblock.inodes / 2).unwrap()),
            block,
        );
        mount.unmount();
        image.assert_exact();
        let mount = image.mount("");
        for size in ["20m", "4m", "64k", "4k"] {
            // Fails once there is no room; that is what it is for.
            for n in 0..20 {
                let name = mount.at.join(format!("fill-{size}-{n}"));
                let _ = run("fallocate", &["-l", size, name.to_str().unwrap()], "");
            }
        }
        mount.unmount();
        image.assert_exact();
    }
}

/// resize2fs adds and takes groups, and gives them descriptors where the plain layout has none.
#[test]
fn what_was_resized_is_read_exactly() {
    for (options, sizes) in [
        ("-t ext4 -b 1024", ["200M", "33M"]),
        (
            "-t ext4 -b 1024 -O ^resize_inode,meta_bg,^flex_bg",
            ["300M", "64M"],
        ),
        (
            "-t ext4 -b 4096 -O ^metadata_csum,uninit_bg",
            ["2G", "100M"],
        ),
        (
            "-t ext4 -b 1024 -O sparse_super2 -E num_backup_sb=2",
            ["150M", "60M"],
        ),
        ("-t ext4 -b 1024 -E resize=100M", ["600M", "40M"]),
    ] {
        let image = Image::make("80M", options);
        image.scatter_unmounted(40);
        for size in sizes {
            must("truncate", &["-s", "3G", image.name()]);
            must("e2fsck", &["-fp", image.name()]);
            must("resize2fs", &["-f", image.name(), size]);
            image.assert_exact();
        }
    }
}

impl Mount {
    fn scatter_once(&self, name: &str) {
        let directory = self.at.join(name);
        std::fs::create_dir(&directory).unwrap();
        for n in 0..300 {
            std::fs::write(directory.join(format!("f{n}")), vec![0x5a; 3000 + n]).unwrap();
        }
        for n in (0..300).step_by(3) {
            std::fs::remove_file(directory.join(format!("f{n}"))).unwrap();
        }
    }
}

/// A large filesystem, new and half full, takes neither long nor much memory.
#[test]
fn a_tebibyte_is_read_at_once() {
    let image = Image::make(
        "1T",
        "-t ext4 -E lazy_itable_init=1,lazy_journal_init=1 -m 0",
    );
    let new = image.disk().free_space().unwrap();
    assert_eq!(new.free.ranges(), dumped(&image.path));
    let mount = image.mount("");
    for n in 0..8 {
        let name = mount.at.join(format!("half{n}"));
        must("fallocate", &["-l", "64G", name.to_str().unwrap()]);
        mount.scatter_once(&format!("d{n}"));
    }
    mount.unmount();
    let disk = image.disk();
    let started = Instant::now();
    let half = disk.free_space().unwrap();
    let taken = started.elapsed();
    assert!(half.free.total() < new.free.total() - (512 << 30));
    assert_eq!(half.free.ranges(), dumped(&image.path));
    assert!(taken < Duration::from_secs(5), "{taken:?}");
}
