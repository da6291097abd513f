//! What is converted reads as before: qemu-img says so, for every kind of image it makes.

mod matrix;
mod oracle;
mod patterns;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use matrix::{Backing, Made, for_every_image};
use oracle::{Scratch, qemu_img, qemu_io};
use patterns::Random;
use qimg::codec::{CompressionType, DeflateWindow, EncoderOptions};
use qimg::convert::Reuse;
use qimg::create::{CreateRequest, create};
use qimg::image::options::Qcow2Options;
use qimg::image::{BackingPolicy, Format, Image, OpenOptions, TargetOptions};
use qimg::rewrite::{Bitmaps, RewriteRequest, Rewritten, rewrite};
use qimg::store::{Locking, Sync};
use serde_json::Value;

fn open(path: &str) -> Image {
    let options = OpenOptions {
        backing: BackingPolicy::Any,
        ..OpenOptions::default()
    };
    Image::open(path, &options).unwrap()
}

fn target(format: Format, qcow2: Qcow2Options) -> TargetOptions {
    TargetOptions {
        format,
        qcow2,
        existing: false,
        sync: Sync::None,
        locking: Locking::Check,
    }
}

fn request<'a>(
    source: &'a Image,
    destination: &'a str,
    target: TargetOptions,
) -> RewriteRequest<'a> {
    RewriteRequest {
        source,
        snapshot: None,
        free: None,
        destination: Path::new(destination),
        target,
        overlay: false,
        encoding: None,
        reuse: Reuse::Copy,
        bitmaps: Bitmaps::Leave,
        sparse: 4096,
        in_place: false,
        threads: 2,
    }
}

/// Writes a new file: what an earlier round left may still be locked by a process that another test just forked.
fn run(request: &RewriteRequest<'_>) -> qimg::Result<Rewritten> {
    if !request.target.existing {
        let _ = std::fs::remove_file(request.destination);
    }
    rewrite(request, &AtomicBool::new(false), &mut |_, _| {})
}

fn to_raw<'a>(source: &'a Image, destination: &'a str) -> RewriteRequest<'a> {
    request(
        source,
        destination,
        target(Format::Raw, Qcow2Options::default()),
    )
}

/// `key=value,...` as after `-o`.
fn options(text: &str) -> Qcow2Options {
    let mut options = Qcow2Options::default();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap();
        options.set(key, value).unwrap();
    }
    options
}

fn encoding(codec: CompressionType) -> Option<EncoderOptions> {
    Some(EncoderOptions {
        codec,
        level: None,
        window: DeflateWindow::Full,
    })
}

fn assert_same_bytes(left: &[u8], right: &[u8], what: &str) {
    if left != right {
        let at = left.iter().zip(right).position(|(a, b)| a != b);
        panic!(
            "{what}: {} and {} bytes, first difference {at:?}",
            left.len(),
            right.len()
        );
    }
}

/// The image at `path` is sound and reads as `view`, both by qemu-img's word.
fn assert_sound(scratch: &Scratch, path: &str, view: &[u8]) {
    qemu_img(&["check", "-q", path]);
    let raw = scratch.path("read-back.raw");
    qemu_img(&["convert", "-O", "raw", path, &raw]);
    assert_same_bytes(&std::fs::read(&raw).unwrap(), view, path);
    std::fs::remove_file(&raw).unwrap();
}

/// Options of new images, and whether their clusters are compressed.
const TARGETS: [(&str, bool); 20] = [
    ("", false),
    ("", true),
    ("cluster_size=512", false),
    ("cluster_size=512", true),
    ("cluster_size=4k", true),
    ("cluster_size=2M", false),
    ("cluster_size=2M", true),
    ("compat=0.10", false),
    ("compat=0.10", true),
    ("refcount_bits=1", true),
    ("refcount_bits=1,cluster_size=4k", false),
    ("refcount_bits=2,cluster_size=512", true),
    ("refcount_bits=64,compression_type=zstd", true),
    ("compression_type=zstd,cluster_size=256k", true),
    ("extended_l2=on", false),
    ("extended_l2=on,cluster_size=16k", true),
    ("lazy_refcounts=on,preallocation=metadata", false),
    ("preallocation=falloc,cluster_size=32k", false),
    ("preallocation=full,extended_l2=on", false),
    ("preallocation=metadata,cluster_size=512", false),
];

