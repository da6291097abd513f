//! Paths into JSON, in the syntax of GJSON: `a.b`, `a.0`, `a.#`, `a.#.b`, `a.#(b=="c").d`, `@this`.
//!
//! Knows keys with escapes and wildcards, places, counts, queries of one comparison, and the modifiers `@this`, `@reverse`,
//! `@keys`, `@values`, `@flatten`, `@valid`. What else there is, a path is refused for when it is read.

use serde_json::{Map, Value};

/// Steps in a path at most.
const LONGEST: usize = 64;

/// A path.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Path {
    pub(super) written: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// Letters, with `None` for any one letter and `Some(None)` for any number of them.
    Key(Vec<Letter>),
    /// `#`: of each element, or their count at the end.
    Each,
    /// `#(...)`; all that fit instead of the first.
    Query(Query, bool),
    This,
    Reverse,
    Keys,
    Values,
    Flatten,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Letter {
    Is(char),
    One,
    Many,
}

#[derive(Debug, Clone, PartialEq)]
struct Query {
    key: Option<String>,
    sign: String,
    value: Value,
}

impl Path {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text;
        let refused = |why: &str| format!("'{text}' is no path that is known here: {why}");
        loop {
            let (step, after) = step(rest).map_err(|why| refused(&why))?;
            steps.push(step);
            if steps.len() > LONGEST {
                return Err(refused("it is too long"));
            }
            match after.strip_prefix(['.', '|']) {
                Some(next) => rest = next,
                None if after.is_empty() => break,
                None => return Err(refused("a dot is missing")),
            }
        }
        Ok(Self {
            written: text.to_owned(),
            steps,
        })
    }

    /// What it leads to; `None`: nothing.
    pub(super) fn find(&self, root: &Value) -> Option<Value> {
        walk(&self.steps, root)
    }
}

fn step(text: &str) -> Result<(Step, &str), String> {
    if let Some(rest) = text.strip_prefix("#(") {
        let mut quoted = false;
        let mut escaped = false;
        for (at, c) in rest.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => quoted = !quoted,
                ')' if !quoted => {
                    let query = query(rest.get(..at).unwrap_or_default())?;
                    let after = rest.get(at + 1..).unwrap_or_default();
                    return Ok(match after.strip_prefix('#') {
                        Some(after) => (Step::Query(query, true), after),
                        None => (Step::Query(query, false), after),
                    });
                }
                _ => {}
            }
        }
        return Err("a query has no end".to_owned());
    }
    let mut letters = Vec::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '.' | '|' => {
                end = at;
                break;
            }
            '\\' => letters.extend(chars.next().map(|(_, c)| Letter::Is(c))),
            '*' => letters.push(Letter::Many),
            '?' => letters.push(Letter::One),
            '{' | '[' | '!' if at == 0 => {
                return Err(format!("'{c}' at the beginning of a part"));
            }
            c => letters.push(Letter::Is(c)),
        }
    }
    let (part, after) = text.split_at(end);
    let step = match part {
        "" => return Err("a part is empty".to_owned()),
        "#" => Step::Each,
        "@this" | "@valid" => Step::This,
        "@reverse" => Step::Reverse,
        "@keys" => Step::Keys,
        "@values" => Step::Values,
        "@flatten" => Step::Flatten,
        part if part.starts_with('@') => return Err(format!("there is no modifier {part}")),
        _ => Step::Key(letters),
    };
    Ok((step, after))
}

fn query(text: &str) -> Result<Query, String> {
    const SIGNS: [&str; 9] = ["==", "!=", "<=", ">=", "!%", "=", "<", ">", "%"];
    let found = text.char_indices().find_map(|(at, _)| {
        let rest = text.get(at..)?;
        let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign))?;
        Some((at, *sign))
    });
    let Some((at, sign)) = found else {
        let key = text.trim();
        if key.is_empty() {
            return Err("a query is empty".to_owned());
        }
        return Ok(Query {
            key: Some(key.to_owned()),
            sign: String::new(),
            value: Value::Null,
        });
    };
    let (key, value) = (&text[..at], text[at + sign.len()..].trim());
    let value = match serde_json::from_str(value) {
        Ok(value) => value,
        Err(_) => Value::String(value.to_owned()),
    };
    let key = key.trim();
    if key.contains("#(") {
        return Err("a query in a query".to_owned());
    }
    Ok(Query {
        key: (!key.is_empty()).then(|| key.to_owned()),
        sign: sign.to_owned(),
        value,
    })
}

