//! Images that are not booted: refused, or looked into.

use std::path::PathBuf;
use std::process::Command;

use crate::bench::Bench;

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

/// An image with all that machines made of it would share.
fn unsealed(bench: &Bench) -> PathBuf {
    for (name, text) in [
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n",
        ),
        ("etc/os-release", "ID=debian\n"),
        ("etc/ssh/ssh_host_ed25519_key", "secret"),
        ("etc/ssh/ssh_host_ed25519_key.pub", "public"),
        ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        ("var/lib/cloud/instances/i-1/user-data.txt", "x"),
        ("var/lib/systemd/random-seed", "x"),
        ("root/.ssh/authorized_keys", "# none\n"),
        (
            "home/bob/.ssh/authorized_keys",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEu bob@home\n",
        ),
    ] {
        let path = bench.path("tree").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let image = bench.path("unsealed.raw");
    let made = Command::new("mke2fs")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(["-q", "-t", "ext4", "-d"])
        .args([&bench.path("tree"), &image])
        .arg("16M")
        .status();
    assert!(made.unwrap().success());
    image
}

#[test]
fn what_machines_would_share_is_read_without_booting_the_image() {
    let bench = Bench::new();
    bench.write(
        "goss.yaml",
        "sealed:\n  image: {host-keys: \"\", machine-id: \"\", cloud-init-state: \"\", random-seed: \"\", authorized-keys: \"\"}\n\
         matching:\n  two: {content: 2, matches: {lt: 3}}\n",
    );
    let image = unsealed(&bench);
    let before = std::fs::read(&image).unwrap();
    let image = image.to_str().unwrap();
    let said = bench.test(&["--format", "json", "-f", "raw", "-s", "goss.yaml", image]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let results = said.results();
    for (name, words) in [
        (
            "authorized-keys",
            "/home/bob/.ssh/authorized_keys: ssh-ed25519",
        ),
        ("host-keys", "/etc/ssh/ssh_host_ed25519_key"),
        ("machine-id", "/etc/machine-id: 0123"),
        ("cloud-init-state", "/var/lib/cloud/instances/i-1"),
        ("random-seed", "/var/lib/systemd/random-seed"),
    ] {
        let (_, passed, line) = { results.iter() }
            .find(|(of, _, _)| of == &format!("Sealed image {name}"))
            .unwrap();
        assert!(!passed && line.contains(words), "{name}: {line}");
    }
    assert!(results.last().unwrap().1, "{results:?}");
    assert!(std::fs::read(image).unwrap() == before);
    let fresh = crate::bench::image("small.qcow2");
    let said = bench.test(&[
        "--format",
        "json",
        "-s",
        "goss.yaml",
        fresh.to_str().unwrap(),
    ]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(
        said.json()["images"][0]["sha256"].as_str().unwrap().len(),
        64
    );
}
