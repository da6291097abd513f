//! Packer's legacy JSON made into the tree of qimg's own language.
//!
//! Knows Packer's keys, its defaults and what it takes for what. Fills nothing in: actions of the template language
//! stay as they are, so that a converted template asks for the same variables. Keys keep their names in messages.

mod builder;
mod publishing;
mod steps;
mod weak;

use super::check::{Findings, Severity};
use super::document::{Entry, Kind, Missing, Node, Source};
use super::near;
use crate::error::Result;

const ROOT: [&str; 9] = [
    "min_packer_version",
    "description",
    "variables",
    "sensitive-variables",
    "builders",
    "provisioners",
    "error-cleanup-provisioner",
    "post-processors",
    "push",
];

/// An entry that holds text.
fn text(key: &str, shown: &str, at: usize, value: &str) -> Entry {
    Entry {
        at,
        key: key.to_owned(),
        shown: Some(shown.to_owned()),
        node: Node {
            at,
            kind: Kind::Text(value.to_owned()),
        },
    }
}

/// What stands for something that is not there.
fn missing(at: usize, text: String, remedy: &str) -> Node {
    Node {
        at,
        kind: Kind::Missing(Missing {
            text,
            remedy: remedy.to_owned(),
        }),
    }
}

/// Tables that are being made, by name.
#[derive(Default)]
struct Made(Vec<(String, Vec<Entry>)>);

impl Made {
    fn table(&mut self, table: &str) -> &mut Vec<Entry> {
        let found = self.0.iter().position(|(name, _)| name == table);
        let at = found.unwrap_or(self.0.len());
        if found.is_none() {
            self.0.push((table.to_owned(), Vec::new()));
        }
        &mut self.0[at].1
    }

    fn put(&mut self, table: &str, entry: Entry) {
        self.table(table).push(entry);
    }

    /// Puts an entry, unless its key is there by a newer spelling.
    fn add(&mut self, notes: &Findings, source: &Source, what: &str, table: &str, entry: Entry) {
        let known = self
            .table(table)
            .iter()
            .find(|known| known.key == entry.key);
        if let Some(known) = known {
            let text = format!(
                "{what}: {} counts, and {} does not",
                known.shown(),
                entry.shown()
            );
            notes.add(
                Severity::Warning,
                source,
                entry.at,
                &text,
                "keep one of them",
            );
            return;
        }
        self.put(table, entry);
    }

    /// Puts a value that Packer takes where nothing, or nothing but empty text, is given.
    fn fallback(&mut self, at: usize, table: &str, key: &str, kind: Kind) {
        let entries = self.table(table);
        entries.retain(|entry| entry.key != key || entry.node.as_text() != Some(""));
        if !entries.iter().any(|entry| entry.key == key) {
            entries.push(Entry {
                at,
                key: key.to_owned(),
                shown: Some(String::new()),
                node: Node { at, kind },
            });
        }
    }

    /// Puts the table `inner`, if it is there, into the table `outer`.
    fn nest(&mut self, inner: &str, outer: &str) {
        let Some(at) = self.0.iter().position(|(name, _)| name == inner) else {
            return;
        };
        let (name, entries) = self.0.remove(at);
        let at = entries.first().map_or(0, |entry| entry.at);
        self.put(outer, table(at, &name, entries));
    }

    fn node(self, at: usize) -> Node {
        let tables = self.0.into_iter();
        let kind = Kind::Table(
            tables
                .map(|(name, entries)| table(at, &name, entries))
                .collect(),
        );
        Node { at, kind }
    }
}

/// A table that the template does not spell.
fn table(at: usize, name: &str, entries: Vec<Entry>) -> Entry {
    Entry {
        at,
        key: name.to_owned(),
        shown: Some(String::new()),
        node: Node {
            at,
            kind: Kind::Table(entries),
        },
    }
}

/// Looks over the keys at the top.
///
/// # Errors
/// The whole is no object. Keys that are not known are told.
pub(super) fn root_keys(source: &Source, root: &Node, notes: &Findings) -> Result<()> {
    let Kind::Table(entries) = &root.kind else {
        let text = format!("expected an object, found {}", root.what());
        return Err(source.error(root.at, text));
    };
    for entry in entries {
        let known = ROOT.iter().find(|key| key.eq_ignore_ascii_case(&entry.key));
        // Packer looks past case, unless the key is there in its own, too.
        let spare = |key: &&&str| entry.key == **key || root.member(key).is_none();
        if entry.key.starts_with('_') || known.filter(spare).is_some() {
            continue;
        }
        let error = source.error(
            entry.at,
            format!("there is no key '{}' at the top", entry.key),
        );
        notes.mistake(match near(&entry.key, ROOT) {
            Some(near) => error.with_remedy(format!("did you mean '{near}'?")),
            None => error.with_remedy("a key at the top that starts with _ is a comment"),
        });
    }
    Ok(())
}

