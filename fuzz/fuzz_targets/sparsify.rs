//! Sparsifying in place: whatever the bytes, it ends soon; what it refuses it does not touch, and what it writes stays
//! sound and reads as before but for free bytes.
#![no_main]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use qimg::free::{FreeMap, FreeMapBuilder};
use qimg::image::check::CheckOptions;
use qimg::image::{Depth, Format, Image, InPlace, OpenOptions};
use qimg::source::Source;
use qimg::sparsify::{SparsifyRequest, sparsify};
use qimg::store::{Memory, ReadAt, Sync, WriteAt};

/// Disks up to this size are read as a whole.
const SMALL_DISK: u64 = 1 << 20;

// The first byte: bit 0 zeros, bit 1 nothing is free. Then three free ranges: start and length in KiB, a byte each.
fuzz_target!(|bytes: &[u8]| {
    let Some((choices, image)) = bytes.split_first_chunk::<7>() else {
        return;
    };
    let free = free_map(choices);
    let before = look(image.to_vec());
    let memory = Memory::from(image.to_vec());
    let store: Arc<dyn WriteAt> = Arc::new(memory.clone());
    let Ok(opened) = InPlace::from_store(store, "fuzz.qcow2", &options()) else {
        return;
    };
    let request = SparsifyRequest {
        free: &free,
        zeros: choices[0] & 1 != 0,
        dry_run: false,
        threads: 1,
        sync: Sync::None,
    };
    let done = sparsify(opened, &request, &AtomicBool::new(false), &mut |_| {});
    let after = memory.to_vec();
    if done.is_err() {
        assert!(after == image, "refused, but written");
        return;
    }
    let (Some(before), Some(after)) = (before, look(after)) else {
        return;
    };
    assert!(before.0 && after.0, "an image with errors was written");
    if let (Some(before), Some(after)) = (before.1, after.1) {
        assert_eq!(before.len(), after.len());
        for (at, (old, new)) in (0..).zip(before.iter().zip(&after)) {
            assert!(old == new || (*new == 0 && free.at(at).0), "byte {at:#x}");
        }
    }
});

fn options() -> OpenOptions {
    OpenOptions {
        format: Some(Format::Qcow2),
        ..OpenOptions::default()
    }
}

fn free_map(choices: &[u8; 7]) -> FreeMap {
    let mut builder = FreeMapBuilder::new();
    if choices[0] & 2 == 0 {
        for pair in choices[1..].as_chunks::<2>().0 {
            let [start, length] = pair.map(|byte| u64::from(byte) << 10);
            builder.free(start..start + length);
        }
    }
    builder.build()
}

/// Whether an image is sound, and what its disk reads as, if that is small and all there.
fn look(bytes: Vec<u8>) -> Option<(bool, Option<Vec<u8>>)> {
    let store: Arc<dyn ReadAt> = Arc::new(Memory::from(bytes));
    let image = Image::from_store(store, "fuzz.qcow2", &options()).ok()?;
    let report = image.check(&CheckOptions {
        threads: 1,
        cancel: &AtomicBool::new(false),
        progress: None,
    });
    let sound = report.is_ok_and(|report| report.corruptions + report.check_errors == 0);
    let chain = image.chain(Depth::Top, None).ok()?;
    let disk = (chain.virtual_size() <= SMALL_DISK).then(|| {
        let mut disk = vec![0; usize::try_from(chain.virtual_size()).unwrap()];
        let read = chain.reader().read_at(0, &mut disk);
        read.is_ok().then_some(disk)
    });
    Some((sound, disk.flatten()))
}
