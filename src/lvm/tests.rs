use std::ops::Range;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::fs::RefusalKind;
use crate::partition::tests::{Disk, must};

const MIB: u64 = 1 << 20;
/// First byte of the only metadata area that pvcreate makes by default.
const AREA: usize = 4096;

/// An image file as a block device, for LVM without a device mapper.
struct Physical {
    directory: TempDir,
    path: PathBuf,
    device: String,
}

impl Physical {
    fn new(size: u64, options: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("disk");
        let name = path.to_str().unwrap();
        must("truncate", &["-s", &size.to_string(), name], "");
        let device = must("losetup", &["--find", "--show", name], "");
        let physical = Self {
            device: device.trim().to_owned(),
            directory,
            path,
        };
        let mut arguments = vec!["pvcreate", "-y"];
        arguments.extend(options);
        arguments.push(&physical.device);
        physical.lvm(&arguments);
        physical
    }

    /// One with a group of extents of 1 MiB: a volume in two runs, another one, and free extents.
    fn with_group(options: &[&str]) -> Self {
        let physical = Self::new(64 * MIB, options);
        physical.lvm(&["vgcreate", "-s", "1M", "vg-0", &physical.device]);
        physical.create("root", 10);
        physical.create("swap", 5);
        physical.lvm(&["lvextend", "-l", "+3", "vg-0/root"]);
        physical
    }

    fn create(&self, name: &str, extents: u64) {
        let extents = extents.to_string();
        let arguments = [
            "lvcreate", "-y", "-an", "-Zn", "-Wn", "-l", &extents, "-n", name, "vg-0",
        ];
        self.lvm(&arguments);
    }

    fn lvm(&self, arguments: &[&str]) -> String {
        self.lvm_with(&[&self.device], arguments)
    }

    /// Runs `lvm` so that it sees these devices alone.
    fn lvm_with(&self, devices: &[&str], arguments: &[&str]) -> String {
        let directory = self.directory.path().to_str().unwrap();
        let accept: String = devices
            .iter()
            .map(|device| format!("\"a|^{device}$|\","))
            .collect();
        let config = format!(
            "devices{{global_filter=[{accept}\"r|.*|\"] use_devicesfile=0 obtain_device_list_from_udev=0}} \
             backup{{backup=0 archive=0}} global{{locking_dir=\"{directory}/lock\" use_lvmpolld=0}} \
             activation{{udev_sync=0 udev_rules=0 monitoring=0}}"
        );
        let system = format!("LVM_SYSTEM_DIR={directory}");
        let mut all = vec![system.as_str(), "LVM_SUPPRESS_FD_WARNINGS=1", "lvm"];
        all.push(arguments[0]);
        all.extend(["--driverloaded", "n", "--config", &config]);
        all.extend(&arguments[1..]);
        must("env", &all, "")
    }

    fn report(&self, arguments: &[&str], kind: &str) -> Vec<Value> {
        let mut all = arguments.to_vec();
        all.extend(["--reportformat", "json"]);
        let json: Value = serde_json::from_str(&self.lvm(&all)).unwrap();
        json["report"][0][kind].as_array().unwrap().clone()
    }

