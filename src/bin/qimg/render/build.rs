//! What builds say, in words: for people as Packer shows it, and in Packer's lines for machines.
//!
//! Knows prefixes, colours and columns. Writes nothing: it only makes the text, so that the time is its caller's, too.
//! Whatever comes from a guest is escaped, but for its colours where there are colours.

use std::collections::BTreeMap;
use std::fmt::Write;

use qimg::build::event::{Event, Outcome, Stream, What};
use qimg::error::Escaped;

/// Of builds that run side by side: green, cyan, magenta, yellow, blue.
const COLOURS: [u8; 5] = [32, 36, 35, 33, 34];

const RED: u8 = 31;

/// What stands above the results.
const MADE: &str = "Builds finished. The artifacts of successful builds are:";
const NOTHING: &str = "Builds finished but no artifacts were created.";
const KEPT: &str = "What stays of builds whose post-processors failed:";

/// How people want it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Style {
    /// With colours.
    pub(crate) colours: bool,
    /// Each line begins with the time.
    pub(crate) timestamps: bool,
}

/// What is told when all builds have ended.
#[derive(Debug, Default)]
struct Results {
    /// In words, with index, builder id, id and files.
    artifacts: Vec<(String, Artifact)>,
    /// What stays of builds that failed, in words.
    kept: Vec<(String, String)>,
    /// The last failure of each build that failed.
    failures: BTreeMap<String, String>,
    failed: Vec<String>,
}

#[derive(Debug)]
struct Artifact {
    index: usize,
    builder_id: String,
    id: String,
    text: String,
    files: Vec<String>,
}

impl Results {
    fn take(&mut self, event: &Event) {
        match &event.what {
            What::Artifact {
                index,
                builder_id,
                id,
                text,
                files,
            } => {
                let artifact = Artifact {
                    index: *index,
                    builder_id: builder_id.clone(),
                    id: id.clone(),
                    text: text.clone(),
                    files: files.clone(),
                };
                self.artifacts.push((event.build.clone(), artifact));
            }
            What::Kept { text, .. } => self.kept.push((event.build.clone(), text.clone())),
            What::Failure {
                message, causes, ..
            } => {
                let text = std::iter::once(message).chain(causes);
                let text: Vec<_> = text.map(String::as_str).collect();
                self.failures.insert(event.build.clone(), text.join(": "));
            }
            What::BuildEnded {
                outcome: Outcome::Failed | Outcome::Cancelled,
                ..
            } => self.failed.push(event.build.clone()),
            _ => {}
        }
    }

    /// Build and reason.
    fn failed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.failed.iter().map(|build| {
            let why = self
                .failures
                .get(build)
                .map_or("interrupted", String::as_str);
            (build.as_str(), why)
        })
    }
}

/// Shows events to people.
#[derive(Debug)]
pub(crate) struct Human {
    style: Style,
    /// In the template's order, which decides on their colours.
    builds: Vec<String>,
    /// What each build was last said to wait for.
    waiting: BTreeMap<String, String>,
    /// Stages of each build, and how long they took.
    stages: BTreeMap<String, Vec<(String, u64)>>,
    results: Results,
}

impl Human {
    pub(crate) fn new(builds: &[String], style: Style) -> Self {
        Self {
            style,
            builds: builds.to_vec(),
            waiting: BTreeMap::new(),
            stages: BTreeMap::new(),
            results: Results::default(),
        }
    }

    /// The lines for `event`, with their ends; empty where there is nothing to say. `now` is the time as it shall be shown.
    pub(crate) fn event(&mut self, event: &Event, now: &str) -> String {
        self.results.take(event);
        let build = event.build.as_str();
        let colour = self.colour(build);
        let mut out = Page {
            style: self.style,
            now,
            text: String::new(),
        };
        match &event.what {
            What::Step { text } => out.block(Level::Step, build, text, Some(colour)),
            What::Note { text } => out.block(Level::Detail, build, text, Some(colour)),
            What::Warning { text } => {
                out.block(Level::Step, build, &format!("Warning: {text}"), Some(33));
            }
            What::Output { stream, line, .. } => match stream {
                Stream::Out => out.block(Level::Detail, build, line, Some(colour)),
                Stream::Err => out.block(Level::Step, build, line, Some(RED)),
            },
            What::Waiting {
                task,
                state,
                milliseconds,
            } => {
                let said = format!("{task}: {state}");
                if self.waiting.get(build) != Some(&said) {
                    let text = format!("Waiting for {said} ({})", seconds(*milliseconds));
                    out.block(Level::Detail, build, &text, Some(colour));
                    self.waiting.insert(build.to_owned(), said);
                }
            }
            What::StageEnded {
                stage,
                milliseconds,
                outcome,
            } => {
                self.waiting.remove(build);
                if *outcome != Outcome::Skipped {
                    let stages = self.stages.entry(build.to_owned()).or_default();
                    stages.push((stage.clone(), *milliseconds));
                }
            }
            What::Failure {
                message,
                causes,
                remedy,
            } => {
                out.block(Level::Step, build, message, Some(RED));
                for cause in causes {
                    out.block(
                        Level::Detail,
                        build,
                        &format!("caused by: {cause}"),
                        Some(RED),
                    );
                }
                if let Some(remedy) = remedy {
                    out.block(Level::Detail, build, &format!("hint: {remedy}"), Some(RED));
                }
            }
            What::BuildEnded {
                outcome,
                milliseconds,
            } => {
                let (how, colour) = match outcome {
                    Outcome::Done | Outcome::Skipped => ("finished", colour),
                    Outcome::Failed => ("errored", RED),
                    Outcome::Cancelled => ("was interrupted", RED),
                };
                let mut text = format!("Build '{build}' {how} after {}.", in_words(*milliseconds));
                if let Some(stages) = self.stages.get(build) {
                    let long = stages
                        .iter()
                        .filter(|(_, milliseconds)| *milliseconds >= 100);
                    let parts: Vec<_> = long
                        .map(|(stage, milliseconds)| format!("{stage} {}", seconds(*milliseconds)))
                        .collect();
                    if !parts.is_empty() {
                        let _ = write!(text, " ({})", parts.join(", "));
                    }
                }
                out.line("", &text, Some(colour), true);
            }
            // Bars are drawn by who has a terminal; the rest comes at the end.
            _ => {}
        }
        out.text
    }

