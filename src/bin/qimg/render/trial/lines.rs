//! Formats of lines: human, rspecish, documentation, tap, nagios.

use std::fmt::Write as _;

use qimg::goss::{Outcome, State};
use qimg::trial::Report;

use super::{Counts, name, plain, seconds};

/// For people: what failed, and where to look.
pub(super) fn human(reports: &[Report]) -> String {
    let mut text = String::new();
    for report in reports {
        let counts = Counts::of(report.outcomes.iter());
        let skipped = match counts.skipped {
            0 => String::new(),
            count => format!(", {count} skipped"),
        };
        let passed = counts.all - counts.failed - counts.skipped;
        let _ = writeln!(
            text,
            "{}: {passed} passed, {} failed{skipped} in {:.1} s",
            name(report),
            counts.failed,
            report.took.as_secs_f64()
        );
        for outcome in report.outcomes.iter().filter(|outcome| outcome.failed()) {
            let title = format!(
                "{}: {}: {}",
                outcome.kind.label(),
                outcome.id,
                outcome.property
            );
            let (file, line) = &outcome.place;
            let _ = writeln!(
                text,
                "\n  {} ({}:{line})",
                plain(&title),
                plain(&file.display().to_string())
            );
            text.push_str(&indented(&plain(&outcome.explanation()), 4));
        }
        for note in &report.notes {
            let _ = writeln!(text, "  note: {}", plain(note));
        }
        if counts.failed > 0 {
            evidence(&mut text, report);
        }
    }
    text
}

fn evidence(text: &mut String, report: &Report) {
    let evidence = &report.evidence;
    if !evidence.console.is_empty() {
        text.push_str("\n  the last lines of the console:\n");
        let from = evidence.console.len().saturating_sub(10);
        for line in evidence.console.iter().skip(from) {
            let _ = writeln!(text, "  | {}", plain(line));
        }
    }
    if let Some(path) = &evidence.console_log {
        let _ = writeln!(text, "  console: {}", plain(&path.display().to_string()));
    }
    if let Some(path) = &evidence.screenshot {
        let _ = writeln!(text, "  screen: {}", plain(&path.display().to_string()));
    }
}

fn indented(text: &str, by: usize) -> String {
    let space = " ".repeat(by);
    text.lines()
        .map(|line| format!("{space}{line}\n"))
        .collect()
}

/// A letter for each, then what failed or was skipped.
pub(super) fn rspecish(reports: &[Report]) -> String {
    let mut text = String::new();
    for outcome in all(reports) {
        text.push(match outcome.state {
            State::Passed => '.',
            State::Failed => 'F',
            State::Skipped => 'S',
        });
    }
    text.push_str("\n\n");
    rest(&mut text, reports);
    text
}

/// A line for each, then what failed or was skipped.
pub(super) fn documentation(reports: &[Report]) -> String {
    let mut text = String::new();
    for report in reports {
        if reports.len() > 1 {
            let _ = writeln!(text, "{}", name(report));
        }
        for outcome in &report.outcomes {
            head(&mut text, outcome);
            let _ = writeln!(text, "{}", plain(&outcome.summary()));
        }
    }
    text.push_str("\n\n");
    rest(&mut text, reports);
    text
}

fn all(reports: &[Report]) -> impl Iterator<Item = &Outcome> {
    reports.iter().flat_map(|report| &report.outcomes)
}

fn head(text: &mut String, outcome: &Outcome) {
    if let Some(title) = &outcome.title {
        let _ = writeln!(text, "Title: {}", plain(title));
    }
    if !outcome.meta.is_empty() {
        text.push_str("Meta:\n");
        for (name, value) in &outcome.meta {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            let _ = writeln!(text, "    {}: {}", plain(name), plain(&value));
        }
    }
}

fn rest(text: &mut String, reports: &[Report]) {
    let mut is_first = true;
    for report in reports {
        for outcome in report
            .outcomes
            .iter()
            .filter(|outcome| outcome.state != State::Passed)
        {
            if std::mem::take(&mut is_first) {
                text.push_str("Failures/Skipped:\n\n");
            }
            if reports.len() > 1 {
                let _ = writeln!(text, "{}", name(report));
            }
            head(text, outcome);
            if outcome.state == State::Skipped {
                let _ = writeln!(text, "{}\n", plain(&outcome.summary()));
                continue;
            }
            let title = format!(
                "{}: {}: {}:",
                outcome.kind.label(),
                outcome.id,
                outcome.property
            );
            let _ = writeln!(
                text,
                "{}\n{}\n",
                plain(&title),
                plain(&outcome.explanation())
            );
        }
        if report.failures() > 0 {
            evidence(text, report);
        }
    }
    let counts = Counts::of(all(reports));
    let _ = writeln!(
        text,
        "Total Duration: {:.3}s\n{}",
        seconds(reports),
        counts.words()
    );
}

/// Test Anything Protocol, version 12: `#` begins a directive.
pub(super) fn tap(reports: &[Report]) -> String {
    let mut text = format!("1..{}\n", all(reports).count());
    let mut number = 0;
    for report in reports {
        let prefix = if reports.len() > 1 {
            format!("{}: ", name(report))
        } else {
            String::new()
        };
        for outcome in &report.outcomes {
            number += 1;
            let line = format!("{prefix}{}", outcome.summary());
            let line = plain(&line).replace('\n', " ").replace('#', "\\#");
            let _ = match outcome.state {
                State::Passed => writeln!(text, "ok {number} - {line}"),
                State::Failed => writeln!(text, "not ok {number} - {line}"),
                State::Skipped => writeln!(text, "ok {number} - # SKIP {line}"),
            };
        }
    }
    text
}

/// One line.
pub(super) fn nagios(reports: &[Report]) -> String {
    let counts = Counts::of(all(reports));
    let state = if counts.failed > 0 { "CRITICAL" } else { "OK" };
    format!(
        "GOSS {state} - {}, Duration: {:.3}s\n",
        counts.words(),
        seconds(reports)
    )
}
