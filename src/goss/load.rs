//! Files of checks: templates filled in, YAML or JSON read, includes followed, every mistake told with its place.

mod check;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::functions::GossFunctions;
use super::matcher::{Matcher, Wrong, plain};
use super::shape::{Kind, SHAPES};
use super::values;
use crate::error::{Error, Result};
use crate::seed::nearest;
use crate::seed::yaml::{Mark, Node, Schema, load_as};
use crate::store::read_file;
use crate::template::go;

/// Bytes of a file at most.
const LARGEST: u64 = 4 << 20;
/// Files at most, and files within each other.
const MOST_FILES: usize = 500;
const DEEPEST: usize = 20;
/// Checks at most.
const MOST_CHECKS: usize = 20_000;

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct LoadRequest {
    /// Files of checks, in order.
    pub files: Vec<PathBuf>,
    /// Files of variables; the last one wins.
    pub variables: Vec<PathBuf>,
    /// Variables as YAML or JSON; they win over those of files.
    pub inline: Vec<String>,
    /// What `.Env` and `getEnv` know.
    pub environment: BTreeMap<String, String>,
}

/// One thing that is looked at, and what it has to be like.
#[derive(Debug, Clone)]
pub struct Check {
    /// Its type.
    pub kind: Kind,
    /// Its name in the file.
    pub id: String,
    /// What is looked at: the name, unless an attribute says another.
    pub subject: String,
    /// `title`.
    pub title: Option<String>,
    /// `meta`.
    pub meta: Map<String, Value>,
    /// `skip`.
    pub skip: bool,
    /// The file it stands in.
    pub file: Arc<Path>,
    /// The line there, of the text after the template was filled in.
    pub line: usize,
    /// What is compared, in the order of results.
    pub properties: Vec<(&'static str, Matcher)>,
    /// Attributes that say how to look.
    pub settings: BTreeMap<&'static str, Value>,
}

impl Check {
    /// A setting that is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.settings.get(name)?.as_str()
    }

    /// A setting that is on.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.settings.get(name).and_then(Value::as_bool) == Some(true)
    }

    /// How long it may take.
    #[must_use]
    pub fn timeout(&self) -> std::time::Duration {
        let given = self.settings.get("timeout").and_then(Value::as_u64);
        std::time::Duration::from_millis(given.unwrap_or(self.kind.shape().timeout))
    }

    /// The same, with so many times as long to take.
    pub(crate) fn with_patience(&self, patience: u32) -> Self {
        let mut patient = self.clone();
        let limit = self.timeout().saturating_mul(patience);
        if patience > 1 && !limit.is_zero() {
            let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            patient.settings.insert("timeout", Value::from(limit));
        }
        patient
    }

    /// A command that is run, and nothing compared.
    pub(crate) fn of_command(command: &str, limit: std::time::Duration) -> Self {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        Self {
            kind: Kind::Command,
            id: command.to_owned(),
            subject: command.to_owned(),
            title: None,
            meta: Map::new(),
            skip: false,
            file: Arc::from(Path::new("")),
            line: 0,
            properties: Vec::new(),
            settings: BTreeMap::from([("timeout", Value::from(limit))]),
        }
    }

    /// Whether a property is compared.
    #[must_use]
    pub fn asks(&self, property: &str) -> bool {
        self.properties.iter().any(|(name, _)| *name == property)
    }
}

/// All checks, in the order of their files.
#[derive(Debug, Clone, Default)]
pub struct Suite {
    /// The checks.
    pub checks: Vec<Check>,
}

/// Reads files of checks.
///
/// # Errors
/// A file cannot be read, or is wrong: with line and column, and what may be meant.
pub fn load(request: &LoadRequest) -> Result<Suite> {
    let mut reader = Reader {
        dot: dot(request)?,
        environment: &request.environment,
        suite: Suite::default(),
        files: 0,
    };
    for file in &request.files {
        reader.file(file, &mut Vec::new())?;
    }
    Ok(reader.suite)
}

