//! The MBR, and the chain of sectors that lists the logical partitions in an extended one.
//!
//! Sources: the UEFI specification 2.10, section 5.2, for the record; the kernel's `block/partitions/msdos.c` for what
//! an operating system makes of it. Nothing tells the size of a sector: it is taken for 512 bytes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use super::boot::{SECTOR, filesystem, is_signed};
use super::kind::PartitionKind;
use super::{Partition, type_bytes};
use crate::error::Result;
use crate::fields::Fields;
use crate::volume::Volume;

pub(super) const SECTOR_SIZE: u64 = 512;

/// First number of a logical partition.
const FIRST_LOGICAL: u32 = 5;
/// Most logical partitions: Linux gives a disk 256 minors at most (`DISK_MAX_PARTS`).
const MOST_LOGICAL: usize = 256;

/// One of four entries that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// From 1 on.
    pub(super) number: u32,
    pub(super) active: bool,
    pub(super) kind: u8,
    /// In sectors; what it counts from depends on the record.
    pub(super) start: u64,
    pub(super) sectors: u64,
}

impl Slot {
    fn is_extended(&self) -> bool {
        type_bytes::EXTENDED.contains(&self.kind)
    }

    pub(super) fn end(&self) -> u64 {
        self.start + self.sectors
    }

    pub(super) fn bytes(&self) -> Range<u64> {
        self.start * SECTOR_SIZE..self.end() * SECTOR_SIZE
    }
}

/// The first sector as a table.
#[derive(Debug, Clone)]
pub(super) struct Mbr {
    /// The disk's number, which Windows gives it.
    pub(super) id: u32,
    /// Those that are not empty: one at least.
    pub(super) slots: Vec<Slot>,
    /// The filesystem whose boot sector it is as well.
    pub(super) filesystem: Option<&'static str>,
}

/// What partitions of an MBR come to.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) partitions: Vec<Partition>,
    pub(super) extended: Vec<Partition>,
    pub(super) metadata: Vec<Range<u64>>,
    pub(super) notes: Vec<String>,
    pub(super) damaged: Option<Cow<'static, str>>,
}

impl Mbr {
    /// The table in the first sector of a disk of `size` bytes; `None` when its entries make no sense as one.
    pub(super) fn parse(sector: &[u8; SECTOR], size: u64) -> Option<Self> {
        let slots = slots(sector)?;
        let disk = size.div_ceil(SECTOR_SIZE);
        slots.iter().any(|slot| slot.start < disk).then(|| Self {
            id: Fields(sector).le32(440),
            slots,
            filesystem: filesystem(sector),
        })
    }

    /// Whether it says that the truth is in a GPT.
    pub(super) fn is_protective(&self) -> bool {
        let mut kinds = self.slots.iter().map(|slot| slot.kind);
        kinds.any(|kind| kind == type_bytes::PROTECTIVE)
    }

    /// Entries beyond the protective one.
    pub(super) fn others(&self) -> impl Iterator<Item = &Slot> {
        let others = self.slots.iter();
        others.filter(|slot| slot.kind != type_bytes::PROTECTIVE)
    }

    /// All partitions, logical ones too.
    pub(super) fn partitions(&self, disk: &Volume<'_>) -> Result<Found> {
        let mut found = Found::default();
        if let Some(filesystem) = self.filesystem {
            found.damaged = Some(
                format!("the first sector is one of {filesystem} as well as a partition table")
                    .into(),
            );
        }
        for slot in &self.slots {
            if slot.kind == 0 {
                let number = slot.number;
                let damage =
                    format!("partition {number} has sectors, and the type of an empty one");
                found.damaged.get_or_insert(damage.into());
            }
            if type_bytes::DISK_MANAGERS.contains(&slot.kind) {
                let damage = "a disk manager hides the true partition table";
                found.damaged.get_or_insert(damage.into());
            }
            let partition = self.partition(slot, slot.number, slot.bytes());
            if slot.is_extended() {
                found.extended.push(partition);
            } else {
                found.partitions.push(partition);
            }
        }
        let mut extended = self.slots.iter().filter(|slot| slot.is_extended());
        if let Some(first) = extended.next() {
            if extended.next().is_some() {
                let damage = "there is more than one extended partition";
                found.damaged.get_or_insert(damage.into());
            }
            if let Some(damage) = self.logical(disk, first, &mut found)? {
                found.damaged.get_or_insert(damage.into());
            }
        }
        Ok(found)
    }

