//! Superblocks at fixed places: what they are called and where they say it.
//!
//! Names are those of libblkid. Sources: the kernel's headers of each filesystem (`include/uapi/linux/magic.h`,
//! `fs/*/`), the LUKS1 and LUKS2 on-disk formats, Apple's TN1150 and "Apple File System Reference", ECMA-167, the
//! exFAT file system specification. What is not here is not recognised, and so kept.

use super::Class;
use super::Class::{Container, Filesystem, HashTree};
use super::record::{Looker, block_size, text, text16, uuid};
use crate::error::Result;
use crate::fields::Fields;
use crate::fs::Identity;
use crate::volume::Volume;

/// A signature. The record that it is part of begins at one of a few places.
struct Signature {
    kind: &'static str,
    class: Class,
    /// Where records begin.
    at: &'static [u64],
    /// Where the magic bytes are in a record.
    offset: usize,
    magic: &'static [u8],
    /// What the record says of itself; `None` when the magic is there by chance.
    describe: fn(Fields<'_>) -> Option<Identity>,
}

const fn row(
    kind: &'static str,
    class: Class,
    at: &'static [u64],
    offset: usize,
    magic: &'static [u8],
    describe: fn(Fields<'_>) -> Option<Identity>,
) -> Signature {
    Signature {
        kind,
        class,
        at,
        offset,
        magic,
        describe,
    }
}

/// Bytes of a record that are looked at.
const RECORD: usize = 2048;

const ENCRYPTED: Class = Container("encrypted");
const POOL: Class = Container("a pool's member");
const CACHE: Class = Container("a cache, or what one stands before");
const MAPPED: Class = Container("blocks that belong to another device");

/// Where a second header of LUKS2 may lie: `LUKS2_HDR_OFFSET2` for each size of the first.
const LUKS2_COPIES: &[u64] = &[
    0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000,
];
/// Descriptors of ECMA-167 follow each other from byte 32768 on.
const DESCRIPTORS: &[u64] = &[
    0x8000, 0x8800, 0x9000, 0x9800, 0xa000, 0xa800, 0xb000, 0xb800, 0xc000,
];
/// `SBLOCKSEARCH` of `ufs/ffs/fs.h`.
const UFS: &[u64] = &[0x2000, 0x1_0000, 0, 0x4_0000];
const UFS_MAGIC: usize = 1372;

const TABLE: &[Signature] = &[
    row("crypto_LUKS", ENCRYPTED, &[0], 0, b"LUKS\xba\xbe", luks),
    row(
        "crypto_LUKS",
        ENCRYPTED,
        LUKS2_COPIES,
        0,
        b"SKUL\xba\xbe",
        luks,
    ),
    row("BitLocker", ENCRYPTED, &[0], 3, b"-FVE-FS-", plain),
    // BitLocker To Go looks like FAT but for a GUID.
    row("BitLocker", ENCRYPTED, &[0], 424, BITLOCKER_GUID, plain),
    row(
        "LVM2_member",
        POOL,
        &[0, 512, 1024, 1536],
        0,
        b"LABELONE",
        lvm2,
    ),
    row(
        "stratis",
        POOL,
        &[512, 9 * 512],
        4,
        b"!Stra0tis\x86\xff\x02^\x41rh",
        plain,
    ),
    row(
        "ceph_bluestore",
        POOL,
        &[0],
        0,
        b"bluestore block device\n",
        plain,
    ),
    row(
        "VMFS_volume_member",
        POOL,
        &[0x10_0000],
        0,
        b"\x0d\xd0\x01\xc0",
        plain,
    ),
    row("bcache", CACHE, &[4096], 24, BCACHE, bcache),
    row(
        "DM_integrity",
        Container("every block has a tag"),
        &[0],
        0,
        b"integrt\0",
        plain,
    ),
    row("DM_snapshot_cow", MAPPED, &[0], 0, b"SnAp", plain),
    row("vdo", MAPPED, &[0], 0, b"dmvdo001", plain),
    row("DM_verity_hash", HashTree, &[0], 0, b"verity\0\0", verity),
    row("bcachefs", Filesystem, &[4096], 24, BCACHE, bcachefs),
    row("bcachefs", Filesystem, &[4096], 24, BCACHEFS, bcachefs),
    row("squashfs", Filesystem, &[0], 0, b"hsqs", squashfs),
    row("squashfs", Filesystem, &[0], 0, b"sqsh", squashfs_old),
    row("erofs", Filesystem, &[1024], 0, b"\xe2\xe1\xf5\xe0", erofs),
    row(
        "cramfs",
        Filesystem,
        &[0, 512],
        0,
        b"\x45\x3d\xcd\x28",
        cramfs,
    ),
    row(
        "cramfs",
        Filesystem,
        &[0, 512],
        0,
        b"\x28\xcd\x3d\x45",
        plain,
    ),
    row("romfs", Filesystem, &[0], 0, b"-rom1fs-", romfs),
    row(
        "f2fs",
        Filesystem,
        &[1024, 5120],
        0,
        b"\x10\x20\xf5\xf2",
        f2fs,
    ),
    row("jfs", Filesystem, &[0x8000], 0, b"JFS1", jfs),
    row(
        "reiserfs",
        Filesystem,
        &[0x1_0000, 0x2000],
        52,
        b"ReIsErFs",
        reiserfs,
    ),
    row(
        "reiserfs",
        Filesystem,
        &[0x1_0000, 0x2000],
        52,
        b"ReIsEr2Fs",
        reiserfs,
    ),
    row(
        "reiserfs",
        Filesystem,
        &[0x1_0000, 0x2000],
        52,
        b"ReIsEr3Fs",
        reiserfs,
    ),
    row("reiserfs", Filesystem, &[0x2000], 20, b"ReIsEr", plain),
    row("reiser4", Filesystem, &[0x1_0000], 0, b"ReIsEr4", plain),
    row("nilfs2", Filesystem, &[1024], 6, b"\x34\x34", nilfs2),
    row("apfs", Filesystem, &[0], 32, b"NXSB", apfs),
    row("hfsplus", Filesystem, &[1024], 0, b"H+\0\x04", hfsplus),
    row("hfsplus", Filesystem, &[1024], 0, b"HX\0\x05", hfsplus),
    row("hfs", Filesystem, &[1024], 0, b"BD", hfs),
    row("ufs", Filesystem, UFS, UFS_MAGIC, b"\x54\x19\x01\x00", ufs1),
    row("ufs", Filesystem, UFS, UFS_MAGIC, b"\x00\x01\x19\x54", ufs1),
    row("ufs", Filesystem, UFS, UFS_MAGIC, b"\x19\x01\x54\x19", ufs2),
    row("ufs", Filesystem, UFS, UFS_MAGIC, b"\x19\x54\x01\x19", ufs2),
    row("exfat", Filesystem, &[0], 3, b"EXFAT   ", exfat),
    row("ReFS", Filesystem, &[0], 0, b"\0\0\0ReFS\0", plain),
    row(
        "VMFS",
        Filesystem,
        &[0x20_0000],
        0,
        b"\x5e\xf1\xab\x2f",
        plain,
    ),
    row(
        "ocfs2",
        Filesystem,
        &[1024, 2048, 4096, 8192],
        0,
        b"OCFSV2",
        ocfs2,
    ),
    row(
        "gfs2",
        Filesystem,
        &[0x1_0000],
        0,
        b"\x01\x16\x19\x70\0\0\0\x01",
        gfs2,
    ),
    row("minix", Filesystem, &[1024], 16, b"\x7f\x13", minix1),
    row("minix", Filesystem, &[1024], 16, b"\x8f\x13", minix1),
    row("minix", Filesystem, &[1024], 16, b"\x68\x24", minix2),
    row("minix", Filesystem, &[1024], 16, b"\x78\x24", minix2),
    row("minix", Filesystem, &[1024], 24, b"\x5a\x4d", minix3),
    row("zonefs", Filesystem, &[0], 0, b"SFOZ", zonefs),
    row("udf", Filesystem, DESCRIPTORS, 1, b"NSR02", plain),
    row("udf", Filesystem, DESCRIPTORS, 1, b"NSR03", plain),
];

/// {4967d63b-2e29-4ad8-8399-f6a339e3d001}
pub(super) const BITLOCKER_GUID: &[u8] =
    b"\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01";
const BCACHE: &[u8] = b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81";
const BCACHEFS: &[u8] = b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef";

pub(super) fn find(volume: &Volume<'_>) -> Result<Vec<(Identity, Class)>> {
    let looker = Looker::new(volume)?;
    let mut found = Vec::new();
    for signature in TABLE {
        for &at in signature.at {
            let record = looker.record(at, RECORD)?;
            let fields = Fields(&record);
            if fields.slice(signature.offset, signature.magic.len()) != signature.magic {
                continue;
            }
            if let Some(mut identity) = (signature.describe)(fields) {
                identity.kind = signature.kind;
                found.push((identity, signature.class));
                break;
            }
        }
    }
    Ok(found)
}

#[expect(clippy::unnecessary_wraps, reason = "one of the descriptions")]
fn plain(_: Fields<'_>) -> Option<Identity> {
    Some(Identity::default())
}

/// What a superblock says: version, label, UUID, bytes of a block, number of blocks.
#[expect(clippy::unnecessary_wraps, reason = "what descriptions give")]
fn said(
    version: Option<String>,
    label: Option<String>,
    uuid: Option<String>,
    block_size: Option<u64>,
    blocks: Option<u64>,
) -> Option<Identity> {
    Some(Identity {
        kind: "",
        version,
        label,
        uuid,
        size: block_size
            .zip(blocks)
            .and_then(|(size, blocks)| size.checked_mul(blocks)),
        block_size,
    })
}

fn luks(record: Fields<'_>) -> Option<Identity> {
    let version = record.be16(6);
    let label = (version == 2).then(|| text(record, 24, 48)).flatten();
    matches!(version, 1 | 2).then(|| {
        said(
            Some(version.to_string()),
            label,
            text(record, 168, 40),
            None,
            None,
        )
    })?
}

fn lvm2(record: Fields<'_>) -> Option<Identity> {
    if record.slice(24, 8) != b"LVM2 001" {
        return None;
    }
    let at = usize::try_from(record.le32(20)).unwrap_or(usize::MAX);
    let id = String::from_utf8_lossy(record.slice(at, 32)).into_owned();
    let uuid = (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())).then(|| {
        let mut rest = id.as_str();
        let mut parts = Vec::new();
        for length in [6, 4, 4, 4, 4, 4, 6] {
            let (part, after) = rest.split_at(length);
            parts.push(part);
            rest = after;
        }
        parts.join("-")
    });
    said(Some("LVM2 001".to_owned()), None, uuid, None, None)
}

fn bcache(record: Fields<'_>) -> Option<Identity> {
    // Both formats once shared the magic; a superblock of bcache names its own sector.
    (record.le64(8) == 8).then(|| said(None, text(record, 72, 32), uuid(record, 40), None, None))?
}

fn bcachefs(record: Fields<'_>) -> Option<Identity> {
    let old = record.slice(24, 16) == BCACHE;
    (!old || record.le64(8) != 8)
        .then(|| said(None, text(record, 72, 32), uuid(record, 56), None, None))?
}

fn verity(record: Fields<'_>) -> Option<Identity> {
    said(
        Some(record.le32(8).to_string()),
        None,
        uuid(record, 16),
        None,
        None,
    )
}

fn squashfs(record: Fields<'_>) -> Option<Identity> {
    let version = format!("{}.{}", record.le16(28), record.le16(30));
    Some(Identity {
        size: Some(record.le64(40)),
        block_size: Some(u64::from(record.le32(12))),
        version: Some(version),
        ..Identity::default()
    })
}

fn squashfs_old(record: Fields<'_>) -> Option<Identity> {
    let version = format!("{}.{}", record.be16(28), record.be16(30));
    said(Some(version), None, None, None, None)
}

fn erofs(record: Fields<'_>) -> Option<Identity> {
    let block = block_size(u32::from(record.u8(12)));
    let blocks = Some(u64::from(record.le32(36)));
    said(None, text(record, 64, 16), uuid(record, 48), block, blocks)
}

fn cramfs(record: Fields<'_>) -> Option<Identity> {
    Some(Identity {
        label: text(record, 48, 16).filter(|name| name != "Compressed"),
        size: Some(u64::from(record.le32(4))),
        ..Identity::default()
    })
}

fn romfs(record: Fields<'_>) -> Option<Identity> {
    Some(Identity {
        label: text(record, 16, 16),
        size: Some(u64::from(record.be32(8))),
        ..Identity::default()
    })
}

fn f2fs(record: Fields<'_>) -> Option<Identity> {
    let version = format!("{}.{}", record.le16(4), record.le16(6));
    let block = block_size(record.le32(16));
    let blocks = Some(record.le64(36));
    said(
        Some(version),
        text16(record, 124, 1024),
        uuid(record, 108),
        block,
        blocks,
    )
}

fn jfs(record: Fields<'_>) -> Option<Identity> {
    let version = Some(record.le32(4).to_string());
    said(
        version,
        text(record, 152, 16),
        uuid(record, 136),
        None,
        None,
    )
}

fn reiserfs(record: Fields<'_>) -> Option<Identity> {
    let version = match record.slice(52, 9) {
        [
            b'R',
            b'e',
            b'I',
            b's',
            b'E',
            b'r',
            digit @ (b'2' | b'3'),
            ..,
        ] => {
            if *digit == b'2' {
                "3.6"
            } else {
                "JR"
            }
        }
        _ => "3.5",
    };
    let block = u64::from(record.le16(44));
    let block = (block.is_power_of_two() && block >= 512).then_some(block);
    let blocks = Some(u64::from(record.le32(0)));
    let version = Some(version.to_owned());
    said(
        version,
        text(record, 100, 16),
        uuid(record, 84),
        block,
        blocks,
    )
}

fn nilfs2(record: Fields<'_>) -> Option<Identity> {
    // Two bytes of magic say little: `s_rev_level`, `s_bytes` and `s_log_block_size` must be possible.
    let credible =
        record.le32(0) == 2 && (100..=1024).contains(&record.le16(8)) && record.le32(20) <= 6;
    credible.then(|| Identity {
        label: text(record, 168, 80),
        uuid: uuid(record, 152),
        size: Some(record.le64(32)),
        block_size: block_size(record.le32(20) + 10),
        ..Identity::default()
    })
}

fn apfs(record: Fields<'_>) -> Option<Identity> {
    let block = u64::from(record.le32(36));
    let block = (block.is_power_of_two() && (4096..=65536).contains(&block)).then_some(block);
    said(None, None, uuid(record, 72), block, Some(record.le64(40)))
}

fn hfsplus(record: Fields<'_>) -> Option<Identity> {
    let block = u64::from(record.be32(40));
    let block = (block.is_power_of_two() && block >= 512).then_some(block);
    said(None, None, None, block, Some(u64::from(record.be32(44))))
}

/// Whether these are the numbers of an ext filesystem, which may look like a weak signature.
fn is_ext(record: Fields<'_>) -> bool {
    record.le16(56) == 0xef53
}

fn hfs(record: Fields<'_>) -> Option<Identity> {
    let block = record.be32(20);
    let credible = block != 0 && block.is_multiple_of(512) && !is_ext(record);
    credible.then(Identity::default)
}

#[expect(clippy::unnecessary_wraps, reason = "one of the descriptions")]
fn ufs1(_: Fields<'_>) -> Option<Identity> {
    Some(Identity {
        version: Some("1".to_owned()),
        ..Identity::default()
    })
}

#[expect(clippy::unnecessary_wraps, reason = "one of the descriptions")]
fn ufs2(_: Fields<'_>) -> Option<Identity> {
    Some(Identity {
        version: Some("2".to_owned()),
        ..Identity::default()
    })
}

fn exfat(record: Fields<'_>) -> Option<Identity> {
    let sector = block_size(u32::from(record.u8(108))).filter(|&size| size <= 4096);
    let size = sector.and_then(|size| size.checked_mul(record.le64(72)));
    let cluster = sector.and_then(|size| size.checked_shl(u32::from(record.u8(109))));
    let serial = record.le32(100);
    let version = format!("{}.{}", record.u8(105), record.u8(104));
    Some(Identity {
        version: Some(version),
        uuid: Some(format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff)),
        size,
        block_size: cluster.filter(|&size| size <= 32 << 20),
        ..Identity::default()
    })
}

