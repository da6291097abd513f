//! A qcow2 image's part of the report on an image.
//!
//! Knows which keys a version has. Reads the bitmap directory and the LUKS
//! header, nothing else; guest tables stay untouched.

use super::Qcow2File;
use super::format::bitmap::{AUTO, BitmapEntry, IN_USE};
use super::format::features;
use super::format::header::Encryption;
use super::luks;
use crate::error::Result;
use crate::image::info::{BitmapInfo, EncryptionInfo, Qcow2Info, SnapshotInfo};

const NANOSECONDS: u64 = 1_000_000_000;

impl Qcow2File {
    /// Whether reference counts may be stale.
    pub(crate) fn is_dirty(&self) -> bool {
        self.header.has(features::DIRTY)
    }

    /// The snapshot table in the report's words.
    pub(crate) fn snapshot_info(&self) -> Vec<SnapshotInfo> {
        let snapshots = self.snapshots.iter().map(|snapshot| SnapshotInfo {
            id: snapshot.id.clone(),
            name: snapshot.name.clone(),
            vm_state_size: snapshot.vm_state_size,
            date_sec: snapshot.date_sec.into(),
            date_nsec: snapshot.date_nsec.into(),
            vm_clock_sec: snapshot.vm_clock_nsec / NANOSECONDS,
            vm_clock_nsec: snapshot.vm_clock_nsec % NANOSECONDS,
            icount: snapshot.icount,
        });
        snapshots.collect()
    }

    /// What is particular to qcow2.
    ///
    /// # Errors
    /// A bitmap directory or LUKS header outside the file or against its format.
    pub(crate) fn specific_info(&self) -> Result<Qcow2Info> {
        let header = &self.header;
        let v3 = header.version >= 3;
        let raw_data = header.autoclear_features & features::RAW_EXTERNAL_DATA != 0;
        let bitmaps = if v3 {
            self.bitmap_directory()?.iter().map(bitmap_info).collect()
        } else {
            Vec::new()
        };
        Ok(Qcow2Info {
            compat: if v3 { "1.1" } else { "0.10" }.to_owned(),
            compression_type: self.compression_type().to_string(),
            lazy_refcounts: v3
                .then_some(header.compatible_features & features::LAZY_REFCOUNTS != 0),
            refcount_bits: header.refcount_order.bits(),
            corrupt: v3.then_some(header.has(features::CORRUPT)),
            extended_l2: v3.then_some(header.has(features::EXTENDED_L2)),
            bitmaps,
            data_file: header.data_file.clone().filter(|_| v3),
            data_file_raw: header.has(features::EXTERNAL_DATA).then_some(raw_data),
            encrypt: self.encryption_info()?,
        })
    }

    fn encryption_info(&self) -> Result<Option<EncryptionInfo>> {
        Ok(match self.header.crypt_method {
            Encryption::None => None,
            Encryption::Aes => Some(EncryptionInfo::Aes),
            Encryption::Luks => {
                let at = self.header.crypto_header.map_or(0, |(offset, _)| offset);
                let room = self.file_length.saturating_sub(at);
                let bytes = self.read_region(at, room.min(luks::HEADER_BYTES))?;
                let info = luks::parse(&bytes)
                    .map_err(|corruption| self.corrupt(corruption).at_host(at))?;
                Some(EncryptionInfo::Luks(Box::new(info)))
            }
        })
    }
}

fn bitmap_info(entry: &BitmapEntry) -> BitmapInfo {
    let flags = [(IN_USE, "in-use"), (AUTO, "auto")];
    BitmapInfo {
        flags: flags
            .iter()
            .filter(|(bit, _)| entry.flags & bit != 0)
            .map(|(_, name)| *name)
            .collect(),
        name: entry.name.clone(),
        granularity: entry.granularity(),
    }
}
