//! From a store to trusted metadata: header, L1 tables and snapshot table.
//!
//! Knows where tables lie and that they must lie inside the file. Must not
//! follow any name found inside the image.

use std::sync::Arc;

use super::format::entry::L1Entry;
use super::format::features;
use super::format::header::{Encryption, HeaderError, MAX_L1_BYTES};
use super::format::snapshot::{self, MAX_TABLE_BYTES, Snapshot};
use super::format::{Corruption, Header};
use super::l2_cache::{Table, read_words};
use super::reader::Layer;
use crate::codec::CompressionType;
use crate::error::{Error, ErrorKind, Result};
use crate::image::options::{Preallocation, Qcow2Options};
use crate::store::ReadAt;

/// A qcow2 file whose header has been checked; no other file is open.
#[derive(Debug, Clone)]
pub(crate) struct Qcow2File {
    pub(crate) store: Arc<dyn ReadAt>,
    pub(crate) header: Header,
    /// Bytes of the file.
    pub(crate) file_length: u64,
    pub(crate) snapshots: Vec<Snapshot>,
    /// Bytes of the snapshot table.
    pub(crate) snapshot_table_bytes: u64,
}

impl Qcow2File {
    /// Reads the header and the snapshot table, nothing else.
    ///
    /// # Errors
    /// No qcow2, unknown features, tables outside the file or beyond the limits.
    pub(crate) fn open(store: Arc<dyn ReadAt>) -> Result<Self> {
        let file_length = store.len()?;
        let head = read_head(&*store, file_length, 24)?;
        let cluster_bits =
            Header::peek_cluster_bits(&head).map_err(|error| header_error(&*store, error))?;
        let first = read_head(&*store, file_length, cluster_bits.size())?;
        let header = Header::parse(&first).map_err(|error| header_error(&*store, error))?;
        let mut file = Self {
            store,
            header,
            file_length,
            snapshots: Vec::new(),
            snapshot_table_bytes: 0,
        };
        file.read_snapshots()?;
        Ok(file)
    }

    fn read_snapshots(&mut self) -> Result<()> {
        let count = self.header.nb_snapshots;
        if count == 0 {
            return Ok(());
        }
        let offset = self.header.snapshots_offset;
        // Small tables are the rule: read more only when the entries turn out longer.
        let mut length = (u64::from(count) * 256).min(MAX_TABLE_BYTES);
        loop {
            // QEMU reads zeros behind the end of a truncated image: the active disk is still there to be read.
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            self.store.read_zero_filled(&mut bytes, offset)?;
            match snapshot::parse_table(&bytes, count, self.header.size) {
                Err(Corruption::Truncated { .. }) if length < MAX_TABLE_BYTES => {
                    length = (length * 4).min(MAX_TABLE_BYTES);
                }
                Err(corruption) => return Err(self.corrupt(corruption).at_host(offset)),
                Ok((snapshots, table_bytes)) => {
                    (self.snapshots, self.snapshot_table_bytes) = (snapshots, table_bytes);
                    return Ok(());
                }
            }
        }
    }

    /// Bytes `offset..offset + length` of the file.
    pub(crate) fn read_region(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.store.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// A contradiction in this image.
    pub(crate) fn corrupt(&self, corruption: Corruption) -> Error {
        corrupt(&*self.store, corruption)
    }

    /// How compressed clusters are encoded.
    pub(crate) fn compression_type(&self) -> CompressionType {
        match self.header.compression_type {
            0 => CompressionType::Zlib,
            _ => CompressionType::Zstd,
        }
    }

    /// Options that would make an image like this one.
    pub(crate) fn options(&self) -> Qcow2Options {
        let header = &self.header;
        let backing_format = header.backing_format.clone().unwrap_or_default();
        Qcow2Options {
            cluster_size: header.cluster_bits.size(),
            version: header.version,
            refcount_bits: header.refcount_order.bits(),
            compression_type: self.compression_type(),
            extended_l2: header.geometry().extended_l2,
            lazy_refcounts: header.compatible_features & features::LAZY_REFCOUNTS != 0,
            backing: header
                .backing_file
                .clone()
                .map(|name| (name, backing_format)),
            data_file: header.data_file.clone(),
            data_file_raw: header.autoclear_features & features::RAW_EXTERNAL_DATA != 0,
            preallocation: Preallocation::Off,
        }
    }

    /// The L1 table of `entries` entries at `offset`; entries past the end of a short file are 0.
    ///
    /// # Errors
    /// The table starts behind the file's end, is not aligned, or exceeds 32 MiB.
    pub(crate) fn read_l1(&self, offset: u64, entries: u32) -> Result<Table> {
        let length = u64::from(entries) * 8;
        let refuse = |why| Corruption::Region {
            what: "L1 table",
            offset,
            length,
            why,
        };
        let bits = self.header.cluster_bits;
        if length > MAX_L1_BYTES {
            return Err(self.corrupt(refuse("longer than 32 MiB")).at_host(offset));
        }
        if length > 0 && !bits.is_aligned(offset) {
            return Err(self
                .corrupt(refuse("not aligned to a cluster"))
                .at_host(offset));
        }
        let end = bits.clusters_for(self.file_length) << bits.bits();
        if length > 0
            && offset
                .checked_add(length)
                .is_none_or(|table_end| table_end > end)
        {
            let refuse = refuse("outside the file (truncated image?)");
            return Err(self.corrupt(refuse).at_host(offset));
        }
        read_words(&*self.store, offset, usize::try_from(length).unwrap_or(0))
    }

    /// The snapshot called `name`, by id first, then by name, as qemu-img looks it up.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn snapshot(&self, name: &str) -> Result<&Snapshot> {
        let by_id = self.snapshots.iter().find(|snapshot| snapshot.id == name);
        by_id
            .or_else(|| self.snapshots.iter().find(|snapshot| snapshot.name == name))
            .ok_or_else(|| {
                let error = Error::usage(format!("there is no internal snapshot '{name}'"))
                    .with_remedy("`qimg info` lists them");
                at_path(error, &*self.store)
            })
    }

