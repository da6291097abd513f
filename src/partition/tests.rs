use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::source::PlainBytes;

const MIB: u64 = 1 << 20;

/// A disk in memory.
#[derive(Clone)]
pub(crate) struct Disk(pub(crate) Arc<Vec<u8>>);

impl Disk {
    pub(crate) fn open(path: &Path) -> Self {
        Self(Arc::new(std::fs::read(path).unwrap()))
    }

    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        Arc::make_mut(&mut self.0)
    }

    fn table(&self) -> Table {
        read(&Volume::whole(self)).unwrap()
    }

    fn sector(&mut self, number: usize) -> &mut [u8] {
        &mut self.bytes()[number * 512..(number + 1) * 512]
    }
}

impl PlainBytes for Disk {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn fill(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let from = usize::try_from(at).unwrap();
        buf.copy_from_slice(&self.0[from..from + buf.len()]);
        Ok(())
    }
}

/// Runs a tool that must be there and must succeed; what it printed.
pub(crate) fn must(tool: &str, arguments: &[&str], input: &str) -> String {
    use std::io::Write;
    let mut child = std::process::Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{tool} must be installed: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    // One that reads nothing may have closed it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{tool} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An image file with a partition table.
struct Image {
    _directory: TempDir,
    path: PathBuf,
}

impl Image {
    fn new(size: u64) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("disk");
        let image = Self {
            path,
            _directory: directory,
        };
        image.resize(size);
        image
    }

    fn resize(&self, size: u64) {
        must("truncate", &["-s", &size.to_string(), self.name()], "");
    }

    fn sfdisk(size: u64, script: &str) -> Self {
        let image = Self::new(size);
        image.run_sfdisk(&[], script);
        image
    }

    fn run_sfdisk(&self, options: &[&str], script: &str) {
        let mut arguments = vec!["--quiet", "--no-tell-kernel"];
        arguments.extend(options);
        arguments.push(self.name());
        must("sfdisk", &arguments, script);
    }

    fn sgdisk(&self, arguments: &[&str]) {
        let mut all = arguments.to_vec();
        all.push(self.name());
        must("sgdisk", &all, "");
    }

    fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn disk(&self) -> Disk {
        Disk::open(&self.path)
    }

    /// Compares all partitions with what `sfdisk` has.
    fn compare(&self) -> Table {
        let table = self.disk().table();
        let json = must("sfdisk", &["--json", self.name()], "");
        let json: Value = serde_json::from_str(&json).unwrap();
        let json = &json["partitiontable"];
        let theirs = json["partitions"].as_array().cloned().unwrap_or_default();
        let mut own = table.partitions.clone();
        own.extend(table.extended.iter().cloned());
        own.sort_by_key(|partition| partition.number);
        assert_eq!(own.len(), theirs.len(), "{theirs:#?}");
        let lower = |value: &Value| value.as_str().map(str::to_lowercase);
        for (own, theirs) in own.iter().zip(theirs) {
            assert_eq!(theirs["node"], format!("{}{}", self.name(), own.number));
            assert_eq!(theirs["start"], own.range.start / 512);
            assert_eq!(theirs["size"], own.size() / 512);
            assert_eq!(theirs["bootable"].as_bool().unwrap_or(false), own.bootable);
            if table.kind == TableKind::Mbr {
                let kind = theirs["type"].as_str().unwrap();
                let kind = u8::from_str_radix(kind, 16).unwrap();
                assert_eq!(own.kind, PartitionKind::Mbr(kind));
            } else {
                assert_eq!(lower(&theirs["type"]).unwrap(), own.kind.number());
                assert_eq!(lower(&theirs["uuid"]), own.uuid);
                assert_eq!(theirs["name"].as_str(), own.label.as_deref());
            }
        }
        let id = lower(&json["id"]).map(|id| id.trim_start_matches("0x").to_owned());
        assert_eq!(id, table.uuid);
        table
    }
}

/// That nothing of a table may be relied upon, because of this.
fn assert_damaged(table: &Table, why: &str) {
    let damaged = table.damaged.as_deref().unwrap_or("sound");
    assert!(damaged.contains(why), "{damaged}");
}

