use std::fs;

use super::*;
use crate::fs::FreeOptions;
use crate::fs::fat::tests::{Image, samples};
use crate::fs::fat::{free_space, identify};
use crate::fs::tests::{disk, disk_of, must, names, nightly, noise, run, survive};

#[test]
fn damaged_directories_and_tables_end() {
    for bytes in samples().into_iter().take(2) {
        let boot = Boot::require(&Volume::whole(&disk_of(bytes.clone()))).unwrap();
        let end = usize::try_from(boot.data_at + 40 * boot.cluster_size).unwrap();
        let places = noise(8000, 7);
        for round in places.chunks(40).take(if nightly() { 200 } else { 60 }) {
            let mut bytes = bytes.clone();
            for place in round.chunks(4) {
                let at = u32::from_le_bytes(place.try_into().unwrap()) as usize % (end - 512) + 512;
                bytes[at] = bytes[at].wrapping_add(place[0]);
            }
            let volume = disk_of(bytes);
            let volume = Volume::whole(&volume);
            survive(&Files::open(&volume).unwrap());
            let _ = free_space(&volume, &FreeOptions::default());
        }
    }
}

#[test]
fn a_chain_that_leads_into_itself_or_ends_early_is_an_error() {
    let image = Image::make(1 << 20, "-F 12 -s 1");
    let source = image.directory.path().join("file");
    fs::write(&source, noise(20_000, 1)).unwrap();
    must(
        "mcopy",
        &["-i", image.name(), source.to_str().unwrap(), "::"],
    );
    let bytes = image.bytes();
    let boot = image.boot();
    let read = |bytes: Vec<u8>| {
        let disk = disk_of(bytes);
        let tree = Files::open(&Volume::whole(&disk)).unwrap();
        let node = tree.lookup(tree.root(), b"FILE").unwrap().unwrap();
        tree.read_file(node, 0..u64::MAX, &mut |_| ControlFlow::Continue(()))
            .map_err(|error| error.to_string())
    };
    assert_eq!(read(bytes.clone()), Ok(()));
    let table = usize::try_from(boot.tables_at).unwrap();
    // The file begins in cluster 2; that is followed by this one.
    for (next, expected) in [
        (2, "fat cluster 2 follows itself"),
        (0xfff, "has fewer clusters than bytes"),
        (0, "fat cluster 2 is of a file, and free"),
        (0xff7, "fat cluster 2 is of a file, and bad"),
        (0xff0, "fat cluster 2 is followed by one that is not there"),
    ] {
        let mut bytes = bytes.clone();
        let old = u16::from_le_bytes([bytes[table + 3], bytes[table + 4]]);
        let new: u16 = old & 0xf000 | next;
        bytes[table + 3..table + 5].copy_from_slice(&new.to_le_bytes());
        let error = read(bytes).unwrap_err();
        assert!(error.ends_with(expected), "{error}");
    }
}

#[test]
fn attributes_times_and_deleted_names_are_as_mtools_left_them() {
    let image = Image::make(1 << 20, "-F 12 -n LABEL");
    let source = image.directory.path().join("file");
    fs::write(&source, "x").unwrap();
    for name in [
        "lower.txt",
        "UPPER.TXT",
        "MIXED.txt",
        "Long name.text",
        "gone.txt",
        "ü.x",
    ] {
        let to = format!("::{name}");
        let arguments = ["-i", image.name(), source.to_str().unwrap(), &to];
        must("mcopy", &arguments);
    }
    must("mdel", &["-i", image.name(), "::gone.txt"]);
    must("mattrib", &["-i", image.name(), "+r", "::UPPER.TXT"]);
    let disk = disk(&image.path);
    let tree = Files::open(&Volume::whole(&disk)).unwrap();
    let found = names(&tree, tree.root());
    let names: Vec<_> = found
        .keys()
        .map(|name| String::from_utf8_lossy(name))
        .collect();
    assert_eq!(
        names,
        [
            "Long name.text",
            "MIXED.txt",
            "UPPER.TXT",
            "lower.txt",
            "ü.x"
        ]
    );
    let of = |name: &[u8]| tree.metadata(found[name].0).unwrap();
    assert_eq!(of(b"UPPER.TXT").permissions, 0o555);
    assert_eq!(of(b"lower.txt").permissions, 0o755);
    let by_short = tree.lookup(tree.root(), b"longna~1.tex").unwrap();
    assert_eq!(by_short, Some(found[&b"Long name.text"[..]].0));
    assert_eq!(tree.lookup(tree.root(), b"gone.txt").unwrap(), None);
    assert_eq!(tree.lookup(tree.root(), b"LABEL").unwrap(), None);
    // Without a name in the root there is none, whatever the boot sector says.
    must("mlabel", &["-i", image.name(), "-c", "::"]);
    let (_, said) = run("blkid", &["-p", "-o", "export", image.name()]);
    let label = identify(&Volume::whole(&disk_of(image.bytes())))
        .unwrap()
        .unwrap()
        .label;
    let line = said.lines().find_map(|line| line.strip_prefix("LABEL="));
    assert_eq!(label.as_deref(), line);
}

#[test]
fn dates_are_those_of_the_calendar() {
    for (text, date) in [
        ("1980-01-01", (1 << 5) | 1),
        ("2000-02-29", (20 << 9) | (2 << 5) | 29),
        ("2024-12-31", (44 << 9) | (12 << 5) | 31),
        ("2107-12-31", (127 << 9) | (12 << 5) | 31),
        ("2100-03-01", (120 << 9) | (3 << 5) | 1),
    ] {
        let said = must("date", &["-u", "-d", &format!("{text} 23:59:58"), "+%s"]);
        let time = timestamp(date, 23 << 11 | 59 << 5 | 29, 0).unwrap();
        assert_eq!(time.seconds.to_string(), said.trim());
    }
    let odd = timestamp(0x21, 0, 199).unwrap();
    let expected = Timestamp {
        seconds: 315_532_801,
        nanoseconds: 990_000_000,
    };
    assert_eq!(odd, expected);
    assert_eq!(timestamp(0, 0, 0), None);
    assert_eq!(timestamp(0x21, 24 << 11, 0), None);
}
