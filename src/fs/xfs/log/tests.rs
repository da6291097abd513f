#![expect(clippy::disallowed_types, reason = "tests write images themselves")]

use std::fs::File;
use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use super::*;
use crate::fs::RefusalKind;
use crate::fs::xfs::tests::{Image, log_is_clean, must, nightly};

#[test]
fn a_log_that_went_round_is_clean_wherever_it_ends() {
    let kinds = [
        "-l size=10m",
        "-s size=4096 -l size=12m",
        "-l size=10m,su=32k",
    ];
    for options in kinds.into_iter().take(if nightly() { 3 } else { 1 }) {
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
        assert!(cycles > 1, "{options}: the log never went round");
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
            for n in 0..7 {
                write_log(&image, head, cycle, headers, &|log| match n {
                    // Two operations; one that is no unmount.
                    0 => log[start * 512 + 43] = 2,
                    1 => log[data * 512 + 9] = 0,
                    2 => newer(log, head % sectors),
                    3 => newer(log, (head + 17) % sectors),
                    4 => newer(log, (head + 4095) % sectors),
                    // Longer than up to the head; of another filesystem.
                    5 => log[start * 512 + 14] = 4,
                    _ => log[start * 512 + 305] ^= 1,
                });
                let refusal = image.disk().free_space().unwrap_err();
                assert!(
                    matches!(refusal.kind, RefusalKind::Dirty | RefusalKind::Damaged),
                    "{head} {cycle} {headers} {n}"
                );
            }
        }
    }
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
