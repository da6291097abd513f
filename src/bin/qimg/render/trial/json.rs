//! Goss's JSON, and which image, firmware and line each result is of.

use qimg::goss::{Outcome, State};
use qimg::trial::Report;
use serde_json::{Value, json};

use super::{Counts, seconds};

pub(super) fn written(reports: &[Report]) -> String {
    let results: Vec<Value> = { reports.iter() }
        .flat_map(|report| {
            report
                .outcomes
                .iter()
                .map(|outcome| result(report, outcome))
        })
        .collect();
    let counts = Counts::of(reports.iter().flat_map(|report| &report.outcomes));
    let seconds = seconds(reports);
    let images: Vec<Value> = { reports.iter() }
        .map(|report| {
            json!({
                "image": report.subject,
                "firmware": report.firmware,
                "sha256": report.sha256,
                "failed-count": report.failures(),
                "notes": report.notes,
                "console-log": report.evidence.console_log,
                "screenshot": report.evidence.screenshot,
                "seconds": report.took.as_secs_f64(),
            })
        })
        .collect();
    let value = json!({
        "results": results,
        "images": images,
        "summary": {
            "test-count": counts.all,
            "failed-count": counts.failed,
            "skipped-count": counts.skipped,
            "total-duration": (seconds * 1e9) as u64,
            "summary-line": format!("{}, Duration: {seconds:.3}s", counts.words()),
        },
    });
    let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
    text.push('\n');
    text
}

fn result(report: &Report, outcome: &Outcome) -> Value {
    let nanoseconds = u64::try_from(outcome.took.as_nanos()).unwrap_or(u64::MAX);
    let (file, line) = &outcome.place;
    json!({
        "successful": outcome.state != State::Failed,
        "skipped": outcome.state == State::Skipped,
        "resource-id": outcome.id,
        "resource-type": outcome.kind.label(),
        "property": outcome.property,
        "title": outcome.title.clone().unwrap_or_default(),
        "meta": if outcome.meta.is_empty() { Value::Null } else { Value::Object(outcome.meta.clone()) },
        // Goss's numbers.
        "result": match outcome.state { State::Passed => 0, State::Failed => 1, State::Skipped => 2 },
        "err": outcome.error,
        "matcher-result": outcome.verdict,
        "duration": nanoseconds,
        "summary-line": outcome.summary(),
        "summary-line-compact": outcome.summary().replace('\n', " "),
        "image": report.subject,
        "firmware": report.firmware,
        "file": file,
        "line": line,
    })
}
