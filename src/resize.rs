//! Images whose disk becomes larger or smaller, in place.
//!
//! Knows what would be lost on the way, and asks for the user's word before.
//! How a format does it is the format's own.

use std::sync::atomic::AtomicBool;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::fs::probe::identify;
use crate::image::{Depth, EditOptions, Image, InPlace};
use crate::partition::{self, TableKind};
use crate::units::ByteSize;
use crate::volume::Volume;

/// The size that a disk shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewSize {
    /// So many bytes.
    To(u64),
    /// So many bytes more.
    More(u64),
    /// So many bytes less.
    Less(u64),
}

/// What [`resize`] shall do.
#[derive(Debug, Clone, Copy)]
pub struct ResizeRequest {
    /// The size.
    pub size: NewSize,
    /// Whether the disk may become smaller.
    pub shrink: bool,
    /// Worker threads.
    pub threads: usize,
}

/// What [`resize`] did. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Resized {
    /// The disk's size before.
    pub virtual_size_before: u64,
    /// Its size now.
    pub virtual_size: u64,
    /// What is left to be done, in one line each.
    pub notes: Vec<String>,
}

impl std::str::FromStr for NewSize {
    type Err = Error;

    /// `10G`, `+2G`, `-512M`.
    fn from_str(text: &str) -> Result<Self> {
        if let Some(more) = text.strip_prefix('+') {
            return ByteSize::parse(more).map(|size| Self::More(size.0));
        }
        match text.strip_prefix('-') {
            Some(less) => ByteSize::parse(less).map(|size| Self::Less(size.0)),
            None => ByteSize::parse(text).map(|size| Self::To(size.0)),
        }
    }
}

impl NewSize {
    /// What that is for a disk of `old` bytes.
    ///
    /// # Errors
    /// Nothing would be left, or more than 63 bits can say.
    pub fn of(self, old: u64) -> Result<u64> {
        let size = match self {
            Self::To(size) => Some(size),
            Self::More(more) => old.checked_add(more),
            Self::Less(less) => Some(old.saturating_sub(less)),
        };
        match size.filter(|&size| i64::try_from(size).is_ok()) {
            None => Err(Error::usage("the new size is too large")),
            Some(0) => Err(Error::usage("the new size must be positive")),
            Some(size) if !size.is_multiple_of(512) => Err(Error::usage(format!(
                "the new size, {size} bytes, is not a multiple of 512"
            ))
            .with_remedy(format!("{} is the next one", size.next_multiple_of(512)))),
            Some(size) => Ok(size),
        }
    }
}

/// Gives the disk of `image` another size.
///
/// # Errors
/// It would become smaller without the user's word, or a partition or filesystem would be cut; whatever
/// [`InPlace::resize`] may fail with.
pub fn resize(mut image: InPlace, request: &ResizeRequest, cancel: &AtomicBool) -> Result<Resized> {
    let before = image.image().virtual_size()?;
    let size = request.size.of(before)?;
    if size < before {
        refuse_loss(image.image(), before, size, request.shrink)
            .map_err(|error| error.at_path(image.image().path()))?;
    }
    let options = EditOptions {
        threads: request.threads,
        cancel,
    };
    image.resize(size, &options)?;
    Ok(Resized {
        virtual_size_before: before,
        virtual_size: size,
        notes: notes(image.image(), size)?,
    })
}

/// Fails when what is cut off is used, or the user did not say that it may be cut off.
pub(crate) fn refuse_loss(image: &Image, before: u64, size: u64, shrink: bool) -> Result<()> {
    if !shrink {
        return Err(Error::refused(
            format!(
                "would become smaller ({} instead of {}), and lose what lies behind that",
                ByteSize(size),
                ByteSize(before)
            ),
            "say --shrink if that is meant",
        ));
    }
    let chain = image.chain(Depth::Chain, None)?;
    let disk = Volume::whole(&chain);
    let table = partition::read(&disk)?;
    let cut = |what: String, end: u64| {
        Error::refused(
            format!("{what} ends at {end}, and would be cut at {size}"),
            "make it smaller first, from inside of the guest, or choose a larger size",
        )
    };
    let all = table.partitions.iter().chain(&table.extended);
    for partition in all {
        if partition.range.end > size {
            let what = format!("partition {}", partition.number);
            return Err(cut(what, partition.range.end));
        }
    }
    if let Some(damage) = table.damaged.filter(|_| table.kind != TableKind::None) {
        return Err(Error::refused(
            format!("its partition table is damaged ({damage}): what would be cut cannot be told"),
            "mend the table first, from inside of the guest",
        ));
    }
    if table.kind == TableKind::None {
        for found in identify(&disk)? {
            if let Some(end) = found.size.filter(|&end| end > size) {
                return Err(cut(format!("the {} on it", found.kind), end));
            }
        }
    }
    Ok(())
}

/// What the table on the disk does not know yet.
fn notes(image: &Image, size: u64) -> Result<Vec<String>> {
    let Ok(chain) = image.chain(Depth::Chain, None) else {
        // Its backing file may not be opened.
        return Ok(Vec::new());
    };
    let disk = Volume::whole(&chain);
    let table = partition::read(&disk)?;
    let mut notes = Vec::new();
    let is_gpt = matches!(table.kind, TableKind::Gpt | TableKind::Hybrid);
    let at_end = table.metadata.iter().any(|range| range.end == size);
    if is_gpt && !at_end {
        notes.push(
            "the second GPT is not at the end of the disk: `qimg disk grow` moves it there"
                .to_owned(),
        );
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_absolute_or_relative() {
        for (text, old, expected) in [
            ("2k", 512, Some(2048)),
            ("+1k", 512, Some(1536)),
            ("-512", 1024, Some(512)),
            ("-1k", 1024, None),
            ("+10", 512, None),
            ("0", 512, None),
            ("+7E", 7 << 60, None),
        ] {
            let size: NewSize = text.parse().unwrap();
            assert_eq!(size.of(old).ok(), expected, "{text}");
        }
        for bad in ["", "+", "++1", "x", "-"] {
            assert!(bad.parse::<NewSize>().is_err(), "{bad}");
        }
    }
}
