//! Disks of several parts: partition tables, swap, EFI system partitions, volume groups.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::program::qimg;
use crate::sparsified::compressed;
use crate::tools::{
    Mount, SECRET, Thing, fill, must, patch, peek, place, sparse, tells_secrets, tree,
};

const MIB: u64 = 1 << 20;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A FAT filesystem after some use, made by mtools.
pub fn fat(file: &Path, size: u64, options: &[&str], work: &Path) {
    sparse(file, size);
    let mut words = vec!["mkfs.vfat"];
    words.extend(options);
    words.push(text(file));
    must(&words);
    let source = work.join("fat-source");
    std::fs::create_dir_all(source.join("EFI/Boot")).unwrap();
    let size = usize::try_from(size / 40).unwrap();
    std::fs::write(source.join("EFI/Boot/BOOTX64.EFI"), vec![7; size]).unwrap();
    std::fs::write(source.join("a long name in a directory.txt"), b"text").unwrap();
    for number in 0..4 {
        let name = source.join(format!("gone {number}"));
        std::fs::write(name, SECRET.repeat(size / SECRET.len())).unwrap();
    }
    let image = text(file);
    must(&[
        "sh",
        "-c",
        "mcopy -s -i \"$0\" \"$1\"/* ::",
        image,
        text(&source),
    ]);
    for number in 0..4 {
        must(&["mdel", "-i", image, &format!("::gone {number}")]);
    }
}

/// All files of a FAT filesystem.
pub fn fat_tree(file: &Path) -> BTreeMap<PathBuf, Thing> {
    let out = tempfile::tempdir().unwrap();
    must(&[
        "mcopy",
        "-n",
        "-s",
        "-i",
        text(file),
        "::",
        text(out.path()),
    ]);
    tree(out.path())
}

/// The part of `disk` from `start` on.
fn cut(disk: &Path, start: u64, size: u64, into: &Path) {
    must(&[
        "dd",
        &format!("if={}", text(disk)),
        &format!("of={}", text(into)),
        "bs=1M",
        &format!("skip={}", start / MIB),
        &format!("count={}", size / MIB),
        "conv=sparse",
        "status=none",
    ]);
    std::fs::OpenOptions::new()
        .write(true)
        .open(into)
        .unwrap()
        .set_len(size)
        .unwrap();
}

fn part<'a>(report: &'a Value, name: &str) -> &'a Value {
    let parts = report["free-space"]["parts"].as_array().unwrap();
    parts
        .iter()
        .find(|part| part["name"] == name)
        .unwrap_or_else(|| panic!("no part {name}: {report}"))
}

/// A filesystem after some use in a file.
fn used(file: &Path, size: u64, mkfs: &[&str], seed: u64) {
    sparse(file, size);
    let mut words = mkfs.to_vec();
    words.push(text(file));
    must(&words);
    let mount = Mount::new(file, "nodiscard");
    fill(mount.path(), seed);
}

#[test]
fn fat_of_every_kind() {
    let work = tempfile::tempdir().unwrap();
    for (size, options) in [
        (1 << 20, &["-F", "12"][..]),
        (2_880 << 10, &["-F", "12", "-s", "2"]),
        (24 << 20, &["-F", "16"]),
        (96 << 20, &["-F", "32", "-s", "1"]),
        (300 << 20, &["-F", "32", "-S", "4096", "-s", "1"]),
    ] {
        let disk = work.path().join("fat.img");
        fat(&disk, size, options, work.path());
        assert!(tells_secrets(&disk));
        let before = fat_tree(&disk);
        let (report, after) = compressed(&disk, &[], work.path());
        assert_eq!(part(&report, "disk")["kept"], Value::Null, "{options:?}");
        must(&["fsck.vfat", "-n", text(&after)]);
        assert!(!tells_secrets(&after), "{options:?}");
        assert_eq!(fat_tree(&after), before, "{options:?}");
    }
}

#[test]
fn ntfs_keeps_its_files() {
    let work = tempfile::tempdir().unwrap();
    let disk = work.path().join("ntfs.img");
    sparse(&disk, 96 << 20);
    must(&["mkntfs", "-q", "-F", "-L", "windows", text(&disk)]);
    {
        let mount = Mount::ntfs(&disk);
        fill(mount.path(), 9);
    }
    assert!(tells_secrets(&disk));
    let before = tree(Mount::ntfs(&disk).path());
    let (report, after) = compressed(&disk, &[], work.path());
    let part = part(&report, "disk");
    assert_eq!(part["kept"], Value::Null);
    assert_eq!(part["identity"]["label"], "windows");
    assert!(!tells_secrets(&after));
    must(&["ntfsfix", "-n", text(&after)]);
    assert_eq!(tree(Mount::ntfs(&after).path()), before);
}

