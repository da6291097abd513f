//! Results: of each property whether it is as expected, as plain data in the order of the files.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::facts::Fact;
use super::load::Check;
use super::matcher::{Actual, Matcher, Verdict};
use super::shape::Kind;

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is as expected.
    Passed,
    /// It is not, or nothing is known of it.
    Failed,
    /// It was not looked at: the file says so, or what it depends on failed.
    Skipped,
}

/// What became of one property of one check.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Type of the check.
    pub kind: Kind,
    /// Name of the check.
    pub id: String,
    /// The property.
    pub property: String,
    /// `title` of the check.
    pub title: Option<String>,
    /// `meta` of the check.
    pub meta: Map<String, Value>,
    /// How it went.
    pub state: State,
    /// Why nothing is known, where that is so.
    pub error: Option<String>,
    /// What was compared; `None` where nothing was.
    pub verdict: Option<Verdict>,
    /// How long it took, as far as it was measured by itself.
    pub took: Duration,
    /// The file of the check, and the line there.
    pub place: (PathBuf, usize),
}

impl Outcome {
    fn of(check: &Check, property: &str) -> Self {
        Self {
            kind: check.kind,
            id: check.id.clone(),
            property: property.to_owned(),
            title: check.title.clone(),
            meta: check.meta.clone(),
            state: State::Skipped,
            error: None,
            verdict: None,
            took: Duration::ZERO,
            place: (check.file.to_path_buf(), check.line),
        }
    }

    /// Whether it failed.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.state == State::Failed
    }

    /// In one line, as Goss says it: type, name, property, and how it went.
    #[must_use]
    pub fn summary(&self) -> String {
        let name = format!("{}: {}: {}", self.kind.label(), self.id, self.property);
        match (self.state, &self.error, &self.verdict) {
            (State::Skipped, _, _) => format!("{name}: skipped"),
            (_, Some(error), _) => format!("{name}: Error: {error}"),
            (State::Passed, None, Some(verdict)) => {
                format!("{name}: matches expectation: {}", verdict.expected)
            }
            (State::Failed, None, Some(verdict)) => format!(
                "{name}: doesn't match, expect: {} {}, found: {}",
                verdict.message, verdict.expected, verdict.actual
            ),
            (_, None, None) => name,
        }
    }

    /// What is wrong, in several lines; empty where nothing is.
    #[must_use]
    pub fn explanation(&self) -> String {
        if let Some(error) = &self.error {
            return format!("Error: {error}");
        }
        let (State::Failed, Some(verdict)) = (self.state, &self.verdict) else {
            return String::new();
        };
        let mut text = format!(
            "Expected\n    {}\n{}\n    {}",
            verdict.actual, verdict.message, verdict.expected
        );
        let mut list = |title: &str, items: &[Value]| {
            if !items.is_empty() {
                text.push_str(&format!("\n{title}\n    {}", Value::Array(items.to_vec())));
            }
        };
        list("the missing elements were", &verdict.missing_elements);
        list("the extra elements were", &verdict.extra_elements);
        let chain: Vec<Value> = { verdict.transform_chain.iter() }
            .map(|name| Value::String(name.clone()))
            .collect();
        list("the transform chain was", &chain);
        if let Some(raw) = &verdict.raw {
            text.push_str(&format!("\nthe raw value was\n    {raw}"));
        }
        text
    }
}

/// Compares all properties of one check with what is known of them.
pub fn judge(check: &Check, fact: &mut dyn FnMut(&str) -> Fact) -> Vec<Outcome> {
    let shape = check.kind.shape();
    let mut outcomes = Vec::new();
    let mut skip = check.skip;
    for (property, matcher) in &check.properties {
        let mut outcome = Outcome::of(check, property);
        if skip {
            outcomes.push(outcome);
            continue;
        }
        let found = fact(property);
        let is_false = found == Ok(Actual::Value(Value::Bool(false)));
        compare(&mut outcome, matcher, found);
        // What is not there has no other properties.
        let decides = shape.gate && shape.properties.first() == Some(property);
        skip = decides && (is_false || outcome.failed());
        outcomes.push(outcome);
    }
    outcomes
}

fn compare(outcome: &mut Outcome, matcher: &Matcher, found: Fact) {
    match found.and_then(|actual| matcher.compare(&actual)) {
        Ok(verdict) => {
            outcome.state = if verdict.passed {
                State::Passed
            } else {
                State::Failed
            };
            outcome.verdict = Some(verdict);
        }
        Err(why) => {
            outcome.state = State::Failed;
            outcome.error = Some(why);
        }
    }
}

#[cfg(test)]
mod tests;
