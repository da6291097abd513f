//! What is read is never written over, by whatever name, even where nobody's lock says so.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::program::{Said, qemu_img, qimg};

const REFUSED: &str = "is read from and cannot be written to at the same time";

/// An ext4 filesystem with a file in it, `base.raw`, an overlay of it, `over.qcow2`, and more names of both.
struct Images {
    directory: TempDir,
    before: Vec<(PathBuf, Vec<u8>)>,
}

impl Images {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("root")).unwrap();
        fs::write(at("root/passwd"), "root:x:0:0\n").unwrap();
        let made = Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-d", "root", "base.raw", "8M"])
            .current_dir(directory.path())
            .output();
        assert!(made.expect("mke2fs must be installed").status.success());
        let over = at("over.qcow2");
        let over = over.to_str().unwrap();
        qemu_img([
            "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw", over,
        ])
        .well();
        for name in ["base.raw", "over.qcow2"] {
            symlink(at(name), at(&format!("symlink-{name}"))).unwrap();
            fs::hard_link(at(name), at(&format!("hard-{name}"))).unwrap();
        }
        let before = ["base.raw", "over.qcow2"].map(|name| (at(name), fs::read(at(name)).unwrap()));
        Self {
            before: before.into(),
            directory,
        }
    }

    fn at(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// It was refused, with `way_out` for a hint, and nothing was written.
    #[track_caller]
    fn assert_refused(&self, said: Said, destination: &str, way_out: &str) {
        let said = said.failed(1);
        let expected = format!("qimg: {destination}: {REFUSED}\n  hint: {way_out}\n");
        assert_eq!(said, expected);
        for (path, before) in &self.before {
            assert!(fs::read(path).unwrap() == *before, "{}", path.display());
        }
        for name in ["symlink-base.raw", "symlink-over.qcow2"] {
            assert!(Path::new(&self.at(name)).is_symlink(), "{name}");
        }
    }
}

/// Every name of the files that `over.qcow2` is read from.
const NAMES: [&str; 6] = [
    "base.raw",
    "symlink-base.raw",
    "hard-base.raw",
    "over.qcow2",
    "symlink-over.qcow2",
    "hard-over.qcow2",
];

#[test]
fn a_picture_does_not_take_the_place_of_the_disk_it_shows() {
    let images = Images::new();
    let over = images.at("over.qcow2");
    let way_out = "write the picture to another file";
    for locking in [&["-U"][..], &[]] {
        for name in NAMES {
            let picture = images.at(name);
            let arguments = ["inspect", "--backing", "beside", "--svg", &picture, &over];
            let said = qimg(arguments.iter().chain(locking));
            images.assert_refused(said, &picture, way_out);
        }
        let base = images.at("base.raw");
        let arguments = ["inspect", "--svg", &base, &base];
        let said = qimg(arguments.iter().chain(locking));
        images.assert_refused(said, &base, way_out);
    }
    let picture = images.at("picture.svg");
    qimg([
        "inspect",
        "-q",
        "--backing",
        "beside",
        "--svg",
        &picture,
        &over,
    ])
    .well();
    // A picture that is there is replaced.
    qimg([
        "inspect",
        "-q",
        "--backing",
        "beside",
        "--svg",
        &picture,
        &over,
    ])
    .well();
    assert!(fs::read_to_string(&picture).unwrap().starts_with("<svg "));
}

#[test]
fn a_copied_file_does_not_take_the_place_of_the_image_or_what_is_behind_it() {
    let images = Images::new();
    let file = format!("{}:/passwd", images.at("over.qcow2"));
    let way_out = "copy to another file";
    for name in NAMES {
        let copy = images.at(name);
        for force in [&["--force"][..], &[]] {
            let arguments = ["cp", "--backing", "beside", &file, &copy];
            let said = qimg(arguments.iter().chain(force));
            images.assert_refused(said, &copy, way_out);
        }
    }
    // Into a directory, where the file has the name of the image.
    fs::create_dir(images.at("there")).unwrap();
    let inside = images.at("there/passwd");
    fs::hard_link(images.at("base.raw"), &inside).unwrap();
    let there = images.at("there");
    let said = qimg(["cp", "--force", "--backing", "beside", &file, &there]);
    images.assert_refused(said, &inside, way_out);
    // What is not read is replaced if that is asked for.
    let other = images.at("other");
    fs::write(&other, "other").unwrap();
    qimg(["cp", "-q", "--force", "--backing", "beside", &file, &other]).well();
    assert_eq!(fs::read_to_string(&other).unwrap(), "root:x:0:0\n");
}

#[test]
fn a_disk_does_not_take_the_place_of_its_own_description() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let text = "size = \"4M\"\n[[partition]]\ntype = \"linux\"\n";
    let description = at("disk.toml");
    fs::write(&description, text).unwrap();
    symlink(&description, at("symlink")).unwrap();
    fs::hard_link(&description, at("hard")).unwrap();
    for destination in ["disk.toml", "symlink", "hard"].map(at) {
        for existing in [&[][..], &["-n"]] {
            let arguments = ["disk", "create", "--from", &description, &destination];
            let said = qimg(arguments.iter().chain(existing)).failed(1);
            let way_out = "write the disk to another file";
            let expected = format!("qimg: {destination}: {REFUSED}\n  hint: {way_out}\n");
            assert_eq!(said, expected);
            assert_eq!(fs::read_to_string(&description).unwrap(), text);
        }
    }
    qimg([
        "disk",
        "create",
        "-q",
        "--from",
        &description,
        &at("disk.raw"),
    ])
    .well();
}
