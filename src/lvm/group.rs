//! The volume group that metadata describes: which extents its volumes use, and which volumes are runs of them.
//!
//! Source: LVM2's `lib/format_text/import_vsn1.c` and the `text_import` functions of its segment types, `flags.c` for
//! words of status. Everything that is not known refuses: a volume, the free extents, or the group.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::label::Label;
use super::text::{Section, Value};
use super::{Group, Logical};
use crate::free::{FreeMap, FreeMapBuilder};
use crate::fs::Refusal;
use crate::volume::Volume;

const SECTOR: u64 = 512;

/// Words of status that change nothing about where data is.
const GROUP_STATUS: &[&str] = &[
    "RESIZEABLE",
    "READ",
    "WRITE",
    "EXPORTED",
    "CLUSTERED",
    "SHARED",
];
const PHYSICAL_STATUS: &[&str] = &["ALLOCATABLE", "EXPORTED"];
const VOLUME_STATUS: &[&str] = &[
    "READ",
    "WRITE",
    "VISIBLE",
    "FIXED_MINOR",
    "ACTIVATION_SKIP",
    "NOAUTOACTIVATE",
];

/// Types of segments, and what a volume with one is; all are made of other volumes, or of nothing.
const LAYERED: &[(&str, &str)] = &[
    ("cache", "a cached volume"),
    ("cache-pool", "a cache"),
    ("error", "a volume that only fails"),
    ("integrity", "a volume with checksums of its own"),
    ("mirror", "a mirror"),
    ("snapshot", "a snapshot"),
    ("thin", "a thin volume"),
    ("thin-pool", "a pool for thin volumes"),
    ("vdo", "a deduplicated volume"),
    ("vdo-pool", "a pool for deduplicated volumes"),
    ("writecache", "a volume with a write cache"),
    ("zero", "a volume of zeros"),
];

/// Names in a segment whose words are not names of volumes.
const NO_REFERENCES: &[&str] = &["type", "tags"];

/// Extents of the physical volume.
struct Extents {
    start: u64,
    size: u64,
    count: u64,
}

impl Extents {
    fn bytes(&self, extents: &Range<u64>) -> Range<u64> {
        // Inside the volume: all of them are.
        self.start + extents.start * self.size..self.start + extents.end * self.size
    }
}

/// What is known of a volume once its segments are read.
struct Mapped {
    /// Extents that it shows.
    extents: u64,
    /// Where they are, if in one run after the other.
    linear: Vec<Range<u64>>,
    unusable: Option<Cow<'static, str>>,
}

/// What is collected over all volumes.
#[derive(Default)]
struct Allocation<'t> {
    used: Vec<Range<u64>>,
    /// Volumes that are named by others, and what those are.
    named: HashMap<&'t str, &'static str>,
    /// Those of them that a snapshot keeps its changes in, and is called by.
    snapshots: HashSet<&'t str>,
    /// Why it is not known what is free.
    unknown: Option<String>,
}

