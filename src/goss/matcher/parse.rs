//! Matchers from their YAML.

use serde_json::{Map, Value};

use super::gjson::Path;
use super::patterns::{Pattern, expression};
use super::versions::Constraint;
use super::{Matcher, Order, Rule};
use crate::seed::nearest;
use crate::seed::yaml::{Mark, Node, Value as Yaml};

/// Matchers by name.
const NAMES: [&str; 22] = [
    "and",
    "consist-of",
    "contain-element",
    "contain-elements",
    "contain-substring",
    "equal",
    "ge",
    "gjson",
    "gt",
    "have-key",
    "have-key-with-value",
    "have-len",
    "have-patterns",
    "have-prefix",
    "have-suffix",
    "le",
    "lt",
    "match-regexp",
    "not",
    "or",
    "semver-constraint",
    "xml",
];

/// Matchers within each other at most.
const DEEPEST: usize = 30;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) message: String,
    pub(crate) remedy: Option<String>,
}

impl Wrong {
    pub(crate) fn new(mark: Mark, message: impl Into<String>) -> Self {
        Self {
            line: mark.line,
            column: mark.column,
            message: message.into(),
            remedy: None,
        }
    }

    pub(crate) fn or(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// A value without its places.
pub(crate) fn plain(node: &Node) -> Result<Value, Wrong> {
    plain_within(node, 0, &mut 0)
}

fn plain_within(node: &Node, depth: usize, count: &mut usize) -> Result<Value, Wrong> {
    *count += 1;
    // Aliases share in the file; here nothing is shared.
    if depth > 60 || *count > 100_000 {
        return Err(Wrong::new(node.mark, "this is too large"));
    }
    Ok(match &node.value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(*value),
        Yaml::Int(Some(value)) => Value::from(*value),
        Yaml::Int(None) => return Err(Wrong::new(node.mark, "this number is too large")),
        Yaml::Float(value) => match serde_json::Number::from_f64(*value) {
            Some(number) => Value::Number(number),
            None => {
                return Err(Wrong::new(
                    node.mark,
                    "this is no number that can be compared",
                ));
            }
        },
        Yaml::Text(text) => Value::String(text.clone()),
        Yaml::Timestamp | Yaml::Binary => {
            return Err(Wrong::new(node.mark, "this is no text: quote it"));
        }
        Yaml::List(items) => {
            let mut list = Vec::new();
            for item in items {
                list.push(plain_within(item, depth + 1, count)?);
            }
            Value::Array(list)
        }
        Yaml::Map(entries) => {
            let mut map = Map::new();
            for (key, value) in entries {
                map.insert(key.key_text(), plain_within(value, depth + 1, count)?);
            }
            Value::Object(map)
        }
    })
}

impl Matcher {
    /// Reads one.
    pub(crate) fn parse(node: &Node) -> Result<Self, Wrong> {
        parse(node, 0)
    }
}

fn parse(node: &Node, depth: usize) -> Result<Matcher, Wrong> {
    if depth > DEEPEST {
        return Err(Wrong::new(node.mark, "matchers are nested too deep"));
    }
    let written = plain(node)?;
    let rule = match &node.value {
        Yaml::Null => {
            return Err(
                Wrong::new(node.mark, "there is no value: this asserts nothing")
                    .or("say what is expected, or leave it out"),
            );
        }
        Yaml::Text(text) => Rule::Text(text.clone()),
        Yaml::Bool(value) => Rule::Bool(*value),
        Yaml::List(items) => {
            if items.is_empty() {
                return Err(nothing(node));
            }
            let all_text: Option<Vec<&str>> = items.iter().map(|item| item.text()).collect();
            let patterns = match all_text {
                Some(texts) => Some(patterns_of(&texts, node)?),
                None => None,
            };
            Rule::List(list(node, depth)?, patterns)
        }
        Yaml::Map(entries) => match entries.as_slice() {
            [(key, value)] => named(&key.key_text(), key.mark, value, depth)?,
            [] => return Err(nothing(node)),
            [_, (second, _), ..] => {
                return Err(Wrong::new(
                    second.mark,
                    format!("a second matcher, {}, beside the first", second.key_text()),
                )
                .or("put them into a list below `and`"));
            }
        },
        _ => match written.as_f64() {
            Some(number) => Rule::Number(number),
            None => return Err(Wrong::new(node.mark, "this can be compared with nothing")),
        },
    };
    Ok(Matcher { rule, written })
}

fn nothing(node: &Node) -> Wrong {
    Wrong::new(node.mark, "an empty list asserts nothing")
        .or("leave it out; or write \"\" where nothing may be there, or {have-len: 0} for lists")
}

fn patterns_of(texts: &[&str], node: &Node) -> Result<Vec<Pattern>, Wrong> {
    let mut patterns = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        let mark = node.list().get(number).map_or(node.mark, |item| item.mark);
        patterns.push(Pattern::parse(text).map_err(|message| Wrong::new(mark, message))?);
    }
    Ok(patterns)
}

