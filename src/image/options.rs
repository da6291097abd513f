//! What a new image shall be: `create`'s options as plain data.
//!
//! Knows which combinations exist. Writes nothing.

use crate::codec::CompressionType;
use crate::error::{Error, Result};
use crate::units::ByteSize;

use super::qcow2::format::header::MAX_BACKING_NAME;
use super::qcow2::format::{ClusterBits, RefcountOrder};

/// How much of a new image is allocated at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preallocation {
    /// Nothing.
    #[default]
    Off,
    /// Tables for all clusters, whose host space stays a hole.
    Metadata,
    /// Host space, reserved by the file system.
    Falloc,
    /// Host space, written with zeros.
    Full,
}

/// Options of a new qcow2 image, under the names that qemu-img gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qcow2Options {
    /// Bytes of a cluster: a power of two from 512 to 2 MiB.
    pub cluster_size: u64,
    /// Version 2 (`compat=0.10`) or 3 (`compat=1.1`).
    pub version: u32,
    /// Width of reference counts: a power of two from 1 to 64.
    pub refcount_bits: u64,
    /// How compressed clusters are encoded.
    pub compression_type: CompressionType,
    /// Two-word L2 entries, 32 subclusters a cluster.
    pub extended_l2: bool,
    /// Reference counts may be written late.
    pub lazy_refcounts: bool,
    /// Backing file name and format, recorded as they are.
    pub backing: Option<(String, String)>,
    /// External data file name, recorded as it is.
    pub data_file: Option<String>,
    /// The data file is a raw image by itself.
    pub data_file_raw: bool,
    /// What is allocated at once.
    pub preallocation: Preallocation,
}

impl Default for Qcow2Options {
    fn default() -> Self {
        Self {
            cluster_size: 1 << 16,
            version: 3,
            refcount_bits: 16,
            compression_type: CompressionType::Zlib,
            extended_l2: false,
            lazy_refcounts: false,
            backing: None,
            data_file: None,
            data_file_raw: false,
            preallocation: Preallocation::Off,
        }
    }
}

