//! What is kept, and why: each reason with an input that provokes it.

use std::io::Write;
use std::path::Path;

use serde_json::Value;

use crate::disks::fat;
use crate::program::qimg;
use crate::sparsified::compressed;
use crate::tools::{Mount, Random, fill, must, patch, peek, run, sparse};

const MIB: u64 = 1 << 20;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn ext4(disk: &Path, options: &[&str]) {
    sparse(disk, 64 * MIB);
    let mut words = vec!["mke2fs", "-q", "-t", "ext4"];
    words.extend(options);
    words.push(text(disk));
    must(&words);
}

fn debugfs(disk: &Path, request: &str) {
    must(&["debugfs", "-w", "-R", request, text(disk)]);
}

fn xfs(disk: &Path, options: &[&str]) {
    sparse(disk, 320 * MIB);
    let mut words = vec!["mkfs.xfs", "-q", "-f"];
    words.extend(options);
    words.push(text(disk));
    must(&words);
}

/// As a disk is when its host fails: a copy of what is in the file while the filesystem is mounted.
fn torn(disk: &Path, work: &Path, write: impl FnOnce(&Path)) {
    let copy = work.join("torn");
    {
        let mount = Mount::new(disk, "nodiscard");
        write(mount.path());
        must(&["cp", "--sparse=always", text(disk), text(&copy)]);
    }
    std::fs::rename(copy, disk).unwrap();
}

