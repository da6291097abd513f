//! The qcow2 header: fixed fields, header extensions and the backing file name.
//!
//! Fields keep their names from `docs/interop/qcow2.rst`, section "Header".

use std::fmt;

use bytes::{Buf, BufMut};

use super::corruption::Corruption;
use super::entry::Geometry;
use super::features::{self, FEATURE_NAME_SIZE, FeatureName};
use super::{ClusterBits, RefcountOrder};

/// "QFI\xfb".
pub const MAGIC: u32 = 0x5146_49fb;
/// Length of a version 2 header.
pub const V2_LENGTH: u32 = 72;
/// Least length of a version 3 header.
pub const V3_MIN_LENGTH: u32 = 104;
/// Length of the header written here and by QEMU: with compression type.
pub const V3_LENGTH: u32 = 112;
/// Longest backing file name.
pub const MAX_BACKING_NAME: u32 = 1023;
/// Longest L1 table in bytes (4 Mi entries).
pub const MAX_L1_BYTES: u64 = 32 << 20;
/// Longest refcount table in bytes.
pub const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
/// Offsets and sizes are signed in QEMU.
const MAX_OFFSET: u64 = u64::MAX >> 1;
/// Most internal snapshots.
pub const MAX_SNAPSHOTS: u32 = 65536;

const EXT_END: u32 = 0;
const EXT_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXT_FEATURE_NAMES: u32 = 0x6803_f857;
const EXT_BITMAPS: u32 = 0x2385_2875;
const EXT_CRYPTO: u32 = 0x0537_be77;
const EXT_DATA_FILE: u32 = 0x4441_5441;

/// How guest data is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Not at all.
    None,
    /// Legacy AES-CBC.
    Aes,
    /// LUKS; the extension says where its header lies.
    Luks,
}

/// The bitmaps extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitmapsExtension {
    /// Bitmaps in the directory.
    pub nb_bitmaps: u32,
    /// Length of the directory in bytes.
    pub directory_size: u64,
    /// Host offset of the directory in bytes.
    pub directory_offset: u64,
}

/// A parsed header. Offsets are host bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Cluster size.
    pub cluster_bits: ClusterBits,
    /// Virtual disk size in bytes, as stored.
    pub size: u64,
    /// Encryption of guest data.
    pub crypt_method: Encryption,
    /// Entries of the active L1 table.
    pub l1_size: u32,
    /// The active L1 table.
    pub l1_table_offset: u64,
    /// The refcount table.
    pub refcount_table_offset: u64,
    /// Its length in clusters.
    pub refcount_table_clusters: u32,
    /// Number of internal snapshots.
    pub nb_snapshots: u32,
    /// The snapshot table.
    pub snapshots_offset: u64,
    /// Feature bits a reader must understand.
    pub incompatible_features: u64,
    /// Feature bits a reader may ignore.
    pub compatible_features: u64,
    /// Feature bits a writer must clear when it does not know them.
    pub autoclear_features: u64,
    /// Width of reference counts.
    pub refcount_order: RefcountOrder,
    /// Length of the fixed part in bytes.
    pub header_length: u32,
    /// 0 zlib, 1 zstd.
    pub compression_type: u8,
    /// Backing file name.
    pub backing_file: Option<String>,
    /// Backing file format, from its extension.
    pub backing_format: Option<String>,
    /// External data file name, from its extension.
    pub data_file: Option<String>,
    /// The image's own feature name table.
    pub feature_names: Option<Vec<FeatureName>>,
    /// Persistent bitmaps.
    pub bitmaps: Option<BitmapsExtension>,
    /// LUKS header: host offset and length in bytes.
    pub crypto_header: Option<(u64, u64)>,
    /// Extensions unknown here, kept: magic and data.
    pub unknown_extensions: Vec<(u32, Vec<u8>)>,
}

/// Why bytes are no header that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderError {
    /// The magic number is missing.
    NotQcow2,
    /// A version that is not 2 or 3.
    Version(u32),
    /// Incompatible features that are not understood, by the image's own names.
    UnknownFeatures(Vec<String>),
    /// A compression type that is not understood.
    CompressionType(u8),
    /// A contradiction.
    Corrupt(Corruption),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotQcow2 => write!(f, "not a qcow2 image: the magic number is missing"),
            Self::Version(version) => write!(f, "qcow version {version} is not supported"),
            Self::UnknownFeatures(names) => {
                write!(
                    f,
                    "the image needs features that are not supported: {}",
                    names.join(", ")
                )
            }
            Self::CompressionType(kind) => write!(f, "compression type {kind} is not supported"),
            Self::Corrupt(corruption) => corruption.fmt(f),
        }
    }
}

