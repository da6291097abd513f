//! A disk with a GPT that becomes larger, table and all.

use std::sync::atomic::AtomicBool;

use serde::Serialize;

use super::edit;
use crate::error::{Error, Result};
use crate::image::{EditOptions, InPlace};
use crate::partition::Partition;
use crate::resize::NewSize;

/// What [`grow`] shall do.
#[derive(Debug, Clone, Copy)]
pub struct GrowRequest {
    /// The size; that of the disk as it is only mends the table.
    pub size: NewSize,
    /// Whether the last partition shall reach to the end. Its filesystem stays as large as it is.
    pub grow_last: bool,
    /// Where partitions end.
    pub alignment: u64,
    /// Worker threads.
    pub threads: usize,
}

/// What [`grow`] did. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Grown {
    /// The disk's size before.
    pub virtual_size_before: u64,
    /// Its size now.
    pub virtual_size: u64,
    /// The number of the partition that has grown.
    pub grown: Option<u32>,
    /// The partitions now.
    pub partitions: Vec<Partition>,
}

/// Gives the disk of `image` a larger size, and its GPT a new end.
///
/// Whatever ends this, one of both copies of the table is whole, and running it again finishes what was begun.
///
/// # Errors
/// A smaller size; no sound GPT; whatever [`InPlace::resize`] and [`InPlace::write`] may fail with.
pub fn grow(mut image: InPlace, request: &GrowRequest, cancel: &AtomicBool) -> Result<Grown> {
    let before = image.image().virtual_size()?;
    let size = request.size.of(before)?;
    if size < before {
        let error =
            Error::usage("would become smaller").with_remedy("`qimg resize --shrink` does that");
        return Err(error.at_path(image.image().path()));
    }
    // All that may be refused is refused before anything changes.
    let mut gpt = edit::read(&image)?;
    gpt.resize(size)
        .map_err(|error| error.at_path(image.image().path()))?;
    let grown = request
        .grow_last
        .then(|| gpt.extend_last(request.alignment))
        .flatten();
    let options = EditOptions {
        threads: request.threads,
        cancel,
    };
    image.refuse_writes()?;
    image.resize(size, &options)?;
    edit::write(&mut image, &gpt)?;
    Ok(Grown {
        virtual_size_before: before,
        virtual_size: size,
        grown: grown.map(|(number, _)| number),
        partitions: gpt.partitions(),
    })
}
