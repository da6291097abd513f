//! Values as Packer takes them: numbers for strings, strings for lists, and so on.
//!
//! Knows no key. What holds an action of the template language is left as it is: nobody knows yet what it will be.

use super::super::check::{Findings, Severity};
use super::super::document::{Entry, Kind, Node, Source};
use super::super::{duration, near};
use crate::error::{Error, Result};

/// What a key's value is made into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// A string.
    Text,
    /// True or false.
    Flag,
    /// A whole number.
    Int,
    /// A length of time; a number counts nanoseconds.
    Span,
    /// A list of strings.
    Texts,
    /// A list of whole numbers.
    Ints,
    /// A list of lists of strings.
    Lists,
    /// Strings by name.
    Map,
}

/// One object of a template, of which keys are taken until none is left.
pub(super) struct Object<'a> {
    pub(super) source: &'a Source,
    pub(super) notes: &'a Findings,
    /// How messages call it.
    pub(super) what: String,
    pub(super) at: usize,
    entries: &'a [Entry],
    taken: Vec<bool>,
    known: Vec<&'static str>,
}

impl<'a> Object<'a> {
    pub(super) fn new(
        source: &'a Source,
        notes: &'a Findings,
        node: &'a Node,
        what: impl Into<String>,
    ) -> Result<Self> {
        let what = what.into();
        let Kind::Table(entries) = &node.kind else {
            let text = format!("{what}: expected an object, found {}", node.what());
            return Err(source.error(node.at, text));
        };
        Ok(Self {
            source,
            notes,
            what,
            at: node.at,
            entries,
            taken: vec![false; entries.len()],
            known: Vec::new(),
        })
    }