fn synced(path: &Path, bytes: &[u8]) {
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

type Make = fn(&Path, &Path);

/// A word of what is said, the disk that provokes it, and how it is made.
const REFUSALS: &[(&str, &str, Make)] = &[
    (
        "needs journal recovery",
        "ext4 whose superblock has `needs_recovery`",
        |disk, _| {
            ext4(disk, &[]);
            debugfs(disk, "feature needs_recovery");
        },
    ),
    (
        "needs journal recovery",
        "ext4 of a host that failed while a file was being written",
        |disk, work| {
            ext4(disk, &[]);
            torn(disk, work, |mount| {
                synced(&mount.join("file"), b"contents");
            });
        },
    ),
    (
        "error",
        "ext4 with the error state (`debugfs`: `ssv state 2`)",
        |disk, _| {
            ext4(disk, &[]);
            debugfs(disk, "ssv state 2");
        },
    ),
    (
        "feature",
        "ext4 with an unknown incompatible feature",
        |disk, _| {
            ext4(disk, &["-O", "^metadata_csum"]);
            debugfs(disk, "ssv feature_incompat 0x800002c2");
        },
    ),
    (
        "free",
        "ext4 whose superblock counts other free blocks than its groups",
        |disk, _| {
            ext4(disk, &["-O", "^metadata_csum"]);
            debugfs(disk, "ssv free_blocks_count 77");
        },
    ),
    (
        "has blocks that the block bitmap says are free",
        "ext4 without `metadata_csum` whose bitmap lost a block of the journal and gained another (`debugfs`: `freeb`, `setb`)",
        |disk, _| {
            ext4(disk, &["-b", "1024", "-O", "^metadata_csum"]);
            let place = must(&["debugfs", "-R", "bmap <8> 100", text(disk)]);
            debugfs(disk, &format!("freeb {}", place.trim()));
            debugfs(disk, "setb 24000");
            assert!(!run(&["e2fsck", "-fn", text(disk)]).status.success());
        },
    ),
    (
        "checksum",
        "ext4 with a changed bit in its superblock",
        |disk, _| {
            ext4(disk, &[]);
            let bytes = peek(disk, 1024 + 0x50, 1);
            patch(disk, 1024 + 0x50, &[bytes[0] ^ 1]);
        },
    ),
    (
        "past the end",
        "ext4 whose disk was cut short",
        |disk, _| {
            ext4(disk, &[]);
            let file = std::fs::OpenOptions::new().write(true).open(disk).unwrap();
            file.set_len(63 * MIB).unwrap();
        },
    ),
    (
        "log",
        "xfs of a host that failed while a file was being written",
        |disk, work| {
            xfs(disk, &[]);
            torn(disk, work, |mount| {
                synced(&mount.join("file"), b"contents");
            });
        },
    ),
    (
        "another device",
        "`mkfs.xfs -l logdev=...`",
        |disk, work| {
            let log = work.join("log");
            sparse(&log, 128 * MIB);
            let device = format!("logdev={},size=64m", text(&log));
            xfs(disk, &["-l", &device]);
        },
    ),
    ("realtime", "`mkfs.xfs -r rtdev=...`", |disk, work| {
        let device = work.join("realtime");
        sparse(&device, 128 * MIB);
        xfs(disk, &["-r", &format!("rtdev={}", text(&device))]);
    }),
    (
        "marked as mounted",
        "FAT32 with the mount mark in its boot sector",
        |disk, work| {
            fat(disk, 96 * MIB, &["-F", "32", "-s", "1"], work);
            patch(disk, 0x41, &[1]);
        },
    ),
    ("differ", "FAT32 whose two tables differ", |disk, work| {
        fat(disk, 96 * MIB, &["-F", "32", "-s", "1"], work);
        let fat_sectors = u32::from_le_bytes(peek(disk, 36, 4).try_into().unwrap());
        patch(disk, (32 + u64::from(fat_sectors)) * 512 + 4000, &[9]);
    }),
    ("dirty", "NTFS marked for a check (`ntfsfix`)", |disk, _| {
        sparse(disk, 64 * MIB);
        must(&["mkntfs", "-q", "-F", text(disk)]);
        // Marks the volume for a check at the next start of Windows.
        must(&["ntfsfix", text(disk)]);
    }),
    (
        "hibernat",
        "NTFS with a `hiberfil.sys` that begins with `HIBR`",
        |disk, _| {
            sparse(disk, 64 * MIB);
            must(&["mkntfs", "-q", "-F", text(disk)]);
            let mount = Mount::ntfs(disk);
            let mut bytes = vec![0; 8192];
            bytes[..4].copy_from_slice(b"HIBR");
            std::fs::write(mount.path().join("hiberfil.sys"), bytes).unwrap();
        },
    ),
    (
        "hibernat",
        "swap with the signature of a hibernated Linux",
        |disk, _| {
            sparse(disk, 32 * MIB);
            must(&["mkswap", text(disk)]);
            patch(disk, 4096 - 10, b"S1SUSPEND\0");
        },
    ),
    (
        "log",
        "btrfs of a host that failed after an fsync",
        |disk, work| {
            sparse(disk, 320 * MIB);
            must(&["mkfs.btrfs", "-q", text(disk)]);
            torn(disk, work, |mount| {
                synced(&mount.join("file"), &[1; 10_000]);
                // What is synced alone goes to the log tree.
                synced(&mount.join("file"), &[2; 20_000]);
            });
        },
    ),
    ("device", "btrfs on two devices", |disk, work| {
        let second = work.join("second");
        sparse(disk, 200 * MIB);
        sparse(&second, 200 * MIB);
        must(&["mkfs.btrfs", "-q", text(disk), text(&second)]);
    }),
    (
        "shadow copies",
        "NTFS with the header of its shadow copies",
        |disk, _| {
            sparse(disk, 64 * MIB);
            must(&["mkntfs", "-q", "-F", text(disk)]);
            let guid = *b"\x6b\x87\x08\x38\x76\xc1\x48\x4e\xb7\xae\x04\x04\x6e\x6c\xc7\x52";
            patch(disk, 0x1e00, &guid);
        },
    ),
    ("LUKS", "`cryptsetup luksFormat`", |disk, work| {
        sparse(disk, 64 * MIB);
        let key = work.join("key");
        std::fs::write(&key, b"secret").unwrap();
        must(&[
            "cryptsetup",
            "luksFormat",
            "-q",
            "--pbkdf-force-iterations=4",
            "--pbkdf-memory=32",
            text(disk),
            text(&key),
        ]);
    }),
    (
        "RAID",
        "the superblock of a Linux RAID member",
        |disk, _| {
            ext4(disk, &["-E", "offset=1048576"]);
            // A member of an array, of version 1.2: its magic number, major version, and feature map.
            patch(disk, 4096, &[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]);
            patch(disk, 4096 + 128, &[8]);
        },
    ),
    (
        "ambiguous",
        "ext4 with the signatures of xfs and swap left over",
        |disk, _| {
            ext4(disk, &[]);
            patch(disk, 4096 - 10, b"SWAPSPACE2");
            patch(disk, 1024 + 4, &[0; 0]);
            patch(disk, 0, b"XFSB");
        },
    ),
    (
        "hash",
        "a dm-verity tree behind the filesystem (`veritysetup format`)",
        |disk, work| {
            // The data, and the tree over it, behind one another.
            let data = work.join("data");
            ext4(&data, &[]);
            must(&["cp", "--sparse=always", text(&data), text(disk)]);
            let file = std::fs::OpenOptions::new().write(true).open(disk).unwrap();
            file.set_len(72 * MIB).unwrap();
            must(&[
                "veritysetup",
                "format",
                "--data-blocks=16384",
                "--hash-offset=67108864",
                text(disk),
                text(disk),
            ]);
        },
    ),
    ("read-only", "an ISO image", |disk, work| {
        let files = work.join("files");
        std::fs::create_dir(&files).unwrap();
        std::fs::write(files.join("file"), b"contents").unwrap();
        must(&[
            "xorriso",
            "-as",
            "mkisofs",
            "-quiet",
            "-o",
            text(disk),
            text(&files),
        ]);
        must(&["truncate", "-s", "4M", text(disk)]);
    }),
    ("nothing", "random bytes", |disk, _| {
        std::fs::write(disk, Random(3).bytes(8 << 20)).unwrap();
    }),
];

#[test]
fn whatever_is_doubtful_is_kept_and_the_reason_is_said() {
    let mut failures = Vec::new();
    for (words, input, make) in REFUSALS {
        let work = tempfile::tempdir().unwrap();
        let disk = work.path().join("disk.raw");
        make(&disk, work.path());
        let (report, after) = compressed(&disk, &["-f", "raw"], work.path());
        let space = &report["free-space"];
        let stopped = &space["stopped"]["reason"];
        let reason = if stopped.is_string() {
            stopped
        } else {
            &space["parts"][0]["kept"]["reason"]
        };
        let reason = reason.as_str().unwrap_or_default().to_owned();
        // The list, for who asks for it with --nocapture.
        writeln!(std::io::stdout(), "| {reason} | {input} |").unwrap();
        if !reason.contains(words) || reason.contains('\n') {
            failures.push(format!(
                "{input}: '{words}' expected, said: {reason} {space}"
            ));
        }
        if space["dropped"] != 0 {
            failures.push(format!("{input}: {} dropped", space["dropped"]));
        }
        must(&["cmp", text(&disk), text(&after)]);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_table_that_cannot_be_trusted_stops_everything() {
    let work = tempfile::tempdir().unwrap();
    let disk = work.path().join("disk.raw");
    let file = work.path().join("part");
    ext4(&file, &[]);
    fill(Mount::new(&file, "nodiscard").path(), 1);
    sparse(&disk, 80 * MIB);
    must(&["sgdisk", "--clear", "--new=1:2048:133119", text(&disk)]);
    crate::tools::place(&file, &disk, MIB);
    let dropped = |disk: &Path| {
        let (report, _) = compressed(disk, &[], work.path());
        (report["free-space"]["dropped"].as_u64().unwrap(), report)
    };
    let (whole, _) = dropped(&disk);
    assert!(whole > 20 * MIB);
    // Its backup at the end still tells the same.
    patch(&disk, 512 + 16, &[0xff; 4]);
    let (one, report) = dropped(&disk);
    assert_eq!(one, whole, "{report}");
    assert!(
        !report["free-space"]["table"]["notes"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    patch(&disk, 80 * MIB - 512 + 16, &[0xff; 4]);
    let (none, report) = dropped(&disk);
    assert_eq!(none, 0, "{report}");
}

#[test]
fn a_state_of_a_running_machine_stops_everything() {
    let work = tempfile::tempdir().unwrap();
    let (disk, image) = (
        work.path().join("disk.raw"),
        work.path().join("image.qcow2"),
    );
    ext4(&disk, &[]);
    must(&[
        "qemu-img",
        "convert",
        "-O",
        "qcow2",
        text(&disk),
        text(&image),
    ]);
    must(&["qemu-img", "snapshot", "-c", "plain", text(&image)]);
    let plain = qimg([
        "compress",
        "--json",
        "--dry-run",
        "--drop-snapshots",
        text(&image),
    ]);
    assert!(plain.json()["free-space"]["dropped"].as_u64().unwrap() > 0);
    // The size of a machine's state, in the first record of the table (qcow2 specification, "Snapshots").
    let table = u64::from_be_bytes(peek(&image, 64, 8).try_into().unwrap());
    patch(&image, table + 32, &4096_u32.to_be_bytes());
    patch(&image, table + 40, &4096_u64.to_be_bytes());
    let running = qimg([
        "compress",
        "--json",
        "--dry-run",
        "--drop-snapshots",
        text(&image),
    ]);
    let report: Value = running.json();
    let reason = report["free-space"]["stopped"]["reason"].as_str().unwrap();
    assert!(reason.contains("state of a running machine"), "{reason}");
    assert_eq!(report["free-space"]["dropped"], 0);
}

/// A disk of one or more parts, made of these files one after another from 1 MiB on.
fn joined(disk: &Path, label: &str, parts: &[(&Path, u64, &str)]) {
    let mut script = format!("label: {label}\n");
    let mut at = 1;
    for (_, mebibytes, kind) in parts {
        script.push_str(&format!("start={at}M, size={mebibytes}M, type={kind}\n"));
        at += mebibytes;
    }
    sparse(disk, (at + 1) * MIB);
    must(&[
        "sh",
        "-c",
        "printf '%s' \"$1\" | sfdisk -q --wipe never \"$0\"",
        text(disk),
        &script,
    ]);
    let mut at = 1;
    for (file, mebibytes, _) in parts {
        crate::tools::place(file, disk, at * MIB);
        at += mebibytes;
    }
}

fn kept(disk: &Path, work: &Path, part: usize) -> String {
    kept_or_free(disk, work, part).unwrap()
}

#[test]
fn a_stale_signature_in_a_part_with_a_table_of_its_own_frees_nothing() {
    let work = tempfile::tempdir().unwrap();
    let (disk, file) = (work.path().join("disk.raw"), work.path().join("part"));
    sparse(&file, 100 * MIB);
    must(&["mkswap", text(&file)]);
    must(&[
        "sh",
        "-c",
        "echo 2048,,83 | sfdisk -q --wipe never \"$0\"",
        text(&file),
    ]);
    joined(&disk, "dos", &[(&file, 100, "83")]);
    assert_eq!(
        kept(&disk, work.path(), 0),
        "holds a partition table of its own"
    );
}

#[test]
fn a_windows_dynamic_disk_frees_nothing() {
    let work = tempfile::tempdir().unwrap();
    let (disk, file) = (work.path().join("disk.raw"), work.path().join("part"));
    sparse(&file, 64 * MIB);
    must(&["mkntfs", "-q", "-F", text(&file)]);
    joined(&disk, "dos", &[(&file, 64, "42")]);
    assert!(kept(&disk, work.path(), 0).contains("dynamic disk"));
    joined(
        &disk,
        "gpt",
        &[(&file, 64, "AF9B60A0-1431-4F62-BC68-3311714A69AD")],
    );
    assert!(kept(&disk, work.path(), 0).contains("dynamic disk"));
}

#[test]
fn the_swap_of_a_machine_that_was_not_shut_down_stays() {
    let work = tempfile::tempdir().unwrap();
    let (disk, root) = (work.path().join("disk.raw"), work.path().join("root"));
    let swap = work.path().join("swap");
    ext4(&root, &[]);
    sparse(&swap, 32 * MIB);
    must(&["mkswap", text(&swap)]);
    let parts = [(root.as_path(), 64, "83"), (swap.as_path(), 32, "82")];
    joined(&disk, "dos", &parts);
    assert_eq!(kept_or_free(&disk, work.path(), 1), None);
    debugfs(&root, "feature needs_recovery");
    joined(&disk, "dos", &parts);
    let reason = kept_or_free(&disk, work.path(), 1).unwrap();
    assert!(reason.contains("swapped out"), "{reason}");
}

fn kept_or_free(disk: &Path, work: &Path, part: usize) -> Option<String> {
    let (report, _) = compressed(disk, &[], work);
    let part = &report["free-space"]["parts"][part];
    let kept = part["kept"]["reason"].as_str().map(ToOwned::to_owned);
    assert_eq!(kept.is_some(), part["dropped"] == 0, "{report}");
    kept
}
