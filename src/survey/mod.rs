//! The survey: what a guest's disk holds, part by part, and what of it nothing uses.
//!
//! Knows the rules that concern more than one part: hibernation anywhere stops
//! everything, hash trees protect what they may cover, tables belong to nobody.
//! Must not know a filesystem's insides, nor what is done with the free map.

mod footer;
mod layout;
mod selector;

use std::ops::Range;

use serde::Serialize;

pub use layout::{Layout, Origin, Physical, Place};
pub use selector::Selector;

use crate::error::{Error, Result};
use crate::free::{FreeMap, FreeMapBuilder};
use crate::fs::probe::{Examined, examine, identify};
use crate::fs::{FreeOptions, FreeSpace, Identity, Refusal, RefusalKind};
use crate::partition::{self, Partition, TableKind};
use crate::volume::Volume;

/// What a survey shall find.
#[derive(Debug, Clone, Copy, Default)]
pub struct SurveyRequest<'a> {
    /// Do not read free space: nothing is dropped but what `zero` names.
    pub exact: bool,
    /// Replay an ext4 journal in memory instead of keeping everything.
    pub replay_journal: bool,
    /// Parts to keep whole.
    pub keep: &'a [Selector],
    /// Parts of which nothing shall be left.
    pub zero: &'a [Selector],
    /// The image has a snapshot with the state of a running machine.
    pub vm_state: bool,
}

/// What a disk holds.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Survey {
    /// Bytes of the disk.
    pub size: u64,
    /// The partition table.
    pub table: TableSummary,
    /// In the order of the table; logical volumes follow the partition that holds them.
    pub parts: Vec<Part>,
    /// Why nothing on the disk is dropped, whatever a part says.
    pub stopped: Option<Refusal>,
    /// Bytes to be dropped.
    pub dropped: u64,
    /// What is to be dropped, as guest ranges.
    #[serde(skip)]
    pub free: FreeMap,
    /// Guest ranges that belong to partition tables.
    #[serde(skip)]
    pub metadata: Vec<Range<u64>>,
}

impl Survey {
    /// Of a disk of `size` bytes that cannot be looked at.
    pub fn of_nothing(size: u64) -> Self {
        Self {
            size,
            table: TableSummary {
                kind: TableKind::None,
                sector_size: 512,
                uuid: None,
                notes: Vec::new(),
            },
            parts: Vec::new(),
            stopped: None,
            dropped: 0,
            free: FreeMap::default(),
            metadata: Vec::new(),
        }
    }
}

/// What a partition table says of itself.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TableSummary {
    /// Its kind.
    pub kind: TableKind,
    /// Bytes of a sector in its numbers.
    pub sector_size: u64,
    /// The disk's GUID, or an MBR's number.
    pub uuid: Option<String>,
    /// What is wrong with it, or odd.
    pub notes: Vec<String>,
}

/// A part of a disk.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Part {
    /// As a [`Selector`] has it: `disk`, `3`, `vg/lv`.
    pub name: String,
    /// Its first byte on the disk; none for a logical volume.
    pub start: Option<u64>,
    /// Bytes.
    pub size: u64,
    /// What the table says of it.
    pub partition: Option<Partition>,
    /// What its own first bytes say of it.
    pub identity: Option<Identity>,
    /// Bytes that it does not use, as far as it is known.
    pub free: Option<u64>,
    /// Bytes of it that are dropped; those of a logical volume are not among its physical volume's.
    pub dropped: u64,
    /// Why all of it is kept.
    pub kept: Option<Refusal>,
    /// What holds some of it back, or how it was found.
    pub note: Option<String>,
}

impl Part {
    /// Bytes in use, as far as it is known.
    pub fn used(&self) -> Option<u64> {
        let whole = self
            .identity
            .as_ref()
            .and_then(|identity| identity.size)
            .unwrap_or(self.size);
        self.free.map(|free| whole.saturating_sub(free))
    }
}

