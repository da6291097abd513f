//! NTFS: what it is, and which of its clusters are free.
//!
//! The truth about free space is one bitmap. Nothing in it has a checksum, so all records of the master file table are
//! held against it: a cluster that a file has and the bitmap does not means that neither is believed. A log that was
//! not played back, a flag that asks for a check and a hibernated Windows mean that newer truth lies elsewhere.
//!
//! Field names are those of the Linux kernel's `fs/ntfs/layout.h` and of ntfs-3g's.

mod boot;
mod directory;
mod log;
mod record;
mod runs;

#[cfg(test)]
mod tests;

use crate::fields::Fields;
use crate::free::{FreeMap, FreeMapBuilder};
use crate::fs::{FreeOptions, FreeSpace, Identity, Refusal, RefusalKind};
use crate::volume::Volume;

use boot::Boot;
use directory::Hibernation;
use record::{Attribute, Record};
use runs::Stream;

/// Numbers of the records that describe the filesystem itself.
/// Where the Volume Shadow Copy Service keeps its header, and how that begins: {3808876b-c176-4e48-b7ae-04046e6cc752}.
const SHADOW_HEADER: u64 = 0x1e00;
const SHADOW_IDENTIFIER: [u8; 16] = [
    0x6b, 0x87, 0x08, 0x38, 0x76, 0xc1, 0x48, 0x4e, 0xb7, 0xae, 0x04, 0x04, 0x6e, 0x6c, 0xc7, 0x52,
];

const MFT: u64 = 0;
const LOG_FILE: u64 = 2;
const VOLUME: u64 = 3;
const ROOT: u64 = 5;
const BITMAP: u64 = 6;

/// Types of attributes.
const ATTRIBUTE_LIST: u32 = 0x20;
const VOLUME_NAME: u32 = 0x60;
const VOLUME_INFORMATION: u32 = 0x70;
const DATA: u32 = 0x80;

/// `VOLUME_MODIFIED_BY_CHKDSK`: the one flag of a volume that says nothing of its state.
const MODIFIED_BY_CHKDSK: u16 = 0x8000;

/// Bytes of the table that are looked through at most: sixteen million files.
const MOST_RECORDS: u64 = 16 << 30;

/// How many records both the table and its mirror have.
const MIRRORED: u64 = 4;

/// What the boot sector and `$Volume` say of it; `None` when there is none.
///
/// # Errors
/// Whatever the image fails with.
pub(super) fn identify(volume: &Volume<'_>) -> crate::Result<Option<Identity>> {
    let Some(boot) = Boot::find(volume)? else {
        return Ok(None);
    };
    let table = Table::open(volume, &boot).ok();
    let record = table.and_then(|table| table.record(VOLUME).ok());
    let label = record.and_then(|record| {
        let name = record.attributes().ok()?;
        let name = name
            .into_iter()
            .find(|attribute| attribute.kind == VOLUME_NAME)?;
        let label = record::text(name.resident()?);
        (!label.is_empty()).then_some(label)
    });
    Ok(Some(Identity {
        kind: "ntfs",
        version: None,
        label,
        uuid: Some(format!("{:016X}", boot.serial)),
        size: Some(boot.bytes()),
        block_size: Some(boot.cluster_size),
    }))
}

/// Whether Windows sleeps in there.
pub(super) fn is_hibernated(volume: &Volume<'_>) -> bool {
    let Ok(Some(boot)) = Boot::find(volume) else {
        return false;
    };
    let Ok(table) = Table::open(volume, &boot) else {
        return false;
    };
    matches!(directory::hibernation(&table), Ok(Hibernation::Asleep))
}

/// What the bitmap says is free.
///
/// # Errors
/// A state that is not the last word; whatever contradicts itself; a `$Bitmap` or `$MFT` in too many pieces.
pub(super) fn free_space(volume: &Volume<'_>, _: &FreeOptions) -> Result<FreeSpace, Refusal> {
    let boot = Boot::find(volume)?.ok_or_else(|| Refusal::damaged("no ntfs boot sector"))?;
    boot.require_inside(volume)?;
    let table = Table::open(volume, &boot)?;
    require_clean(&table)?;
    require_no_shadow_copies(volume)?;
    if directory::hibernation(&table)? == Hibernation::Asleep {
        return Err(Refusal::hibernated());
    }
    table.require_mirrored()?;
    let free = free_clusters(&table)?;
    table.require_in_use(&free)?;
    Ok(FreeSpace { free, note: None })
}

/// What a shadow copy (a restore point) shows of deleted files lies in free clusters. Its header, the same identifier in
/// all versions of Windows, lies at a fixed place of the volume.
fn require_no_shadow_copies(volume: &Volume<'_>) -> Result<(), Refusal> {
    if volume.read_array::<16>(SHADOW_HEADER)? == SHADOW_IDENTIFIER {
        return Err(Refusal::new(
            RefusalKind::Protected,
            "ntfs may have shadow copies, which need its free clusters",
        ));
    }
    Ok(())
}

