//! What the template of a file of checks can call: Goss's own functions and those of Sprig in common use.
//!
//! Knows values and the environment that was handed in. What a function would read of the host besides, it reads by
//! `readFile` alone.

mod lists;
mod texts;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use super::values;
use crate::store::read_file;
use crate::template::go::{Functions, Param, Refusal, Value, print_one};

/// Bytes of a file that `readFile` reads at most.
const LARGEST: u64 = 1 << 20;
/// Bytes of all files of one template.
const MOST_READ: u64 = 16 << 20;
/// Bytes of text that a function makes at most.
const LONGEST: usize = 4 << 20;

/// The functions of one file.
pub(super) struct GossFunctions<'a> {
    pub(super) environment: &'a BTreeMap<String, String>,
    /// What relative names start from.
    pub(super) directory: &'a Path,
    pub(super) read: Cell<u64>,
}

const A: Param = Param::Any;
const T: Param = Param::Text;
const I: Param = Param::Int;

/// Name, parameters, and whether the last may come any number of times.
type Row = (&'static str, &'static [Param], bool);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("mkSlice", &[A], true), ("getEnv", &[T, T], true), ("readFile", &[T], false), ("regexMatch", &[T, T], false),
    ("toLower", &[T], false), ("toUpper", &[T], false), ("findStringSubmatch", &[T, T], false), ("env", &[T], false),
    ("default", &[A, A], false), ("empty", &[A], false), ("coalesce", &[A], true), ("ternary", &[A, A, A], false),
    ("fail", &[T], false), ("kindOf", &[A], false), ("kindIs", &[T, A], false), ("typeOf", &[A], false),
    ("upper", &[T], false), ("lower", &[T], false), ("title", &[T], false), ("trim", &[T], false), ("trimAll", &[T, T], false),
    ("trimPrefix", &[T, T], false), ("trimSuffix", &[T, T], false), ("repeat", &[I, T], false), ("replace", &[T, T, T], false),
    ("contains", &[T, T], false), ("hasPrefix", &[T, T], false), ("hasSuffix", &[T, T], false), ("quote", &[A], true),
    ("squote", &[A], true), ("cat", &[A], true), ("indent", &[I, T], false), ("nindent", &[I, T], false), ("nospace", &[T], false),
    ("trunc", &[I, T], false), ("substr", &[I, I, T], false), ("b64enc", &[T], false), ("b64dec", &[T], false),
    ("sha256sum", &[T], false), ("toString", &[A], false), ("atoi", &[T], false), ("int", &[A], false), ("int64", &[A], false),
    ("float64", &[A], false), ("toJson", &[A], false), ("fromJson", &[T], false), ("regexFind", &[T, T], false),
    ("regexFindAll", &[T, T, I], false), ("regexReplaceAll", &[T, T, T], false), ("base", &[T], false), ("dir", &[T], false),
    ("join", &[T, A], false), ("split", &[T, T], false), ("splitList", &[T, T], false), ("list", &[A], true), ("dict", &[A], true),
    ("get", &[A, T], false), ("hasKey", &[A, T], false), ("keys", &[A], true), ("values", &[A], false), ("pick", &[A, T], true),
    ("omit", &[A, T], true), ("merge", &[A, A], true), ("set", &[A, T, A], false), ("first", &[A], false), ("last", &[A], false),
    ("rest", &[A], false), ("initial", &[A], false), ("append", &[A, A], false), ("prepend", &[A, A], false), ("concat", &[A], true),
    ("uniq", &[A], false), ("reverse", &[A], false), ("sortAlpha", &[A], false), ("has", &[A, A], false), ("without", &[A, A], true),
    ("compact", &[A], false), ("until", &[I], false), ("untilStep", &[I, I, I], false), ("seq", &[I], true), ("add", &[A], true),
    ("add1", &[A], false), ("sub", &[A, A], false), ("mul", &[A], true), ("div", &[A, A], false), ("mod", &[A, A], false),
    ("max", &[A], true), ("min", &[A], true),
];

fn row(name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|(known, _, _)| *known == name)
}

/// What a function has to work with.
pub(super) struct Arguments<'a>(&'a [Value]);

impl Arguments<'_> {
    fn any(&self, number: usize) -> &Value {
        self.0.get(number).unwrap_or(&Value::Nil)
    }

    fn text(&self, number: usize) -> &str {
        self.any(number).as_text().unwrap_or_default()
    }

    fn number(&self, number: usize) -> i64 {
        self.any(number).as_int().unwrap_or_default()
    }

    fn all(&self) -> &[Value] {
        self.0
    }
}

impl Functions for GossFunctions<'_> {
    fn signature(&self, name: &str) -> Option<(&'static [Param], bool)> {
        row(name).map(|(_, params, variadic)| (*params, *variadic))
    }

    fn names(&self) -> Vec<&'static str> {
        TABLE.iter().map(|(name, _, _)| *name).collect()
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Result<String, Refusal> {
        self.value(name, arguments).map(|value| print_one(&value))
    }

    fn value(&self, name: &str, arguments: &[Value]) -> Result<Value, Refusal> {
        let given = Arguments(arguments);
        match name {
            "getEnv" | "env" => {
                let found = self.environment.get(given.text(0));
                let otherwise = given.text(1);
                return Ok(Value::text(found.map_or(otherwise, String::as_str)));
            }
            "readFile" => return self.read_file(given.text(0)),
            "fail" => return Err(given.text(0).into()),
            "default" => {
                let which = usize::from(given.any(1).is_true());
                return Ok(given.any(which).clone());
            }
            "coalesce" => {
                let found = arguments.iter().find(|value| value.is_true());
                return Ok(found.cloned().unwrap_or(Value::Nil));
            }
            "ternary" => {
                let which = usize::from(!given.any(2).is_true());
                return Ok(given.any(which).clone());
            }
            "empty" => return Ok(Value::Bool(!given.any(0).is_true())),
            "fromJson" => {
                let parsed: serde_json::Value = serde_json::from_str(given.text(0))
                    .map_err(|error| format!("fromJson: {error}"))?;
                return Ok(values::to_template(&parsed)?);
            }
            "toJson" => {
                let value = values::from_template(given.any(0));
                return Ok(Value::text(&value.to_string()));
            }
            _ => {}
        }
        let result = match texts::call(name, &given) {
            Some(result) => result,
            None => lists::call(name, &given)
                .unwrap_or_else(|| Err(format!("there is no function '{name}'"))),
        };
        let value = result.map_err(|message| format!("{name}: {message}"))?;
        if value.as_text().is_some_and(|text| text.len() > LONGEST) {
            return Err(format!("{name} makes a text that is too long").into());
        }
        Ok(value)
    }
}

impl GossFunctions<'_> {
    fn read_file(&self, name: &str) -> Result<Value, Refusal> {
        let path = self.directory.join(name);
        let refused = |message: String| Refusal {
            message,
            remedy: Some("names are looked up from the directory of this file".to_owned()),
            unset: None,
        };
        let bytes = read_file(&path, LARGEST)
            .map_err(|error| refused(format!("readFile {}: {error}", path.display())))?;
        self.read
            .set(self.read.get().saturating_add(bytes.len() as u64));
        if self.read.get() > MOST_READ {
            return Err(refused("readFile has read too much".to_owned()));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Value::text(text.trim())),
            Err(_) => Err(refused(format!(
                "readFile {}: it is no text",
                path.display()
            ))),
        }
    }
}

#[cfg(test)]
mod tests;