fn gpt() -> Image {
    let image = Image::new(64 * MIB);
    image.sgdisk(&[
        "-n1:2048:+1M",
        "-t1:ef02",
        "-c1:bios",
        "-n15:0:+8M",
        "-t15:ef00",
        "-c15:Größe",
        "-n3:0:0",
        "-t3:8304",
        "-A3:set:2",
        "-A3:set:59",
    ]);
    image
}

#[test]
fn a_gpt_is_what_sgdisk_made() {
    let image = gpt();
    let table = image.disk().table();
    assert_eq!(table.kind, TableKind::Gpt);
    assert_eq!((table.notes.len(), table.damaged), (0, None));
    assert_eq!(table.metadata, [0..34 * 512, 64 * MIB - 33 * 512..64 * MIB]);
    let numbers: Vec<u32> = table.partitions.iter().map(|part| part.number).collect();
    assert_eq!(numbers, [1, 3, 15]);
    for part in &table.partitions {
        let said = must(
            "sgdisk",
            &["-i", &part.number.to_string(), image.name()],
            "",
        );
        let has = |text: String| assert!(said.contains(&text), "{text} is not in {said}");
        has(format!("GUID code: {}", part.kind.number().to_uppercase()));
        let uuid = part.uuid.as_ref().unwrap().to_uppercase();
        has(format!("unique GUID: {uuid}"));
        has(format!("First sector: {} ", part.range.start / 512));
        has(format!("Last sector: {} ", part.range.end / 512 - 1));
        has(format!("flags: {:016X}", part.attributes));
        has(format!(
            "name: '{}'",
            part.label.as_deref().unwrap_or_default()
        ));
    }
    assert!(table.partitions[0].kind.is_bios_boot() && table.partitions[2].kind.is_esp());
    assert!(table.partitions[1].bootable && table.partitions[1].attributes == 1 << 59 | 4);
    let json = serde_json::to_value(&table.partitions[2]).unwrap();
    assert_eq!(json["type-name"], "EFI system");
    assert_eq!(json["start"], table.partitions[2].range.start);
}

#[test]
fn tables_of_sfdisk_are_read_as_sfdisk_reads_them() {
    let gpt = Image::sfdisk(
        32 * MIB,
        "label: gpt\n,1M,U\n,4M,L,*\nsize=2M,name=\"a \u{1f4be} b\"\n,,V\n",
    );
    assert_eq!(gpt.compare().partitions.len(), 4);
    let many = Image::sfdisk(
        64 * MIB,
        &format!("label: gpt\ntable-length: 1000\n{}", ",64K\n".repeat(50)),
    );
    let table = many.compare();
    assert!(table.partitions.len() == 50 && table.damaged.is_none());
    let mbr = Image::sfdisk(
        64 * MIB,
        "label: dos\n,1M,83,*\n,2M,c\n,32M,f\n,4M,82\n,4M,83\n,4M,8e\n,4M,7\n,4M,83\n",
    );
    let table = mbr.compare();
    assert_eq!((table.kind, &table.damaged), (TableKind::Mbr, &None));
    assert_eq!(table.partitions.len(), 8 - 1);
    assert_eq!(table.extended[0].kind.name(), "Extended (LBA)");
    // The MBR, and a sector before each logical partition.
    assert_eq!(table.metadata.len(), 1 + 4);
    let id = table.uuid.unwrap();
    assert_eq!(table.partitions[3].uuid, Some(format!("{id}-05")));
}

#[test]
fn a_logical_partition_that_was_deleted_leaves_the_others_in_order() {
    let mbr = Image::sfdisk(64 * MIB, "label: dos\n,1M,83\n,,5\n,2M\n,2M\n,2M\n");
    must("sfdisk", &["--quiet", "--delete", mbr.name(), "5"], "");
    let table = mbr.compare();
    assert_eq!(table.damaged, None);
    assert_eq!(table.partitions.len(), 3);
    must("sfdisk", &["--quiet", "--delete", mbr.name(), "6"], "");
    must("sfdisk", &["--quiet", "--delete", mbr.name(), "5"], "");
    assert_eq!(mbr.compare().partitions.len(), 1);
}

