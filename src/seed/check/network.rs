//! network-config of both versions, and meta-data.

use super::shape::{Comparison, Table};
use super::{Finding, Severity, text};
use crate::seed::yaml::{Document, Value};

const SHAPES: &str = include_str!("network.shapes");

/// Findings in network-config.
pub(super) fn check(document: &Document) -> Vec<Finding> {
    // Since cloud-init 18.5 the whole may stand below a key, as in a system's own configuration.
    let root = document.root.field("network").unwrap_or(&document.root);
    if root.map().is_none() {
        let what = match root.value {
            Value::Null => "has nothing in it",
            _ => "is no map of keys",
        };
        return vec![Finding::new(Severity::Error, what).at(root.mark)];
    }
    let Some(version) = root.field("version") else {
        // A guest would fall back to DHCP without a word.
        return match root.field("config").map(|config| &config.value) {
            Some(Value::Text(text)) if text == "disabled" => Vec::new(),
            _ => vec![
                Finding::new(Severity::Error, "has no 'version'")
                    .at(root.mark)
                    .with_remedy("add 'version: 2'"),
            ],
        };
    };
    let name = match version.value {
        Value::Int(Some(1)) => "@v1",
        Value::Int(Some(2)) => "@v2",
        _ => {
            let finding = Finding::new(Severity::Error, "'version' is 1 or 2");
            return vec![finding.at(version.mark)];
        }
    };
    compare(name, root)
}

/// Findings in meta-data.
pub(super) fn check_meta_data(document: &Document) -> Vec<Finding> {
    let root = &document.root;
    let no_id = "has no 'instance-id': every guest is the same instance then, and only the first seed counts";
    match &root.value {
        Value::Null => {
            return vec![Finding::new(Severity::Warning, no_id)];
        }
        Value::Map(_) => {}
        _ => return vec![Finding::new(Severity::Error, "is no map of keys").at(root.mark)],
    }
    let mut findings = compare("@meta", root);
    match root.field("instance-id").map(|id| &id.value) {
        None | Some(Value::Null) => findings.push(Finding::new(Severity::Warning, no_id)),
        Some(_) => {}
    }
    for name in ["local-hostname", "hostname"] {
        if let Some(value) = root.field(name)
            && let Some(finding) = value.text().and_then(text::hostname)
        {
            findings.push(finding.at(value.mark));
        }
    }
    findings
}

fn compare(name: &str, root: &std::rc::Rc<crate::seed::yaml::Node>) -> Vec<Finding> {
    let table = Table::read(SHAPES);
    match table.shape(name) {
        Some(shape) => Comparison::new(&table).compare(shape, root, ""),
        None => Vec::new(),
    }
}
