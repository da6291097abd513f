//! Waiting for the guest's cloud-init.
//!
//! Knows what cloud-init leaves behind when it is done, in all its versions, and what of it is an error. Must not know
//! whether an error matters. What the guest says is hostile: it is bounded, and at worst no error is seen.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::{Watch, in_words};
use crate::build::event::Reporter;
use crate::communicator::{Communicator, Exit, Stop, Stream};
use crate::error::{Error, ErrorKind, Result};

/// What each line of the script's begins with.
const MARK: &str = "qimg-cloud-init ";

/// Said instead of a stage while there is none.
const NO_STAGE: &str = "none";

/// Bytes of each file of cloud-init's that are looked at.
const MOST_BYTES: usize = 512 << 10;

/// Errors that are told.
const MOST_ERRORS: usize = 50;

/// Characters of an error that are told.
const LONGEST_ERROR: usize = 1000;

const SCRIPT: &str = include_str!("cloud-init-wait.sh");

/// How the guest's cloud-init ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The guest has none.
    Absent,
    /// It has one that does not run.
    Disabled,
    /// It has done its work; with errors, perhaps.
    Done,
}

/// What the guest's cloud-init did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CloudInit {
    /// How it ended.
    pub state: State,
    /// Where its data came from, in its words.
    pub datasource: Option<String>,
    /// What went wrong.
    pub errors: Vec<String>,
    /// What it complains of, though it went on: its "recoverable errors", which make it "degraded".
    pub complaints: Vec<String>,
}