#[test]
fn large_sectors_are_found() {
    let small = Image::new(64 * MIB);
    // Sectors of 4096 bytes, as a disk with such sectors shows them.
    let device = must(
        "losetup",
        &["--find", "--show", "--sector-size", "4096", small.name()],
        "",
    );
    let device = device.trim();
    let script = "label: gpt\n,8M,U\n,,L\n";
    must(
        "sfdisk",
        &["--quiet", "--no-reread", "--no-tell-kernel", device],
        script,
    );
    let json = must("sfdisk", &["--json", device], "");
    must("losetup", &["--detach", device], "");
    let json: Value = serde_json::from_str(&json).unwrap();
    let table = small.disk().table();
    assert_eq!(json["partitiontable"]["sectorsize"], 4096);
    assert_eq!((table.sector_size, &table.damaged), (4096, &None));
    assert_eq!(table.notes.len(), 0, "{:?}", table.notes);
    for (index, part) in table.partitions.iter().enumerate() {
        let theirs = &json["partitiontable"]["partitions"][index];
        assert_eq!(theirs["start"], part.range.start / 4096);
        assert_eq!(theirs["size"], part.size() / 4096);
    }
    assert_eq!(table.partitions.len(), 2);
    // Either copy alone will do.
    let mut disk = small.disk();
    disk.bytes()[4096..8192].fill(0);
    let other = disk.table();
    assert_eq!(other.partitions, table.partitions);
    assert!(other.notes[0].contains("first GPT is missing"));
    // Two tables for different sectors cannot both be right.
    let other = Image::new(64 * MIB);
    other.sgdisk(&["-j", "64", "-n1:2048:+1M"]);
    let (mut disk, other) = (small.disk(), other.disk());
    for range in [512..1024, 64 * 512..96 * 512] {
        disk.bytes()[range.clone()].copy_from_slice(&other.0[range]);
    }
    assert_damaged(&disk.table(), "one for sectors of 4096");
}

#[test]
fn either_copy_of_a_gpt_will_do_and_both_must_agree() {
    let image = gpt();
    let sound = image.disk().table();
    let last = 64 * 2048 - 1;
    for (sector, at, note) in [
        (
            1,
            20,
            "first GPT is damaged (its header fails its checksum)",
        ),
        (1, 0, "first GPT is missing"),
        (2, 40, "first GPT is damaged (its entries fail"),
        (last, 20, "second GPT is missing or damaged"),
        (last - 32, 40, "second GPT is missing or damaged"),
    ] {
        let mut disk = image.disk();
        disk.sector(sector)[at] ^= 1;
        let table = disk.table();
        assert_eq!(table.partitions, sound.partitions);
        assert_eq!(table.damaged, None);
        assert!(table.notes[0].contains(note), "{:?}", table.notes);
    }
    let mut disk = image.disk();
    disk.sector(1)[20] ^= 1;
    disk.sector(last)[20] ^= 1;
    let table = disk.table();
    assert_eq!((table.kind, table.partitions.len()), (TableKind::Gpt, 0));
    assert_damaged(&table, "there is none at the end");

    // The end of another disk.
    let mut disk = image.disk();
    let other = Image::sfdisk(64 * MIB, "label: gpt\n,1M\n").disk();
    let end = usize::try_from(64 * MIB).unwrap() - 33 * 512;
    disk.bytes()[end..].copy_from_slice(&other.0[end..]);
    assert_damaged(&disk.table(), "they differ");
}

#[test]
fn a_disk_that_grew_or_was_cut_off_is_read_with_a_note() {
    let image = gpt();
    let sound = image.disk().table();
    image.resize(80 * MIB);
    let table = image.disk().table();
    assert_eq!(table.partitions, sound.partitions);
    assert_eq!(table.damaged, None);
    assert!(table.notes[0].contains("has grown"), "{:?}", table.notes);
    // Where it is still a copy, it is still kept.
    assert!(table.metadata.contains(&(64 * MIB - 33 * 512..64 * MIB)));

    image.resize(32 * MIB);
    let table = image.disk().table();
    assert_eq!(table.damaged, None);
    assert!(table.notes[0].contains("cut off"), "{:?}", table.notes);
    assert!(table.notes[1].contains("partition 3 reaches past the end"));
    assert_eq!(table.partitions.len(), 2);

    let mbr = Image::sfdisk(64 * MIB, "label: dos\n,1M\n,\n");
    mbr.resize(32 * MIB);
    let table = mbr.disk().table();
    assert_eq!((table.partitions.len(), table.notes.len()), (1, 1));
}

