//! `sparsify` writes to the image itself, says what it dropped, and refuses what it must not write.

use crate::program::{qemu_img, qimg, scratch, testdata};

fn copy(name: &str) -> (tempfile::TempDir, String) {
    let (keep, path) = scratch(name);
    std::fs::copy(testdata().join(name), &path).unwrap();
    (keep, path)
}

#[test]
fn a_dry_run_tells_what_the_work_then_does() {
    let (_keep, image) = copy("zeros.qcow2");
    let before = std::fs::read(&image).unwrap();
    let told = qimg(["sparsify", "--dry-run", "--json", &image]).json();
    assert_eq!(std::fs::read(&image).unwrap(), before);
    let done = qimg(["sparsify", "--json", &image]).json();
    assert_eq!(
        (&told["dry-run"], &done["dry-run"]),
        (&true.into(), &false.into())
    );
    for key in [
        "free-bytes",
        "zero-bytes",
        "freed-clusters",
        "file-length",
        "file-length-before",
        "metadata-bytes",
        "virtual-size",
        "cluster-size",
        "disk-size-before",
    ] {
        assert!(done[key].is_u64(), "{key}: {done}");
        assert_eq!(told[key], done[key], "{key}");
    }
    assert!(done["zero-bytes"].as_u64() > Some(0), "{done}");
    assert!(std::fs::read(&image).unwrap() != before);
    qemu_img(["check", "-q", &image]).well();
    let again = qimg(["sparsify", "--json", &image]).json();
    assert_eq!(again["zero-bytes"], 0);
}

#[test]
fn people_are_told_in_two_lines() {
    let (_keep, image) = copy("zeros.qcow2");
    let text = qimg(["sparsify", "--dry-run", &image]).well();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with(" (nothing was written)"), "{text}");
    assert!(lines[1].starts_with("dropped: 0 B free, "), "{text}");
    // What a dry run adds is a table of the parts.
    assert!(
        lines[3].starts_with("PART ") && lines[4].starts_with("disk "),
        "{text}"
    );
    let text = qimg(["sparsify", &image]).well();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert_eq!(qimg(["sparsify", "-q", &image]).well(), "");
}

#[test]
fn zeros_stay_where_they_are_wanted() {
    let (_keep, image) = copy("zeros.qcow2");
    let before = std::fs::read(&image).unwrap();
    let done = qimg(["sparsify", "--keep-zeros", "--json", &image]).json();
    assert_eq!(done["zero-bytes"], 0);
    assert_eq!(std::fs::read(&image).unwrap(), before);
    qimg(["sparsify", "--keep-zeros", "--exact", &image]).failed(1);
}

#[test]
fn what_must_not_be_written_is_not() {
    for (name, words) in [
        ("dirty.qcow2", "was not closed"),
        ("corrupt-bit.qcow2", "is marked corrupt"),
        ("aes.qcow2", "is encrypted"),
        ("refcount-lost.qcow2", "the image has errors"),
        ("external.qcow2", "--backing"),
    ] {
        let (_keep, image) = copy(name);
        let before = std::fs::read(&image).unwrap();
        let text = qimg(["sparsify", &image]).failed(1);
        assert!(text.contains(words) && text.contains(&image), "{text}");
        assert_eq!(std::fs::read(&image).unwrap(), before, "{name}");
    }
    qimg(["sparsify", "nowhere.qcow2"]).failed(1);
    qimg(["sparsify", "-U", "nowhere.qcow2"]).failed(1);
}

#[test]
fn a_raw_image_must_be_called_one_or_look_like_one() {
    let (_keep, image) = copy("content.raw");
    let before = std::fs::read(&image).unwrap();
    let done = qimg(["sparsify", "-f", "raw", "--json", &image]).json();
    assert!(done["zero-bytes"].as_u64() > Some(0), "{done}");
    assert!(done.get("cluster-size").is_none());
    assert_eq!(std::fs::read(&image).unwrap(), before);
}