#[test]
fn every_image_reads_the_same_after_conversion() {
    for_every_image(|scratch, made| {
        let source = open(&made.image);
        let raw = scratch.path("out.raw");
        run(&to_raw(&source, &raw)).unwrap();
        assert_same_bytes(&std::fs::read(&raw).unwrap(), &made.view, "raw");
        if let Some(view) = &made.snapshot_view {
            let of_snapshot = RewriteRequest {
                snapshot: Some("one"),
                ..to_raw(&source, &raw)
            };
            run(&of_snapshot).unwrap();
            assert_same_bytes(&std::fs::read(&raw).unwrap(), view, "snapshot");
        }
        // Each case meets some kinds of target, and each kind many cases.
        let step = 7;
        for (text, compresses) in TARGETS.iter().skip(made.case.number() % step).step_by(step) {
            let out = scratch.path("out.qcow2");
            let qcow2 = options(text);
            let to_qcow2 = RewriteRequest {
                encoding: encoding(qcow2.compression_type).filter(|_| *compresses),
                ..request(&source, &out, target(Format::Qcow2, qcow2))
            };
            run(&to_qcow2).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_sound(scratch, &out, &made.view);
        }
        if made.case.number().is_multiple_of(4) {
            converts_with_data_file(scratch, made, &source);
        }
        if made.case.backing() != Backing::None {
            overlay_stays_overlay(scratch, made, &source);
        }
        if made.case.has_bitmaps() {
            bitmaps_are_carried(scratch, made, &source);
        }
    });
}

fn converts_with_data_file(scratch: &Scratch, made: &Made, source: &Image) {
    for raw in [false, true] {
        let out = scratch.path("split.qcow2");
        let data = scratch.path("split.data");
        let mut qcow2 = options("cluster_size=32k");
        qcow2.data_file = Some(data.clone());
        qcow2.data_file_raw = raw;
        run(&request(source, &out, target(Format::Qcow2, qcow2))).unwrap();
        assert_sound(scratch, &out, &made.view);
        if raw {
            assert_same_bytes(&std::fs::read(&data).unwrap(), &made.view, "raw data file");
        }
    }
}

fn overlay_stays_overlay(scratch: &Scratch, made: &Made, source: &Image) {
    let (name, format) = source.backing_file().unwrap();
    let backing = Some((name.to_owned(), format.unwrap().to_owned()));
    let texts = [
        "",
        "cluster_size=512",
        "cluster_size=2M",
        "extended_l2=on",
        "compat=0.10",
    ];
    let kinds: Vec<_> = texts
        .iter()
        .flat_map(|text| [(text, false), (text, true)])
        .collect();
    let step = 3;
    let first = made.case.number() % step;
    for (text, compresses) in kinds.into_iter().skip(first).step_by(step) {
        let out = scratch.path("overlay.qcow2");
        let qcow2 = Qcow2Options {
            backing: backing.clone(),
            ..options(text)
        };
        let request = RewriteRequest {
            overlay: true,
            encoding: encoding(CompressionType::Zlib).filter(|_| compresses),
            ..request(source, &out, target(Format::Qcow2, qcow2))
        };
        run(&request).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_sound(scratch, &out, &made.view);
        assert_eq!(info(&out)["backing-filename"], name);
    }
}

fn bitmaps_are_carried(scratch: &Scratch, made: &Made, source: &Image) {
    for text in ["", "cluster_size=512", "cluster_size=2M"] {
        let out = scratch.path("bitmaps.qcow2");
        let request = RewriteRequest {
            bitmaps: Bitmaps::Copy,
            ..request(source, &out, target(Format::Qcow2, options(text)))
        };
        run(&request).unwrap();
        assert_sound(scratch, &out, &made.view);
        let listed = |path: &str| info(path)["format-specific"]["data"]["bitmaps"].clone();
        assert_eq!(listed(&out), listed(&made.image));
        let bits = read_bitmaps(&out);
        assert_eq!(bits, read_bitmaps(&made.image));
        assert!(bits["recording"].contains(&true));
        assert!(!bits["stopped"].contains(&true));
    }
}