    /// Replaces the metadata by what `change` makes of it, in LVM's own way.
    fn restore(&self, change: impl Fn(&str) -> String) {
        let file = self.directory.path().join("metadata");
        let name = file.to_str().unwrap();
        self.lvm(&["vgcfgbackup", "-f", name, "vg-0"]);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, change(&text)).unwrap();
        self.lvm(&["vgcfgrestore", "--force", "-f", name, "vg-0"]);
    }

    fn disk(&self) -> Disk {
        Disk::open(&self.path)
    }

    /// Compares free extents with what `lvm` has.
    fn compare(&self) -> Outcome {
        let outcome = Outcome::of(&self.disk());
        let start = self.report(
            &["pvs", "--units", "b", "--nosuffix", "-o", "pe_start"],
            "pv",
        );
        let start: u64 = start[0]["pe_start"].as_str().unwrap().parse().unwrap();
        let number = |value: &Value| value.as_str().unwrap().parse::<u64>().unwrap();
        let segments = self.report(
            &["pvs", "--segments", "-o", "pvseg_start,pvseg_size,lv_name"],
            "pvseg",
        );
        let free: Vec<Range<u64>> = segments
            .iter()
            .filter(|segment| segment["lv_name"] == "")
            .map(|segment| {
                let first = start + number(&segment["pvseg_start"]) * MIB;
                first..first + number(&segment["pvseg_size"]) * MIB
            })
            .collect();
        assert_eq!(outcome.free, free);
        outcome
    }
}

impl Drop for Physical {
    fn drop(&mut self) {
        must("losetup", &["--detach", &self.device], "");
    }
}

/// What a disk is found to hold, as plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    name: String,
    free: Vec<Range<u64>>,
    notes: Vec<String>,
    volumes: Vec<(String, Vec<Range<u64>>, Option<String>)>,
}

impl Outcome {
    fn read(disk: &Disk) -> Result<Option<Self>, Refusal> {
        let group = read(&Volume::whole(disk))?;
        Ok(group.map(|group| Self {
            name: group.name,
            free: group.free.ranges().to_vec(),
            notes: group.notes,
            volumes: group
                .volumes
                .into_iter()
                .map(|logical| {
                    let whole = 0..logical.volume.size();
                    assert!(logical.unusable.is_some() || logical.size == whole.end);
                    let ranges = logical.volume.on_disk(whole).collect();
                    let unusable = logical.unusable.map(Cow::into_owned);
                    (logical.name, ranges, unusable)
                })
                .collect(),
        }))
    }

    fn of(disk: &Disk) -> Self {
        Self::read(disk).unwrap().unwrap()
    }

    fn usable(&self) -> Vec<&str> {
        let usable = self.volumes.iter().filter(|(.., why)| why.is_none());
        usable.map(|(name, ..)| name.as_str()).collect()
    }

    fn why(&self, name: &str) -> &str {
        let mut volumes = self.volumes.iter();
        let (.., why) = volumes.find(|(other, ..)| other == name).unwrap();
        why.as_deref().unwrap_or("usable")
    }
}

fn refusal(disk: &Disk) -> Refusal {
    Outcome::read(disk).expect_err("is refused")
}

fn number(bytes: &[u8], at: usize) -> usize {
    let bytes = bytes[at..at + 8].try_into().unwrap();
    usize::try_from(u64::from_le_bytes(bytes)).unwrap()
}

/// The metadata in the first area.
fn metadata(disk: &Disk) -> String {
    let bytes = &disk.0;
    let (offset, length) = (number(bytes, AREA + 40), number(bytes, AREA + 48));
    let text = &bytes[AREA + offset..][..length];
    String::from_utf8(text.to_vec()).unwrap()
}

/// Gives the first area this metadata, with all checksums.
fn set_metadata(disk: &mut Disk, text: &[u8]) {
    let bytes = disk.bytes();
    bytes[AREA + 512..AREA + 512 + text.len()].copy_from_slice(text);
    bytes[AREA + 40..][..8].copy_from_slice(&512_u64.to_le_bytes());
    bytes[AREA + 48..][..8].copy_from_slice(&(text.len() as u64).to_le_bytes());
    bytes[AREA + 56..][..4].copy_from_slice(&label::checksum(text).to_le_bytes());
    seal(disk, AREA, 512);
}

/// Gives the label or an area's header its checksum.
fn seal(disk: &mut Disk, at: usize, length: usize) {
    let bytes = disk.bytes();
    let (place, from) = if at == AREA { (at, 4) } else { (at + 16, 20) };
    let checksum = label::checksum(&bytes[at + from..at + length]);
    bytes[place..][..4].copy_from_slice(&checksum.to_le_bytes());
}

