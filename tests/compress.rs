//! What is compressed reads as before, is sound, and is never larger than it has to be.

mod matrix;
mod oracle;
mod patterns;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use matrix::{Backing, for_every_image};
use oracle::{Scratch, qemu_img};
use patterns::Random;
use qimg::ErrorKind;
use qimg::codec::{CompressionType, DeflateWindow, window};
use qimg::compress::{CompressRequest, Compressed, Effort, compress, dry_run};
use qimg::image::{BackingPolicy, Depth, Image, OpenOptions};
use qimg::source::Source;
use qimg::store::Sync;
use serde_json::Value;

fn open(path: &str) -> Image {
    let options = OpenOptions {
        backing: BackingPolicy::Any,
        ..OpenOptions::default()
    };
    Image::open(path, &options).unwrap()
}

fn request<'a>(source: &'a Image, destination: &'a str) -> CompressRequest<'a> {
    CompressRequest {
        source,
        free: None,
        destination: Some(Path::new(destination)),
        codec: CompressionType::Zlib,
        effort: Effort::Default,
        window: None,
        cluster_size: None,
        flatten: false,
        drop_snapshots: false,
        drop_bitmaps: false,
        existing: false,
        threads: 2,
        sync: Sync::None,
    }
}

/// Compresses to a new file: what an earlier round left may still be locked by a process that another test just forked.
fn run(request: &CompressRequest<'_>) -> qimg::Result<Compressed> {
    if let Some(destination) = request.destination {
        let _ = std::fs::remove_file(destination);
    }
    compress(request, &AtomicBool::new(false), &mut |_, _| {})
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&qemu_img(arguments)).unwrap()
}

fn length(path: &str) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

fn assert_sound(scratch: &Scratch, path: &str, view: &[u8]) {
    qemu_img(&["check", "-q", path]);
    let raw = scratch.path("read-back.raw");
    qemu_img(&["convert", "-O", "raw", path, &raw]);
    let read = std::fs::read(&raw).unwrap();
    assert_eq!(read.len(), view.len());
    let at = read.iter().zip(view).position(|(a, b)| a != b);
    assert_eq!(at, None, "{path}: first difference");
    std::fs::remove_file(&raw).unwrap();
}

/// The compressed clusters of the image at `path`: guest offset and stored bytes, as far as the descriptor reaches.
/// Read here, independently of the library.
fn streams(path: &str) -> Vec<(u64, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap();
    let be = |at: usize, length: usize| {
        bytes[at..at + length]
            .iter()
            .fold(0u64, |value, &byte| value << 8 | u64::from(byte))
    };
    let cluster_bits = be(20, 4);
    let shift = 62 - (cluster_bits - 8);
    let per_table = 1u64 << (cluster_bits - 3);
    let mut streams = Vec::new();
    for index in 0..be(36, 4) {
        let table = be(be(40, 8) as usize + index as usize * 8, 8) & 0x00ff_ffff_ffff_fe00;
        for entry in 0..per_table {
            let word = match table {
                0 => 0,
                table => be((table + entry * 8) as usize, 8),
            };
            if word >> 62 & 1 == 0 {
                continue;
            }
            let host = word & ((1 << shift) - 1);
            let sectors = (word >> shift & ((1 << (cluster_bits - 8)) - 1)) + 1;
            let end = ((host & !511) + sectors * 512).min(bytes.len() as u64);
            let guest = (index * per_table + entry) << cluster_bits;
            streams.push((guest, bytes[host as usize..end as usize].to_vec()));
        }
    }
    streams
}

