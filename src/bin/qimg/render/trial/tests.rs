//! Each format by what it says of the same results.

use std::path::PathBuf;
use std::time::Duration;

use qimg::goss::{Kind, Outcome, State, Verdict};
use qimg::trial::{Evidence, Report};
use serde_json::{Map, Value, json};

use super::written;
use crate::args::TestFormat;

fn outcome(id: &str, state: State) -> Outcome {
    let verdict = Verdict {
        passed: state == State::Passed,
        actual: json!("0600"),
        message: "to equal".to_owned(),
        expected: json!("0644"),
        missing_elements: Vec::new(),
        extra_elements: Vec::new(),
        transform_chain: Vec::new(),
        raw: None,
    };
    Outcome {
        kind: Kind::File,
        id: id.to_owned(),
        property: "mode".to_owned(),
        title: None,
        meta: Map::new(),
        state,
        error: None,
        verdict: (state != State::Skipped).then_some(verdict),
        took: Duration::ZERO,
        place: (PathBuf::from("goss.yaml"), 3),
    }
}

fn reports() -> Vec<Report> {
    let mut odd = outcome("/a<b>&\"c\u{1b}[31m#", State::Failed);
    odd.error = Some("it said ]]> and \u{0}".to_owned());
    odd.title = Some("a title".to_owned());
    vec![Report {
        subject: "disk.qcow2".to_owned(),
        firmware: Some("bios"),
        sha256: Some("00".to_owned()),
        outcomes: vec![
            outcome("/ok", State::Passed),
            outcome("/bad", State::Failed),
            outcome("/left", State::Skipped),
            odd,
        ],
        notes: vec!["a note".to_owned()],
        evidence: Evidence {
            console_log: Some(PathBuf::from("/runs/console.log")),
            screenshot: Some(PathBuf::from("/runs/screen.png")),
            console: vec!["login:".to_owned()],
        },
        took: Duration::from_millis(1500),
    }]
}

fn in_format(format: TestFormat) -> String {
    written(format, &reports(), "2026-11-28T10:00:00")
}

#[test]
fn people_read_what_failed_and_where_to_look() {
    let text = in_format(TestFormat::Human);
    assert!(
        text.starts_with("disk.qcow2 (bios): 1 passed, 2 failed, 1 skipped in 1.5 s\n"),
        "{text}"
    );
    assert!(text.contains("\n  File: /bad: mode (goss.yaml:3)\n    Expected\n        \"0600\"\n    to equal\n        \"0644\"\n"), "{text}");
    assert!(
        text.contains("console: /runs/console.log\n")
            && text.contains("screen: /runs/screen.png\n")
    );
    assert!(text.contains("note: a note\n"));
    assert!(!text.contains('\u{1b}') && !text.contains('\0'));
}

#[test]
fn lines_are_those_of_goss() {
    let text = in_format(TestFormat::Rspecish);
    assert!(
        text.starts_with(".FSF\n\nFailures/Skipped:\n\nFile: /bad: mode:\nExpected\n"),
        "{text}"
    );
    assert!(
        text.ends_with("Total Duration: 1.500s\nCount: 4, Failed: 2, Skipped: 1\n"),
        "{text}"
    );
    let text = in_format(TestFormat::Documentation);
    assert!(
        text.starts_with("File: /ok: mode: matches expectation: \"0644\"\n"),
        "{text}"
    );
    assert!(text.contains("Title: a title\n"));
    let text = in_format(TestFormat::Tap);
    assert!(
        text.starts_with(
            "1..4\nok 1 - File: /ok: mode: matches expectation: \"0644\"\nnot ok 2 - "
        ),
        "{text}"
    );
    assert!(
        text.contains("\nok 3 - # SKIP File: /left: mode: skipped\n"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 5);
    assert_eq!(
        in_format(TestFormat::Nagios),
        "GOSS CRITICAL - Count: 4, Failed: 2, Skipped: 1, Duration: 1.500s\n"
    );
    let text = in_format(TestFormat::Prometheus);
    assert!(
        text.contains("goss_tests_outcomes_total{outcome=\"fail\",type=\"file\"} 2\n"),
        "{text}"
    );
    assert!(
        text.ends_with("goss_tests_run_outcomes_total{outcome=\"fail\"} 1\n"),
        "{text}"
    );
}

#[test]
fn json_has_the_fields_of_goss() {
    let value: Value = serde_json::from_str(&in_format(TestFormat::Json)).unwrap();
    let results = value["results"].as_array().unwrap();
    assert_eq!(results.len(), 4);
    assert_eq!(results[0]["successful"], true);
    assert_eq!(results[1]["result"], 1);
    assert_eq!(results[1]["matcher-result"]["actual"], "0600");
    assert_eq!(results[2]["skipped"], true);
    assert_eq!(results[3]["err"], "it said ]]> and \u{0}");
    assert_eq!(value["summary"]["failed-count"], 2);
    assert_eq!(value["images"][0]["console-log"], "/runs/console.log");
}

#[test]
fn xml_holds_whatever_a_guest_says() {
    let text = in_format(TestFormat::Junit);
    assert!(
        text.contains("tests=\"4\" failures=\"2\" errors=\"0\" skipped=\"1\""),
        "{text}"
    );
    assert!(
        text.contains("name=\"File /a&lt;b&gt;&amp;&quot;c\u{fffd}[31m# mode\""),
        "{text}"
    );
    assert!(text.contains("[[ATTACHMENT|/runs/screen.png]]"));
    assert!(!text.contains('\0') && !text.contains('\u{1b}'));
}
