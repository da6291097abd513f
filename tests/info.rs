//! `info` against qemu-img: every key that it prints, with the same value.

mod oracle;

use std::sync::atomic::AtomicBool;

use oracle::{Scratch, qemu_img, qemu_io};
use qimg::image::{BackingPolicy, Census, Image, OpenOptions, backing_chain_info};
use serde_json::Value;

/// Every key of `theirs` is in `ours` with the same value; the external data file's node excepted.
fn assert_covers(ours: &Value, theirs: &Value, at: &str) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, value) in theirs {
                let ours = ours
                    .get(key)
                    .unwrap_or_else(|| panic!("{at}: {key} is missing"));
                assert_covers(ours, value, &format!("{at}.{key}"));
            }
            // What qemu-img leaves out says something too.
            for key in ours.keys() {
                assert!(theirs.contains_key(key), "{at}: {key} is too much");
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            let theirs: Vec<&Value> = theirs
                .iter()
                .filter(|child| child["name"] != "data-file")
                .collect();
            assert_eq!(ours.len(), theirs.len(), "{at}: number of entries");
            for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                assert_covers(ours, theirs, &format!("{at}[{index}]"));
            }
        }
        _ => assert_eq!(ours, theirs, "{at}"),
    }
}

fn assert_info(scratch: &Scratch, name: &str) {
    let path = scratch.path(name);
    let theirs = scratch.json(&["info", "--output=json", &path]);
    let image = Image::open(&path, &OpenOptions::default()).unwrap();
    let ours = serde_json::to_value(image.info().unwrap()).unwrap();
    assert_covers(&ours, &theirs, name);
}

#[test]
fn every_option_of_create_is_told_as_qemu_img_tells_it() {
    let scratch = Scratch::new();
    let mut options = Vec::new();
    for bits in 9..=21 {
        options.push(format!("cluster_size={}", 1 << bits));
    }
    for width in [1, 2, 4, 8, 16, 32, 64] {
        options.push(format!("cluster_size=4k,refcount_bits={width}"));
    }
    for more in [
        "compat=0.10",
        "compat=1.1",
        "compression_type=zstd",
        "lazy_refcounts=on",
        "extended_l2=on",
        "extended_l2=on,cluster_size=2M",
        "preallocation=metadata",
        "preallocation=falloc",
        "preallocation=full",
        "compression_type=zstd,extended_l2=on,lazy_refcounts=on,refcount_bits=64",
    ] {
        options.push(more.to_owned());
    }
    for (index, option) in options.iter().enumerate() {
        for size in ["0", "1000001", "40M"] {
            let name = format!("{index}-{size}.qcow2");
            scratch.create(&name, &["-f", "qcow2", "-o", option], size);
            assert_info(&scratch, &name);
        }
    }
}

#[test]
fn named_files_are_told_and_not_opened() {
    let scratch = Scratch::new();
    for (name, option) in [
        ("external.qcow2", "data_file=external.raw"),
        ("raw.qcow2", "data_file=raw.raw,data_file_raw=on"),
    ] {
        let option = option.replace("data_file=", &format!("data_file={}/", scratch.directory()));
        scratch.create(name, &["-f", "qcow2", "-o", &option], "1M");
        assert_info(&scratch, name);
    }
    for (name, backing, format) in [
        ("relative.qcow2", "base.qcow2", "qcow2"),
        ("deeper.qcow2", "directory/../base.raw", "raw"),
        ("absolute.qcow2", "/nowhere/base.qcow2", "qcow2"),
        ("protocol.qcow2", "nbd://host/export", "raw"),
    ] {
        let arguments = ["-u", "-f", "qcow2", "-b", backing, "-F", format];
        scratch.create(name, &arguments, "1M");
        assert_info(&scratch, name);
    }
    std::fs::remove_file(scratch.path("external.raw")).unwrap();
    let image = Image::open(scratch.path("external.qcow2"), &OpenOptions::default()).unwrap();
    image.info().unwrap();
}