/// Reads the group that `metadata` describes.
pub(super) fn read<'a>(
    volume: &Volume<'a>,
    label: &Label,
    metadata: &[u8],
) -> Result<Group<'a>, Refusal> {
    let odd = || Refusal::damaged("the volume group's metadata makes no sense");
    let metadata = metadata.strip_suffix(b"\0").unwrap_or(metadata);
    let text = std::str::from_utf8(metadata).map_err(|_| odd())?;
    let text = Section::parse(text).ok_or_else(odd)?;
    if text.text("contents") != Some("Text Format Volume Group")
        || text.number("version") != Some(1)
    {
        return Err(Refusal::unsupported(
            "volume group with metadata of a format that is not known here",
        ));
    }
    let mut sections = text.sections();
    let (Some((name, group)), None) = (sections.next(), sections.next()) else {
        return Err(odd());
    };
    let status = group.words("status").ok_or_else(odd)?;
    if let Some(word) = status.iter().find(|word| !GROUP_STATUS.contains(word)) {
        return Err(Refusal::unsupported(format!(
            "volume group whose status is {word}"
        )));
    }
    if group.text("format").is_some_and(|format| format != "lvm2") {
        return Err(Refusal::unsupported("volume group of an old format"));
    }
    let physical = group.section("physical_volumes").ok_or_else(odd)?;
    let count = physical.sections().count();
    let (1, Some((physical_name, physical))) = (count, physical.sections().next()) else {
        return Err(Refusal::unsupported(format!(
            "volume group of {count} physical volumes"
        )));
    };
    let extents = extents(volume, label, group, physical)?;

    let mut allocation = Allocation::default();
    let mut mapped = Vec::new();
    let empty = Section::default();
    let volumes = group.section("logical_volumes").unwrap_or(&empty);
    for (name, section) in volumes.sections() {
        let volume = map(name, section, physical_name, &mut allocation)?;
        mapped.push((name, section, volume));
    }
    let free = free(&extents, label, physical, &mut allocation)?;
    let mut notes = Vec::new();
    let free = match allocation.unknown {
        None => free,
        Some(why) => {
            notes.push(why);
            FreeMap::default()
        }
    };

    let mut logical = Vec::new();
    for (name, section, mapped) in mapped {
        let status = section.words("status").ok_or_else(odd)?;
        // A snapshot is shown for its origin's sake.
        if !status.contains(&"VISIBLE") && !allocation.snapshots.contains(name) {
            continue;
        }
        let flags = section.words("flags").ok_or_else(odd)?;
        let odd_word = status.iter().chain(&flags);
        let odd_word = odd_word.copied().find(|word| !VOLUME_STATUS.contains(word));
        let unusable = mapped
            .unusable
            .or_else(|| Some(odd_word.map(|word| format!("its status is {word}"))?.into()))
            .or_else(|| Some(format!("it is part of {}", allocation.named.get(name)?).into()));
        let ranges: Vec<Range<u64>> = match unusable {
            None => mapped.linear.iter().map(|run| extents.bytes(run)).collect(),
            Some(_) => Vec::new(),
        };
        logical.push(Logical {
            name: name.to_owned(),
            size: mapped.extents.saturating_mul(extents.size),
            volume: volume.join(&ranges).ok_or_else(odd)?,
            unusable,
        });
    }
    Ok(Group {
        name: name.to_owned(),
        free,
        notes,
        volumes: logical,
    })
}

/// Where the extents are; checks that this is the physical volume that the metadata means.
fn extents(
    volume: &Volume<'_>,
    label: &Label,
    group: &Section<'_>,
    physical: &Section<'_>,
) -> Result<Extents, Refusal> {
    let odd = || Refusal::damaged("the volume group's metadata does not fit its physical volume");
    let uuid = physical.text("id").ok_or_else(odd)?;
    let uuid = uuid.bytes().filter(|&byte| byte != b'-');
    if !uuid.eq(label.uuid) {
        return Err(odd());
    }
    let mut words = physical.words("status").ok_or_else(odd)?;
    words.extend(physical.words("flags").ok_or_else(odd)?);
    if let Some(word) = words.iter().find(|word| !PHYSICAL_STATUS.contains(word)) {
        return Err(Refusal::unsupported(format!(
            "physical volume whose status is {word}"
        )));
    }
    let sectors = |number: Option<u64>| number.and_then(|number| number.checked_mul(SECTOR));
    let extents = Extents {
        start: sectors(physical.number("pe_start")).ok_or_else(odd)?,
        size: sectors(group.number("extent_size")).ok_or_else(odd)?,
        count: physical.number("pe_count").ok_or_else(odd)?,
    };
    let end = extents
        .size
        .checked_mul(extents.count)
        .and_then(|length| extents.start.checked_add(length));
    let fits = end.is_some_and(|end| end <= volume.size());
    if extents.size == 0 || extents.start != label.data_start || !fits {
        return Err(odd());
    }
    Ok(extents)
}