    /// The entry of `key`; Packer looks past case where nothing is spelled alike, and takes null for nothing.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.known.push(key);
        let exact = self.entries.iter().position(|entry| entry.key == key);
        let found = exact.or_else(|| {
            let mut keys = self.entries.iter();
            keys.position(|entry| entry.key.eq_ignore_ascii_case(key))
        })?;
        if let Some(taken) = self.taken.get_mut(found) {
            *taken = true;
        }
        let entry = self.entries.get(found)?;
        (entry.node.kind != Kind::Null).then_some(entry)
    }

    /// The value of `key`, made into what is wanted.
    pub(super) fn value(&mut self, key: &'static str, take: Take) -> Result<Option<Node>> {
        let Some(entry) = self.take(key) else {
            return Ok(None);
        };
        Ok(self.notes.keep(self.made(entry, take)))
    }

    /// The value of `key` as text; empty text is none.
    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<(String, usize)>> {
        let Some(node) = self.value(key, Take::Text)? else {
            return Ok(None);
        };
        let at = node.at;
        let text = node.as_text().unwrap_or_default().to_owned();
        Ok((!text.is_empty()).then_some((text, at)))
    }

    /// The entry of `key` under the name `to`, its value made into what is wanted.
    pub(super) fn moved(
        &mut self,
        key: &'static str,
        to: &str,
        take: Take,
    ) -> Result<Option<Entry>> {
        let Some(entry) = self.take(key) else {
            return Ok(None);
        };
        let made = self.notes.keep(self.made(entry, take));
        Ok(made.map(|node| Entry {
            at: entry.at,
            key: to.to_owned(),
            shown: Some(key.to_owned()),
            node,
        }))
    }

    /// All that nobody took, which is taken now.
    pub(super) fn rest(&mut self) -> Vec<&'a Entry> {
        let mut rest = Vec::new();
        for (entry, taken) in self.entries.iter().zip(&mut self.taken) {
            if !std::mem::replace(taken, true) {
                rest.push(entry);
            }
        }
        rest
    }

    /// Copies of all that nobody took but those in `known`, which are taken now.
    pub(super) fn rest_but(&mut self, known: &[&str]) -> Vec<Entry> {
        let mut rest = Vec::new();
        for (entry, taken) in self.entries.iter().zip(&mut self.taken) {
            if !known.contains(&entry.key.as_str()) && !std::mem::replace(taken, true) {
                rest.push(entry.clone());
            }
        }
        rest
    }

    /// Tells of all keys that are left.
    pub(super) fn finish(mut self) {
        for entry in self.rest() {
            let text = format!("{}: there is no key '{}'", self.what, entry.key);
            let error = self.source.error(entry.at, text);
            self.tell(match near(&entry.key, self.known.iter().copied()) {
                Some(near) => error.with_remedy(format!("did you mean '{near}'?")),
                None if self.known.len() <= 12 => {
                    error.with_remedy(format!("there is {}", self.known.join(", ")))
                }
                None => error.with_remedy("take it out, or look up its spelling"),
            });
        }
    }

    /// Tells of a mistake, and goes on.
    pub(super) fn tell(&self, error: Error) {
        self.notes.mistake(error);
    }

    pub(super) fn error(&self, at: usize, message: &str) -> Error {
        self.source.error(at, format!("{}: {message}", self.what))
    }

    fn made(&self, entry: &Entry, take: Take) -> Result<Node> {
        self.make(&entry.key, &entry.node, take)
    }

    fn make(&self, key: &str, node: &Node, take: Take) -> Result<Node> {
        let at = node.at;
        let wrong = |wanted: &str| {
            let text = format!(
                "{}: {key}: expected {wanted}, found {}",
                self.what,
                node.what()
            );
            Err(self.source.error(at, text))
        };
        let texts = |nodes: &[Node]| -> Result<Vec<Node>> {
            nodes
                .iter()
                .map(|node| self.make(key, node, Take::Text))
                .collect()
        };
        let kind = match (take, &node.kind) {
            (Take::Text, Kind::Null) => Kind::Text(String::new()),
            (Take::Text, Kind::Text(_)) => node.kind.clone(),
            (Take::Text, Kind::Int(number)) => Kind::Text(number.to_string()),
            (Take::Text, Kind::Float(number)) => Kind::Text(number.to_string()),
            (Take::Text, Kind::Bool(value)) => {
                Kind::Text(if *value { "1" } else { "0" }.to_owned())
            }
            (Take::Text, _) => return wrong("a string"),
            (Take::Flag, Kind::Bool(_) | Kind::Text(_)) => node.kind.clone(),
            (Take::Flag, Kind::Int(number)) => Kind::Bool(*number != 0),
            (Take::Flag, Kind::Float(number)) => Kind::Bool(*number != 0.0),
            (Take::Flag, _) => return wrong("true or false"),
            (Take::Int, Kind::Int(_) | Kind::Text(_)) => node.kind.clone(),
            (Take::Int, Kind::Float(number)) if number.abs() < 9e15 => {
                Kind::Int(number.trunc() as i64)
            }
            (Take::Int, Kind::Bool(value)) => Kind::Int(i64::from(*value)),
            (Take::Int, _) => return wrong("a whole number"),
            (Take::Span, Kind::Text(_)) => node.kind.clone(),
            (Take::Span, Kind::Int(number)) => self.bare_span(key, at, *number),
            (Take::Span, Kind::Float(number)) if number.abs() < 9e18 => {
                self.bare_span(key, at, number.trunc() as i64)
            }
            (Take::Span, _) => return wrong("a length of time such as \"10s\""),
            (Take::Texts, Kind::List(items)) => Kind::List(texts(items)?),
            (Take::Texts, Kind::Table(entries)) if entries.is_empty() => Kind::List(Vec::new()),
            (Take::Texts, Kind::Table(_)) => return wrong("a list of strings"),
            (Take::Texts, _) => Kind::List(vec![self.make(key, node, Take::Text)?]),
            (Take::Ints, Kind::List(items)) => Kind::List(
                items
                    .iter()
                    .map(|node| self.make(key, node, Take::Int))
                    .collect::<Result<_>>()?,
            ),
            (Take::Ints, _) => Kind::List(vec![self.make(key, node, Take::Int)?]),
            (Take::Lists, Kind::List(items)) => Kind::List(
                items
                    .iter()
                    .map(|node| self.make(key, node, Take::Texts))
                    .collect::<Result<_>>()?,
            ),
            (Take::Lists, Kind::Table(_)) => return wrong("a list of lists of strings"),
            (Take::Lists, _) => Kind::List(vec![self.make(key, node, Take::Texts)?]),
            (Take::Map, Kind::Table(entries)) => Kind::Table(
                entries
                    .iter()
                    .map(|entry| {
                        Ok(Entry {
                            node: self.make(&entry.key, &entry.node, Take::Text)?,
                            ..entry.clone()
                        })
                    })
                    .collect::<Result<_>>()?,
            ),
            (Take::Map, Kind::List(items)) if items.is_empty() => Kind::Table(Vec::new()),
            (Take::Map, _) => return wrong("an object of strings"),
        };
        Ok(Node { at, kind })
    }

    fn bare_span(&self, key: &str, at: usize, nanoseconds: i64) -> Kind {
        if nanoseconds != 0 {
            let text = format!(
                "{}: {key}: a length of time without a unit is {nanoseconds} nanoseconds",
                self.what
            );
            let remedy = "write a string with a unit, such as \"10s\"";
            self.notes
                .add(Severity::Warning, self.source, at, &text, remedy);
        }
        Kind::Text(duration::write(nanoseconds))
    }
}
