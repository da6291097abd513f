//! What a disk shall be made of, as plain data.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::fat;
use crate::image::Format;
use crate::partition::PartitionKind;
use crate::units::ByteSize;

/// A disk.
#[derive(Debug, Clone)]
pub struct Description {
    /// Its size in bytes; when absent what its partitions take, or all of what it is written into.
    pub size: Option<u64>,
    /// Bytes of a sector: 512 or 4096.
    pub sector_size: u64,
    /// Partitions begin, and end where nobody says otherwise, at multiples of so many bytes.
    pub alignment: u64,
    /// What GUIDs are derived from; when absent, from all that the table says.
    pub seed: Option<String>,
    /// Its partitions, in their order on the disk.
    pub partitions: Vec<PartDescription>,
}

impl Default for Description {
    fn default() -> Self {
        Self {
            size: None,
            sector_size: 512,
            alignment: 1 << 20,
            seed: None,
            partitions: Vec::new(),
        }
    }
}

/// A partition.
#[derive(Debug, Clone)]
pub struct PartDescription {
    /// How messages call it: where it was described.
    pub place: String,
    /// Its type GUID, as the number that its text spells.
    pub kind: u128,
    /// Its number in the table, the first free one when absent.
    pub number: Option<u32>,
    /// Its name, that of its type when absent.
    pub name: Option<String>,
    /// Its GUID, derived from the seed when absent.
    pub uuid: Option<u128>,
    /// Attribute bits.
    pub attributes: u64,
    /// How large it is.
    pub size: PartSize,
    /// What is in it.
    pub content: Content,
}

/// How large a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PartSize {
    /// As large as its content.
    #[default]
    Minimal,
    /// So many bytes.
    Fixed(u64),
    /// All that the others leave.
    Rest,
}

/// What is in a partition.
#[derive(Debug, Clone, Default)]
pub enum Content {
    /// Zeros.
    #[default]
    Empty,
    /// A new FAT volume.
    Fat(FatContent),
    /// What an image holds.
    Image(ImageContent),
}

/// A FAT volume to be made.
#[derive(Debug, Clone, Default)]
pub struct FatContent {
    /// Directories whose contents come to its root.
    pub directories: Vec<PathBuf>,
    /// Single files: their path in the volume, and where they are.
    pub files: Vec<(String, PathBuf)>,
    /// Its name.
    pub label: Option<String>,
    /// Width of its table's entries.
    pub kind: Option<fat::Kind>,
    /// Its number, derived from the seed when absent.
    pub volume_id: Option<u32>,
    /// Bytes that are to stay free at least, when it is sized to its content.
    pub spare: u64,
}

/// An image to be read.
#[derive(Debug, Clone)]
pub struct ImageContent {
    /// Where it is.
    pub path: PathBuf,
    /// Its format, found out when absent.
    pub format: Option<Format>,
}

/// Names of attribute bits: those of the UEFI specification, then of the Discoverable Partitions Specification.
const ATTRIBUTES: &[(&str, u32)] = &[
    ("required", 0),
    ("no-block-io", 1),
    ("legacy-boot", 2),
    ("grow", 59),
    ("read-only", 60),
    ("no-auto", 63),
];

impl PartDescription {
    /// An empty partition of a type, as small as there are.
    pub fn new(place: impl Into<String>, kind: u128) -> Self {
        Self {
            place: place.into(),
            kind,
            number: None,
            name: None,
            uuid: None,
            attributes: 0,
            size: PartSize::default(),
            content: Content::default(),
        }
    }

    /// The type GUID that `text` means.
    ///
    /// # Errors
    /// Nobody knows it.
    pub fn parse_kind(text: &str) -> Result<u128> {
        match PartitionKind::from_name(text) {
            Some(PartitionKind::Gpt(guid)) => Ok(guid),
            _ => Err(
                Error::usage(format!("'{text}' is no type of partition")).with_remedy(
                    "write esp, bios-boot, linux, swap, root-x86-64, another name that `sfdisk --list-types -X gpt` \
                     shows, or a GUID",
                ),
            ),
        }
    }

    /// The attribute bits that a name means.
    ///
    /// # Errors
    /// It means none.
    pub fn parse_attribute(text: &str) -> Result<u64> {
        let found = ATTRIBUTES.iter().find(|(name, _)| *name == text);
        found.map(|(_, bit)| 1 << bit).ok_or_else(|| {
            Error::usage(format!("'{text}' is no attribute of a partition")).with_remedy(
                "there are required, no-block-io, legacy-boot, grow, read-only and no-auto",
            )
        })
    }
}

impl PartSize {
    /// `minimal`, `rest` or a number of bytes.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "minimal" => Ok(Self::Minimal),
            "rest" => Ok(Self::Rest),
            _ => ByteSize::parse(text)
                .map(|size| Self::Fixed(size.0))
                .map_err(|error| {
                    let remedy = "write minimal, rest, or a number with k, M, G or T";
                    error.with_remedy(remedy)
                }),
        }
    }
}

impl FatContent {
    /// The number of a volume as blkid prints it: `ABCD-1234`.
    ///
    /// # Errors
    /// It is none.
    pub fn parse_volume_id(text: &str) -> Result<u32> {
        let digits = text.replace('-', "");
        u32::from_str_radix(&digits, 16)
            .ok()
            .filter(|_| digits.len() == 8)
            .ok_or_else(|| {
                Error::usage(format!("'{text}' is no number of a volume"))
                    .with_remedy("write eight hexadecimal digits, such as ABCD-1234")
            })
    }

    /// The kind of FAT that `text` names.
    ///
    /// # Errors
    /// None.
    pub fn parse_kind(text: &str) -> Result<fat::Kind> {
        match text.to_ascii_lowercase().as_str() {
            "fat12" => Ok(fat::Kind::Fat12),
            "fat16" => Ok(fat::Kind::Fat16),
            "fat32" => Ok(fat::Kind::Fat32),
            _ => Err(Error::usage(format!("'{text}' is no FAT"))
                .with_remedy("there are fat12, fat16 and fat32")),
        }
    }
}
