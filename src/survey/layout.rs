//! Which parts a guest's disk has: partitions, logical volumes in them, or none.
//!
//! Knows tables and volume groups; must not know filesystems.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::free::FreeMap;
use crate::fs::Refusal;
use crate::lvm;
use crate::partition::{self, Partition, Table, TableKind};
use crate::volume::Volume;

use super::Selector;

/// The parts of a guest's disk.
#[derive(Debug)]
pub struct Layout<'a> {
    /// The disk itself.
    pub disk: Volume<'a>,
    /// Its partition table.
    pub table: Table,
    /// In the order of the table; logical volumes follow the partition that holds them.
    pub places: Vec<Place<'a>>,
}

/// A part of a disk that may hold a filesystem, or parts of its own.
#[derive(Debug)]
pub struct Place<'a> {
    /// What stands for it.
    pub volume: Volume<'a>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a part of a disk comes from.
#[derive(Debug)]
pub enum Origin {
    /// The disk has no partitions.
    Disk,
    /// The partition table.
    Partition(Partition),
    /// A volume group.
    Logical {
        /// Its volume group.
        group: String,
        /// Its own name.
        name: String,
        /// Bytes that it shows.
        size: u64,
        /// Why it cannot be read as one volume.
        unusable: Option<Cow<'static, str>>,
    },
    /// A physical volume: the disk or a partition as seen by LVM.
    Physical {
        /// The partition, unless it is the whole disk.
        partition: Option<Partition>,
        /// What its volume group says, or why it says nothing.
        group: std::result::Result<Physical, Refusal>,
    },
}

/// What a volume group knows of its physical volume.
#[derive(Debug)]
pub struct Physical {
    /// Name of the group.
    pub name: String,
    /// Ranges of the physical volume that no logical volume uses.
    pub free: FreeMap,
    /// What holds some of it back.
    pub note: Option<String>,
}

impl<'a> Layout<'a> {
    /// Reads the tables of `disk`.
    ///
    /// # Errors
    /// The image cannot be read.
    pub fn read(disk: &Volume<'a>) -> Result<Self> {
        let table = partition::read(disk)?;
        let mut places = Vec::new();
        if table.kind == TableKind::None {
            push(&mut places, disk.clone(), None)?;
        }
        for partition in &table.partitions {
            let Some(volume) = disk.part(partition.range.clone()) else {
                continue;
            };
            push(&mut places, volume, Some(partition.clone()))?;
        }
        Ok(Self {
            disk: disk.clone(),
            table,
            places,
        })
    }

    /// Names of all parts, for a message.
    pub fn names(&self) -> String {
        let names: Vec<String> = self.places.iter().map(Place::name).collect();
        names.join(" ")
    }

    /// The part that `selector` names by table or group; `None` for one that a filesystem's label or UUID names.
    ///
    /// # Errors
    /// No part is called so.
    pub fn find(&self, selector: &Selector) -> Result<Option<usize>> {
        if matches!(selector, Selector::Label(_) | Selector::Uuid(_)) {
            return Ok(None);
        }
        let found = self.places.iter().position(|place| place.is(selector));
        found.map(Some).ok_or_else(|| self.no_such(selector))
    }

    /// That there is no such part, and which there are.
    pub fn no_such(&self, selector: &Selector) -> Error {
        Error::usage(format!("the disk has no part '{selector}'"))
            .with_remedy(format!("it has: {}", self.names()))
    }
}

/// Adds a part, and the logical volumes in it.
fn push<'a>(
    places: &mut Vec<Place<'a>>,
    volume: Volume<'a>,
    partition: Option<Partition>,
) -> Result<()> {
    let group = match lvm::read(&volume) {
        Ok(None) => {
            places.push(Place {
                volume,
                origin: partition.map_or(Origin::Disk, Origin::Partition),
            });
            return Ok(());
        }
        Ok(Some(group)) => group,
        Err(refusal) => {
            places.push(Place {
                volume,
                origin: Origin::Physical {
                    partition,
                    group: Err(refusal),
                },
            });
            return Ok(());
        }
    };
    places.push(Place {
        volume,
        origin: Origin::Physical {
            partition,
            group: Ok(Physical {
                name: group.name.clone(),
                free: group.free,
                note: (!group.notes.is_empty()).then(|| group.notes.join("; ")),
            }),
        },
    });
    for logical in group.volumes {
        places.push(Place {
            volume: logical.volume,
            origin: Origin::Logical {
                group: group.name.clone(),
                name: logical.name,
                size: logical.size,
                unusable: logical.unusable,
            },
        });
    }
    Ok(())
}

impl Place<'_> {
    /// As a [`Selector`] has it: `disk`, `3`, `vg/lv`.
    pub fn name(&self) -> String {
        match &self.origin {
            Origin::Logical { group, name, .. } => format!("{group}/{name}"),
            _ => self
                .partition()
                .map_or_else(|| "disk".to_owned(), |part| part.number.to_string()),
        }
    }

    /// What the partition table says of it.
    pub fn partition(&self) -> Option<&Partition> {
        match &self.origin {
            Origin::Partition(partition)
            | Origin::Physical {
                partition: Some(partition),
                ..
            } => Some(partition),
            _ => None,
        }
    }

    fn is(&self, selector: &Selector) -> bool {
        match selector {
            Selector::Disk => self.name() == "disk",
            Selector::Number(number) => self
                .partition()
                .is_some_and(|partition| partition.number == *number),
            Selector::PartLabel(label) => self
                .partition()
                .is_some_and(|partition| partition.label.as_deref() == Some(label)),
            Selector::PartUuid(uuid) => self.partition().is_some_and(|partition| {
                let own = partition.uuid.as_deref();
                own.is_some_and(|own| own.eq_ignore_ascii_case(uuid))
            }),
            Selector::Logical { group, name } => match &self.origin {
                Origin::Logical {
                    group: own_group,
                    name: own_name,
                    ..
                } => own_group == group && own_name == name,
                _ => false,
            },
            Selector::Label(_) | Selector::Uuid(_) => false,
        }
    }
}
