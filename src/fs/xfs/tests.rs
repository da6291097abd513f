#![expect(clippy::disallowed_types, reason = "tests write images themselves")]

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::source::PlainBytes;

/// An image file with single bytes changed.
#[derive(Clone)]
pub(super) struct Disk {
    file: Arc<File>,
    /// All of the file, when it is to be read often.
    bytes: Option<Arc<Vec<u8>>>,
    pub(super) size: u64,
    pub(super) patches: BTreeMap<u64, u8>,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let size = file.metadata().unwrap().len();
        Self {
            file: Arc::new(file),
            bytes: None,
            size,
            patches: BTreeMap::new(),
        }
    }

    pub(super) fn in_memory(mut self) -> Self {
        self.bytes = Some(Arc::new(self.bytes(0..self.size)));
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

    /// Gives the block at `at` the checksum that it needs.
    pub(super) fn seal(&mut self, block: Range<u64>, crc_at: u64) {
        let at = usize::try_from(crc_at).unwrap();
        let mut bytes = self.bytes(block.clone());
        bytes[at..at + 4].fill(0);
        self.patch(block.start + crc_at, &crc32c::crc32c(&bytes).to_le_bytes());
    }

    pub(super) fn free_space(&self) -> Result<FreeSpace, Refusal> {
        free_space(&Volume::whole(self), &FreeOptions::default())
    }
}

impl PlainBytes for Disk {
    fn length(&self) -> u64 {
        self.size
    }

