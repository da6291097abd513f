//! What every filesystem holds survives, what was deleted from it does not.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::program::qimg;
use crate::tools::{Mount, fill, must, run, sparse, tells_secrets, tree};

/// A kind of filesystem: how it is made, and how it is looked over.
struct Case {
    name: &'static str,
    mkfs: &'static [&'static str],
    check: &'static [&'static str],
    mebibytes: u64,
}

const fn ext4(name: &'static str, mkfs: &'static [&'static str]) -> Case {
    Case {
        name,
        mkfs,
        check: &["e2fsck", "-fn"],
        mebibytes: 96,
    }
}

/// Those that the kernel mounts.
const CASES: &[Case] = &[
    ext4("ext4", &["mke2fs", "-q", "-t", "ext4"]),
    ext4(
        "ext4 with small blocks",
        &["mke2fs", "-q", "-t", "ext4", "-b", "1024"],
    ),
    ext4(
        "ext4 of newer distributions",
        &[
            "mke2fs",
            "-q",
            "-t",
            "ext4",
            "-O",
            "metadata_csum_seed,orphan_file,inline_data",
        ],
    ),
    ext4(
        "ext4 with clusters",
        &[
            "mke2fs", "-q", "-t", "ext4", "-O", "bigalloc", "-C", "16384",
        ],
    ),
    ext4(
        "ext4 with meta groups",
        &[
            "mke2fs",
            "-q",
            "-t",
            "ext4",
            "-b",
            "1024",
            "-O",
            "meta_bg,^resize_inode",
        ],
    ),
    ext4(
        "ext4 with two copies of the superblock",
        &[
            "mke2fs",
            "-q",
            "-t",
            "ext4",
            "-O",
            "sparse_super2,^resize_inode,^64bit",
        ],
    ),
    ext4(
        "ext4 of old",
        &[
            "mke2fs",
            "-q",
            "-t",
            "ext4",
            "-O",
            "uninit_bg,^metadata_csum,^64bit,^flex_bg",
        ],
    ),
    ext4("ext3", &["mke2fs", "-q", "-t", "ext3"]),
    ext4("ext2", &["mke2fs", "-q", "-t", "ext2", "-b", "2048"]),
    Case {
        name: "xfs",
        mkfs: &["mkfs.xfs", "-q"],
        check: &["xfs_repair", "-n"],
        mebibytes: 320,
    },
    Case {
        name: "xfs with many groups and all features",
        mkfs: &[
            "mkfs.xfs",
            "-q",
            "-d",
            "agcount=7",
            "-m",
            "rmapbt=1,reflink=1,bigtime=1,inobtcount=1",
            "-b",
            "size=1024",
        ],
        check: &["xfs_repair", "-n"],
        mebibytes: 640,
    },
    Case {
        name: "btrfs",
        mkfs: &["mkfs.btrfs", "-q"],
        check: &["btrfs", "check", "--check-data-csum"],
        mebibytes: 320,
    },
];

/// The report of `qimg compress`, and the raw disk that its output holds.
pub fn compressed(disk: &Path, options: &[&str], work: &Path) -> (Value, PathBuf) {
    let small = work.join("small.qcow2");
    let after = work.join("after.raw");
    let (disk, small_name) = (disk.to_str().unwrap(), small.to_str().unwrap());
    let mut words = vec!["compress", "--json", "--no-sync", "--codec=zstd"];
    words.extend(options);
    words.extend([disk, small_name]);
    let said = qimg(&words);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    let report = said.json();
    must(&["qemu-img", "check", "-q", small_name]);
    must(&[
        "qemu-img",
        "convert",
        "-O",
        "raw",
        small_name,
        after.to_str().unwrap(),
    ]);
    std::fs::remove_file(small).unwrap();
    (report, after)
}

fn assert_sound(case: &Case, disk: &Path) {
    let mut words = case.check.to_vec();
    words.push(disk.to_str().unwrap());
    let output = run(&words);
    assert!(
        output.status.success(),
        "{}: {words:?}: {}{}",
        case.name,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A disk of `case` after some use, and what is on it.
fn used(case: &Case, work: &Path, seed: u64) -> PathBuf {
    let disk = work.join("disk.raw");
    sparse(&disk, case.mebibytes << 20);
    let mut words = case.mkfs.to_vec();
    words.push(disk.to_str().unwrap());
    must(&words);
    {
        let mount = Mount::new(&disk, "nodiscard");
        fill(mount.path(), seed);
    }
    assert!(tells_secrets(&disk), "{}", case.name);
    disk
}

#[test]
fn files_stay_and_what_was_deleted_goes() {
    for (seed, case) in (1..).zip(CASES) {
        let work = tempfile::tempdir().unwrap();
        let disk = used(case, work.path(), seed);
        assert_sound(case, &disk);
        let before = tree(Mount::new(&disk, "ro").path());
        let (report, after) = compressed(&disk, &[], work.path());
        let part = &report["free-space"]["parts"][0];
        assert_eq!(part["kept"], Value::Null, "{}: {part}", case.name);
        assert!(
            part["dropped"].as_u64().unwrap() > 10 << 20,
            "{}",
            case.name
        );
        assert_sound(case, &after);
        assert_eq!(
            tree(Mount::new(&after, "ro").path()),
            before,
            "{}",
            case.name
        );
        // Small files lie in btrfs' own trees.
        assert!(
            case.name == "btrfs" || !tells_secrets(&after),
            "{}",
            case.name
        );

        let exact = compressed(&disk, &["--exact"], work.path()).1;
        let same = ["cmp", disk.to_str().unwrap(), exact.to_str().unwrap()];
        must(&same);
    }
}

#[test]
fn in_place_they_stay_and_go_alike() {
    for (seed, case) in (50..).zip(CASES.iter().step_by(4)) {
        let work = tempfile::tempdir().unwrap();
        let disk = used(case, work.path(), seed);
        let before = tree(Mount::new(&disk, "ro").path());
        let image = work.path().join("image.qcow2");
        let after = work.path().join("after.raw");
        let [disk, image, after_name] =
            [&disk, &image, &after].map(|path| path.to_str().unwrap().to_owned());
        must(&["qemu-img", "convert", "-O", "qcow2", &disk, &image]);
        for (target, format) in [(&image, "qcow2"), (&disk, "raw")] {
            let said = qimg(["sparsify", "--json", "-f", format, target.as_str()]);
            let report = said.json();
            assert!(report["free-bytes"].as_u64().unwrap() > 4 << 20, "{report}");
            if format == "qcow2" {
                must(&["qemu-img", "check", "-q", target]);
            }
            must(&[
                "qemu-img",
                "convert",
                "-f",
                format,
                "-O",
                "raw",
                target,
                &after_name,
            ]);
            assert_sound(case, &after);
            assert_eq!(
                tree(Mount::new(&after, "ro").path()),
                before,
                "{}",
                case.name
            );
        }
    }
}
