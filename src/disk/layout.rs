//! Where everything of a new disk goes.
//!
//! Partitions stand in the order of their description, each at a multiple of the alignment; sizes that nobody gave are
//! rounded up to it. What is left of a disk of a given size goes to the one partition that asks for the rest.

use std::path::Path;

use uuid::Uuid;

use super::assembly::Assembly;
use super::description::{Content, Description, PartDescription, PartSize};
use super::{FatReport, at_place, fill, identity};
use crate::error::{Error, Result};
use crate::fat::{self, Fill, Tree};
use crate::image::{Chain, Depth, Image, OpenOptions};
use crate::partition::{NewGpt, NewPartition, Partition, PartitionKind};
use crate::source::Source;
use crate::units::ByteSize;

/// Times that a FAT volume is made one step larger because its tables have grown, too.
const FAT_STEPS: u32 = 8;

/// A disk that can be read.
pub(super) struct Layout {
    pub(super) size: u64,
    pub(super) uuid: String,
    pub(super) partitions: Vec<Partition>,
    pub(super) filesystems: Vec<FatReport>,
    pub(super) disk: Assembly,
}

/// A partition on its way to the disk.
struct Part<'a> {
    description: &'a PartDescription,
    number: u32,
    content: Opened,
    start: u64,
    size: u64,
}

enum Opened {
    Empty,
    Fat(Tree),
    Image(Box<Chain>),
}

/// Lays out the disk that `description` means, to be written to `destination`: where something of the size `existing` is
/// there that it is written into, the disk fills it.
pub(super) fn lay_out(
    description: &Description,
    existing: Option<u64>,
    destination: &Path,
    open: &OpenOptions,
) -> Result<Layout> {
    let mut parts = open_parts(description, open)?;
    for part in &parts {
        // Before anything is said of room in it.
        if let Opened::Image(chain) = &part.content {
            chain.refuse_destination(destination)?;
        }
    }
    let alignment = description.alignment.max(description.sector_size);
    let size = place(&mut parts, description, existing, alignment)?;
    let uuid = identity::disk(&seed(description, &parts, size));
    let mut gpt = NewGpt::new(size, description.sector_size, uuid.as_u128())?;
    for part in &parts {
        enter(&mut gpt, part, uuid).map_err(|error| at_place(&part.description.place, &error))?;
    }
    // A rest of less than a sector is zeroed: what is there may end with a header in smaller sectors.
    let whole = existing.unwrap_or(size);
    let mut disk = Assembly::new(whole);
    for (at, bytes) in [gpt.mbr()].into_iter().chain(gpt.primary()) {
        disk.push_bytes(at, bytes)?;
    }
    let mut filesystems = Vec::new();
    for part in parts {
        let place = part.description.place.clone();
        put(
            &mut disk,
            part,
            description.sector_size,
            uuid,
            &mut filesystems,
        )
        .map_err(|error| at_place(&place, &error))?;
    }
    let (at, bytes) = gpt.backup();
    disk.push_bytes(at, bytes)?;
    Ok(Layout {
        size: whole,
        uuid: uuid.to_string(),
        partitions: gpt.partitions(),
        filesystems,
        disk,
    })
}

/// Opens what fills the partitions, and gives them their numbers.
fn open_parts<'a>(description: &'a Description, open: &OpenOptions) -> Result<Vec<Part<'a>>> {
    let mut parts: Vec<Part<'a>> = Vec::new();
    let taken: Vec<u32> = description
        .partitions
        .iter()
        .filter_map(|part| part.number)
        .collect();
    let mut free = (1..).filter(|number| !taken.contains(number));
    for description in &description.partitions {
        let content = open_content(&description.content, open)
            .map_err(|error| at_place(&description.place, &error))?;
        parts.push(Part {
            description,
            number: description.number.or_else(|| free.next()).unwrap_or(0),
            content,
            start: 0,
            size: 0,
        });
    }
    Ok(parts)
}

fn open_content(content: &Content, open: &OpenOptions) -> Result<Opened> {
    Ok(match content {
        Content::Empty => Opened::Empty,
        Content::Fat(content) => Opened::Fat(fill::tree_of(content)?),
        Content::Image(content) => {
            let options = OpenOptions {
                format: content.format.or(open.format),
                ..*open
            };
            let image = Image::open(&content.path, &options)?;
            Opened::Image(Box::new(image.chain(Depth::Chain, None)?))
        }
    })
}

