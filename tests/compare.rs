//! `compare` says what qemu-img compare says.

mod oracle_tools;

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use oracle_tools::{must, qemu_io, run};
use qimg::ErrorKind;
use qimg::compare::{CompareOptions, Comparison, SECTOR, compare};
use qimg::image::{BackingPolicy, Depth, Image, OpenOptions};

static GO: AtomicBool = AtomicBool::new(false);

fn open(path: &Path, format: &str) -> qimg::image::Chain {
    let options = OpenOptions {
        format: Some(format.parse().unwrap()),
        backing: BackingPolicy::Any,
        ..OpenOptions::default()
    };
    let image = Image::open(path, &options).unwrap();
    image.chain(Depth::Chain, None).unwrap()
}

fn ours(
    directory: &Path,
    a: (&str, &str),
    b: (&str, &str),
    options: &CompareOptions,
) -> Comparison {
    let (a, b) = (
        open(&directory.join(a.0), a.1),
        open(&directory.join(b.0), b.1),
    );
    compare(&a, &b, options, &mut |_| {}).unwrap()
}

fn options(threads: usize, strict: bool, all: bool) -> CompareOptions<'static> {
    CompareOptions {
        threads,
        strict,
        all,
        cancel: &GO,
    }
}

/// The verdict and the offset in qemu-img's words.
fn theirs(directory: &Path, a: (&str, &str), b: (&str, &str), strict: bool) -> (i32, String) {
    let mut arguments = vec!["compare", "-f", a.1, "-F", b.1];
    if strict {
        arguments.push("-s");
    }
    arguments.extend([a.0, b.0]);
    let output = run(directory, "qemu-img", &arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap(), text)
}

fn check(directory: &Path, a: (&str, &str), b: (&str, &str)) {
    let (code, text) = theirs(directory, a, b, false);
    let mut first = None;
    for threads in [1, 2, 5] {
        let comparison = ours(directory, a, b, &options(threads, false, false));
        let expected = comparison.first_difference.map_or_else(
            || "Images are identical.".to_owned(),
            |offset| format!("Content mismatch at offset {offset}!"),
        );
        assert!(
            text.contains(&expected),
            "{a:?} {b:?}: {text}, not {expected}"
        );
        assert_eq!(
            code,
            i32::from(!comparison.is_identical(false)),
            "{a:?} {b:?}"
        );
        assert_eq!(text.contains("size mismatch"), comparison.sizes_differ());
        assert_eq!(first.get_or_insert_with(|| comparison.clone()), &comparison);
    }
}

/// Sectors that differ, by the simplest means.
fn sectors(a: &[u8], b: &[u8]) -> Vec<u64> {
    let length = a.len().max(b.len());
    let padded = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes.resize(length, 0);
        bytes
    };
    let (a, b) = (padded(a), padded(b));
    a.chunks(512)
        .zip(b.chunks(512))
        .enumerate()
        .filter(|(_, (a, b))| a != b)
        .map(|(index, _)| index as u64 * SECTOR)
        .collect()
}

