//! Variables of a template, and where their values come from.
//!
//! Knows which source beats which, and that variables may ask for one another; knows neither language.

use std::collections::{BTreeMap, BTreeSet};

use super::document::{Kind, Node, Source};
use super::functions::{Packer, Part, Surroundings};
use super::go::{self, Value};
use super::reader::Held;
use super::{LoadRequest, document, json};
use crate::error::{Error, Result};

/// Bytes of a file of variables at most.
const LONGEST: u64 = 4 << 20;

/// A variable as the template declares it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Declared {
    /// Where.
    pub(super) at: usize,
    /// `None`: somebody must give it.
    pub(super) default: Option<String>,
}

/// Variables with their values.
#[derive(Debug, Default)]
pub(super) struct Variables {
    /// By name.
    pub(super) values: BTreeMap<String, String>,
    /// Values that are templates for later, by name.
    pub(super) held: Held,
    /// Names that were given and are not declared, and who gave them.
    pub(super) undeclared: Vec<(String, String)>,
    /// What the environment was asked for and has not: the variable that asked, where it stands, and the name.
    pub(super) absent: Vec<(String, usize, String)>,
}

/// Values that were given, with who gave them; the last one counts.
fn given(request: &LoadRequest<'_>) -> Result<BTreeMap<String, (String, String)>> {
    let mut given = BTreeMap::new();
    for file in &request.var_files {
        if file.path.extension().is_some_and(|end| end == "hcl") {
            let error = Error::unsupported("is written in HCL2, which is not read");
            let remedy = "write the variables as JSON or TOML: one string for each name";
            return Err(error.at_path(&file.path).with_remedy(remedy));
        }
        let bytes = file.bytes(LONGEST)?;
        let source = Source::new(&file.path, bytes)?;
        let is_toml = file.path.extension().is_some_and(|end| end == "toml");
        let node = match is_toml {
            true => document::toml(&source)?,
            false => json::parse(&source)?,
        };
        let Kind::Table(entries) = node.kind else {
            let what = node.what();
            return Err(source.error(
                node.at,
                format!("expected an object of variables, found {what}"),
            ));
        };
        for entry in entries {
            let value = match entry.node.kind {
                Kind::Text(text) => text,
                Kind::Null => String::new(),
                _ => {
                    let text = format!(
                        "the variable '{}' is {}: values of variables are strings",
                        entry.key,
                        entry.node.what()
                    );
                    return Err(source
                        .error(entry.node.at, text)
                        .with_remedy("put it in double quotes"));
                }
            };
            let from = source.path.display().to_string();
            given.insert(entry.key, (value, from));
        }
    }
    for (name, value) in &request.variables {
        given.insert(name.clone(), (value.clone(), format!("-var {name}")));
    }
    Ok(given)
}

/// Puts values to `declared` variables.
///
/// # Errors
/// One has no value, its value is no template, or it asks for itself.
pub(super) fn resolve(
    source: &Source,
    declared: &[(String, Declared)],
    request: &LoadRequest<'_>,
    surroundings: &Surroundings<'_>,
) -> Result<Variables> {
    let mut result = Variables::default();
    let mut raw: BTreeMap<String, (Option<usize>, String)> = BTreeMap::new();
    let given = given(request)?;
    for (name, variable) in declared {
        let value = match (given.get(name), &variable.default) {
            (Some((value, _)), _) => value.clone(),
            (None, Some(value)) => value.clone(),
            (None, None) => {
                let text = format!("the variable '{name}' must be given");
                let remedy = format!("say -var '{name}=VALUE', or name it in a file for -var-file");
                return Err(source.error(variable.at, text).with_remedy(remedy));
            }
        };
        raw.insert(name.clone(), (Some(variable.at), value));
    }
    for (name, (value, from)) in given {
        raw.entry(name).or_insert_with_key(|name| {
            result.undeclared.push((name.clone(), from));
            (None, value)
        });
    }
    interpolate(source, &raw, surroundings, &mut result)?;
    Ok(result)
}

fn interpolate(
    source: &Source,
    raw: &BTreeMap<String, (Option<usize>, String)>,
    surroundings: &Surroundings<'_>,
    result: &mut Variables,
) -> Result<()> {
    let mut waiting: BTreeSet<&String> = raw.keys().collect();
    // Each pass fills in what asks only for what is known; a pass that finds nothing is the last.
    while !waiting.is_empty() {
        let mut failed: BTreeMap<&String, (Option<usize>, go::Fault)> = BTreeMap::new();
        let before = waiting.len();
        for (name, (at, text)) in raw {
            if !waiting.contains(name) {
                continue;
            }
            let values = &result.values;
            let functions = Packer::new(surroundings, Part::Variables, values);
            let (masked, actions) = mask(text);
            match go::render(&masked, &functions, &Value::Nil) {
                Ok(value) => {
                    let absent = functions.absent.take().into_iter();
                    result
                        .absent
                        .extend(absent.filter_map(|asked| at.map(|at| (name.clone(), at, asked))));
                    let (value, template) = unmask(&value, &actions);
                    result.values.insert(name.clone(), value);
                    if !actions.is_empty() {
                        result.held.insert(name.clone(), template);
                    }
                    waiting.remove(name);
                }
                Err(fault) if fault.unset.is_some() => {
                    failed.insert(name, (*at, fault));
                }
                Err(fault) => return Err(variable_error(source, name, *at, fault)),
            }
        }
        if waiting.len() == before {
            return stuck(source, failed);
        }
    }
    Ok(())
}