/// What examining a part came to.
struct Finding {
    identity: Option<Identity>,
    space: std::result::Result<FreeSpace, Refusal>,
    hibernated: bool,
    verity: bool,
}

impl From<Examined> for Finding {
    fn from(examined: Examined) -> Self {
        Self {
            identity: examined.identity,
            space: examined.space,
            hibernated: examined.hibernated,
            verity: examined.verity,
        }
    }
}

/// Looks at all parts of `disk`.
///
/// # Errors
/// The image cannot be read; a selector names nothing, or a part twice.
pub fn survey(disk: &Volume<'_>, request: &SurveyRequest<'_>) -> Result<Survey> {
    let layout = Layout::read(disk)?;
    let mut findings: Vec<Finding> = layout
        .places
        .iter()
        .map(|place| examine_place(place, request))
        .collect();
    let kept = chosen(&layout, &findings, request.keep)?;
    let zeroed = chosen(&layout, &findings, request.zero)?;
    if let Some(&both) = kept.iter().find(|index| zeroed.contains(index)) {
        let name = layout.places.get(both).map(Place::name).unwrap_or_default();
        return Err(Error::usage(format!(
            "part {name} is to be kept and to be emptied"
        )));
    }
    protect_from_hash_trees(&layout, &mut findings);
    keep_swap_of_the_living(&mut findings);
    for &index in &kept {
        if let Some(finding) = findings.get_mut(index) {
            finding.space = Err(Refusal::new(RefusalKind::Asked, "kept with --keep"));
        }
    }
    let stopped = stop(&layout, &findings, request)?;
    if !zeroed.is_empty()
        && let Some(damage) = &layout.table.damaged
    {
        return Err(Error::refused(
            format!("the partition table cannot be trusted: {damage}"),
            "repair it with sgdisk or sfdisk, or leave out --zero",
        ));
    }
    let mut builder = FreeMapBuilder::new();
    let mut parts = Vec::new();
    for (index, (place, finding)) in layout.places.iter().zip(findings).enumerate() {
        let mut part = describe(place, &finding);
        if zeroed.contains(&index) {
            for range in place.volume.on_disk(0..place.volume.size()) {
                builder.free(range);
            }
            part.kept = None;
            part.note = Some("emptied with --zero".to_owned());
        } else if let (None, Ok(space)) = (&stopped, &finding.space) {
            for free in space.free.ranges() {
                for range in place.volume.on_disk(free.clone()) {
                    builder.free(range);
                }
            }
        } else if let Some(stopped) = &stopped {
            part.kept.get_or_insert_with(|| stopped.clone());
        }
        parts.push(part);
    }
    for &index in &kept {
        if let Some(place) = layout.places.get(index) {
            for range in place.volume.on_disk(0..place.volume.size()) {
                builder.used(range);
            }
        }
    }
    for range in &layout.table.metadata {
        builder.used(range.clone());
    }
    let free = builder.build();
    share_out(&layout, &free, &mut parts);
    Ok(Survey {
        size: disk.size(),
        table: TableSummary {
            kind: layout.table.kind,
            sector_size: layout.table.sector_size,
            uuid: layout.table.uuid,
            notes: layout.table.notes,
        },
        parts,
        stopped,
        dropped: free.total(),
        free,
        metadata: layout.table.metadata,
    })
}

