//! Cloud-config: its keys, their shapes, and what shapes cannot tell.

use std::rc::Rc;

use super::near::nearest;
use super::shape::{Comparison, Table};
use super::{Finding, Severity, duplicates, not_yaml, ssh_key, text};
use crate::seed::base64;
use crate::seed::yaml::{Node, Value, load};

const SHAPES: &str = include_str!("cloud_config.shapes");

/// Findings in a text that begins with `#cloud-config`.
pub(super) fn check(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let first = text.lines().next().unwrap_or_default();
    if !first.starts_with("#cloud-config") {
        let mut finding = Finding::new(
            Severity::Warning,
            "'#cloud-config' is not what the first line begins with, as older releases ask for",
        );
        finding.line = Some(1);
        findings.push(finding);
    } else if first.trim_end() != "#cloud-config" {
        let mut finding = Finding::new(
            Severity::Warning,
            "the first line has more than '#cloud-config'",
        );
        finding.line = Some(1);
        findings.push(finding);
    }
    let document = match load(text) {
        Ok(document) => document,
        Err(fault) => {
            findings.push(not_yaml(text, &fault));
            return findings;
        }
    };
    findings.extend(duplicates(&document));
    findings.extend(judge(&document.root));
    findings
}

/// Findings in `#cloud-config-archive`: a list of parts, each with its content.
pub(super) fn check_archive(text: &str) -> Vec<Finding> {
    let document = match load(text) {
        Ok(document) => document,
        Err(fault) => return vec![not_yaml(text, &fault)],
    };
    let mut findings: Vec<Finding> = duplicates(&document).collect();
    if !matches!(document.root.value, Value::List(_)) {
        findings.push(Finding::new(Severity::Error, "is no list of parts").at(document.root.mark));
    }
    for part in document.root.list() {
        let fits = match &part.value {
            Value::Text(_) => true,
            Value::Map(_) => part.field("content").is_some(),
            _ => false,
        };
        if !fits {
            let finding =
                Finding::new(Severity::Error, "a part is a text, or a map with 'content'");
            findings.push(finding.at(part.mark));
        }
    }
    findings
}

fn judge(root: &Rc<Node>) -> Vec<Finding> {
    let Some(entries) = root.map() else {
        return vec![match &root.value {
            Value::Null => Finding::new(Severity::Error, "has nothing in it"),
            _ => Finding::new(Severity::Error, "is no map of keys").at(root.mark),
        }];
    };
    let table = Table::read(SHAPES);
    let mut comparison = Comparison::new(&table);
    let mut findings = Vec::new();
    for (key, value) in entries {
        let name = key.key_text();
        match table.shape(&name) {
            Some(shape) if !name.starts_with('@') => {
                findings.extend(comparison.compare(shape, value, &name));
            }
            _ => findings.push(unknown(&name, &table).at(key.mark)),
        }
    }
    findings.extend(users(root));
    findings.extend(written_files(root));
    if let Some(name) = root
        .field("hostname")
        .and_then(|name| Some((name.text()?, name.mark)))
    {
        findings.extend(text::hostname(name.0).map(|finding| finding.at(name.1)));
    }
    findings
}

fn unknown(name: &str, table: &Table) -> Finding {
    if name == "network" {
        return Finding::new(
            Severity::Warning,
            "'network' counts for nothing in user-data",
        )
        .with_remedy("give it as network-config of its own");
    }
    let finding = Finding::new(
        Severity::Warning,
        format!("no module of cloud-init reads the key '{name}'"),
    );
    match nearest(name, table.keys()) {
        Some(near) => finding.with_remedy(format!("did you mean '{near}'?")),
        None => finding,
    }
}

/// Keys and passwords of users.
fn users(root: &Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut keys = |node: Option<&Rc<Node>>| {
        for key in node.map(|node| node.list()).unwrap_or_default() {
            if let Some(complaint) = key.text().and_then(ssh_key::complaint) {
                let finding = Finding::new(Severity::Warning, format!("this {complaint}"));
                findings.push(finding.at(key.mark));
            }
        }
    };
    keys(root.field("ssh_authorized_keys"));
    let users = root
        .field("users")
        .map(|users| users.list())
        .unwrap_or_default();
    for user in users {
        keys(user.field("ssh_authorized_keys"));
    }
    for user in users {
        for field in ["passwd", "hashed_passwd"] {
            let Some(value) = user.field(field) else {
                continue;
            };
            let plain = value.text().is_some_and(|text| {
                !text.is_empty() && !text.starts_with(['$', '!', '*', 'x', '_'])
            });
            if plain {
                let finding = Finding::new(
                    Severity::Warning,
                    format!("'{field}' takes a hash, and this looks like none"),
                );
                findings.push(finding.at(value.mark).with_remedy(
                    "make one, as with `openssl passwd -6`, or use plain_text_passwd",
                ));
            }
        }
    }
    findings
}

/// What `write_files` would fail at.
fn written_files(root: &Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in root
        .field("write_files")
        .map(|files| files.list())
        .unwrap_or_default()
    {
        if let Some(path) = file.field("path")
            && path.text().is_some_and(|text| !text.starts_with('/'))
        {
            findings.push(
                Finding::new(Severity::Warning, "the path of a file begins with '/'").at(path.mark),
            );
        }
        if let Some(mode) = file.field("permissions")
            && mode.text().is_some_and(|text| {
                let digits = text.trim_start_matches("0o");
                digits.is_empty()
                    || digits.len() > 5
                    || !digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte))
            })
        {
            let finding = Finding::new(
                Severity::Warning,
                "permissions are octal digits, such as '0644'",
            );
            findings.push(finding.at(mode.mark));
        }
        let encoded = file.field("encoding").and_then(|encoding| encoding.text());
        if let Some(content) = file.field("content")
            && encoded
                .is_some_and(|encoding| encoding.contains("b64") || encoding.contains("base64"))
            && content
                .text()
                .is_some_and(|text| base64::decode(text).is_none())
        {
            findings.push(
                Finding::new(Severity::Warning, "this content is no base64").at(content.mark),
            );
        }
    }
    findings
}