impl Query {
    fn holds(&self, element: &Value) -> bool {
        let found = match &self.key {
            None => Some(element.clone()),
            Some(key) => Path::parse(key).ok().and_then(|path| path.find(element)),
        };
        let Some(found) = found else { return false };
        let order = match (&found, &self.value) {
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (a, b) => a
                .as_f64()
                .zip(b.as_f64())
                .and_then(|(a, b)| a.partial_cmp(&b)),
        };
        let like = |found: &Value| match (found.as_str(), self.value.as_str()) {
            (Some(text), Some(pattern)) => fits(&wild(pattern), text),
            _ => false,
        };
        match self.sign.as_str() {
            "" => true,
            "=" | "==" => found == self.value || order.is_some_and(|order| order.is_eq()),
            "!=" => !(found == self.value || order.is_some_and(|order| order.is_eq())),
            "<" => order.is_some_and(|order| order.is_lt()),
            "<=" => order.is_some_and(|order| order.is_le()),
            ">" => order.is_some_and(|order| order.is_gt()),
            ">=" => order.is_some_and(|order| order.is_ge()),
            "%" => like(&found),
            _ => !like(&found),
        }
    }
}

fn wild(pattern: &str) -> Vec<Letter> {
    let letter = |c| match c {
        '*' => Letter::Many,
        '?' => Letter::One,
        c => Letter::Is(c),
    };
    pattern.chars().map(letter).collect()
}

/// Whether `text` fits a pattern, in time that grows with their product.
fn fits(pattern: &[Letter], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Letter::Many) => {
                back = Some((p, t));
                p += 1;
            }
            Some(Letter::One) => (p, t) = (p + 1, t + 1),
            Some(Letter::Is(c)) if text.get(t) == Some(c) => (p, t) = (p + 1, t + 1),
            _ => match back {
                Some((star, from)) => {
                    back = Some((star, from + 1));
                    (p, t) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|letter| *letter == Letter::Many))
}

fn walk(steps: &[Step], value: &Value) -> Option<Value> {
    let Some((step, rest)) = steps.split_first() else {
        return Some(value.clone());
    };
    match step {
        Step::This => walk(rest, value),
        Step::Key(letters) => {
            let found = match value {
                Value::Object(map) => map
                    .iter()
                    .find(|(name, _)| fits(letters, name))
                    .map(|(_, value)| value),
                Value::Array(list) => {
                    let text: String = letters
                        .iter()
                        .filter_map(|letter| match letter {
                            Letter::Is(c) => Some(*c),
                            _ => None,
                        })
                        .collect();
                    text.parse::<usize>().ok().and_then(|at| list.get(at))
                }
                _ => None,
            };
            walk(rest, found?)
        }
        Step::Each => {
            let list = value.as_array()?;
            if rest.is_empty() {
                return Some(Value::from(list.len()));
            }
            Some(Value::Array(
                list.iter().filter_map(|value| walk(rest, value)).collect(),
            ))
        }
        Step::Query(query, all) => {
            let list = value.as_array()?;
            let mut found = list.iter().filter(|value| query.holds(value));
            if *all {
                let values = found.filter_map(|value| walk(rest, value)).collect();
                return Some(Value::Array(values));
            }
            walk(rest, found.next()?)
        }
        Step::Reverse => {
            let turned = match value {
                Value::Array(list) => Value::Array(list.iter().rev().cloned().collect()),
                other => other.clone(),
            };
            walk(rest, &turned)
        }
        Step::Keys | Step::Values => {
            let empty = Map::new();
            let map = value.as_object().unwrap_or(&empty);
            let list = match step {
                Step::Keys => map.keys().cloned().map(Value::String).collect(),
                _ => map.values().cloned().collect(),
            };
            walk(rest, &Value::Array(list))
        }
        Step::Flatten => {
            let flat = match value {
                Value::Array(list) => Value::Array(
                    list.iter()
                        .flat_map(|value| match value {
                            Value::Array(inner) => inner.clone(),
                            other => vec![other.clone()],
                        })
                        .collect(),
                ),
                other => other.clone(),
            };
            walk(rest, &flat)
        }
    }
}
