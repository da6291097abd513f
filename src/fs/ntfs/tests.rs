use std::ops::Range;

use super::*;
use crate::fs::RefusalKind;
use crate::fs::probe::tests::{Disk, Image};

fn free_of(disk: &Disk) -> Result<FreeSpace, Refusal> {
    free_space(&disk.volume(), &FreeOptions::default())
}

/// Whether there is time for everything.
fn nightly() -> bool {
    std::env::var_os("QIMG_NIGHTLY").is_some()
}

fn make(size: &str, options: &str) -> Image {
    Image::make(size, &format!("mkntfs -q -F -Q -L lab {options} disk 2>&1"))
}

/// `in_mount SCRIPT` runs one in the mounted image, `hashes IMAGE` prints one hash for all of its files.
const IN: &str = "
    in_mount() { mkdir -p m; ntfs-3g disk m; (cd m; eval \"$@\"); unmount; }
    unmount() { for n in 1 2 3 4 5 6 7 8 9 10; do umount m && break; sleep 0.1; done
        while pgrep -f \"ntfs-3g .* $PWD/m\" >/dev/null; do sleep 0.05; done; }
    hashes() { mkdir -p m; ntfs-3g -o ro $1 m
        (cd m; find . -type f | sort | xargs -r sha256sum | sha256sum); unmount; }
";

fn step(image: &Image, script: &str) -> String {
    image.run(&format!("exec 2>&1; {IN} {script}"))
}

/// What the bitmap says as ntfscat gives it.
fn expected(image: &Image) -> Vec<Range<u64>> {
    image.run("ntfscat -f -i 6 disk >bitmap");
    let bitmap = Disk::open(&image.directory.path().join("bitmap")).0;
    let boot = Boot::find(&image.disk().volume()).unwrap().unwrap();
    let mut map = FreeMapBuilder::new();
    for cluster in 0..boot.clusters {
        let number = usize::try_from(cluster).unwrap();
        if bitmap[number / 8] >> (number % 8) & 1 == 0 {
            map.free(cluster * boot.cluster_size..(cluster + 1) * boot.cluster_size);
        }
    }
    map.build().ranges().to_vec()
}

fn assert_exact(image: &Image) {
    let space = free_of(&image.disk()).unwrap();
    assert_eq!(space.free.ranges(), expected(image));
    image.zero_free(space.free.ranges());
    step(image, "ntfsfix -n zeroed; ntfsresize -i -f zeroed");
    let hashes = step(image, "hashes disk; hashes zeroed");
    let hashes: Vec<&str> = hashes.lines().collect();
    assert!(hashes.len() == 2 && hashes[0] == hashes[1], "{hashes:?}");
}

#[test]
fn what_the_bitmap_does_not_have_is_free() {
    let kinds = [
        ("64M", ""),
        ("33M", "-c 512"),
        ("100M", "-c 65536"),
        ("50M", "-c 1024"),
        ("64M", "-s 4096 -c 4096"),
        ("80M", "-s 1024 -c 8192"),
    ];
    let step_by = if nightly() { 1 } else { 3 };
    for (size, options) in kinds.into_iter().step_by(step_by) {
        let image = make(size, options);
        let identity = identify(&image.disk().volume()).unwrap().unwrap();
        assert_eq!(identity.uuid, image.blkid("UUID"));
        assert_eq!(identity.label, image.blkid("LABEL"));
        assert_exact(&image);
        step(
            &image,
            "in_mount '
            mkdir d; for n in $(seq 400); do head -c $((n * 30)) /dev/urandom >d/f$n; done
            head -c 9000000 /dev/urandom >big; truncate -s 5000000 sparse; echo 1 >>sparse'",
        );
        assert_exact(&image);
        step(
            &image,
            "in_mount 'rm d/f*[13579]; head -c 3000000 /dev/urandom >scattered; rm big'",
        );
        assert_exact(&image);
    }
}

#[test]
fn a_sleeping_windows_keeps_its_disk() {
    let image = make("32M", "");
    step(
        &image,
        "in_mount '
        for n in $(seq 200); do echo $n >file-with-a-long-name-$n; done
        head -c 100000 /dev/zero >HiberFil.sys'",
    );
    assert_exact(&image);
    for (start, asleep) in [
        ("HIBR", true),
        ("hibr", true),
        ("wake", false),
        ("RSTR", true),
    ] {
        step(
            &image,
            &format!("in_mount 'printf {start} | dd of=HiberFil.sys conv=notrunc'"),
        );
        let examined = image.disk().examine();
        assert_eq!(examined.hibernated, asleep, "{start}");
        assert_eq!(examined.space.is_err(), asleep);
        // ntfs-3g does not write to a sleeping one.
        step(
            &image,
            "mkdir -p m; ntfs-3g -o remove_hiberfile disk m; unmount",
        );
        step(&image, "in_mount 'head -c 100000 /dev/zero >HiberFil.sys'");
    }
    // As small as to be in its record.
    step(&image, "in_mount 'printf HIBR >HiberFil.sys'");
    assert!(image.disk().examine().hibernated);
}

/// Where a record of the table lies.
fn place(disk: &Disk, record: u64) -> usize {
    let boot = Boot::find(&disk.volume()).unwrap().unwrap();
    let at = boot.bytes_of(boot.mft, 1).start + record * boot.record_size as u64;
    usize::try_from(at).unwrap()
}

fn position(disk: &Disk, from: usize, bytes: &[u8]) -> usize {
    let found = disk.0[from..]
        .windows(bytes.len())
        .position(|window| window == bytes);
    from + found.unwrap()
}

#[test]
fn what_was_not_shut_down_is_kept() {
    let image = make("32M", "");
    step(&image, "in_mount 'echo 1 >f'");
    let clean = image.disk();
    assert!(free_of(&clean).is_ok());
    let mut disk = clean.clone();
    // The value of $VOLUME_INFORMATION ends with version 3.1 and flags.
    let flags = position(&disk, place(&disk, VOLUME), &[3, 1, 0, 0]) + 2;
    disk.put(flags, &[1]);
    assert_eq!(free_of(&disk).unwrap_err().kind, RefusalKind::Dirty);
    disk.put(flags, &[0, 0x80]);
    let mirror = Boot::find(&disk.volume()).unwrap().unwrap();
    let at = usize::try_from(mirror.bytes_of(mirror.mirror, 1).start).unwrap();
    let offset = flags - place(&disk, 0);
    disk.put(at + offset, &[0, 0x80]);
    assert!(free_of(&disk).is_ok());

    // A log in use, as Windows leaves it: two pages, the newer one counts.
    let boot = Boot::find(&clean.volume()).unwrap().unwrap();
    let volume = clean.volume();
    let table = Table::open(&volume, &boot).unwrap();
    let log = table.data_of(LOG_FILE, "$LogFile").unwrap();
    let log = usize::try_from(boot.bytes_of(log.place(0).unwrap(), 1).start).unwrap();
    let page = |number: u8, user: u8, flags: u8, version: u8| {
        let mut page = vec![0; 4096];
        page[..8].copy_from_slice(&[b'R', b'S', b'T', b'R', 30, 0, 9, 0]);
        page[17] = 16;
        page[21] = 16;
        page[24] = 48;
        page[28] = version;
        page[48] = number;
        page[60] = user;
        page[61] = user;
        page[62] = flags;
        page
    };
    let with = |first: &[u8], second: &[u8]| {
        let mut disk = clean.clone();
        disk.put(log, first);
        disk.put(log + 4096, second);
        free_of(&disk).map_err(|refusal| refusal.kind)
    };
    let (done, open) = (page(7, 0xff, 0, 1), page(7, 0, 0, 1));
    let (newer, newer_open) = (page(8, 0, 2, 1), page(8, 0, 0, 1));
    assert!(with(&done, &newer).is_ok() && with(&open, &newer).is_ok());
    assert!(with(&done, &open).is_err() && with(&done, &newer_open).is_err());
    assert!(with(&newer, &open).is_ok());
    assert_eq!(
        with(&page(8, 0xff, 2, 2), &done).unwrap_err(),
        RefusalKind::Dirty
    );
    assert_eq!(
        with(&[0; 4096], &[0; 4096]).unwrap_err(),
        RefusalKind::Dirty
    );
}

#[test]
fn a_filesystem_cut_off_is_kept() {
    let image = make("32M", "");
    let mut disk = image.disk();
    disk.0.truncate(31 << 20);
    assert_eq!(free_of(&disk).unwrap_err().kind, RefusalKind::Damaged);
    assert!(disk.examine().space.is_err());
}

/// Whatever bit changes in the bitmap, the boot sector or the records: refused, or no block in use is free.
#[test]
fn no_changed_bit_frees_a_cluster() {
    let image = make("16M", "");
    step(
        &image,
        "in_mount '
        for n in $(seq 60); do head -c $((n * 300)) /dev/urandom >f$n; done; rm f*7'",
    );
    let mut disk = image.disk();
    let truth = free_of(&disk).unwrap();
    let mut refused = 0;
    let mut check = |disk: &Disk, what: &str| match free_of(disk) {
        Ok(space) => {
            let inside = |range: &Range<u64>| truth.free.covers(range.clone());
            assert!(space.free.ranges().iter().all(inside), "{what}");
        }
        Err(_) => refused += 1,
    };
    let boot = Boot::find(&disk.volume()).unwrap().unwrap();
    let bitmap = {
        let volume = disk.volume();
        let table = Table::open(&volume, &boot).unwrap();
        let bitmap = table.data_of(BITMAP, "$Bitmap").unwrap();
        usize::try_from(boot.bytes_of(bitmap.place(0).unwrap(), 1).start).unwrap()
    };
    for at in 0..usize::try_from(boot.clusters / 8).unwrap() {
        if disk.0[bitmap + at] == 0 {
            continue;
        }
        let old = disk.0[bitmap + at];
        disk.0[bitmap + at] ^= 1 << (at % 8);
        check(&disk, &format!("bitmap {at}"));
        disk.0[bitmap + at] = old;
    }
    let records = place(&disk, 0);
    let step_by = if nightly() { 1 } else { 5 };
    for at in (0..512).chain((records..records + 8 * 1024).step_by(step_by)) {
        let old = disk.0[at];
        disk.0[at] ^= 1 << (at % 8);
        check(&disk, &format!("byte {at:#x}"));
        disk.0[at] = old;
    }
    assert!(refused > 100, "{refused}");
}
