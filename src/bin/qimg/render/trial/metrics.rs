//! Metrics in Prometheus's text format, under Goss's names.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use qimg::goss::State;
use qimg::trial::Report;

use super::seconds;

pub(super) fn written(reports: &[Report]) -> String {
    // By type in small letters and outcome: count and milliseconds.
    let mut table: BTreeMap<(String, &str), (usize, u128)> = BTreeMap::new();
    let mut failed = false;
    for outcome in reports.iter().flat_map(|report| &report.outcomes) {
        let word = match outcome.state {
            State::Passed => "pass",
            State::Failed => "fail",
            State::Skipped => "skip",
        };
        failed |= outcome.failed();
        let entry = table
            .entry((outcome.kind.label().to_lowercase(), word))
            .or_default();
        entry.0 += 1;
        entry.1 += outcome.took.as_millis();
    }
    let mut text = String::new();
    let head = |text: &mut String, name: &str, help: &str| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
    };
    head(
        &mut text,
        "goss_tests_outcomes_duration_milliseconds",
        "The duration of tests from this run by outcome.",
    );
    for ((kind, word), (_, took)) in &table {
        let _ = writeln!(
            text,
            "goss_tests_outcomes_duration_milliseconds{{outcome=\"{word}\",type=\"{kind}\"}} {took}"
        );
    }
    head(
        &mut text,
        "goss_tests_outcomes_total",
        "The number of test outcomes from this run.",
    );
    for ((kind, word), (count, _)) in &table {
        let _ = writeln!(
            text,
            "goss_tests_outcomes_total{{outcome=\"{word}\",type=\"{kind}\"}} {count}"
        );
    }
    let word = if failed { "fail" } else { "pass" };
    head(
        &mut text,
        "goss_tests_run_duration_milliseconds",
        "The end-to-end duration of this run.",
    );
    let _ = writeln!(
        text,
        "goss_tests_run_duration_milliseconds{{outcome=\"{word}\"}} {:.0}",
        seconds(reports) * 1000.0
    );
    head(
        &mut text,
        "goss_tests_run_outcomes_total",
        "The outcomes of this run as a whole.",
    );
    let _ = writeln!(
        text,
        "goss_tests_run_outcomes_total{{outcome=\"{word}\"}} 1"
    );
    text
}