/// Reads the text of one file, which includes no others; for fuzzing.
///
/// # Errors
/// As [`load()`].
pub fn load_text(text: &str) -> Result<Suite> {
    let environment = BTreeMap::new();
    let request = LoadRequest::default();
    let mut reader = Reader {
        dot: dot(&request)?,
        environment: &environment,
        suite: Suite::default(),
        // No file is read.
        files: MOST_FILES,
    };
    reader.text(
        Path::new("goss.yaml"),
        text.as_bytes(),
        &mut vec![PathBuf::new()],
    )?;
    Ok(reader.suite)
}

/// `.Vars` and `.Env`.
fn dot(request: &LoadRequest) -> Result<go::Value> {
    let mut variables = Map::new();
    let mut take = |text: &str, place: &Path| -> Result<()> {
        let wrong = |wrong: Wrong| told(place, false, &wrong);
        let document = load_as(text, Schema::Core)
            .map_err(|fault| wrong(Wrong::new(fault.mark, fault.message)))?;
        if let Some(twice) = document.duplicates.first() {
            return Err(wrong(duplicate(&twice.key, twice.mark, twice.first)));
        }
        match plain(&document.root).map_err(wrong)? {
            Value::Object(map) => variables.extend(map),
            Value::Null => {}
            _ => return Err(Error::usage("variables are a map of names to values").at_path(place)),
        }
        Ok(())
    };
    for file in &request.variables {
        let bytes = read_file(file, LARGEST)?;
        let text =
            String::from_utf8(bytes).map_err(|_| Error::usage("is not UTF-8").at_path(file))?;
        take(&text, file)?;
    }
    for text in &request.inline {
        take(text, Path::new("--vars-inline"))?;
    }
    let too_large = |message: String| Error::usage(format!("the variables: {message}"));
    let environment = request
        .environment
        .iter()
        .map(|(name, value)| (name.clone(), go::Value::text(value)))
        .collect();
    let dot = BTreeMap::from([
        (
            "Env".to_owned(),
            go::Value::map(environment).map_err(too_large)?,
        ),
        (
            "Vars".to_owned(),
            values::to_template(&Value::Object(variables)).map_err(too_large)?,
        ),
    ]);
    go::Value::map(dot).map_err(too_large)
}

fn duplicate(key: &str, mark: Mark, first: Mark) -> Wrong {
    Wrong::new(
        mark,
        format!(
            "'{key}' is there twice, first in line {}: one of them would be lost",
            first.line
        ),
    )
    .or("put both under one key, or the second into a file of its own that `gossfile` names")
}

/// The error of a mistake.
fn told(file: &Path, filled_in: bool, wrong: &Wrong) -> Error {
    let of = if filled_in {
        " (after the template was filled in)"
    } else {
        ""
    };
    let error = Error::usage(format!(
        "line {}, column {}{of}: {}",
        wrong.line, wrong.column, wrong.message
    ))
    .at_path(file);
    match &wrong.remedy {
        Some(remedy) => error.with_remedy(remedy.clone()),
        None => error,
    }
}

struct Reader<'a> {
    dot: go::Value,
    environment: &'a BTreeMap<String, String>,
    suite: Suite,
    files: usize,
}

