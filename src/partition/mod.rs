//! Partition tables: MBR with logical partitions, GPT, and both at once.
//!
//! Says what ranges of a disk are partitions and what they are for, and whether that can be relied upon: a table that
//! contradicts itself is read as far as it goes, and says so. Must not know what partitions hold.

mod boot;
mod gpt;
mod guids;
mod kind;
mod mbr;
mod new_gpt;
mod type_bytes;

#[cfg(test)]
pub(crate) mod tests;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::{Serialize, Serializer};

pub use boot::{BootCode, boot_code};
pub use kind::PartitionKind;
pub use new_gpt::{NewGpt, NewPartition, Placed};

use crate::error::Result;
use crate::volume::Volume;

use boot::{first_sector, is_signed};
use mbr::Mbr;

/// Most notes that a table gives; of a table of thousands of odd entries the first tell enough.
const MOST_NOTES: usize = 16;

/// A disk's partition table.
#[derive(Debug, Clone)]
pub struct Table {
    /// What kind of table.
    pub kind: TableKind,
    /// Bytes of a sector in its numbers.
    pub sector_size: u64,
    /// The disk's GUID, or an MBR's number, as blkid prints them.
    pub uuid: Option<String>,
    /// What is odd, or was wrong and could be helped.
    pub notes: Vec<String>,
    /// Why it cannot be relied upon: nothing in its partitions may be taken for free.
    pub damaged: Option<Cow<'static, str>>,
    /// What of the disk belongs to the table, sorted: never free, whatever a partition says.
    pub metadata: Vec<Range<u64>>,
    /// In the order of the disk's numbers; extended ones are not among them, nor any that reaches past the end of the
    /// disk.
    pub partitions: Vec<Partition>,
    /// Partitions that hold the logical ones.
    pub extended: Vec<Partition>,
}

/// What kind of partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableKind {
    /// None at all, or none that lists a partition.
    None,
    /// An MBR.
    Mbr,
    /// A GPT.
    Gpt,
    /// A GPT, and an MBR that lists partitions as well.
    Hybrid,
}

impl fmt::Display for TableKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no partition table",
            Self::Mbr => "MBR",
            Self::Gpt => "GPT",
            Self::Hybrid => "GPT with a hybrid MBR",
        })
    }
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// As Linux has it: logical ones from 5 on.
    pub number: u32,
    /// Bytes of the disk.
    pub range: Range<u64>,
    /// What it is for.
    pub kind: PartitionKind,
    /// Its name in a GPT, as found.
    pub label: Option<String>,
    /// As blkid has it in `PARTUUID`.
    pub uuid: Option<String>,
    /// Whether a BIOS is to start it.
    pub bootable: bool,
    /// Attribute bits of a GPT.
    pub attributes: u64,
}

impl Partition {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.range.end - self.range.start
    }
}

impl Serialize for Partition {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        /// What a report says of a partition.
        #[derive(Serialize)]
        #[serde(rename_all = "kebab-case")]
        struct Record<'a> {
            number: u32,
            start: u64,
            size: u64,
            #[serde(rename = "type")]
            kind: String,
            type_name: Option<Cow<'static, str>>,
            label: Option<&'a str>,
            uuid: Option<&'a str>,
            bootable: bool,
            attributes: u64,
        }
        Record {
            number: self.number,
            start: self.range.start,
            size: self.size(),
            kind: self.kind.number(),
            type_name: self.kind.known_name(),
            label: self.label.as_deref(),
            uuid: self.uuid.as_deref(),
            bootable: self.bootable,
            attributes: self.attributes,
        }
        .serialize(serializer)
    }
}

/// Reads the partition table of `disk`.
///
/// # Errors
/// The image cannot be read.
pub fn read(disk: &Volume<'_>) -> Result<Table> {
    let sector = first_sector(disk)?;
    let mbr = is_signed(&sector)
        .then(|| Mbr::parse(&sector, disk.size()))
        .flatten();
    let gpt = gpt::read(disk)?;
    let protective = mbr.as_ref().is_some_and(Mbr::is_protective);
    let mut table = match mbr {
        _ if protective || gpt.primary => Table::of_gpt(gpt, mbr.as_ref()),
        Some(mbr) => Table::of_mbr(&mbr, disk)?,
        None => Table::none(),
    };
    table.finish(disk);
    Ok(table)
}

impl Table {
    fn none() -> Self {
        Self {
            kind: TableKind::None,
            sector_size: mbr::SECTOR_SIZE,
            uuid: None,
            notes: Vec::new(),
            damaged: None,
            metadata: Vec::new(),
            partitions: Vec::new(),
            extended: Vec::new(),
        }
    }

