//! `map` against `qemu-img map --output=json`, entry for entry.

#![expect(
    clippy::disallowed_types,
    reason = "only the library opens images in one place"
)]

mod oracle;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use oracle::{Scratch, qemu_img, qemu_io};
use qimg::image::measure::{Subject, measure};
use qimg::image::options::Qcow2Options;
use qimg::image::{BackingPolicy, Depth, Format, Image, OpenOptions, map};
use qimg::store::Memory;
use serde_json::Value;

fn ours(path: &str, start: u64, length: u64) -> Vec<Value> {
    let options = OpenOptions {
        backing: BackingPolicy::Any,
        ..OpenOptions::default()
    };
    let image = Image::open(path, &options).unwrap();
    let chain = image.chain(Depth::Chain, None).unwrap();
    let mut entries = Vec::new();
    map(&chain, start..start.saturating_add(length), &mut |entry| {
        entries.push(serde_json::to_value(entry).unwrap());
        Ok(())
    })
    .unwrap();
    entries
}

fn assert_map(scratch: &Scratch, name: &str) {
    let path = scratch.path(name);
    let format = if name.ends_with(".raw") {
        "raw"
    } else {
        "qcow2"
    };
    // Where a file's holes are changes while the host writes it back.
    let synced = std::process::Command::new("sync").arg(&path).status();
    assert!(synced.unwrap().success());
    let theirs = scratch.json(&["map", "--output=json", "-f", format, &path]);
    let theirs = theirs.as_array().unwrap();
    let ours = ours(&path, 0, u64::MAX);
    for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert_eq!(ours, theirs, "{name}: entry {index}");
    }
    assert_eq!(ours.len(), theirs.len(), "{name}: number of entries");
}

/// Writes of all kinds, at places that are and are not on the borders of clusters.
const WRITES: &[&str] = &[
    "write -P 1 0 4k",
    "write -P 2 64k 200k",
    "write -z 100k 64k",
    "write -z -u 300k 300k",
    "write -P 3 1M 1M",
    "discard 1280k 128k",
    "write -P 4 2500k 1k",
    "write -z 3M 2M",
    "write -P 5 4M 17k",
    "write -P 6 6291456 512",
];

#[test]
fn clusters_of_all_sizes_and_kinds() {
    let scratch = Scratch::new();
    let mut options: Vec<String> = (9..=21)
        .map(|bits| format!("cluster_size={}", 1 << bits))
        .collect();
    options.extend((14..=21).map(|bits| format!("extended_l2=on,cluster_size={}", 1 << bits)));
    for width in [1, 2, 8, 64] {
        options.push(format!("cluster_size=4k,refcount_bits={width}"));
    }
    for compat in ["0.10", "1.1"] {
        options.push(format!("compat={compat}"));
        options.push(format!("compat={compat},cluster_size=1k"));
    }
    for option in &options {
        for preallocation in ["off", "metadata", "falloc", "full"] {
            let name = format!("{option},{preallocation}.qcow2");
            let option = format!("{option},preallocation={preallocation}");
            scratch.create(&name, &["-f", "qcow2", "-o", &option], "7000k");
            assert_map(&scratch, &name);
            qemu_io("qcow2", &scratch.path(&name), WRITES);
            assert_map(&scratch, &name);
            std::fs::remove_file(scratch.path(&name)).unwrap();
        }
    }
}

#[test]
fn compressed_clusters() {
    let scratch = Scratch::new();
    scratch.copy_testdata("sample.qcow2");
    for option in [
        "compression_type=zlib",
        "compression_type=zstd,cluster_size=4k",
        "compression_type=zstd,cluster_size=2M",
        "cluster_size=512",
        "extended_l2=on",
        "compat=0.10",
    ] {
        let name = format!("{option}.qcow2");
        let (from, to) = (scratch.path("sample.qcow2"), scratch.path(&name));
        qemu_img(&["convert", "-c", "-O", "qcow2", "-o", option, &from, &to]);
        assert_map(&scratch, &name);
        qemu_io("qcow2", &to, &["write -P 7 1M 100k"]);
        assert_map(&scratch, &name);
    }
}