#[test]
fn snapshots_and_bitmaps_are_listed() {
    let scratch = Scratch::new();
    for compat in ["0.10", "1.1"] {
        let name = format!("snapshots-{compat}.qcow2");
        scratch.create(
            &name,
            &["-f", "qcow2", "-o", &format!("compat={compat}")],
            "2M",
        );
        for snapshot in ["one", "another with a longer name", "o'ne"] {
            qemu_img(&["snapshot", "-c", snapshot, &scratch.path(&name)]);
        }
        assert_info(&scratch, &name);
    }
    scratch.create("bitmaps.qcow2", &["-f", "qcow2"], "2M");
    let path = scratch.path("bitmaps.qcow2");
    qemu_img(&["bitmap", "--add", &path, "first"]);
    qemu_img(&["bitmap", "--add", "--disable", "-g", "512", &path, "second"]);
    assert_info(&scratch, "bitmaps.qcow2");
    // A writer that does not end cleanly leaves its bitmaps in use.
    scratch.abort_after(&path, "write 0 64k");
    assert_info(&scratch, "bitmaps.qcow2");
}

#[test]
fn states_and_other_formats_are_told() {
    let scratch = Scratch::new();
    for name in [
        "v2.qcow2",
        "v3.qcow2",
        "aes.qcow2",
        "dirty.qcow2",
        "corrupt-bit.qcow2",
        "zlib.qcow2",
        "zstd.qcow2",
        "empty.qcow2",
        "sample.qcow2",
        "truncated.qcow2",
        "content.raw",
    ] {
        scratch.copy_testdata(name);
        assert_info(&scratch, name);
    }
    std::fs::write(scratch.path("odd.raw"), [7; 1001]).unwrap();
    let path = scratch.path("odd.raw");
    let theirs = scratch.json(&["info", "--output=json", "-f", "raw", &path]);
    let image = Image::open(&path, &OpenOptions::default()).unwrap();
    assert_covers(
        &serde_json::to_value(image.info().unwrap()).unwrap(),
        &theirs,
        "odd.raw",
    );
}

#[test]
fn luks_is_told_without_its_secret() {
    let scratch = Scratch::new();
    for (index, options) in [
        "encrypt.iter-time=10",
        "encrypt.iter-time=10,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,\
         encrypt.ivgen-hash-alg=sha256,encrypt.hash-alg=sha1",
        "encrypt.iter-time=10,encrypt.cipher-alg=aes-256,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=plain",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("luks-{index}.qcow2");
        let options = format!("encrypt.format=luks,encrypt.key-secret=key,{options}");
        let secret = "secret,id=key,data=qimg";
        scratch.create(&name, &["--object", secret, "-f", "qcow2", "-o", &options], "1M");
        assert_info(&scratch, &name);
    }
}

#[test]
fn a_chain_is_told_layer_by_layer() {
    let scratch = Scratch::new();
    for name in ["chain-top.qcow2", "chain-mid.qcow2", "chain-base.raw"] {
        scratch.copy_testdata(name);
    }
    let path = scratch.path("chain-top.qcow2");
    let theirs = scratch.json(&["info", "--backing-chain", "--output=json", &path]);
    let options = OpenOptions {
        backing: BackingPolicy::Beside,
        ..OpenOptions::default()
    };
    let image = Image::open(&path, &options).unwrap();
    let ours = serde_json::to_value(backing_chain_info(&image).unwrap()).unwrap();
    assert_covers(&ours, &theirs, "chain");
    // The default policy opens nothing.
    let image = Image::open(&path, &OpenOptions::default()).unwrap();
    let error = backing_chain_info(&image).unwrap_err();
    assert_eq!(error.kind(), qimg::ErrorKind::Refused);
}

#[test]
fn a_circular_chain_ends() {
    let scratch = Scratch::new();
    for (name, backing) in [("a.qcow2", "b.qcow2"), ("b.qcow2", "a.qcow2")] {
        let arguments = ["-u", "-f", "qcow2", "-b", backing, "-F", "qcow2"];
        scratch.create(name, &arguments, "1M");
    }
    let options = OpenOptions {
        backing: BackingPolicy::Any,
        ..OpenOptions::default()
    };
    let image = Image::open(scratch.path("a.qcow2"), &options).unwrap();
    let error = backing_chain_info(&image).unwrap_err();
    assert_eq!(error.kind(), qimg::ErrorKind::Corrupt);
}