#[test]
fn xfs_of_version_4_is_dropped_from_too() {
    // The kernel may no longer mount it; mkfs fills it.
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("files");
    std::fs::create_dir(&source).unwrap();
    fill(&source, 4);
    let mut prototype = String::from("/dev/null\n0 0\nd--755 0 0\n");
    for entry in std::fs::read_dir(&source).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let name = path.file_name().unwrap().to_str().unwrap();
            prototype.push_str(&format!("{name} ---644 0 0 {}\n", text(&path)));
        }
    }
    prototype.push_str("$\n");
    let proto = work.path().join("prototype");
    std::fs::write(&proto, prototype).unwrap();
    let disk = work.path().join("xfs.img");
    sparse(&disk, 320 << 20);
    must(&[
        "mkfs.xfs",
        "-q",
        "-m",
        "crc=0",
        "-p",
        text(&proto),
        text(&disk),
    ]);
    // What lies in free blocks: the middle of the disk has none in use.
    patch(&disk, 100 << 20, &SECRET.repeat(1 << 16));
    let (report, after) = compressed(&disk, &[], work.path());
    assert_eq!(part(&report, "disk")["kept"], Value::Null);
    must(&["xfs_repair", "-n", text(&after)]);
    assert!(!tells_secrets(&after));
    let out = work.path().join("out");
    for entry in std::fs::read_dir(&source).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let name = path.file_name().unwrap().to_str().unwrap();
            let guest = format!("{}:/{name}", text(&after));
            let out = out.with_file_name(name);
            qimg(["cp", "-q", &guest, text(&out)]).well();
            assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&path).unwrap());
        }
    }
}

