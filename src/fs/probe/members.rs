//! Members of arrays and pools whose superblocks lie where their size says, or in many copies.
//!
//! Sources: the kernel's `drivers/md/md.c` (`super_90_load`, `super_1_load`), `drivers/block/drbd/drbd_main.c`, the
//! "ZFS On-Disk Specification", the SNIA "Common RAID Disk Data Format".

use super::Class;
use super::record::{Looker, text, uuid};
use crate::error::Result;
use crate::fields::Fields;
use crate::fs::Identity;
use crate::volume::Volume;

const RAID: Class =
    Class::Container("a RAID's member, whose other members know of its free blocks");
const POOL: Class = Class::Container("a pool's member");

/// `MD_SB_MAGIC`.
const MD: u32 = 0xa92b_4efc;
const MD_RESERVED: u64 = 64 << 10;

/// Bytes of a ZFS label: two at the start, two at the end of the volume, in whole labels.
const ZFS_LABEL: u64 = 256 << 10;
/// The second half of a label is a ring of superblocks.
const ZFS_RING: u64 = 128 << 10;
const ZFS_SLOT: usize = 1 << 10;
/// `UBERBLOCK_MAGIC`.
const ZFS_UBERBLOCK: u64 = 0x00ba_b10c;

/// Of version 8, clean and not, and of version 9.
const DRBD: [u32; 3] = [0x8374_026b, 0x8374_026c, 0x8374_026d];

pub(super) fn find(volume: &Volume<'_>) -> Result<Vec<(Identity, Class)>> {
    let looker = Looker::new(volume)?;
    let mut found = Vec::new();
    found.extend(md(&looker)?.map(|identity| (identity, RAID)));
    found.extend(firmware_raid(&looker)?.map(|identity| (identity, RAID)));
    found.extend(drbd(&looker)?.map(|identity| (identity, RAID)));
    found.extend(zfs(&looker)?.map(|identity| (identity, POOL)));
    Ok(found)
}

fn identity(kind: &'static str) -> Identity {
    Identity {
        kind,
        ..Identity::default()
    }
}

fn md(looker: &Looker<'_, '_>) -> Result<Option<Identity>> {
    let size = looker.volume.size();
    // Version 1.0 lies 8 KiB before the end, at a multiple of 4 KiB; 1.1 at the start; 1.2 behind 4 KiB.
    let behind = (size / 512)
        .checked_sub(16)
        .map(|sector| (sector & !7) * 512);
    let places = [("1.2", Some(4096)), ("1.1", Some(0)), ("1.0", behind)];
    for (version, at) in places {
        let Some(at) = at else { continue };
        let record = looker.record(at, 256)?;
        let fields = Fields(&record);
        if fields.le32(0) == MD && fields.le32(4) == 1 {
            return Ok(Some(Identity {
                version: Some(version.to_owned()),
                uuid: uuid(fields, 16),
                label: text(fields, 32, 32),
                ..identity("linux_raid_member")
            }));
        }
    }
    // Version 0.90 fills the last whole 64 KiB but one, or the last, in its machine's byte order.
    let Some(at) = (size & !(MD_RESERVED - 1)).checked_sub(MD_RESERVED) else {
        return Ok(None);
    };
    let record = looker.record(at, 256)?;
    let fields = Fields(&record);
    Ok(
        (fields.le32(0) == MD || fields.be32(0) == MD).then(|| Identity {
            version: Some("0.90".to_owned()),
            ..identity("linux_raid_member")
        }),
    )
}

/// What a mainboard's firmware calls a RAID: Intel's matrix storage, and the common format.
fn firmware_raid(looker: &Looker<'_, '_>) -> Result<Option<Identity>> {
    let size = looker.volume.size();
    let from_end = |back: u64, length| match size.checked_sub(back) {
        Some(at) => looker.record(at, length),
        None => Ok(Vec::new()),
    };
    if from_end(1024, 24)?.starts_with(b"Intel Raid ISM Cfg Sig. ") {
        return Ok(Some(identity("isw_raid_member")));
    }
    for back in [512, 257 * 512] {
        let record = from_end(back, 4)?;
        let header = [0xde11_de11; 2];
        if [Fields(&record).be32(0), Fields(&record).le32(0)]
            .iter()
            .any(|number| header.contains(number))
        {
            return Ok(Some(identity("ddf_raid_member")));
        }
    }
    Ok(None)
}

/// Metadata inside its own device: a block of 4 KiB at the end.
fn drbd(looker: &Looker<'_, '_>) -> Result<Option<Identity>> {
    let Some(last) = looker.volume.size().checked_sub(4096) else {
        return Ok(None);
    };
    for at in [last, last & !4095] {
        let record = looker.record(at, 64)?;
        if DRBD.contains(&Fields(&record).be32(60)) {
            return Ok(Some(identity("drbd")));
        }
    }
    Ok(None)
}

fn zfs(looker: &Looker<'_, '_>) -> Result<Option<Identity>> {
    let labels = looker.volume.size() / ZFS_LABEL;
    let first = [0, 1, labels.saturating_sub(2), labels.saturating_sub(1)];
    for (n, label) in first.into_iter().enumerate() {
        if label >= labels || first.iter().take(n).any(|&seen| seen == label) {
            continue;
        }
        let ring = looker.record(label * ZFS_LABEL + ZFS_RING, 128 << 10)?;
        let matches = |slot: &[u8]| {
            let fields = Fields(slot);
            fields.le64(0) == ZFS_UBERBLOCK || fields.be64(0) == ZFS_UBERBLOCK
        };
        if ring.chunks(ZFS_SLOT).any(matches) {
            return Ok(Some(identity("zfs_member")));
        }
    }
    Ok(None)
}