fn examine_place(place: &Place<'_>, request: &SurveyRequest<'_>) -> Finding {
    let options = FreeOptions {
        replay_journal: request.replay_journal,
    };
    let mut finding = match &place.origin {
        Origin::Physical { group, .. } => {
            let mut finding = Finding::from(examine(&place.volume, &options));
            // Anything else that claims the same blocks makes it doubtful whose they are.
            if identify(&place.volume).is_ok_and(|found| found.len() > 1) {
                return finding;
            }
            finding.space = group
                .as_ref()
                .map_err(Refusal::clone)
                .map(|physical| FreeSpace {
                    free: physical.free.clone(),
                    note: physical.note.clone().map(Into::into),
                });
            finding
        }
        Origin::Logical {
            unusable: Some(reason),
            ..
        } => Finding {
            identity: None,
            space: Err(Refusal::unsupported(reason.clone())),
            hibernated: false,
            verity: false,
        },
        _ => Finding::from(examine(&place.volume, &options)),
    };
    if finding.space.is_ok()
        && let Some(identity) = &finding.identity
        && let Some(refusal) = footer::protects(&place.volume, identity)
    {
        finding.verity = true;
        finding.space = Err(refusal);
    }
    if finding.space.is_ok()
        && let Some(refusal) = place.partition().and_then(protected_type)
    {
        finding.space = Err(refusal);
    }
    if finding.space.is_ok()
        && !matches!(place.origin, Origin::Disk)
        && let Some(refusal) = disk_in(place)
    {
        finding.space = Err(refusal);
    }
    if finding.identity.is_none()
        && let Some(partition) = place.partition()
        && partition.kind.is_bios_boot()
    {
        finding.space = Err(Refusal::new(RefusalKind::Protected, "holds a boot loader"));
    }
    if request.exact {
        finding.space = Err(Refusal::new(RefusalKind::Asked, "kept with --exact"));
    }
    finding
}

/// A part may be the disk of another guest: what a table in it says is stronger than any signature that it left over.
fn disk_in(place: &Place<'_>) -> Option<Refusal> {
    match partition::read(&place.volume) {
        Ok(table) if table.kind == TableKind::None && table.damaged.is_none() => None,
        Ok(_) => Some(Refusal::new(
            RefusalKind::Protected,
            "holds a partition table of its own",
        )),
        Err(error) => Some(error.into()),
    }
}

/// What was swapped out may be needed yet by a machine that did not shut down, as what it had not written back is.
fn keep_swap_of_the_living(findings: &mut [Finding]) {
    let is_dirty = |finding: &Finding| {
        let refusal = finding.space.as_ref().err();
        refusal.is_some_and(|refusal| refusal.kind == RefusalKind::Dirty)
    };
    if !findings.iter().any(is_dirty) {
        return;
    }
    for finding in findings {
        let kind = finding.identity.as_ref().map(|identity| identity.kind);
        if finding.space.is_ok() && kind == Some("swap") {
            finding.space = Err(Refusal::dirty(
                "a machine that was not shut down may need what it swapped out",
            )
            .with_remedy("shut the guest down cleanly, or empty it with --zero"));
        }
    }
}

/// Partitions whose blocks belong to more than what is in them, without a word of it there.
fn protected_type(partition: &Partition) -> Option<Refusal> {
    partition
        .kind
        .is_verity()
        .then(|| Refusal::new(RefusalKind::Protected, "holds a hash tree"))
        .or_else(|| {
            partition.kind.is_sealed_usr().then(|| {
                Refusal::new(
                    RefusalKind::Protected,
                    "its type is one whose blocks are all hashed",
                )
            })
        })
        .or_else(|| {
            partition.kind.is_dynamic().then(|| {
                Refusal::new(
                    RefusalKind::Protected,
                    "a part of a Windows dynamic disk, whose volumes may go on elsewhere",
                )
            })
        })
}

/// With a hash tree on the disk, what it may cover is kept: free blocks are hashed, too.
fn protect_from_hash_trees(layout: &Layout<'_>, findings: &mut [Finding]) {
    let typed = layout
        .table
        .partitions
        .iter()
        .any(|partition| partition.kind.is_verity());
    if !typed && !findings.iter().any(|finding| finding.verity) {
        return;
    }
    for finding in findings {
        let kind = finding.identity.as_ref().map(|identity| identity.kind);
        if finding.space.is_ok() && !matches!(kind, Some("swap" | "vfat")) {
            finding.space = Err(Refusal::new(
                RefusalKind::Protected,
                "a hash tree on the disk may cover its free blocks",
            ));
        }
    }
}