#[test]
fn formats_codecs_and_cluster_sizes_do_not_matter() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut content = vec![0u8; 6 << 20];
    let mut state = 1u32;
    for (index, byte) in content.iter_mut().enumerate() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if (index >> 17) % 3 != 1 {
            *byte = (state >> 24) as u8 & 0x3f;
        }
    }
    fs::write(path.join("a.raw"), &content).unwrap();
    let recipes: &[&[&str]] = &[
        &["-c"],
        &["-c", "-o", "compression_type=zstd"],
        &["-c", "-o", "cluster_size=2M"],
        &["-c", "-o", "cluster_size=4k"],
        &["-o", "extended_l2=on"],
        &["-o", "cluster_size=512"],
        &["-S", "0"],
    ];
    let mut names = Vec::new();
    for (index, recipe) in recipes.iter().enumerate() {
        let name = format!("{index}.qcow2");
        let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2"];
        arguments.extend(*recipe);
        arguments.extend(["a.raw", &name]);
        must(path, "qemu-img", &arguments);
        check(path, ("a.raw", "raw"), (&name, "qcow2"));
        names.push(name);
    }
    for pair in names.windows(2) {
        check(path, (&pair[0], "qcow2"), (&pair[1], "qcow2"));
    }
    // One byte, first in data, then in a hole, then in the last sector.
    for at in [3usize, (1 << 17) + 700, (2 << 20) + 511, (6 << 20) - 1] {
        let mut changed = content.clone();
        changed[at] ^= 0x55;
        changed[(5 << 20) + 9] ^= 1;
        fs::write(path.join("b.raw"), &changed).unwrap();
        for name in &names {
            check(path, ("b.raw", "raw"), (name, "qcow2"));
            let all = ours(
                path,
                ("b.raw", "raw"),
                (name, "qcow2"),
                &options(3, false, true),
            );
            let starts: Vec<u64> = all.ranges.iter().map(|range| range.start).collect();
            assert_eq!(starts, sectors(&changed, &content));
            assert_eq!(all.different_bytes, starts.len() as u64 * SECTOR);
        }
    }
}

#[test]
fn a_longer_image_must_go_on_with_zeros() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    must(
        path,
        "qemu-img",
        &["create", "-f", "qcow2", "short.qcow2", "1M"],
    );
    must(
        path,
        "qemu-img",
        &["create", "-f", "qcow2", "long.qcow2", "3M"],
    );
    for image in ["short.qcow2", "long.qcow2"] {
        qemu_io(path, image, &["write -P 3 100k 50k"]);
    }
    qemu_io(path, "long.qcow2", &["write -P 0 2M 64k"]);
    check(path, ("short.qcow2", "qcow2"), ("long.qcow2", "qcow2"));
    check(path, ("long.qcow2", "qcow2"), ("short.qcow2", "qcow2"));
    qemu_io(path, "long.qcow2", &["write -P 9 2100k 1k"]);
    check(path, ("short.qcow2", "qcow2"), ("long.qcow2", "qcow2"));
    check(path, ("long.qcow2", "qcow2"), ("short.qcow2", "qcow2"));
    let (a, b) = (("short.qcow2", "qcow2"), ("long.qcow2", "qcow2"));
    assert!(!ours(path, a, b, &options(2, true, false)).is_identical(true));
    assert_eq!(theirs(path, a, b, true).0, 1);
}

#[test]
fn backing_chains_are_compared_as_the_guest_sees_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    must(
        path,
        "qemu-img",
        &["create", "-f", "qcow2", "base.qcow2", "4M"],
    );
    qemu_io(
        path,
        "base.qcow2",
        &["write -P 5 0 2M", "write -P 6 3M 64k"],
    );
    must(
        path,
        "qemu-img",
        &["convert", "-c", "-O", "qcow2", "base.qcow2", "packed.qcow2"],
    );
    for (top, base) in [
        ("a.qcow2", "base.qcow2"),
        ("b.qcow2", "packed.qcow2"),
        ("c.qcow2", "packed.qcow2"),
    ] {
        must(
            path,
            "qemu-img",
            &["create", "-f", "qcow2", "-F", "qcow2", "-b", base, top],
        );
        qemu_io(path, top, &["write -z 512k 128k", "write -P 5 700k 10k"]);
    }
    for pair in [
        ("a.qcow2", "b.qcow2"),
        ("b.qcow2", "c.qcow2"),
        ("b.qcow2", "packed.qcow2"),
    ] {
        check(path, (pair.0, "qcow2"), (pair.1, "qcow2"));
    }
    qemu_io(path, "c.qcow2", &["write -P 7 3100k 3k"]);
    check(path, ("b.qcow2", "qcow2"), ("c.qcow2", "qcow2"));
}

