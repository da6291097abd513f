//! `measure` against `qemu-img measure`, number for number.

mod oracle;

use oracle::{Scratch, qemu_img, qemu_io};
use qimg::image::measure::{Subject, measure};
use qimg::image::options::Qcow2Options;
use qimg::image::{BackingPolicy, Depth, Format, Image, OpenOptions};
use serde_json::Value;

/// Options of the new image; each is measured with all subjects.
fn options() -> Vec<String> {
    let mut options: Vec<String> = (9..=21)
        .map(|bits| format!("cluster_size={}", 1 << bits))
        .collect();
    options.extend((14..=21).map(|bits| format!("extended_l2=on,cluster_size={}", 1 << bits)));
    for width in [1, 2, 4, 8, 16, 32, 64] {
        options.push(format!("refcount_bits={width},cluster_size=1k"));
    }
    for preallocation in ["off", "metadata", "falloc", "full"] {
        options.push(format!("preallocation={preallocation}"));
    }
    options.push("compat=0.10".to_owned());
    options.push("compression_type=zstd".to_owned());
    options.push("data_file=elsewhere.raw".to_owned());
    options
}

fn parse(options: &str) -> Qcow2Options {
    let mut parsed = Qcow2Options::default();
    for option in options.split(',') {
        let (key, value) = option.split_once('=').unwrap();
        parsed.set(key, value).unwrap();
    }
    parsed
}

fn ours(subject: Subject<'_>, format: Format, options: &Qcow2Options) -> Value {
    serde_json::to_value(measure(subject, format, options).unwrap()).unwrap()
}

fn assert_measured(scratch: &Scratch, name: &str, format: &str) {
    let path = scratch.path(name);
    let open = OpenOptions {
        backing: BackingPolicy::Any,
        format: Some(format.parse().unwrap()),
        ..OpenOptions::default()
    };
    let image = Image::open(&path, &open).unwrap();
    let chain = image.chain(Depth::Chain, None).unwrap();
    let subject = Subject::Contents {
        image: &image,
        chain: &chain,
    };
    let common = ["measure", "--output=json", "-f", format];
    for option in options() {
        let arguments = [&common[..], &["-O", "qcow2", "-o", &option, &path]].concat();
        let theirs = scratch.json(&arguments);
        let ours = ours(subject, Format::Qcow2, &parse(&option));
        assert_eq!(ours, theirs, "{name} {option}");
    }
    let overlay = "backing_file=base.raw,backing_fmt=raw";
    let arguments = [&common[..], &["-O", "qcow2", "-o", overlay, &path]].concat();
    let theirs = scratch.json(&arguments);
    assert_eq!(
        ours(subject, Format::Qcow2, &parse(overlay)),
        theirs,
        "{name} {overlay}"
    );
    let arguments = [&common[..], &["-O", "raw", &path]].concat();
    let theirs = scratch.json(&arguments);
    assert_eq!(
        ours(subject, Format::Raw, &Qcow2Options::default()),
        theirs,
        "{name} raw"
    );
}

#[test]
fn sizes() {
    let scratch = Scratch::new();
    for size in ["0", "1", "512", "1000001", "10M", "1025M", "100G", "8T"] {
        let bytes = qimg::units::ByteSize::parse(size).unwrap().0;
        for option in options() {
            let parsed = parse(&option);
            let common = ["measure", "--output=json", "-O", "qcow2", "-o", &option];
            let theirs = scratch.try_json(&[&common[..], &["--size", size]].concat());
            let ours = measure(Subject::Size(bytes), Format::Qcow2, &parsed)
                .ok()
                .map(|measured| serde_json::to_value(measured).unwrap());
            assert_eq!(ours, theirs, "{size} {option}");
        }
        let theirs = scratch.json(&["measure", "--output=json", "-O", "raw", "--size", size]);
        let ours = ours(Subject::Size(bytes), Format::Raw, &Qcow2Options::default());
        assert_eq!(ours, theirs, "{size} raw");
    }
}

#[test]
fn raw_files() {
    let scratch = Scratch::new();
    scratch.create("sparse.raw", &["-f", "raw"], "50M");
    let writes = ["write 5000k 1M", "write 30M 7k", "write 40000001 3"];
    qemu_io("raw", &scratch.path("sparse.raw"), &writes);
    assert_measured(&scratch, "sparse.raw", "raw");
    std::fs::write(scratch.path("odd.raw"), vec![1; 100_001]).unwrap();
    assert_measured(&scratch, "odd.raw", "raw");
    std::fs::write(scratch.path("empty.raw"), []).unwrap();
    assert_measured(&scratch, "empty.raw", "raw");
}

#[test]
fn images_chains_and_bitmaps() {
    let scratch = Scratch::new();
    for (index, options) in [
        "cluster_size=4k",
        "cluster_size=2M",
        "extended_l2=on",
        "preallocation=metadata",
        "compat=0.10",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("{index}.qcow2");
        scratch.create(&name, &["-f", "qcow2", "-o", options], "20M");
        let writes = ["write 100k 1M", "write -z 600k 300k", "write 7M 1k"];
        qemu_io("qcow2", &scratch.path(&name), &writes);
        assert_measured(&scratch, &name, "qcow2");
    }
    let base = ["-f", "qcow2", "-b", "0.qcow2", "-F", "qcow2"];
    scratch.create("top.qcow2", &base, "30M");
    let top = scratch.path("top.qcow2");
    qemu_io("qcow2", &top, &["write 900k 1M", "write -z 7M 64k"]);
    assert_measured(&scratch, "top.qcow2", "qcow2");
    qemu_img(&["bitmap", "--add", &top, "first"]);
    qemu_img(&["bitmap", "--add", "--disable", "-g", "512", &top, "another"]);
    assert_measured(&scratch, "top.qcow2", "qcow2");
    scratch.abort_after(&top, "write 0 64k");
    assert_measured(&scratch, "top.qcow2", "qcow2");
    for name in ["sample.qcow2", "zlib.qcow2", "bitmaps.qcow2", "v2.qcow2"] {
        scratch.copy_testdata(name);
        assert_measured(&scratch, name, "qcow2");
    }
}

#[test]
fn a_chain_that_may_not_be_opened_is_not_measured() {
    let scratch = Scratch::new();
    scratch.create("base.qcow2", &["-f", "qcow2"], "1M");
    let arguments = ["-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2"];
    scratch.create("top.qcow2", &arguments, "1M");
    let image = Image::open(scratch.path("top.qcow2"), &OpenOptions::default()).unwrap();
    let chain = image.chain(Depth::Top, None).unwrap();
    let subject = Subject::Contents {
        image: &image,
        chain: &chain,
    };
    let error = measure(subject, Format::Qcow2, &Qcow2Options::default()).unwrap_err();
    assert_eq!(error.kind(), qimg::ErrorKind::Refused);
}