    fn partition(&self, slot: &Slot, number: u32, range: Range<u64>) -> Partition {
        Partition {
            number,
            range,
            kind: PartitionKind::Mbr(slot.kind),
            label: None,
            // As the kernel and blkid make it up.
            uuid: (self.id != 0).then(|| format!("{:08x}-{number:02x}", self.id)),
            bootable: slot.active,
            attributes: 0,
        }
    }

    /// Enters the logical partitions in `extended`; why their chain cannot be trusted.
    fn logical(
        &self,
        disk: &Volume<'_>,
        extended: &Slot,
        found: &mut Found,
    ) -> Result<Option<String>> {
        let mut seen = HashSet::new();
        let mut at = extended.start;
        let mut number = FIRST_LOGICAL;
        loop {
            if !seen.insert(at) {
                return Ok(Some(
                    "the logical partitions' list runs in a circle".to_owned(),
                ));
            }
            if seen.len() > MOST_LOGICAL {
                return Ok(Some(format!("more than {MOST_LOGICAL} logical partitions")));
            }
            let bytes = at * SECTOR_SIZE..(at + 1) * SECTOR_SIZE;
            if bytes.end > disk.size() {
                return Ok(Some(format!(
                    "logical partition {number} is described past the end of the disk"
                )));
            }
            let sector = disk.read_array::<SECTOR>(bytes.start)?;
            found.metadata.push(bytes);
            if !is_signed(&sector) {
                if at == extended.start {
                    let note = "the extended partition holds no list of logical ones";
                    found.notes.push(note.to_owned());
                    return Ok(None);
                }
                return Ok(Some(format!(
                    "logical partition {number} is described by a sector without a signature"
                )));
            }
            let Some(slots) = slots(&sector) else {
                return Ok(Some(format!(
                    "logical partition {number} is described by a sector that makes no sense"
                )));
            };
            let odd = || {
                Ok(Some(format!(
                    "logical partition {number} is described in an odd way"
                )))
            };
            let mut next = None;
            let mut own = None;
            for slot in &slots {
                let which = if slot.is_extended() {
                    &mut next
                } else {
                    &mut own
                };
                // The last two entries are for nothing.
                if slot.number > 2 || which.replace(slot).is_some() {
                    return odd();
                }
            }
            if let Some(slot) = own {
                let start = at + slot.start;
                let end = start + slot.sectors;
                if slot.kind == 0 || slot.start == 0 || end > extended.end() {
                    return odd();
                }
                let range = start * SECTOR_SIZE..end * SECTOR_SIZE;
                found.partitions.push(self.partition(slot, number, range));
                number += 1;
            }
            let Some(link) = next else { return Ok(None) };
            at = extended.start + link.start;
            if at >= extended.end() {
                return Ok(Some(format!(
                    "logical partition {number} is described outside the extended partition"
                )));
            }
        }
    }
}

/// The entries of a table that are not empty; `None` when their first bytes are not those of entries.
fn slots(sector: &[u8; SECTOR]) -> Option<Vec<Slot>> {
    let entries = Fields(sector).slice(446, 64);
    let mut slots = Vec::new();
    for (number, entry) in (1..).zip(entries.chunks(16)) {
        let fields = Fields(entry);
        let status = fields.u8(0);
        if !matches!(status, 0 | 0x80) {
            return None;
        }
        let slot = Slot {
            number,
            active: status == 0x80,
            kind: fields.u8(4),
            start: u64::from(fields.le32(8)),
            sectors: u64::from(fields.le32(12)),
        };
        if slot.sectors != 0 {
            slots.push(slot);
        }
    }
    Some(slots)
}
