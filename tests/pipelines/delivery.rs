//! One image: built, tested, published, and what was published tested and built upon.

use crate::oracle_tools::must;
use crate::servers::{KEY, SECRET, Store, Wire};
use crate::workshop::{Building, Native, Workshop};

/// What the image has to be like before it is published, and after.
const CHECKS: &str = "
file: {/made: {exists: true, contents: [of the build]}}
command: {uname: {exit-status: 0, stdout: [Linux]}}
login: {root: {key: true}}
sealed: {image: {authorized-keys: \"\"}}
shutdown: {button: {clean: true}}
";

/// `qimg test` of an image; its JUnit file.
fn tested(workshop: &Workshop, image: &str) -> String {
    let report = format!("{image}.xml");
    let output = workshop
        .qimg(&[
            "test",
            image,
            "-s",
            "checks.yaml",
            "--memory",
            "256M",
            "--ssh-timeout",
            "15m",
            "--report",
            &format!("junit={report}"),
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}\n{err}");
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/junit.xsd");
    let here = workshop.path("");
    must(
        &here,
        "xmllint",
        &["--noout", "--nonet", "--schema", schema, &report],
    );
    workshop.read(&report)
}

#[test]
fn an_image_is_built_tested_published_fetched_and_tested_again() {
    let (store, workshop) = (Store::new(), Workshop::new());
    let wire = Wire::to(store.port());
    let post = "[[provision]]\nshell = \"echo of the build >/made\"\n\
                [[post]]\nchecksum = [\"sha256\"]\nto = \"output/SHA256SUMS\"\n";
    workshop.write("build.toml", &Native::with(post).text());
    workshop.write("checks.yaml", CHECKS);
    Building::of(workshop.qimg(&["build", "build.toml"]))
        .end()
        .well();
    let junit = tested(&workshop, "output/disk.qcow2");
    assert!(junit.contains("failures=\"0\""), "{junit}");
    for name in ["output/disk.qcow2", "output/SHA256SUMS"] {
        let mut command = workshop.qimg(&[
            "publish",
            name,
            "--to",
            "s3://images/small/",
            "--endpoint",
            &wire.endpoint(),
            "--acl",
            "public-read",
        ]);
        let output = command
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains(SECRET));
    }
    // What is there is what was built, and its checksums say so.
    let here = workshop.path("");
    std::fs::create_dir(workshop.path("fetched")).unwrap();
    for name in ["disk.qcow2", "SHA256SUMS"] {
        std::fs::copy(
            store.object(&format!("small/{name}")),
            workshop.path(&format!("fetched/{name}")),
        )
        .unwrap();
    }
    must(&here, "cmp", &["output/disk.qcow2", "fetched/disk.qcow2"]);
    must(&here, "qemu-img", &["check", "-q", "fetched/disk.qcow2"]);
    assert!(
        wire.seen()
            .iter()
            .any(|seen| seen.header("x-amz-acl") == Some("public-read"))
    );
    // It passes what it passed before.
    let again = tested(&workshop, "fetched/disk.qcow2");
    let cases = |junit: &str| junit.matches("<testcase ").count();
    assert_eq!(cases(&again), cases(&junit));
    // By a link, as whoever has no key gets it; the checksum is that of the build.
    let mut command = workshop.qimg(&[
        "publish",
        "output/disk.qcow2",
        "--to",
        "s3://images/small/",
        "--endpoint",
        &store.endpoint(),
        "--link",
        "3600",
        "--json",
    ]);
    let output = command
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .output()
        .unwrap();
    let done: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(done["was-there"], true);
    assert!(
        workshop
            .read("fetched/SHA256SUMS")
            .contains(done["sha256"].as_str().unwrap())
    );
    // It boots, and what the build did is in it.
    let again = Native {
        base: format!(
            "image = {:?}\nchecksum = \"sha256:{}\"\n",
            done["link"].as_str().unwrap(),
            done["sha256"].as_str().unwrap()
        ),
        ..Native::with("[[provision]]\nshell = \"grep 'of the build' /made\"\n")
    };
    std::fs::remove_dir_all(workshop.path("output")).unwrap();
    workshop.build(&again, &[]).well().has("of the build");
    workshop.assert_tidy();
}