fn raw_file(scratch: &Scratch, name: &str, bytes: &[u8]) -> String {
    let path = scratch.path(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Text, noise, zeros and a cut end.
fn mixed(clusters: usize) -> Vec<u8> {
    let mut random = Random(4711);
    let mut bytes = Vec::new();
    for cluster in 0..clusters {
        bytes.extend(match cluster % 4 {
            0 | 1 => random.text(65536),
            2 => random.noise(65536),
            _ => vec![0; 65536],
        });
    }
    bytes.extend(random.text(1536));
    bytes
}

/// Codec, effort, window and cluster size of the ways to compress.
type Way = (CompressionType, Effort, Option<DeflateWindow>, Option<u64>);

const ZLIB: CompressionType = CompressionType::Zlib;
const ZSTD: CompressionType = CompressionType::Zstd;

const WAYS: [Way; 9] = [
    (ZLIB, Effort::Default, None, None),
    (ZSTD, Effort::Default, None, None),
    (ZLIB, Effort::Level(1), None, None),
    (ZLIB, Effort::Default, Some(DeflateWindow::FourKiB), None),
    (ZLIB, Effort::Default, None, Some(64 << 10)),
    (ZSTD, Effort::Level(9), None, Some(2 << 20)),
    (
        ZLIB,
        Effort::Level(9),
        Some(DeflateWindow::FourKiB),
        Some(512),
    ),
    (ZSTD, Effort::Level(1), None, Some(512)),
    (ZLIB, Effort::Default, None, Some(2 << 20)),
];

#[test]
fn every_image_reads_the_same_after_compression() {
    for_every_image(|scratch, made| {
        let source = open(&made.image);
        let step = WAYS.len();
        for (number, way) in WAYS.iter().enumerate() {
            if number % step != made.case.number() % step {
                continue;
            }
            let (codec, effort, window, cluster_size) = *way;
            let out = scratch.path("out.qcow2");
            let flatten = (number + made.case.number() / step).is_multiple_of(2);
            let request = CompressRequest {
                codec,
                effort,
                window,
                cluster_size,
                flatten,
                drop_snapshots: true,
                drop_bitmaps: true,
                ..request(&source, &out)
            };
            let done = run(&request).unwrap_or_else(|error| panic!("{way:?}: {error}"));
            assert_sound(scratch, &out, &made.view);
            assert_eq!(done.rewritten.file_length, length(&out));
            assert_eq!(
                done.dropped_snapshots,
                usize::from(made.snapshot_view.is_some())
            );
            assert_eq!(
                done.dropped_bitmaps,
                if made.case.has_bitmaps() { 2 } else { 0 }
            );
            let info = json(&["info", "--output=json", &out]);
            let stays = made.case.backing() != Backing::None && !flatten;
            assert_eq!(info.get("backing-filename").is_some(), stays, "{way:?}");
            let cluster = cluster_size.unwrap_or(made.case.cluster_size());
            assert_eq!(info["cluster-size"], cluster);
            let estimate = dry_run(&request, &AtomicBool::new(false), &mut |_, _| {}).unwrap();
            assert_eq!(estimate.rewritten.file_length, length(&out), "{way:?}");
            for (guest, stream) in streams(&out) {
                assert!(
                    stream.len() as u64 <= cluster.next_multiple_of(512) + 512,
                    "{way:?}: {} bytes for the cluster at {guest:#x}",
                    stream.len()
                );
            }
            if stays {
                continue;
            }
            // Once more changes nothing, and never adds.
            let again = scratch.path("again.qcow2");
            let second = open(&out);
            let request = CompressRequest {
                source: &second,
                ..request
            };
            let request = CompressRequest {
                destination: Some(Path::new(&again)),
                ..request
            };
            run(&request).unwrap();
            assert!(
                length(&again) <= length(&out),
                "{way:?}: {} > {}",
                length(&again),
                length(&out)
            );
            assert_sound(scratch, &again, &made.view);
        }
    });
}

#[test]
fn raw_is_compressed_in_every_way() {
    let scratch = Scratch::new();
    let bytes = mixed(41);
    let path = raw_file(&scratch, "in.raw", &bytes);
    let source = open(&path);
    for (codec, effort, window, cluster_size) in WAYS {
        let out = scratch.path("out.qcow2");
        let request = CompressRequest {
            codec,
            effort,
            window,
            cluster_size,
            ..request(&source, &out)
        };
        run(&request).unwrap();
        assert_sound(&scratch, &out, &bytes);
    }
}

#[test]
fn tables_of_large_clusters_occupy_no_more_than_they_hold() {
    let scratch = Scratch::new();
    let path = raw_file(&scratch, "in.raw", &Random(1).text(100_000));
    let source = open(&path);
    let out = scratch.path("out.qcow2");
    run(&CompressRequest {
        cluster_size: Some(2 << 20),
        ..request(&source, &out)
    })
    .unwrap();
    qemu_img(&["check", "-q", &out]);
    let stored = std::fs::metadata(&out).unwrap().blocks() * 512;
    assert!(stored < 100_000, "{stored}");
}

#[test]
fn every_level_gives_the_same_contents_and_wrong_ones_are_refused() {
    let scratch = Scratch::new();
    let bytes = mixed(5);
    let path = raw_file(&scratch, "in.raw", &bytes);
    let source = open(&path);
    let narrow = Some(DeflateWindow::FourKiB);
    for (codec, window, greatest) in [(ZLIB, None, 12), (ZLIB, narrow, 9), (ZSTD, None, 22)] {
        let out = scratch.path("out.qcow2");
        let at = |effort| CompressRequest {
            codec,
            effort,
            window,
            ..request(&source, &out)
        };
        for level in 1..=greatest {
            run(&at(Effort::Level(level))).unwrap();
            assert_sound(&scratch, &out, &bytes);
        }
        let at_greatest = length(&out);
        run(&at(Effort::Best)).unwrap();
        assert_eq!(length(&out), at_greatest);
        for level in [0, greatest + 1] {
            let error = run(&at(Effort::Level(level))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{codec} {level}");
        }
    }
    let error = run(&CompressRequest {
        codec: ZSTD,
        window: narrow,
        ..request(&source, &scratch.path("no"))
    })
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[test]
fn with_a_narrow_window_no_stream_reaches_further() {
    let scratch = Scratch::new();
    let bytes = mixed(30);
    let path = raw_file(&scratch, "in.raw", &bytes);
    let wide = scratch.path("wide.qcow2");
    run(&request(&open(&path), &wide)).unwrap();
    let reach = |path: &str, cluster: usize| {
        let all = streams(path);
        assert!(!all.is_empty());
        all.iter()
            .map(|(_, stream)| window::greatest_distance(stream, cluster).unwrap())
            .max()
            .unwrap()
    };
    assert!(reach(&wide, 1 << 16) > 4096);
    // From raw, from wide streams, and from those of qemu-img, some of which stay.
    let theirs = scratch.path("theirs.qcow2");
    qemu_img(&["convert", "-c", "-O", "qcow2", &path, &theirs]);
    for from in [&path, &wide, &theirs] {
        for (effort, cluster) in [
            (Effort::Default, 1 << 16),
            (Effort::Level(1), 1 << 16),
            (Effort::Best, 1 << 18),
        ] {
            let source = open(from);
            let out = scratch.path("out.qcow2");
            let narrow = CompressRequest {
                window: Some(DeflateWindow::FourKiB),
                effort,
                cluster_size: Some(cluster),
                ..request(&source, &out)
            };
            run(&narrow).unwrap();
            assert_sound(&scratch, &out, &bytes);
            let greatest = reach(&out, cluster as usize);
            assert!(greatest <= 4096, "{from} {effort:?}: {greatest}");
        }
    }
}

#[test]
fn what_qemu_img_compressed_is_copied() {
    let scratch = Scratch::new();
    let bytes = mixed(60);
    let path = raw_file(&scratch, "in.raw", &bytes);
    for (codec, name) in [(ZLIB, "zlib"), (ZSTD, "zstd")] {
        for (cluster, out_of_order) in [("4k", false), ("64k", false), ("64k", true), ("2M", true)]
        {
            let theirs = scratch.path("theirs.qcow2");
            let options = format!("compression_type={name},cluster_size={cluster}");
            let mut convert = vec!["convert", "-c", "-O", "qcow2", "-o", &options];
            if out_of_order {
                convert.push("-W");
            }
            convert.extend([path.as_str(), theirs.as_str()]);
            qemu_img(&convert);
            let source = open(&theirs);
            let out = scratch.path("out.qcow2");
            let done = run(&CompressRequest {
                codec,
                ..request(&source, &out)
            })
            .unwrap();
            assert_sound(&scratch, &out, &bytes);
            let contents = done.rewritten.contents;
            assert!(contents.copied_clusters > 0, "{options}: {contents:?}");
            // Those that QEMU stored plain were not worth it; ours may think otherwise.
            assert!(
                contents.encoded_clusters <= contents.copied_clusters,
                "{options}: {contents:?}"
            );
            // Plain clusters are set aside in groups, of which the last may stay unused in part.
            let stored = |path: &str| std::fs::metadata(path).unwrap().blocks() * 512;
            let (ours, theirs) = (stored(&out), stored(&theirs));
            assert!(ours <= theirs + (256 << 10), "{options}: {ours} > {theirs}");
        }
    }
}

#[test]
fn a_level_never_makes_an_image_larger() {
    let scratch = Scratch::new();
    let path = raw_file(&scratch, "in.raw", &mixed(30));
    let best = scratch.path("best.qcow2");
    let source = open(&path);
    run(&CompressRequest {
        effort: Effort::Level(12),
        ..request(&source, &best)
    })
    .unwrap();
    let source = open(&best);
    for effort in [
        Effort::Level(1),
        Effort::Level(6),
        Effort::Default,
        Effort::Best,
    ] {
        let out = scratch.path("out.qcow2");
        run(&CompressRequest {
            effort,
            ..request(&source, &out)
        })
        .unwrap();
        assert!(length(&out) <= length(&best), "{effort:?}");
    }
}

#[test]
fn cluster_sizes_change_and_contents_do_not() {
    let scratch = Scratch::new();
    let bytes = mixed(64);
    let path = raw_file(&scratch, "in.raw", &bytes);
    for (from, to) in [
        ("2M", 65536u64),
        ("64k", 2 << 20),
        ("64k", 512),
        ("512", 65536),
        ("4k", 4096),
    ] {
        let made = scratch.path("made.qcow2");
        let options = format!("cluster_size={from}");
        qemu_img(&["convert", "-c", "-O", "qcow2", "-o", &options, &path, &made]);
        let source = open(&made);
        let out = scratch.path("out.qcow2");
        run(&CompressRequest {
            cluster_size: Some(to),
            ..request(&source, &out)
        })
        .unwrap();
        assert_sound(&scratch, &out, &bytes);
        assert_eq!(json(&["info", "--output=json", &out])["cluster-size"], to);
    }
}

#[test]
fn noise_is_stored_plain_and_no_larger() {
    let scratch = Scratch::new();
    let bytes = Random(1).noise(4 << 20);
    let path = raw_file(&scratch, "in.raw", &bytes);
    let source = open(&path);
    for (codec, cluster, room) in [
        (ZLIB, 1u64 << 16, 8u64),
        (ZSTD, 1 << 16, 8),
        (ZLIB, 512, 400),
        (ZSTD, 2 << 20, 5),
    ] {
        let out = scratch.path("out.qcow2");
        let done = run(&CompressRequest {
            codec,
            cluster_size: Some(cluster),
            ..request(&source, &out)
        })
        .unwrap();
        assert_sound(&scratch, &out, &bytes);
        assert_eq!(done.rewritten.contents.plain_bytes, bytes.len() as u64);
        assert_eq!(streams(&out).len(), 0);
        assert!(
            length(&out) <= bytes.len() as u64 + room * cluster,
            "{cluster}: {}",
            length(&out)
        );
    }
}

#[test]
fn the_same_cluster_is_stored_once() {
    let scratch = Scratch::new();
    let mut random = Random(3);
    let mut cluster = random.noise(30_000);
    cluster.extend(random.text(35_536));
    let bytes = cluster.repeat(100);
    let path = raw_file(&scratch, "in.raw", &bytes);
    let theirs = scratch.path("theirs.qcow2");
    qemu_img(&["convert", "-c", "-O", "qcow2", &path, &theirs]);
    for from in [&path, &theirs] {
        for codec in [ZLIB, ZSTD] {
            let source = open(from);
            let out = scratch.path("out.qcow2");
            let done = run(&CompressRequest {
                codec,
                ..request(&source, &out)
            })
            .unwrap();
            assert_sound(&scratch, &out, &bytes);
            assert_eq!(done.rewritten.shared_clusters, 99, "{from} {codec}");
            assert!(length(&out) < 600_000, "{from} {codec}: {}", length(&out));
        }
    }
}

#[test]
fn a_shared_cluster_survives_what_a_guest_does_to_its_copies() {
    let scratch = Scratch::new();
    let bytes = Random(8).text(65536).repeat(20);
    let path = raw_file(&scratch, "in.raw", &bytes);
    let out = scratch.path("out.qcow2");
    run(&request(&open(&path), &out)).unwrap();
    oracle::qemu_io(
        "qcow2",
        &out,
        &[
            "write -P 1 0 64k",
            "write -z 64k 64k",
            "write -P 2 200k 512",
            "discard 320k 64k",
        ],
    );
    qemu_img(&["check", "-q", &out]);
    oracle::qemu_io(
        "raw",
        &path,
        &[
            "write -P 1 0 64k",
            "write -P 0 64k 64k",
            "write -P 2 200k 512",
        ],
    );
    let said = qemu_img(&["map", "--output=json", &out]);
    assert!(said.contains("\"compressed\": true"), "{said}");
    let (ours, mut expected) = (scratch.path("read.raw"), std::fs::read(&path).unwrap());
    qemu_img(&["convert", "-O", "raw", &out, &ours]);
    let read = std::fs::read(&ours).unwrap();
    // A discarded range may read as zeros or as before.
    expected[320 << 10..384 << 10].copy_from_slice(&read[320 << 10..384 << 10]);
    assert!(read == expected);
}

#[test]
fn bytes_never_depend_on_threads_or_chance() {
    let scratch = Scratch::new();
    let bytes = mixed(130);
    let path = raw_file(&scratch, "in.raw", &bytes);
    let theirs = scratch.path("theirs.qcow2");
    qemu_img(&["convert", "-c", "-W", "-O", "qcow2", &path, &theirs]);
    for from in [&path, &theirs] {
        let source = open(from);
        for (codec, effort, cluster_size) in [
            (ZLIB, Effort::Default, None),
            (ZSTD, Effort::Default, None),
            (ZLIB, Effort::Level(2), Some(4096)),
            (ZSTD, Effort::Level(5), Some(256 << 10)),
        ] {
            let outputs = [1, 2, 8, 1, 2, 8].map(|threads| {
                let out = scratch.path("out.qcow2");
                run(&CompressRequest {
                    codec,
                    effort,
                    cluster_size,
                    threads,
                    ..request(&source, &out)
                })
                .unwrap();
                std::fs::read(&out).unwrap()
            });
            let same = outputs.iter().all(|output| *output == outputs[0]);
            assert!(same, "{from} {codec} {effort:?}");
        }
    }
}

#[test]
fn snapshots_and_bitmaps_are_not_lost_without_a_word() {
    let scratch = Scratch::new();
    for name in ["snapshots.qcow2", "bitmaps.qcow2"] {
        scratch.copy_testdata(name);
        let path = scratch.path(name);
        let source = open(&path);
        let out = scratch.path("out.qcow2");
        let error = run(&request(&source, &out)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        let what = name.trim_end_matches(".qcow2");
        assert!(
            error.remedy().unwrap().contains(&format!("--drop-{what}")),
            "{:?}",
            error.remedy()
        );
        assert!(!Path::new(&out).exists());
        let dropping = CompressRequest {
            drop_snapshots: what == "snapshots",
            drop_bitmaps: what == "bitmaps",
            ..request(&source, &out)
        };
        run(&dropping).unwrap();
        let said = qemu_img(&["compare", &path, &out]);
        assert!(said.contains("identical"), "{said}");
        std::fs::remove_file(&out).unwrap();
    }
}

/// A base and its overlay in a directory `images`.
fn overlay(scratch: &Scratch) -> (String, Vec<u8>) {
    std::fs::create_dir(scratch.path("images")).unwrap();
    let base = raw_file(scratch, "images/base.raw", &Random(2).text(1 << 20));
    let top = scratch.path("images/top.qcow2");
    qemu_img(&[
        "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", &top,
    ]);
    oracle::qemu_io(
        "qcow2",
        &top,
        &[
            "write -P 5 128k 100k",
            "write -z 512k 64k",
            "write -P 6 700k 1k",
        ],
    );
    let mut view = std::fs::read(base).unwrap();
    view[128 << 10..228 << 10].fill(5);
    view[512 << 10..576 << 10].fill(0);
    view[700 << 10..701 << 10].fill(6);
    (top, view)
}

#[test]
fn an_overlay_stays_one_wherever_it_goes() {
    let scratch = Scratch::new();
    let (top, view) = overlay(&scratch);
    std::fs::create_dir(scratch.path("elsewhere")).unwrap();
    // To keep an overlay, nothing behind it is opened.
    let denied = Image::open(&top, &OpenOptions::default()).unwrap();
    for source in [denied, open(&top)] {
        for (destination, relative) in [
            ("images/small.qcow2", true),
            ("elsewhere/small.qcow2", false),
        ] {
            let out = scratch.path(destination);
            let done = run(&request(&source, &out)).unwrap();
            assert_sound(&scratch, &out, &view);
            let info = json(&["info", "--output=json", &out]);
            assert_eq!(info["backing-filename"], done.backing_file.unwrap());
            assert_eq!(info["backing-filename"] == "base.raw", relative);
            assert_eq!(info["backing-filename-format"], "raw");
        }
    }
}

#[test]
fn an_overlay_is_merged_when_asked_and_allowed() {
    let scratch = Scratch::new();
    let (top, view) = overlay(&scratch);
    let out = scratch.path("flat.qcow2");
    let source = open(&top);
    let flatten = CompressRequest {
        flatten: true,
        ..request(&source, &out)
    };
    run(&flatten).unwrap();
    assert_sound(&scratch, &out, &view);
    assert!(
        json(&["info", "--output=json", &out])
            .get("backing-filename")
            .is_none()
    );
    std::fs::remove_file(&out).unwrap();

    let denied = Image::open(&top, &OpenOptions::default()).unwrap();
    let error = run(&CompressRequest {
        source: &denied,
        ..flatten
    })
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(
        error.to_string().contains("base.raw") && error.remedy().unwrap().contains("--backing")
    );
    assert!(!Path::new(&out).exists());
}

#[test]
fn in_place_keeps_what_the_file_had_and_refuses_raw() {
    let scratch = Scratch::new();
    let bytes = mixed(20);
    let raw = raw_file(&scratch, "in.raw", &bytes);
    let image = scratch.path("image.qcow2");
    qemu_img(&["convert", "-O", "qcow2", &raw, &image]);
    std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o640)).unwrap();
    let attribute = |arguments: &[&str]| {
        let python = "import os, sys\nif len(sys.argv) > 2: os.setxattr(sys.argv[1], 'user.kept', b'yes')\n\
                      print(os.getxattr(sys.argv[1], 'user.kept').decode())";
        let output = Command::new("python3")
            .args(["-c", python])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(attribute(&[&image, "set"]), "yes\n");
    let before = std::fs::metadata(&image).unwrap();
    let link = scratch.path("link.qcow2");
    std::os::unix::fs::symlink("image.qcow2", &link).unwrap();
    for path in [&image, &link] {
        let source = open(path);
        run(&CompressRequest {
            destination: None,
            ..request(&source, "")
        })
        .unwrap();
        drop(source);
        assert_sound(&scratch, path, &bytes);
        let after = std::fs::metadata(&image).unwrap();
        assert!(after.len() < before.len());
        assert_eq!(
            (after.mode(), after.uid(), after.gid()),
            (before.mode(), before.uid(), before.gid())
        );
        assert_eq!(attribute(&[&image]), "yes\n");
    }
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());

    let source = open(&raw);
    let error = run(&CompressRequest {
        destination: None,
        ..request(&source, "")
    })
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(std::fs::read(&raw).unwrap(), bytes);
}

#[test]
fn the_image_is_read_back_by_the_library_too() {
    let scratch = Scratch::new();
    let bytes = mixed(33);
    let path = raw_file(&scratch, "in.raw", &bytes);
    for codec in [ZLIB, ZSTD] {
        let source = open(&path);
        let out = scratch.path("out.qcow2");
        run(&CompressRequest {
            codec,
            ..request(&source, &out)
        })
        .unwrap();
        let image = open(&out);
        let chain = image.chain(Depth::Chain, None).unwrap();
        let mut read = vec![0; bytes.len()];
        // In pieces that fit no cluster.
        let mut reader = chain.reader();
        for (number, piece) in read.chunks_mut(50_000).enumerate() {
            reader.read_at(number as u64 * 50_000, piece).unwrap();
        }
        assert!(read == bytes);
        assert_eq!(chain.virtual_size(), bytes.len() as u64);
    }
}
