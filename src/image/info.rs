//! What an image says about itself, as plain data in qemu-img's vocabulary.
//!
//! Knows the vocabulary of `qemu-img info --output=json`: keys, values and
//! which of them are absent when. Must not open a file and must not follow a
//! name: what an image names is reported, never believed. Guest data and its
//! tables are not read either.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use super::backing::{is_protocol, refuse_cycle};
use super::{Census, Driver, Image, MAX_CHAIN, raw};
use crate::error::{Error, Result};
use crate::store::{FileId, ReadAt};

/// What `qemu-img info` tells about an image file.
///
/// Serialises to an object with the keys and values of `qemu-img info --output=json`. One thing is left out: QEMU
/// versions that open the external data file add a child `data-file`, and qimg does not open it to report on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageInfo {
    /// The file, as it was named; bytes that are no UTF-8 are replaced.
    pub filename: String,
    /// `raw`, `qcow2`; of a child also `file`, `host_device`.
    pub format: String,
    /// Size of the virtual disk in bytes, whole sectors.
    pub virtual_size: u64,
    /// Bytes that the file occupies on its host.
    pub actual_size: u64,
    /// Bytes of a cluster, for formats that have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_size: Option<u64>,
    /// Reference counts may be stale.
    pub dirty_flag: bool,
    /// Guest data is encrypted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
    /// Name of the backing file as recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_filename: Option<String>,
    /// That name as seen from the current directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_backing_filename: Option<String>,
    /// The backing file's format as recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_filename_format: Option<String>,
    /// Internal snapshots in the order of their table.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotInfo>,
    /// What only this format has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format_specific: Option<FormatSpecific>,
    /// The files underneath.
    pub children: Vec<ChildInfo>,
}

/// A node underneath an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChildInfo {
    /// What it is to the image: `file`.
    pub name: String,
    /// The node itself.
    pub info: ImageInfo,
}

/// One internal snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SnapshotInfo {
    /// Unique id.
    pub id: String,
    /// Name given by the user.
    pub name: String,
    /// Bytes of VM state.
    pub vm_state_size: u64,
    /// When it was taken, seconds since 1970.
    pub date_sec: u64,
    /// Nanosecond part.
    pub date_nsec: u64,
    /// How long the guest had run, whole seconds.
    pub vm_clock_sec: u64,
    /// Nanosecond part.
    pub vm_clock_nsec: u64,
    /// Instruction count, when recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icount: Option<u64>,
}

/// What one format alone has to tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum FormatSpecific {
    /// A qcow2 image.
    Qcow2(Box<Qcow2Info>),
    /// A host file or device.
    File(FileInfo),
}

/// An object without keys: the extent size hint, which QEMU tells on XFS, is not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FileInfo {}

/// What is particular to a qcow2 image. Version 2 images leave out what only version 3 can have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Qcow2Info {
    /// `0.10` for version 2, `1.1` for version 3.
    pub compat: String,
    /// `zlib` or `zstd`.
    pub compression_type: String,
    /// Reference counts may be written late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lazy_refcounts: Option<bool>,
    /// Width of a reference count.
    pub refcount_bits: u64,
    /// Metadata is known to be inconsistent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<bool>,
    /// L2 entries are two words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extended_l2: Option<bool>,
    /// Persistent bitmaps; absent when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bitmaps: Vec<BitmapInfo>,
    /// Name of the external data file as recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_file: Option<String>,
    /// Whether the external data file is a raw image by itself; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_file_raw: Option<bool>,
    /// How guest data is encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypt: Option<EncryptionInfo>,
}

/// One persistent bitmap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BitmapInfo {
    /// `in-use`: its bits are stale; `auto`: it records writes.
    pub flags: Vec<&'static str>,
    /// Its name.
    pub name: String,
    /// Guest bytes that one bit stands for.
    pub granularity: u64,
}

/// How guest data is encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "format", rename_all = "kebab-case")]
pub enum EncryptionInfo {
    /// Legacy AES-CBC.
    Aes,
    /// LUKS version 1.
    Luks(Box<LuksInfo>),
}

/// A LUKS header, as far as it is told without a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LuksInfo {
    /// Cipher and key width: `aes-256`.
    pub cipher_alg: String,
    /// Block mode: `xts`.
    pub cipher_mode: String,
    /// How initialisation vectors come about: `plain64`.
    pub ivgen_alg: String,
    /// The hash that takes part in that, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ivgen_hash_alg: Option<String>,
    /// The hash of key derivation.
    pub hash_alg: String,
    /// Whether the header is in another file than the data; never in a qcow2 image.
    pub detached_header: bool,
    /// Where encrypted data would start, in bytes from the LUKS header.
    pub payload_offset: u64,
    /// Rounds of derivation for the master key's digest.
    pub master_key_iters: u64,
    /// The volume's UUID.
    pub uuid: String,
    /// All eight key slots.
    pub slots: Vec<LuksSlotInfo>,
}

/// One LUKS key slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LuksSlotInfo {
    /// Whether it holds a key.
    pub active: bool,
    /// Rounds of derivation, of an active slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iters: Option<u64>,
    /// Anti-forensic stripes, of an active slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stripes: Option<u64>,
    /// Where its key material lies, in bytes from the LUKS header.
    pub key_offset: u64,
}

