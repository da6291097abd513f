//! Lines as programs write them, and files as distributions publish them.

use super::*;

const MD5: &str = "900150983cd24fb0d6963f7d28e17f72";
const SHA1: &str = "a9993e364706816aba3e25717850c26c9cd0d89d";
const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const OTHER: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn digest(text: &str, name: &str) -> Result<Digest> {
    digest_of(&read(text), name, None)
}

fn hex(text: &str, name: &str) -> String {
    digest(text, name).unwrap().hex()
}

#[test]
fn gnu_lines() {
    for line in [
        format!("{SHA256}  disk.img"),
        format!("{SHA256} *disk.img"),
        format!("{SHA256}\tdisk.img"),
        format!("{SHA256} disk.img\r"),
        format!("{}  ./disk.img", SHA256.to_uppercase()),
        format!("{SHA256}  some/where/disk.img"),
        format!("{SHA256}   *disk.img  "),
        format!("\u{feff}{SHA256}  disk.img"),
    ] {
        assert_eq!(hex(&line, "disk.img"), SHA256, "{line:?}");
    }
    assert_eq!(hex(&format!("\\{SHA256}  a\\\\b\\nc"), "a\\b\nc"), SHA256);
    // Without the mark a backslash is itself.
    assert_eq!(hex(&format!("{SHA256}  a\\nb"), "a\\nb"), SHA256);
    assert_eq!(hex(&format!("{SHA256}  two words"), "two words"), SHA256);
}

#[test]
fn bsd_lines() {
    for line in [
        format!("SHA256 (disk.img) = {SHA256}"),
        format!("SHA2-256(disk.img)= {SHA256}"),
        format!("sha256 (./disk.img) = {}", SHA256.to_uppercase()),
        format!("SHA256 (pool/disk.img)={SHA256}"),
    ] {
        assert_eq!(hex(&line, "disk.img"), SHA256, "{line:?}");
    }
    assert_eq!(hex(&format!("SHA256 (a (1)) = {SHA256}"), "a (1)"), SHA256);
    assert!(digest(&format!("SHA256 (a) = {SHA1}"), "a").is_err());
    assert!(digest(&format!("CRC (a) = {SHA1}"), "a").is_err());
}

#[test]
fn comments_and_prose_are_passed_over() {
    let text = format!(
        "# disk.img: 5 bytes\nSHA256 (disk.img) = {SHA256}\n\nHash: SHA256\n# {OTHER}  disk.img\nnonsense line\n"
    );
    assert_eq!(read(&text).len(), 1);
    assert_eq!(hex(&text, "disk.img"), SHA256);
}

#[test]
fn a_digest_alone_is_of_any_file() {
    assert_eq!(hex(&format!("{SHA256}\n"), "whatever"), SHA256);
    assert_eq!(hex(&format!("  {SHA256}  "), "whatever"), SHA256);
    assert!(digest(&format!("{SHA256}\n{OTHER}\n"), "whatever").is_err());
    assert!(digest("", "whatever").is_err());
    // With a named one beside it, it is nobody's.
    let text = format!("{OTHER}\n{SHA256}  disk.img\n");
    assert_eq!(hex(&text, "disk.img"), SHA256);
    assert!(digest(&text, "other.img").is_err());
}

#[test]
fn the_strongest_kind_is_taken() {
    let text = format!("MD5 (d) = {MD5}\nSHA256 (d) = {SHA256}\nSHA1 (d) = {SHA1}\n");
    assert_eq!(digest(&text, "d").unwrap().kind(), DigestKind::Sha256);
}

#[test]
fn two_that_contradict_are_both_named() {
    let text = format!("{SHA256}  a/disk.img\n{OTHER}  b/disk.img\n");
    let error = digest(&text, "disk.img").unwrap_err().to_string();
    for part in [
        "line 1",
        "line 2",
        "a/disk.img",
        "b/disk.img",
        SHA256,
        OTHER,
    ] {
        assert!(error.contains(part), "{error}");
    }
    // Where the image lies decides.
    let lines = read(&text);
    let found = digest_of(&lines, "disk.img", Some("b/disk.img")).unwrap();
    assert_eq!(found.hex(), OTHER);
    // The same twice is no contradiction.
    assert_eq!(hex(&format!("{SHA256}  d\n{SHA256} *d\n"), "d"), SHA256);
    // The file itself counts more than one of the same name elsewhere.
    assert_eq!(hex(&format!("{OTHER}  old/d\n{SHA256}  d\n"), "d"), SHA256);
}

#[test]
fn a_name_that_is_absent_is_told_with_those_that_are_there() {
    let text = format!("{SHA256}  debian-12-amd64.qcow2\n{OTHER}  readme.txt\n");
    let error = digest(&text, "debian-12-arm64.qcow2").unwrap_err();
    assert!(error.to_string().contains("debian-12-arm64.qcow2"));
    let remedy = error.remedy().unwrap();
    assert!(
        remedy.starts_with("it holds those of debian-12-amd64.qcow2"),
        "{remedy}"
    );
}
