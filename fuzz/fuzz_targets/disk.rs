//! Disks that are made and changed: a description is read or refused in one line; a volume's pieces lie in it and apart from
//! each other; a table that was read can be changed, and reads back as what it was changed to.
#![no_main]

mod sparse_disk;

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use qimg::disk::Description;
use qimg::fat::{self, Options, Size, Tree};
use qimg::partition::NewGpt;
use qimg::volume::Volume;

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, bytes)) = bytes.split_first() else {
        return;
    };
    match choice % 3 {
        0 => description(bytes),
        1 => volume(bytes),
        _ => table(bytes),
    }
});

fn description(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Err(error) = Description::parse(text, Path::new("/nonexistent")) {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

/// Names are lines; the first bytes choose size, sectors and label.
fn volume(bytes: &[u8]) {
    let [size_low, size_high, sector, rest @ ..] = bytes else {
        return;
    };
    let mut tree = Tree::new();
    for (number, name) in String::from_utf8_lossy(rest).lines().enumerate().take(500) {
        let _ = tree.add_bytes(name, vec![1; number * 97 % 5000]);
    }
    let size = u64::from(u16::from_le_bytes([*size_low, *size_high])) << 10;
    let options = Options {
        size: if size == 0 {
            Size::Minimal { spare: 0 }
        } else {
            Size::Fixed(size)
        },
        sector_size: 512 << (sector % 5),
        label: (*sector > 128).then(|| String::from_utf8_lossy(rest).chars().take(11).collect()),
        ..Options::default()
    };
    let Ok(volume) = fat::plan(&tree, &options) else {
        return;
    };
    let mut at = 0;
    for piece in volume.pieces() {
        assert!(piece.length > 0 && piece.start >= at);
        at = piece.end();
    }
    assert!(at <= volume.size());
    let (clusters, used) = volume.clusters();
    assert!(used <= clusters);
}

fn table(bytes: &[u8]) {
    let [more, bytes @ ..] = bytes else { return };
    let Some(disk) = sparse_disk::unfold(bytes).and_then(sparse_disk::open) else {
        return;
    };
    let disk = Volume::whole(&disk);
    let Ok(mut gpt) = NewGpt::read(&disk) else {
        return;
    };
    let before = gpt.partitions();
    if gpt.resize(disk.size() + (u64::from(*more) << 12)).is_err() {
        return;
    }
    assert_eq!(gpt.partitions(), before);
    let gap = gpt.largest_gap(1 << 20);
    let usable = gpt.usable();
    assert!(gap.is_empty() || (usable.start <= gap.start && gap.end <= usable.end));
    let last = gpt.extend_last(1 << 20);
    assert!(last.is_none_or(|(_, range)| range.end <= usable.end));
    let (backup, bytes) = gpt.backup();
    assert!(backup >= usable.end && !bytes.is_empty());
    let _ = (gpt.primary(), gpt.mbr(), gpt.free_number());
}