fn require_clean(table: &Table<'_, '_>) -> Result<(), Refusal> {
    let record = table.record(VOLUME)?;
    let attributes = record.attributes()?;
    let information = attributes
        .iter()
        .find(|attribute| attribute.kind == VOLUME_INFORMATION)
        .and_then(Attribute::resident)
        .filter(|value| value.len() >= 12)
        .ok_or_else(|| Refusal::damaged("ntfs has no information on its volume"))?;
    let fields = Fields(information);
    if !(1..=3).contains(&fields.u8(8)) {
        return Err(Refusal::unsupported(format!(
            "ntfs of version {}.{}",
            fields.u8(8),
            fields.u8(9)
        )));
    }
    let flags = fields.le16(10) & !MODIFIED_BY_CHKDSK;
    if flags != 0 {
        return Err(
            Refusal::dirty(format!("ntfs is marked dirty (flags {flags:#x})"))
                .with_remedy("let Windows check it, and shut it down"),
        );
    }
    log::require_clean(&table.data_of(LOG_FILE, "$LogFile")?, table)
}

/// Bytes of the bitmap that are read at once.
const PIECE: usize = 64 << 10;

fn free_clusters(table: &Table<'_, '_>) -> Result<FreeMap, Refusal> {
    let boot = table.boot;
    let bitmap = table.data_of(BITMAP, "$Bitmap")?;
    let bytes = boot.clusters.div_ceil(8);
    if bitmap.initialized() < bytes {
        return Err(Refusal::damaged("ntfs $Bitmap is too short"));
    }
    let mut map = FreeMapBuilder::new();
    let mut start = None;
    let mut piece = Vec::new();
    let mut at = 0;
    while at < bytes {
        let length = usize::try_from(bytes - at).unwrap_or(PIECE).min(PIECE);
        piece.resize(length, 0);
        bitmap.read_at(table.volume, boot, at, &mut piece)?;
        for (byte, number) in piece.iter().zip(at..) {
            for bit in 0..8 {
                let cluster = number * 8 + bit;
                let free = byte >> bit & 1 == 0 && cluster < boot.clusters;
                match (free, start) {
                    (true, None) => start = Some(cluster),
                    (false, Some(first)) => {
                        map.free(boot.bytes_of(first, cluster - first));
                        start = None;
                    }
                    _ => {}
                }
            }
        }
        at += length as u64;
    }
    if let Some(first) = start {
        map.free(boot.bytes_of(first, boot.clusters - first));
    }
    Ok(map.build())
}

/// The master file table.
struct Table<'v, 'a> {
    volume: &'v Volume<'a>,
    boot: &'v Boot,
    data: Stream,
}

impl<'v, 'a> Table<'v, 'a> {
    fn open(volume: &'v Volume<'a>, boot: &'v Boot) -> Result<Self, Refusal> {
        let place = boot.bytes_of(boot.mft, 1).start;
        let record = Record::parse(volume.read_vec(place, boot.record_size)?, MFT)?;
        let data = Stream::of(&record, boot, "$MFT")?;
        if data.place(0) != Some(boot.mft) {
            return Err(Refusal::damaged(
                "ntfs boot sector and $MFT contradict each other",
            ));
        }
        Ok(Self { volume, boot, data })
    }

    /// A record in use.
    fn record(&self, number: u64) -> Result<Record, Refusal> {
        let mut bytes = vec![0; self.boot.record_size];
        let at = number.checked_mul(self.boot.record_size as u64);
        let at = at.ok_or_else(|| Refusal::damaged("ntfs names an impossible record"))?;
        self.data.read_at(self.volume, self.boot, at, &mut bytes)?;
        Record::parse(bytes, number)
    }

    /// The contents of one of the filesystem's own files, whose runs are all in one record.
    fn data_of(&self, number: u64, name: &str) -> Result<Stream, Refusal> {
        Stream::of(&self.record(number)?, self.boot, name)
    }

    /// The mirror is there for a table that cannot be read; once they differ nobody knows which is right.
    fn require_mirrored(&self) -> Result<(), Refusal> {
        for number in 0..MIRRORED {
            let size = self.boot.record_size as u64;
            let at = self.boot.bytes_of(self.boot.mirror, 1).start + number * size;
            let mirror = self.volume.read_vec(at, self.boot.record_size)?;
            if Record::parse(mirror, number)?.contents() != self.record(number)?.contents() {
                return Err(Refusal::damaged("ntfs $MFT and $MFTMirr differ"));
            }
        }
        Ok(())
    }

    /// Refuses a map in which clusters of any file are free.
    fn require_in_use(&self, free: &FreeMap) -> Result<(), Refusal> {
        let size = self.boot.record_size as u64;
        if self.data.initialized() > MOST_RECORDS {
            return Err(Refusal::unsupported("ntfs $MFT is too large"));
        }
        let records = self.data.initialized() / size;
        let at_once = (1 << 20) / size;
        let mut bytes = Vec::new();
        for first in (0..records).step_by(usize::try_from(at_once).unwrap_or(1)) {
            let count = at_once.min(records - first);
            bytes.resize(usize::try_from(count * size).unwrap_or(0), 0);
            self.data
                .read_at(self.volume, self.boot, first * size, &mut bytes)?;
            for (record, number) in bytes.chunks(self.boot.record_size).zip(first..) {
                // Never used so far.
                if record.iter().all(|&byte| byte == 0) || Record::is_unused(record) {
                    continue;
                }
                let record = Record::parse(record.to_vec(), number)?;
                for attribute in record.attributes()? {
                    for run in runs::decode(&attribute, self.boot)? {
                        let Some(cluster) = run.place else { continue };
                        let bytes = self.boot.bytes_of(cluster, run.length);
                        if free.within(bytes).next().is_some() {
                            return Err(Refusal::damaged(format!(
                                "ntfs record {number} has clusters that $Bitmap says are free"
                            )));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
