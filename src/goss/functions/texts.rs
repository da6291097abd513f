//! Functions of texts and numbers.

use regex::RegexBuilder;
use sha2::{Digest, Sha256};

use super::{Arguments, LONGEST};
use crate::seed::base64;
use crate::template::go::{Value, print_one};

type Given<'a> = Arguments<'a>;

/// Calls `name`, if it is one of these.
pub(super) fn call(name: &str, given: &Given<'_>) -> Option<Result<Value, String>> {
    let text = |text: &str| Ok(Value::text(text));
    let (a, b, c) = (given.text(0), given.text(1), given.text(2));
    Some(match name {
        "toLower" | "lower" => text(&a.to_lowercase()),
        "toUpper" | "upper" => text(&a.to_uppercase()),
        "title" => text(&title(a)),
        "trim" => text(a.trim()),
        "trimAll" => text(b.trim_matches(|letter| a.contains(letter))),
        "trimPrefix" => text(b.strip_prefix(a).unwrap_or(b)),
        "trimSuffix" => text(b.strip_suffix(a).unwrap_or(b)),
        "repeat" => repeat(given.number(0), b),
        "replace" => replace(a, b, c),
        "contains" => Ok(Value::Bool(b.contains(a))),
        "hasPrefix" => Ok(Value::Bool(b.starts_with(a))),
        "hasSuffix" => Ok(Value::Bool(b.ends_with(a))),
        "quote" | "squote" => {
            let quoted: Vec<String> = given
                .all()
                .iter()
                .filter(|value| **value != Value::Nil)
                .map(|value| match name {
                    "quote" => serde_json::Value::String(print_one(value)).to_string(),
                    _ => format!("'{}'", print_one(value)),
                })
                .collect();
            text(&quoted.join(" "))
        }
        "cat" => {
            let words: Vec<String> = given.all().iter().map(print_one).collect();
            text(&words.join(" "))
        }
        "indent" => indent(given.number(0), b),
        "nindent" => indent(given.number(0), b)
            .and_then(|value| text(&format!("\n{}", value.as_text().unwrap_or_default()))),
        "nospace" => text(&a.replace(char::is_whitespace, "")),
        "trunc" => text(&truncated(given.number(0), b)),
        "substr" => text(&part(given.number(0), given.number(1), c)),
        "b64enc" => text(&base64::encode(a.as_bytes())),
        "b64dec" => match base64::decode(a).map(String::from_utf8) {
            Some(Ok(decoded)) => text(&decoded),
            _ => Err("this is no base64 of a text".to_owned()),
        },
        "sha256sum" => {
            let digest = Sha256::digest(a.as_bytes());
            let hex: Vec<String> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            text(&hex.concat())
        }
        "toString" => text(&print_one(given.any(0))),
        "typeOf" | "kindOf" => text(kind(given.any(0))),
        "kindIs" => Ok(Value::Bool(kind(given.any(1)) == a)),
        "atoi" | "int" | "int64" => Ok(Value::Int(whole(given.any(0)))),
        "float64" => Ok(Value::Float(fraction(given.any(0)))),
        "regexMatch" => expression(a).map(|expression| Value::Bool(expression.is_match(b))),
        "regexFind" => expression(a).map(|expression| {
            let found = expression.find(b).map_or("", |found| found.as_str());
            Value::text(found)
        }),
        "regexFindAll" => expression(a).and_then(|expression| {
            let most = usize::try_from(given.number(2)).unwrap_or(usize::MAX);
            let found = expression.find_iter(b).take(most);
            Value::list(found.map(|found| Value::text(found.as_str())).collect())
        }),
        "regexReplaceAll" => expression(a).and_then(|expression| {
            let times = expression.find_iter(b).count();
            limit(times.saturating_mul(c.len()).saturating_add(b.len()))?;
            Ok(Value::text(&expression.replace_all(b, c)))
        }),
        "findStringSubmatch" => expression(a).and_then(|expression| groups(&expression, b)),
        "base" => text(b_name(a)),
        "dir" => text(match a.rsplit_once('/') {
            Some(("", _)) => "/",
            Some((directory, _)) => directory,
            None => ".",
        }),
        "add" => numbers(given, 0, i64::checked_add),
        "add1" => numbers(given, 1, i64::checked_add),
        "mul" => numbers(given, 1, i64::checked_mul),
        "sub" => two(given, i64::checked_sub),
        "div" => two(given, i64::checked_div),
        "mod" => two(given, i64::checked_rem),
        "max" => Ok(Value::Int(given.all().iter().map(whole).max().unwrap_or(0))),
        "min" => Ok(Value::Int(given.all().iter().map(whole).min().unwrap_or(0))),
        _ => return None,
    })
}

