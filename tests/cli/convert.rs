//! `convert` carries contents over, under qemu-img's options.

use crate::program::{qemu_img, qimg, scratch};

fn identical(a: &str, b: &str) {
    assert_eq!(
        qemu_img(["compare", a, b]).well(),
        "Images are identical.\n"
    );
}

#[test]
fn contents_stay_whatever_the_options() {
    for options in [
        &["-O", "raw"][..],
        &["-O", "raw", "-S", "0", "-m", "3"],
        &["-O", "qcow2", "-W", "-m", "1"],
        &["-O", "qcow2", "-c", "-o", "cluster_size=4k"],
        &[
            "-O",
            "qcow2",
            "--codec",
            "zstd",
            "--level",
            "9",
            "--no-sync",
        ],
        &["-O", "qcow2", "--codec", "none", "-q"],
        &[
            "-f",
            "qcow2",
            "-O",
            "qcow2",
            "-c",
            "-o",
            "compression_type=zstd",
            "--threads=2",
        ],
    ] {
        let (_keep, new) = scratch("new");
        let all = ["convert"].into_iter().chain(options.iter().copied());
        assert_eq!(qimg(all.chain(["sample.qcow2", &new])).well(), "");
        identical("sample.qcow2", &new);
        if options.contains(&"-c") {
            assert_eq!(qemu_img(["check", &new]).code, Some(0));
        }
    }
}

#[test]
fn the_codec_is_recorded() {
    let (_keep, new) = scratch("new");
    qimg([
        "convert", "-O", "qcow2", "--codec", "zstd", "v3.qcow2", &new,
    ])
    .well();
    let info = qemu_img(["info", "--output=json", &new]).json();
    assert_eq!(info["format-specific"]["data"]["compression-type"], "zstd");
}

#[test]
fn a_snapshot_can_be_read() {
    let (_keep, new) = scratch("new");
    qimg([
        "convert",
        "-O",
        "raw",
        "-l",
        "first",
        "snapshots.qcow2",
        &new,
    ])
    .well();
    identical("content.raw", &new);
}

#[test]
fn contradictions_are_refused_before_anything_is_opened() {
    for (arguments, reason) in [
        (&["-c", "--codec", "none"][..], "contradict"),
        (
            &[
                "-O",
                "qcow2",
                "--codec",
                "zstd",
                "-o",
                "compression_type=zlib",
            ],
            "contradict",
        ),
        (
            &["-O", "qcow2", "--level", "3"],
            "--level without compression",
        ),
        (&["-O", "qcow2", "-c", "--level", "13"], "no level 13"),
        (&["-O", "qcow2", "--codec", "lzma"], "use zlib or zstd"),
        (
            &["-O", "raw", "-o", "cluster_size=4k"],
            "no such option for raw",
        ),
        (&["-O", "qcow2", "-B", "base"], "-F"),
        (&["--skip-broken-bitmaps"], "--bitmaps"),
    ] {
        let all = ["convert"].into_iter().chain(arguments.iter().copied());
        let text = qimg(all.chain(["nowhere", "new"])).failed(1);
        assert!(
            text.starts_with("qimg: ") && text.contains(reason),
            "{text}"
        );
    }
}

#[test]
fn a_backing_file_is_not_opened_unasked() {
    let (_keep, new) = scratch("new");
    let convert = ["convert", "-O", "raw", "chain-top.qcow2", &new];
    let text = qimg(convert).failed(1);
    assert!(
        text.contains("\n  hint: allow that with --backing beside"),
        "{text}"
    );
    assert!(!std::path::Path::new(&new).exists());
    qimg(convert.into_iter().chain(["--backing=beside"])).well();
    identical("chain-top.qcow2", &new);
}

#[test]
fn without_a_format_the_name_of_the_destination_tells() {
    let (keep, new) = scratch("new");
    for (extension, format) in [
        ("qcow2", "qcow2"),
        ("QCOW2", "qcow2"),
        ("raw", "raw"),
        ("img", "raw"),
        ("disk", "raw"),
    ] {
        let path = format!("{new}.{extension}");
        qimg(["convert", "v3.qcow2", &path]).well();
        let first = std::fs::read(&path).unwrap()[..4].to_vec();
        assert_eq!(first == *b"QFI\xfb", format == "qcow2", "{extension}");
    }
    let refused = qimg(["convert", "v3.qcow2", &format!("{new}.vmdk")]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("-O qcow2"), "{}", refused.err);
    drop(keep);
}

#[test]
fn options_that_an_image_that_is_there_does_not_take_are_refused() {
    let (_keep, there) = scratch("there.qcow2");
    qemu_img(["create", "-q", "-f", "qcow2", &there, "16M"]).well();
    let before = std::fs::read(&there).unwrap();
    let convert = |options: &str| {
        qimg([
            "convert",
            "-q",
            "-n",
            "-O",
            "qcow2",
            "-o",
            options,
            "sample.qcow2",
            &there,
        ])
    };
    let said = convert("cluster_size=4k").failed(1);
    assert!(said.contains("-o cluster_size has no effect"), "{said}");
    assert_eq!(std::fs::read(&there).unwrap(), before);
}

#[test]
fn a_packed_image_is_told_before_it_is_taken_for_a_disk() {
    let (_keep, image) = scratch("image.gz");
    std::fs::write(&image, b"\x1f\x8b\x08\0\0\0\0\0").unwrap();
    for arguments in [
        &["info", &image][..],
        &["convert", "-O", "qcow2", &image, "new.qcow2"],
        &["compress", &image, "new.qcow2"],
    ] {
        let said = qimg(arguments).failed(1);
        assert!(
            said.contains("is a gzip stream, not an image") && said.contains("-f raw"),
            "{said}"
        );
    }
    qimg(["info", "-f", "raw", &image]).well();
}
