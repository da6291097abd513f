//! Functions of lists and maps.

use std::collections::BTreeMap;

use super::Arguments;
use crate::template::go::{Value, print_one};

type Given<'a> = Arguments<'a>;

/// Numbers that a function counts through at most.
const MOST: i64 = 100_000;

fn items(value: &Value) -> Result<Vec<Value>, String> {
    match value {
        Value::List(list) => Ok(list.to_vec()),
        Value::Nil => Ok(Vec::new()),
        other => Err(format!("expected a list; found {}", other.kind())),
    }
}

fn entries(value: &Value) -> Result<BTreeMap<String, Value>, String> {
    match value {
        Value::Map(map) => Ok((***map).clone()),
        other => Err(format!("expected a map; found {}", other.kind())),
    }
}

fn counted(start: i64, end: i64, step: i64) -> Result<Value, String> {
    let mut numbers = Vec::new();
    let mut at = start;
    while (step > 0 && at < end) || (step < 0 && at > end) {
        if numbers.len() as u64 >= MOST.unsigned_abs() {
            return Err(format!("counts through more than {MOST} numbers"));
        }
        numbers.push(Value::Int(at));
        at = at.saturating_add(step);
    }
    Value::list(numbers)
}

/// Calls `name`, if it is one of these.
pub(super) fn call(name: &str, given: &Given<'_>) -> Option<Result<Value, String>> {
    let known = one(name, given);
    match known {
        Ok(None) => None,
        Ok(Some(value)) => Some(Ok(value)),
        Err(message) => Some(Err(message)),
    }
}

fn one(name: &str, given: &Given<'_>) -> Result<Option<Value>, String> {
    let first = given.any(0);
    let value = match name {
        "mkSlice" | "list" => Value::list(given.all().to_vec())?,
        "dict" => {
            let mut map = BTreeMap::new();
            for pair in given.all().chunks(2) {
                if let Some(key) = pair.first() {
                    let value = pair.get(1).cloned().unwrap_or(Value::text(""));
                    map.insert(print_one(key), value);
                }
            }
            Value::map(map)?
        }
        "join" => {
            let separator = given.text(0);
            let parts: Vec<String> = match given.any(1) {
                Value::List(list) => list.iter().map(print_one).collect(),
                other => vec![print_one(other)],
            };
            Value::text(&parts.join(separator))
        }
        "splitList" => {
            let parts = parts(given.text(0), given.text(1));
            Value::list(parts.into_iter().map(Value::text).collect())?
        }
        "split" => {
            let parts = parts(given.text(0), given.text(1));
            let numbered = parts.into_iter().enumerate();
            Value::map(
                numbered
                    .map(|(at, part)| (format!("_{at}"), Value::text(part)))
                    .collect(),
            )?
        }
        "get" => {
            let map = entries(first)?;
            map.get(given.text(1)).cloned().unwrap_or(Value::text(""))
        }
        "hasKey" => Value::Bool(entries(first)?.contains_key(given.text(1))),
        "keys" => {
            let mut names = Vec::new();
            for value in given.all() {
                names.extend(entries(value)?.keys().map(|name| Value::text(name)));
            }
            Value::list(names)?
        }
        "values" => Value::list(entries(first)?.into_values().collect())?,
        "pick" | "omit" => {
            let names: Vec<&str> = given
                .all()
                .iter()
                .skip(1)
                .filter_map(Value::as_text)
                .collect();
            let mut map = entries(first)?;
            map.retain(|key, _| names.contains(&key.as_str()) == (name == "pick"));
            Value::map(map)?
        }
        "merge" => {
            let mut map = BTreeMap::new();
            for value in given.all() {
                for (key, value) in entries(value)? {
                    map.entry(key).or_insert(value);
                }
            }
            Value::map(map)?
        }
        // The map itself is not changed: values here do not change.
        "set" => {
            let mut map = entries(first)?;
            map.insert(given.text(1).to_owned(), given.any(2).clone());
            Value::map(map)?
        }
        "first" => items(first)?.first().cloned().unwrap_or(Value::Nil),
        "last" => items(first)?.last().cloned().unwrap_or(Value::Nil),
        "rest" => Value::list(items(first)?.into_iter().skip(1).collect())?,
        "initial" => {
            let mut list = items(first)?;
            list.pop();
            Value::list(list)?
        }
        "append" => {
            let mut list = items(first)?;
            list.push(given.any(1).clone());
            Value::list(list)?
        }
        "prepend" => {
            let mut list = vec![given.any(1).clone()];
            list.extend(items(first)?);
            Value::list(list)?
        }
        "concat" => {
            let mut list = Vec::new();
            for value in given.all() {
                list.extend(items(value)?);
            }
            Value::list(list)?
        }
        "uniq" => {
            let mut seen = std::collections::BTreeSet::new();
            let mut list = items(first)?;
            list.retain(|value| seen.insert((value.kind(), print_one(value))));
            Value::list(list)?
        }
        "compact" => Value::list(items(first)?.into_iter().filter(Value::is_true).collect())?,
        "reverse" => Value::list(items(first)?.into_iter().rev().collect())?,
        "sortAlpha" => {
            let mut words: Vec<String> = items(first)?.iter().map(print_one).collect();
            words.sort();
            Value::list(words.iter().map(|word| Value::text(word)).collect())?
        }
        "has" => Value::Bool(items(given.any(1))?.contains(first)),
        "without" => {
            let unwanted = given.all().get(1..).unwrap_or_default();
            let mut list = items(first)?;
            list.retain(|value| !unwanted.contains(value));
            Value::list(list)?
        }
        "until" => counted(0, given.number(0), 1)?,
        "untilStep" => counted(given.number(0), given.number(1), given.number(2))?,
        "seq" => {
            let all: Vec<i64> = given.all().iter().filter_map(Value::as_int).collect();
            let text: Vec<String> = match all.as_slice() {
                [end] => items(&counted(1, end.saturating_add(1), 1)?)?,
                [start, end] => items(&counted(*start, end.saturating_add(1), 1)?)?,
                [start, step, end] => {
                    items(&counted(*start, end.saturating_add(step.signum()), *step)?)?
                }
                _ => return Err("takes one to three numbers".to_owned()),
            }
            .iter()
            .map(print_one)
            .collect();
            Value::text(&text.join(" "))
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}

fn parts<'a>(separator: &str, text: &'a str) -> Vec<&'a str> {
    if separator.is_empty() {
        return vec![text];
    }
    text.split(separator).collect()
}