/// The persistent bitmaps of an image, granule by granule: read here, independently of the library.
fn read_bitmaps(path: &str) -> BTreeMap<String, Vec<bool>> {
    let bytes = std::fs::read(path).unwrap();
    let be = |at: usize, length: usize| {
        bytes[at..at + length]
            .iter()
            .fold(0u64, |value, &byte| value << 8 | u64::from(byte))
    };
    let cluster = 1usize << be(20, 4);
    let size = be(24, 8);
    let mut at = be(100, 4) as usize;
    while be(at, 4) != 0x2385_2875 {
        assert_ne!(be(at, 4), 0, "no bitmaps extension");
        at += 8 + (be(at + 4, 4) as usize).next_multiple_of(8);
    }
    let mut entry = be(at + 8 + 16, 8) as usize;
    let mut bitmaps = BTreeMap::new();
    for _ in 0..be(at + 8, 4) {
        let (table, entries) = (be(entry, 8) as usize, be(entry + 8, 4) as usize);
        let granularity = 1u64 << be(entry + 17, 1);
        let (name_length, extra) = (be(entry + 18, 2) as usize, be(entry + 20, 4) as usize);
        let name = &bytes[entry + 24 + extra..][..name_length];
        let mut bits = Vec::new();
        for index in 0..entries {
            let word = be(table + index * 8, 8);
            for bit in 0..cluster * 8 {
                bits.push(match word {
                    0 => false,
                    1 => true,
                    host => bytes[host as usize + bit / 8] >> (bit % 8) & 1 == 1,
                });
            }
        }
        bits.truncate(size.div_ceil(granularity) as usize);
        bitmaps.insert(String::from_utf8(name.to_vec()).unwrap(), bits);
        entry += (24 + extra + name_length).next_multiple_of(8);
    }
    bitmaps
}

fn info(path: &str) -> Value {
    serde_json::from_str(&qemu_img(&["info", "--output=json", path])).unwrap()
}

