//! Mistakes of one template, gathered while it is read on.
//!
//! Knows places and what follows from what; knows no key.

use super::{Finding, Severity};
use crate::error::Error;
use crate::template::document::Place;

/// Mistakes of one template at most.
const MOST: usize = 200;

/// Mistakes as they are made.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    found: Vec<Error>,
    /// Where parts begin that are read each for itself.
    parts: Vec<(usize, usize)>,
}

impl Mistakes {
    pub(super) fn begin(&mut self, place: Place) {
        self.parts.push((place.line, place.column));
    }

    /// Adds one, unless there is one at its place: what is wrong has been told, and the rest follows.
    pub(super) fn add(&mut self, error: Error) {
        let place = error.place();
        let known = |known: &Error| {
            known.place() == place
                && match place {
                    Some(_) => known.path() == error.path() && !self.parts.contains(&key(known)),
                    None => known.to_string() == error.to_string(),
                }
        };
        if self.found.len() < MOST && !self.found.iter().any(known) {
            self.found.push(error);
        }
    }

    /// Those that follow from no other, in the order of their places.
    pub(super) fn finish(mut self) -> Vec<Error> {
        self.parts.sort_unstable();
        self.parts.dedup();
        self.found.sort_by_key(|error| error.place());
        let follows: Vec<bool> = self.found.iter().map(|error| self.follows(error)).collect();
        let mut follows = follows.into_iter();
        self.found.retain(|_| !follows.next().unwrap_or(false));
        self.found
            .dedup_by_key(|error| (error.place(), error.to_string()));
        self.found
    }

    /// Whether it is about a part as a whole, of which something else is wrong: what is not there may be misspelt.
    fn follows(&self, error: &Error) -> bool {
        let place = key(error);
        let Ok(part) = self.parts.binary_search(&place) else {
            return false;
        };
        // What is about the whole template comes last.
        let end = match part {
            0 => None,
            _ => self.parts.get(part + 1),
        };
        self.found.iter().any(|other| {
            let at = key(other);
            at > place && end.is_none_or(|end| at < *end)
        })
    }
}

/// Its place; what has none stands before all that has.
fn key(error: &Error) -> (usize, usize) {
    error.place().unwrap_or_default()
}

impl From<&Error> for Finding {
    /// A mistake, with what it comes from.
    fn from(error: &Error) -> Self {
        let (line, column) = key(error);
        let mut message = error.message().to_owned();
        let mut cause = std::error::Error::source(error);
        while let Some(source) = cause {
            message.push_str(&format!(": {source}"));
            cause = source.source();
        }
        Self {
            severity: Severity::Error,
            file: error.path().map(Into::into).unwrap_or_default(),
            line,
            column,
            message,
            remedy: error.remedy().unwrap_or("").to_owned(),
        }
    }
}
