use std::ops::Range;

use super::super::identify;
use super::super::tests::{Disk, Image, dumped, must, nightly};
use crate::fs::{FreeSpace, Identity, Refusal, RefusalKind};
use crate::volume::Volume;

/// What blkid says of the first thing that it finds.
fn blkid(image: &Image) -> Identity {
    let text = must("blkid", &["-p", "-o", "export", image.name()]);
    let word = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let mut values = lines.filter(|(key, _)| *key == name);
        values.next().map(|(_, value)| value.replace('\\', ""))
    };
    let kinds = ["ext2", "ext3", "ext4", "jbd"];
    let kind = word("TYPE").unwrap();
    Identity {
        kind: kinds.into_iter().find(|name| *name == kind).unwrap(),
        version: word("VERSION"),
        label: word("LABEL"),
        uuid: word("UUID"),
        size: None,
        block_size: word("BLOCK_SIZE").map(|size| size.parse().unwrap()),
    }
}

#[test]
fn it_is_called_what_blkid_calls_it() {
    let uuid = "-U 01234567-89ab-cdef-0123-456789abcdef";
    for (kind, options) in [
        ("ext2", "-t ext2 -r 0 -O none -b 1024"),
        ("ext2", "-t ext2 -b 1024 -L sixteen-letters-"),
        ("ext2", "-t ext2 -O meta_bg,^resize_inode -b 2048"),
        ("ext3", "-t ext3 -L a.b"),
        ("ext4", "-t ext2 -O extent"),
        ("ext4", "-t ext3 -O huge_file -b 4096"),
        ("ext4", "-t ext4 -O ^has_journal"),
        ("ext4", "-t ext4"),
        ("jbd", "-O journal_dev -b 1024 -L journal"),
    ] {
        let image = Image::make("12M", &format!("{options} {uuid}"));
        let disk = image.disk();
        let mut found = identify(&Volume::whole(&disk)).unwrap().unwrap();
        assert_eq!(found.kind, kind, "{options}");
        assert_eq!(found.size.take(), Some(12 << 20), "{options}");
        let mut expected = blkid(&image);
        // Old versions of blkid do not say it of a journal.
        expected.block_size = expected.block_size.or(found.block_size);
        expected.version = expected.version.or(found.version.clone());
        assert_eq!(found, expected, "{options}");
    }
    let mut disk = Image::make("12M", "-t ext4").disk();
    disk.patch(1024 + 0x38, &[0]);
    assert_eq!(identify(&Volume::whole(&disk)).unwrap(), None);
    disk.size = 1500;
    assert_eq!(identify(&Volume::whole(&disk)).unwrap(), None);
}

/// A superblock's field with some bits set.
fn set(disk: &mut Disk, at: u64, bits: u32) {
    let old = disk.bytes(1024 + at..1024 + at + 4);
    let old = u32::from_le_bytes(old.try_into().unwrap());
    disk.patch(1024 + at, &(old | bits).to_le_bytes());
    disk.seal();
}

fn refused(result: Result<FreeSpace, Refusal>, kind: RefusalKind, reason: &str) {
    let refusal = result.unwrap_err();
    assert!(refusal.reason.contains(reason), "{reason}: {refusal}");
    assert_eq!(refusal.kind, kind, "{refusal}");
    assert!(!refusal.reason.contains('\n'));
}