    fn of_mbr(mbr: &Mbr, disk: &Volume<'_>) -> Result<Self> {
        let found = mbr.partitions(disk)?;
        let mut metadata = found.metadata;
        metadata.push(0..mbr::SECTOR_SIZE);
        let mut table = Self {
            kind: TableKind::Mbr,
            uuid: (mbr.id != 0).then(|| format!("{:08x}", mbr.id)),
            notes: found.notes,
            damaged: found.damaged,
            metadata,
            partitions: found.partitions,
            extended: found.extended,
            ..Self::none()
        };
        table.check_structure();
        Ok(table)
    }

    fn of_gpt(gpt: gpt::Gpt, mbr: Option<&Mbr>) -> Self {
        let mut table = Self {
            kind: TableKind::Gpt,
            sector_size: gpt.sector_size.max(mbr::SECTOR_SIZE),
            uuid: gpt.uuid,
            notes: gpt.notes,
            damaged: gpt.damaged,
            metadata: gpt.structure,
            partitions: gpt.partitions,
            ..Self::none()
        };
        table.metadata.push(0..mbr::SECTOR_SIZE);
        let others: Vec<&mbr::Slot> = mbr.into_iter().flat_map(Mbr::others).collect();
        if !mbr.is_some_and(Mbr::is_protective) {
            let damage = if others.is_empty() {
                "no protective MBR says that the disk has a GPT"
            } else {
                "the disk has a GPT and an MBR that does not know of it"
            };
            table.damaged.get_or_insert(damage.into());
        } else if let Some(filesystem) = mbr.and_then(|mbr| mbr.filesystem) {
            table.notes.push(format!(
                "the first sector is one of {filesystem} as well as a protective MBR"
            ));
        }
        if gpt.found && !others.is_empty() {
            table.kind = TableKind::Hybrid;
            table.compare_hybrid(&others);
        }
        // Partitions were compared with the structures; now with what else is set aside.
        table.check_structure();
        table.metadata.push(gpt.reserved);
        table
    }

    /// An MBR beside a GPT must name the same partitions, or ranges that are in none.
    fn compare_hybrid(&mut self, others: &[&mbr::Slot]) {
        for slot in others {
            let range = slot.bytes();
            // The MBR of a disk with large sectors counts in those.
            let scale = self.sector_size / mbr::SECTOR_SIZE;
            let range = range.start * scale..range.end * scale;
            for partition in &self.partitions {
                if overlap(&partition.range, &range) && partition.range != range {
                    let damage = format!(
                        "the MBR beside the GPT gives partition {} other limits",
                        partition.number
                    );
                    self.damaged.get_or_insert(damage.into());
                }
            }
        }
    }

    /// What holds for all tables: partitions keep apart from each other, and end on the disk.
    fn finish(&mut self, disk: &Volume<'_>) {
        let primary = |partition: &&Partition| partition.number < 5;
        let overlapping = if self.kind == TableKind::Mbr {
            let first = self.partitions.iter().filter(primary).chain(&self.extended);
            first_overlap(first).or_else(|| first_overlap(self.partitions.iter()))
        } else {
            first_overlap(self.partitions.iter())
        };
        if let Some((one, other)) = overlapping {
            let damage = format!("partitions {one} and {other} overlap");
            self.damaged.get_or_insert(damage.into());
        }
        let notes = &mut self.notes;
        self.partitions.retain(|partition| {
            let inside = partition.range.end <= disk.size();
            if !inside {
                let number = partition.number;
                notes.push(format!(
                    "partition {number} reaches past the end of the disk"
                ));
            }
            inside
        });
        if self.notes.len() > MOST_NOTES {
            let more = self.notes.len() - MOST_NOTES;
            self.notes.truncate(MOST_NOTES);
            self.notes.push(format!("and {more} more"));
        }
        for range in &mut self.metadata {
            range.end = range.end.min(disk.size());
        }
        self.metadata.retain(|range| range.start < range.end);
        self.metadata.sort_unstable_by_key(|range| range.start);
        self.metadata.dedup_by(|next, last| {
            let joins = next.start <= last.end;
            if joins {
                last.end = last.end.max(next.end);
            }
            joins
        });
    }

    /// Partitions keep apart from the table itself.
    fn check_structure(&mut self) {
        for partition in self.partitions.iter().chain(&self.extended) {
            // An extended partition is made of such sectors.
            let own = self.extended.contains(partition);
            let hit = self.metadata.iter().any(|range| {
                overlap(range, &partition.range) && !(own && range.start >= mbr::SECTOR_SIZE)
            });
            if hit {
                let damage = format!("partition {} overlaps the table itself", partition.number);
                self.damaged.get_or_insert(damage.into());
            }
        }
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// The numbers of two partitions that overlap.
fn first_overlap<'a>(partitions: impl Iterator<Item = &'a Partition>) -> Option<(u32, u32)> {
    let mut sorted: Vec<&Partition> = partitions.collect();
    sorted.sort_unstable_by_key(|partition| partition.range.start);
    sorted
        .iter()
        .zip(sorted.iter().skip(1))
        .find(|(one, other)| overlap(&one.range, &other.range))
        .map(|(one, other)| (one.number, other.number))
}
