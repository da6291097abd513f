//! Free ranges read as zeros in what is written, and everything else as before, wherever they begin and end.

mod matrix;
mod oracle;
mod patterns;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use matrix::{Backing, Made, for_every_image};
use oracle::{Scratch, qemu_img};
use patterns::Random;
use qimg::codec::CompressionType;
use qimg::compress::{CompressRequest, Compressed, Effort, compress};
use qimg::convert::Reuse;
use qimg::free::{FreeMap, FreeMapBuilder};
use qimg::image::options::Qcow2Options;
use qimg::image::{BackingPolicy, Format, Image, OpenOptions, TargetOptions};
use qimg::rewrite::{Bitmaps, RewriteRequest, rewrite};
use qimg::store::{Locking, Sync};

fn open(path: &str) -> Image {
    let options = OpenOptions {
        backing: BackingPolicy::Any,
        ..OpenOptions::default()
    };
    Image::open(path, &options).unwrap()
}

/// Ranges of sectors, some shorter than any cluster, some longer than all of them.
fn free_map(size: usize, random: &mut Random) -> FreeMap {
    let mut builder = FreeMapBuilder::new();
    let mut at = 0;
    loop {
        let reach = [1, 3, 8, 200, 3000][random.below(5)];
        let start = at + 512 * random.below(reach);
        let end = start + 512 * (1 + random.below(reach));
        if end > size {
            return builder.build();
        }
        builder.free(start as u64..end as u64);
        at = end + 512;
    }
}

fn compress_without(
    source: &Image,
    free: &FreeMap,
    destination: &str,
    codec: CompressionType,
    flatten: bool,
    threads: usize,
) -> Compressed {
    let _ = std::fs::remove_file(destination);
    let request = CompressRequest {
        source,
        free: Some(free),
        destination: Some(Path::new(destination)),
        codec,
        effort: Effort::Default,
        window: None,
        cluster_size: None,
        flatten,
        drop_snapshots: true,
        drop_bitmaps: true,
        existing: false,
        threads,
        sync: Sync::None,
    };
    compress(&request, &AtomicBool::new(false), &mut |_, _| {}).unwrap()
}

fn read_back(scratch: &Scratch, path: &str) -> Vec<u8> {
    let raw = scratch.path("read-back.raw");
    qemu_img(&["convert", "-O", "raw", path, &raw]);
    std::fs::read(&raw).unwrap()
}

/// `stays_overlay`: what the backing file holds may still show.
fn assert_pruned(read: &[u8], made: &Made, free: &FreeMap, stays_overlay: bool, what: &str) {
    assert_eq!(read.len(), made.view.len(), "{what}");
    let mut at = 0;
    while at < read.len() {
        let (is_free, until) = free.at(at as u64);
        let until = usize::try_from(until).map_or(read.len(), |until| until.min(read.len()));
        let (new, old) = (&read[at..until], &made.view[at..until]);
        let bad = if is_free {
            new.iter()
                .zip(old)
                .position(|(&new, &old)| new != 0 && !(stays_overlay && new == old))
        } else {
            new.iter().zip(old).position(|(new, old)| new != old)
        };
        let bad = bad.map(|bad| bad + at);
        assert_eq!(bad, None, "{what}: {:?} free: {is_free}", made.case);
        at = until;
    }
}

#[test]
fn compressed_images_lose_what_is_free_and_nothing_else() {
    for_every_image(|scratch, made| {
        let source = open(&made.image);
        let number = made.case.number();
        let free = free_map(made.view.len(), &mut Random(number as u64 + 99));
        let out = scratch.path("out.qcow2");
        let codec = if number.is_multiple_of(2) {
            CompressionType::Zlib
        } else {
            CompressionType::Zstd
        };
        let flatten = number % 4 < 2;
        let done = compress_without(&source, &free, &out, codec, flatten, 1 + number % 3);
        qemu_img(&["check", "-q", &out]);
        let snapshots = usize::from(made.snapshot_view.is_some());
        assert_eq!(done.dropped_snapshots, snapshots);
        let overlay = made.case.backing() != Backing::None && !flatten;
        assert_pruned(&read_back(scratch, &out), made, &free, overlay, "compress");
        let again = scratch.path("again.qcow2");
        compress_without(&source, &free, &again, codec, flatten, 8);
        assert!(
            std::fs::read(&out).unwrap() == std::fs::read(&again).unwrap(),
            "the bytes depend on the number of threads"
        );
        assert_eq!(
            done.rewritten.file_length,
            std::fs::metadata(&out).unwrap().len()
        );
    });
}

#[test]
fn plain_copies_lose_what_is_free_and_nothing_else() {
    for_every_image(|scratch, made| {
        let source = open(&made.image);
        let number = made.case.number();
        let free = free_map(made.view.len(), &mut Random(number as u64 + 7));
        let (format, name) = if number.is_multiple_of(2) {
            (Format::Raw, "out.raw")
        } else {
            (Format::Qcow2, "out.qcow2")
        };
        let out = scratch.path(name);
        let _ = std::fs::remove_file(&out);
        let request = RewriteRequest {
            source: &source,
            snapshot: None,
            free: Some(&free),
            destination: Path::new(&out),
            target: TargetOptions {
                format,
                qcow2: Qcow2Options::default(),
                existing: false,
                sync: Sync::None,
                locking: Locking::Check,
            },
            overlay: false,
            encoding: None,
            reuse: Reuse::Copy,
            bitmaps: Bitmaps::Leave,
            sparse: [4096, 65536, 0][number % 3],
            in_place: false,
            threads: 2,
        };
        rewrite(&request, &AtomicBool::new(false), &mut |_, _| {}).unwrap();
        assert_pruned(&read_back(scratch, &out), made, &free, false, name);
    });
}