/// Reads the segments of the volume `name`, and enters what they use.
fn map<'t>(
    name: &str,
    section: &'t Section<'_>,
    physical: &str,
    allocation: &mut Allocation<'t>,
) -> Result<Mapped, Refusal> {
    let odd = || Refusal::damaged(format!("logical volume {name} makes no sense"));
    let mut mapped = Mapped {
        extents: 0,
        linear: Vec::new(),
        unusable: None,
    };
    let mut segments: Vec<(u64, &Section<'_>)> = Vec::new();
    for (key, segment) in section.sections() {
        if !key.starts_with("segment") {
            return Err(odd());
        }
        let start = segment.number("start_extent").ok_or_else(odd)?;
        segments.push((start, segment));
    }
    if section.number("segment_count") != u64::try_from(segments.len()).ok() {
        return Err(odd());
    }
    segments.sort_by_key(|(start, _)| *start);
    for (start, segment) in segments {
        let length = segment.number("extent_count").ok_or_else(odd)?;
        if start != mapped.extents || length == 0 {
            return Err(odd());
        }
        mapped.extents = start.checked_add(length).ok_or_else(odd)?;
        let kind = segment.text("type").ok_or_else(odd)?;
        let unusable = if kind == "striped" {
            stripes(segment, length, physical, allocation, &mut mapped).ok_or_else(odd)?
        } else {
            let layered = layered(kind);
            let unknown =
                || format!("volumes of type {kind}, which is not known here, may use all");
            if layered.is_none() {
                allocation.unknown.get_or_insert_with(unknown);
            }
            let what = layered.unwrap_or("a volume of a type that is not known here");
            refer(segment, physical, what, allocation);
            Some(Cow::Borrowed(what))
        };
        mapped.unusable = mapped.unusable.or(unusable);
    }
    Ok(mapped)
}

/// Enters a segment that lies on the physical volume; why it is not one run, if it is not. `None` when it contradicts
/// itself.
fn stripes<'t>(
    segment: &'t Section<'_>,
    length: u64,
    physical: &str,
    allocation: &mut Allocation<'t>,
    mapped: &mut Mapped,
) -> Option<Option<Cow<'static, str>>> {
    let count = segment.number("stripe_count")?;
    let areas = segment.list("stripes")?;
    let each = length.checked_div(count)?;
    if each.checked_mul(count)? != length
        || u64::try_from(areas.len()).ok()? != count.checked_mul(2)?
    {
        return None;
    }
    let mut unusable = (count > 1).then_some(Cow::Borrowed("striped over several areas"));
    for area in areas.chunks(2) {
        let [Value::Text(on), Value::Number(start)] = area else {
            return None;
        };
        if on == physical {
            let run = *start..start.checked_add(each)?;
            allocation.used.push(run.clone());
            mapped.linear.push(run);
        } else {
            unusable = Some("it lies on another volume".into());
            allocation.named.insert(on, "another volume");
        }
    }
    Some(unusable)
}

/// What a volume with a segment of type `kind` is.
fn layered(kind: &str) -> Option<&'static str> {
    if ["raid0", "raid1", "raid4", "raid5", "raid6"]
        .iter()
        .any(|raid| kind.starts_with(raid))
    {
        return Some("a RAID volume");
    }
    let mut layered = LAYERED.iter();
    layered
        .find(|(other, _)| *other == kind)
        .map(|(_, what)| *what)
}

/// Enters all volumes that a segment names: it is `what`.
fn refer<'t>(
    segment: &'t Section<'_>,
    physical: &str,
    what: &'static str,
    allocation: &mut Allocation<'t>,
) {
    allocation.snapshots.extend(segment.text("cow_store"));
    let values = segment
        .values()
        .filter(|(key, _)| !NO_REFERENCES.contains(key));
    for (_, value) in values {
        let list = match value {
            Value::List(list) => list,
            single => std::slice::from_ref(single),
        };
        for value in list {
            let Value::Text(name) = value else { continue };
            if name == physical {
                // Extents on the move: both ends are in use, in ways that are only LVM's business.
                let why = "extents are being moved";
                allocation.unknown.get_or_insert_with(|| why.to_owned());
            }
            allocation.named.insert(name, what);
        }
    }
    if segment.sections().next().is_some() {
        let why = "a volume is described in a way that is not known here";
        allocation.unknown.get_or_insert_with(|| why.to_owned());
    }
}

/// Extents that no segment uses.
fn free(
    extents: &Extents,
    label: &Label,
    physical: &Section<'_>,
    allocation: &mut Allocation<'_>,
) -> Result<FreeMap, Refusal> {
    let used = &mut allocation.used;
    used.sort_unstable_by_key(|run| run.start);
    let mut map = FreeMapBuilder::new();
    let mut at = 0;
    for run in used.iter() {
        if run.start < at {
            return Err(Refusal::damaged("two logical volumes use the same extent"));
        }
        if run.end > extents.count {
            return Err(Refusal::damaged(
                "a logical volume reaches past the end of its physical volume",
            ));
        }
        map.free(extents.bytes(&(at..run.start)));
        at = run.end;
    }
    map.free(extents.bytes(&(at..extents.count)));
    for range in &label.reserved {
        map.used(range.clone());
    }
    if let Some(start) = physical.number("ba_start") {
        let length = physical.number("ba_size").unwrap_or(u64::MAX);
        let end = start.saturating_add(length);
        map.used(start.saturating_mul(SECTOR)..end.saturating_mul(SECTOR));
    }
    Ok(map.build())
}
