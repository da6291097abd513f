//! JUnit's XML, as Jenkins and others read it: a suite for each image and firmware.

use std::fmt::Write as _;

use qimg::goss::{Outcome, State};
use qimg::trial::Report;

use super::{Counts, seconds};

/// `stamp` is the time of the tests, as ISO 8601 without a zone.
pub(super) fn written(reports: &[Report], stamp: &str) -> String {
    let counts = Counts::of(reports.iter().flat_map(|report| &report.outcomes));
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        text,
        "<testsuites name=\"qimg test\" tests=\"{}\" failures=\"{}\" errors=\"0\" time=\"{:.3}\">",
        counts.all,
        counts.failed,
        seconds(reports)
    );
    for report in reports {
        suite(&mut text, report, stamp);
    }
    text.push_str("</testsuites>\n");
    text
}

fn suite(text: &mut String, report: &Report, stamp: &str) {
    let counts = Counts::of(report.outcomes.iter());
    let name = match report.firmware {
        Some(firmware) => format!("{} ({firmware})", report.subject),
        None => report.subject.clone(),
    };
    let _ = writeln!(
        text,
        "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\" time=\"{:.3}\" timestamp=\"{}\">",
        escaped(&name),
        counts.all,
        counts.failed,
        counts.skipped,
        report.took.as_secs_f64(),
        escaped(stamp)
    );
    for outcome in &report.outcomes {
        case(text, outcome);
    }
    let evidence = &report.evidence;
    let mut said = String::new();
    if !report.notes.is_empty() {
        said.push_str(&report.notes.join("\n"));
        said.push('\n');
    }
    for path in [&evidence.console_log, &evidence.screenshot]
        .into_iter()
        .flatten()
    {
        // Jenkins attaches what is named so.
        let _ = writeln!(said, "[[ATTACHMENT|{}]]", path.display());
    }
    if !said.is_empty() {
        let _ = writeln!(text, "    <system-out>{}</system-out>", escaped(&said));
    }
    if !evidence.console.is_empty() {
        let _ = writeln!(
            text,
            "    <system-err>{}</system-err>",
            escaped(&evidence.console.join("\n"))
        );
    }
    text.push_str("  </testsuite>\n");
}

fn case(text: &mut String, outcome: &Outcome) {
    let _ = write!(
        text,
        "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
        outcome.kind.label(),
        escaped(&format!(
            "{} {} {}",
            outcome.kind.label(),
            outcome.id,
            outcome.property
        )),
        outcome.took.as_secs_f64()
    );
    match outcome.state {
        State::Passed => text.push_str("/>\n"),
        State::Skipped => text.push_str("><skipped/></testcase>\n"),
        State::Failed => {
            let (file, line) = &outcome.place;
            let long = format!("{}\n{}:{line}", outcome.explanation(), file.display());
            let _ = writeln!(
                text,
                "><failure message=\"{}\" type=\"{}\">{}</failure></testcase>",
                escaped(&outcome.summary()),
                if outcome.error.is_some() {
                    "error"
                } else {
                    "difference"
                },
                escaped(&long)
            );
        }
    }
}

/// Text for XML 1.0, which has no place for most control characters.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push_str("&#9;"),
            '\r' => escaped.push_str("&#13;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
