//! `info` says what qemu-img says.

use crate::program::{images, qemu_img, qimg, scratch, testdata};

#[test]
fn words_are_those_of_qemu_img() {
    for image in images(|name| name != "unknown-feature.qcow2") {
        for path in [image.clone(), format!("./{image}")] {
            assert_eq!(
                qimg(["info", &path]).well(),
                qemu_img(["info", &path]).well()
            );
        }
    }
}

#[test]
fn json_is_that_of_qemu_img() {
    for image in images(|name| name != "unknown-feature.qcow2") {
        for form in ["--json", "--output=json"] {
            let expected = qemu_img(["info", "--output=json", &image]).json();
            assert_eq!(qimg(["info", form, &image]).json(), expected);
        }
    }
}

#[test]
fn json_is_indented_as_by_qemu_img() {
    let text = qimg(["info", "--json", "v3.qcow2"]).well();
    assert!(
        text.starts_with("{\n    \"") && text.ends_with("\n}\n"),
        "{text}"
    );
}

#[test]
fn a_chain_is_told_once_allowed() {
    let chain = ["info", "--backing-chain", "chain-top.qcow2"];
    assert_eq!(
        qimg(chain.into_iter().chain(["--backing", "beside"])).well(),
        qemu_img(chain).well()
    );
    let text = qimg(chain).failed(1);
    assert_eq!(
        text,
        "qimg: chain-top.qcow2: its backing file 'chain-mid.qcow2' would have to be opened\n  \
         hint: allow that with --backing beside (same directory) or --backing any\n"
    );
    let expected = qemu_img([
        "info",
        "--output=json",
        "--backing-chain",
        "chain-top.qcow2",
    ])
    .json();
    let chain = [
        "info",
        "--json",
        "--backing-chain",
        "--backing=any",
        "chain-top.qcow2",
    ];
    assert_eq!(qimg(chain).json(), expected);
}

#[test]
fn luks_headers_are_told_in_the_same_order() {
    let (_keep, image) = scratch("luks.qcow2");
    let secret = ["--object", "secret,id=s,data=x"];
    let options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,\
                   encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256,encrypt.cipher-mode=cbc";
    let create = ["create", "-q", "-f", "qcow2", "-o", options, &image, "1M"];
    qemu_img(create.into_iter().chain(secret)).well();
    assert_eq!(
        qimg(["info", &image]).well(),
        qemu_img(["info", &image]).well()
    );
}

#[test]
fn clusters_are_counted_on_request() {
    let text = qimg(["info", "--clusters", "zlib.qcow2"]).well();
    assert!(
        text.starts_with(&qimg(["info", "zlib.qcow2"]).well()),
        "{text}"
    );
    let (_, counts) = text.split_once("Clusters:\n").unwrap();
    assert!(
        counts.starts_with(
            "    total: 12\n    data: 2\n    compressed: 6\n    zero: 0\n    \
             zero, preallocated: 0\n    unallocated: 4\n    compressed size: "
        ),
        "{counts}"
    );
    let json = qimg(["info", "--clusters", "--json", "zlib.qcow2"]).json();
    assert_eq!(json["clusters"]["compressed"], 6);
    let text = qimg(["info", "--clusters", "subclusters.qcow2"]).well();
    assert!(text.contains("\n    their subclusters: "), "{text}");
    qimg(["info", "--clusters", "content.raw"]).failed(1);
}

#[test]
fn a_format_can_be_forced() {
    let forced = ["info", "-f", "raw", "v3.qcow2"];
    assert_eq!(qimg(forced).well(), qemu_img(forced).well());
}

#[test]
fn files_that_are_no_image_are_named_with_the_reason() {
    for (file, reason) in [
        ("nowhere.qcow2", "caused by: No such file or directory"),
        ("v1.qcow", "qcow (version 1)"),
        ("unknown-feature.qcow2", "time travel"),
        (".", "director"),
        ("/dev/null", "character device"),
    ] {
        let text = qimg(["info", file]).failed(1);
        assert!(
            text.starts_with(&format!("qimg: {file}: ")) && text.contains(reason),
            "{text}"
        );
    }
}

#[test]
fn names_cannot_command_the_terminal() {
    let (_keep, image) = scratch("evil\u{1b}[2J\n.qcow2");
    std::fs::copy(testdata().join("v3.qcow2"), &image).unwrap();
    let text = qimg(["info", &image]).well();
    assert!(
        text.contains("evil\\u{1b}[2J\\n.qcow2\n") && !text.contains('\u{1b}'),
        "{text}"
    );
    let text = qimg(["info", "gone\u{1b}]0;x\u{7}"]).failed(1);
    assert!(
        text.starts_with("qimg: gone\\u{1b}]0;x\\u{7}: cannot open\n"),
        "{text}"
    );
}

#[test]
fn names_inside_an_image_cannot_either() {
    let (_keep, image) = scratch("overlay.qcow2");
    let name = "base\u{1b}[31m\u{202e}.raw";
    let create = [
        "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", name, &image, "1M",
    ];
    qemu_img(create).well();
    qemu_img(["snapshot", "-c", "snap\u{1b}[0m", &image]);
    for options in [&["info"][..], &["info", "--backing-chain", "--backing=any"]] {
        let said = qimg(options.iter().chain([&image.as_str()]));
        let text = said.out + &said.err;
        assert!(text.contains("base\\u{1b}[31m\\u{202e}.raw"), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
    }
    let json = qimg(["info", "--json", &image]).json();
    assert_eq!(json["backing-filename"], name);
}