#[test]
fn a_hybrid_mbr_must_name_the_same_partitions() {
    let image = gpt();
    image.sgdisk(&["-h", "1:15"]);
    let table = image.disk().table();
    assert_eq!((table.kind, &table.damaged), (TableKind::Hybrid, &None));
    assert_eq!(table.partitions.len(), 3);
    let mut disk = image.disk();
    let slot = disk.sector(0)[446..510]
        .chunks(16)
        .position(|slot| slot[4] == 0xef)
        .unwrap();
    disk.sector(0)[446 + slot * 16 + 8] ^= 8;
    assert_damaged(&disk.table(), "the MBR beside the GPT gives partition");
    // Without the protective entry the kernel takes the MBR's word.
    let mut disk = image.disk();
    for slot in 0..4 {
        let kind = &mut disk.sector(0)[446 + slot * 16 + 4];
        if *kind == 0xee {
            *kind = 0x83;
        }
    }
    assert_damaged(&disk.table(), "an MBR that does not know of it");
    let mut disk = image.disk();
    disk.sector(0).fill(0);
    assert_damaged(&disk.table(), "no protective MBR");
    assert_eq!(disk.table().partitions.len(), 3);
}

#[test]
fn a_filesystem_on_the_whole_disk_is_no_table() {
    for (tool, arguments) in [
        ("mkfs.vfat", vec!["-F", "32"]),
        ("mkfs.vfat", vec!["-F", "16"]),
        ("mkntfs", vec!["-Q", "-F", "-q"]),
        ("mkfs.ext4", vec!["-q"]),
    ] {
        let image = Image::new(64 * MIB);
        let mut arguments = arguments;
        arguments.push(image.name());
        must(tool, &arguments, "");
        let table = image.disk().table();
        assert_eq!(table.kind, TableKind::None, "{tool}");
        assert_eq!((table.damaged, table.notes.len()), (None, 0));
        let disk = image.disk();
        let code = boot_code(&Volume::whole(&disk)).unwrap();
        assert_eq!(code, None, "{tool}");
    }
    // One on a disk that had a GPT: the second copy is stale.
    let image = gpt();
    must("mkfs.vfat", &["-I", image.name()], "");
    assert_eq!(image.disk().table().kind, TableKind::None);
    // Both at once.
    let mut disk = Image::sfdisk(64 * MIB, "label: dos\n,1M\n").disk();
    let image = Image::new(64 * MIB);
    must("mkfs.vfat", &[image.name()], "");
    let boot = image.disk();
    disk.sector(0)[..446].copy_from_slice(&boot.0[..446]);
    assert_damaged(&disk.table(), "the first sector is one of FAT");
}

#[test]
fn an_iso_with_an_mbr_is_not_relied_upon() {
    let image = Image::new(0);
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("file"), vec![1; 1 << 20]).unwrap();
    std::fs::remove_file(&image.path).unwrap();
    let arguments = [
        "-as",
        "mkisofs",
        "-quiet",
        "-o",
        image.name(),
        "--protective-msdos-label",
        directory.path().to_str().unwrap(),
    ];
    must("xorriso", &arguments, "");
    let table = image.disk().table();
    assert_eq!(table.kind, TableKind::Mbr);

    // As isohybrid makes them: the first partition is all of the disk, table and all.
    let script = "label: dos\nstart=1,size=3000,type=17\nstart=3500,size=100,type=ef\n";
    let mut disk = Image::sfdisk(4 * MIB, script).disk();
    disk.sector(0)[446 + 8] = 0;
    assert_damaged(&disk.table(), "partition 1 overlaps the table itself");
    disk.sector(0)[446 + 8] = 1;
    disk.sector(0)[446 + 4] = 0;
    assert_damaged(&disk.table(), "the type of an empty one");
    disk.sector(0)[446 + 4] = 0x17;
    assert_eq!(disk.table().damaged, None);
    disk.sector(0)[446 + 16 + 8..][..2].copy_from_slice(&[64, 0]);
    assert_damaged(&disk.table(), "partitions 1 and 2 overlap");
}

