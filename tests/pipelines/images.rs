//! Which images are built.

use crate::{IMAGES, Repository};

impl Repository {
    fn list(&self, since: &str) -> Vec<String> {
        let text = self.well(&[
            "build",
            "--all",
            "images",
            "--changed-since",
            since,
            "--list",
        ]);
        text.lines().map(str::to_owned).collect()
    }

    fn reason(&self, since: &str) -> String {
        let text = self.well(&[
            "build",
            "--all",
            "images",
            "--changed-since",
            since,
            "--list",
            "--json",
        ]);
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        list[0]["reason"].as_str().unwrap_or_default().to_owned()
    }
}

#[test]
fn only_images_that_have_changed_are_built() {
    let repository = Repository::new();
    let workshop = &repository.workshop;
    assert_eq!(repository.list("HEAD"), IMAGES, "none was ever built");
    assert_eq!(repository.reason("HEAD"), "it was never built");
    let said = repository.well(&["build", "--all", "images", "--changed-since", "HEAD"]);
    for image in IMAGES {
        assert!(
            workshop
                .path(&format!("output/{image}/{image}.qcow2"))
                .exists(),
            "{said}"
        );
        assert!(
            said.contains(&format!("Image {image}: it was never built")),
            "{said}"
        );
    }
    assert!(repository.list("HEAD").is_empty());
    assert!(
        repository
            .well(&["build", "--all", "images", "--changed-since", "HEAD"])
            .contains("Nothing has changed")
    );
    // A file of its own: not committed, not even known, then committed.
    workshop.write("images/debian-uefi/new", "x");
    assert_eq!(repository.list("HEAD"), ["debian-uefi"]);
    repository.commit();
    assert!(repository.list("HEAD").is_empty());
    assert_eq!(repository.list("HEAD~1"), ["debian-uefi"]);
    assert_eq!(repository.reason("HEAD~1"), "debian-uefi/new has changed");
    // A file that is gone, in a branch that the other one has left behind.
    repository.git(&["checkout", "-q", "-b", "work"]);
    repository.git(&["rm", "-q", "images/debian-cloud/checks.yaml"]);
    repository.commit();
    repository.git(&["checkout", "-q", "main"]);
    workshop.write("images/debian-installer/other", "x");
    repository.commit();
    repository.git(&["checkout", "-q", "work"]);
    assert_eq!(repository.list("main"), ["debian-cloud"]);
    // What is in no image's folder is everybody's.
    workshop.write("images/shared/clean.sh", "false\n");
    assert_eq!(repository.list("HEAD"), IMAGES);
    repository.git(&["checkout", "-q", "images"]);
    workshop.write("elsewhere", "x");
    assert!(repository.list("HEAD").is_empty());
    // Another base.
    oracle(&repository, &["resize", "-q", "quick.qcow2", "2M"]);
    assert_eq!(repository.list("HEAD"), IMAGES);
    assert_eq!(repository.reason("HEAD"), "its base has changed");
    repository.well(&[
        "build",
        "--all",
        "images",
        "--changed-since",
        "HEAD",
        "--image",
        "debian-cloud",
        "--force",
    ]);
    assert_eq!(repository.list("HEAD"), ["debian-installer", "debian-uefi"]);
}

fn oracle(repository: &Repository, arguments: &[&str]) {
    crate::oracle_tools::must(&repository.workshop.path(""), "qemu-img", arguments);
}

#[test]
fn images_are_chosen_by_name_and_by_place() {
    let repository = Repository::new();
    let list = |further: &[&str]| {
        let text = repository.well(&[&["build", "--all", "images", "--list"], further].concat());
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(list(&[]), IMAGES);
    assert_eq!(list(&["--index", "1"]), ["debian-installer"]);
    assert_eq!(
        list(&["--image", "debian-uefi,debian-cloud"]),
        ["debian-cloud", "debian-uefi"]
    );
    for (arguments, words) in [
        (&["--index", "3"][..], "there are 3, from 0 on"),
        (
            &["--image", "no"],
            "there is debian-cloud, debian-installer, debian-uefi",
        ),
        (
            &["--changed-since", "no-such"],
            "hint: name a commit that is here",
        ),
        (&["--changed-since=--output=x"], "is no commit"),
    ] {
        let output =
            repository.qimg(&[&["build", "--all", "images", "--list"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words), "{said}");
    }
    let output = repository.qimg(&["build", "--all", "output", "--list"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("holds no image"));
    assert_eq!(
        repository
            .qimg(&["build", "--changed-since", "HEAD", "x.toml"])
            .status
            .code(),
        Some(1)
    );
    assert_eq!(repository.qimg(&["build"]).status.code(), Some(1));
}

#[test]
fn one_image_that_fails_is_no_reason_not_to_build_the_others() {
    let repository = Repository::new();
    let workshop = &repository.workshop;
    workshop.write(
        "images/debian-cloud/image.toml",
        "name = \"broken\"\nnonsense = 1\n",
    );
    let output = repository.qimg(&["build", "--all", "images"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        workshop
            .path("output/debian-uefi/debian-uefi.qcow2")
            .exists()
    );
    let text = workshop.read("images/bases.json");
    assert!(
        text.contains("debian-uefi") && !text.contains("debian-cloud"),
        "{text}"
    );
    assert_eq!(repository.list("HEAD"), ["debian-cloud"]);
}