fn ocfs2(record: Fields<'_>) -> Option<Identity> {
    // `struct ocfs2_dinode` up to its superblock at 0xc0: `s_label` at 0x50, `s_uuid` at 0x90 of that.
    said(
        None,
        text(record, 0x110, 64),
        uuid(record, 0x150),
        None,
        None,
    )
}

fn gfs2(record: Fields<'_>) -> Option<Identity> {
    // `sb_fs_format`, `sb_locktable`, `sb_uuid`: what came before is GFS.
    let label = text(record, 160, 64);
    matches!(record.be32(24), 1800..=1899)
        .then(|| said(None, label, uuid(record, 256), None, None))?
}

/// Sizes of the maps, first zone and state of versions 1 and 2; zones of version 3.
fn minix(record: Fields<'_>, inode_maps: u16, zone_maps: u16, zones: u32) -> Option<Identity> {
    let bits = |blocks: u16| u64::from(blocks) * 64 * 1024;
    let credible = !is_ext(record)
        && inode_maps > 0
        && zone_maps > 0
        && zones > 0
        && bits(zone_maps) >= u64::from(zones) / 2;
    credible.then(Identity::default)
}

fn minix1(record: Fields<'_>) -> Option<Identity> {
    // `s_nzones`; `s_log_zone_size` is 0 in all that the kernel mounts.
    let found = minix(
        record,
        record.le16(4),
        record.le16(6),
        record.le16(2).into(),
    )?;
    (record.le16(10) == 0).then_some(Identity {
        version: Some("1".to_owned()),
        ..found
    })
}

fn minix2(record: Fields<'_>) -> Option<Identity> {
    let found = minix(record, record.le16(4), record.le16(6), record.le32(20))?;
    (record.le16(10) == 0).then_some(Identity {
        version: Some("2".to_owned()),
        ..found
    })
}

fn minix3(record: Fields<'_>) -> Option<Identity> {
    let found = minix(record, record.le16(6), record.le16(8), record.le32(20))?;
    let block = u64::from(record.le16(28));
    (block.is_power_of_two() && (1024..=4096).contains(&block)).then_some(Identity {
        version: Some("3".to_owned()),
        block_size: Some(block),
        ..found
    })
}

fn zonefs(record: Fields<'_>) -> Option<Identity> {
    said(None, text(record, 20, 64), uuid(record, 84), None, None)
}