#[test]
fn odd_chains_of_logical_partitions_are_not_relied_upon() {
    let image = Image::sfdisk(
        64 * MIB,
        "label: dos\nx1: size=1M\nx2: size=40M,type=5\nx5: size=4M\nx6: size=4M\nx7: size=4M\n",
    );
    let sound = image.disk();
    let first = usize::try_from(sound.table().extended[0].range.start / 512).unwrap();
    let link = u32::from_le_bytes(sound.0[first * 512 + 462 + 8..][..4].try_into().unwrap());
    let second = first + link as usize;
    let with = |change: &dyn Fn(&mut Disk)| {
        let mut disk = sound.clone();
        change(&mut disk);
        disk.table()
    };
    let circle = with(&|disk| disk.sector(second)[462 + 8..][..4].fill(0));
    assert_damaged(&circle, "runs in a circle");
    let outside = with(&|disk| disk.sector(second)[462 + 11] = 1);
    assert_damaged(&outside, "outside the extended partition");
    let unsigned = with(&|disk| disk.sector(second)[510] = 0);
    assert_damaged(&unsigned, "without a signature");
    let senseless = with(&|disk| disk.sector(second)[446] = 7);
    assert_damaged(&senseless, "makes no sense");
    let long = with(&|disk| disk.sector(second)[446 + 14] = 0xff);
    assert_damaged(&long, "odd way");
    let two = with(&|disk| disk.sector(second)[462 + 4] = 0x83);
    assert_damaged(&two, "odd way");
    let empty = with(&|disk| disk.sector(first).fill(0));
    assert_eq!(empty.damaged, None);
    assert!(empty.notes[0].contains("holds no list"));
    assert_eq!(empty.partitions.len(), 1);
}

#[test]
fn nothing_is_no_table() {
    for size in [0, 1, 511, 512, 513, 1024, 4096, 8192] {
        let disk = Disk(Arc::new(vec![0; size]));
        assert_eq!(disk.table().kind, TableKind::None);
        assert_eq!(boot_code(&Volume::whole(&disk)).unwrap(), None);
    }
    let blank = Image::sfdisk(4 * MIB, "label: dos\n").disk().table();
    assert_eq!((blank.kind, blank.partitions.len()), (TableKind::None, 0));
}

#[test]
fn code_is_told_by_its_text() {
    let mut disk = Image::sfdisk(4 * MIB, "label: dos\n,\n").disk();
    let code = |disk: &Disk| boot_code(&Volume::whole(disk)).unwrap();
    assert_eq!(code(&disk), None);
    for (text, loader, starts_active) in [
        (
            "GRUB \0Geom\0Hard Disk\0Read\0 Error\r\n",
            Some("GRUB"),
            false,
        ),
        ("\u{1}\u{1}\u{1}\u{1}LILO", Some("LILO"), false),
        (
            "Operating system load error.\r\n",
            Some("Syslinux MBR"),
            true,
        ),
        (
            "Error loading operating system\0",
            Some("Windows MBR"),
            true,
        ),
        ("anything", None, true),
    ] {
        let mut disk = disk.clone();
        disk.sector(0)[100..100 + text.len()].copy_from_slice(text.as_bytes());
        let expected = BootCode {
            loader,
            starts_active,
        };
        assert_eq!(code(&disk), Some(expected));
    }
    disk.sector(0)[..446].fill(0xcc);
    disk.sector(0)[510] = 0;
    assert_eq!(code(&disk), None);
}

/// What is left of a table after a change may be less, or not to be relied upon; but partitions never move.
fn assert_no_worse(sound: &Table, changed: &Table, size: u64) {
    let inside = |range: &Range<u64>| range.start < range.end && range.end <= size;
    assert!(changed.partitions.iter().all(|part| inside(&part.range)));
    assert!(changed.metadata.iter().all(inside));
    if changed.damaged.is_some() {
        return;
    }
    for part in &changed.partitions {
        let apart = changed
            .metadata
            .iter()
            .all(|range| !overlap(range, &part.range));
        assert!(apart, "{part:?} {:?}", changed.metadata);
    }
    if sound.kind == TableKind::Mbr {
        // Nothing but their own numbers tells where they are.
        return;
    }
    if matches!(changed.kind, TableKind::Gpt | TableKind::Hybrid) {
        assert_eq!(sound.partitions, changed.partitions);
    } else {
        assert!(changed.partitions.is_empty());
    }
}