/// Makes the tree of a Packer template into one of qimg's own language.
///
/// # Errors
/// It is no template at all. A key that is not known, a value that is not of its kind and something that is not there
/// are told by name and with the nearest way, and what else there is is read.
pub(super) fn translate(source: &Source, root: &Node, notes: &Findings) -> Result<Node> {
    notes.begin(source, root.at);
    root_keys(source, root, notes)?;
    let Kind::Table(members) = &root.kind else {
        return Err(source.error(root.at, "expected an object"));
    };
    let member = |key: &str| {
        let spelled = |entry: &&Entry| entry.key == key;
        let alike = |entry: &&Entry| entry.key.eq_ignore_ascii_case(key);
        let found = members
            .iter()
            .find(spelled)
            .or_else(|| members.iter().find(alike));
        found
            .map(|entry| &entry.node)
            .filter(|node| node.kind != Kind::Null)
    };
    let mut entries = vec![text("paths", "", root.at, "current")];
    if let Some(node) = member("description") {
        match node.as_text() {
            Some(words) => entries.push(text("description", "description", node.at, words)),
            None => {
                let text = format!("description: expected a string, found {}", node.what());
                notes.mistake(source.error(node.at, text));
            }
        }
    }
    if let Some(node) = member("min_packer_version") {
        notes.keep(version(source, node));
    }
    if let Some(node) = member("variables") {
        entries.extend(notes.keep(variables(source, node, notes)));
    }
    if let Some(node) = member("sensitive-variables") {
        let Kind::List(items) = &node.kind else {
            let text = format!(
                "sensitive-variables: expected a list, found {}",
                node.what()
            );
            return Err(source.error(node.at, text));
        };
        if let Some(item) = items.iter().find(|item| item.as_text().is_none()) {
            let text = format!(
                "sensitive-variables: expected a string, found {}",
                item.what()
            );
            return Err(source.error(item.at, text));
        }
        entries.push(Entry {
            at: node.at,
            key: "sensitive".to_owned(),
            shown: Some("sensitive-variables".to_owned()),
            node: node.clone(),
        });
    }
    let list = |key: &str| -> Vec<&Node> {
        match member(key) {
            None => Vec::new(),
            Some(Node {
                kind: Kind::List(items),
                ..
            }) => items.iter().collect(),
            Some(node) => {
                let text = format!("{key}: expected a list, found {}", node.what());
                notes.mistake(source.error(node.at, text).with_remedy("put it in [ and ]"));
                Vec::new()
            }
        }
    };
    let mut builds = Vec::new();
    for (number, node) in list("builders").into_iter().enumerate() {
        notes.begin(source, node.at);
        let made = builder::builder(source, notes, node, number + 1);
        let Some((name, entry)) = notes.keep(made) else {
            continue;
        };
        if builds.iter().any(|known: &Entry| known.key == name) {
            let text = format!(
                "builder {}: there is a builder '{name}' already",
                number + 1
            );
            let error = source.error(node.at, text);
            notes.mistake(error.with_remedy("give each a \"name\" of its own"));
            continue;
        }
        builds.push(entry);
    }
    let is_empty = builds.is_empty();
    entries.push(table(root.at, "build", builds));
    let mut provision = Vec::new();
    let step = |node: &Node, what: &str| {
        notes.begin(source, node.at);
        steps::read_on(notes, node, steps::provisioner(source, notes, node, what))
    };
    for (number, node) in list("provisioners").into_iter().enumerate() {
        provision.push(step(node, &format!("provisioner {}", number + 1)));
    }
    let mut posts = Vec::new();
    for (number, node) in list("post-processors").into_iter().enumerate() {
        posts.extend(steps::chain(source, notes, node, number + 1));
    }
    for (key, items) in [("provision", provision), ("post", posts)] {
        if !items.is_empty() {
            let mut entry = text(key, "", root.at, "");
            entry.node.kind = Kind::List(items);
            entries.push(entry);
        }
    }
    if let Some(node) = member("error-cleanup-provisioner") {
        let mut entry = text("cleanup", "error-cleanup-provisioner", node.at, "");
        entry.node = step(node, "error-cleanup-provisioner");
        entries.push(entry);
    }
    if is_empty {
        let error = source.error(root.at, "there is no builder");
        return Err(error.with_remedy("add \"builders\": [{\"type\": \"qemu\", ...}]"));
    }
    Ok(Node {
        at: root.at,
        kind: Kind::Table(entries),
    })
}

/// Whatever version is asked for: a template that needs more than there is says so by its keys.
fn version(source: &Source, node: &Node) -> Result<()> {
    let fits = node.as_text().is_some_and(|text| {
        let text = text.strip_prefix('v').unwrap_or(text);
        let numbers = text.split(['-', '+']).next().unwrap_or("");
        !numbers.is_empty() && numbers.split('.').all(|part| part.parse::<u32>().is_ok())
    });
    match fits {
        true => Ok(()),
        false => Err(source
            .error(node.at, "min_packer_version: expected a version")
            .with_remedy("write it as \"1.6.0\"")),
    }
}

fn variables(source: &Source, node: &Node, notes: &Findings) -> Result<Entry> {
    let Kind::Table(entries) = &node.kind else {
        let text = format!("variables: expected an object, found {}", node.what());
        return Err(source.error(node.at, text));
    };
    let mut all = Vec::new();
    for entry in entries {
        let mut made = entry.clone();
        match &entry.node.kind {
            Kind::Null => {
                let mut required = text("required", "", entry.at, "");
                required.node.kind = Kind::Bool(true);
                made.node.kind = Kind::Table(vec![required]);
            }
            Kind::Text(_) => {}
            _ => {
                let text = format!(
                    "the variable '{}' is {}: values of variables are strings",
                    entry.key,
                    entry.node.what()
                );
                let error = source.error(entry.node.at, text);
                notes.mistake(error.with_remedy("put it in double quotes"));
                made.node.kind = Kind::Text(String::new());
            }
        }
        all.push(made);
    }
    Ok(Entry {
        at: node.at,
        key: "variables".to_owned(),
        shown: None,
        node: Node {
            at: node.at,
            kind: Kind::Table(all),
        },
    })
}