    /// What is said when all builds have ended.
    pub(crate) fn end(&self, now: &str) -> String {
        let mut out = Page {
            style: self.style,
            now,
            text: "\n".to_owned(),
        };
        if !self.results.failed.is_empty() {
            out.line(
                "==> ",
                "Some builds didn't complete successfully and had errors:",
                None,
                true,
            );
            for (build, why) in self.results.failed() {
                out.line("--> ", &format!("{build}: {why}"), None, false);
            }
            out.text.push('\n');
        }
        if !self.results.kept.is_empty() {
            out.line("==> ", KEPT, None, true);
            for (build, text) in &self.results.kept {
                out.line("--> ", &format!("{build}: {text}"), None, false);
            }
            if !self.results.artifacts.is_empty() {
                out.text.push('\n');
            }
        }
        if !self.results.artifacts.is_empty() {
            out.line("==> ", MADE, None, true);
            for (build, artifact) in &self.results.artifacts {
                out.line("--> ", &format!("{build}: {}", artifact.text), None, false);
            }
        } else if self.results.kept.is_empty() {
            out.line("==> ", NOTHING, None, true);
        }
        out.text
    }

    fn colour(&self, build: &str) -> u8 {
        let at = self.builds.iter().position(|name| name == build);
        COLOURS[at.unwrap_or(0) % COLOURS.len()]
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    /// `==> name: text`
    Step,
    /// `    name: text`
    Detail,
}

struct Page<'a> {
    style: Style,
    now: &'a str,
    text: String,
}

impl Page<'_> {
    fn block(&mut self, level: Level, build: &str, text: &str, colour: Option<u8>) {
        let prefix = match level {
            Level::Step => "==> ",
            Level::Detail => "    ",
        };
        let name = Escaped(build).to_string();
        let mut lines = text.lines();
        let mut next = Some(lines.next().unwrap_or_default());
        while let Some(line) = next {
            let shown = match build {
                "" => line.to_owned(),
                _ => format!("{name}: {line}"),
            };
            self.line(prefix, &shown, colour, level == Level::Step);
            next = lines.next();
        }
    }

    fn line(&mut self, prefix: &str, text: &str, colour: Option<u8>, bold: bool) {
        if self.style.timestamps {
            let _ = write!(self.text, "{}: ", self.now);
        }
        let shown = shown(text, self.style.colours);
        let _ = match colour.filter(|_| self.style.colours) {
            Some(colour) => writeln!(
                self.text,
                "\x1b[{};{colour}m{prefix}{shown}\x1b[0m",
                u8::from(bold)
            ),
            None => writeln!(self.text, "{prefix}{shown}"),
        };
    }
}

/// Control characters are escaped, but for tabs; colours stay where there are colours, and are left out where not.
fn shown(text: &str, colours: bool) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['\x1b', '\t']) {
        let (before, after) = rest.split_at(at);
        let _ = write!(out, "{}", Escaped(before));
        let length = match colour(after) {
            _ if after.starts_with('\t') => 1,
            0 => {
                let _ = write!(out, "{}", Escaped("\x1b"));
                rest = &after[1..];
                continue;
            }
            length => length,
        };
        if colours || after.starts_with('\t') {
            out.push_str(&after[..length]);
        }
        rest = &after[length..];
    }
    let _ = write!(out, "{}", Escaped(rest));
    out
}

/// Bytes of the sequence that sets a colour at the beginning of `text`; 0 where there is none.
fn colour(text: &str) -> usize {
    let Some(inner) = text.strip_prefix("\x1b[") else {
        return 0;
    };
    let digits = inner
        .bytes()
        .take_while(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':'))
        .count();
    if digits < 64 && inner.as_bytes().get(digits) == Some(&b'm') {
        digits + 3
    } else {
        0
    }
}