/// Why nothing on the disk may be dropped.
fn stop(
    layout: &Layout<'_>,
    findings: &[Finding],
    request: &SurveyRequest<'_>,
) -> Result<Option<Refusal>> {
    if request.exact {
        return Ok(Some(Refusal::new(RefusalKind::Asked, "kept with --exact")));
    }
    if request.vm_state {
        return Ok(Some(Refusal::new(
            RefusalKind::Protected,
            "a snapshot holds the state of a running machine, which may know more than its disk",
        )));
    }
    if let Some(damage) = &layout.table.damaged {
        return Ok(Some(Refusal::damaged(damage.clone())));
    }
    if findings.iter().any(|finding| finding.hibernated) {
        return Ok(Some(
            Refusal::new(
                RefusalKind::Protected,
                "the disk holds a hibernated system, which remembers its filesystems",
            )
            .with_remedy("start it and shut it down"),
        ));
    }
    if layout.table.kind != TableKind::None {
        // What lies across the whole disk, too, makes it doubtful what the partitions are.
        if let Some(identity) = identify(&layout.disk)?.first() {
            return Ok(Some(Refusal::new(
                RefusalKind::Unknown,
                format!(
                    "the disk has a partition table and the signature of {}",
                    identity.kind
                ),
            )));
        }
    }
    Ok(None)
}

/// Tells what every part loses of all that is dropped.
fn share_out(layout: &Layout<'_>, free: &FreeMap, parts: &mut [Part]) {
    let mut physical = None;
    for (index, place) in layout.places.iter().enumerate() {
        let lost: u64 = place
            .volume
            .on_disk(0..place.volume.size())
            .flat_map(|range| free.within(range))
            .map(|range| range.end - range.start)
            .sum();
        if let Some(part) = parts.get_mut(index) {
            part.dropped = lost;
        }
        match place.origin {
            Origin::Physical { .. } => physical = Some(index),
            Origin::Logical { .. } => {
                if let Some(part) = physical.and_then(|index| parts.get_mut(index)) {
                    part.dropped = part.dropped.saturating_sub(lost);
                }
            }
            _ => {}
        }
    }
}

fn describe(place: &Place<'_>, finding: &Finding) -> Part {
    let on_disk = place.volume.on_disk(0..place.volume.size()).next();
    let logical = match place.origin {
        Origin::Logical { size, .. } => Some(size),
        _ => None,
    };
    let (free, kept, note) = match &finding.space {
        Ok(space) => (
            Some(space.free.total()),
            None,
            space.note.as_deref().map(ToOwned::to_owned),
        ),
        Err(refusal) => (None, Some(refusal.clone()), None),
    };
    Part {
        name: place.name(),
        start: on_disk
            .filter(|_| logical.is_none())
            .map(|range| range.start),
        size: logical.unwrap_or_else(|| place.volume.size()),
        partition: place.partition().cloned(),
        identity: finding.identity.clone(),
        free,
        dropped: 0,
        kept,
        note,
    }
}

/// The parts that `selectors` name.
fn chosen(layout: &Layout<'_>, findings: &[Finding], selectors: &[Selector]) -> Result<Vec<usize>> {
    let mut chosen = Vec::new();
    for selector in selectors {
        if let Some(index) = layout.find(selector)? {
            chosen.push(index);
            continue;
        }
        let named = |identity: &Identity| match selector {
            Selector::Label(label) => identity.label.as_deref() == Some(label),
            Selector::Uuid(uuid) => identity
                .uuid
                .as_deref()
                .is_some_and(|own| own.eq_ignore_ascii_case(uuid)),
            _ => false,
        };
        let mut matches = findings
            .iter()
            .enumerate()
            .filter(|(_, finding)| finding.identity.as_ref().is_some_and(named));
        match (matches.next(), matches.next()) {
            (Some((index, _)), None) => chosen.push(index),
            (None, _) => return Err(layout.no_such(selector)),
            (Some(_), Some(_)) => {
                return Err(Error::usage(format!(
                    "'{selector}' names more than one part of the disk"
                ))
                .with_remedy("name one by its number"));
            }
        }
    }
    Ok(chosen)
}