/// The disk with other metadata.
fn edited(disk: &Disk, from: &str, to: &str) -> Disk {
    let text = metadata(disk);
    assert!(text.contains(from), "{from} is not in {text}");
    let mut disk = disk.clone();
    set_metadata(&mut disk, text.replacen(from, to, 1).as_bytes());
    disk
}

#[test]
fn volumes_and_free_extents_are_those_of_lvm() {
    let physical = Physical::with_group(&[]);
    let outcome = physical.compare();
    let extents = |range: Range<u64>| (1 + range.start) * MIB..(1 + range.end) * MIB;
    assert_eq!(outcome.free, [extents(18..63)]);
    assert_eq!((outcome.name.as_str(), outcome.notes.len()), ("vg-0", 0));
    let volumes = [
        (
            "root".to_owned(),
            vec![extents(0..10), extents(15..18)],
            None,
        ),
        ("swap".to_owned(), vec![extents(10..15)], None),
    ];
    assert_eq!(outcome.volumes, volumes);
    physical.lvm(&["lvremove", "-y", "vg-0/swap"]);
    assert_eq!(physical.compare().free.len(), 2);
    physical.lvm(&["lvremove", "-y", "vg-0/root"]);
    assert_eq!(physical.compare().free, [extents(0..63)]);
}

#[test]
fn metadata_is_found_wherever_lvm_puts_it() {
    let two = ["--metadatacopies", "2", "--bootloaderareasize", "1M"];
    let physical = Physical::with_group(&two);
    let outcome = physical.compare();
    assert_eq!(outcome.volumes.len(), 2);
    // A second copy that says something else.
    let mut disk = physical.disk();
    let text = metadata(&disk).replace("seqno = 4", "seqno = 5");
    set_metadata(&mut disk, text.as_bytes());
    assert_eq!(
        refusal(&disk).reason,
        "the copies of the volume group's metadata differ"
    );
    // One that is not kept up to date does not count.
    physical.lvm(&["vgchange", "--vgmetadatacopies", "1", "vg-0"]);
    physical.lvm(&["lvremove", "-y", "vg-0/swap"]);
    assert_eq!(physical.compare().volumes.len(), 1);

    // A ring so small that texts run over its end.
    let physical = Physical::with_group(&["--metadatasize", "32K", "--dataalignment", "4K"]);
    let mut wrapped = 0;
    for tag in 0..20 {
        physical.lvm(&["vgchange", "--addtag", &format!("t{tag}"), "vg-0"]);
        let bytes = &physical.disk().0;
        let (size, offset) = (number(bytes, AREA + 32), number(bytes, AREA + 40));
        wrapped += usize::from(offset + number(bytes, AREA + 48) > size);
        assert_eq!(physical.compare().volumes.len(), 2);
    }
    assert!(wrapped > 0);

    for sector in 0..4 {
        let physical = Physical::with_group(&["--labelsector", &sector.to_string()]);
        assert_eq!(physical.compare().volumes.len(), 2);
    }
}

#[test]
fn what_is_no_group_on_one_volume_is_refused() {
    let physical = Physical::new(16 * MIB, &[]);
    let reason = refusal(&physical.disk()).reason;
    assert_eq!(reason, "a physical volume that belongs to no volume group");
    let bare = Physical::new(16 * MIB, &["--metadatacopies", "0"]);
    let reason = refusal(&bare.disk()).reason;
    assert_eq!(reason, "a physical volume that carries no metadata");
    let both = [physical.device.as_str(), bare.device.as_str()];
    physical.lvm_with(&both, &["vgcreate", "vg-0", both[0], both[1]]);
    let reason = refusal(&physical.disk()).reason;
    assert_eq!(reason, "volume group of 2 physical volumes");
    let empty = Disk(vec![0; 1 << 20].into());
    assert_eq!(Outcome::read(&empty).unwrap(), None);
    for size in [0, 1, 511, 512, 1023, 1024, 2000] {
        let disk = Disk(physical.disk().0[..size].to_vec().into());
        let outcome = Outcome::read(&disk);
        assert!(matches!(outcome, Ok(None) | Err(_)));
    }
}