/// Shows events to machines, in Packer's lines.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    results: Results,
}

impl Machine {
    /// The lines for `event` at `now`, in seconds since 1970.
    pub(crate) fn event(&mut self, event: &Event, now: u64) -> String {
        self.results.take(event);
        let build = event.build.as_str();
        let prefixed = |prefix: &str, text: &str| {
            let lines: Vec<_> = text
                .lines()
                .map(|line| format!("{prefix}{build}: {line}"))
                .collect();
            lines.join("\n")
        };
        let ui = |kind: &str, text: &str| machine_line(now, "", "ui", &[kind, text]);
        match &event.what {
            What::Step { text } => ui("say", &prefixed("==> ", text)),
            What::Note { text } => ui("message", &prefixed("    ", text)),
            What::Warning { text } => ui("error", &prefixed("==> ", &format!("Warning: {text}"))),
            What::Output { stream, line, .. } => match stream {
                Stream::Out => ui("message", &format!("    {build}: {line}")),
                Stream::Err => ui("error", &format!("==> {build}: {line}")),
            },
            What::Failure { message, .. } => ui("error", &prefixed("==> ", message)),
            What::BuildEnded {
                outcome,
                milliseconds,
            } => {
                let after = in_words(*milliseconds);
                match outcome {
                    Outcome::Done | Outcome::Skipped => {
                        ui("say", &format!("Build '{build}' finished after {after}."))
                    }
                    _ => {
                        let why = self.results.failures.get(build);
                        let why = why.map_or("interrupted", String::as_str);
                        ui(
                            "error",
                            &format!("Build '{build}' errored after {after}: {why}"),
                        )
                    }
                }
            }
            _ => String::new(),
        }
    }

    /// What is said when all builds have ended.
    pub(crate) fn end(&self, now: u64) -> String {
        let mut out = String::new();
        let ui = |kind: &str, text: &str| machine_line(now, "", "ui", &[kind, text]);
        let failed: Vec<_> = self.results.failed().collect();
        if !failed.is_empty() {
            out += &machine_line(now, "", "error-count", &[&failed.len().to_string()]);
            let text = "\n==> Some builds didn't complete successfully and had errors:";
            out += &ui("error", text);
            for (build, why) in failed {
                out += &machine_line(now, build, "error", &[why]);
                out += &ui("error", &format!("--> {build}: {why}"));
            }
        }
        let heading = |text: &str| ui("say", &format!("\n==> {text}"));
        if !self.results.kept.is_empty() {
            out += &heading(KEPT);
            for (build, text) in &self.results.kept {
                out += &ui("say", &format!("--> {build}: {text}"));
            }
        }
        if self.results.artifacts.is_empty() {
            if self.results.kept.is_empty() {
                out += &heading(NOTHING);
            }
            return out;
        }
        out += &heading(MADE);
        let mut counted: Vec<&str> = Vec::new();
        for (build, artifact) in &self.results.artifacts {
            if !counted.contains(&build.as_str()) {
                counted.push(build);
                let count = self
                    .results
                    .artifacts
                    .iter()
                    .filter(|(other, _)| other == build)
                    .count();
                out += &machine_line(now, build, "artifact-count", &[&count.to_string()]);
            }
            let index = artifact.index.to_string();
            let mut part = |parts: &[&str]| {
                let all: Vec<&str> = std::iter::once(index.as_str())
                    .chain(parts.iter().copied())
                    .collect();
                out += &machine_line(now, build, "artifact", &all);
            };
            part(&["builder-id", &artifact.builder_id]);
            part(&["id", &artifact.id]);
            part(&["string", &artifact.text]);
            part(&["files-count", &artifact.files.len().to_string()]);
            for (at, file) in artifact.files.iter().enumerate() {
                part(&["file", &at.to_string(), file]);
            }
            part(&["end"]);
            out += &ui("say", &format!("--> {build}: {}", artifact.text));
        }
        out
    }
}

/// `time,target,type,data...`, with commas and ends of lines in data written otherwise.
pub(crate) fn machine_line(now: u64, target: &str, kind: &str, data: &[&str]) -> String {
    let mut line = format!("{now},{},{kind}", target.replace(',', "%!(PACKER_COMMA)"));
    for text in data {
        let text = text
            .replace(',', "%!(PACKER_COMMA)")
            .replace('\r', "\\r")
            .replace('\n', "\\n");
        let _ = write!(line, ",{text}");
    }
    line.push('\n');
    line
}

/// `1.2 s`
fn seconds(milliseconds: u64) -> String {
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}

/// `1 hour 2 minutes 3 seconds`, `12 seconds`, `345 milliseconds`
fn in_words(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    if seconds == 0 {
        return format!("{milliseconds} milliseconds");
    }
    let parts = [
        (seconds / 3600, "hour"),
        (seconds / 60 % 60, "minute"),
        (seconds % 60, "second"),
    ];
    let said = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| {
            let plural = if *count == 1 { "" } else { "s" };
            format!("{count} {unit}{plural}")
        });
    said.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