    fn fill(&self, at: u64, buf: &mut [u8]) -> crate::Result<()> {
        match &self.bytes {
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

/// Runs a tool that must be there and must succeed; what it printed.
pub(super) fn must(tool: &str, arguments: &[&str]) -> String {
    fed(tool, arguments, "")
}

/// As [`must`], with this on its standard input.
pub(super) fn fed(tool: &str, arguments: &[&str], input: &str) -> String {
    use std::io::Write;
    // The three names let mkfs.xfs make filesystems smaller than 300 MB.
    let mut child = Command::new(tool)
        .args(arguments)
        .envs(["TEST_DIR", "TEST_DEV", "QA_CHECK_FS"].map(|name| (name, "1")))
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
    assert!(
        output.status.success(),
        "{tool} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A directory with an image in it.
pub(super) struct Image {
    pub(super) directory: TempDir,
    pub(super) path: PathBuf,
}

impl Image {
    pub(super) fn make(size: &str, options: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("disk");
        must("truncate", &["-s", size, path.to_str().unwrap()]);
        let mut arguments = vec!["-q", "-f"];
        arguments.extend(options.split_whitespace());
        arguments.push(path.to_str().unwrap());
        must("mkfs.xfs", &arguments);
        Self { directory, path }
    }

    pub(super) fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    pub(super) fn mount(&self, options: &str) -> Mount {
        let at = self.directory.path().join("mnt");
        std::fs::create_dir_all(&at).unwrap();
        let options = format!("loop,{options}");
        must(
            "mount",
            &[
                "-t",
                "xfs",
                "-o",
                options.trim_end_matches(','),
                self.name(),
                at.to_str().unwrap(),
            ],
        );
        Mount { at }
    }

    pub(super) fn disk(&self) -> Disk {
        Disk::open(&self.path)
    }

    pub(super) fn db(&self, commands: &str) -> String {
        fed("xfs_db", &["-r", self.name()], commands)
    }

    /// The free extents in bytes, as xfs_db reads them from both trees.
    pub(super) fn expected(&self) -> Vec<Range<u64>> {
        let superblock = Superblock::read(&Volume::whole(&self.disk())).unwrap();
        let mut free = [Vec::new(), Vec::new()];
        for (root, free) in ["bnoroot", "cntroot"].iter().zip(&mut free) {
            for ag in 0..superblock.ag_count {
                let dump = self.db(&format!("agf {ag}\naddr {root}\nbtdump\n"));
                let records = dump.split_whitespace().filter(|word| word.ends_with(']'));
                let mut seen = 0_u64;
                for record in records.filter_map(|word| word.split_once(":[")) {
                    let (start, count) = record.1.trim_end_matches(']').split_once(',').unwrap();
                    // Keys of nodes look like records; only leaves come after "recs".
                    let (start, count): (u64, u64) =
                        (start.parse().unwrap(), count.parse().unwrap());
                    let start = (ag * superblock.ag_blocks + start) * superblock.block_size;
                    free.push(start..start + count * superblock.block_size);
                    seen += count;
                }
                let header = self.db(&format!("agf {ag}\np freeblks\n"));
                assert_eq!(header.trim(), format!("freeblks = {seen}"));
            }
            free.sort_by_key(|range| range.start);
        }
        let [free, same] = free;
        assert_eq!(free, same);
        joined(free)
    }

    /// Both say the same, and xfs_repair finds nothing wrong.
    pub(super) fn assert_exact(&self) {
        let space = self.disk().free_space().unwrap();
        assert_eq!(space.free.ranges(), self.expected());
        must("xfs_repair", &["-n", self.name()]);
    }
}

/// Extents that touch where two groups meet are one range.
fn joined(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut list: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match list.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => list.push(range),
        }
    }
    list
}

/// A mounted image.
pub(super) struct Mount {
    pub(super) at: PathBuf,
}

impl Mount {
    pub(super) fn unmount(self) {
        // A child that another test forked holds this one's files until it has become another program.
        let busy = |at: &str| {
            let status = Command::new("umount")
                .arg(at)
                .stderr(Stdio::null())
                .status();
            !status.unwrap().success()
        };
        let at = self.at.to_str().unwrap();
        let mut patience = 100;
        while patience > 0 && busy(at) {
            patience -= 1;
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(patience > 0, "{at} cannot be unmounted");
        std::mem::forget(self);
    }

    /// Writes `count` small files and takes every other one away, so that the free space lies in pieces.
    pub(super) fn scatter(&self, count: usize, size: usize) {
        let bytes = vec![0x5a; size];
        for n in 0..count {
            let directory = self.at.join(format!("d{}", n / 1000));
            if n % 1000 == 0 {
                std::fs::create_dir(&directory).unwrap();
            }
            std::fs::write(directory.join(format!("f{n}")), &bytes).unwrap();
        }
        must("sync", &["-f", self.at.to_str().unwrap()]);
        for n in (0..count).step_by(2) {
            std::fs::remove_file(self.at.join(format!("d{}/f{n}", n / 1000))).unwrap();
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).output();
    }
}

/// What xfs_logprint says of the log.
pub(super) fn log_is_clean(image: &Image) -> bool {
    let print = must("xfs_logprint", &["-t", image.name()]);
    let state = print.lines().find(|line| line.contains("state: <"));
    match state.and_then(|line| line.split('<').nth(1)) {
        Some("CLEAN>") => true,
        Some("DIRTY>") => false,
        _ => panic!("no state in {print}"),
    }
}

/// Makes each kind of filesystem that the kernel mounts, and looks at it new, scattered and, at last, almost full.
#[test]
fn every_kind_of_v5_is_read_exactly() {
    let kinds = [
        ("160M", ""),
        ("160M", "-m rmapbt=1,reflink=0 -l size=20m"),
        (
            "150M",
            "-m finobt=0,inobtcount=0,bigtime=0,reflink=0 -n ftype=1 -l size=20m",
        ),
        (
            "160M",
            "-m bigtime=1,inobtcount=1 -i nrext64=1,sparse=1,size=1024 -l size=20m",
        ),
        (
            "160M",
            "-b size=1024 -m rmapbt=1,reflink=1 -s size=512 -l size=20m",
        ),
        ("160M", "-b size=2048 -i sparse=0 -l size=20m"),
        ("160M", "-b size=8192 -m rmapbt=1 -l size=33m"),
        ("300M", "-b size=65536 -l size=64m"),
        ("160M", "-s size=4096 -l size=20m"),
        ("160M", "-s size=1024 -b size=1024 -n size=8192 -l size=20m"),
        ("700M", "-d agcount=40 -l size=10m"),
        ("117M", "-d agsize=33m -l size=20m"),
        ("160M", "-d agcount=3 -l su=32k,agnum=1,size=20m"),
        ("120M", "-l su=256k,size=24m"),
        ("160M", "-l sunit=8,size=16m -d su=64k,sw=2"),
    ];
    let step = if nightly() { 1 } else { 2 };
    for (size, options) in kinds.into_iter().step_by(step) {
        let image = Image::make(size, options);
        image.assert_exact();
        let superblock = Superblock::read(&Volume::whole(&image.disk())).unwrap();
        let block = usize::try_from(superblock.block_size).unwrap();
        let mount = image.mount("");
        mount.scatter((40 << 20) / (block + 4096), block * 9 / 10);
        mount.unmount();
        image.assert_exact();
        let mount = image.mount("logbsize=262144");
        File::create(mount.at.join("big")).unwrap();
        for size in ["20m", "4m", "64k", "4k"] {
            // Fails once there is no room; that is what it is for.
            for n in 0..20 {
                let name = mount.at.join(format!("fill-{size}-{n}"));
                let length = ["-l", size, name.to_str().unwrap()];
                let _ = Command::new("fallocate").args(length).output().unwrap();
            }
        }
        mount.unmount();
        image.assert_exact();
    }
}

/// The kernel does not mount version 4: files come from a prototype, and half of them go when xfs_repair finds their
/// inodes without a mode.
#[test]
fn every_kind_of_v4_is_read_exactly() {
    for (size, options) in [
        ("100M", ""),
        ("64M", "-b size=512 -l lazy-count=0 -i size=256"),
        ("64M", "-b size=512 -l size=8m -i attr=1,projid32bit=0"),
        ("64M", "-b size=1024 -l version=1,size=8m"),
        ("600M", "-b size=65536 -n ftype=1 -l size=64m"),
        ("100M", "-s size=4096 -d agcount=5"),
        ("70M", "-d agsize=33m -n ftype=0,size=8192"),
    ] {
        let image = scattered_v4(size, options, 3000);
        image.assert_exact();
    }
}

/// Version 4 with that many files before half of them went.
pub(super) fn scattered_v4(size: &str, options: &str, files: usize) -> Image {
    use std::fmt::Write;
    let sources = TempDir::new().unwrap();
    let content = sources.path().join("content");
    std::fs::write(&content, [0x5a; 300]).unwrap();
    let mut prototype = "boot\n0 0\nd--755 0 0\n".to_owned();
    for n in 0..files {
        writeln!(prototype, "f{n} ---644 0 0 {}", content.display()).unwrap();
    }
    prototype.push_str("$\n$\n");
    let path = sources.path().join("prototype");
    std::fs::write(&path, prototype).unwrap();
    let options = format!("-m crc=0 {options} -p {}", path.display());
    let image = Image::make(size, &options);
    image.assert_exact();
    let list = image.db("ls /\n");
    let mut commands = String::new();
    for line in list.lines() {
        // Address, inode, type, hash, length, name, whether it is sound.
        let mut words = line.split_whitespace().skip(1);
        let (inode, name) = (
            words.next(),
            words.nth(3).and_then(|name| name.strip_prefix('f')),
        );
        if let (Some(inode), Some(Ok(number))) = (inode, name.map(str::parse::<usize>))
            && number % 2 == 0
        {
            writeln!(commands, "inode {inode}\nwrite core.mode 0").unwrap();
        }
    }
    fed("xfs_db", &["-x", image.name()], &commands);
    // Exits with 0 or with 1, as things had to be mended.
    Command::new("xfs_repair")
        .arg(image.name())
        .output()
        .unwrap();
    assert!(image.disk().free_space().unwrap().free.ranges().len() > files / 8);
    image
}
