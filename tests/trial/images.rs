//! Images that are not booted: refused, or looked into.

use std::process::Command;

use crate::bench::{Bench, image};

#[test]
fn an_image_that_names_another_file_is_refused_before_qemu_sees_it() {
    let bench = Bench::new();
    let base = bench.path("base.raw");
    std::fs::write(&base, vec![0; 1 << 20]).unwrap();
    let overlay = bench.path("overlay.qcow2");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .args([&base, &overlay])
        .status();
    assert!(made.unwrap().success());
    bench.write("goss.yaml", "port:\n  tcp:22: {listening: true}\n");
    let said = bench.test(&["overlay.qcow2", "-s", "goss.yaml"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("names a backing file"), "{}", said.err);
    assert!(bench.left().is_empty(), "{:?}", bench.left());
}

#[test]
fn a_file_with_mistakes_starts_no_machine() {
    let bench = Bench::new();
    bench.write(
        "goss.yaml",
        "port:\n  tcp:22:\n    listening: true\nport:\n  tcp:80:\n    listening: true\n",
    );
    let said = bench.test(&["nowhere.qcow2", "-s", "goss.yaml"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err
            .contains("goss.yaml: line 4, column 1: 'port' is there twice, first in line 1"),
        "{}",
        said.err
    );
    bench.write("goss.yaml", "prot:\n  tcp:22: {listening: true}\n");
    let said = bench.test(&["nowhere.qcow2", "-s", "goss.yaml"]);
    assert!(said.err.contains("did you mean port?"), "{}", said.err);
}

#[test]
fn what_a_used_image_holds_is_read_without_booting_it() {
    let bench = Bench::new();
    bench.write(
        "goss.yaml",
        "sealed:\n  image: {host-keys: \"\", machine-id: \"\", cloud-init-state: \"\", random-seed: \"\", authorized-keys: \"\"}\n\
         matching:\n  two: {content: 2, matches: {lt: 3}}\n",
    );
    let used = image("used.qcow2");
    let before = std::fs::metadata(&used).unwrap().modified().unwrap();
    let said = bench.test(&[
        "--format",
        "json",
        "-s",
        "goss.yaml",
        used.to_str().unwrap(),
    ]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let results = said.results();
    assert!(
        !results[3].1 && results[3].2.contains("/etc/ssh/ssh_host_")
            || results
                .iter()
                .any(|(_, passed, line)| !passed && line.contains("ssh_host_")),
        "{results:?}"
    );
    assert!(
        results
            .iter()
            .any(|(name, passed, _)| name == "Matching two matches" && *passed),
        "{results:?}"
    );
    assert_eq!(
        std::fs::metadata(&used).unwrap().modified().unwrap(),
        before
    );
    let fresh = image("small.qcow2");
    let said = bench.test(&[
        "--format",
        "json",
        "-s",
        "goss.yaml",
        fresh.to_str().unwrap(),
    ]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.json()["images"][0]["sha256"].as_str().unwrap().len() == 64);
}
