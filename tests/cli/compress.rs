//! `compress` and its report.

use crate::program::{Said, qemu_img, qimg, scratch, testdata};

fn compress(arguments: &[&str]) -> Said {
    qimg(["compress"].iter().chain(arguments))
}

#[test]
fn the_report_tells_sizes_ratio_and_rate() {
    let (_keep, small) = scratch("small.qcow2");
    let text = compress(&["--exact", "sample.qcow2", &small]).well();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with(&format!("{small}: ")), "{text}");
    assert!(
        lines[0].contains(" -> ") && lines[0].ends_with(" %, zlib, 64 KiB clusters"),
        "{text}"
    );
    assert!(
        lines[1].starts_with("read ") && lines[1].ends_with("/s"),
        "{text}"
    );
    assert_eq!(
        qemu_img(["compare", "sample.qcow2", &small]).well(),
        "Images are identical.\n"
    );
    assert_eq!(qemu_img(["check", &small]).code, Some(0));
}

#[test]
fn what_was_deleted_from_the_sample_is_not_in_the_result() {
    let (_keep, small) = scratch("small.qcow2");
    let text = compress(&["sample.qcow2", &small]).well();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[1].starts_with("free in the guest: "), "{text}");
    assert_eq!(qemu_img(["check", &small]).code, Some(0));
    let name = "etc/os-release";
    let [before, after] = ["sample.qcow2", &small].map(|image| format!("{image}:/{name}"));
    assert_eq!(qimg(["cat", &after]).well(), qimg(["cat", &before]).well());
    let exact = compress(&["--exact", "--json", "sample.qcow2", &small]).json();
    let pruned = compress(&["--json", "sample.qcow2", &small]).json();
    let size = |report: &serde_json::Value| report["file-length"].as_u64().unwrap();
    assert!(size(&pruned) < size(&exact), "{pruned} {exact}");
    assert!(pruned["free-space"]["dropped"].as_u64() > Some(0));
    assert_eq!(exact["free-space"]["dropped"], 0);
}

#[test]
fn json_holds_the_same() {
    let (_keep, small) = scratch("small.qcow2");
    let json = compress(&["--json", "--codec=zstd", "sample.qcow2", &small]).json();
    assert_eq!(json["source"], "sample.qcow2");
    assert_eq!(json["destination"], small);
    assert_eq!(json["codec"], "zstd");
    assert_eq!(json["virtual-size"], 64 << 20);
    let length = std::fs::metadata(&small).unwrap().len();
    assert_eq!(json["file-length"], length);
    assert_eq!(compress(&["-q", "sample.qcow2", &small]).well(), "");
}

#[test]
fn zlib_is_the_codec_unless_another_is_asked_for() {
    let (_keep, small) = scratch("small.qcow2");
    for (options, codec) in [(&["--exact"][..], "zlib"), (&["--codec=zstd"], "zstd")] {
        let all = [options, &["--json", "zstd.qcow2", &small]].concat();
        assert_eq!(compress(&all).json()["codec"], codec);
    }
}

#[test]
fn a_dry_run_writes_nothing() {
    let (keep, copy) = scratch("copy.qcow2");
    std::fs::copy(testdata().join("sample.qcow2"), &copy).unwrap();
    let before = std::fs::read(&copy).unwrap();
    let text = compress(&["--dry-run", &copy]).well();
    assert!(text.contains(" clusters (nothing was written)\n"), "{text}");
    assert_eq!(std::fs::read(&copy).unwrap(), before);
    assert_eq!(keep.path().read_dir().unwrap().count(), 1);
}

#[test]
fn in_place_replaces_the_source() {
    let (keep, copy) = scratch("copy.qcow2");
    std::fs::copy(testdata().join("sample.qcow2"), &copy).unwrap();
    compress(&["--in-place", "--exact", &copy]).well();
    assert!(std::fs::metadata(&copy).unwrap().len() < 4_500_000);
    assert_eq!(keep.path().read_dir().unwrap().count(), 1);
    assert_eq!(
        qemu_img(["compare", "sample.qcow2", &copy]).well(),
        "Images are identical.\n"
    );
}

#[test]
fn nothing_is_lost_without_a_word() {
    let (_keep, small) = scratch("small.qcow2");
    for (image, option, lost) in [
        (
            "snapshots.qcow2",
            "--drop-snapshots",
            "dropped: 2 snapshots\n",
        ),
        ("bitmaps.qcow2", "--drop-bitmaps", "dropped: 2 bitmaps\n"),
    ] {
        let text = compress(&[image, &small]).failed(1);
        assert!(
            text.contains("\n  hint: ") && text.contains(option),
            "{text}"
        );
        assert!(compress(&[option, image, &small]).well().contains(lost));
    }
}

#[test]
fn an_overlay_stays_one_unless_flattened() {
    let (_keep, small) = scratch("small.qcow2");
    let text = compress(&["chain-top.qcow2", &small]).well();
    assert!(text.contains("\nneeds its backing file: "), "{text}");
    let text = compress(&["--flatten", "--backing=beside", "chain-top.qcow2", &small]).well();
    assert!(!text.contains("backing file"), "{text}");
    assert_eq!(
        qemu_img(["compare", "chain-top.qcow2", &small]).well(),
        "Images are identical.\n"
    );
}

#[test]
fn words_that_exclude_each_other_are_refused() {
    for arguments in [
        &["--in-place", "a", "b"][..],
        &["--dry-run", "a", "b"],
        &["--dry-run", "--in-place", "a"],
        &["--best", "--level=3", "a", "b"],
        &["-n", "--cluster-size=4k", "a", "b"],
        &["--window=8k", "a", "b"],
    ] {
        assert!(compress(arguments).failed(1).starts_with("qimg: "));
    }
}
