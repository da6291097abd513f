//! The language's own functions.

use super::format::{print, print_one, printf};
use super::value::Value;

/// Names of all.
pub(super) const NAMES: [&str; 19] = [
    "and", "call", "eq", "ge", "gt", "html", "index", "js", "le", "len", "lt", "ne", "not", "or",
    "print", "printf", "println", "slice", "urlquery",
];

/// Whether `name` is one of them.
pub(super) fn is_one(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls one; a result of more than `most` bytes is refused.
pub(super) fn call(name: &str, arguments: &[Value], most: usize) -> Result<Value, String> {
    let count = |wanted: usize| {
        if arguments.len() == wanted {
            return Ok(());
        }
        let given = arguments.len();
        Err(format!("{name} takes {wanted} arguments, not {given}"))
    };
    let first = arguments.first().unwrap_or(&Value::Nil);
    let second = arguments.get(1).unwrap_or(&Value::Nil);
    let limit = |text: String| {
        if text.len() > most {
            return Err("makes a text that is too long".to_owned());
        }
        Ok(Value::text(&text))
    };
    match name {
        "not" => count(1).map(|()| Value::Bool(!first.is_true())),
        "eq" if arguments.len() < 2 => Err("eq: missing argument for comparison".to_owned()),
        "eq" => {
            let mut found = false;
            for other in &arguments[1..] {
                found = found || equal(first, other)?;
            }
            Ok(Value::Bool(found))
        }
        "ne" => {
            count(2)?;
            Ok(Value::Bool(!equal(first, second)?))
        }
        "lt" => count(2).and_then(|()| less(first, second)).map(Value::Bool),
        "gt" => count(2)
            .and_then(|()| Ok(less(first, second)? || equal(first, second)?))
            .map(|at_most| Value::Bool(!at_most)),
        "le" => count(2)
            .and_then(|()| Ok(less(first, second)? || equal(first, second)?))
            .map(Value::Bool),
        "ge" => count(2)
            .and_then(|()| less(first, second))
            .map(|less| Value::Bool(!less)),
        "len" => {
            count(1)?;
            match first {
                Value::Text(text) => Ok(Value::Int(i64::try_from(text.len()).unwrap_or(i64::MAX))),
                Value::List(list) => Ok(Value::Int(i64::try_from(list.len()).unwrap_or(i64::MAX))),
                Value::Map(map) => Ok(Value::Int(i64::try_from(map.len()).unwrap_or(i64::MAX))),
                Value::Nil => Err("len of nil pointer".to_owned()),
                other => Err(format!("len of type {}", other.kind())),
            }
        }
        "index" => index(arguments),
        "slice" => slice(arguments),
        "call" => Err("call: there are no values here that are functions".to_owned()),
        "print" => limit(print(arguments)),
        "println" => {
            let words: Vec<String> = arguments.iter().map(print_one).collect();
            limit(format!("{}\n", words.join(" ")))
        }
        "printf" => match arguments.split_first() {
            None => Err("printf takes at least 1 argument, not 0".to_owned()),
            Some((Value::Text(format), rest)) => limit(printf(format, rest, most)?),
            Some((other, _)) => Err(format!("printf: expected string; found {}", other.kind())),
        },
        "html" => limit(each(&joined(arguments), |c| {
            Some(match c {
                '&' => "&amp;".into(),
                '<' => "&lt;".into(),
                '>' => "&gt;".into(),
                '"' => "&#34;".into(),
                '\'' => "&#39;".into(),
                '\0' => "\u{fffd}".into(),
                _ => return None,
            })
        })),
        "js" => limit(each(&joined(arguments), |c| {
            Some(match c {
                '\\' => "\\\\".into(),
                '\'' => "\\'".into(),
                '"' => "\\\"".into(),
                '<' | '>' | '&' | '=' => format!("\\u{:04X}", u32::from(c)),
                c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
                _ => return None,
            })
        })),
        "urlquery" => {
            let text = joined(arguments);
            let mut quoted = String::new();
            for byte in text.bytes() {
                match byte {
                    b' ' => quoted.push('+'),
                    b'-' | b'_' | b'.' | b'~' => quoted.push(char::from(byte)),
                    byte if byte.is_ascii_alphanumeric() => quoted.push(char::from(byte)),
                    byte => quoted.push_str(&format!("%{byte:02X}")),
                }
            }
            limit(quoted)
        }
        _ => Err(format!("there is no function '{name}'")),
    }
}

/// One text as it is, anything else as `print` has it.
fn joined(arguments: &[Value]) -> String {
    match arguments {
        [Value::Text(text)] => text.to_string(),
        [Value::Nil] => "<no value>".to_owned(),
        _ => print(arguments),
    }
}

fn each(text: &str, change: impl Fn(char) -> Option<String>) -> String {
    let mut changed = String::with_capacity(text.len());
    for c in text.chars() {
        match change(c) {
            Some(other) => changed.push_str(&other),
            None => changed.push(c),
        }
    }
    changed
}

fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Fields(_) | Value::List(_) | Value::Map(_), _)
        | (_, Value::Fields(_) | Value::List(_) | Value::Map(_)) => {
            Err("non-comparable type for comparison".to_owned())
        }
        (Value::Nil, Value::Nil) => Ok(true),
        (Value::Nil, _) | (_, Value::Nil) => Ok(false),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Int(a), Value::Int(b)) => Ok(a == b),
        (Value::Float(a), Value::Float(b)) => Ok(a == b),
        (Value::Text(a), Value::Text(b)) => Ok(a == b),
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn less(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Ok(a < b),
        (Value::Float(a), Value::Float(b)) => Ok(a < b),
        (Value::Text(a), Value::Text(b)) => Ok(a < b),
        (Value::Bool(_), Value::Bool(_)) | (Value::Nil, Value::Nil) => {
            Err("invalid type for comparison".to_owned())
        }
        (Value::Nil | Value::Fields(_) | Value::List(_) | Value::Map(_), _)
        | (_, Value::Nil | Value::Fields(_) | Value::List(_) | Value::Map(_)) => {
            Err("invalid type for comparison".to_owned())
        }
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn position(value: &Value) -> Result<usize, String> {
    match value {
        Value::Int(number) => {
            usize::try_from(*number).map_err(|_| format!("index out of range: {number}"))
        }
        Value::Nil => Err("cannot index slice/array with nil".to_owned()),
        other => Err(format!(
            "cannot index slice/array with type {}",
            other.kind()
        )),
    }
}

fn index(arguments: &[Value]) -> Result<Value, String> {
    let Some((item, rest)) = arguments.split_first() else {
        return Err("index takes at least 1 argument, not 0".to_owned());
    };
    let mut item = item.clone();
    for place in rest {
        item = match &item {
            Value::Text(text) => {
                let at = position(place)?;
                let byte = text.as_bytes().get(at);
                let byte = byte.ok_or_else(|| format!("index out of range: {at}"))?;
                Value::Int(i64::from(*byte))
            }
            Value::List(list) => {
                let at = position(place)?;
                let found = list.get(at).cloned();
                found.ok_or_else(|| format!("index out of range: {at}"))?
            }
            Value::Map(map) => match place {
                Value::Text(name) => map.get(&**name).cloned().ok_or_else(|| {
                    let known: Vec<&str> = map.keys().map(String::as_str).take(20).collect();
                    format!(
                        "there is no '{name}' in the map, which has {}",
                        known.join(", ")
                    )
                })?,
                other => return Err(format!("a map has no key of type {}", other.kind())),
            },
            Value::Nil => return Err("index of untyped nil".to_owned()),
            other => return Err(format!("can't index item of type {}", other.kind())),
        };
    }
    Ok(item)
}

fn slice(arguments: &[Value]) -> Result<Value, String> {
    let Some((item, places)) = arguments.split_first() else {
        return Err("slice takes at least 1 argument, not 0".to_owned());
    };
    let Value::Text(text) = item else {
        return Err(match item {
            Value::Nil => "slice of untyped nil".to_owned(),
            other => format!("can't slice item of type {}", other.kind()),
        });
    };
    if places.len() > 2 {
        return Err("cannot 3-index slice a string".to_owned());
    }
    let mut bounds = [0, text.len()];
    for (bound, place) in bounds.iter_mut().zip(places) {
        *bound = position(place)?;
        if *bound > text.len() {
            return Err(format!("index out of range: {bound}"));
        }
    }
    let [start, end] = bounds;
    if start > end {
        return Err(format!("invalid slice index: {start} > {end}"));
    }
    let part = text.as_bytes().get(start..end).unwrap_or_default();
    Ok(Value::text(&String::from_utf8_lossy(part)))
}