/// A raw file of `bytes`.
fn raw_file(scratch: &Scratch, name: &str, bytes: &[u8]) -> String {
    let path = scratch.path(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Text, noise, zeros and a cut end.
fn mixed(clusters: usize) -> Vec<u8> {
    let mut random = Random(77);
    let mut bytes = Vec::new();
    for cluster in 0..clusters {
        bytes.extend(match cluster % 4 {
            0 => random.text(65536),
            1 => random.noise(65536),
            _ => vec![0; 65536],
        });
    }
    bytes.extend(random.text(1536));
    bytes
}

#[test]
fn raw_converts_to_every_kind_of_qcow2() {
    let scratch = Scratch::new();
    let bytes = mixed(24);
    let path = raw_file(&scratch, "in.raw", &bytes);
    let source = open(&path);
    for (text, compresses) in TARGETS {
        let out = scratch.path("out.qcow2");
        let qcow2 = options(text);
        let expected = qcow2.clone();
        let request = RewriteRequest {
            encoding: encoding(qcow2.compression_type).filter(|_| compresses),
            ..request(&source, &out, target(Format::Qcow2, qcow2))
        };
        run(&request).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_sound(&scratch, &out, &bytes);
        let info = info(&out);
        let data = &info["format-specific"]["data"];
        assert_eq!(info["cluster-size"], expected.cluster_size, "{text}");
        assert_eq!(data["refcount-bits"], expected.refcount_bits, "{text}");
        assert_eq!(
            data["compression-type"],
            expected.compression_type.to_string(),
            "{text}"
        );
    }
}

#[test]
fn a_file_that_ends_within_a_sector_is_filled_up_with_zeros() {
    let scratch = Scratch::new();
    for length in [0, 1, 511, 513, 65537, 131071] {
        let bytes = Random(length as u64 + 1).noise(length);
        let path = raw_file(&scratch, "in.raw", &bytes);
        let source = open(&path);
        let out = scratch.path("out.qcow2");
        run(&request(&source, &out, target(Format::Qcow2, options("")))).unwrap();
        let mut view = bytes;
        view.resize(length.next_multiple_of(512), 0);
        assert_sound(&scratch, &out, &view);
    }
}

#[test]
fn a_hole_in_the_source_is_a_hole_in_the_target() {
    let scratch = Scratch::new();
    let path = scratch.path("in.raw");
    qemu_img(&["create", "-q", "-f", "raw", &path, "64M"]);
    let noise = raw_file(&scratch, "noise", &Random(5).noise(1 << 20));
    let fill = format!("write -s {noise} 16M 1M");
    let zeros = "write -P 0 32M 1M";
    qemu_io("raw", &path, &[&fill, zeros]);
    let source = open(&path);

    let ours = scratch.path("ours.raw");
    run(&to_raw(&source, &ours)).unwrap();
    let theirs = scratch.path("theirs.raw");
    qemu_img(&["convert", "-O", "raw", &path, &theirs]);
    let map: Value =
        serde_json::from_str(&qemu_img(&["map", "--output=json", "-f", "raw", &ours])).unwrap();
    let data: Vec<_> = map
        .as_array()
        .unwrap()
        .iter()
        .filter(|extent| extent["data"] == true)
        .collect();
    assert_eq!(data.len(), 1, "{map}");
    assert_eq!(
        (&data[0]["start"], &data[0]["length"]),
        (&(16 << 20).into(), &(1 << 20).into())
    );
    let blocks = |path: &str| std::fs::metadata(path).unwrap().blocks();
    assert!(
        blocks(&ours) <= blocks(&theirs),
        "{} > {}",
        blocks(&ours),
        blocks(&theirs)
    );

    // Everything is written when that is asked for.
    let full = RewriteRequest {
        sparse: 0,
        ..to_raw(&source, &ours)
    };
    run(&full).unwrap();
    assert!(blocks(&ours) * 512 >= 64 << 20);

    // And back again: what is not allocated stays so.
    let out = scratch.path("out.qcow2");
    run(&request(&source, &out, target(Format::Qcow2, options("")))).unwrap();
    let check: Value = serde_json::from_str(&qemu_img(&["check", "--output=json", &out])).unwrap();
    assert_eq!(check["allocated-clusters"], 16);
    assert!(std::fs::metadata(&out).unwrap().len() < 2 << 20);
}

#[test]
fn preallocation_reserves_what_it_says() {
    let scratch = Scratch::new();
    let bytes = mixed(16);
    let source_path = raw_file(&scratch, "in.raw", &bytes);
    let source = open(&source_path);
    let size = bytes.len() as u64;
    let allocated = |path: &str| std::fs::metadata(path).unwrap().blocks() * 512;
    for (how, reserves) in [("metadata", false), ("falloc", true), ("full", true)] {
        let out = scratch.path(how);
        let text = format!("preallocation={how}");
        run(&request(
            &source,
            &out,
            target(Format::Qcow2, options(&text)),
        ))
        .unwrap();
        assert_sound(&scratch, &out, &bytes);
        let check: Value =
            serde_json::from_str(&qemu_img(&["check", "--output=json", &out])).unwrap();
        assert_eq!(
            check["allocated-clusters"], check["total-clusters"],
            "{how}"
        );
        assert!(!reserves || allocated(&out) >= size, "{how}");
        if reserves {
            let raw = scratch.path("out.raw");
            run(&request(&source, &raw, target(Format::Raw, options(&text)))).unwrap();
            assert!(allocated(&raw) >= size, "{how}");
            assert_same_bytes(&std::fs::read(&raw).unwrap(), &bytes, how);
        }
    }
}

#[test]
fn create_makes_what_qemu_img_makes() {
    let scratch = Scratch::new();
    let base = scratch.path("base.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", &base, "3M"]);
    let mut all: Vec<String> = TARGETS.iter().map(|(text, _)| (*text).to_owned()).collect();
    all.extend(["4", "8", "16", "32"].map(|bits| format!("refcount_bits={bits}")));
    all.push("data_file=DATA".to_owned());
    all.push("data_file=DATA,data_file_raw=on".to_owned());
    all.push("data_file=DATA,preallocation=full".to_owned());
    all.push("backing_file=base.qcow2,backing_fmt=qcow2".to_owned());
    all.push(
        "backing_file=base.qcow2,backing_fmt=qcow2,extended_l2=on,preallocation=metadata"
            .to_owned(),
    );
    all.push(
        "backing_file=base.qcow2,backing_fmt=qcow2,extended_l2=on,preallocation=falloc".to_owned(),
    );
    for text in all {
        for size in [0u64, 512, 3 << 20, (5 << 20) + 512, 1 << 30] {
            let large = size > 16 << 20;
            if large
                && (text.contains("full")
                    || text.contains("falloc")
                    || text.contains("cluster_size=512"))
            {
                continue;
            }
            let (ours, theirs) = (scratch.path("ours.qcow2"), scratch.path("theirs.qcow2"));
            let [our_text, their_text] = ["ours", "theirs"]
                .map(|who| text.replace("DATA", &scratch.path(&format!("{who}.data"))));
            let size_text = size.to_string();
            let mut arguments = vec!["create", "-q", "-f", "qcow2"];
            if !their_text.is_empty() {
                arguments.extend(["-o", &their_text]);
            }
            arguments.extend([theirs.as_str(), &size_text]);
            qemu_img(&arguments);
            let request = CreateRequest {
                path: ours.clone().into(),
                size: Some(size),
                target: target(Format::Qcow2, options(&our_text)),
                unchecked_backing: false,
            };
            create(&request).unwrap_or_else(|error| panic!("{text} {size}: {error}"));
            qemu_img(&["check", "-q", &ours]);
            assert_eq!(comparable(&ours), comparable(&theirs), "{text} {size}");
            let map = |path: &str| {
                let extents: Value =
                    serde_json::from_str(&qemu_img(&["map", "--output=json", path])).unwrap();
                merged(&extents)
            };
            assert_eq!(map(&ours), map(&theirs), "{text} {size}");
        }
    }
}

/// What `info` says of an image, but for names and host sizes.
fn comparable(path: &str) -> Value {
    let mut info = info(path);
    let object = info.as_object_mut().unwrap();
    for key in ["filename", "actual-size", "children"] {
        object.remove(key);
    }
    info["format-specific"]["data"]
        .as_object_mut()
        .unwrap()
        .remove("data-file");
    info
}

/// Extents that differ in nothing but their place on the host, joined.
fn merged(extents: &Value) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for extent in extents.as_array().unwrap() {
        let mut extent = extent.clone();
        let members = extent.as_object_mut().unwrap();
        members.remove("offset");
        if members["data"] == true {
            // Whether the host has a hole there depends on how the file grew.
            members.remove("zero");
        }
        if let Some(last) = all.last_mut() {
            let same = ["depth", "present", "zero", "data", "compressed"]
                .iter()
                .all(|key| last[key] == extent[key]);
            if same {
                last["length"] =
                    (last["length"].as_u64().unwrap() + extent["length"].as_u64().unwrap()).into();
                continue;
            }
        }
        all.push(extent);
    }
    all
}

