//! Waiting for a text that the guest shows: on its serial console, or on its screen of text.
//!
//! Knows what was there before and what is new since the last text that was found: the same question asked again is
//! another one. Must not know what is done about it.

use std::time::{Duration, Instant};

use crate::communicator::Stop;
use crate::error::{Error, ErrorKind, Result};

use super::console::Cleaner;
use super::running::Running;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Lines in a message of what there was instead.
const SHOWN: usize = 8;

/// Bytes of text from the console that are kept while nothing is found in them.
const KEPT: usize = 256 << 10;

/// Where a text was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The serial console.
    Console,
    /// The screen.
    Screen,
}

/// What was seen of a guest so far.
#[derive(Debug, Default)]
pub struct Lookout {
    console: Heard,
    position: u64,
    screen: Looked,
}

impl Lookout {
    /// Waits for `text`, which is within one line, to appear: on the console behind what was found there before, or on
    /// the screen in another place than what was found there before.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut): it does not within `timeout`, with what there was instead; the machine is
    /// lost; `stop` says so.
    pub fn wait_for(
        &mut self,
        running: &Running,
        text: &str,
        timeout: Duration,
        stop: &Stop,
    ) -> Result<Place> {
        let started = Instant::now();
        loop {
            let (bytes, position) = running.console().since(self.position);
            self.position = position;
            self.console.push(&bytes);
            if self.console.find(text) {
                return Ok(Place::Console);
            }
            // Whoever looks exactly holds the machine for a moment: only where it is worth it.
            if running.text_memory_has(text)
                && let Some(lines) = running.screen_lines()
                && self.screen.find(&lines, text)
            {
                return Ok(Place::Screen);
            }
            if started.elapsed() > timeout {
                return Err(missing(running, text, timeout));
            }
            running.pass(LOOK, stop)?;
        }
    }
}

fn missing(running: &Running, text: &str, timeout: Duration) -> Error {
    let last = |lines: Vec<String>| -> String {
        let lines: Vec<String> = lines
            .into_iter()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let from = lines.len().saturating_sub(SHOWN);
        lines[from..].join(" | ")
    };
    let screen = last(running.screen_lines().unwrap_or_default());
    let console = last(running.console().tail(SHOWN));
    let shown = match (screen.is_empty(), console.is_empty()) {
        (false, _) => format!("the screen shows: {screen}"),
        (true, false) => format!("the console shows: {console}"),
        (true, true) => {
            "the console is silent, and the screen shows no text (its picture is in the run's directory)".to_owned()
        }
    };
    Error::new(
        ErrorKind::TimedOut,
        format!(
            "'{text}' did not appear within {} s; {shown}",
            timeout.as_secs_f64()
        ),
    )
    .with_remedy("see that this is what the guest shows, letter by letter, or give it more time")
}

/// The text of the console that nothing was found in yet.
#[derive(Debug, Default)]
struct Heard {
    cleaner: Cleaner,
    lines: String,
    /// Characters at the begin of the line under way that belong to what was found.
    passed: usize,
}

impl Heard {
    fn push(&mut self, bytes: &[u8]) {
        let (lines, passed) = (&mut self.lines, &mut self.passed);
        self.cleaner.push(bytes, &mut |line| {
            let skip = std::mem::take(passed);
            lines.extend(line.chars().skip(skip));
            lines.push('\n');
        });
        let excess = self.lines.len().saturating_sub(KEPT);
        if let Some(end) = self
            .lines
            .get(excess..)
            .and_then(|rest| rest.find('\n'))
            .filter(|_| excess > 0)
        {
            self.lines.drain(..=excess + end);
        }
    }

    /// Finds `text`, and passes over all up to its end.
    fn find(&mut self, text: &str) -> bool {
        if let Some(at) = self.lines.find(text) {
            self.lines.drain(..at + text.len());
            return true;
        }
        let line: String = self
            .cleaner
            .unfinished()
            .chars()
            .skip(self.passed)
            .collect();
        let Some(at) = line.find(text) else {
            return false;
        };
        self.lines.clear();
        self.passed += line[..at + text.len()].chars().count();
        true
    }
}

/// The screen when something was found on it.
#[derive(Debug, Default)]
struct Looked {
    /// The lines up to the one in which it was, which is cut behind it.
    found: Vec<String>,
}

impl Looked {
    /// Finds `text` behind what was found before, as far as that is still on the screen.
    fn find(&mut self, lines: &[String], text: &str) -> bool {
        let (from, column) = self.behind(lines);
        for (number, line) in lines.iter().enumerate().skip(from) {
            let skip = if number == from { column } else { 0 };
            let Some(rest) = line.get(skip..) else {
                continue;
            };
            if let Some(at) = rest.find(text) {
                self.found = lines[..number].to_vec();
                self.found.push(line[..skip + at + text.len()].to_owned());
                return true;
            }
        }
        false
    }

    /// Line and column behind what was found before: the screen may have moved up since.
    fn behind(&self, lines: &[String]) -> (usize, usize) {
        let Some(last) = self.found.len().checked_sub(1) else {
            return (0, 0);
        };
        for moved in 0..=last {
            let kept = &self.found[moved..];
            let (cut, whole) = kept
                .split_last()
                .map_or(("", kept), |(cut, whole)| (cut.as_str(), whole));
            let same = lines.len() > whole.len()
                && lines[..whole.len()] == *whole
                && lines[whole.len()].starts_with(cut);
            if same {
                return (whole.len(), cut.len());
            }
        }
        (0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_console_is_read_on_from_what_was_found() {
        let mut heard = Heard::default();
        heard.push(b"boot\r\nPass\x1b[1mword: ");
        assert!(heard.find("Password:"));
        assert!(!heard.find("Password:"));
        heard.push(b"\r\nagain Pass");
        assert!(!heard.find("Password:"));
        heard.push(b"word: \r\nlogin: ");
        assert!(heard.find("Password:"));
        assert!(heard.find("login:"));
        heard.push(b"root login:");
        assert!(heard.find("login:"));
        assert!(!heard.find("login:"));
        for _ in 0..20_000 {
            heard.push(b"some words of a long log that nobody waits for\n");
        }
        assert!(heard.lines.len() <= KEPT);
    }

    #[test]
    fn the_same_question_on_the_screen_is_another_one() {
        let mut looked = Looked::default();
        let first = lines("hello\nPassword:");
        assert!(looked.find(&first, "Password:"));
        assert!(!looked.find(&first, "Password:"));
        // It was answered, and asked again.
        assert!(looked.find(&lines("hello\nPassword: \nPassword:"), "Password:"));
        // The screen moved up.
        assert!(!looked.find(&lines("Password: "), "Password:"));
        assert!(!looked.find(&lines("Password: \nPassword:"), "Password:"));
        assert!(looked.find(&lines("Password: \nPassword: \nPassword:"), "Password:"));
        // And was cleared.
        assert!(looked.find(&lines("\n\n\nPassword:"), "Password:"));
        let mut looked = Looked::default();
        assert!(looked.find(&lines("a login: b login:"), "login:"));
        assert!(looked.find(&lines("a login: b login:"), "login:"));
        assert!(!looked.find(&lines("a login: b login:"), "login:"));
    }
}
