//! A Packer template as TOML.
//!
//! Knows how trees are written; which key is which, `packer` knows. Variables stay variables, and what Packer takes
//! where nothing is said is said.

use std::path::Path;

use super::check::{Finding, Findings, Severity};
use super::document::{Entry, Kind, Missing, Node, Source};
use super::model::Dialect;
use super::packer;
use crate::error::{Error, Result};

/// A template in qimg's own language, and what is to be said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// TOML.
    pub text: String,
    /// What of the old template is not in it.
    pub findings: Vec<Finding>,
}

/// Converts the Packer template at `path`; `bytes`: what is in it, where that is known.
///
/// # Errors
/// It cannot be read, it is no Packer template, or it holds what qimg has not; builds for other hypervisors are left out
/// where there is one of ours.
pub fn convert(path: &Path, bytes: Option<&Vec<u8>>) -> Result<Converted> {
    let (source, dialect, node) = super::read(path, bytes)?;
    if dialect != Dialect::Packer {
        return Err(Error::usage("is TOML already").at_path(path));
    }
    let findings = Findings::default();
    let mut tree = packer::translate(&source, &node, &findings)?;
    leave_out(&source, &findings, &mut tree);
    if let Some(missing) = missing(&tree) {
        let error = source.missing(missing);
        return Err(error.with_remedy("take it out of the template, then convert it"));
    }
    let (findings, mistakes) = findings.finish();
    if let Some(error) = mistakes.into_iter().next() {
        return Err(error);
    }
    Ok(Converted {
        text: write(&tree),
        findings,
    })
}

/// Takes builds for other hypervisors out of a template that has one of ours, and what belongs to them alone.
fn leave_out(source: &Source, findings: &Findings, tree: &mut Node) {
    let Kind::Table(entries) = &mut tree.kind else {
        return;
    };
    let Some(builds) = entries.iter_mut().find(|entry| entry.key == "build") else {
        return;
    };
    let Kind::Table(builds) = &mut builds.node.kind else {
        return;
    };
    let is_here = |build: &Entry| build.node.missing().is_none();
    if !builds.iter().any(is_here) {
        return;
    }
    let mut gone = Vec::new();
    builds.retain(|build| {
        let Some((at, missing)) = build.node.missing() else {
            return true;
        };
        let text = format!("the build '{}' is left out: {}", build.key, missing.text);
        findings.add(Severity::Warning, source, at, &text, &missing.remedy);
        gone.push(build.key.clone());
        false
    });
    let left = builds.iter().map(|build| build.key.clone()).collect();
    let names = Names { gone, left };
    entries.retain_mut(|entry| match (entry.key.as_str(), &mut entry.node.kind) {
        ("provision", Kind::List(steps)) => {
            steps.retain_mut(|step| stays(step, &names));
            !steps.is_empty()
        }
        ("post", Kind::List(chains)) => {
            let left = { chains.drain(..) }.filter_map(|chain| shortened(chain, &names));
            *chains = left.collect();
            !chains.is_empty()
        }
        ("cleanup", _) => stays(&mut entry.node, &names),
        _ => true,
    });
}

/// Builds of a template that is converted.
struct Names {
    gone: Vec<String>,
    left: Vec<String>,
}

/// Takes the builds that are gone out of a step or job; whether another one has it.
fn stays(node: &mut Node, builds: &Names) -> bool {
    let Kind::Table(entries) = &mut node.kind else {
        return true;
    };
    let is_gone = |name: &str| builds.gone.iter().any(|gone| gone == name);
    let mut stays = true;
    entries.retain_mut(|entry| match (entry.key.as_str(), &mut entry.node.kind) {
        ("only" | "except", Kind::List(names)) if !names.is_empty() => {
            names.retain(|name| !name.as_text().is_some_and(is_gone));
            let is_named = |build: &String| names.iter().any(|name| name.as_text() == Some(build));
            stays &= match entry.key.as_str() {
                "only" => !names.is_empty(),
                _ => !builds.left.iter().all(is_named),
            };
            !names.is_empty()
        }
        ("override", Kind::Table(own)) => {
            own.retain(|build| !is_gone(&build.key));
            !own.is_empty()
        }
        _ => true,
    });
    stays
}