#[test]
fn strict_tells_the_first_difference_in_allocation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let make = |name: &str, commands: &[&str]| {
        must(path, "qemu-img", &["create", "-f", "qcow2", name, "4M"]);
        // QEMU's status also says whether a run ends the image: with data there, none does.
        qemu_io(path, name, &["write -P 1 4032k 64k"]);
        qemu_io(path, name, commands);
    };
    make("plain.qcow2", &["write -P 5 0 1M", "write -P 6 2M 64k"]);
    make("same.qcow2", &["write -P 5 0 1M", "write -P 6 2M 64k"]);
    make(
        "zeroed.qcow2",
        &["write -P 5 0 1M", "write -P 6 2M 64k", "write -z 3M 64k"],
    );
    make(
        "packed.qcow2",
        &[
            "write -P 5 0 512k",
            "write -c -P 5 512k 512k",
            "write -P 6 2M 64k",
        ],
    );
    make(
        "other.qcow2",
        &[
            "write -P 5 0 512k",
            "write -c -P 4 512k 512k",
            "write -P 6 2M 64k",
        ],
    );
    for (a, b) in [
        ("plain.qcow2", "same.qcow2"),
        ("plain.qcow2", "zeroed.qcow2"),
        ("plain.qcow2", "packed.qcow2"),
        ("packed.qcow2", "other.qcow2"),
        ("plain.qcow2", "other.qcow2"),
    ] {
        let comparison = ours(path, (a, "qcow2"), (b, "qcow2"), &options(2, true, false));
        let (code, text) = theirs(path, (a, "qcow2"), (b, "qcow2"), true);
        let expected = match (
            comparison.first_status_difference,
            comparison.first_difference,
        ) {
            (Some(offset), None) => format!("Offset {offset} block status mismatch!"),
            (None, Some(offset)) => format!("Content mismatch at offset {offset}!"),
            (None, None) => "Images are identical.".to_owned(),
            both => panic!("{both:?}"),
        };
        assert!(text.contains(&expected), "{a} {b}: {text}, not {expected}");
        assert_eq!(code, i32::from(!comparison.is_identical(true)));
    }
}

#[test]
fn an_unreadable_cluster_is_an_error_unless_a_difference_comes_before() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut content = vec![0u8; 4 << 20];
    for (index, byte) in content.iter_mut().enumerate() {
        *byte = (index >> 5) as u8;
    }
    fs::write(path.join("a.raw"), &content).unwrap();
    must(
        path,
        "qemu-img",
        &["convert", "-c", "-O", "qcow2", "a.raw", "b.qcow2"],
    );
    let mut bytes = fs::read(path.join("b.qcow2")).unwrap();
    let end = bytes.len();
    // The streams behind the metadata, but for the first ones.
    bytes[end - 4096..].fill(0xff);
    fs::write(path.join("b.qcow2"), &bytes).unwrap();
    for threads in [1, 2, 4] {
        let (a, b) = (
            open(&path.join("a.raw"), "raw"),
            open(&path.join("b.qcow2"), "qcow2"),
        );
        let error = compare(&a, &b, &options(threads, false, false), &mut |_| {})
            .unwrap_err()
            .error;
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let mut changed = content.clone();
        changed[70_000] ^= 1;
        fs::write(path.join("c.raw"), &changed).unwrap();
        let comparison = ours(
            path,
            ("c.raw", "raw"),
            ("b.qcow2", "qcow2"),
            &options(threads, false, false),
        );
        assert_eq!(comparison.first_difference, Some(69_632));
    }
}

#[test]
fn cancelling_ends_a_comparison() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("a.raw"), vec![1u8; 8 << 20]).unwrap();
    fs::copy(path.join("a.raw"), path.join("b.raw")).unwrap();
    let cancel = AtomicBool::new(true);
    let options = CompareOptions {
        cancel: &cancel,
        ..options(2, false, false)
    };
    let (a, b) = (
        open(&path.join("a.raw"), "raw"),
        open(&path.join("b.raw"), "raw"),
    );
    let error = compare(&a, &b, &options, &mut |_| {}).unwrap_err().error;
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}
