//! `create` prints qemu-img's line and makes what it says.

use crate::program::{qemu_img, qimg, scratch};

fn same_line(options: &[&str], size: Option<&str>) {
    let (_keep, image) = scratch("new image.qcow2");
    let arguments: Vec<&str> = ["create"]
        .into_iter()
        .chain(options.iter().copied())
        .chain([image.as_str()])
        .chain(size)
        .collect();
    let expected = qemu_img(&arguments).well();
    let _ = std::fs::remove_file(&image);
    assert_eq!(qimg(&arguments).well(), expected);
    if arguments.contains(&"qcow2") && !arguments.contains(&"-u") {
        qemu_img(["check", "-q", &image]).well();
    }
}

#[test]
fn the_line_is_that_of_qemu_img() {
    same_line(&["-f", "qcow2"], Some("1G"));
    same_line(&["-f", "qcow2"], Some("1000"));
    same_line(&["-f", "qcow2", "-o", "size=3M"], None);
    same_line(&[], Some("1M"));
    same_line(&["-f", "raw", "-o", "preallocation=falloc"], Some("1M"));
    same_line(
        &[
            "-f",
            "qcow2",
            "-o",
            "cluster_size=4k",
            "-o",
            "refcount_bits=8",
        ],
        Some("1M"),
    );
    same_line(
        &["-f", "qcow2", "-o", "compat=0.10,preallocation=metadata"],
        Some("10M"),
    );
    same_line(
        &[
            "-f",
            "qcow2",
            "-o",
            "compat=v3,lazy_refcounts=on,extended_l2=on",
        ],
        Some("10M"),
    );
    same_line(
        &[
            "-f",
            "qcow2",
            "-o",
            "compression_type=zstd,preallocation=off",
        ],
        Some("10M"),
    );
    same_line(
        &["-f", "qcow2", "-u", "-b", "nowhere", "-F", "raw"],
        Some("1M"),
    );
    same_line(
        &[
            "-f",
            "qcow2",
            "-u",
            "-o",
            "backing_file=a,,b,backing_fmt=raw",
        ],
        Some("1M"),
    );
    same_line(&["-q", "-f", "qcow2"], Some("1M"));
}

#[test]
fn an_overlay_takes_the_size_of_its_backing_file() {
    let (_keep, base) = scratch("base.qcow2");
    qimg(["create", "-q", "-f", "qcow2", &base, "7M"]).well();
    same_line(&["-f", "qcow2", "-b", &base, "-F", "qcow2"], None);
}

#[test]
fn json_tells_what_was_made() {
    let (_keep, image) = scratch("a.qcow2");
    let json = qimg(["create", "--json", "-f", "qcow2", &image, "1000"]).json();
    assert_eq!(json["virtual-size"], 1024);
    assert_eq!(json["cluster-size"], 65536);
    assert_eq!(json["filename"], image);
}

#[test]
fn impossible_wishes_are_refused_by_name() {
    let (_keep, image) = scratch("a.qcow2");
    for (arguments, reason) in [
        (&["-f", "qcow2"][..], "the size of the new image is missing"),
        (
            &["-f", "qcow2", "-o", "colour=red"],
            "there is no such option for qcow2",
        ),
        (
            &["-f", "raw", "-o", "cluster_size=4k"],
            "there is no such option for raw",
        ),
        (
            &["-f", "qcow2", "-o", "cluster_size=3k"],
            "cluster size 3072",
        ),
        (&["-f", "qcow2", "-b", "x"], "--backing-format"),
        (
            &["-f", "raw", "-b", "x", "-F", "raw"],
            "a raw image has no backing file",
        ),
        (
            &["-f", "qcow2", "-b", "x", "-F", "raw"],
            "-u creates the overlay",
        ),
    ] {
        let size = (!reason.contains("size of")).then_some("1M");
        let all = ["create"].into_iter().chain(arguments.iter().copied());
        let text = qimg(all.chain([image.as_str()]).chain(size)).failed(1);
        assert!(
            text.starts_with("qimg: ") && text.contains(reason),
            "{text}"
        );
    }
    assert!(!std::path::Path::new(&image).exists());
}

#[test]
fn options_are_listed_on_request() {
    for word in ["help", "?"] {
        let text = qimg(["create", "-f", "qcow2", "-o", word, "a", "1M"]).well();
        assert!(text.contains("\n  cluster_size=<size> "), "{text}");
    }
}