/// The error for variables that wait for one another, or for one that there is not.
fn stuck(source: &Source, failed: BTreeMap<&String, (Option<usize>, go::Fault)>) -> Result<()> {
    let asked = |name: &String| failed.get(name)?.1.unset.as_ref();
    let Some(first) = failed.keys().next() else {
        return Ok(());
    };
    let mut path = vec![*first];
    while let Some(next) = path.last().and_then(|name| asked(name)) {
        let Some(known) = failed.keys().find(|name| **name == next) else {
            break;
        };
        if let Some(start) = path.iter().position(|name| name == known) {
            let circle: Vec<String> = { path.iter().skip(start) }
                .map(|name| format!("'{name}'"))
                .collect();
            let text = match circle.as_slice() {
                [one] => format!("the variable {one} refers to itself"),
                all => format!("the variables {} refer to each other", all.join(", ")),
            };
            let at = failed.get(*known).and_then(|(at, _)| *at);
            let error = match at {
                Some(at) => source.error(at, text),
                None => Error::usage(text),
            };
            return Err(error.with_remedy("give one of them a value of its own"));
        }
        path.push(*known);
    }
    let last = path.last().map_or((*first).clone(), |name| (*name).clone());
    let mut failed = failed;
    match failed.remove(&last) {
        Some((at, fault)) => Err(variable_error(source, &last, at, fault)),
        None => Ok(()),
    }
}

fn variable_error(source: &Source, name: &str, at: Option<usize>, fault: go::Fault) -> Error {
    let text = format!("the variable '{name}': {}", fault.message);
    let error = match at {
        Some(at) => source.error(at, text),
        None => Error::usage(text),
    };
    match fault.remedy {
        Some(remedy) => error.with_remedy(remedy),
        None => error,
    }
}

/// Stands for an action that is held back; no template can hold it.
const MARK: char = '\u{f8ff}';

/// `text` without actions that ask for a field: what those ask for is known only where the variable is used.
fn mask(text: &str) -> (String, Vec<String>) {
    let mut masked = String::new();
    let mut actions = Vec::new();
    let mut rest = text;
    if text.contains(MARK) {
        return (text.to_owned(), actions);
    }
    while let Some(open) = rest.find("{{") {
        let inner = &rest[open + 2..];
        let field = inner.strip_prefix([' ', '\t', '\r', '\n']).unwrap_or(inner);
        match inner.find("}}").filter(|_| field.starts_with('.')) {
            Some(close) => {
                masked.push_str(&rest[..open]);
                masked.push_str(&format!("{MARK}{}{MARK}", actions.len()));
                let end = open + 2 + close + 2;
                actions.push(rest[open..end].to_owned());
                rest = &rest[end..];
            }
            None => {
                masked.push_str(&rest[..open + 2]);
                rest = inner;
            }
        }
    }
    masked.push_str(rest);
    (masked, actions)
}

/// Puts `actions` back: as the text of the value, and as a template in which all else is plain text.
fn unmask(value: &str, actions: &[String]) -> (String, String) {
    let mut text = String::new();
    let mut template = String::new();
    for (number, piece) in value.split(MARK).enumerate() {
        if number % 2 == 0 {
            text.push_str(piece);
            template.push_str(&go::escape(piece));
        } else if let Some(action) = piece.parse().ok().and_then(|at: usize| actions.get(at)) {
            text.push_str(action);
            template.push_str(action);
        }
    }
    (text, template)
}

/// Reads the value of a declared variable, as both languages have it.
pub(super) fn declare(source: &Source, key: &str, node: &Node) -> Result<Declared> {
    let wrong = |what: &str| {
        let text = format!("the variable '{key}' is {what}: values of variables are strings");
        Err(source
            .error(node.at, text)
            .with_remedy("put it in double quotes"))
    };
    let default = match &node.kind {
        Kind::Text(text) => Some(text.clone()),
        Kind::Null => None,
        _ => return wrong(node.what()),
    };
    Ok(Declared {
        at: node.at,
        default,
    })
}