fn limit(length: usize) -> Result<(), String> {
    if length > LONGEST {
        return Err("makes a text that is too long".to_owned());
    }
    Ok(())
}

fn b_name(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match (trimmed, path) {
        ("", "") => ".",
        ("", _) => "/",
        _ => trimmed.rsplit('/').next().unwrap_or(trimmed),
    }
}

/// A kind in Go's words.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::List(_) => "slice",
        Value::Nil => "invalid",
        other => other.kind(),
    }
}

fn whole(value: &Value) -> i64 {
    match value {
        Value::Int(number) => *number,
        Value::Float(number) => *number as i64,
        Value::Bool(value) => i64::from(*value),
        Value::Text(text) => text.trim().parse().unwrap_or(0),
        _ => 0,
    }
}

fn fraction(value: &Value) -> f64 {
    match value {
        Value::Float(number) => *number,
        Value::Text(text) => text.trim().parse().unwrap_or(0.0),
        other => whole(other) as f64,
    }
}

fn numbers(
    given: &Given<'_>,
    start: i64,
    with: fn(i64, i64) -> Option<i64>,
) -> Result<Value, String> {
    let mut sum = start;
    for value in given.all() {
        sum = with(sum, whole(value)).ok_or("the number is too large")?;
    }
    Ok(Value::Int(sum))
}

fn two(given: &Given<'_>, with: fn(i64, i64) -> Option<i64>) -> Result<Value, String> {
    let result = with(whole(given.any(0)), whole(given.any(1)));
    result
        .map(Value::Int)
        .ok_or_else(|| "there is no such number".to_owned())
}

fn title(text: &str) -> String {
    let mut before = ' ';
    let mut titled = String::new();
    for c in text.chars() {
        if before.is_whitespace() {
            titled.extend(c.to_uppercase());
        } else {
            titled.push(c);
        }
        before = c;
    }
    titled
}

fn repeat(count: i64, text: &str) -> Result<Value, String> {
    let count = usize::try_from(count).unwrap_or(0);
    limit(count.saturating_mul(text.len()))?;
    Ok(Value::text(&text.repeat(count)))
}

fn replace(old: &str, new: &str, text: &str) -> Result<Value, String> {
    let times = if old.is_empty() {
        text.chars().count() + 1
    } else {
        text.matches(old).count()
    };
    limit(times.saturating_mul(new.len()).saturating_add(text.len()))?;
    Ok(Value::text(&text.replace(old, new)))
}

fn indent(count: i64, text: &str) -> Result<Value, String> {
    let count = usize::try_from(count).unwrap_or(0);
    let lines = text.split('\n').count();
    limit(lines.saturating_mul(count).saturating_add(text.len()))?;
    let space = " ".repeat(count);
    let lines: Vec<String> = text
        .split('\n')
        .map(|line| format!("{space}{line}"))
        .collect();
    Ok(Value::text(&lines.join("\n")))
}

/// The first letters, or the last where the count is negative.
fn truncated(count: i64, text: &str) -> String {
    let length = text.chars().count();
    let most = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    match count < 0 {
        true => text.chars().skip(length.saturating_sub(most)).collect(),
        false => text.chars().take(most).collect(),
    }
}

fn part(start: i64, end: i64, text: &str) -> String {
    let start = usize::try_from(start).unwrap_or(0);
    let end = usize::try_from(end).unwrap_or(usize::MAX);
    text.chars().take(end).skip(start).collect()
}

fn expression(text: &str) -> Result<regex::Regex, String> {
    let built = RegexBuilder::new(text).size_limit(4 << 20).build();
    built.map_err(|_| format!("'{text}' is no regular expression"))
}

/// Named groups by their names, or all by their numbers.
fn groups(expression: &regex::Regex, text: &str) -> Result<Value, String> {
    let Some(found) = expression.captures(text) else {
        return Value::map(std::collections::BTreeMap::new());
    };
    let named: Vec<&str> = expression.capture_names().flatten().collect();
    let value =
        |found: Option<regex::Match<'_>>| Value::text(found.map_or("", |found| found.as_str()));
    if named.is_empty() {
        let groups = found.iter().enumerate();
        return Value::map(
            groups
                .map(|(number, group)| (number.to_string(), value(group)))
                .collect(),
        );
    }
    Value::map(
        named
            .iter()
            .map(|name| ((*name).to_owned(), value(found.name(name))))
            .collect(),
    )
}