impl Qcow2Options {
    /// Sets one option from its text, as in `-o key=value`.
    ///
    /// # Errors
    /// An unknown key, or a value that the key cannot take.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let bad = |allowed: &str| {
            Error::usage(format!("-o {key}={value}: not possible"))
                .with_remedy(format!("{key} takes {allowed}"))
        };
        let switch = || match value {
            "on" | "yes" | "true" | "y" | "" => Ok(true),
            "off" | "no" | "false" | "n" => Ok(false),
            _ => Err(bad("on or off")),
        };
        match key {
            "cluster_size" => self.cluster_size = ByteSize::parse(value)?.0,
            "compat" => {
                self.version = match value {
                    "0.10" | "v2" => 2,
                    "1.1" | "v3" => 3,
                    _ => return Err(bad("0.10 or 1.1")),
                };
            }
            "refcount_bits" => {
                self.refcount_bits = value.parse().map_err(|_| bad("1, 2, 4, 8, 16, 32 or 64"))?;
            }
            "compression_type" => self.compression_type = value.parse()?,
            "extended_l2" => self.extended_l2 = switch()?,
            "lazy_refcounts" => self.lazy_refcounts = switch()?,
            "data_file" => self.data_file = Some(value.to_owned()),
            "data_file_raw" => self.data_file_raw = switch()?,
            "preallocation" => {
                self.preallocation = match value {
                    "off" => Preallocation::Off,
                    "metadata" => Preallocation::Metadata,
                    "falloc" => Preallocation::Falloc,
                    "full" => Preallocation::Full,
                    _ => return Err(bad("off, metadata, falloc or full")),
                };
            }
            "backing_file" => {
                let format = self
                    .backing
                    .take()
                    .map_or_else(String::new, |(_, format)| format);
                self.backing = Some((value.to_owned(), format));
            }
            "backing_fmt" => {
                let name = self
                    .backing
                    .take()
                    .map_or_else(String::new, |(name, _)| name);
                self.backing = Some((name, value.to_owned()));
            }
            "encryption" | "encrypt.format" if matches!(value, "off" | "") => {}
            key if key.starts_with("encrypt") => {
                return Err(Error::unsupported("qimg does not write encrypted images"));
            }
            _ => {
                return Err(Error::usage(format!("-o {key}: there is no such option for qcow2"))
                    .with_remedy(
                        "options: cluster_size compat compression_type refcount_bits extended_l2 lazy_refcounts \
                         preallocation data_file data_file_raw backing_file backing_fmt",
                    ));
            }
        }
        Ok(())
    }

    /// Checks that the options go together, by the format's rules and QEMU's.
    ///
    /// # Errors
    /// [`Usage`](crate::error::ErrorKind::Usage), naming the option.
    pub fn validate(&self) -> Result<()> {
        let bits = ClusterBits::from_size(self.cluster_size).ok_or_else(|| {
            Error::usage(format!(
                "cluster size {} is not possible",
                self.cluster_size
            ))
            .with_remedy("a cluster is a power of two from 512 to 2M")
        })?;
        let order = RefcountOrder::from_bits(self.refcount_bits).ok_or_else(|| {
            Error::usage(format!(
                "refcount_bits {} is not possible",
                self.refcount_bits
            ))
            .with_remedy("reference counts have 1, 2, 4, 8, 16, 32 or 64 bits")
        })?;
        let needs_v3 =
            |option: &str| Error::usage(format!("{option} needs compat=1.1 (version 3)"));
        if self.version < 3 {
            if order != RefcountOrder::DEFAULT {
                return Err(needs_v3("refcount_bits other than 16"));
            }
            if self.lazy_refcounts {
                return Err(needs_v3("lazy_refcounts"));
            }
            if self.extended_l2 {
                return Err(needs_v3("extended_l2"));
            }
            if self.compression_type != CompressionType::Zlib {
                return Err(needs_v3("compression_type other than zlib"));
            }
            if self.data_file.is_some() {
                return Err(needs_v3("data_file"));
            }
        }
        if self.extended_l2 && bits.bits() < 14 {
            return Err(Error::usage("extended_l2 needs clusters of 16k or more"));
        }
        if self.data_file_raw && self.data_file.is_none() {
            return Err(Error::usage("data_file_raw needs data_file"));
        }
        if self.data_file_raw && self.backing.is_some() {
            return Err(Error::usage(
                "data_file_raw and a backing file exclude each other",
            ));
        }
        if let Some((name, format)) = &self.backing {
            if name.len() > MAX_BACKING_NAME as usize {
                return Err(Error::usage(
                    "the backing file name is longer than 1023 bytes",
                ));
            }
            if name.is_empty() {
                return Err(Error::usage("a backing format without a backing file"));
            }
            if format.is_empty() {
                return Err(Error::usage("the backing file's format is missing")
                    .with_remedy("say it with -F raw or -F qcow2"));
            }
            if format.len() > 15 {
                return Err(Error::usage(
                    "the backing format's name is longer than 15 bytes",
                ));
            }
        }
        Ok(())
    }

    /// A raw data file holds every byte at its place, so every cluster must be mapped, as QEMU does it.
    pub(crate) fn effective_preallocation(&self) -> Preallocation {
        match self.preallocation {
            Preallocation::Off if self.data_file_raw => Preallocation::Metadata,
            other => other,
        }
    }

    pub(crate) fn cluster_bits(&self) -> Result<ClusterBits> {
        self.validate()?;
        ClusterBits::from_size(self.cluster_size)
            .ok_or_else(|| Error::usage("cluster size out of range"))
    }

    pub(crate) fn refcount_order(&self) -> RefcountOrder {
        RefcountOrder::from_bits(self.refcount_bits).unwrap_or(RefcountOrder::DEFAULT)
    }
}