impl Reader<'_> {
    fn file(&mut self, file: &Path, within: &mut Vec<PathBuf>) -> Result<()> {
        self.files += 1;
        if self.files > MOST_FILES || within.len() >= DEEPEST {
            return Err(Error::usage("includes too many others, or itself").at_path(file));
        }
        if within.iter().any(|other| other == file) {
            return Err(Error::usage("includes itself").at_path(file));
        }
        let bytes = read_file(file, LARGEST)?;
        within.push(file.to_owned());
        self.text(file, &bytes, within)?;
        within.pop();
        Ok(())
    }

    fn text(&mut self, file: &Path, bytes: &[u8], within: &mut Vec<PathBuf>) -> Result<()> {
        let text =
            std::str::from_utf8(bytes).map_err(|_| Error::usage("is not UTF-8").at_path(file))?;
        let filled = self.fill_in(file, text)?;
        let filled_in = filled != text;
        let wrong = |wrong: Wrong| told(file, filled_in, &wrong);
        let document = load_as(&filled, Schema::Core)
            .map_err(|fault| wrong(Wrong::new(fault.mark, fault.message)))?;
        if let Some(twice) = document.duplicates.first() {
            return Err(wrong(duplicate(&twice.key, twice.mark, twice.first)));
        }
        let root = &document.root;
        let Some(entries) = root.map() else {
            let what = match plain(root) {
                Ok(Value::Null) => "there is nothing in it: it asserts nothing",
                _ => "a map of types of checks belongs here",
            };
            return Err(wrong(Wrong::new(root.mark, what)));
        };
        let place: Arc<Path> = Arc::from(file);
        for (key, value) in entries {
            let name = key.key_text();
            if name == "gossfile" {
                self.includes(file, filled_in, value, within)?;
                continue;
            }
            let Some(kind) = Kind::named(&name) else {
                return Err(wrong(unknown_kind(&name, key.mark)));
            };
            let Some(checks) = value.map().filter(|checks| !checks.is_empty()) else {
                return Err(wrong(
                    Wrong::new(
                        key.mark,
                        format!("{name} has no checks: it asserts nothing"),
                    )
                    .or("names with their attributes belong below it"),
                ));
            };
            for (id, attributes) in checks {
                let check = check::read(kind, id, attributes, &place).map_err(wrong)?;
                if self.suite.checks.len() >= MOST_CHECKS {
                    let text = format!("more than {MOST_CHECKS} checks");
                    return Err(wrong(Wrong::new(id.mark, text)));
                }
                self.suite.checks.push(check);
            }
        }
        Ok(())
    }

    fn fill_in(&self, file: &Path, text: &str) -> Result<String> {
        let functions = GossFunctions {
            environment: self.environment,
            directory: file.parent().unwrap_or(Path::new("")),
            read: Cell::new(0),
        };
        go::render(text, &functions, &self.dot).map_err(|fault| {
            let before = text.get(..fault.at).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            let mut wrong = Wrong::new(Mark { line, column }, fault.message);
            wrong.remedy = fault.remedy;
            told(file, false, &wrong)
        })
    }

    fn includes(
        &mut self,
        file: &Path,
        filled_in: bool,
        list: &Node,
        within: &mut Vec<PathBuf>,
    ) -> Result<()> {
        let wrong = |wrong: Wrong| told(file, filled_in, &wrong);
        let Some(entries) = list.map() else {
            let text = "a map of names of files belongs here";
            return Err(wrong(Wrong::new(list.mark, text)));
        };
        let directory = file.parent().unwrap_or(Path::new(""));
        for (key, attributes) in entries {
            let (name, skip) = check::include(key, attributes).map_err(wrong)?;
            if skip {
                continue;
            }
            let is_pattern = name.contains(['*', '?', '[']);
            let found = if is_pattern {
                matching(&directory.join(&name)).map_err(|why| wrong(Wrong::new(key.mark, why)))?
            } else {
                vec![directory.join(&name)]
            };
            if found.is_empty() {
                let text = format!("no file is called as '{name}' says");
                return Err(wrong(Wrong::new(key.mark, text)));
            }
            for other in found {
                // A pattern may fit the file it stands in.
                if is_pattern && within.contains(&other) {
                    continue;
                }
                self.file(&other, within)?;
            }
        }
        Ok(())
    }
}

fn unknown_kind(name: &str, mark: Mark) -> Wrong {
    let names = SHAPES.iter().map(|shape| shape.name).chain(["gossfile"]);
    let wrong = Wrong::new(mark, format!("there is no type of check '{name}'"));
    match nearest(name, names.clone()) {
        Some(near) => wrong.or(format!("did you mean {near}?")),
        None => wrong.or(format!(
            "there are {}",
            names.collect::<Vec<_>>().join(", ")
        )),
    }
}

/// Files by a pattern, in the order of their names.
fn matching(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let text = pattern.to_str().ok_or("the pattern is not UTF-8")?;
    let found = glob::glob(text).map_err(|error| format!("'{text}' is no pattern: {error}"))?;
    let mut files = Vec::new();
    for path in found {
        files.push(path.map_err(|error| error.to_string())?);
        if files.len() > MOST_FILES {
            return Err(format!("more than {MOST_FILES} files are called so"));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
