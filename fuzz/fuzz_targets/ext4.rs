//! ext2, ext3 and ext4 with any of their metadata changed: an answer comes soon, and what is free lies in the volume.
//!
//! The first byte chooses one of the images of `ext4.images`: ext4 and ext3 with a journal to replay, one with
//! descriptors all over it, one with clusters, one without checksums and with deep trees of extents and of block numbers.
//! The others change bytes, four a change: which of the sectors that are not empty (or any other one: 0xff), which of
//! its bytes (two), and the new value. Checksums are not looked at while fuzzing.
#![no_main]

use std::io::Read;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use qimg::fs::FreeOptions;
use qimg::fs::fuzzing::ext4_free_space;
use qimg::image::{Depth, Format, Image, OpenOptions};
use qimg::store::{Memory, ReadAt};
use qimg::volume::Volume;

/// Made with mke2fs and debugfs; deflated. Each: sectors, sectors that follow, and these with their numbers.
const IMAGES: &[u8] = include_bytes!("ext4.images");

struct Base {
    bytes: Vec<u8>,
    filled: Vec<usize>,
}

static BASES: LazyLock<Vec<Base>> = LazyLock::new(|| {
    let mut packed = Vec::new();
    flate2::read::ZlibDecoder::new(IMAGES).read_to_end(&mut packed).unwrap();
    let mut rest = packed.as_slice();
    let mut number = |length: usize| {
        let (head, tail) = rest.split_at(length);
        rest = tail;
        head
    };
    let mut bases = Vec::new();
    for _ in 0..5 {
        let mut word = || u32::from_le_bytes(number(4).try_into().unwrap()) as usize;
        let (sectors, count) = (word(), word());
        let mut base = Base {
            bytes: vec![0; sectors * 512],
            filled: Vec::new(),
        };
        for _ in 0..count {
            let at = u32::from_le_bytes(number(4).try_into().unwrap()) as usize;
            base.bytes[at * 512..][..512].copy_from_slice(number(512));
            base.filled.push(at);
        }
        bases.push(base);
    }
    bases
});

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, changes)) = bytes.split_first() else {
        return;
    };
    let base = &BASES[usize::from(choice % 5)];
    let mut image = base.bytes.clone();
    for [sector, high, low, value] in changes.as_chunks::<4>().0 {
        let at = usize::from(u16::from_be_bytes([*high, *low]));
        let at = match usize::from(*sector) {
            0xff => at * 64,
            sector => base.filled[sector % base.filled.len()] * 512 + at % 512,
        };
        if let Some(byte) = image.get_mut(at) {
            *byte = *value;
        }
    }
    let size = image.len() as u64;
    let store: Arc<dyn ReadAt> = Arc::new(Memory::from(image));
    let options = OpenOptions {
        format: Some(Format::Raw),
        ..OpenOptions::default()
    };
    let image = Image::from_store(store, "disk", &options).unwrap();
    let chain = image.chain(Depth::Top, None).unwrap();
    let volume = Volume::whole(&chain);
    for replay_journal in [false, true] {
        if let Ok(space) = ext4_free_space(&volume, &FreeOptions { replay_journal }) {
            let ranges = space.free.ranges();
            assert!(ranges.iter().all(|range| range.start >= 2048 && range.end <= size));
            assert!(ranges.is_sorted_by(|a, b| a.end < b.start));
        }
    }
});