#[test]
fn whatever_is_in_doubt_is_refused() {
    use RefusalKind::{Damaged, Dirty, Protected, Unsupported};
    const COMPAT: u64 = 0x5c;
    const INCOMPAT: u64 = 0x60;
    const RO_COMPAT: u64 = 0x64;
    let image = Image::make("80M", "-t ext4 -b 1024 -O mmp");
    let sound = image.disk();
    assert!(sound.free_space().is_ok() && sound.replayed().is_ok());
    for (at, bits, kind, reason) in [
        (INCOMPAT, 0x4, Dirty, "ext4 needs journal recovery"),
        (INCOMPAT, 0x1, Unsupported, "not read here: compression"),
        (INCOMPAT, 0x8, Unsupported, "not read here: journal_dev"),
        (
            INCOMPAT,
            0x44_0000,
            Unsupported,
            "incompat features that are not read here: 0x40000, 0x400000",
        ),
        (RO_COMPAT, 0x80, Unsupported, "not read here: snapshot"),
        (RO_COMPAT, 0x800, Unsupported, "not read here: replica"),
        (
            RO_COMPAT,
            0x2_0000,
            Unsupported,
            "ro_compat features that are not read here: 0x20000",
        ),
        (RO_COMPAT, 0x1000, Protected, "read-only"),
        (RO_COMPAT, 0x4000, Protected, "shared_blocks"),
        (RO_COMPAT, 0x1_0000, Dirty, "deleted while open"),
        (COMPAT, 0x100, Unsupported, "not read here: exclude_bitmap"),
        (
            COMPAT,
            0x4000,
            Unsupported,
            "compat features that are not read here: 0x4000",
        ),
        (0x3a, 2, Damaged, "having errors"),
        (0x3a, 0x10, Unsupported, "unknown state (0x11)"),
        (0xc, 1, Damaged, "free blocks, its groups"),
        (0x4c, 2, Unsupported, "revision 3"),
        (0x174, 0x200, Unsupported, "unknown kind of checksum"),
        (0x150, 1, Damaged, "past the end of its volume"),
        (0x24, 0x8000, Damaged, ""),
    ] {
        let mut disk = sound.clone();
        set(&mut disk, at, bits);
        if at == 0x24 {
            // The number of clusters in a group means nothing here.
            assert!(disk.free_space().is_ok());
            continue;
        }
        refused(disk.free_space(), kind, reason);
        // The user's word for the journal is none for anything else.
        if !matches!(bits, 0x4 | 0x1_0000) {
            refused(disk.replayed(), kind, reason);
        }
    }

    let mut disk = sound.clone();
    disk.patch(1024 + 0x3a, &[0, 0]);
    disk.seal();
    refused(disk.free_space(), Dirty, "not cleanly unmounted");

    let mut disk = sound.clone();
    disk.size -= 512;
    refused(disk.free_space(), Damaged, "past the end of its volume");

    let mut disk = sound.clone();
    disk.patch(1024 + 0xf0, &[0x77]);
    refused(disk.free_space(), Damaged, "its checksum is wrong");

    let superblock = sound.superblock();
    let mmp = superblock.mmp_block * superblock.block_size;
    let mut disk = sound.clone();
    disk.patch(mmp + 4, &[1, 0, 0, 0]);
    refused(
        disk.free_space(),
        Damaged,
        "mount protection block is damaged",
    );
    let sum = super::crc32c(superblock.seed, &disk.bytes(mmp..mmp + 1020));
    disk.patch(mmp + 1020, &sum.to_le_bytes());
    refused(disk.free_space(), Dirty, "has it in use");
    refused(disk.replayed(), Dirty, "has it in use");

    // On another device a journal that has to be replayed is out of reach.
    let mut disk = sound.clone();
    disk.patch(1024 + 0xe0, &[0; 4]);
    disk.seal();
    assert!(disk.free_space().is_ok());
    set(&mut disk, INCOMPAT, 4);
    refused(disk.replayed(), Dirty, "on another device");

    let mut disk = sound.clone();
    set(&mut disk, INCOMPAT, 4);
    set(&mut disk, COMPAT, 0x400);
    refused(disk.replayed(), Unsupported, "may hold fast commits");
}

/// A loop device.
struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        let device = self.0.trim();
        let _ = std::process::Command::new("losetup")
            .args(["-d", device])
            .status();
    }
}