/// Gives every partition its place; the size of the disk.
fn place(
    parts: &mut [Part<'_>],
    description: &Description,
    existing: Option<u64>,
    alignment: u64,
) -> Result<u64> {
    let sector_size = description.sector_size;
    let too_large = || Error::usage("the partitions are too large for any disk");
    let rests: Vec<usize> = (0..)
        .zip(parts.iter())
        .filter(|(_, part)| part.description.size == PartSize::Rest)
        .map(|(index, _)| index)
        .collect();
    if let [_, second, ..] = rests[..]
        && let Some(part) = parts.get(second)
    {
        let error = Error::usage("another partition has the rest of the disk already")
            .with_remedy("give one of them a size");
        return Err(at_place(&part.description.place, &error));
    }
    for part in parts.iter_mut() {
        part.size = part
            .needed(sector_size, alignment)
            .map_err(|error| at_place(&part.description.place, &error))?;
    }
    // The table of entries may reach past the first multiple of a small alignment.
    let table = 16_384 + 2 * sector_size;
    let first = table.next_multiple_of(alignment);
    let sum = parts.iter().try_fold(first, |at, part| {
        at.checked_next_multiple_of(alignment)?
            .checked_add(part.size)
    });
    let needed = sum
        .and_then(|end| end.checked_add(table - sector_size))
        .filter(|&size| i64::try_from(size).is_ok())
        .ok_or_else(too_large)?;
    let size = match existing.or(description.size) {
        None => needed
            .checked_next_multiple_of(alignment)
            .ok_or_else(too_large)?,
        Some(size) => size - size % sector_size,
    };
    if needed > size {
        return Err(Error::usage(format!(
            "the partitions need {} ({needed} bytes) of a disk of {} ({size} bytes)",
            ByteSize(needed),
            ByteSize(size)
        ))
        .with_remedy(if existing.is_some() {
            "write into something larger, or make a new disk"
        } else {
            "make the disk larger, or leave its size out"
        }));
    }
    if let Some(rest) = rests.first().and_then(|&index| parts.get_mut(index)) {
        // All that follows keeps its alignment.
        let spare = size - needed;
        rest.size += spare - spare % alignment;
    }
    let mut at = first;
    for part in parts.iter_mut() {
        part.start = at.next_multiple_of(alignment);
        at = part.start + part.size;
    }
    Ok(size)
}

/// What all else is derived from, when the description has no seed.
fn seed(description: &Description, parts: &[Part<'_>], size: u64) -> String {
    if let Some(seed) = &description.seed {
        return seed.clone();
    }
    let mut seed = format!("{size} {}", description.sector_size);
    for part in parts {
        let of = part.description;
        seed.push_str(&format!(
            "\n{} {:032x} {} {} {:?} {}",
            part.number, of.kind, part.start, part.size, of.name, of.attributes
        ));
    }
    seed
}

fn enter(gpt: &mut NewGpt, part: &Part<'_>, disk: Uuid) -> Result<()> {
    let of = part.description;
    let name = of.name.clone().unwrap_or_else(|| {
        let kind = PartitionKind::Gpt(of.kind);
        kind.known_name().unwrap_or_default().into_owned()
    });
    let uuid = of
        .uuid
        .unwrap_or_else(|| identity::partition(disk, part.number).as_u128());
    gpt.add(&NewPartition {
        range: part.start..part.start + part.size,
        kind: of.kind,
        uuid,
        number: Some(part.number),
        name,
        attributes: of.attributes,
    })?;
    Ok(())
}

/// Puts the content of a partition onto the disk.
fn put(
    disk: &mut Assembly,
    part: Part<'_>,
    sector_size: u64,
    uuid: Uuid,
    filesystems: &mut Vec<FatReport>,
) -> Result<()> {
    match (part.content, &part.description.content) {
        (Opened::Image(chain), _) => disk.push_image(part.start, *chain),
        (Opened::Fat(tree), Content::Fat(content)) => {
            let id = identity::volume(uuid, part.number);
            let id = content.volume_id.unwrap_or(id);
            let size = fat::Size::Fixed(part.size);
            let options = fill::options(content, size, sector_size, part.start, id);
            let volume = fat::plan(&tree, &options)?;
            for piece in volume.pieces() {
                let at = part.start + piece.start;
                match &piece.fill {
                    Fill::Zeros => {}
                    Fill::Bytes(bytes) => disk.push_bytes(at, bytes.clone())?,
                    Fill::File(file) => disk.push_file(at, piece.length, file.clone())?,
                }
            }
            filesystems.push(FatReport::new(part.number, &volume));
            Ok(())
        }
        _ => Ok(()),
    }
}

impl Part<'_> {
    /// Bytes that it takes at least.
    fn needed(&self, sector_size: u64, alignment: u64) -> Result<u64> {
        let content = match (&self.content, &self.description.content) {
            (Opened::Image(chain), _) => chain.virtual_size(),
            (Opened::Fat(tree), Content::Fat(content)) => {
                if let PartSize::Fixed(size) = self.description.size {
                    return self.fixed(size, 0, sector_size);
                }
                return smallest_fat(tree, content, sector_size, alignment);
            }
            _ => 0,
        };
        match self.description.size {
            PartSize::Fixed(size) => self.fixed(size, content, sector_size),
            // A partition is never empty.
            PartSize::Minimal | PartSize::Rest => content
                .max(1)
                .checked_next_multiple_of(alignment)
                .ok_or_else(|| Error::usage("it is too large for any disk")),
        }
    }

    fn fixed(&self, size: u64, content: u64, sector_size: u64) -> Result<u64> {
        if size == 0 || !size.is_multiple_of(sector_size) {
            return Err(Error::usage(format!(
                "a partition cannot have {size} bytes of a disk with sectors of {sector_size}"
            ))
            .with_remedy("choose a multiple of the sector size"));
        }
        if content > size {
            return Err(Error::usage(format!(
                "its image has {} ({content} bytes), more than its size of {}",
                ByteSize(content),
                ByteSize(size)
            ))
            .with_remedy("make the partition larger, or leave its size out"));
        }
        Ok(size)
    }
}

/// The smallest aligned size in which a volume has room.
pub(super) fn smallest_fat(
    tree: &Tree,
    content: &super::FatContent,
    sector_size: u64,
    alignment: u64,
) -> Result<u64> {
    let spare = content.spare;
    let minimal = fill::options(content, fat::Size::Minimal { spare }, sector_size, 0, 0);
    let mut size = fat::plan(tree, &minimal)?
        .size()
        .next_multiple_of(alignment);
    // In a larger volume clusters may be larger, too.
    for _ in 0..FAT_STEPS {
        let fixed = fill::options(content, fat::Size::Fixed(size), sector_size, 0, 0);
        match fat::plan(tree, &fixed) {
            Ok(_) => break,
            Err(_) => size = size.saturating_add(alignment),
        }
    }
    Ok(size)
}