#[test]
fn chains_with_files_of_all_lengths() {
    let scratch = Scratch::new();
    scratch.create("base.raw", &["-f", "raw"], "3001k");
    qemu_io("raw", &scratch.path("base.raw"), &["write -P 1 100k 900k"]);
    // Not whole sectors.
    let odd = std::fs::OpenOptions::new()
        .write(true)
        .open(scratch.path("base.raw"))
        .unwrap();
    odd.set_len(3_000_123).unwrap();
    let mut below = ("base.raw".to_owned(), "raw");
    for (index, (size, options)) in [
        ("5M", "cluster_size=4k"),
        ("4M", "cluster_size=64k,extended_l2=on"),
        ("8M", "compat=0.10"),
        ("7M", "cluster_size=2M"),
        ("9M", "cluster_size=512"),
        ("9M", "extended_l2=on,preallocation=metadata"),
        ("10M", "cluster_size=32k,extended_l2=on"),
    ]
    .iter()
    .enumerate()
    {
        let name = format!("layer-{index}.qcow2");
        let (backing, format) = &below;
        let mut arguments = vec!["-f", "qcow2", "-b", backing, "-F", format];
        arguments.extend(["-o", options]);
        scratch.create(&name, &arguments, size);
        assert_map(&scratch, &name);
        let at = 300 + index * 601;
        let write = format!("write -P 2 {at}k 130k");
        let zero = format!("write -z {}k 70k", at + 300);
        qemu_io("qcow2", &scratch.path(&name), &[&write, &zero]);
        assert_map(&scratch, &name);
        below = (name, "qcow2");
    }
}

#[test]
fn external_data_files() {
    let scratch = Scratch::new();
    for (index, options) in [
        "data_file_raw=on",
        "data_file_raw=off",
        "cluster_size=4k",
        "cluster_size=2M",
        "extended_l2=on",
        "preallocation=metadata",
        "preallocation=falloc",
        "cluster_size=2M,preallocation=metadata",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("{index}.qcow2");
        let data = scratch.path(&format!("{index}.data"));
        let options = format!("data_file={data},{options}");
        scratch.create(&name, &["-f", "qcow2", "-o", &options], "7000k");
        assert_map(&scratch, &name);
        qemu_io("qcow2", &scratch.path(&name), WRITES);
        assert_map(&scratch, &name);
    }
}

#[test]
fn raw_files_with_holes() {
    let scratch = Scratch::new();
    for (index, (length, writes)) in [
        (0, &[][..]),
        (1, &[][..]),
        (1 << 20, &[(300_000, 3)][..]),
        (1 << 20, &[(0, 5000), (1_048_000, 576)][..]),
        (1_000_001, &[(999_990, 11), (0, 1)][..]),
    ]
    .iter()
    .enumerate()
    {
        let name = format!("{index}.raw");
        let file = std::fs::File::create(scratch.path(&name)).unwrap();
        file.set_len(*length).unwrap();
        for (at, bytes) in *writes {
            use std::os::unix::fs::FileExt;
            file.write_all_at(&vec![1; *bytes], *at).unwrap();
        }
        assert_map(&scratch, &name);
    }
}

#[test]
fn snapshots_leave_shared_clusters() {
    let scratch = Scratch::new();
    scratch.create(
        "a.qcow2",
        &["-f", "qcow2", "-o", "cluster_size=4k"],
        "7000k",
    );
    let path = scratch.path("a.qcow2");
    qemu_io("qcow2", &path, WRITES);
    qemu_img(&["snapshot", "-c", "one", &path]);
    qemu_io("qcow2", &path, &["write 3M 1M", "discard 0 1M"]);
    assert_map(&scratch, "a.qcow2");
}

#[test]
fn every_image_in_testdata() {
    let scratch = Scratch::new();
    for name in [
        "v2.qcow2",
        "v3.qcow2",
        "cluster-512.qcow2",
        "refcount-1.qcow2",
        "zlib.qcow2",
        "zstd.qcow2",
        "preallocated.qcow2",
        "empty.qcow2",
        "subclusters.qcow2",
        "zeros.qcow2",
        "snapshots.qcow2",
        "bitmaps.qcow2",
        "dirty.qcow2",
        "corrupt-bit.qcow2",
        "leaked.qcow2",
        "refcount-lost.qcow2",
        "sample.qcow2",
        "content.raw",
        "chain-base.raw",
        "chain-mid.qcow2",
        "chain-top.qcow2",
        "external.raw",
    ] {
        scratch.copy_testdata(name);
        assert_map(&scratch, name);
    }
    // Its data file is named relative to the directory that QEMU runs in, and to its own here.
    scratch.copy_testdata("external.qcow2");
    let path = scratch.path("external.qcow2");
    let theirs = scratch.json_there(&["map", "--output=json", "external.qcow2"]);
    assert_eq!(Value::Array(ours(&path, 0, u64::MAX)), theirs);
}