/// A chain without the jobs that none has any more.
fn shortened(mut first: Node, builds: &Names) -> Option<Node> {
    let mut jobs = Vec::new();
    if let Kind::Table(entries) = &mut first.kind
        && let Some(at) = entries.iter().position(|entry| entry.key == "then")
        && let Kind::List(then) = entries.remove(at).node.kind
    {
        jobs = then;
    }
    jobs.insert(0, first);
    jobs.retain_mut(|job| stays(job, builds));
    if jobs.is_empty() {
        return None;
    }
    let mut first = jobs.remove(0);
    if let (false, Kind::Table(entries)) = (jobs.is_empty(), &mut first.kind) {
        let at = first.at;
        entries.push(Entry {
            at,
            key: "then".to_owned(),
            shown: None,
            node: Node {
                at,
                kind: Kind::List(jobs),
            },
        });
    }
    Some(first)
}

/// The first thing that is not there.
fn missing(node: &Node) -> Option<(usize, &Missing)> {
    node.missing().or_else(|| match &node.kind {
        Kind::List(items) => items.iter().find_map(missing),
        Kind::Table(entries) => entries.iter().find_map(|entry| missing(&entry.node)),
        _ => None,
    })
}

fn write(root: &Node) -> String {
    let mut text = String::new();
    if let Kind::Table(entries) = &root.kind {
        table(&mut text, "", entries);
    }
    text
}

/// Whether a list is written as tables of its own.
fn is_tables(node: &Node) -> bool {
    match &node.kind {
        Kind::List(items) => {
            !items.is_empty() && items.iter().all(|item| matches!(item.kind, Kind::Table(_)))
        }
        _ => false,
    }
}

fn table(text: &mut String, path: &str, entries: &[Entry]) {
    let is_table = |entry: &&Entry| matches!(entry.node.kind, Kind::Table(_));
    let plain = entries
        .iter()
        .filter(|entry| !is_table(entry) && !is_tables(&entry.node));
    for entry in plain {
        text.push_str(&format!("{} = ", key(&entry.key)));
        value(text, &entry.node);
        text.push('\n');
    }
    let below = |name: &str| match path.is_empty() {
        true => key(name),
        false => format!("{path}.{}", key(name)),
    };
    for entry in entries {
        let path = below(&entry.key);
        match &entry.node.kind {
            Kind::Table(own) => {
                // A table that holds nothing but tables needs no line of its own.
                let only_tables = !own.is_empty()
                    && own
                        .iter()
                        .all(|entry| is_table(&entry) || is_tables(&entry.node));
                if !only_tables {
                    text.push_str(&format!("\n[{path}]\n"));
                }
                table(text, &path, own);
            }
            Kind::List(items) if is_tables(&entry.node) => {
                for item in items {
                    text.push_str(&format!("\n[[{path}]]\n"));
                    if let Kind::Table(own) = &item.kind {
                        table(text, &path, own);
                    }
                }
            }
            _ => {}
        }
    }
}

fn key(name: &str) -> String {
    let bare = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    match bare {
        true => name.to_owned(),
        false => quoted(name),
    }
}

fn value(text: &mut String, node: &Node) {
    match &node.kind {
        // TOML has no null, and no tree that is written holds one, nor anything that is not there.
        Kind::Null | Kind::Missing(_) => text.push_str("\"\""),
        Kind::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Kind::Int(number) => text.push_str(&number.to_string()),
        Kind::Float(number) => {
            let written = number.to_string();
            text.push_str(&written);
            if !written.contains('.') {
                text.push_str(".0");
            }
        }
        Kind::Text(value) => text.push_str(&quoted(value)),
        Kind::List(items) => {
            let lines =
                items.len() > 1 && items.iter().any(|item| !matches!(item.kind, Kind::Int(_)));
            text.push('[');
            for (number, item) in items.iter().enumerate() {
                if lines {
                    text.push_str("\n    ");
                } else if number > 0 {
                    text.push_str(", ");
                }
                value(text, item);
                if lines {
                    text.push(',');
                }
            }
            text.push_str(if lines { "\n]" } else { "]" });
        }
        Kind::Table(entries) => {
            text.push_str("{ ");
            for (number, entry) in entries.iter().enumerate() {
                if number > 0 {
                    text.push_str(", ");
                }
                text.push_str(&format!("{} = ", key(&entry.key)));
                value(text, &entry.node);
            }
            text.push_str(" }");
        }
    }
}

/// A string of one line; without escapes where that is possible.
fn quoted(text: &str) -> String {
    let plain =
        !text.contains(['\'']) && text.contains(['"', '\\']) && !text.contains(char::is_control);
    if plain {
        return format!("'{text}'");
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
