//! Formats as others read them.

use std::path::Path;
use std::process::Command;

use crate::bench::{Bench, image};

/// JUnit's schema, as Jenkins has it, takes the file.
pub fn assert_junit(path: &Path) {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/junit.xsd");
    let said = Command::new("xmllint")
        .args(["--noout", "--nonet", "--schema"])
        .arg(&schema)
        .arg(path)
        .output()
        .expect("xmllint is there");
    assert!(
        said.status.success(),
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
}

#[test]
fn every_format_comes_of_checks_that_need_no_machine() {
    let bench = Bench::new();
    let odd = "matching:\n  \"<&\\\" \\e[31m]]>\": {content: \"a\\0b\", matches: c}\n  fine: {content: 1, matches: 1}\n  left: {content: 1, matches: 2, skip: true}\n";
    bench.write("goss.yaml", &odd.replace("\\0", "\\x01"));
    let small = image("small.qcow2");
    for (format, code, words) in [
        ("human", 1, "1 passed, 1 failed, 1 skipped"),
        ("rspecish", 1, "F.S\n\nFailures/Skipped:"),
        (
            "documentation",
            1,
            "Matching: fine: matches: matches expectation: 1",
        ),
        ("json", 1, "\"failed-count\": 1"),
        ("junit", 1, "<testsuite name="),
        ("tap", 1, "1..3\nnot ok 1 - "),
        (
            "nagios",
            2,
            "GOSS CRITICAL - Count: 3, Failed: 1, Skipped: 1",
        ),
        (
            "prometheus",
            1,
            "goss_tests_run_outcomes_total{outcome=\"fail\"} 1",
        ),
    ] {
        let said = bench.test(&[
            "--format",
            format,
            "-s",
            "goss.yaml",
            small.to_str().unwrap(),
        ]);
        assert_eq!(said.code, Some(code), "{format}: {said:?}");
        assert!(said.out.contains(words), "{format}: {}", said.out);
        if format == "junit" {
            assert_junit(&bench.write("results.xml", &said.out));
        }
    }
}
