//! A build that failed: where, why, and what was seen last.

use std::time::Duration;

use super::event::Reporter;
use crate::communicator::wait;
use crate::error::{Error, ErrorKind};
use crate::machine::running::{Death, Report, Seen};

/// How far a build had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Before the guest was started, or after it was shut down.
    Host,
    /// The guest did not answer, or died.
    Guest,
    /// A provisioner failed, or what is removed from the guest could not be.
    Provision,
    /// A post-processor failed: the artifact is there.
    PostProcess,
}

/// A build that failed.
#[derive(Debug)]
pub struct Failed {
    /// How far it had come.
    pub at: At,
    /// Why.
    pub error: Error,
}

impl Failed {
    /// `at` is the stage; a guest that is lost meanwhile is no fault of a provisioner.
    pub(super) fn at(at: At) -> impl FnOnce(Error) -> Self {
        move |error| {
            let lost = at == At::Provision && error.kind() == ErrorKind::Connection;
            let at = if lost { At::Guest } else { at };
            Self { at, error }
        }
    }
}

/// The error of a machine that is lost.
pub(super) fn of_death(death: &Death, report: &Report) -> Error {
    let because = match death {
        Death::GuestPanicked => report.signs.last().map(|seen| seen.line.clone()),
        Death::DiskFailed { .. } => None,
        _ => report
            .stderr
            .iter()
            .rev()
            .find(|line| !line.trim().is_empty())
            .cloned(),
    };
    let because = because.map_or_else(String::new, |line| format!(": {}", line.trim()));
    let remedy = match death {
        Death::PoweredOff => {
            "the guest shut itself down: a script of its own, or of the seed, did that"
        }
        Death::KvmInternalError => "set the accelerator to tcg",
        Death::GuestPanicked => {
            "look at the console's log; more memory, or another CPU model, may help"
        }
        Death::DiskFailed { .. } => {
            "make room where the output directory is, or put it on another disk: the machine's disk lies beside it"
        }
        Death::Ended(_) => "somebody ended QEMU, or it failed: its last words are above",
    };
    Error::new(ErrorKind::Connection, format!("{death}{because}")).with_remedy(remedy)
}

/// Says what was seen of a guest that is lost or does not answer.
pub(super) fn tell_evidence(reporter: &Reporter<'_>, report: &Report) {
    let list = |title: &str, lines: &[String]| {
        if !lines.is_empty() {
            let lines: Vec<String> = lines.iter().map(|line| format!("  | {line}")).collect();
            reporter.note(&format!("{title}:\n{}", lines.join("\n")));
        }
    };
    list("The last lines of QEMU's standard error", &report.stderr);
    list("The last lines on the guest's console", &report.console);
    if report.console.is_empty() {
        list("The last lines on the guest's screen", &report.screen);
    }
    for seen in &report.signs {
        reporter.note(&format!(
            "After {} s the guest said: {} ({})",
            seen.after.as_secs(),
            seen.line,
            seen.sign.words()
        ));
    }
    if let Some(screenshot) = &report.screenshot {
        reporter.note(&format!(
            "A picture of its screen: {}",
            screenshot.display()
        ));
    }
    reporter.note(&format!(
        "All it said on its console: {}",
        report.console_log.display()
    ));
}

/// Says what was seen of SSH, and when.
pub(super) fn tell_wait(reporter: &Reporter<'_>, report: &wait::Report, machine: &Report) {
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    let mut lines = Vec::new();
    for seen in &report.seen {
        lines.push(format!(
            "  {:>9} to {:>9}  {}",
            seconds(seen.at),
            seconds(seen.until),
            seen.state
        ));
    }
    if lines.is_empty() {
        lines.push("  nothing".to_owned());
    }
    reporter.note(&format!(
        "What was seen of SSH, since the guest was started:\n{}",
        lines.join("\n")
    ));
    reporter.note(&format!("Most likely: {}", likely(report, &machine.signs)));
    let silent = matches!(
        report.last(),
        Some(wait::State::Silent | wait::State::Closed | wait::State::NotListening)
    );
    let asks = |line: &String| line.trim_end().ends_with("login:");
    if machine.signs.is_empty() && silent && machine.console.last().is_some_and(asks) {
        reporter.note(
            "The guest's console asks for a login: it has booted, and lacks its network, or sshd",
        );
    }
}

/// Why there was no login. What the guest said of itself counts for more than what its port does.
fn likely(report: &wait::Report, signs: &[Seen]) -> String {
    match signs.last() {
        Some(seen) => format!("the guest {}: {}", seen.sign.words(), seen.line.trim()),
        None => report.cause(),
    }
}

/// The error of a guest that did not let us in, with what it said of itself.
pub(super) fn of_wait(error: Error, signs: &[Seen]) -> Error {
    let Some(seen) = signs.last() else {
        return error;
    };
    let text = format!("{error}: the guest {}", seen.sign.words());
    Error::new(error.kind(), text)
        .with_remedy("look at the console's log, which says how it came to that")
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::console::Sign;

    #[test]
    fn a_guest_in_emergency_mode_is_the_cause_and_not_its_sshd() {
        let report = wait::Report::default();
        let signs = [Seen {
            sign: Sign::EmergencyMode,
            line: "You are in emergency mode.\r".to_owned(),
            after: Duration::from_secs(248),
        }];
        assert_eq!(likely(&report, &[]), report.cause());
        assert_eq!(
            likely(&report, &signs),
            "the guest is in emergency mode: You are in emergency mode."
        );
        let wait = || Error::new(ErrorKind::TimedOut, "no login by SSH within 1200 s");
        let error = of_wait(wait(), &signs);
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let text = error.to_string();
        assert!(
            text.contains("within 1200 s: the guest is in emergency mode"),
            "{text}"
        );
        assert_eq!(of_wait(wait(), &[]).to_string(), wait().to_string());
    }
}