/// Waits until the guest's cloud-init is done, if it has one, for `timeout` at most.
///
/// # Errors
/// It is not done in time, or the way into the guest failed. What cloud-init itself calls an error is none: that is in what
/// is returned.
pub fn wait(
    guest: &dyn Communicator,
    timeout: Duration,
    reporter: &Reporter<'_>,
    stop: &Stop,
) -> Result<CloudInit> {
    let started = Instant::now();
    let watch = Watch::new(stop, Some(timeout));
    let mut answer = Answer::default();
    let seconds = timeout.as_secs().max(1);
    let mut stderr = String::new();
    // Lines come as they are said only from `run`; the script is short enough to be the command itself.
    let command = format!(
        "exec sh -c {} sh {seconds}",
        crate::communicator::quote::word(SCRIPT)
    );
    let exit = guest.run(&command, watch.left(), &mut |stream, line| match stream {
        Stream::Out => {
            if let Some(stage) = answer.take(line) {
                let state = match stage {
                    NO_STAGE => "it is not done".to_owned(),
                    stage => format!("its stage {stage}"),
                };
                reporter.waiting("the guest's cloud-init", &state, started.elapsed());
            }
        }
        Stream::Err if stderr.is_empty() => stderr = line.chars().take(LONGEST_ERROR).collect(),
        Stream::Err => {}
    });
    let late = || {
        let stage = match answer.stage.as_str() {
            "" | NO_STAGE => "it has not begun".to_owned(),
            stage => format!("it is in its stage {stage}"),
        };
        let message = format!(
            "the guest's cloud-init did not end within {}: {stage}",
            in_words(timeout)
        );
        Error::new(ErrorKind::TimedOut, message)
            .with_remedy("give the guest more time (ssh_timeout), or look at its console")
    };
    match exit {
        Ok(Exit::Code(0)) => {}
        Ok(Exit::Disconnected) => {
            let message = "the connection was lost while the guest's cloud-init was waited for";
            return Err(Error::new(ErrorKind::Connection, message));
        }
        // A guest whose shell cannot do this much has no cloud-init either.
        Ok(_) if answer.state.is_none() => {
            let text =
                format!("Whether the guest has a cloud-init could not be found out: {stderr}");
            reporter.warn(&text);
            return Ok(absent());
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::TimedOut => return Err(late()),
        Err(error) => return Err(error),
    }
    match answer.state {
        Some(Said::Running) => Err(late()),
        Some(Said::Ended(State::Done)) => Ok(answer.result()),
        Some(Said::Ended(state)) => Ok(CloudInit { state, ..absent() }),
        None => Ok(absent()),
    }
}

fn absent() -> CloudInit {
    CloudInit {
        state: State::Absent,
        datasource: None,
        errors: Vec::new(),
        complaints: Vec::new(),
    }
}

enum Said {
    Running,
    Ended(State),
}

/// What the script said so far.
#[derive(Default)]
pub struct Answer {
    state: Option<Said>,
    stage: String,
    /// Name and text.
    files: Vec<(String, String)>,
    within: bool,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl Answer {
    /// Takes a line; a stage that begins, if it says so.
    pub fn take(&mut self, line: &str) -> Option<&str> {
        if self.within {
            if line.trim_end() == "qimg-cloud-init end" {
                self.within = false;
            } else if let (Some(text), Some((_, file))) =
                (line.strip_prefix('|'), self.files.last_mut())
                && file.len() + text.len() < MOST_BYTES
            {
                file.push_str(text);
                file.push('\n');
            }
            return None;
        }
        let (word, rest) = line.trim_end().strip_prefix(MARK)?.split_once(' ')?;
        match (word, rest) {
            ("state", "absent") => self.state = Some(Said::Ended(State::Absent)),
            ("state", "disabled") => self.state = Some(Said::Ended(State::Disabled)),
            ("state", "done") => self.state = Some(Said::Ended(State::Done)),
            ("state", "running") => self.state = Some(Said::Running),
            ("file", name) if self.files.len() < 4 => {
                self.files.push((name.to_owned(), String::new()));
                self.within = true;
            }
            ("stage", stage) => {
                self.stage = stage.chars().take(40).collect();
                return Some(&self.stage);
            }
            _ => {}
        }
        None
    }

    /// What the files tell.
    pub fn result(&self) -> CloudInit {
        let mut result = CloudInit {
            state: State::Done,
            ..absent()
        };
        for (name, text) in &self.files {
            match serde_json::from_str::<Value>(text) {
                Ok(value) if name.ends_with(".json") => from_json(&value, &mut result),
                _ if name.ends_with(".txt") => from_text(text, &mut result),
                _ => {}
            }
        }
        for list in [&mut result.errors, &mut result.complaints] {
            let mut told = std::collections::BTreeSet::new();
            list.retain(|text| told.insert(text.clone()));
            list.truncate(MOST_ERRORS);
        }
        result
    }
}

/// `status.json` and `result.json`: all stages, and `errors` in them or beside them.
fn from_json(value: &Value, result: &mut CloudInit) {
    let Some(Value::Object(version)) = value.get("v1") else {
        return;
    };
    if let Some(Value::String(datasource)) = version.get("datasource") {
        result.datasource = Some(cut(datasource));
    }
    let stages = version.values().filter(|stage| stage.is_object());
    for stage in std::iter::once(&Value::Object(version.clone())).chain(stages) {
        if let Some(Value::Array(errors)) = stage.get("errors") {
            let texts = errors.iter().map(text_of).filter(|text| !text.is_empty());
            result.errors.extend(texts.take(MOST_ERRORS));
        }
        if let Some(Value::Object(levels)) = stage.get("recoverable_errors") {
            for (level, errors) in levels {
                // What it only advises against is no complaint of this boot.
                if level == "DEPRECATED" {
                    continue;
                }
                let errors = errors.as_array().into_iter().flatten();
                let texts = errors.map(|error| format!("{level}: {}", text_of(error)));
                result.complaints.extend(texts.take(MOST_ERRORS));
            }
        }
    }
}

/// `cloud-init status --long` of versions that have no such files.
fn from_text(text: &str, result: &mut CloudInit) {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    if field("status:") == Some("error") {
        let (_, detail) = text.split_once("detail:").unwrap_or_default();
        let detail = detail.split_whitespace().collect::<Vec<_>>().join(" ");
        result.errors.push(cut(&detail));
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => cut(text),
        other => cut(&other.to_string()),
    }
}

fn cut(text: &str) -> String {
    text.trim().chars().take(LONGEST_ERROR).collect()
}

#[cfg(test)]
mod tests;