#[test]
fn a_cluster_behind_the_end_of_the_file_is_not_mapped() {
    let scratch = Scratch::new();
    scratch.copy_testdata("truncated.qcow2");
    let image = Image::open(scratch.path("truncated.qcow2"), &OpenOptions::default()).unwrap();
    let chain = image.chain(Depth::Chain, None).unwrap();
    let error = map(&chain, 0..u64::MAX, &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), qimg::ErrorKind::Corrupt);
}

#[test]
fn ranges_are_cut_as_qemu_img_cuts_them() {
    let scratch = Scratch::new();
    let options = "cluster_size=64k,extended_l2=on";
    scratch.create("a.qcow2", &["-f", "qcow2", "-o", options], "7000k");
    let path = scratch.path("a.qcow2");
    qemu_io("qcow2", &path, WRITES);
    for (start, length) in [
        (0, 1),
        (512, 100_000),
        (65_536, 1 << 20),
        (2_560_512, 4096),
        (7_000_000, 1 << 30),
        (100, 7_000_000),
        (1 << 30, 4096),
    ] {
        let (from, most) = (
            format!("--start-offset={start}"),
            format!("--max-length={length}"),
        );
        let theirs = scratch.json(&["map", "--output=json", &from, &most, &path]);
        assert_eq!(
            Value::Array(ours(&path, start, length)),
            theirs,
            "{start} {length}"
        );
    }
}

#[test]
fn a_terabyte_is_mapped_no_slower_than_qemu_img_maps_it() {
    let Ok(path) = std::env::var("QIMG_TEST_MAP_IMAGE") else {
        return;
    };
    let started = Instant::now();
    let theirs: Value = serde_json::from_str(&qemu_img(&["map", "--output=json", &path])).unwrap();
    let theirs_took = started.elapsed();
    let started = Instant::now();
    let ours = Value::Array(ours(&path, 0, u64::MAX));
    let took = started.elapsed();
    assert!(ours == theirs);
    assert!(took <= theirs_took, "{took:?} against {theirs_took:?}");
}

/// Every byte of metadata is hostile: reports may fail, and must neither panic nor go on for ever.
#[test]
fn damaged_metadata_ends_every_report() {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    for name in [
        "v3.qcow2",
        "zlib.qcow2",
        "subclusters.qcow2",
        "bitmaps.qcow2",
        "snapshots.qcow2",
        "preallocated.qcow2",
    ] {
        let sound = std::fs::read(testdata.join(name)).unwrap();
        let metadata = sound.len().min(24 << 10);
        // All of the header, and every word of the tables.
        let places = (0..200).chain((200..metadata).step_by(8));
        for (place, value) in places.flat_map(|place| [(place, 0xff), (place, 0x41), (place, 0)]) {
            let mut bytes = sound.clone();
            bytes[place] = value;
            let store = Arc::new(Memory::from(bytes));
            let Ok(image) = Image::from_store(store, name, &OpenOptions::default()) else {
                continue;
            };
            let _ = image.info();
            let _ = image.census(1, &AtomicBool::new(false));
            let Ok(chain) = image.chain(Depth::Top, None) else {
                continue;
            };
            let subject = Subject::Contents {
                image: &image,
                chain: &chain,
            };
            let _ = measure(subject, Format::Qcow2, &Qcow2Options::default());
            let mut end = 0;
            let whole = map(&chain, 0..u64::MAX, &mut |entry| {
                assert_eq!(entry.start, end, "{name} {place}");
                end += entry.length;
                Ok(())
            });
            if whole.is_ok() {
                assert_eq!(end, image.virtual_size().unwrap(), "{name} {place}");
            }
        }
    }
}