    /// The guest's view: the active disk, or that of an internal snapshot. `data` is the external data file, where the
    /// image has one.
    ///
    /// # Errors
    /// An L1 table outside the file.
    pub(crate) fn layer(
        &self,
        snapshot: Option<&str>,
        data: Option<Arc<dyn ReadAt>>,
    ) -> Result<Layer> {
        let header = &self.header;
        let (offset, entries, size) = match snapshot {
            None => (
                header.l1_table_offset,
                header.l1_size,
                header.virtual_size(),
            ),
            Some(name) => {
                let snapshot = self.snapshot(name)?;
                let l1 = (snapshot.l1_table_offset, snapshot.l1_size);
                (l1.0, l1.1, snapshot.disk_size)
            }
        };
        let l1 = self.read_l1(offset, entries)?;
        let needed = header.geometry().l1_entries(size);
        if (l1.len() as u64) < needed {
            let corruption = Corruption::Truncated {
                what: "L1 table of the snapshot",
            };
            return Err(self.corrupt(corruption).at_host(offset));
        }
        Ok(Layer::new(self, l1, size, data))
    }

    /// Whether guest data is encrypted, and how it is called.
    pub(crate) fn encryption(&self) -> Option<&'static str> {
        match self.header.crypt_method {
            Encryption::None => None,
            Encryption::Aes => Some("AES"),
            Encryption::Luks => Some("LUKS"),
        }
    }

    /// Host offset of the L2 table that `entry` points to, checked against the file's length.
    pub(crate) fn check_table(&self, entry: L1Entry) -> Result<Option<u64>> {
        check_l2_table(
            &*self.store,
            self.header.cluster_bits,
            self.file_length,
            entry,
        )
    }
}

/// Host offset of the L2 table that `entry` points to; it must start inside the file.
pub(super) fn check_l2_table(
    store: &dyn ReadAt,
    cluster_bits: super::format::ClusterBits,
    file_length: u64,
    entry: L1Entry,
) -> Result<Option<u64>> {
    let Some(host) = entry
        .table(cluster_bits)
        .map_err(|error| corrupt(store, error))?
    else {
        return Ok(None);
    };
    if host.0 >= file_length {
        let corruption = Corruption::Entry {
            why: "L2 table behind the end of the file",
            entry: entry.0,
        };
        return Err(corrupt(store, corruption).at_host(host.0));
    }
    Ok(Some(host.0))
}

/// A contradiction in the image held by `store`.
pub(super) fn corrupt(store: &dyn ReadAt, corruption: Corruption) -> Error {
    at_path(Error::corrupt("the image is corrupt", corruption), store)
}

fn at_path(error: Error, store: &dyn ReadAt) -> Error {
    match store.path() {
        Some(path) => error.at_path(path),
        None => error,
    }
}

fn header_error(store: &dyn ReadAt, error: HeaderError) -> Error {
    let text = error.to_string();
    let error = match error {
        HeaderError::NotQcow2 => Error::new(ErrorKind::NotAnImage, text),
        HeaderError::Version(1) => {
            Error::unsupported("this is a qcow (version 1) image, which is not supported")
                .with_remedy("convert it with `qemu-img convert -f qcow -O qcow2`")
        }
        HeaderError::Version(_)
        | HeaderError::UnknownFeatures(_)
        | HeaderError::CompressionType(_) => Error::unsupported(text),
        HeaderError::Corrupt(corruption) => Error::corrupt("the header is corrupt", corruption),
    };
    at_path(error, store)
}

fn read_head(store: &dyn ReadAt, file_length: u64, length: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length.min(file_length)).unwrap_or(0)];
    store.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
