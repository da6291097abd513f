//! What is wrong with a template before anything runs.
//!
//! Knows Packer's silent traps: what it takes without a word and does otherwise than was meant. Findings are plain
//! data; what becomes of them is the caller's. They are collected while a template is read, so that each knows its
//! place.

use std::cell::RefCell;
use std::path::PathBuf;

use serde::Serialize;

use super::document::Source;
use crate::error::{Error, Result};
use mistakes::Mistakes;

mod boot_keys;
mod execute;
mod mistakes;
mod qemu_args;

pub(super) use boot_keys::boot_command;
pub(super) use execute::drops_environment;
pub(super) use qemu_args::{Defaults, dropped};

/// Findings of one template at most.
const MOST: usize = 200;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Probably not what was meant.
    Warning,
    /// A build must not begin.
    Error,
}

/// Something wrong in a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// The file.
    pub file: PathBuf,
    /// From 1 on; 0: no place of the file.
    pub line: usize,
    /// From 1 on, in characters; 0: no place of the file.
    pub column: usize,
    /// One line in lower case. Names in it are as found: escape it before printing.
    pub message: String,
    /// What can be done about it; empty: nothing more to say.
    pub remedy: String,
}

/// Findings as they are made, and mistakes that leave nothing to build.
#[derive(Debug, Default)]
pub(super) struct Findings {
    found: RefCell<Vec<Finding>>,
    mistakes: RefCell<Mistakes>,
}

impl Findings {
    /// A part of the template that is read apart from others begins at byte `at`.
    pub(super) fn begin(&self, source: &Source, at: usize) {
        self.mistakes.borrow_mut().begin(source.place(at));
    }

    /// What was read; `None`: it is a mistake, which is kept while the rest is read.
    pub(super) fn keep<T>(&self, read: Result<T>) -> Option<T> {
        read.map_err(|error| self.mistake(error)).ok()
    }

    /// Keeps a mistake.
    pub(super) fn mistake(&self, error: Error) {
        self.mistakes.borrow_mut().add(error);
    }

    /// Adds one, unless the same is there.
    pub(super) fn add(
        &self,
        severity: Severity,
        source: &Source,
        at: usize,
        message: &str,
        remedy: &str,
    ) {
        let place = source.place(at);
        self.push(Finding {
            severity,
            file: source.path.clone(),
            line: place.line,
            column: place.column,
            message: message.to_owned(),
            remedy: remedy.to_owned(),
        });
    }

    /// Adds one that has a place already, or none.
    pub(super) fn push(&self, finding: Finding) {
        let mut findings = self.found.borrow_mut();
        // Errors are never cut off.
        let room = findings.len() < MOST || finding.severity == Severity::Error;
        if room && findings.len() < 2 * MOST && !findings.contains(&finding) {
            findings.push(finding);
        }
    }

    /// All findings, mistakes among them, and mistakes alone, both in the order of their places.
    pub(super) fn finish(self) -> (Vec<Finding>, Vec<Error>) {
        let mut findings = self.found.into_inner();
        let mistakes = self.mistakes.into_inner().finish();
        findings.extend(mistakes.iter().map(Finding::from));
        findings.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        (findings, mistakes)
    }
}
