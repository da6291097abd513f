//! Seeds: the volume from which cloud-init configures a guest at its first boot (data source NoCloud).
//!
//! Knows what is in a seed, checks it, and gives the bytes of its volume, which depend on the request alone. Must not
//! read a file of the host: the caller brings all inputs.
//!
//! ```
//! use qimg::seed::{MetaData, Part, SeedRequest, check, build};
//!
//! let request = SeedRequest {
//!     user_data: vec![Part { name: "user-data".into(), bytes: b"#cloud-config\nruncmd: [ls]\n".to_vec() }],
//!     ..SeedRequest::default()
//! };
//! assert!(check::check(&request).is_empty());
//! let seed = build(&request)?;
//! assert!(seed.instance_id.unwrap().starts_with("qimg-"));
//! assert_eq!(&seed.bytes[0x8001..0x8006], b"CD001");
//! # Ok::<(), qimg::Error>(())
//! ```

pub(crate) mod base64;
pub mod check;
pub mod compose;
mod default_user;
mod emit;
mod header;
mod multipart;
mod nocloud;
pub mod output;
pub mod read;
pub mod serve;
mod tar;
pub(crate) mod yaml;

use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::fat;
use crate::iso9660;
pub use crate::iso9660::File;
#[cfg(feature = "build")]
pub(crate) use check::nearest;
pub use default_user::default_user;
pub use header::Header;
#[cfg(feature = "build")]
pub(crate) use multipart::join as join_parts;

/// The label that cloud-init looks for.
pub const LABEL: &str = "cidata";

/// A part of user-data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What findings call it; also its name among several parts.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// Where meta-data comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaData {
    /// As it is.
    Given(Vec<u8>),
    /// Of these fields.
    Made {
        /// A digest of the whole seed when absent.
        instance_id: Option<String>,
        /// `local-hostname`.
        hostname: Option<String>,
        /// When the seed is applied.
        dsmode: Option<Dsmode>,
    },
}

impl Default for MetaData {
    fn default() -> Self {
        Self::Made {
            instance_id: None,
            hostname: None,
            dsmode: None,
        }
    }
}

/// Before the network is up, or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dsmode {
    /// Before: what NoCloud does by itself.
    Local,
    /// After.
    Net,
    /// It is another data source's turn.
    Pass,
}

impl Dsmode {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Net => "net",
            Self::Pass => "pass",
        }
    }
}

impl fmt::Display for Dsmode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Dsmode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::Local, Self::Net, Self::Pass];
        let found = all.into_iter().find(|mode| mode.word() == text);
        found.ok_or_else(|| {
            Error::usage(format!("'{text}' is no dsmode")).with_remedy("local, net or pass")
        })
    }
}

/// What the files of a seed lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// An ISO9660 volume with Rock Ridge and Joliet.
    #[default]
    Iso,
    /// A FAT volume.
    Vfat,
    /// A tar archive of the files alone.
    Tar,
    /// A tar archive for a guest's root: the seed directory of NoCloud.
    TarLocal,
    /// A tar archive for a guest's root: the seed directory of NoCloud with a network.
    TarNet,
}

impl Layout {
    /// Whether it is a volume, which an image can hold, rather than an archive.
    pub fn is_volume(self) -> bool {
        matches!(self, Self::Iso | Self::Vfat)
    }
}

/// What is to be in a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedRequest {
    /// One part as it is, several as MIME multipart; none is empty user-data.
    pub user_data: Vec<Part>,
    /// meta-data.
    pub meta_data: MetaData,
    /// network-config.
    pub network_config: Option<Vec<u8>>,
    /// vendor-data.
    pub vendor_data: Option<Vec<u8>>,
    /// More files.
    pub files: Vec<File>,
    /// Compress user-data.
    pub gzip: bool,
    /// What the files lie in.
    pub layout: Layout,
    /// The volume's label.
    pub label: String,
    /// All timestamps: seconds since 1970 in UTC.
    pub time: i64,
}

impl Default for SeedRequest {
    fn default() -> Self {
        Self {
            user_data: Vec::new(),
            meta_data: MetaData::default(),
            network_config: None,
            vendor_data: None,
            files: Vec::new(),
            gzip: false,
            layout: Layout::default(),
            label: LABEL.to_owned(),
            time: 0,
        }
    }
}

/// A seed that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// The one in its meta-data, where that has one.
    pub instance_id: Option<String>,
    /// What is in it.
    pub files: Vec<File>,
    /// The volume, or the archive.
    pub bytes: Vec<u8>,
}

/// The files of a seed, and its instance-id.
///
/// # Errors
/// Parts whose kind is not known, among several; a file twice.
pub fn files(request: &SeedRequest) -> Result<(Vec<File>, Option<String>)> {
    nocloud::files(request)
}

/// Builds a seed. Judges nothing: [`check::check`] does.
///
/// # Errors
/// As [`files`]; a label or name that the layout does not hold.
pub fn build(request: &SeedRequest) -> Result<Seed> {
    let (files, instance_id) = files(request)?;
    let bytes = match request.layout {
        Layout::Iso => iso9660::write(&iso9660::Volume {
            label: &request.label,
            files: &files,
            time: request.time,
        })?,
        Layout::Vfat => fat_volume(request, &files)?,
        Layout::Tar => tar::write("", &files, request.time)?,
        Layout::TarLocal => tar::write("var/lib/cloud/seed/nocloud/", &files, request.time)?,
        Layout::TarNet => tar::write("var/lib/cloud/seed/nocloud-net/", &files, request.time)?,
    };
    Ok(Seed {
        instance_id,
        files,
        bytes,
    })
}

/// As large as its files need, in steps of 64 KiB.
fn fat_volume(request: &SeedRequest, files: &[File]) -> Result<Vec<u8>> {
    let mut tree = fat::Tree::new();
    for file in files {
        if file.name.contains(['/', '\\']) {
            return Err(Error::usage(format!(
                "'{}': not a name for a file in a seed",
                file.name
            )));
        }
        tree.add_bytes(&file.name, file.bytes.clone())?;
    }
    let options = fat::Options {
        label: Some(request.label.clone()),
        written: fat::Timestamp::from_unix(u64::try_from(request.time).unwrap_or(0)),
        ..fat::Options::default()
    };
    let mut bytes = Vec::new();
    let written = fat::plan(&tree, &options)?.write_in_order(&mut bytes);
    written.map(|()| bytes)
}

/// `bytes` by gzip, without a name or a time.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::best());
    // Nothing fails that is written to memory.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

/// What gzip made `bytes` of, unless it is damaged or longer than `most`.
fn gunzip(bytes: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut inner = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let mut decoder = flate2::read::MultiGzDecoder::new(bytes).take(limit);
    decoder.read_to_end(&mut inner).ok()?;
    (inner.len() <= most).then_some(inner)
}

/// A byte as two hexadecimal digits.
struct Encoded(u8);

impl fmt::Display for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.0)
    }
}

/// What is told of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileFacts {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub size: u64,
}
