//! An EFI system partition for a disk that has none: from a BIOS image to one that starts either way.

use std::sync::atomic::AtomicBool;

use serde::Serialize;
use uuid::Uuid;

use super::assembly::Assembly;
use super::description::{FatContent, PartDescription};
use super::{FatReport, edit, fill, identity, layout};
use crate::error::{Error, Result};
use crate::fat::{self, Fill};
use crate::image::{EditOptions, InPlace};
use crate::partition::{NewPartition, Partition, PartitionKind};
use crate::resize::NewSize;
use crate::units::ByteSize;

/// What [`add_esp`] shall do.
#[derive(Debug, Clone)]
pub struct AddEspRequest {
    /// What is in it.
    pub content: FatContent,
    /// Its bytes; as many as its content needs when absent.
    pub size: Option<u64>,
    /// Its number, the first free one when absent.
    pub number: Option<u32>,
    /// Its name.
    pub name: String,
    /// The size to give the disk before.
    pub grow: Option<NewSize>,
    /// Where it begins and ends.
    pub alignment: u64,
    /// Worker threads.
    pub threads: usize,
}

/// What [`add_esp`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct AddedEsp {
    /// The disk's size before, in bytes.
    pub virtual_size_before: u64,
    /// Its size now.
    pub virtual_size: u64,
    /// The new partition.
    pub partition: Partition,
    /// What is in it.
    pub filesystem: FatReport,
}

/// Adds an EFI system partition to the disk of `image`.
///
/// The volume is written before the table tells of it, so that whatever ends this, the disk is what it was or has all of
/// it.
///
/// # Errors
/// The disk has one, has no sound GPT, or no room; files that cannot be read, or have no room; whatever
/// [`InPlace::resize`] and [`InPlace::write`] may fail with.
pub fn add_esp(
    mut image: InPlace,
    request: &AddEspRequest,
    cancel: &AtomicBool,
) -> Result<AddedEsp> {
    let path = image.image().path().to_owned();
    let before = image.image().virtual_size()?;
    let size = request.grow.map_or(Ok(before), |size| size.of(before))?;
    if size < before {
        return Err(Error::usage("would become smaller").at_path(&path));
    }
    let mut gpt = edit::read(&image)?;
    if let Some(esp) = gpt.partitions().iter().find(|part| part.kind.is_esp()) {
        return Err(Error::refused(
            format!("has an EFI system partition already, number {}", esp.number),
            "put the files into that one, from inside of the guest",
        )
        .at_path(&path));
    }
    gpt.resize(size).map_err(|error| error.at_path(&path))?;
    let tree = fill::tree_of(&request.content)?;
    let sector_size = gpt.sector_size();
    let length = match request.size {
        Some(size) => size - size % sector_size,
        None => layout::smallest_fat(&tree, &request.content, sector_size, request.alignment)?,
    };
    let gap = gpt.largest_gap(request.alignment);
    if gap.end - gap.start < length {
        return Err(Error::refused(
            format!(
                "has no room for {}: the largest gap between partitions has {}",
                ByteSize(length),
                ByteSize(gap.end - gap.start)
            ),
            "give it room with --grow, such as --grow +64M",
        )
        .at_path(&path));
    }
    let disk_uuid = Uuid::from_u128(gpt.disk());
    let number = request.number.unwrap_or_else(|| gpt.free_number());
    let id = identity::volume(disk_uuid, number);
    let id = request.content.volume_id.unwrap_or(id);
    let fixed = fat::Size::Fixed(length);
    let options = fill::options(&request.content, fixed, sector_size, gap.start, id);
    let volume = fat::plan(&tree, &options)?;
    gpt.add(&NewPartition {
        range: gap.start..gap.start + length,
        kind: PartDescription::parse_kind("esp")?,
        uuid: identity::partition(disk_uuid, number).as_u128(),
        number: Some(number),
        name: request.name.clone(),
        attributes: 0,
    })?;
    let partition = gpt
        .partitions()
        .into_iter()
        .find(|part| part.number == number && matches!(part.kind, PartitionKind::Gpt(_)))
        .ok_or_else(|| Error::usage("the new partition is not in the table"))?;
    image.refuse_writes()?;
    let edit_options = EditOptions {
        threads: request.threads,
        cancel,
    };
    // Checks the image even when it keeps its size.
    image.resize(size, &edit_options)?;
    write_volume(&mut image, size, gap.start, &volume)?;
    edit::write(&mut image, &gpt)?;
    Ok(AddedEsp {
        virtual_size_before: before,
        virtual_size: size,
        partition,
        filesystem: FatReport::new(number, &volume),
    })
}

fn write_volume(image: &mut InPlace, size: u64, start: u64, volume: &fat::Volume) -> Result<()> {
    let mut disk = Assembly::new(size);
    let mut ranges = Vec::new();
    for piece in volume.pieces() {
        let at = start + piece.start;
        ranges.push(at..at + piece.length);
        match &piece.fill {
            Fill::Zeros => {}
            Fill::Bytes(bytes) => disk.push_bytes(at, bytes.clone())?,
            Fill::File(file) => disk.push_file(at, piece.length, file.clone())?,
        }
    }
    disk.refuse_destination(image.image().path())?;
    image.write(&disk, &ranges)
}