fn list(node: &Node, depth: usize) -> Result<Vec<Matcher>, Wrong> {
    let Yaml::List(items) = &node.value else {
        return Err(Wrong::new(node.mark, "a list belongs here"));
    };
    items.iter().map(|item| parse(item, depth + 1)).collect()
}

fn filled(node: &Node, depth: usize) -> Result<Vec<Matcher>, Wrong> {
    let items = list(node, depth)?;
    if items.is_empty() {
        return Err(nothing(node));
    }
    Ok(items)
}

fn text(node: &Node) -> Result<String, Wrong> {
    match plain(node)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(Wrong::new(node.mark, "text belongs here")),
    }
}

fn number(node: &Node) -> Result<f64, Wrong> {
    let value = plain(node)?;
    let parsed = match &value {
        Value::String(text) => text
            .trim()
            .parse()
            .ok()
            .filter(|value: &f64| value.is_finite()),
        other => other.as_f64(),
    };
    parsed.ok_or_else(|| Wrong::new(node.mark, "a number belongs here"))
}

fn by_name(node: &Node, depth: usize) -> Result<Vec<(String, Matcher)>, Wrong> {
    let Some(entries) = node.map().filter(|entries| !entries.is_empty()) else {
        return Err(Wrong::new(node.mark, "a map of matchers belongs here"));
    };
    entries
        .iter()
        .map(|(key, value)| Ok((key.key_text(), parse(value, depth + 1)?)))
        .collect()
}

fn named(name: &str, mark: Mark, value: &Node, depth: usize) -> Result<Rule, Wrong> {
    let boxed = || parse(value, depth + 1).map(Box::new);
    let at_value = |message: String| Wrong::new(value.mark, message);
    Ok(match name {
        "equal" => {
            plain(value)?;
            Rule::Equal
        }
        "have-prefix" => Rule::Prefix(text(value)?),
        "have-suffix" => Rule::Suffix(text(value)?),
        "contain-substring" => Rule::Substring(text(value)?),
        "match-regexp" => Rule::Regexp(expression(&text(value)?).map_err(at_value)?),
        "have-len" => Rule::Length(boxed()?),
        "have-patterns" => {
            filled(value, depth)?;
            let texts: Option<Vec<&str>> = value.list().iter().map(|item| item.text()).collect();
            let texts = texts.ok_or_else(|| at_value("patterns are text".to_owned()))?;
            Rule::Patterns(patterns_of(&texts, value)?)
        }
        "have-key" => Rule::Key(boxed()?),
        "have-key-with-value" => Rule::KeyWithValue(by_name(value, depth)?),
        "contain-element" => Rule::Element(boxed()?),
        "contain-elements" => Rule::Elements(filled(value, depth)?),
        "consist-of" => Rule::ConsistOf(list(value, depth)?),
        "not" => Rule::Not(boxed()?),
        "and" => Rule::And(filled(value, depth)?),
        "or" => Rule::Or(filled(value, depth)?),
        "gt" => Rule::Numeric(Order::Gt, number(value)?),
        "ge" => Rule::Numeric(Order::Ge, number(value)?),
        "lt" => Rule::Numeric(Order::Lt, number(value)?),
        "le" => Rule::Numeric(Order::Le, number(value)?),
        "semver-constraint" => Rule::Semver(Constraint::parse(&text(value)?).map_err(at_value)?),
        "gjson" => {
            let mut paths = Vec::new();
            for (path, matcher) in by_name(value, depth)? {
                paths.push((Path::parse(&path).map_err(at_value)?, matcher));
            }
            Rule::Gjson(paths)
        }
        "xml" => {
            return Err(Wrong::new(mark, "the matcher xml is not there")
                .or("compare the text with have-patterns or match-regexp"));
        }
        other => {
            let wrong = Wrong::new(mark, format!("there is no matcher '{other}'"));
            return Err(match nearest(other, NAMES) {
                Some(near) => wrong.or(format!("did you mean {near}?")),
                None => wrong.or(format!("there are {}", NAMES.join(", "))),
            });
        }
    })
}