impl std::error::Error for HeaderError {}

impl From<Corruption> for HeaderError {
    fn from(corruption: Corruption) -> Self {
        Self::Corrupt(corruption)
    }
}

impl Header {
    /// The size of the first cluster, from the first 24 bytes of an image: how much [`Header::parse`] wants.
    ///
    /// # Errors
    /// No qcow2, a version other than 2 and 3, or a cluster size out of range.
    pub fn peek_cluster_bits(mut bytes: &[u8]) -> Result<ClusterBits, HeaderError> {
        if bytes.len() < 24 {
            return Err(HeaderError::NotQcow2);
        }
        if bytes.get_u32() != MAGIC {
            return Err(HeaderError::NotQcow2);
        }
        let version = bytes.get_u32();
        if !(2..=3).contains(&version) {
            return Err(HeaderError::Version(version));
        }
        bytes.advance(12);
        let bits = bytes.get_u32();
        Ok(ClusterBits::new(bits).ok_or(field("cluster_bits", bits, "9 to 21"))?)
    }

    /// Parses the first cluster of an image; `bytes` may be shorter when the file is.
    ///
    /// Checks every limit that concerns the header alone (`qcow2.rst`, and QEMU's own limits); whether tables lie
    /// inside the file is the reader's to check.
    ///
    /// # Errors
    /// [`HeaderError`]: no qcow2, features not understood, or a contradiction.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let cluster_bits = Self::peek_cluster_bits(bytes)?;
        let mut fields = bytes;
        let truncated = || HeaderError::Corrupt(Corruption::Truncated { what: "header" });
        let mut u32_field = || fields.try_get_u32().map_err(|_| truncated());
        u32_field()?;
        let version = u32_field()?;
        let u64_field = |upper: u32, lower: u32| (u64::from(upper) << 32) | u64::from(lower);
        let backing_offset = u64_field(u32_field()?, u32_field()?);
        let backing_size = u32_field()?;
        u32_field()?;
        let size = u64_field(u32_field()?, u32_field()?);
        let crypt_method = u32_field()?;
        let l1_size = u32_field()?;
        let l1_table_offset = u64_field(u32_field()?, u32_field()?);
        let refcount_table_offset = u64_field(u32_field()?, u32_field()?);
        let refcount_table_clusters = u32_field()?;
        let nb_snapshots = u32_field()?;
        let snapshots_offset = u64_field(u32_field()?, u32_field()?);
        let (mut incompatible, mut compatible, mut autoclear) = (0, 0, 0);
        let (mut refcount_order, mut header_length) = (4, V2_LENGTH);
        if version >= 3 {
            incompatible = u64_field(u32_field()?, u32_field()?);
            compatible = u64_field(u32_field()?, u32_field()?);
            autoclear = u64_field(u32_field()?, u32_field()?);
            refcount_order = u32_field()?;
            header_length = u32_field()?;
            if header_length < V3_MIN_LENGTH || u64::from(header_length) > cluster_bits.size() {
                return Err(
                    field("header_length", header_length, "104 to the cluster size").into(),
                );
            }
        }
        let compression_type = match bytes.get(104) {
            Some(&kind) if header_length > V3_MIN_LENGTH => kind,
            None if header_length > V3_MIN_LENGTH => return Err(truncated()),
            _ => 0,
        };
        let mut header = Self {
            version,
            cluster_bits,
            size,
            crypt_method: match crypt_method {
                0 => Encryption::None,
                1 => Encryption::Aes,
                2 => Encryption::Luks,
                other => return Err(field("crypt_method", other, "0 to 2").into()),
            },
            l1_size,
            l1_table_offset,
            refcount_table_offset,
            refcount_table_clusters,
            nb_snapshots,
            snapshots_offset,
            incompatible_features: incompatible,
            compatible_features: compatible,
            autoclear_features: autoclear,
            refcount_order: RefcountOrder::new(refcount_order).ok_or(field(
                "refcount_order",
                refcount_order,
                "0 to 6",
            ))?,
            header_length,
            compression_type,
            backing_file: None,
            backing_format: None,
            data_file: None,
            feature_names: None,
            bitmaps: None,
            crypto_header: None,
            unknown_extensions: Vec::new(),
        };
        // The backing name ends the extension area, wherever it stands.
        let extensions_end = if backing_offset == 0 {
            cluster_bits.size()
        } else {
            backing_offset
        };
        if backing_offset > cluster_bits.size() {
            return Err(Corruption::HeaderField {
                field: "backing_file_offset",
                value: backing_offset,
                allowed: "within the first cluster",
            }
            .into());
        }
        // Extensions come before the verdict on features: they hold the features' names.
        let extensions = header.parse_extensions(bytes, extensions_end);
        header.check_features()?;
        extensions?;
        if backing_offset != 0 {
            header.backing_file = Some(backing_name(
                bytes,
                backing_offset,
                backing_size,
                cluster_bits,
            )?);
        }
        header.check_tables()?;
        Ok(header)
    }

    fn parse_extensions(&mut self, bytes: &[u8], end: u64) -> Result<(), Corruption> {
        let start = usize::try_from(self.header_length).unwrap_or(usize::MAX);
        let end = usize::try_from(end).unwrap_or(usize::MAX).min(bytes.len());
        let Some(mut area) = bytes.get(start..end) else {
            return Ok(());
        };
        while let (Ok(magic), Ok(length)) = (area.try_get_u32(), area.try_get_u32()) {
            if magic == EXT_END {
                break;
            }
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let Some(data) = area.get(..length) else {
                return Err(Corruption::Extension {
                    magic,
                    why: "longer than the header's space",
                });
            };
            self.parse_extension(magic, data)?;
            area.advance(length.next_multiple_of(8).min(area.len()));
        }
        Ok(())
    }

    fn parse_extension(&mut self, magic: u32, mut data: &[u8]) -> Result<(), Corruption> {
        let wrong = |why| Corruption::Extension { magic, why };
        match magic {
            EXT_BACKING_FORMAT => {
                if data.len() >= 16 {
                    return Err(wrong("a backing format has at most 15 bytes"));
                }
                self.backing_format = Some(String::from_utf8_lossy(data).into_owned());
            }
            EXT_DATA_FILE => {
                if data.len() > 1023 {
                    return Err(wrong("a data file name has at most 1023 bytes"));
                }
                self.data_file = Some(String::from_utf8_lossy(data).into_owned());
            }
            EXT_FEATURE_NAMES => {
                let rows = data.chunks_exact(FEATURE_NAME_SIZE).map(|row| FeatureName {
                    kind: row[0],
                    bit: row[1],
                    name: String::from_utf8_lossy(
                        row[2..].split(|&b| b == 0).next().unwrap_or(&[]),
                    )
                    .into_owned(),
                });
                self.feature_names = Some(rows.collect());
            }
            EXT_BITMAPS => {
                // Without its autoclear bit a program that does not know bitmaps wrote to the image.
                if self.autoclear_features & features::BITMAPS_CONSISTENT == 0 {
                    return Ok(());
                }
                if data.len() != 24 {
                    return Err(wrong("the bitmaps extension has 24 bytes"));
                }
                let (nb_bitmaps, reserved) = (data.get_u32(), data.get_u32());
                let (directory_size, directory_offset) = (data.get_u64(), data.get_u64());
                if reserved != 0 {
                    return Err(wrong("the reserved field is not zero"));
                }
                if nb_bitmaps == 0 || nb_bitmaps > 65535 {
                    return Err(wrong("the number of bitmaps is not 1 to 65535"));
                }
                if !self.cluster_bits.is_aligned(directory_offset) {
                    return Err(wrong("the bitmap directory is not aligned to a cluster"));
                }
                if directory_size > (64 << 20) - 1024 {
                    return Err(wrong("the bitmap directory exceeds 64 MiB"));
                }
                self.bitmaps = Some(BitmapsExtension {
                    nb_bitmaps,
                    directory_size,
                    directory_offset,
                });
            }
            EXT_CRYPTO => {
                if self.crypt_method != Encryption::Luks {
                    return Err(wrong("an encryption header without LUKS encryption"));
                }
                if data.len() != 16 {
                    return Err(wrong("the encryption header extension has 16 bytes"));
                }
                let (offset, length) = (data.get_u64(), data.get_u64());
                if !self.cluster_bits.is_aligned(offset) {
                    return Err(wrong("the encryption header is not aligned to a cluster"));
                }
                self.crypto_header = Some((offset, length));
            }
            _ => self.unknown_extensions.push((magic, data.to_vec())),
        }
        Ok(())
    }

    fn check_features(&self) -> Result<(), HeaderError> {
        let unknown = self.incompatible_features & !features::KNOWN_INCOMPATIBLE;
        if unknown != 0 {
            let names = self.feature_names.as_deref().unwrap_or_default();
            return Err(HeaderError::UnknownFeatures(features::name_bits(
                unknown, 0, names,
            )));
        }
        let flagged = self.incompatible_features & features::COMPRESSION_TYPE != 0;
        if self.compression_type > 1 {
            return Err(HeaderError::CompressionType(self.compression_type));
        }
        if flagged != (self.compression_type != 0) {
            return Err(field(
                "compression_type",
                u32::from(self.compression_type),
                "not 0 exactly when its incompatible bit is set",
            )
            .into());
        }
        if self.extended_l2() && self.cluster_bits.bits() < 14 {
            return Err(field(
                "cluster_bits",
                self.cluster_bits.bits(),
                "14 to 21 with extended L2",
            )
            .into());
        }
        Ok(())
    }

    fn check_tables(&self) -> Result<(), Corruption> {
        let table = |what, offset: u64, length: u64, limit: u64| {
            if length > limit {
                return Err(Corruption::TooLarge {
                    what,
                    value: length,
                    limit,
                });
            }
            let end = offset.checked_add(length).filter(|&end| end <= MAX_OFFSET);
            let why = if end.is_none() {
                "exceeds 63 bits"
            } else if !self.cluster_bits.is_aligned(offset) {
                "not aligned to a cluster"
            } else {
                return Ok(());
            };
            Err(Corruption::Region {
                what,
                offset,
                length,
                why,
            })
        };
        let refcount_table = u64::from(self.refcount_table_clusters) << self.cluster_bits.bits();
        if refcount_table == 0 {
            return Err(field("refcount_table_clusters", 0, "at least 1"));
        }
        table(
            "refcount table, bytes",
            self.refcount_table_offset,
            refcount_table,
            MAX_REFCOUNT_TABLE_BYTES,
        )?;
        if self.nb_snapshots > MAX_SNAPSHOTS {
            return Err(Corruption::TooLarge {
                what: "snapshots",
                value: self.nb_snapshots.into(),
                limit: MAX_SNAPSHOTS.into(),
            });
        }
        if self.nb_snapshots > 0 {
            table("snapshot table", self.snapshots_offset, 0, 0)?;
        }
        table(
            "L1 table, bytes",
            self.l1_table_offset,
            u64::from(self.l1_size) * 8,
            MAX_L1_BYTES,
        )?;
        if self.size > MAX_OFFSET {
            return Err(Corruption::HeaderField {
                field: "size",
                value: self.size,
                allowed: "below 2^63",
            });
        }
        let needed = self.geometry().l1_entries(self.size);
        if u64::from(self.l1_size) < needed {
            return Err(Corruption::HeaderField {
                field: "l1_size",
                value: self.l1_size.into(),
                allowed: "enough to map the virtual size",
            });
        }
        Ok(())
    }

    /// What is needed to understand L2 entries.
    pub fn geometry(&self) -> Geometry {
        Geometry {
            cluster_bits: self.cluster_bits,
            version: self.version,
            extended_l2: self.extended_l2(),
            external_data: self.has(features::EXTERNAL_DATA),
        }
    }

    /// Whether an incompatible feature bit is set.
    pub fn has(&self, incompatible: u64) -> bool {
        self.incompatible_features & incompatible != 0
    }

    fn extended_l2(&self) -> bool {
        self.has(features::EXTENDED_L2)
    }

    /// Virtual size as the guest sees it: whole 512-byte sectors, as in QEMU.
    pub fn virtual_size(&self) -> u64 {
        self.size & !511
    }

    /// The bytes of the header: at most one cluster.
    ///
    /// Extensions come in QEMU's order; a feature name table is written when `feature_names` holds one.
    ///
    /// # Errors
    /// [`Corruption::TooLarge`] when it does not fit into the first cluster.
    pub fn encode(&self) -> Result<Vec<u8>, Corruption> {
        let mut out = Vec::with_capacity(1024);
        out.put_u32(MAGIC);
        out.put_u32(self.version);
        // Backing name offset and size, known once the extensions stand.
        out.put_u64(0);
        out.put_u32(0);
        out.put_u32(self.cluster_bits.bits());
        out.put_u64(self.size);
        out.put_u32(match self.crypt_method {
            Encryption::None => 0,
            Encryption::Aes => 1,
            Encryption::Luks => 2,
        });
        out.put_u32(self.l1_size);
        out.put_u64(self.l1_table_offset);
        out.put_u64(self.refcount_table_offset);
        out.put_u32(self.refcount_table_clusters);
        out.put_u32(self.nb_snapshots);
        out.put_u64(self.snapshots_offset);
        if self.version >= 3 {
            out.put_u64(self.incompatible_features);
            out.put_u64(self.compatible_features);
            out.put_u64(self.autoclear_features);
            out.put_u32(self.refcount_order.order());
            out.put_u32(V3_LENGTH);
            out.put_u8(self.compression_type);
            out.put_bytes(0, 7);
        }
        if let Some(format) = &self.backing_format {
            put_extension(&mut out, EXT_BACKING_FORMAT, format.as_bytes());
        }
        if let Some(name) = &self.data_file {
            put_extension(&mut out, EXT_DATA_FILE, name.as_bytes());
        }
        if let Some((offset, length)) = self.crypto_header {
            let data = [offset.to_be_bytes(), length.to_be_bytes()].concat();
            put_extension(&mut out, EXT_CRYPTO, &data);
        }
        if let Some(names) = &self.feature_names {
            let mut data = Vec::new();
            for row in names {
                let name = row.name.as_bytes();
                let name = &name[..name.len().min(46)];
                data.extend_from_slice(&[row.kind, row.bit]);
                data.extend_from_slice(name);
                data.resize(data.len().next_multiple_of(FEATURE_NAME_SIZE), 0);
            }
            put_extension(&mut out, EXT_FEATURE_NAMES, &data);
        }
        if let Some(bitmaps) = &self.bitmaps {
            let mut data = Vec::new();
            data.put_u32(bitmaps.nb_bitmaps);
            data.put_u32(0);
            data.put_u64(bitmaps.directory_size);
            data.put_u64(bitmaps.directory_offset);
            put_extension(&mut out, EXT_BITMAPS, &data);
        }
        for (magic, data) in &self.unknown_extensions {
            put_extension(&mut out, *magic, data);
        }
        put_extension(&mut out, EXT_END, &[]);
        if let Some(name) = &self.backing_file {
            let offset = length_of(&out);
            let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
            if length > MAX_BACKING_NAME {
                return Err(Corruption::TooLarge {
                    what: "backing file name, bytes",
                    value: length.into(),
                    limit: MAX_BACKING_NAME.into(),
                });
            }
            out[8..16].copy_from_slice(&offset.to_be_bytes());
            out[16..20].copy_from_slice(&length.to_be_bytes());
            out.extend_from_slice(name.as_bytes());
        }
        let length = length_of(&out);
        if length > self.cluster_bits.size() {
            return Err(Corruption::TooLarge {
                what: "header with its extensions and backing file name, bytes",
                value: length,
                limit: self.cluster_bits.size(),
            });
        }
        Ok(out)
    }
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn put_extension(out: &mut Vec<u8>, magic: u32, data: &[u8]) {
    out.put_u32(magic);
    out.put_u32(u32::try_from(data.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(8), 0);
}

fn field(field: &'static str, value: u32, allowed: &'static str) -> Corruption {
    Corruption::HeaderField {
        field,
        value: value.into(),
        allowed,
    }
}

fn backing_name(
    bytes: &[u8],
    offset: u64,
    size: u32,
    cluster_bits: ClusterBits,
) -> Result<String, Corruption> {
    let limit = cluster_bits
        .size()
        .saturating_sub(offset)
        .min(MAX_BACKING_NAME.into());
    if u64::from(size) > limit {
        return Err(Corruption::TooLarge {
            what: "backing file name, bytes",
            value: size.into(),
            limit,
        });
    }
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let length = usize::try_from(size).unwrap_or(usize::MAX);
    let name = bytes
        .get(start..)
        .and_then(|rest| rest.get(..length))
        .ok_or(Corruption::Truncated {
            what: "backing file name",
        })?;
    // A name is bytes to the format; a C string to every program that made one.
    let name = name.split(|&b| b == 0).next().unwrap_or(&[]);
    Ok(String::from_utf8_lossy(name).into_owned())
}
