//! Partition tables: whatever the bytes, partitions and the table itself lie on the disk, and a table that may be
//! relied upon has none that touches another or the table.
#![no_main]

mod sparse_disk;

use libfuzzer_sys::fuzz_target;
use qimg::partition::{TableKind, boot_code, read};
use qimg::volume::Volume;

fuzz_target!(|bytes: &[u8]| {
    let Some(disk) = sparse_disk::unfold(bytes).and_then(sparse_disk::open) else {
        return;
    };
    let disk = Volume::whole(&disk);
    let _ = boot_code(&disk).unwrap();
    let table = read(&disk).unwrap();
    let inside = |range: &std::ops::Range<u64>| range.start < range.end && range.end <= disk.size();
    assert!(table.metadata.iter().all(inside));
    assert!(
        table
            .metadata
            .is_sorted_by(|one, other| one.end < other.start)
    );
    assert!(table.notes.len() <= 17);
    for part in &table.partitions {
        assert!(inside(&part.range));
        let _ = (part.kind.name(), part.kind.is_verity());
    }
    if table.kind == TableKind::None {
        assert!(table.partitions.is_empty() && table.damaged.is_none());
    }
    if table.damaged.is_none() {
        let mut ranges: Vec<_> = table
            .partitions
            .iter()
            .map(|part| part.range.clone())
            .collect();
        ranges.sort_by_key(|range| range.start);
        assert!(ranges.is_sorted_by(|one, other| one.end <= other.start));
    }
});
