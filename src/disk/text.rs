//! Descriptions as text: TOML.
//!
//! Knows keys, and on which line each stands; a fault is one line that names both.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::at_place;
use super::description::{
    Content, Description, FatContent, ImageContent, PartDescription, PartSize,
};
use crate::error::{Error, Result};
use crate::store::{HostFile, Locking, ReadAt};
use crate::units::ByteSize;

/// Bytes of a description at most.
const LONGEST: u64 = 1 << 20;
const ALIGNMENTS: Range<u64> = 512..(1 << 30) + 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct DiskText {
    size: Option<Spanned<Number>>,
    sector_size: Option<Spanned<u64>>,
    alignment: Option<Spanned<Number>>,
    seed: Option<String>,
    #[serde(default, rename = "partition")]
    partitions: Vec<Spanned<PartText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct PartText {
    #[serde(rename = "type")]
    kind: Spanned<String>,
    number: Option<u32>,
    name: Option<String>,
    uuid: Option<Spanned<String>>,
    attributes: Option<Spanned<Attributes>>,
    size: Option<Spanned<Number>>,
    image: Option<Spanned<String>>,
    format: Option<Spanned<String>>,
    files: Option<Spanned<Paths>>,
    copy: Option<BTreeMap<String, String>>,
    label: Option<Spanned<String>>,
    fat: Option<Spanned<String>>,
    spare: Option<Spanned<Number>>,
}

/// A size as a number of bytes, or as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Bytes(u64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Attributes {
    Bits(u64),
    Names(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Paths {
    One(String),
    Many(Vec<String>),
}

impl Number {
    fn text(&self) -> String {
        match self {
            Self::Bytes(bytes) => bytes.to_string(),
            Self::Text(text) => text.clone(),
        }
    }

    fn bytes(&self) -> Result<u64> {
        ByteSize::parse(&self.text()).map(|size| size.0)
    }
}

/// The text, and where it stands.
struct Lines<'a> {
    text: &'a str,
}

impl Lines<'_> {
    fn number(&self, at: usize) -> usize {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        before.iter().filter(|&&byte| byte == b'\n').count() + 1
    }

    /// Has an error say the line and key of what `span` covers.
    fn locate(&self, span: &Range<usize>, key: &str, error: &Error) -> Error {
        at_place(&format!("line {}: {key}", self.number(span.start)), error)
    }

    /// Reads what a key holds.
    fn read<T, U>(
        &self,
        key: &str,
        value: Option<&Spanned<T>>,
        read: impl FnOnce(&T) -> Result<U>,
    ) -> Result<Option<U>> {
        let Some(value) = value else { return Ok(None) };
        read(value.get_ref())
            .map(Some)
            .map_err(|error| self.locate(&value.span(), key, &error))
    }
}

impl Description {
    /// Reads the file at `path`. Relative paths in it start at its directory.
    ///
    /// # Errors
    /// It cannot be read, or is no description.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = HostFile::open_read(path, Locking::Ignore)?;
        let length = file.len()?;
        if length > LONGEST {
            return Err(Error::usage("is too long for a description of a disk").at_path(path));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let text = String::from_utf8(bytes)
            .map_err(|_| Error::usage("is no text in UTF-8").at_path(path))?;
        Self::parse(&text, directory).map_err(|error| error.at_path(path))
    }

    /// Reads a description. Relative paths in it start at `directory`.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage): one line with the line, the key, and what can be done.
    pub fn parse(text: &str, directory: &Path) -> Result<Self> {
        let lines = Lines { text };
        let disk: DiskText = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let message = error.message().trim().replace('\n', ": ");
            Error::usage(format!("line {}: {message}", lines.number(at)))
                .with_remedy("`qimg disk create --help` shows a description")
        })?;
        let default = Self::default();
        let sector_size = lines.read(
            "sector-size",
            disk.sector_size.as_ref(),
            |&size| match size {
                512 | 4096 => Ok(size),
                _ => Err(
                    Error::usage(format!("disks have no sectors of {size} bytes"))
                        .with_remedy("write 512 or 4096"),
                ),
            },
        )?;
        let sector_size = sector_size.unwrap_or(default.sector_size);
        let alignment = lines.read("alignment", disk.alignment.as_ref(), |number| {
            let bytes = number.bytes()?;
            if !bytes.is_power_of_two() || !ALIGNMENTS.contains(&bytes) || bytes < sector_size {
                return Err(Error::usage(format!("{} is no alignment", number.text()))
                    .with_remedy(
                        "write a power of two from the size of a sector to 1G, such as 1M",
                    ));
            }
            Ok(bytes)
        })?;
        let size = lines.read("size", disk.size.as_ref(), |number| {
            match number.text().as_str() {
                "minimal" => Ok(None),
                _ => number.bytes().map(Some),
            }
        })?;
        let partitions = disk
            .partitions
            .into_iter()
            .map(|part| {
                let line = lines.number(part.span().start);
                part_of(part.into_inner(), line, directory, &lines)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            size: size.flatten(),
            sector_size,
            alignment: alignment.unwrap_or(default.alignment),
            seed: disk.seed,
            partitions,
        })
    }
}