#[test]
fn create_takes_the_size_of_the_backing_file() {
    let scratch = Scratch::new();
    let base = scratch.path("base.raw");
    std::fs::write(&base, vec![1; 70_000]).unwrap();
    let path = scratch.path("overlay.qcow2");
    let request = CreateRequest {
        path: path.clone().into(),
        size: None,
        target: target(
            Format::Qcow2,
            options("backing_file=base.raw,backing_fmt=raw"),
        ),
        unchecked_backing: false,
    };
    create(&request).unwrap();
    assert_eq!(info(&path)["virtual-size"], 70_144);
}

#[test]
fn an_existing_raw_image_takes_the_contents_and_keeps_its_end() {
    let scratch = Scratch::new();
    let bytes = mixed(12);
    let path = raw_file(&scratch, "in.raw", &bytes);
    let source = open(&path);
    let old = Random(9).noise(bytes.len() + 200_192);
    let ours = raw_file(&scratch, "ours.raw", &old);
    let theirs = raw_file(&scratch, "theirs.raw", &old);
    let inode = std::fs::metadata(&ours).unwrap().ino();
    let into = RewriteRequest {
        target: TargetOptions {
            existing: true,
            ..target(Format::Raw, options(""))
        },
        ..to_raw(&source, &ours)
    };
    run(&into).unwrap();
    qemu_img(&["convert", "-n", "-f", "raw", "-O", "raw", &path, &theirs]);
    assert_same_bytes(
        &std::fs::read(&ours).unwrap(),
        &std::fs::read(&theirs).unwrap(),
        "-n",
    );
    assert_eq!(std::fs::metadata(&ours).unwrap().ino(), inode);

    std::fs::write(&ours, vec![7; 4096]).unwrap();
    let error = run(&into).unwrap_err();
    assert_eq!(error.kind(), qimg::ErrorKind::Usage, "{error}");
    assert_eq!(std::fs::read(&ours).unwrap(), vec![7; 4096]);
}