#[test]
fn an_external_journal_is_refused_only_when_it_is_needed() {
    let journal = Image::make("12M", "-O journal_dev -b 1024");
    let refusal = journal.disk().free_space().unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Unsupported, "{refusal}");
    let device = Loop(must("losetup", &["--show", "-f", journal.name()]));
    let image = Image::make(
        "40M",
        &format!("-t ext4 -b 1024 -J device={}", device.0.trim()),
    );
    let exact = || {
        let space = image.disk().free_space().unwrap();
        assert_eq!(space.free.ranges(), dumped(&image.path));
    };
    exact();
    let mount = image.mount("");
    mount.scatter(100, 3000);
    let crashed = Disk::open(&image.copy("crashed"));
    mount.unmount();
    drop(device);
    refused(
        crashed.replayed(),
        RefusalKind::Dirty,
        "its journal is on another device",
    );
    let refusal = crashed.free_space().unwrap_err();
    assert_eq!(refusal.reason, "ext4 needs journal recovery");
    assert!(refusal.remedy.unwrap().contains("--replay-journal"));
    exact();
}

/// Bytes of everything that is read, in a filesystem of one block group or few.
fn metadata(disk: &Disk) -> Vec<Range<u64>> {
    let superblock = disk.superblock();
    let volume = Volume::whole(disk);
    let blocks = super::super::blocks::Blocks::new(&volume, superblock.block_length());
    let mut list = vec![
        1024..2048,
        superblock.bytes(superblock.descriptor_block(0)..superblock.descriptor_block(0) + 1),
    ];
    for group in super::super::group::Group::read_block(&blocks, &superblock, 0).unwrap() {
        if !group.uninit {
            list.push(superblock.bytes(group.block_bitmap..group.block_bitmap + 1));
        }
        if group.number == 0 && superblock.features.has_journal() {
            let at = superblock.bytes(group.inode_table).start + 7 * superblock.inode_size;
            list.push(at..at + superblock.inode_size);
        }
    }
    list
}

/// Every bit of the metadata, one at a time, and many bytes: what is free stays so, or all is kept.
#[test]
fn damage_never_frees_what_is_in_use() {
    for options in [
        "-t ext2 -b 1024 -N 64",
        "-t ext2 -r 0 -O none -b 1024 -N 64",
        "-t ext3 -b 1024 -N 64",
        "-t ext4 -b 1024 -N 64",
        "-t ext4 -b 1024 -N 64 -O ^metadata_csum,uninit_bg,^has_journal",
        "-t ext4 -b 1024 -C 4096 -O bigalloc,^resize_inode -N 64",
        "-t ext4 -b 1024 -O mmp,meta_bg,^resize_inode,^flex_bg -g 1024 -N 64",
    ] {
        let image = Image::make("3M", options);
        let disk = image.disk().in_memory();
        let truth = disk.free_space().unwrap().free;
        assert!(!truth.is_empty());
        let mut still = 0_u32;
        let mut judge = |disk: &Disk, what: &str| {
            let results = [disk.free_space(), disk.replayed()];
            for space in results.into_iter().flatten() {
                still += 1;
                for range in space.free.ranges() {
                    assert!(truth.covers(range.clone()), "{options}: {what}: {range:?}");
                }
            }
        };
        let areas = metadata(&disk);
        let step = if nightly() { 1 } else { 7 };
        for at in areas.iter().cloned().flatten() {
            for bit in (at % step..8).step_by(usize::try_from(step).unwrap()) {
                let mut flipped = disk.clone();
                let old = disk.bytes(at..at + 1)[0];
                flipped.patch(at, &[old ^ 1 << bit]);
                // Damage that a checksum does not tell of.
                judge(&flipped, &format!("bit {bit} of {at:#x}"));
                if at < 2048 {
                    flipped.seal_if_summed();
                    judge(&flipped, &format!("bit {bit} of {at:#x}, sealed"));
                }
            }
        }
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        for n in 0..if nightly() { 20_000 } else { 800 } {
            let mut changed = disk.clone();
            for _ in 0..=n % 3 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                let area = &areas[usize::try_from(seed % areas.len() as u64).unwrap()];
                let at = area.start + (seed >> 8) % (area.end - area.start);
                let value = [0, 0xff, 1, u8::try_from(seed >> 56).unwrap()][n % 4];
                changed.patch(at, &[value]);
            }
            changed.seal_if_summed();
            judge(&changed, &format!("change {n}"));
        }
        assert!(still > 0, "{options}");
    }
}