impl Image {
    /// What the image says about itself: from its header, snapshot table and bitmap directory. Opens no other file.
    ///
    /// # Errors
    /// The host cannot tell the file's size; a bitmap directory or LUKS header against its format.
    pub fn info(&self) -> Result<ImageInfo> {
        let filename = self.path().to_string_lossy().into_owned();
        let mut info = file_info(&**self.store(), filename)?;
        info.children = vec![ChildInfo {
            name: "file".to_owned(),
            info: info.clone(),
        }];
        info.format = self.format().to_string();
        info.format_specific = None;
        let Driver::Qcow2(file) = &self.driver else {
            return Ok(info);
        };
        info.virtual_size = file.header.virtual_size();
        info.cluster_size = Some(file.header.cluster_bits.size());
        info.dirty_flag = file.is_dirty();
        info.encrypted = file.encryption().is_some();
        if let Some((name, format)) = self.backing_file().filter(|(name, _)| !name.is_empty()) {
            info.backing_filename = Some(name.to_owned());
            let full = full_backing_name(self.path(), name);
            info.full_backing_filename = Some(full.to_string_lossy().into_owned());
            info.backing_filename_format = format
                .filter(|format| !format.is_empty())
                .map(ToOwned::to_owned);
        }
        info.snapshots = file.snapshot_info();
        info.format_specific = Some(FormatSpecific::Qcow2(Box::new(file.specific_info()?)));
        Ok(info)
    }

    /// The clusters of the active disk, counted by kind on `threads` threads. Opens no other file.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for an image without clusters; tables that cannot be read or contradict
    /// their format; [`Cancelled`](crate::ErrorKind::Cancelled) after another thread set `cancel`.
    pub fn census(&self, threads: usize, cancel: &AtomicBool) -> Result<Census> {
        match &self.driver {
            Driver::Raw => Err(Error::usage("a raw image has no clusters").at_path(self.path())),
            Driver::Qcow2(file) => file.census(threads, cancel),
        }
    }
}

/// What every image of a backing chain says about itself, `image` first: `qemu-img info --backing-chain`.
///
/// Opens the backing files that the policy of `image` allows; a chain that a policy cuts short is an error.
///
/// # Errors
/// As [`Image::info`] and [`Image::open_next`]; a chain that is circular or longer than [`MAX_CHAIN`].
pub fn backing_chain_info(image: &Image) -> Result<Vec<ImageInfo>> {
    let mut seen = Vec::new();
    let mut infos = Vec::new();
    add_info(image, image.path(), &mut seen, &mut infos)?;
    let mut next = next_of(image, image.path())?;
    while let Some((image, name)) = next {
        add_info(&image, &name, &mut seen, &mut infos)?;
        next = next_of(&image, &name)?;
    }
    Ok(infos)
}

/// The next image of the chain, and how `image`, itself called `name`, calls it.
fn next_of(image: &Image, name: &Path) -> Result<Option<(Image, PathBuf)>> {
    let Some((backing, _)) = image.backing_file() else {
        return Ok(None);
    };
    let full = full_backing_name(name, backing);
    Ok(image.open_next()?.map(|next| (next, full)))
}

fn add_info(
    image: &Image,
    name: &Path,
    seen: &mut Vec<FileId>,
    infos: &mut Vec<ImageInfo>,
) -> Result<()> {
    refuse_cycle(seen, &**image.store(), image.path())?;
    // Stores without an identity cannot be told apart, so the length counts too.
    if infos.len() >= MAX_CHAIN {
        return Err(Error::unsupported(format!(
            "the backing chain is longer than {MAX_CHAIN} images"
        ))
        .at_path(image.path()));
    }
    let mut info = image.info()?;
    // All names are seen from the top image's, not from where the policy found the file.
    info.filename = name.to_string_lossy().into_owned();
    for child in &mut info.children {
        child.info.filename.clone_from(&info.filename);
    }
    if let Some(backing) = &info.backing_filename {
        let full = full_backing_name(name, backing);
        info.full_backing_filename = Some(full.to_string_lossy().into_owned());
    }
    infos.push(info);
    Ok(())
}

/// The file underneath an image.
fn file_info(store: &dyn ReadAt, filename: String) -> Result<ImageInfo> {
    let format = match store.identity() {
        Some(FileId::BlockDevice { .. }) => "host_device",
        _ => "file",
    };
    Ok(ImageInfo {
        filename,
        format: format.to_owned(),
        virtual_size: raw::virtual_size(store.len()?),
        actual_size: store.allocated_bytes()?,
        cluster_size: None,
        dirty_flag: false,
        encrypted: false,
        backing_filename: None,
        full_backing_filename: None,
        backing_filename_format: None,
        snapshots: Vec::new(),
        format_specific: Some(FormatSpecific::File(FileInfo {})),
        children: Vec::new(),
    })
}

/// What `name`, found in the image at `by`, means from where `by` is named: text alone, no file is looked at.
fn full_backing_name(by: &Path, name: &str) -> PathBuf {
    match by.parent() {
        Some(directory) if !is_protocol(name) => directory.join(name),
        _ => PathBuf::from(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_names_are_seen_from_the_image_that_names_them() {
        for (by, name, full) in [
            ("a.qcow2", "b.raw", "b.raw"),
            ("./a.qcow2", "b.raw", "./b.raw"),
            ("d/a.qcow2", "b.raw", "d/b.raw"),
            ("./d/a.qcow2", "../b.raw", "./d/../b.raw"),
            ("/d/a.qcow2", "b.raw", "/d/b.raw"),
            ("d/a.qcow2", "/b.raw", "/b.raw"),
            ("d/a.qcow2", "nbd://host/b", "nbd://host/b"),
        ] {
            assert_eq!(full_backing_name(Path::new(by), name), Path::new(full));
        }
    }
}
