//! `measure` says what qemu-img says.

use crate::program::{images, qemu_img, qimg};

fn same(arguments: &[&str]) {
    let ours = qimg(["measure", "--backing=beside"].iter().chain(arguments)).well();
    let theirs = qemu_img(["measure"].iter().chain(arguments)).well();
    assert_eq!(ours, theirs, "{arguments:?}");
}

#[test]
fn sizes_are_those_of_qemu_img() {
    for image in images(|name| {
        !matches!(
            name,
            "aes.qcow2" | "unknown-feature.qcow2" | "truncated.qcow2"
        )
    }) {
        same(&[&image]);
        same(&["-O", "qcow2", &image]);
        same(&[
            "-O",
            "qcow2",
            "-o",
            "cluster_size=4k,refcount_bits=64",
            &image,
        ]);
    }
    same(&["-O", "qcow2", "-l", "first", "snapshots.qcow2"]);
}

#[test]
fn a_size_alone_can_be_measured() {
    for size in ["0", "1000", "1G", "1T"] {
        same(&["--size", size]);
        same(&["-O", "qcow2", "--size", size]);
        same(&["-O", "qcow2", "-o", "cluster_size=2M", "--size", size]);
    }
}

#[test]
fn json_has_the_same_numbers() {
    let arguments = ["measure", "-O", "qcow2", "--output=json", "bitmaps.qcow2"];
    assert_eq!(qimg(arguments).json(), qemu_img(arguments).json());
}

#[test]
fn an_unknown_snapshot_is_named() {
    let text = qimg(["measure", "-l", "nope", "snapshots.qcow2"]).failed(1);
    assert!(text.contains("'nope'"), "{text}");
}
