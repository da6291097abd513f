//! How large a new image will be: `qemu-img measure`, number for number.
//!
//! Pure arithmetic for a disk of a given size; of a source only the metadata
//! is read. Writes nothing.

use serde::Serialize;

use super::map::map;
use super::options::{Preallocation, Qcow2Options};
use super::qcow2::format::entry::Geometry;
use super::qcow2::format::header::MAX_L1_BYTES;
use super::qcow2::format::layout::full_metadata_bytes;
use super::{Chain, Format, Image};
use crate::error::{Error, Result};
use crate::source::Source;

/// What is to be measured.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// An empty disk of so many bytes.
    Size(u64),
    /// The contents of an image.
    Contents {
        /// The image, for its bitmaps.
        image: &'a Image,
        /// The view of it that would be converted.
        chain: &'a Chain,
    },
}

/// How many bytes a new image takes. Serialises to the object of `qemu-img measure --output=json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Measurement {
    /// Bytes of the new file, with the tables of a fully allocated image: an upper bound.
    pub required: u64,
    /// Bytes of the file once the guest has written everywhere.
    pub fully_allocated: u64,
    /// Bytes for persistent bitmaps beyond that; absent when source or target cannot have any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitmaps: Option<u64>,
}

/// How many bytes an image of `format` with `options` takes to hold `subject`.
///
/// An external data file and compression do not count, as in qemu-img.
///
/// # Errors
/// Options that contradict each other; a size that the format cannot express; metadata of the source that cannot be
/// read; a backing file of the source that would have to be opened.
pub fn measure(
    subject: Subject<'_>,
    format: Format,
    options: &Qcow2Options,
) -> Result<Measurement> {
    let size = match subject {
        Subject::Size(size) => size
            .checked_next_multiple_of(512)
            .filter(|&size| i64::try_from(size).is_ok())
            .ok_or_else(|| Error::usage("the disk would have 2^63 bytes or more"))?,
        Subject::Contents { chain, .. } => chain.virtual_size(),
    };
    match format {
        Format::Raw => Ok(Measurement {
            required: size,
            fully_allocated: size,
            bitmaps: None,
        }),
        Format::Qcow2 => measure_qcow2(subject, size, options),
    }
}

fn measure_qcow2(subject: Subject<'_>, size: u64, options: &Qcow2Options) -> Result<Measurement> {
    let cluster_bits = options.cluster_bits()?;
    let geometry = Geometry {
        cluster_bits,
        version: options.version,
        extended_l2: options.extended_l2,
        external_data: options.data_file.is_some(),
    };
    let too_large = || {
        Error::usage("the disk is too large for clusters of this size")
            .with_remedy("choose a larger cluster_size")
    };
    let allocated = size
        .checked_next_multiple_of(cluster_bits.size())
        .ok_or_else(too_large)?;
    if geometry.l1_entries(allocated) > MAX_L1_BYTES / 8 {
        return Err(too_large());
    }
    let metadata = full_metadata_bytes(allocated, geometry, options.refcount_order());
    let all_written = matches!(
        options.preallocation,
        Preallocation::Falloc | Preallocation::Full
    );
    let written = match subject {
        _ if all_written => allocated,
        Subject::Size(_) => 0,
        // How much the source shares with the new backing file is not known: nothing, in the worst case.
        Subject::Contents { .. } if options.backing.is_some() => allocated,
        Subject::Contents { chain, .. } => written_bytes(chain, cluster_bits.size())?,
    };
    let bitmaps = match subject {
        Subject::Contents { image, chain } if options.version >= 3 => {
            bitmap_bytes(image, chain.virtual_size(), cluster_bits.size())?
        }
        _ => None,
    };
    let fully_allocated = metadata.checked_add(allocated).ok_or_else(too_large)?;
    Ok(Measurement {
        required: metadata.checked_add(written).ok_or_else(too_large)?,
        fully_allocated,
        bitmaps,
    })
}

/// Bytes of the clusters of `cluster_size` bytes that data of `chain` falls into.
fn written_bytes(chain: &Chain, cluster_size: u64) -> Result<u64> {
    let mut clusters = 0;
    // First cluster that is not counted yet.
    let mut next = 0;
    map(chain, 0..chain.virtual_size(), &mut |entry| {
        if !entry.present && !entry.zero && entry.length > 0 {
            chain.refuse_unopened(entry.start)?;
        }
        if entry.data && !entry.zero {
            let first = next.max(entry.start / cluster_size);
            let end = (entry.start + entry.length).div_ceil(cluster_size);
            clusters += end.saturating_sub(first);
            next = next.max(end);
        }
        Ok(())
    })?;
    Ok(clusters * cluster_size)
}

/// Bytes that the bitmaps of `image` take in clusters of `cluster_size` bytes, with all their bits stored.
fn bitmap_bytes(image: &Image, size: u64, cluster_size: u64) -> Result<Option<u64>> {
    let Some(file) = image.qcow2().filter(|file| file.header.version >= 3) else {
        return Ok(None);
    };
    let (mut total, mut directory) = (0u64, 0u64);
    for entry in file.bitmap_directory()? {
        let bytes = size.div_ceil(entry.granularity()).div_ceil(8);
        let clusters = bytes.div_ceil(cluster_size);
        let table = (clusters * 8).next_multiple_of(cluster_size);
        total = total.saturating_add(clusters * cluster_size + table);
        directory += (24 + entry.name.len() as u64).next_multiple_of(8);
    }
    Ok(Some(
        total.saturating_add(directory.next_multiple_of(cluster_size)),
    ))
}
