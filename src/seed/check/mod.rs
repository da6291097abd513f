//! What is wrong with a seed before any guest sees it.
//!
//! Knows what cloud-init accepts: kinds of user-data, keys and their shapes. Findings are plain data; what becomes of
//! them (warnings, or a refusal) is the caller's. Takes hostile text: time and memory are bounded.

mod cloud_config;
mod near;
mod network;
mod shape;
mod ssh_key;
mod text;

use serde::Serialize;

use super::yaml::{Document, Fault, Mark};
use super::{Header, MetaData, SeedRequest};

#[cfg(feature = "build")]
pub(crate) use near::nearest;
pub use ssh_key::complaint as ssh_key_complaint;

/// Bytes of a text at most that are looked into; what cloud-init takes from a disk has no such limit.
pub const MAX_TEXT: usize = 8 << 20;
/// Findings in one file at most.
const MAX_FINDINGS: usize = 100;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Works, but is on its way out.
    Note,
    /// Probably not what was meant.
    Warning,
    /// cloud-init ignores or refuses it.
    Error,
}

/// Something wrong in a file of a seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// The name of the input.
    pub file: String,
    /// From 1 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// From 1 on, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// One line in lower case. Names in it are as found: escape it before printing.
    pub message: String,
    /// What can be done about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    pub(super) fn new(severity: Severity, message: impl Into<String>) -> Self {
        Self {
            severity,
            file: String::new(),
            line: None,
            column: None,
            message: message.into(),
            remedy: None,
        }
    }

    fn at(mut self, mark: Mark) -> Self {
        self.line = Some(mark.line);
        self.column = Some(mark.column);
        self
    }

    pub(super) fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Everything that is wrong with the inputs of a seed, in the order of its files and of their lines.
pub fn check(request: &SeedRequest) -> Vec<Finding> {
    let mut findings = Vec::new();
    for part in &request.user_data {
        findings.extend(check_user_data(&part.name, &part.bytes));
    }
    match &request.meta_data {
        MetaData::Given(bytes) => findings.extend(check_meta_data("meta-data", bytes)),
        MetaData::Made {
            hostname: Some(hostname),
            ..
        } => {
            findings.extend(named(
                "hostname",
                text::hostname(hostname).into_iter().collect(),
            ));
        }
        MetaData::Made { .. } => {}
    }
    if let Some(bytes) = &request.network_config {
        findings.extend(check_network_config("network-config", bytes));
    }
    if let Some(bytes) = &request.vendor_data {
        findings.extend(check_user_data("vendor-data", bytes));
    }
    findings
}

/// Findings in user-data or vendor-data called `file`.
pub fn check_user_data(file: &str, bytes: &[u8]) -> Vec<Finding> {
    let mut findings = Vec::new();
    match Header::of(bytes) {
        // An archive within an archive is unpacked by cloud-init once.
        Header::Gzip => match super::gunzip(bytes, MAX_TEXT) {
            Some(inner) => findings.extend(user_data_text(&inner)),
            None => findings.push(Finding::new(
                Severity::Warning,
                "is gzip that is damaged, or too large to look into",
            )),
        },
        _ => findings.extend(user_data_text(bytes)),
    }
    named(file, findings)
}

fn user_data_text(bytes: &[u8]) -> Vec<Finding> {
    let (text, mut findings) = match text::decode(bytes) {
        Ok(decoded) => decoded,
        Err(finding) => return vec![finding],
    };
    match Header::of(bytes) {
        Header::CloudConfig => findings.extend(cloud_config::check(text)),
        Header::CloudConfigArchive => findings.extend(cloud_config::check_archive(text)),
        Header::Jinja => findings.extend(text::template(text)),
        Header::Script | Header::Boothook => findings.extend(text::script(text)),
        Header::Multipart => findings.extend(text::multipart(text)),
        Header::Unknown
            if findings
                .iter()
                .all(|finding| finding.severity < Severity::Error) =>
        {
            findings.push(text::unknown_header(text));
        }
        _ => {}
    }
    findings
}

/// Findings in network-config called `file`.
pub fn check_network_config(file: &str, bytes: &[u8]) -> Vec<Finding> {
    named(file, plain_yaml(bytes, network::check))
}

/// Findings in meta-data called `file`.
pub fn check_meta_data(file: &str, bytes: &[u8]) -> Vec<Finding> {
    named(file, plain_yaml(bytes, network::check_meta_data))
}

fn plain_yaml(bytes: &[u8], judge: impl FnOnce(&Document) -> Vec<Finding>) -> Vec<Finding> {
    let (text, mut findings) = match text::decode(bytes) {
        Ok(decoded) => decoded,
        Err(finding) => return vec![finding],
    };
    match super::yaml::load(text) {
        Ok(document) => {
            findings.extend(duplicates(&document));
            findings.extend(judge(&document));
        }
        Err(fault) => findings.push(not_yaml(text, &fault)),
    }
    findings
}

fn duplicates(document: &Document) -> impl Iterator<Item = Finding> + '_ {
    document.duplicates.iter().map(|duplicate| {
        let text = format!(
            "the key '{}' is there twice: the one of line {} counts for nothing",
            duplicate.key, duplicate.first.line
        );
        Finding::new(Severity::Warning, text).at(duplicate.mark)
    })
}

fn not_yaml(text: &str, fault: &Fault) -> Finding {
    if fault.is_limit() {
        let text = format!("is not checked from here on: {}", fault.message);
        return Finding::new(Severity::Note, text).at(fault.mark);
    }
    let finding = Finding::new(
        Severity::Error,
        format!("is not valid YAML: {}", fault.message),
    )
    .at(fault.mark);
    // What parsers say of a tab is hard to understand, and they say it one line too early.
    let near = text
        .lines()
        .enumerate()
        .skip(fault.mark.line.saturating_sub(2))
        .take(3);
    let tab = |line: &str| {
        line.chars()
            .take_while(|c| c.is_whitespace())
            .position(|c| c == '\t')
    };
    if let Some((at, column)) = near.filter_map(|(at, line)| Some((at, tab(line)?))).next() {
        let mark = Mark {
            line: at + 1,
            column: column + 1,
        };
        return finding
            .at(mark)
            .with_remedy("indent with spaces: YAML takes no tabs");
    }
    finding
}

/// Puts the file's name to findings, in the order of their lines, and cuts an endless list.
fn named(file: &str, mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| (finding.line, finding.column));
    if findings.len() > MAX_FINDINGS {
        // The worst of them decide what becomes of the whole: they stay.
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        findings.truncate(MAX_FINDINGS);
        findings.push(Finding::new(
            Severity::Note,
            "has more findings than are listed",
        ));
    }
    for finding in &mut findings {
        file.clone_into(&mut finding.file);
    }
    findings
}
