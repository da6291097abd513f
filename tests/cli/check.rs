//! `check` says what qemu-img says, and exits as it does.

use crate::program::{images, qemu_img, qimg};

/// Images that qemu-img checks, whatever it finds.
fn checkable() -> Vec<String> {
    images(|name| {
        name.ends_with(".qcow2") && !matches!(name, "aes.qcow2" | "unknown-feature.qcow2")
    })
}

#[test]
fn result_and_exit_code_are_those_of_qemu_img() {
    for image in checkable() {
        let (ours, theirs) = (qimg(["check", &image]), qemu_img(["check", &image]));
        assert_eq!(
            (ours.out, ours.code),
            (theirs.out, theirs.code),
            "{image}: {}",
            ours.err
        );
    }
}

#[test]
fn json_is_that_of_qemu_img() {
    for image in checkable() {
        let ours = qimg(["check", "--json", &image]);
        let theirs = qemu_img(["check", "--output=json", &image]);
        assert_eq!(ours.code, theirs.code, "{image}");
        let ours = ours.json();
        for (key, value) in theirs.json().as_object().unwrap() {
            assert_eq!(&ours[key], value, "{image}: {key}");
        }
    }
}

#[test]
fn findings_go_to_stderr_and_quiet_keeps_the_exit_code() {
    let said = qimg(["check", "leaked.qcow2"]);
    assert_eq!(said.code, Some(3));
    assert!(
        said.err.lines().count() == 1 && said.err.contains("13"),
        "{}",
        said.err
    );
    let said = qimg(["check", "-q", "refcount-lost.qcow2"]);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
}

#[test]
fn a_raw_image_has_nothing_to_check() {
    let text = qimg(["check", "content.raw"]).failed(63);
    assert!(text.starts_with("qimg: content.raw: "), "{text}");
    qimg(["check", "nowhere"]).failed(1);
}
