#![expect(clippy::disallowed_types, reason = "tests write images themselves")]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::source::PlainBytes;

/// A disk in memory.
#[derive(Debug, Clone)]
pub(in crate::fs) struct Disk(pub(in crate::fs) Vec<u8>);

impl Disk {
    /// Reads a file, its holes without effort.
    pub(in crate::fs) fn open(path: &Path) -> Self {
        let mut bytes = Vec::new();
        File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
        Self(bytes)
    }

    pub(in crate::fs) fn volume(&self) -> Volume<'_> {
        Volume::whole(self)
    }

    pub(in crate::fs) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(in crate::fs) fn examine(&self) -> Examined {
        examine(&self.volume(), &FreeOptions::default())
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

/// A directory with an image in it, and tools that are run there.
pub(in crate::fs) struct Image {
    pub(in crate::fs) directory: TempDir,
    pub(in crate::fs) path: PathBuf,
}

impl Image {
    /// An empty file `disk`, and what `script` makes of it.
    pub(in crate::fs) fn make(size: &str, script: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("disk");
        let image = Self { directory, path };
        image.run(&format!("truncate -s {size} disk; {script}"));
        image
    }

    /// Runs a script of tools that must be there and must succeed; what it printed.
    pub(in crate::fs) fn run(&self, script: &str) -> String {
        let output = Command::new("sh")
            .args(["-ec", &format!("PATH=$PATH:/usr/sbin:/sbin; {script}")])
            .current_dir(self.directory.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{script}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(in crate::fs) fn disk(&self) -> Disk {
        Disk::open(&self.path)
    }

    /// Writes zeros over what is said to be free, in a copy that is called `zeroed`.
    pub(in crate::fs) fn zero_free(&self, free: &[Range<u64>]) {
        self.run("cp --sparse=always disk zeroed");
        let path = self.directory.path().join("zeroed");
        let mut file = File::options().write(true).open(path).unwrap();
        let zeros = vec![0; 1 << 20];
        for range in free {
            file.seek(SeekFrom::Start(range.start)).unwrap();
            let mut left = usize::try_from(range.end - range.start).unwrap();
            while left > 0 {
                let length = left.min(zeros.len());
                file.write_all(&zeros[..length]).unwrap();
                left -= length;
            }
        }
    }

    /// A field as blkid has it.
    pub(in crate::fs) fn blkid(&self, field: &str) -> Option<String> {
        let print = self.run("blkid -p -o export disk");
        let mut fields = print.lines().filter_map(|line| line.split_once('='));
        let value = fields.find(|(name, _)| *name == field)?.1;
        Some(value.replace('\\', ""))
    }
}

/// Size and script for what tools here can make.
const MADE: &[(&str, &str)] = &[
    ("64M", "mkfs.f2fs -q -l lab disk"),
    ("32M", "mkfs.jfs -q -L lab disk"),
    ("64M", "mkreiserfs -q -f -f -l lab disk"),
    ("150M", "mkfs.nilfs2 -q -L lab disk"),
    ("16M", "mkfs.exfat disk"),
    ("16M", "make-bcache -B disk"),
    (
        "0",
        "mkdir d; echo 1 >d/f; rm disk; mksquashfs d disk -quiet -no-progress",
    ),
    ("0", "mkdir d; echo 1 >d/f; mkfs.erofs disk d"),
    ("300M", "mkfs.ocfs2 -q -F -M local -L lab -N 1 disk"),
    ("0", "mkdir d; echo 1 >d/f; mkfs.cramfs -n lab d disk"),
    ("4M", "mkfs.minix -1 disk"),
    ("4M", "mkfs.minix -2 disk"),
    ("4M", "mkfs.minix -3 disk"),
    ("16M", "mkswap -L lab disk"),
    ("16M", "mkswap -p 65536 -L lab disk"),
    (
        "32M",
        "echo p | cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 disk -",
    ),
    (
        "32M",
        "echo p | cryptsetup luksFormat -q --type luks2 --label lab --pbkdf pbkdf2 \
             --pbkdf-force-iterations 1000 disk -",
    ),
    ("4M", "truncate -s 4M data; veritysetup format data disk"),
];

#[test]
fn names_are_those_of_blkid() {
    for (size, script) in MADE {
        let image = Image::make(size, script);
        let disk = image.disk();
        let found = identify(&disk.volume()).unwrap();
        let [identity] = found.as_slice() else {
            panic!("{script}: {found:?}");
        };
        assert_eq!(
            Some(identity.kind),
            image.blkid("TYPE").as_deref(),
            "{script}"
        );
        for (own, field) in [(&identity.uuid, "UUID"), (&identity.label, "LABEL")] {
            assert_eq!(*own, image.blkid(field), "{script}: {field}");
        }
        if let Some(version) = image
            .blkid("VERSION")
            .filter(|_| identity.kind != "ocfs2" && identity.kind != "nilfs2")
        {
            assert_eq!(identity.version, Some(version), "{script}");
        }
        assert!(
            identity.size.is_none_or(|size| size <= disk.0.len() as u64),
            "{script}"
        );
        let examined = disk.examine();
        assert_eq!(examined.space.is_ok(), identity.kind == "swap", "{script}");
        assert_eq!(examined.verity, identity.kind == "DM_verity_hash");
        assert!(!examined.hibernated && open_tree(&disk.volume()).unwrap().is_none());
    }
}

/// What no tool here makes: a magic number at its place.
#[test]
fn members_of_arrays_and_pools_are_found_where_their_size_says() {
    let size = (64 << 20) + 3 * 512;
    let le = |number: u32| number.to_le_bytes();
    let version_1 = [le(0xa92b_4efc), le(1)].concat();
    let cases: &[(&str, usize, &[u8])] = &[
        ("linux_raid_member", 4096, &version_1),
        ("linux_raid_member", 0, &version_1),
        // Sectors 131075 - 16, at a multiple of 8.
        ("linux_raid_member", 131_056 * 512, &version_1),
        (
            "linux_raid_member",
            (64 << 20) - (64 << 10),
            &le(0xa92b_4efc),
        ),
        (
            "linux_raid_member",
            (64 << 20) - (64 << 10),
            &0xa92b_4efc_u32.to_be_bytes(),
        ),
        (
            "isw_raid_member",
            size - 1024,
            b"Intel Raid ISM Cfg Sig. 1.2",
        ),
        ("ddf_raid_member", size - 512, b"\xde\x11\xde\x11"),
        ("drbd", size - 4096 + 60, b"\x83\x74\x02\x6b"),
        ("drbd", (64 << 20) - 4096 + 60, b"\x83\x74\x02\x6d"),
        ("zfs_member", (128 + 40) << 10, b"\x0c\xb1\xba\0\0\0\0\0"),
        (
            "zfs_member",
            (64 << 20) - (128 << 10),
            b"\0\0\0\0\0\xba\xb1\x0c",
        ),
        ("BitLocker", 0, b"\xeb\x58\x90-FVE-FS-\0\x02"),
        ("BitLocker", 424, signatures::BITLOCKER_GUID),
        ("crypto_LUKS", 0x4000, b"SKUL\xba\xbe\0\x02"),
        ("crypto_LUKS", 0x40_0000, b"SKUL\xba\xbe\0\x02"),
        ("stratis", 516, b"!Stra0tis\x86\xff\x02^\x41rh"),
        ("DM_integrity", 0, b"integrt\0\x01"),
        ("DM_snapshot_cow", 0, b"SnAp\x01\0\0\0"),
        ("VMFS_volume_member", 1 << 20, b"\x0d\xd0\x01\xc0"),
    ];
    for (kind, at, magic) in cases {
        let mut disk = Disk(vec![0; size]);
        disk.put(*at, magic);
        let found = identify(&disk.volume()).unwrap();
        assert_eq!(found.len(), 1, "{kind} at {at}: {found:?}");
        assert_eq!(found[0].kind, *kind);
        assert_eq!(
            disk.examine().space.unwrap_err().kind,
            RefusalKind::Protected
        );
    }
    let mut disk = Disk(vec![0; size]);
    for (at, magic) in [(1372 + 65536, 0x1_1954_u32), (1372 + 8192, 0x1954_0119)] {
        disk.put(at, &magic.to_le_bytes());
        assert_eq!(identify(&disk.volume()).unwrap()[0].kind, "ufs");
        disk.put(at, &[0; 4]);
    }
    let unknown = disk.examine().space.unwrap_err();
    assert_eq!(unknown.kind, RefusalKind::Unknown);
}

#[test]
fn a_stale_superblock_is_a_doubt_about_the_other() {
    let image = Image::make("16M", "mkswap disk");
    let mut disk = image.disk();
    assert!(disk.examine().space.is_ok());
    disk.put(0x8000, b"JFS1");
    let refusal = disk.examine().space.unwrap_err();
    assert_eq!(refusal.to_string(), "ambiguous: swap and jfs");
    assert_eq!(refusal.kind, RefusalKind::Unknown);
    disk.put(4096, &[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]);
    let examined = disk.examine();
    assert_eq!(examined.space.unwrap_err().kind, RefusalKind::Protected);
    assert_eq!(examined.identity.unwrap().kind, "linux_raid_member");
}

#[test]
fn a_filesystem_larger_than_its_volume_is_kept() {
    let image = Image::make("16M", "mkswap disk");
    let mut disk = image.disk();
    disk.0.truncate((16 << 20) - 512);
    let refusal = disk.examine().space.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Damaged);
    assert!(refusal.reason.contains("reaches past the end"), "{refusal}");
}

/// Volumes of every small size: nothing lies where a formula says.
#[test]
fn no_size_is_too_small_to_be_asked() {
    for size in (0..=20).chain([
        63, 511, 512, 1023, 1024, 4095, 4096, 8191, 65535, 65536, 262_145,
    ]) {
        let disk = Disk(vec![0xff; size]);
        assert!(identify(&disk.volume()).unwrap().is_empty(), "{size}");
    }
}

#[test]
fn xfs_is_read_through_its_row() {
    let image = Image::make("320M", "mkfs.xfs -q -f -L lab disk");
    let disk = image.disk();
    let examined = disk.examine();
    assert_eq!(examined.identity.unwrap().kind, "xfs");
    assert!(examined.space.unwrap().free.total() > 100 << 20);
    let tree = open_tree(&disk.volume()).unwrap().unwrap();
    assert_eq!(tree.format(), "xfs");
}
