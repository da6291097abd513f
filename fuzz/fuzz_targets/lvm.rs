//! Physical volumes of LVM: whatever the bytes, free extents and volumes lie apart from each other and from the label.
#![no_main]

mod sparse_disk;

use libfuzzer_sys::fuzz_target;
use qimg::lvm::read;
use qimg::volume::Volume;

fuzz_target!(|bytes: &[u8]| {
    let Some(disk) = sparse_disk::unfold(bytes).and_then(sparse_disk::open) else {
        return;
    };
    let disk = Volume::whole(&disk);
    let Ok(Some(group)) = read(&disk) else {
        return;
    };
    assert!(
        group
            .free
            .ranges()
            .iter()
            .all(|range| range.start >= 2048 && range.end <= disk.size())
    );
    let mut used = Vec::new();
    for logical in &group.volumes {
        assert!(logical.unusable.is_none() || logical.volume.size() == 0);
        used.extend(logical.volume.on_disk(0..logical.volume.size()));
    }
    for range in &used {
        assert!(range.end <= disk.size());
        assert!(group.free.within(range.clone()).next().is_none());
    }
    used.sort_by_key(|range| range.start);
    assert!(used.is_sorted_by(|one, other| one.end <= other.start));
});