/// A GPT disk as installers make them, and the ranges of its parts by number.
fn installed(work: &Path) -> (PathBuf, Vec<(u64, u64)>) {
    let disk = work.join("disk.raw");
    sparse(&disk, 700 * MIB);
    let parts = [
        (1, 1, "ef02", "bios"),
        (2, 48, "ef00", "esp"),
        (3, 64, "8200", "swap"),
        (4, 128, "8300", "root"),
        (5, 400, "8e00", "lvm"),
    ];
    let mut words = vec!["sgdisk".to_owned(), "--clear".to_owned()];
    let mut ranges = vec![(0, 0)];
    let mut at = 1;
    for (number, mib, kind, name) in parts {
        words.push(format!(
            "--new={number}:{}:{}",
            at * 2048,
            (at + mib) * 2048 - 1
        ));
        words.push(format!("--typecode={number}:{kind}"));
        words.push(format!("--change-name={number}:{name}"));
        ranges.push((at * MIB, mib * MIB));
        at += mib;
    }
    words.push(text(&disk).to_owned());
    must(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let file = work.join("part");
    // GRUB's core image lies in the first one: nobody knows how long it is.
    patch(&disk, ranges[1].0, &[0xeb; 40_000]);
    fat(&file, ranges[2].1, &["-F", "32"], work);
    place(&file, &disk, ranges[2].0);
    sparse(&file, ranges[3].1);
    patch(&file, 10 * MIB, &SECRET.repeat(1 << 16));
    must(&["mkswap", text(&file)]);
    place(&file, &disk, ranges[3].0);
    used(
        &file,
        ranges[4].1,
        &["mke2fs", "-q", "-t", "ext4", "-L", "root"],
        3,
    );
    place(&file, &disk, ranges[4].0);
    (disk, ranges)
}

#[test]
fn a_disk_of_many_parts_loses_what_none_of_them_uses() {
    let work = tempfile::tempdir().unwrap();
    let (disk, ranges) = installed(work.path());
    let (report, after) = compressed(&disk, &[], work.path());
    assert!(part(&report, "1")["kept"].is_object());
    for name in ["2", "3", "4"] {
        assert_eq!(part(&report, name)["kept"], Value::Null, "part {name}");
        assert!(
            part(&report, name)["dropped"].as_u64().unwrap() > 20 * MIB,
            "part {name}"
        );
    }
    assert!(!tells_secrets(&after));
    let (start, size) = ranges[1];
    let length = usize::try_from(size).unwrap();
    assert_eq!(peek(&after, start, length), peek(&disk, start, length));
    assert!(must(&["sgdisk", "--verify", text(&after)]).contains("No problems found"));
    let (old, new) = (work.path().join("old"), work.path().join("new"));
    for (from, to) in [(&disk, &old), (&after, &new)] {
        cut(from, ranges[4].0, ranges[4].1, to);
    }
    must(&["e2fsck", "-fn", text(&new)]);
    assert_eq!(
        tree(Mount::new(&new, "ro").path()),
        tree(Mount::new(&old, "ro").path())
    );
    for (from, to) in [(&disk, &old), (&after, &new)] {
        cut(from, ranges[2].0, ranges[2].1, to);
    }
    must(&["fsck.vfat", "-n", text(&new)]);
    assert_eq!(fat_tree(&new), fat_tree(&old));
    cut(&after, ranges[3].0, ranges[3].1, &new);
    assert!(must(&["blkid", "-p", text(&new)]).contains("TYPE=\"swap\""));
}

#[test]
fn parts_are_kept_and_emptied_as_asked() {
    let work = tempfile::tempdir().unwrap();
    let (disk, ranges) = installed(work.path());
    let options = [
        "--keep",
        "LABEL=root",
        "--keep",
        "/dev/sda3",
        "--zero",
        "PARTLABEL=esp",
    ];
    let (report, after) = compressed(&disk, &options, work.path());
    for number in [3, 4] {
        let (start, size) = ranges[number];
        let length = usize::try_from(size).unwrap();
        assert!(peek(&after, start, length) == peek(&disk, start, length));
        assert_eq!(part(&report, &number.to_string())["dropped"], 0);
    }
    let (start, size) = ranges[2];
    let esp = peek(&after, start, usize::try_from(size).unwrap());
    assert!(esp.iter().all(|&byte| byte == 0));
    assert_eq!(part(&report, "2")["dropped"], size);

    let small = work.path().join("small.qcow2");
    for (options, words) in [
        (&["--keep", "9"][..], "has no part '9'"),
        (
            &["--keep", "4", "--zero", "4"],
            "to be kept and to be emptied",
        ),
        (&["--zero", "LABEL=nothing"], "has no part"),
        (&["--exact", "--keep", "4"], "cannot be used with"),
    ] {
        let mut arguments = vec!["compress"];
        arguments.extend(options);
        arguments.extend([text(&disk), text(&small)]);
        let said = qimg(&arguments).failed(1);
        assert!(said.contains(words), "{options:?}: {said}");
        assert!(!small.exists());
    }
}

#[test]
fn a_dry_run_shows_each_part() {
    let work = tempfile::tempdir().unwrap();
    let (disk, _) = installed(work.path());
    let said = qimg(["compress", "--dry-run", "--keep", "4", text(&disk)]).well();
    for words in [
        "EFI system",
        "vfat FAT32",
        "swap",
        "kept with --keep",
        "Linux LVM",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // convert says it with the same words, and writes the same.
    let raw = work.path().join("converted.raw");
    qimg(["convert", "--sparsify", "-q", text(&disk), text(&raw)]).well();
    let (_, after) = compressed(&disk, &[], work.path());
    must(&["cmp", text(&raw), text(&after)]);
}

#[test]
fn logical_partitions_are_parts() {
    let work = tempfile::tempdir().unwrap();
    let disk = work.path().join("disk.raw");
    sparse(&disk, 256 * MIB);
    let script = work.path().join("script");
    std::fs::write(
        &script,
        "label: dos\nstart=2048, size=100M, type=5\nstart=4096, size=40M, type=83\nstart=120M, size=64M, type=83, bootable\n",
    )
    .unwrap();
    must(&[
        "sh",
        "-c",
        "sfdisk -q \"$0\" <\"$1\"",
        text(&disk),
        text(&script),
    ]);
    let table = must(&["sfdisk", "--json", text(&disk)]);
    let table: Value = serde_json::from_str(&table).unwrap();
    let file = work.path().join("part");
    let mut sizes = Vec::new();
    for entry in table["partitiontable"]["partitions"].as_array().unwrap() {
        let (start, size) = (
            entry["start"].as_u64().unwrap(),
            entry["size"].as_u64().unwrap(),
        );
        if entry["type"] == "83" {
            used(&file, size * 512, &["mke2fs", "-q", "-t", "ext4"], start);
            place(&file, &disk, start * 512);
            sizes.push((start * 512, size * 512));
        }
    }
    assert_eq!(sizes.len(), 2, "{table}");
    let (report, after) = compressed(&disk, &[], work.path());
    assert_eq!(part(&report, "5")["kept"], Value::Null);
    assert!(!tells_secrets(&after));
    for (start, _) in sizes {
        must(&["e2fsck", "-fn", &format!("{}?offset={start}", text(&after))]);
    }
    assert_eq!(
        must(&["sfdisk", "--json", text(&disk)]).replace(text(&disk), ""),
        must(&["sfdisk", "--json", text(&after)]).replace(text(&after), "")
    );
}

/// Runs LVM on `device` alone, without a device mapper.
fn lvm(work: &Path, device: &str, words: &[&str]) -> String {
    let config = format!(
        "devices {{ dir=\"/dev\" scan=[\"/dev\"] use_devicesfile=0 global_filter=[\"a|^{device}$|\", \"r|.*|\"] }} \
         global {{ locking_type=0 }} activation {{ udev_sync=0 udev_rules=0 }}"
    );
    let system = format!("LVM_SYSTEM_DIR={}", text(work));
    let mut all = vec![
        "env",
        system.as_str(),
        "LVM_SUPPRESS_FD_WARNINGS=1",
        "lvm",
        words[0],
    ];
    all.extend(["--driverloaded", "n", "--config", &config]);
    all.extend(&words[1..]);
    must(&all)
}

#[test]
fn logical_volumes_are_parts_and_free_extents_go() {
    let work = tempfile::tempdir().unwrap();
    let (disk, file) = (work.path().join("disk.raw"), work.path().join("pv"));
    sparse(&file, 600 * MIB);
    let device = must(&["losetup", "--find", "--show", text(&file)]);
    let device = device.trim();
    let run = |words: &[&str]| lvm(work.path(), device, words);
    run(&["pvcreate", "-y", device]);
    run(&["vgcreate", "-s", "4M", "vg", device]);
    for (name, extents) in [("root", "25"), ("data", "80")] {
        run(&[
            "lvcreate", "-y", "-an", "-Zn", "-Wn", "-l", extents, "-n", name, "vg",
        ]);
    }
    let table = run(&[
        "pvs",
        "--noheadings",
        "--units",
        "b",
        "--nosuffix",
        "-o",
        "pe_start",
    ]);
    must(&["losetup", "--detach", device]);
    let start: u64 = table.trim().parse().unwrap();
    let part = work.path().join("part");
    let ranges = [(start, 100 * MIB), (start + 100 * MIB, 320 * MIB)];
    used(&part, 100 * MIB, &["mke2fs", "-q", "-t", "ext4"], 21);
    place(&part, &file, ranges[0].0);
    used(&part, 320 * MIB, &["mkfs.xfs", "-q", "-f"], 22);
    place(&part, &file, ranges[1].0);
    patch(&file, 560 * MIB, &SECRET.repeat(1 << 16));

    // In a partition, and as a whole disk.
    sparse(&disk, 610 * MIB);
    must(&[
        "sgdisk",
        "--clear",
        "--new=1:2048:+600M",
        "--typecode=1:8e00",
        text(&disk),
    ]);
    place(&file, &disk, MIB);
    for (disk, offset) in [(&disk, MIB), (&file, 0)] {
        let (report, after) = compressed(disk, &["-f", "raw"], work.path());
        for name in ["vg/root", "vg/data"] {
            assert_eq!(self::part(&report, name)["kept"], Value::Null, "{report}");
        }
        assert!(!tells_secrets(&after));
        for ((start, size), check) in ranges
            .iter()
            .zip([&["e2fsck", "-fn"], &["xfs_repair", "-n"]])
        {
            let (old, new) = (work.path().join("old"), work.path().join("new"));
            cut(&file, *start, *size, &old);
            cut(&after, offset + start, *size, &new);
            let mut words = check.to_vec();
            words.push(text(&new));
            must(&words);
            let before = tree(Mount::new(&old, "ro").path());
            assert_eq!(tree(Mount::new(&new, "ro").path()), before);
        }
        let listed = qimg(["ls", &format!("{}:vg/root:/", text(disk))]).well();
        assert!(listed.contains("later-1"), "{listed}");
    }
}
