//! `map` says what qemu-img says.

use crate::program::{images, qemu_img, qimg};

/// Images that qemu-img maps. The truncated one has a cluster behind its end, which qimg refuses to show as data.
fn mappable() -> Vec<String> {
    images(|name| {
        !matches!(
            name,
            "aes.qcow2" | "unknown-feature.qcow2" | "truncated.qcow2"
        )
    })
}

fn is_compressed(name: &str) -> bool {
    matches!(name, "zlib.qcow2" | "zstd.qcow2")
}

#[test]
fn words_are_those_of_qemu_img() {
    for image in mappable().iter().filter(|name| !is_compressed(name)) {
        let ours = qimg(["map", "--backing", "beside", image]).well();
        assert_eq!(ours, qemu_img(["map", image]).well());
    }
}

#[test]
fn json_is_that_of_qemu_img_to_the_byte() {
    for image in mappable() {
        let ours = qimg(["map", "--json", "--backing", "beside", &image]).well();
        assert_eq!(ours, qemu_img(["map", "--output=json", &image]).well());
    }
}

#[test]
fn a_part_can_be_shown() {
    let part = ["--start-offset", "20k", "--max-length", "16k"];
    for image in ["v3.qcow2", "sample.qcow2", "content.raw"] {
        let arguments = ["map"].into_iter().chain(part).chain([image]);
        assert_eq!(qimg(arguments.clone()).well(), qemu_img(arguments).well());
    }
    let behind = ["map", "-s", "1G", "v3.qcow2"];
    assert_eq!(qimg(behind).well(), qemu_img(behind).well());
}

#[test]
fn what_may_not_be_opened_is_not_followed() {
    let text = qimg(["map", "chain-top.qcow2"]).well();
    assert_eq!(
        text,
        "Offset          Length          Mapped to       File\n\
         0               0x1000          0x5000          chain-top.qcow2\n\
         0xf000          0x1000          0x6000          chain-top.qcow2\n"
    );
}

#[test]
fn compressed_clusters_are_shown_where_qemu_img_gives_up() {
    let text = qimg(["map", "zlib.qcow2"]).well();
    assert_eq!(
        text,
        "Offset          Length          Mapped to       File\n\
         0               0x3000          compressed      zlib.qcow2\n\
         0x5000          0x2000          0x7000          zlib.qcow2\n\
         0x7000          0x1000          compressed      zlib.qcow2\n\
         0xa000          0x1200          compressed      zlib.qcow2\n"
    );
    assert_eq!(qemu_img(["map", "zlib.qcow2"]).code, Some(1));
}