#[test]
fn an_existing_qcow2_image_keeps_its_options_and_size() {
    let scratch = Scratch::new();
    let bytes = mixed(12);
    let path = raw_file(&scratch, "in.raw", &bytes);
    let source = open(&path);
    for (text, codec) in [
        ("cluster_size=4k,refcount_bits=8", None),
        ("compat=0.10,cluster_size=128k", None),
        ("extended_l2=on", None),
        (
            "cluster_size=32k,compression_type=zstd",
            Some(CompressionType::Zstd),
        ),
    ] {
        let out = scratch.path("out.qcow2");
        qemu_img(&["create", "-q", "-f", "qcow2", "-o", text, &out, "2M"]);
        // Behind what is written it is empty.
        let fill = format!("write -P 9 0 {}", bytes.len());
        qemu_io("qcow2", &out, &[fill.as_str()]);
        let before = comparable(&out);
        let into = RewriteRequest {
            encoding: codec.and_then(encoding),
            target: TargetOptions {
                existing: true,
                ..target(Format::Qcow2, options(""))
            },
            ..to_raw(&source, &out)
        };
        run(&into).unwrap();
        assert_eq!(comparable(&out), before, "{text}");
        let mut view = bytes.clone();
        view.resize(2 << 20, 0);
        assert_sound(&scratch, &out, &view);
    }
}

#[test]
fn an_existing_image_with_more_than_contents_is_left_alone() {
    let scratch = Scratch::new();
    let path = raw_file(&scratch, "in.raw", &mixed(4));
    let source = open(&path);
    let out = scratch.path("out.qcow2");
    let into = RewriteRequest {
        target: TargetOptions {
            existing: true,
            ..target(Format::Qcow2, options(""))
        },
        ..to_raw(&source, &out)
    };
    for make in [
        &["snapshot", "-c", "one"][..],
        &["bitmap", "--add"],
        &["rebase", "-u", "-F", "raw", "-b", "in.raw"],
    ] {
        qemu_img(&["create", "-q", "-f", "qcow2", &out, "2M"]);
        let mut arguments = make.to_vec();
        arguments.push(&out);
        if make[0] == "bitmap" {
            arguments.push("b");
        }
        qemu_img(&arguments);
        let before = std::fs::read(&out).unwrap();
        let error = run(&into).unwrap_err();
        assert_eq!(error.kind(), qimg::ErrorKind::Refused, "{make:?}: {error}");
        assert!(error.remedy().is_some());
        assert_same_bytes(&std::fs::read(&out).unwrap(), &before, "refused");
    }
}

#[test]
fn an_inconsistent_bitmap_is_refused_or_left_out() {
    let scratch = Scratch::new();
    scratch.copy_testdata("v3.qcow2");
    let path = scratch.path("v3.qcow2");
    qemu_img(&["bitmap", "--add", &path, "broken"]);
    // A writer that does not end cleanly leaves the bitmap marked as in use.
    scratch.abort_after(&path, "write 0 512");
    qemu_img(&["bitmap", "--add", &path, "sound"]);
    let source = open(&path);
    let out = scratch.path("out.qcow2");
    let mut request = RewriteRequest {
        bitmaps: Bitmaps::Copy,
        ..request(&source, &out, target(Format::Qcow2, options("")))
    };
    let error = run(&request).unwrap_err();
    assert!(error.to_string().contains("broken"), "{error}");
    assert!(!Path::new(&out).exists());
    request.bitmaps = Bitmaps::SkipBroken;
    run(&request).unwrap();
    let bitmaps = info(&out)["format-specific"]["data"]["bitmaps"].clone();
    assert_eq!(bitmaps.as_array().unwrap().len(), 1);
    assert_eq!(bitmaps[0]["name"], "sound");
}

