//! Disks made of parts: a GPT, EFI system partitions filled with files, partitions filled from images.
//!
//! A [`Description`] says what is wanted; [`create`] lays it out, and has the data path carry the parts into a raw or qcow2
//! image as it would carry a disk that was there: holes stay holes, on all cores, compressed if that is asked for.
//! [`grow`] and [`add_esp`] change disks that are there.
//!
//! Everything in a new disk depends on what is in the description and the files that it names: GUIDs come from a seed,
//! dates are fixed. The same parts give the same bytes.
//!
//! Knows partition tables, FAT and images by their own modules; must not know how images store what they are given.

mod add_esp;
mod assembly;
mod description;
mod edit;
mod fill;
mod grow;
mod identity;
mod layout;
mod text;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

pub use add_esp::{AddEspRequest, AddedEsp, add_esp};
pub use assembly::Assembly;
pub use description::{Content, Description, FatContent, ImageContent, PartDescription, PartSize};
pub use grow::{GrowRequest, Grown, grow};

use crate::codec::EncoderOptions;
use crate::convert::{self, Options, Reuse};
use crate::error::{Error, Result};
use crate::fat;
use crate::image::{OpenOptions, Target, TargetOptions};
use crate::partition::Partition;
use crate::rewrite::OnProgress;

/// What [`create`] shall do.
#[derive(Debug, Clone)]
pub struct CreateRequest<'a> {
    /// What the disk is made of.
    pub description: &'a Description,
    /// Where to.
    pub destination: &'a Path,
    /// What to write there.
    pub target: TargetOptions,
    /// The encoding of compressed clusters; none are written without.
    pub encoding: Option<EncoderOptions>,
    /// How images that fill partitions are opened.
    pub open: OpenOptions,
    /// Aligned runs of so many zero bytes become holes; 0 writes everything out.
    pub sparse: usize,
    /// Worker threads.
    pub threads: usize,
}

/// A disk that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Created {
    /// Its size in bytes.
    pub virtual_size: u64,
    /// Bytes of a sector.
    pub sector_size: u64,
    /// Its GUID.
    pub uuid: String,
    /// Its partitions.
    pub partitions: Vec<Partition>,
    /// The FAT volumes on it.
    pub filesystems: Vec<FatReport>,
    /// Bytes that the image holds on the host.
    pub disk_size: u64,
    /// Length of its file.
    pub file_length: u64,
}

/// A FAT volume that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FatReport {
    /// The partition that it fills.
    pub partition: u32,
    /// FAT12, FAT16 or FAT32.
    pub kind: String,
    /// Its number, as blkid prints it.
    pub uuid: String,
    /// Bytes of its clusters.
    pub capacity: u64,
    /// Bytes of those in use.
    pub used: u64,
}

impl FatReport {
    fn new(partition: u32, volume: &fat::Volume) -> Self {
        let (clusters, used) = volume.clusters();
        let id = volume.volume_id();
        Self {
            partition,
            kind: volume.kind().to_string(),
            uuid: format!("{:04X}-{:04X}", id >> 16, id & 0xffff),
            capacity: clusters * volume.cluster_size(),
            used: used * volume.cluster_size(),
        }
    }
}

/// Makes a disk. One that is written into something that is there is as large as that.
///
/// # Errors
/// A description that cannot be carried out; a file that cannot be read; whatever writing may fail with: the destination
/// is then what it was.
pub fn create(
    request: &CreateRequest<'_>,
    cancel: &AtomicBool,
    progress: &mut OnProgress<'_>,
) -> Result<Created> {
    let existing = Target::existing_size(request.destination, &request.target)?;
    if let Some(existing) = existing {
        refuse_other_size(request.description, existing)
            .map_err(|error| error.at_path(request.destination))?;
    }
    let layout = layout::lay_out(
        request.description,
        existing,
        request.destination,
        &request.open,
    )?;
    let disk = &layout.disk;
    disk.refuse_destination(request.destination)?;
    let size = layout.size;
    let compresses = request.encoding.is_some();
    let mut target = Target::create(request.destination, size, &request.target, compresses)?;
    let options = Options {
        threads: request.threads,
        encoding: request.encoding,
        reuse: Reuse::Copy,
        overlay: false,
        sparse: request.sparse,
        share: request.encoding.is_none() && disk.all_shared_with(&target)?,
        cancel,
    };
    let total = convert::stored_bytes(disk, cancel)?;
    convert::convert(disk, target.writer(), &options, &mut |step| {
        progress(step, total);
    })?;
    if cancel.load(Ordering::Relaxed) {
        return Err(Error::cancelled());
    }
    let (written, disk_size) = target.finish()?;
    Ok(Created {
        virtual_size: size,
        sector_size: request.description.sector_size,
        uuid: layout.uuid,
        partitions: layout.partitions,
        filesystems: layout.filesystems,
        disk_size,
        file_length: written.file_length,
    })
}

/// Fails when a disk of the size in `description` would not end where what it is written into does.
///
/// A disk that ends before has the second copy of its table where nobody looks for it, and leaves that of the disk which
/// was there where everybody does.
fn refuse_other_size(description: &Description, existing: u64) -> Result<()> {
    let Some(size) = description.size else {
        return Ok(());
    };
    let sectors = |bytes: u64| bytes.checked_div(description.sector_size);
    if sectors(size) == sectors(existing) {
        return Ok(());
    }
    let how = if size > existing { "smaller" } else { "larger" };
    Err(Error::usage(format!(
        "is {how} ({existing} bytes) than the disk to be written into it ({size} bytes), whose partition table has to end \
         where it ends"
    ))
    .with_remedy(format!(
        "say --size {existing}, or leave the size out: the disk is then as large as what is there"
    )))
}

/// An error of one part of a description: `place` says which.
fn at_place(place: &str, error: &Error) -> Error {
    let mut message = format!("{place}: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        message.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    let placed = Error::new(error.kind(), message);
    match error.remedy() {
        Some(remedy) => placed.with_remedy(remedy.to_owned()),
        None => placed,
    }
}
