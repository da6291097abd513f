//! Files looked at and copied out, as the kernel has them; and what `inspect` says of a disk.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use serde_json::Value;

use crate::disks::{fat, fat_tree};
use crate::program::qimg;
use crate::tools::{Mount, fill, must, place, sparse, tree};

const MIB: u64 = 1 << 20;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Everything that a directory may hold.
fn furnish(directory: &Path) {
    fill(directory, 11);
    let etc = directory.join("etc");
    std::fs::create_dir_all(directory.join("usr/lib")).unwrap();
    std::fs::create_dir_all(&etc).unwrap();
    std::fs::write(
        directory.join("usr/lib/os-release"),
        "ID=sample\nVERSION_ID=\"7\"\nPRETTY_NAME=\"A Sample 7\"\n",
    )
    .unwrap();
    symlink("../usr/lib/os-release", etc.join("os-release")).unwrap();
    std::fs::write(etc.join("hostname"), "guest\n").unwrap();
    std::fs::create_dir_all(directory.join("boot")).unwrap();
    std::fs::write(directory.join("boot/vmlinuz-6.1.0-13-cloud-amd64"), "MZ").unwrap();
    symlink("/etc/hostname", directory.join("absolute")).unwrap();
    symlink("nowhere/at/all", directory.join("dangling")).unwrap();
    symlink("loop", directory.join("loop")).unwrap();
    symlink("x".repeat(200), directory.join("long target")).unwrap();
    std::fs::write(directory.join("tool"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(directory.join("tool"), PermissionsExt::from_mode(0o750)).unwrap();
    std::fs::hard_link(directory.join("tool"), directory.join("etc/same tool")).unwrap();
    let holes = std::fs::File::create(directory.join("holes")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&holes, b"far away", 9 * MIB).unwrap();
    holes.set_len(11 * MIB).unwrap();
    let many = directory.join("many");
    std::fs::create_dir(&many).unwrap();
    for number in 0..1500 {
        std::fs::write(
            many.join(format!("a name of some length, {number}")),
            [b'x'; 3],
        )
        .unwrap();
    }
    must(&["mkfifo", text(&directory.join("pipe"))]);
    must(&["mknod", text(&directory.join("device")), "c", "4", "65"]);
}

fn same_files(copied: &Path, mounted: &Path) {
    let mut expected = tree(mounted);
    // What only the guest can use is not copied, nor what mkfs made.
    for name in ["pipe", "device", "lost+found"] {
        expected.remove(Path::new(name));
    }
    let found = tree(copied);
    let names = |tree: &std::collections::BTreeMap<std::path::PathBuf, _>| {
        tree.keys().cloned().collect::<Vec<_>>()
    };
    let mut without = found.clone();
    without.remove(Path::new("lost+found"));
    assert_eq!(names(&without), names(&expected));
    assert_eq!(without, expected);
}

#[test]
fn a_tree_is_copied_out_as_the_kernel_sees_it() {
    for mkfs in [
        &["mke2fs", "-q", "-t", "ext4"][..],
        &["mke2fs", "-q", "-t", "ext2", "-b", "1024"],
        &["mkfs.xfs", "-q"],
    ] {
        let work = tempfile::tempdir().unwrap();
        let disk = work.path().join("disk.raw");
        sparse(&disk, 320 * MIB);
        let mut words = mkfs.to_vec();
        words.push(text(&disk));
        must(&words);
        furnish(Mount::new(&disk, "nodiscard").path());
        let out = work.path().join("out");
        let said = qimg([
            "cp",
            "-r",
            "--json",
            &format!("{}:/", text(&disk)),
            text(&out),
        ]);
        assert_eq!(said.code, Some(0), "{mkfs:?}: {said:?}");
        let mount = Mount::new(&disk, "ro");
        same_files(&out, mount.path());
        for name in ["tool", "etc", "holes", "dangling", "folder-1"] {
            let (copy, own) = (out.join(name), mount.path().join(name));
            let (copy, own) = (copy.symlink_metadata(), own.symlink_metadata());
            let (copy, own) = (copy.unwrap(), own.unwrap());
            assert_eq!(
                (copy.mtime(), copy.mtime_nsec()),
                (own.mtime(), own.mtime_nsec()),
                "{name}"
            );
        }
        let tool = std::fs::metadata(out.join("tool")).unwrap();
        let twin = std::fs::metadata(out.join("etc/same tool")).unwrap();
        assert_eq!((tool.ino(), tool.nlink()), (twin.ino(), 2));
        assert!(std::fs::metadata(out.join("holes")).unwrap().blocks() < 2048);
    }
}

#[test]
fn files_are_listed_printed_and_told_of() {
    let work = tempfile::tempdir().unwrap();
    let disk = work.path().join("disk.raw");
    sparse(&disk, 128 * MIB);
    must(&["mke2fs", "-q", "-t", "ext4", text(&disk)]);
    furnish(Mount::new(&disk, "nodiscard").path());
    let at = |path: &str| format!("{}:{path}", text(&disk));
    assert_eq!(qimg(["cat", &at("/etc/hostname")]).well(), "guest\n");
    assert_eq!(qimg(["cat", &at("/absolute")]).well(), "guest\n");
    assert_eq!(
        qimg(["cat", &at("etc/../etc/./hostname")]).well(),
        "guest\n"
    );
    let names = qimg(["ls", &at("/etc")]).well();
    assert_eq!(names, "hostname\nos-release\nsame tool\n");
    let long = qimg(["ls", "-l", &at("/")]).well();
    assert!(long.contains("dangling -> nowhere/at/all"), "{long}");
    assert!(
        long.lines()
            .any(|line| line.starts_with("crw") && line.contains("4,65")),
        "{long}"
    );
    let stat = qimg(["stat", "--json", &at("/tool")]).json();
    assert_eq!(
        (&stat["mode"], &stat["links"]),
        (&Value::from("0750"), &Value::from(2))
    );
    assert_eq!(
        qimg(["ls", "-R", &at("/many")]).well().lines().count(),
        1500
    );
    for (path, words) in [
        ("/nowhere", "has no '/nowhere'"),
        ("/etc", "is a directory"),
        ("/loop", "40"),
        ("/pipe", "pipe"),
    ] {
        let said = qimg(["cat", &at(path)]).failed(1);
        assert!(said.contains(words), "{path}: {said}");
    }
    let out = work.path().join("taken");
    qimg(["cp", &at("/etc/hostname"), text(&out)]).well();
    assert_eq!(std::fs::read(&out).unwrap(), b"guest\n");
    qimg(["cp", &at("/tool"), text(&out)]).failed(1);
    assert_eq!(std::fs::read(&out).unwrap(), b"guest\n");
    qimg(["cp", "-q", &at("/etc"), text(work.path())]).failed(1);
}

#[test]
fn fat_and_iso_trees_are_copied_out() {
    let work = tempfile::tempdir().unwrap();
    let disk = work.path().join("fat.img");
    fat(&disk, 64 * MIB, &["-F", "32"], work.path());
    let out = work.path().join("fat");
    qimg(["cp", "-q", "-r", &format!("{}:/", text(&disk)), text(&out)]).well();
    let plain = |tree: std::collections::BTreeMap<_, _>| {
        tree.into_keys().collect::<Vec<std::path::PathBuf>>()
    };
    assert_eq!(
        std::fs::read(out.join("EFI/Boot/BOOTX64.EFI"))
            .unwrap()
            .len(),
        (64 << 20) / 40
    );
    assert_eq!(plain(tree(&out)).len(), 4);
    let _ = fat_tree(&disk);

    let source = work.path().join("source");
    std::fs::create_dir(&source).unwrap();
    fill(&source, 5);
    symlink("later-1", source.join("link")).unwrap();
    let iso = work.path().join("disk.iso");
    must(&[
        "genisoimage",
        "-quiet",
        "-r",
        "-J",
        "-V",
        "cidata",
        "-o",
        text(&iso),
        text(&source),
    ]);
    let out = work.path().join("iso");
    qimg(["cp", "-q", "-r", &format!("{}:/", text(&iso)), text(&out)]).well();
    for (name, _) in tree(&source) {
        let (ours, own) = (out.join(&name), source.join(&name));
        if own.is_file() {
            assert_eq!(std::fs::read(ours).unwrap(), std::fs::read(own).unwrap());
        }
    }
    assert_eq!(
        std::fs::read_link(out.join("link")).unwrap(),
        Path::new("later-1")
    );
}

#[test]
fn inspect_tells_parts_system_and_boot_mode() {
    let work = tempfile::tempdir().unwrap();
    let disk = work.path().join("disk.raw");
    let file = work.path().join("part");
    sparse(&disk, 400 * MIB);
    must(&[
        "sgdisk",
        "--clear",
        "--new=1:2048:+64M",
        "--typecode=1:ef00",
        "--new=2:+0:+200M",
        "--typecode=2:8304",
        "--change-name=2:rootfs",
        text(&disk),
    ]);
    fat(&file, 64 * MIB, &["-F", "32"], work.path());
    place(&file, &disk, MIB);
    sparse(&file, 200 * MIB);
    must(&[
        "mke2fs",
        "-q",
        "-t",
        "ext4",
        "-L",
        "cloudimg-rootfs",
        text(&file),
    ]);
    furnish(Mount::new(&file, "nodiscard").path());
    let start = must(&["partx", "-g", "-o", "START", "-n", "2", text(&disk)]);
    let start: u64 = start.trim().parse().unwrap();
    place(&file, &disk, start * 512);
    let picture = work.path().join("disk.svg");
    let report = qimg(["inspect", "--json", "--svg", text(&picture), text(&disk)]).json();
    assert_eq!(report["boot"]["uefi"], true);
    assert_eq!(report["boot"]["bios"], false);
    assert_eq!(
        report["boot"]["efi-files"][0]["path"],
        "/EFI/Boot/BOOTX64.EFI"
    );
    let system = &report["systems"][0];
    assert_eq!(
        (&system["id"], &system["part"]),
        (&"sample".into(), &"2".into())
    );
    assert_eq!(system["name"], "A Sample 7");
    assert_eq!(system["hostname"], "guest");
    assert_eq!(system["kernels"][0], "6.1.0-13-cloud-amd64");
    let end = (start * 512 + 200 * MIB).next_multiple_of(512) + (16 << 10) + 512;
    assert_eq!(report["least-size"], end);
    let text_report = qimg(["inspect", text(&disk)]).well();
    for words in [
        "EFI system",
        "Linux root (x86-64)",
        "cloudimg-rootfs",
        "UEFI",
        "A Sample 7",
    ] {
        assert!(text_report.contains(words), "{words}: {text_report}");
    }
    let svg = std::fs::read_to_string(&picture).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    must(&[
        "python3",
        "-c",
        "import sys, xml.dom.minidom as m; m.parse(sys.argv[1])",
        text(&picture),
    ]);
    let usage = qimg(["map", "--usage", text(&disk)]).well();
    assert!(usage.contains("partition tables") && usage.contains("rootfs") || usage.contains('D'));
    let usage = qimg(["map", "--usage", "--json", text(&disk)]).json();
    let total = &usage["total"];
    let sum: u64 = ["data", "compressed", "free", "zero", "metadata"]
        .iter()
        .map(|class| total[class].as_u64().unwrap())
        .sum();
    assert_eq!(sum, 400 * MIB);
}

#[test]
fn the_root_of_an_iso_for_disks_is_found() {
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "contents").unwrap();
    let esp = work.path().join("esp");
    fat(&esp, 4 * MIB, &["-F", "12"], work.path());
    let iso = work.path().join("disk.iso");
    must(&[
        "xorriso",
        "-as",
        "mkisofs",
        "-quiet",
        "-R",
        "-J",
        "-o",
        text(&iso),
        "-append_partition",
        "2",
        "0xef",
        text(&esp),
        "-appended_part_as_gpt",
        "--protective-msdos-label",
        text(&source),
    ]);
    assert_eq!(
        qimg(["cat", &format!("{}:/file", text(&iso))]).well(),
        "contents"
    );
    let esp = qimg(["ls", &format!("{}:2:/EFI/Boot", text(&iso))]).well();
    assert_eq!(esp, "BOOTX64.EFI\n");
}
