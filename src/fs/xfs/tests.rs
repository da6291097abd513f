use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use super::fields::Fields;
use super::*;
use crate::extent::{Extent, ExtentKind};
use crate::fs::RefusalKind;
use crate::source::{Reader, Source, Stream};
use crate::store::ReadAt;

/// An image file with single bytes changed.
#[derive(Clone)]
pub(super) struct Disk {
    file: Arc<File>,
    size: u64,
    pub(super) patches: BTreeMap<u64, u8>,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let size = file.metadata().unwrap().len();
        Self {
            file: Arc::new(file),
            size,
            patches: BTreeMap::new(),
        }
    }

    pub(super) fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
        self.reader().read_at(range.start, &mut bytes).unwrap();
        bytes
    }

    fn patch(&mut self, at: u64, bytes: &[u8]) {
        self.patches.extend((at..).zip(bytes.iter().copied()));
    }

    /// Gives the block at `at` the checksum that it needs.
    fn seal(&mut self, block: Range<u64>, crc_at: u64) {
        let at = usize::try_from(crc_at).unwrap();
        let mut bytes = self.bytes(block.clone());
        bytes[at..at + 4].fill(0);
        self.patch(block.start + crc_at, &crc32c::crc32c(&bytes).to_le_bytes());
    }

    pub(super) fn free_space(&self) -> Result<FreeSpace, Refusal> {
        free_space(&Volume::whole(self), &FreeOptions::default())
    }
}

impl Source for Disk {
    fn virtual_size(&self) -> u64 {
        self.size
    }

    fn cluster_size(&self) -> u64 {
        65536
    }

    fn cluster_size_at(&self, _: u32) -> u64 {
        65536
    }

    fn data_store(&self, _: u32) -> Option<&dyn ReadAt> {
        None
    }

    fn extent_at(&self, range: Range<u64>) -> crate::Result<Extent> {
        Ok(Extent {
            start: range.start,
            length: range.end - range.start,
            kind: ExtentKind::Data,
            host: None,
            depth: 0,
        })
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        Box::new(self)
    }
}

impl Reader for &Disk {
    fn read_at(&mut self, guest: u64, buf: &mut [u8]) -> crate::Result<()> {
        self.file.read_exact_at(buf, guest).unwrap();
        for (at, byte) in self.patches.range(guest..guest + buf.len() as u64) {
            buf[usize::try_from(at - guest).unwrap()] = *byte;
        }
        Ok(())
    }