#[test]
fn no_changed_byte_moves_a_partition_of_a_gpt() {
    let small = Image::new(4 * MIB);
    small.sgdisk(&["-n1:64:+1M", "-n2:0:0"]);
    let sound = small.disk();
    let table = sound.table();
    let mut disk = sound.clone();
    let last = sound.0.len() - 512;
    let places = (440..1024)
        .chain(1024..1024 + 300)
        .chain(last - 32 * 512..last - 32 * 512 + 300)
        .chain(last..last + 100);
    for at in places {
        for change in [1, 0x80, 0xff] {
            disk.bytes()[at] ^= change;
            assert_no_worse(&table, &disk.table(), 4 * MIB);
            disk.bytes()[at] ^= change;
        }
    }
}

/// Gives a header, and so its entries, the checksums that they need.
fn seal(disk: &mut Disk, header: usize) {
    let bytes = disk.bytes();
    let field = |at: usize, bytes: &[u8]| {
        let field: [u8; 4] = bytes[header + at..][..4].try_into().unwrap();
        u32::from_le_bytes(field) as usize
    };
    let start = field(72, bytes) * 512;
    let length = field(80, bytes).saturating_mul(field(84, bytes));
    if let Some(entries) = bytes.get(start..start.saturating_add(length)) {
        let checksum = crc32fast::hash(entries);
        bytes[header + 88..][..4].copy_from_slice(&checksum.to_le_bytes());
    }
    bytes[header + 16..][..4].fill(0);
    let length = field(12, bytes);
    if let Some(whole) = bytes.get(header..header.saturating_add(length)) {
        let checksum = crc32fast::hash(whole);
        bytes[header + 16..][..4].copy_from_slice(&checksum.to_le_bytes());
    }
}

#[test]
fn no_sealed_change_of_a_gpt_is_relied_upon() {
    let small = Image::new(4 * MIB);
    small.sgdisk(&["-n1:64:+1M", "-n2:0:0"]);
    let sound = small.disk();
    let table = sound.table();
    let last = sound.0.len() - 512;
    let restored = 64 * 512;
    let mut disk = sound.clone();
    for with_backup in [true, false] {
        if !with_backup {
            disk.bytes()[last] = 0;
        }
        for at in (512..512 + 92).chain(1024..1024 + 256) {
            for change in [1, 2, 8, 0x10, 0x20, 0x80, 0xff] {
                disk.bytes()[at] ^= change;
                seal(&mut disk, 512);
                let changed = disk.table();
                let inside = |range: &Range<u64>| range.start < range.end && range.end <= 4 * MIB;
                assert!(changed.partitions.iter().all(|part| inside(&part.range)));
                if with_backup && changed.damaged.is_none() {
                    // Where it ends is not told by what a partition is; nor is where the other copy is.
                    assert_eq!(changed.partitions, table.partitions, "byte {at}");
                }
                disk.bytes()[512..restored].copy_from_slice(&sound.0[512..restored]);
            }
        }
    }
}

#[test]
fn no_changed_byte_of_an_mbr_is_a_panic() {
    let image = Image::sfdisk(
        8 * MIB,
        "label: dos\nx1: size=1M\nx2: size=6M,type=5\nx5: size=1M\nx6: size=1M\nx7: size=500K\n",
    );
    let sound = image.disk();
    let table = sound.table();
    assert_eq!(table.partitions.len(), 4);
    let starts: Vec<_> = table.metadata.iter().map(|range| range.start).collect();
    let mut disk = sound.clone();
    for start in starts {
        let start = usize::try_from(start).unwrap();
        for at in start + 440..start + 512 {
            for change in [1, 4, 0x10, 0x80, 0xff] {
                disk.bytes()[at] ^= change;
                assert_no_worse(&table, &disk.table(), 8 * MIB);
                disk.bytes()[at] ^= change;
            }
        }
    }
}