fn part_of(
    text: PartText,
    line: usize,
    directory: &Path,
    lines: &Lines<'_>,
) -> Result<PartDescription> {
    let place = format!("line {line}: partition");
    let kind = lines.read("type", Some(&text.kind), |kind| {
        PartDescription::parse_kind(kind)
    })?;
    let mut part = PartDescription::new(place, kind.unwrap_or(0));
    part.number = text.number;
    part.name = text.name;
    part.uuid = lines.read("uuid", text.uuid.as_ref(), |uuid| {
        uuid::Uuid::parse_str(uuid)
            .map(|uuid| uuid.as_u128())
            .map_err(|_| Error::usage(format!("'{uuid}' is no GUID")))
    })?;
    let attributes =
        lines.read(
            "attributes",
            text.attributes.as_ref(),
            |attributes| match attributes {
                Attributes::Bits(bits) => Ok(*bits),
                Attributes::Names(names) => names.iter().try_fold(0, |bits, name| {
                    Ok(bits | PartDescription::parse_attribute(name)?)
                }),
            },
        )?;
    part.attributes = attributes.unwrap_or(0);
    let size = lines.read("size", text.size.as_ref(), |size| {
        PartSize::parse(&size.text())
    })?;
    part.size = size.unwrap_or_default();
    let exists = |name: &String| -> Result<std::path::PathBuf> {
        let path = directory.join(name);
        if path.exists() {
            return Ok(path);
        }
        Err(Error::usage(format!("there is no '{}'", path.display()))
            .with_remedy("relative paths start at the directory of the description"))
    };
    let image = lines.read("image", text.image.as_ref(), exists)?;
    let format = lines.read("format", text.format.as_ref(), |format| format.parse())?;
    let directories = lines.read("files", text.files.as_ref(), |paths| match paths {
        Paths::One(path) => exists(path).map(|path| vec![path]),
        Paths::Many(paths) => paths.iter().map(exists).collect(),
    })?;
    let fat_kind = lines.read("fat", text.fat.as_ref(), |kind| {
        FatContent::parse_kind(kind)
    })?;
    let spare = lines.read("spare", text.spare.as_ref(), Number::bytes)?;
    let is_esp = crate::partition::PartitionKind::Gpt(part.kind).is_esp();
    let is_fat = directories.is_some()
        || text.copy.is_some()
        || fat_kind.is_some()
        || text.label.is_some()
        || spare.is_some();
    let at_line = |error: &Error| at_place(&part.place, error);
    part.content = match image {
        Some(_) if is_fat => {
            return Err(at_line(
                &Error::usage("it is filled from an image and with files")
                    .with_remedy("leave out image, or files, copy, label, fat and spare"),
            ));
        }
        Some(path) => Content::Image(ImageContent { path, format }),
        None if format.is_some() => {
            return Err(at_line(&Error::usage("there is a format, but no image")));
        }
        None if is_fat || is_esp => {
            let files = text.copy.into_iter().flatten();
            let files = files
                .map(|(target, source)| {
                    let path = exists(&source).map_err(|error| {
                        at_place(&format!("{}: copy: {target}", part.place), &error)
                    })?;
                    Ok((target, path))
                })
                .collect::<Result<_>>()?;
            Content::Fat(FatContent {
                directories: directories.unwrap_or_default(),
                files,
                label: text
                    .label
                    .map(Spanned::into_inner)
                    .or_else(|| is_esp.then(|| "ESP".to_owned())),
                kind: fat_kind,
                spare: spare.unwrap_or(0),
            })
        }
        None => Content::Empty,
    };
    Ok(part)
}