/// Volumes of other kinds, in the words of LVM's metadata: names, visible or not, type and the rest of the segment.
const LAYERED: &[(&str, bool, u64, &str)] = &[
    (
        "pool_tmeta",
        false,
        2,
        r#"type = "striped" stripe_count = 1 stripes = ["pv0", 18]"#,
    ),
    (
        "pool_tdata",
        false,
        6,
        r#"type = "striped" stripe_count = 1 stripes = ["pv0", 22]"#,
    ),
    (
        "pool",
        true,
        6,
        r#"type = "thin-pool" metadata = "pool_tmeta" pool = "pool_tdata" transaction_id = 0 chunk_size = 128 discards = "passdown" zero_new_blocks = 1"#,
    ),
    (
        "thin1",
        true,
        20,
        r#"type = "thin" thin_pool = "pool" transaction_id = 0 device_id = 1"#,
    ),
    (
        "cow",
        true,
        1,
        r#"type = "striped" stripe_count = 1 stripes = ["pv0", 30]"#,
    ),
    (
        "snapshot0",
        false,
        5,
        r#"type = "snapshot" chunk_size = 8 origin = "swap" cow_store = "cow""#,
    ),
    (
        "str2",
        true,
        4,
        r#"type = "striped" stripe_count = 2 stripe_size = 128 stripes = ["pv0", 40, "pv0", 44]"#,
    ),
    ("zero1", true, 3, r#"type = "zero""#),
    (
        "r1_rmeta_0",
        false,
        1,
        r#"type = "striped" stripe_count = 1 stripes = ["pv0", 50]"#,
    ),
    (
        "r1_rimage_0",
        false,
        2,
        r#"type = "striped" stripe_count = 1 stripes = ["pv0", 51]"#,
    ),
    (
        "r1_rmeta_1",
        false,
        1,
        r#"type = "striped" stripe_count = 1 stripes = ["pv0", 53]"#,
    ),
    (
        "r1_rimage_1",
        false,
        2,
        r#"type = "striped" stripe_count = 1 stripes = ["pv0", 54]"#,
    ),
    (
        "r1",
        true,
        2,
        r#"type = "raid1" device_count = 2 region_size = 4096 raids = ["r1_rmeta_0", "r1_rimage_0", "r1_rmeta_1", "r1_rimage_1"]"#,
    ),
    (
        "m1_mimage_0",
        false,
        1,
        r#"type = "striped" stripe_count = 1 stripes = ["pv0", 56]"#,
    ),
    (
        "m1_mimage_1",
        false,
        1,
        r#"type = "striped" stripe_count = 1 stripes = ["pv0", 57]"#,
    ),
    (
        "m1",
        true,
        1,
        r#"type = "mirror" mirror_count = 2 region_size = 1024 mirrors = ["m1_mimage_0", 0, "m1_mimage_1", 0]"#,
    ),
];

#[test]
fn volumes_of_other_kinds_are_in_use_as_a_whole() {
    let physical = Physical::with_group(&[]);
    physical.restore(|text| {
        let mut volumes = String::from("logical_volumes {\n");
        for (index, (name, visible, extents, segment)) in LAYERED.iter().enumerate() {
            let visible = if *visible { ", \"VISIBLE\"" } else { "" };
            volumes.push_str(&format!(
                "{name} {{ id = \"aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa{index:02}\" status = [\"READ\", \
                 \"WRITE\"{visible}] flags = [] segment_count = 1 segment1 {{ start_extent = 0 \
                 extent_count = {extents} {segment} }} }}\n"
            ));
        }
        text.replacen("logical_volumes {", &volumes, 1)
    });
    let outcome = physical.compare();
    assert_eq!(outcome.notes, Vec::<String>::new());
    assert_eq!(outcome.usable(), ["root"]);
    assert_eq!(outcome.why("swap"), "it is part of a snapshot");
    assert_eq!(outcome.why("cow"), "it is part of a snapshot");
    assert_eq!(outcome.why("thin1"), "a thin volume");
    assert_eq!(outcome.why("r1"), "a RAID volume");
    assert_eq!(outcome.why("str2"), "striped over several areas");
    // A user sees what `lvs` shows, and can use what it shows as linear without anything on top.
    let theirs = physical.report(&["lvs", "-o", "lv_name,segtype,lv_attr"], "lv");
    let mut names: Vec<&str> = outcome
        .volumes
        .iter()
        .map(|(name, ..)| name.as_str())
        .collect();
    names.sort_unstable();
    let mut their_names: Vec<&str> = theirs
        .iter()
        .map(|lv| lv["lv_name"].as_str().unwrap())
        .collect();
    their_names.dedup();
    assert_eq!(names, their_names);
    for lv in &theirs {
        let plain = lv["segtype"] == "linear" && lv["lv_attr"].as_str().unwrap().starts_with('-');
        let usable = outcome.usable().contains(&lv["lv_name"].as_str().unwrap());
        assert_eq!(plain, usable, "{lv}");
    }
}

#[test]
fn metadata_that_is_not_understood_frees_nothing() {
    let physical = Physical::with_group(&[]);
    let disk = physical.disk();
    let sound = Outcome::of(&disk);
    assert_eq!(Outcome::of(&edited(&disk, "seqno = 4", "seqno = 9")), sound);

    let kept = |from: &str, to: &str| Outcome::of(&edited(&disk, from, to));
    let unknown = kept("type = \"striped\"", "type = \"new\"");
    assert!(unknown.free.is_empty() && unknown.notes[0].contains("type new"));
    assert_eq!(unknown.usable(), ["swap"]);
    let moving = kept(
        "logical_volumes {",
        "logical_volumes { pvmove0 { status = [\"READ\", \"WRITE\", \"PVMOVE\", \"LOCKED\"] segment_count = 1 segment1 { \
         start_extent = 0 extent_count = 3 type = \"mirror\" mirrors = [\"pv0\", 15, \"pv0\", 40] } }",
    );
    assert!(moving.free.is_empty() && moving.notes == ["extents are being moved"]);
    let locked = kept("\"VISIBLE\"]", "\"VISIBLE\", \"LOCKED\"]");
    assert_eq!(locked.why("root"), "its status is LOCKED");
    let on_other = kept("\"pv0\", 10", "\"root\", 10");
    assert_eq!(on_other.usable(), Vec::<&str>::new());

    for (from, to, why) in [
        (
            "\"pv0\", 10",
            "\"pv0\", 9",
            "two logical volumes use the same extent",
        ),
        (
            "\"pv0\", 15",
            "\"pv0\", 62",
            "past the end of its physical volume",
        ),
        ("pe_start = 2048", "pe_start = 2056", "does not fit"),
        ("pe_count = 63", "pe_count = 64", "does not fit"),
        (
            "pe_count = 63",
            "pe_count = 18446744073709551615",
            "does not fit",
        ),
        ("extent_size = 2048", "extent_size = 0", "does not fit"),
        (
            "extent_size = 2048",
            "extent_size = 36028797018963968",
            "does not fit",
        ),
        (
            "physical_volumes {",
            "physical_volumes { pv1 { }",
            "2 physical volumes",
        ),
        (
            "[\"ALLOCATABLE\"]",
            "[\"ALLOCATABLE\", \"MISSING\"]",
            "status is MISSING",
        ),
        ("[\"RESIZEABLE\"", "[\"PARTIAL\"", "status is PARTIAL"),
        (
            "segment_count = 2",
            "segment_count = 1",
            "root makes no sense",
        ),
        (
            "start_extent = 10",
            "start_extent = 11",
            "root makes no sense",
        ),
        (
            "stripe_count = 1",
            "stripe_count = 0",
            "root makes no sense",
        ),
        (
            "stripe_count = 1",
            "stripe_count = 3",
            "root makes no sense",
        ),
        (
            "extent_count = 5",
            "extent_count = 18446744073709551615",
            "",
        ),
        (
            "extent_count = 5",
            "extent_count = 0",
            "swap makes no sense",
        ),
        (
            "Text Format Volume Group",
            "Text",
            "a format that is not known",
        ),
        ("swap {", "root {", "metadata makes no sense"),
        (
            "logical_volumes {",
            "logical_volumes { {",
            "metadata makes no sense",
        ),
        ("vg-0 {", "other { } vg-0 {", "metadata makes no sense"),
    ] {
        let refusal = refusal(&edited(&disk, from, to));
        assert!(refusal.reason.contains(why), "{to}: {refusal}");
    }
    let mut unfinished = disk.clone();
    unfinished.bytes()[AREA + 64] = 1;
    seal(&mut unfinished, AREA, 512);
    assert_eq!(refusal(&unfinished).kind, RefusalKind::Dirty);
    let mut two = disk.clone();
    let label = two.0[512..1024].to_vec();
    two.bytes()[1024..1536].copy_from_slice(&label);
    two.bytes()[1024 + 8] = 2;
    assert!(refusal(&two).reason.contains("two labels"));
}

#[test]
fn no_changed_byte_frees_an_extent() {
    let physical = Physical::with_group(&[]);
    let sound_disk = physical.disk();
    let sound = Outcome::of(&sound_disk);
    let mut disk = sound_disk.clone();
    let (offset, length) = (number(&disk.0, AREA + 40), number(&disk.0, AREA + 48));
    let places = (512..1024).chain(AREA..AREA + 512);
    let mut changed = 0;
    for at in places.chain(AREA + offset..AREA + offset + length) {
        for change in [1, 0x20, 0xff] {
            disk.bytes()[at] ^= change;
            match Outcome::read(&disk) {
                Ok(Some(outcome)) => assert_eq!(outcome, sound, "byte {at}"),
                // Without its name it is no label.
                Ok(None) => assert!((512..520).contains(&at), "byte {at}"),
                Err(_) => changed += 1,
            }
            disk.bytes()[at] ^= change;
        }
    }
    assert!(changed > 3 * length);
}

#[test]
fn no_sealed_change_is_a_panic() {
    let physical = Physical::with_group(&[]);
    let sound = physical.disk();
    let size = sound.0.len() as u64;
    let look = |disk: &Disk| {
        if let Ok(Some(outcome)) = Outcome::read(disk) {
            let on_disk = outcome.volumes.iter().flat_map(|(_, ranges, _)| ranges);
            assert!(
                outcome
                    .free
                    .iter()
                    .chain(on_disk.clone())
                    .all(|range| range.end <= size)
            );
            assert!(outcome.free.iter().all(|range| range.start >= 4096));
            let apart = |used: &Range<u64>| {
                let mut free = outcome.free.iter();
                free.all(|free| free.end <= used.start || used.end <= free.start)
            };
            assert!(on_disk.clone().all(apart));
        }
    };
    let text = metadata(&sound).into_bytes();
    let mut disk = sound.clone();
    for at in 0..text.len() {
        for change in [1, 2, 8, 0x10, 0x20, 0x80] {
            let mut text = text.clone();
            text[at] ^= change;
            set_metadata(&mut disk, &text);
            look(&disk);
            if change == 1 && at % 16 == 0 {
                set_metadata(&mut disk, &text[..at + 1]);
                look(&disk);
            }
        }
    }
}
