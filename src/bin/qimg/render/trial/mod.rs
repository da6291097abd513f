//! Results of tests in each format that Goss has, and one for people.
//!
//! Order and words depend on the results alone. Text of guests is escaped by the rules of each format.

mod json;
mod junit;
mod lines;
mod metrics;

use qimg::error::Escaped;
use qimg::goss::{Outcome, State};
use qimg::trial::Report;

use crate::args::TestFormat;

/// Results as they are written.
pub(crate) fn written(format: TestFormat, reports: &[Report], stamp: &str) -> String {
    match format {
        TestFormat::Human => lines::human(reports),
        TestFormat::Rspecish => lines::rspecish(reports),
        TestFormat::Documentation => lines::documentation(reports),
        TestFormat::Tap => lines::tap(reports),
        TestFormat::Nagios => lines::nagios(reports),
        TestFormat::Json => json::written(reports),
        TestFormat::Junit => junit::written(reports, stamp),
        TestFormat::Prometheus => metrics::written(reports),
    }
}

/// How many there are, and how many of them failed and were skipped.
struct Counts {
    all: usize,
    failed: usize,
    skipped: usize,
}

impl Counts {
    fn of<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        let mut counts = Self {
            all: 0,
            failed: 0,
            skipped: 0,
        };
        for outcome in outcomes {
            counts.all += 1;
            counts.failed += usize::from(outcome.state == State::Failed);
            counts.skipped += usize::from(outcome.state == State::Skipped);
        }
        counts
    }

    fn words(&self) -> String {
        format!(
            "Count: {}, Failed: {}, Skipped: {}",
            self.all, self.failed, self.skipped
        )
    }
}

/// Seconds of all together.
fn seconds(reports: &[Report]) -> f64 {
    reports.iter().map(|report| report.took.as_secs_f64()).sum()
}

/// The image and its firmware.
fn name(report: &Report) -> String {
    match report.firmware {
        Some(firmware) => format!("{} ({firmware})", Escaped(&report.subject)),
        None => Escaped(&report.subject).to_string(),
    }
}

/// Lines without what a terminal would obey.
fn plain(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| Escaped(line).to_string()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests;
