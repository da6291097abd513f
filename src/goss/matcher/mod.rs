//! Matchers: what a value of the guest is compared with, and what is said where it differs.
//!
//! Knows the matchers of Goss files and their order of types. Must not know where values come from.

mod apply;
mod gjson;
mod pairs;
mod parse;
mod patterns;
mod versions;

use std::fmt;

use regex::Regex;
use serde::Serialize;
use serde_json::Value;

pub(crate) use parse::{Wrong, plain};
use patterns::Pattern;
use versions::Constraint;

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub enum Actual {
    /// A value that has a type.
    Value(Value),
    /// Text that is looked through line by line: contents of files, output of commands.
    Text(String),
}

impl From<Value> for Actual {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}

/// What comparing gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verdict {
    /// Whether it is as expected.
    #[serde(skip)]
    pub passed: bool,
    /// What was compared, after it was made a value of the expected type.
    pub actual: Value,
    /// How it should relate to what was expected: `to equal`.
    pub message: String,
    /// What was expected.
    pub expected: Value,
    /// What of a list was not found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_elements: Vec<Value>,
    /// What was found and not expected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_elements: Vec<Value>,
    /// How the value was changed before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transform_chain: Vec<String>,
    /// The value before that, where it was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<Value>,
}

/// Ordering of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Gt,
    Ge,
    Lt,
    Le,
}

/// What is done with a value.
#[derive(Debug, Clone)]
enum Rule {
    /// The default for text: the value as text is the same.
    Text(String),
    /// The default for numbers: the value as a number is the same.
    Number(f64),
    /// The default for booleans.
    Bool(bool),
    /// The default for lists: patterns of lines of text, elements of all else.
    List(Vec<Matcher>, Option<Vec<Pattern>>),
    Equal,
    Prefix(String),
    Suffix(String),
    Regexp(Regex),
    Substring(String),
    Length(Box<Matcher>),
    Patterns(Vec<Pattern>),
    Key(Box<Matcher>),
    KeyWithValue(Vec<(String, Matcher)>),
    Element(Box<Matcher>),
    Elements(Vec<Matcher>),
    ConsistOf(Vec<Matcher>),
    Not(Box<Matcher>),
    And(Vec<Matcher>),
    Or(Vec<Matcher>),
    Numeric(Order, f64),
    Semver(Constraint),
    Gjson(Vec<(gjson::Path, Matcher)>),
}

/// What a value is compared with.
#[derive(Clone)]
pub struct Matcher {
    rule: Rule,
    /// As it was written.
    written: Value,
}

impl Matcher {
    /// As it was written.
    #[must_use]
    pub fn written(&self) -> &Value {
        &self.written
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matcher({})", self.written)
    }
}

#[cfg(test)]
mod tests;