    fn read_streams(
        &mut self,
        _: Range<u64>,
        _: &mut Vec<u8>,
        _: &mut Vec<Stream>,
    ) -> crate::Result<()> {
        unreachable!("nothing is compressed")
    }
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
    fn expected(&self) -> Vec<Range<u64>> {
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
        must("umount", &[self.at.to_str().unwrap()]);
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
fn log_is_clean(image: &Image) -> bool {
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
    for (size, options) in [
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
    ] {
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
fn scattered_v4(size: &str, options: &str, files: usize) -> Image {
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

#[test]
fn a_log_that_went_round_is_clean_wherever_it_ends() {
    for options in [
        "-l size=10m",
        "-l size=10m,su=32k",
        "-s size=4096 -l size=12m",
    ] {
        let image = Image::make("100M", options);
        let mut cycles = 0;
        for round in 0..8 {
            let mount = image.mount(["logbsize=32768", "logbsize=262144", ""][round % 3]);
            for burst in 0..7 {
                for n in 0..400 + 37 * round {
                    let name = mount.at.join(format!("{n}-{burst}"));
                    std::fs::write(name, "x").unwrap();
                }
                must("sync", &["-f", mount.at.to_str().unwrap()]);
            }
            for name in std::fs::read_dir(&mount.at).unwrap() {
                std::fs::remove_file(name.unwrap().path()).unwrap();
            }
            mount.unmount();
            assert!(log_is_clean(&image));
            let space = image.disk().free_space().unwrap();
            assert_eq!(space.free.ranges(), image.expected());
            let superblock = Superblock::read(&Volume::whole(&image.disk())).unwrap();
            let disk = image.disk();
            let volume = Volume::whole(&disk);
            let log = Log::new(&volume, &superblock).unwrap().bytes();
            let first = volume.read_array::<8>(log.start).unwrap();
            cycles =
                [Fields(&first).be32(0), Fields(&first).be32(4)][usize::from(first[0] == 0xfe)];
        }
        assert!(cycles > 2, "{options}: the log never went round");
    }
}

#[test]
fn a_crash_is_always_seen() {
    let mut dirty = 0;
    for (round, flags) in ["", "-f", "", "-f", "", ""].into_iter().enumerate() {
        let image = Image::make(
            "100M",
            ["-l size=10m", "-m rmapbt=1 -l size=16m"][round % 2],
        );
        let mount = image.mount("");
        mount.scatter(300 * round, 3000);
        if round % 3 == 0 {
            must("sync", &["-f", mount.at.to_str().unwrap()]);
        }
        let down = format!("shutdown {flags}");
        must("xfs_io", &["-x", "-c", &down, mount.at.to_str().unwrap()]);
        mount.unmount();
        let clean = log_is_clean(&image);
        dirty += usize::from(!clean);
        match image.disk().free_space() {
            Ok(_) => assert!(clean, "round {round}"),
            Err(refusal) => {
                assert_eq!(refusal.kind, RefusalKind::Dirty);
                assert_eq!(
                    refusal.reason,
                    "xfs log holds changes that were not written back"
                );
                assert!(!clean && refusal.remedy.is_some());
            }
        }
        image.mount("").unmount();
        image.assert_exact();
    }
    assert!(dirty > 3);
}

#[test]
fn a_mounted_filesystem_is_dirty_once_it_changed() {
    let image = Image::make("100M", "");
    let copy = Image {
        directory: TempDir::new().unwrap(),
        path: image.directory.path().join("copy"),
    };
    let mount = image.mount("");
    for n in 0..12 {
        std::fs::write(mount.at.join(format!("f{n}")), vec![1; 100_000]).unwrap();
        if n % 4 > 0 {
            must("sync", &["-f", mount.at.to_str().unwrap()]);
        }
        if n % 4 == 3 {
            must("fsfreeze", &["-f", mount.at.to_str().unwrap()]);
        }
        must("cp", &[image.name(), copy.name()]);
        if n % 4 == 3 {
            must("fsfreeze", &["-u", mount.at.to_str().unwrap()]);
        }
        let clean = copy.disk().free_space();
        assert_eq!(clean.is_ok(), log_is_clean(&copy), "{n}: {clean:?}");
        assert!(n == 0 || clean.is_err());
    }
    mount.unmount();
    image.assert_exact();
}

/// Writes a log whose last record, `headers` sectors and one more, ends before sector `head` in round `cycle`.
fn write_log(image: &Image, head: usize, cycle: u32, headers: usize, spoil: &dyn Fn(&mut [u8])) {
    let disk = image.disk();
    let volume = Volume::whole(&disk);
    let superblock = Superblock::read(&volume).unwrap();
    let range = Log::new(&volume, &superblock).unwrap().bytes();
    let sectors = usize::try_from((range.end - range.start) / 512).unwrap();
    let mut log = vec![0; sectors * 512];
    let round = |sector: usize| if sector < head { cycle } else { cycle - 1 };
    for sector in 0..sectors {
        log[sector * 512..][..4].copy_from_slice(&round(sector).to_be_bytes());
    }
    let start = (head + sectors - headers - 1) % sectors;
    for n in 1..=headers {
        let at = (start + n) % sectors;
        log[at * 512..][..4].copy_from_slice(&round(at).to_be_bytes());
    }
    let header = &mut log[start * 512..][..512];
    let size: u32 = [32 << 10, 256 << 10][usize::from(headers > 1)];
    let lsn = u64::from(round(start)) << 32 | start as u64;
    for (at, field) in [
        (0, 0xfeed_babe),
        (4, round(start)),
        (8, 2),
        (12, 512),
        (40, 1),
        (44, 7),
        (300, 1),
        (320, size),
    ] {
        header[at..at + 4].copy_from_slice(&u32::to_be_bytes(field));
    }
    header[16..24].copy_from_slice(&lsn.to_be_bytes());
    header[24..32].copy_from_slice(&lsn.to_be_bytes());
    header[304..320].copy_from_slice(&superblock.uuid);
    let data = (start + headers) % sectors * 512;
    log[data + 4..][..8].copy_from_slice(&[0, 0, 0, 8, 0xaa, 0x20, 0, 0]);
    spoil(&mut log);
    let file = File::options().write(true).open(&image.path).unwrap();
    file.write_all_at(&log, range.start).unwrap();
}

#[test]
fn the_end_of_the_log_is_found_at_every_place() {
    let image = Image::make("100M", "-l size=10m");
    let sectors = (10 << 20) / 512;
    let before = image.disk().free_space().unwrap();
    for head in [
        2,
        9,
        1,
        3,
        8,
        4096,
        8191,
        8192,
        8193,
        12345,
        sectors - 8193,
        sectors - 1,
        sectors,
    ] {
        for (cycle, headers) in [(1, 1), (2, 1), (2, 8), (77, 8)] {
            if cycle == 1 && head <= headers {
                // Would begin in a round 0.
                continue;
            }
            write_log(&image, head, cycle, headers, &|_| {});
            assert!(log_is_clean(&image), "{head} {cycle} {headers}");
            assert_eq!(
                image.disk().free_space().as_ref(),
                Ok(&before),
                "{head} {cycle} {headers}"
            );

            let start = (head + sectors - headers - 1) % sectors;
            let data = (start + headers) % sectors;
            let newer = |log: &mut [u8], sector: usize| {
                // As if the writes before it had not reached the disk.
                let cycle = cycle + u32::from(sector < head);
                log[sector * 512..][..4].copy_from_slice(&cycle.to_be_bytes());
            };
            let spoils: [&dyn Fn(&mut [u8]); 7] = [
                &|log| log[start * 512 + 43] = 2,
                &|log| log[data * 512 + 9] = 0,
                &|log| newer(log, head % sectors),
                &|log| newer(log, (head + 17) % sectors),
                &|log| newer(log, (head + 4095) % sectors),
                &|log| log[start * 512 + 14] = 4,
                &|log| log[start * 512 + 305] ^= 1,
            ];
            for (n, spoil) in spoils.into_iter().enumerate() {
                write_log(&image, head, cycle, headers, spoil);
                let refusal = image.disk().free_space().unwrap_err();
                assert!(
                    matches!(refusal.kind, RefusalKind::Dirty | RefusalKind::Damaged),
                    "{head} {cycle} {headers} {n}"
                );
            }
        }
    }
}

/// Every free block must have been free before.
fn assert_no_more(space: &FreeSpace, before: &FreeSpace, what: &dyn std::fmt::Debug) {
    for range in space.free.ranges() {
        assert!(
            before.free.covers(range.clone()),
            "{range:x?} after {what:?}"
        );
    }
}

/// Metadata that free space is read from: where it lies, what of it to change, where its checksum is, if it has one.
fn metadata(disk: &Disk) -> Vec<(Range<u64>, u64, Option<u64>)> {
    let volume = Volume::whole(disk);
    let superblock = Superblock::read(&volume).unwrap();
    let crc = |at| superblock.v5.then_some(at);
    let sector = superblock.sector_size;
    let mut list = vec![(0..sector, 264, crc(224))];
    for ag in 0..superblock.ag_count {
        let start = superblock.byte_of(ag, 0).unwrap();
        list.push((start + sector..start + 2 * sector, 224, crc(216)));
        list.push((start + 3 * sector..start + 4 * sector, 100, crc(32)));
        let header = FreeHeader::read(&volume, &superblock, ag).unwrap();
        for (order, root) in [
            (Order::ByBlock, header.by_block),
            (Order::ByCount, header.by_count),
        ] {
            let walk = Walk {
                volume: &volume,
                superblock: &superblock,
                ag,
                order,
            };
            let mut blocks = Vec::new();
            walk.run(root, &mut |block| blocks.push(block), &mut |_| Ok(()))
                .unwrap();
            // The root, the first leaf, and some others.
            for &block in blocks
                .iter()
                .take(3)
                .chain(blocks.iter().skip(3).step_by(7))
            {
                let at = superblock.byte_of(ag, u64::from(block)).unwrap();
                list.push((
                    at..at + superblock.block_size,
                    superblock.block_size,
                    crc(52),
                ));
            }
        }
    }
    list
}

fn flip_everything(image: &Image) {
    let disk = image.disk();
    let before = disk.free_space().unwrap();
    let mut accepted = 0;
    let mut tried = 0;
    for (block, length, crc) in metadata(&disk) {
        // All of a header, then a sample of what is long.
        for at in (0..length).filter(|at| *at < 264 || at % 53 == 0) {
            let old = disk.bytes(block.start + at..block.start + at + 1)[0];
            for new in [old ^ 1, old ^ 0x80, 0, 0xff] {
                if new == old || (at % 4 < 2 && new == old ^ 0x80 && at > 264) {
                    continue;
                }
                let mut changed = disk.clone();
                changed.patch(block.start + at, &[new]);
                tried += 1;
                let what = (block.start, at, new);
                if let Ok(space) = changed.free_space() {
                    assert_no_more(&space, &before, &what);
                    assert!(crc.is_none(), "no checksum noticed {what:x?}");
                    accepted += 1;
                }
                if let Some(crc) = crc.filter(|crc| !(*crc..*crc + 4).contains(&at)) {
                    changed.seal(block.clone(), crc);
                    if let Ok(space) = changed.free_space() {
                        assert_no_more(&space, &before, &what);
                        accepted += 1;
                    }
                }
            }
        }
    }
    assert!(tried > 3000 && accepted < tried, "{accepted} of {tried}");
}

#[test]
fn no_changed_byte_of_v5_frees_a_block() {
    let image = Image::make("80M", "-b size=1024 -m rmapbt=1 -d agcount=2 -l size=16m");
    let mount = image.mount("");
    mount.scatter(1200, 900);
    mount.unmount();
    flip_everything(&image);
}

#[test]
fn no_changed_byte_of_v4_frees_a_block() {
    flip_everything(&scattered_v4(
        "64M",
        "-b size=512 -d agcount=2 -l size=8m",
        1500,
    ));
    flip_everything(&scattered_v4(
        "64M",
        "-b size=1024 -d agcount=2 -l size=8m,lazy-count=0",
        600,
    ));
}

#[test]
fn no_changed_byte_of_a_log_hides_that_it_is_dirty() {
    let image = Image::make("100M", "-l size=10m");
    let mount = image.mount("");
    mount.scatter(500, 3000);
    must(
        "xfs_io",
        &["-x", "-c", "shutdown -f", mount.at.to_str().unwrap()],
    );
    mount.unmount();
    let disk = image.disk();
    let volume = Volume::whole(&disk);
    let superblock = Superblock::read(&volume).unwrap();
    let log = Log::new(&volume, &superblock).unwrap().bytes();
    let bytes = disk.bytes(log.clone());
    let heads: Vec<_> = (0..bytes.len() / 512)
        .filter(|n| bytes[n * 512..][..4] == [0xfe, 0xed, 0xba, 0xbe])
        .collect();
    for &head in heads.iter().rev().take(4) {
        for at in (0..64).chain(300..330).chain(512..540) {
            for flip in [1, 0x20, 0x80, 0xff] {
                let mut changed = disk.clone();
                let at = head * 512 + at;
                if let Some(byte) = bytes.get(at) {
                    changed.patch(log.start + at as u64, &[byte ^ flip]);
                    changed.free_space().unwrap_err();
                }
            }
        }
    }
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let image = Image::make("100M", "-l size=10m");
    let refused = |at: u64, bytes: &[u8]| {
        let mut disk = image.disk();
        disk.patch(at, bytes);
        disk.seal(0..512, 224);
        disk.free_space().unwrap_err().to_string()
    };
    for (at, bytes, reason) in [
        (
            216,
            [0, 0, 0, 0x1b],
            "xfs is marked as needing repair (run xfs_repair on it)",
        ),
        (
            216,
            [0, 0, 1, 0xb],
            "xfs has the feature metadir (incompatible, bit 8), which is not read here",
        ),
        (
            216,
            [0, 0, 2, 0xb],
            "xfs has the feature zoned (incompatible, bit 9), which is not read here",
        ),
        (
            216,
            [0, 1, 8, 0xb],
            "xfs has unknown incompatible features (bit 11, 16)",
        ),
        (
            212,
            [0, 0, 0, 0x15],
            "xfs has unknown read-only compatible features (bit 4)",
        ),
        (
            220,
            [0, 0, 0, 0x2],
            "xfs has unknown log incompatible features (bit 1)",
        ),
        (28, [0, 0, 0, 1], "xfs with a realtime section"),
        (52, [0, 0, 0, 0], "xfs whose log is on another device"),
        (124, [15, 0, 1, 25], "xfs superblock: impossible geometry"),
        (12, [0xff, 0, 0, 0], "xfs superblock: impossible geometry"),
        (148, [0, 0, 0, 0], "xfs superblock counts 0 free blocks"),
    ] {
        let found = refused(at, &bytes);
        assert!(found.starts_with(reason), "{found}");
    }
    let cut = Disk {
        size: 99 << 20,
        ..image.disk()
    };
    let refusal = cut.free_space().unwrap_err();
    assert_eq!(
        refusal.reason,
        "xfs of 25600 blocks reaches past the end of its volume"
    );
}

#[test]
fn an_identity_is_what_blkid_says() {
    for (options, version) in [
        ("-L twelve-bytes", "v5"),
        ("-m crc=0 -L a", "v4"),
        ("", "v5"),
    ] {
        let image = Image::make("100M", options);
        let disk = image.disk();
        let identity = identify(&Volume::whole(&disk)).unwrap().unwrap();
        let blkid = must("blkid", &["-p", "-o", "export", image.name()]);
        let tag = |name: &str| {
            let line = blkid.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim_start_matches('=').to_owned())
        };
        assert_eq!(tag("TYPE").as_deref(), Some(identity.kind));
        assert_eq!(tag("UUID="), identity.uuid);
        assert_eq!(tag("LABEL="), identity.label);
        assert_eq!(identity.version.as_deref(), Some(version));
        assert_eq!(
            (identity.size, identity.block_size),
            (Some(100 << 20), Some(4096))
        );
    }
    let image = Image::make("100M", "");
    let mut disk = image.disk();
    disk.patch(1, b"X");
    assert_eq!(identify(&Volume::whole(&disk)).unwrap(), None);
}

/// The tools write a log with a gap behind its head.
#[test]
fn a_log_that_a_tool_wrote_is_clean() {
    for options in [
        "-l size=10m",
        "-l size=10m,su=32k",
        "-l size=20m,su=256k",
        "-s size=4096 -l size=12m",
    ] {
        let image = Image::make("100M", options);
        let before = image.disk().free_space().unwrap();
        must("xfs_admin", &["-U", "generate", image.name()]);
        assert!(log_is_clean(&image));
        assert_eq!(image.disk().free_space().unwrap(), before, "{options}");
        let mount = image.mount("");
        mount.scatter(100, 3000);
        must("sync", &["-f", mount.at.to_str().unwrap()]);
        must(
            "xfs_io",
            &["-x", "-c", "shutdown", mount.at.to_str().unwrap()],
        );
        mount.unmount();
        assert_eq!(
            image.disk().free_space().unwrap_err().kind,
            RefusalKind::Dirty
        );
        image.mount("").unmount();
        image.assert_exact();
        for _ in 0..2 {
            must("xfs_repair", &[image.name()]);
            assert!(log_is_clean(&image));
            image.assert_exact();
        }
    }
}

#[test]
#[ignore = "measured by hand"]
fn speed() {
    let path = std::env::var("XFS_IMAGE").unwrap();
    let disk = Disk::open(Path::new(&path));
    let start = std::time::Instant::now();
    let space = disk.free_space().unwrap();
    println!(
        "{:?} {} ranges {} bytes",
        start.elapsed(),
        space.free.ranges().len(),
        space.free.total()
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{:?}", status.lines().find(|l| l.starts_with("VmHWM")));
}
