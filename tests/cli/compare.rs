//! `compare` says what qemu-img says, and exits as it does.

use crate::program::{Said, qemu_img, qimg, scratch, testdata};

fn compare(arguments: &[&str]) -> Said {
    qimg(["compare"].iter().chain(arguments))
}

#[test]
fn words_and_exit_codes_are_those_of_qemu_img() {
    for arguments in [
        &["v3.qcow2", "content.raw"][..],
        &["zlib.qcow2", "zstd.qcow2"],
        &["-s", "v3.qcow2", "v2.qcow2"],
        &["sample.qcow2", "content.raw"],
        &["-s", "zeros.qcow2", "content.raw"],
        &["empty.qcow2", "zeros.qcow2"],
        &["-f", "raw", "-F", "qcow2", "content.raw", "zlib.qcow2"],
        &["-q", "v3.qcow2", "sample.qcow2"],
        &["-q", "v3.qcow2", "v2.qcow2"],
    ] {
        let theirs = qemu_img(["compare"].iter().chain(arguments));
        let ours = compare(arguments);
        assert_eq!(
            (ours.out, ours.code),
            (theirs.out, theirs.code),
            "{arguments:?}"
        );
    }
}

#[test]
fn an_image_that_grew_by_zeros_is_the_same() {
    let (_keep, longer) = scratch("longer.raw");
    let mut bytes = std::fs::read(testdata().join("content.raw")).unwrap();
    bytes.resize(1 << 20, 0);
    std::fs::write(&longer, bytes).unwrap();
    for arguments in [
        &["content.raw", &longer][..],
        &["-s", &longer, "content.raw"],
    ] {
        let theirs = qemu_img(["compare"].iter().chain(arguments));
        let ours = compare(arguments);
        assert_eq!((ours.out, ours.code), (theirs.out, theirs.code));
    }
}

#[test]
fn all_differences_are_listed() {
    let (_keep, other) = scratch("other.raw");
    let mut bytes = std::fs::read(testdata().join("content.raw")).unwrap();
    for offset in [0x200, 0x8000, 0x8200] {
        bytes[offset] ^= 1;
    }
    std::fs::write(&other, bytes).unwrap();
    let said = compare(&["--all", "v3.qcow2", &other]);
    assert_eq!(said.code, Some(1));
    assert_eq!(
        said.out,
        "Offset          Length\n0x200           0x200\n0x8000          0x400\n1536 bytes differ.\n"
    );
    let json = compare(&["--all", "--json", "v3.qcow2", &other]).json();
    assert_eq!(json["identical"], false);
}

#[test]
fn images_that_cannot_be_opened_or_read_have_codes_of_their_own() {
    compare(&["v3.qcow2", "nowhere"]).failed(2);
    compare(&["chain-top.qcow2", "v3.qcow2"]).failed(2);
    compare(&["aes.qcow2", "v3.qcow2"]).failed(4);
    // An L2 table in the middle of a cluster.
    let (_keep, odd) = scratch("odd.qcow2");
    let mut bytes = std::fs::read(testdata().join("v3.qcow2")).unwrap();
    let l1 = usize::from_be_bytes(bytes[40..48].try_into().unwrap());
    bytes[l1..l1 + 8].copy_from_slice(&(1 << 63 | 0x4200_u64).to_be_bytes());
    std::fs::write(&odd, bytes).unwrap();
    compare(&[&odd, "v3.qcow2"]).failed(3);
    compare(&["v3.qcow2"]).failed(1);
}
