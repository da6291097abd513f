//! A template's text as a tree in which everything knows its place.
//!
//! Both languages become this; knows no key of either.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A value and the byte of the text it begins at.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) at: usize,
    pub(super) kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    /// A whole number, as written.
    Int(i64),
    /// Any other number.
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// Something that there is elsewhere and not here: an error once a build asks for it.
    Missing(Missing),
}

/// What is not there, as errors say it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Missing {
    pub(super) text: String,
    pub(super) remedy: String,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// Where the key begins.
    pub(super) at: usize,
    pub(super) key: String,
    /// How the template spells it, where it is spelled otherwise; empty: it is not there at all.
    pub(super) shown: Option<String>,
    pub(super) node: Node,
}

impl Entry {
    /// How messages call it.
    pub(super) fn shown(&self) -> &str {
        self.shown.as_deref().unwrap_or(&self.key)
    }
}

impl Node {
    /// What messages call its kind.
    pub(super) fn what(&self) -> &'static str {
        match self.kind {
            Kind::Null => "null",
            Kind::Bool(_) => "true or false",
            Kind::Int(_) | Kind::Float(_) => "a number",
            Kind::Text(_) => "a string",
            Kind::List(_) => "a list",
            Kind::Table(_) => "an object",
            Kind::Missing(_) => "something that is not there",
        }
    }

    /// What is missing here or right below, and its place.
    pub(super) fn missing(&self) -> Option<(usize, &Missing)> {
        match &self.kind {
            Kind::Missing(missing) => Some((self.at, missing)),
            Kind::Table(entries) => entries.iter().find_map(|entry| match &entry.node.kind {
                Kind::Missing(missing) => Some((entry.node.at, missing)),
                _ => None,
            }),
            _ => None,
        }
    }

    /// The value under `key`, if this is a table.
    pub(super) fn member(&self, key: &str) -> Option<&Self> {
        let Kind::Table(entries) = &self.kind else {
            return None;
        };
        let found = entries.iter().find(|entry| entry.key == key);
        found.map(|entry| &entry.node)
    }

    /// The text, if it is one.
    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A file of a template, for messages.
#[derive(Debug)]
pub(super) struct Source {
    /// Where it was read from.
    pub(super) path: PathBuf,
    /// Bytes at which lines begin.
    lines: Vec<usize>,
    text: String,
}

/// A place in a file, both from 1 on; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Source {
    /// A file whose text this is.
    ///
    /// # Errors
    /// It is no text in UTF-8.
    pub(super) fn new(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..at]
                .iter()
                .filter(|&&b| b == b'\n')
                .count()
                + 1;
            Error::usage(format!("line {line}: is no text in UTF-8")).at_path(path)
        })?;
        let starts = text.match_indices('\n').map(|(at, _)| at + 1);
        Ok(Self {
            path: path.to_owned(),
            lines: std::iter::once(0).chain(starts).collect(),
            text,
        })
    }

    /// The whole text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Where byte `at` stands.
    pub(super) fn place(&self, at: usize) -> Place {
        let line = self.lines.partition_point(|&start| start <= at).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..at.min(self.text.len()));
        Place {
            line,
            column: before.map_or(0, |text| text.chars().count()) + 1,
        }
    }

    /// The error that something is not there.
    pub(super) fn missing(&self, (at, missing): (usize, &Missing)) -> Error {
        let Place { line, column } = self.place(at);
        Error::unsupported(missing.text.clone())
            .at_place(line, column)
            .at_path(&self.path)
            .with_remedy(missing.remedy.clone())
    }

    /// An error at byte `at`.
    pub(super) fn error(&self, at: usize, message: impl AsRef<str>) -> Error {
        let Place { line, column } = self.place(at);
        Error::usage(message.as_ref().to_owned())
            .at_place(line, column)
            .at_path(&self.path)
    }
}

/// Reads TOML.
///
/// # Errors
/// It is none.
pub(super) fn toml(source: &Source) -> Result<Node> {
    use toml::de::{DeTable, DeValue};

    fn node(value: &DeValue<'_>, span: Range<usize>, source: &Source) -> Result<Node> {
        let wrong = |what: &str| Err(source.error(span.start, what));
        let kind = match value {
            DeValue::String(text) => Kind::Text(text.to_string()),
            DeValue::Integer(number) => {
                let digits = number.as_str().replace('_', "");
                match i64::from_str_radix(&digits, number.radix()) {
                    Ok(number) => Kind::Int(number),
                    Err(_) => return wrong("a number that is too large"),
                }
            }
            DeValue::Float(number) => match number.as_str().replace('_', "").parse::<f64>() {
                Ok(number) => Kind::Float(number),
                Err(_) => return wrong("no number"),
            },
            DeValue::Boolean(value) => Kind::Bool(*value),
            DeValue::Datetime(_) => {
                return wrong("a date where none is taken: write it as a string");
            }
            DeValue::Array(list) => Kind::List(
                list.iter()
                    .map(|item| node(item.get_ref(), item.span(), source))
                    .collect::<Result<_>>()?,
            ),
            DeValue::Table(members) => Kind::Table(table(members, source)?),
        };
        Ok(Node {
            at: span.start,
            kind,
        })
    }

    fn table(members: &DeTable<'_>, source: &Source) -> Result<Vec<Entry>> {
        let entries = members.iter().map(|(key, value)| {
            Ok(Entry {
                at: key.span().start,
                key: key.get_ref().to_string(),
                shown: None,
                node: node(value.get_ref(), value.span(), source)?,
            })
        });
        let mut entries = entries.collect::<Result<Vec<Entry>>>()?;
        // The parser sorts by name; builds and variables keep the order of the file.
        entries.sort_by_key(|entry| entry.at);
        Ok(entries)
    }

    let parsed = DeTable::parse(source.text()).map_err(|error| {
        let span = error.span().unwrap_or_default();
        let at = span.start;
        let message = error.message().trim().replace('\n', ": ");
        match source.text().get(span) {
            Some(key) if message == "duplicate key" && !key.is_empty() => source
                .error(at, format!("the key '{key}' is there twice"))
                .with_remedy("keep one of them"),
            _ => source.error(at, message),
        }
    })?;
    Ok(Node {
        at: 0,
        kind: Kind::Table(table(parsed.get_ref(), source)?),
    })
}