#[test]
fn bytes_never_depend_on_the_number_of_threads() {
    let scratch = Scratch::new();
    let path = raw_file(&scratch, "in.raw", &mixed(100));
    let source = open(&path);
    for (text, compresses) in [
        ("", false),
        ("", true),
        ("compression_type=zstd,cluster_size=4k", true),
    ] {
        let outputs = [1, 2, 8].map(|threads| {
            let out = scratch.path("out.qcow2");
            let qcow2 = options(text);
            let request = RewriteRequest {
                threads,
                encoding: encoding(qcow2.compression_type).filter(|_| compresses),
                ..request(&source, &out, target(Format::Qcow2, qcow2))
            };
            run(&request).unwrap();
            std::fs::read(&out).unwrap()
        });
        assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }
}

#[test]
fn zeros_between_data_do_not_show_the_backing_file_through_subclusters() {
    let scratch = Scratch::new();
    let base = scratch.path("base.raw");
    std::fs::write(&base, vec![7; 256 << 10]).unwrap();
    let path = scratch.path("overlay.qcow2");
    let create = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "cluster_size=4k",
        "-b",
        "base.raw",
        "-F",
        "raw",
    ];
    qemu_img(&[&create[..], &[&path]].concat());
    qemu_io("qcow2", &path, &["write -P 1 64k 4k", "write -z 68k 60k"]);
    let source = open(&path);
    for text in [
        "extended_l2=on",
        "extended_l2=on,cluster_size=128k",
        "extended_l2=on,preallocation=metadata",
    ] {
        let out = scratch.path("out.qcow2");
        let qcow2 = Qcow2Options {
            backing: Some(("base.raw".to_owned(), "raw".to_owned())),
            ..options(text)
        };
        let overlay = RewriteRequest {
            overlay: true,
            ..request(&source, &out, target(Format::Qcow2, qcow2))
        };
        run(&overlay).unwrap();
        let said = qemu_img(&["compare", &path, &out]);
        assert!(said.contains("identical"), "{text}: {said}");
    }
}

/// External snapshots taken every day, and the states of a build, make chains of dozens.
#[test]
fn a_chain_of_many_images_reads_the_same_and_one_without_end_is_refused() {
    let scratch = Scratch::new();
    let mut below = scratch.path("0.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", &below, "1M"]);
    for number in 1..257_usize {
        let path = scratch.path(&format!("{number}.qcow2"));
        let backing = format!("{}.qcow2", number - 1);
        let options = Qcow2Options {
            backing: Some((backing, "qcow2".to_owned())),
            ..Qcow2Options::default()
        };
        create(&CreateRequest {
            path: path.clone().into(),
            size: Some(1 << 20),
            target: target(Format::Qcow2, options),
            unchecked_backing: true,
        })
        .unwrap();
        if number < 41 {
            let write = format!("write -q -P {number} {}k 24k", number * 16);
            qemu_io("qcow2", &path, &[&write]);
        }
        below = path;
    }
    let top = scratch.path("40.qcow2");
    let [ours, theirs] = ["ours.raw", "theirs.raw"].map(|name| scratch.path(name));
    run(&to_raw(&open(&top), &ours)).unwrap();
    qemu_img(&["convert", "-O", "raw", &top, &theirs]);
    assert_same_bytes(
        &std::fs::read(ours).unwrap(),
        &std::fs::read(theirs).unwrap(),
        &top,
    );
    let error = run(&to_raw(&open(&below), &scratch.path("none.raw"))).unwrap_err();
    assert!(
        error.to_string().contains("longer than 256 images"),
        "{error}"
    );
}