/// Counts with two threads, and compares with what `qemu-img check` and `qemu-img map` count.
fn assert_census(scratch: &Scratch, name: &str) -> Census {
    let path = scratch.path(name);
    let image = Image::open(&path, &OpenOptions::default()).unwrap();
    let census = image.census(2, &AtomicBool::new(false)).unwrap();
    let theirs = scratch.json(&["check", "--output=json", &path]);
    let count = |key: &str| theirs[key].as_u64().unwrap_or(0);
    assert_eq!(census.total, count("total-clusters"), "{name}");
    assert_eq!(census.compressed, count("compressed-clusters"), "{name}");
    // Mixed clusters may have host space or not.
    let with_host = census.data + census.compressed + census.zero_preallocated;
    let allocated = with_host..=with_host + census.mixed;
    assert!(allocated.contains(&count("allocated-clusters")), "{name}");
    let without = census.zero_plain + census.unallocated;
    assert_eq!(with_host + census.mixed + without, census.total, "{name}");
    census
}

#[test]
fn clusters_are_counted_as_check_and_map_count_them() {
    let scratch = Scratch::new();
    for (index, options) in [
        "cluster_size=512",
        "cluster_size=4k",
        "cluster_size=2M",
        "extended_l2=on",
        "extended_l2=on,cluster_size=16k",
        "compat=0.10",
        "preallocation=metadata",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("{index}.qcow2");
        scratch.create(&name, &["-f", "qcow2", "-o", options], "7000k");
        assert_census(&scratch, &name);
        let writes = [
            "write -P 1 0 4k",
            "write -P 2 64k 200k",
            "write -z 100k 64k",
            "write -z -u 300k 300k",
            "write -P 3 1M 1M",
            "write -z 6M 100k",
        ];
        let path = scratch.path(&name);
        qemu_io("qcow2", &path, &writes);
        let census = assert_census(&scratch, &name);
        // Bytes of subclusters and clusters against bytes of the map.
        let map = scratch.json(&["map", "--output=json", &path]);
        let mapped: u64 = map
            .as_array()
            .unwrap()
            .iter()
            .filter(|entry| entry["data"] == true)
            .map(|entry| entry["length"].as_u64().unwrap())
            .sum();
        let parts = census.subclusters.unwrap_or_default();
        let data = census.data * census.cluster_size + parts.data * parts.size;
        assert!(
            data >= mapped && data - mapped < census.cluster_size,
            "{options}"
        );
    }
}

#[test]
fn compressed_clusters_are_counted_and_looked_into() {
    let scratch = Scratch::new();
    scratch.copy_testdata("sample.qcow2");
    for (options, deflate) in [
        ("cluster_size=4k", true),
        ("cluster_size=64k", true),
        ("compression_type=zstd", false),
    ] {
        let name = format!("{options}.qcow2");
        let (from, to) = (scratch.path("sample.qcow2"), scratch.path(&name));
        qemu_img(&["convert", "-c", "-O", "qcow2", "-o", options, &from, &to]);
        let census = assert_census(&scratch, &name);
        assert!(census.compressed > 0);
        assert_eq!(
            census.compressed_guest_bytes,
            census.compressed * census.cluster_size
        );
        assert!(census.compressed_stream_bytes < census.compressed_guest_bytes);
        let Some(window) = census.deflate_window else {
            assert!(!deflate);
            continue;
        };
        assert!(deflate);
        assert_eq!(window.samples, census.compressed.min(256));
        assert_eq!(window.unsound, 0);
        assert!(window.fits_4k && window.greatest_distance > 1000);
    }
}

#[test]
fn a_census_can_be_stopped() {
    let scratch = Scratch::new();
    scratch.copy_testdata("sample.qcow2");
    let image = Image::open(scratch.path("sample.qcow2"), &OpenOptions::default()).unwrap();
    let error = image.census(1, &AtomicBool::new(true)).unwrap_err();
    assert_eq!(error.kind(), qimg::ErrorKind::Cancelled);
}
