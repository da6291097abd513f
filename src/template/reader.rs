//! Tables of a template read key by key: texts filled in, values of other kinds taken as the language takes them, and
//! in the end no key left that nobody asked for.
//!
//! Knows kinds of values and places; knows no key.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::check::{Findings, Severity};
use super::document::{Entry, Kind, Node, Source};
use super::duration;
use super::functions::{Packer, Part};
use super::go::{self, Functions, Value};
use super::late::LATE_FIELDS;
use super::model::{Dialect, Text};
use crate::error::{Error, Result};

/// Values of variables that are templates for later, by name.
pub(super) type Held = BTreeMap<String, String>;

/// Reads one part of a template.
pub(super) struct Reader<'a> {
    pub(super) source: &'a Source,
    pub(super) dialect: Dialect,
    pub(super) packer: Packer<'a>,
    pub(super) held: &'a Held,
    /// Values that no message may show.
    pub(super) secrets: &'a [String],
    pub(super) findings: &'a Findings,
}

impl<'a> Reader<'a> {
    /// An error at byte `at`.
    pub(super) fn error(&self, at: usize, message: impl AsRef<str>) -> Error {
        self.source.error(at, self.masked(message.as_ref()))
    }

    fn masked(&self, text: &str) -> String {
        let mut masked = text.to_owned();
        for secret in self.secrets {
            masked = masked.replace(secret.as_str(), "<sensitive>");
        }
        masked
    }

    /// A warning, or in qimg's own language an error.
    pub(super) fn trap(&self, at: usize, message: &str, remedy: &str) {
        let severity = match self.dialect {
            Dialect::Packer => Severity::Warning,
            Dialect::Native => Severity::Error,
        };
        self.find(severity, at, message, remedy);
    }

    pub(super) fn find(&self, severity: Severity, at: usize, message: &str, remedy: &str) {
        let (message, remedy) = (self.masked(message), self.masked(remedy));
        self.findings
            .add(severity, self.source, at, &message, &remedy);
    }

    /// What was read; `None`: it is a mistake, which is told with all others.
    pub(super) fn keep<T>(&self, read: Result<T>) -> Option<T> {
        self.findings.keep(read)
    }

    fn at_fault(&self, node: &Node, what: &str, fault: go::Fault) -> Error {
        let error = self.error(node.at, format!("{what}: {}", fault.message));
        match fault.remedy {
            Some(remedy) => error.with_remedy(remedy),
            None => error,
        }
    }

    fn note_undefined(&self, node: &Node) {
        for name in self.packer.undefined.take() {
            let known = self.packer.variables.keys().map(String::as_str);
            let remedy = match super::near(&name, known) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("add '{name}' to the variables"),
            };
            let text = format!("there is no variable '{name}': it is taken as empty");
            self.trap(node.at, &text, &remedy);
        }
    }

    /// `text` filled in now; `what` is how messages call it.
    pub(super) fn render(&self, node: &Node, text: &str, what: &str) -> Result<String> {
        let functions: &dyn Functions = &self.packer;
        if self.dialect == Dialect::Native || text.contains("{{") {
            match go::needs(text, functions, &[]) {
                Ok(true) => self.trap(
                    node.at,
                    &format!("{what}: nothing is known here that {{{{ .NAME }}}} could ask for"),
                    "a variable is {{user `NAME`}}",
                ),
                Ok(false) => {}
                Err(fault) => return Err(self.at_fault(node, what, fault)),
            }
        }
        let rendered = go::render(text, functions, &Value::Nil)
            .map_err(|fault| self.at_fault(node, what, fault))?;
        self.note_undefined(node);
        Ok(rendered)
    }

    /// `text` with all put in that is known now. `dots`: `.NAME` is known later.
    pub(super) fn fold(&self, node: &Node, text: &str, what: &str, dots: bool) -> Result<Text> {
        let functions: &dyn Functions = &self.packer;
        let later: &[&str] = match self.packer.part {
            Part::Build { steps: true, .. } => &["build"],
            _ => &[],
        };
        let fault = |fault| self.at_fault(node, what, fault);
        // A variable that waits for fields has its text put in first: a place without fields gives them none.
        let template_of = |name: &str| self.held.get(name).filter(|_| dots).cloned();
        let waits = go::needs(text, functions, later).map_err(fault)?;
        if !dots && !waits {
            return self
                .render(node, text, what)
                .map(|text| Text::literal(&text));
        }
        if !dots && go::needs(text, functions, &[]).map_err(fault)? {
            return self
                .render(node, text, what)
                .map(|text| Text::literal(&text));
        }
        let folded = go::fold(text, functions, later, &template_of).map_err(fault)?;
        self.note_undefined(node);
        Ok(Text(folded))
    }
}

/// One table.
pub(super) struct Table<'a, 'r> {
    pub(super) reader: &'r Reader<'a>,
    /// Where it begins.
    pub(super) at: usize,
    /// How messages call it.
    pub(super) what: String,
    entries: Vec<&'r Entry>,
    taken: RefCell<Vec<bool>>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a, 'r> Table<'a, 'r> {
    /// The table `node`, called `what` in messages.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn new(
        reader: &'r Reader<'a>,
        node: &'r Node,
        what: impl Into<String>,
    ) -> Result<Self> {
        let what = what.into();
        match &node.kind {
            Kind::Table(entries) => Ok(Self::of(reader, node.at, entries.iter().collect(), what)),
            _ => Err(reader.error(
                node.at,
                format!("{what}: expected an object, found {}", node.what()),
            )),
        }
    }

    pub(super) fn of(
        reader: &'r Reader<'a>,
        at: usize,
        entries: Vec<&'r Entry>,
        what: String,
    ) -> Self {
        let taken = RefCell::new(vec![false; entries.len()]);
        Self {
            reader,
            at,
            what,
            entries,
            taken,
            known: RefCell::default(),
        }
    }

    /// The entry of `key`, which from now on is known.
    pub(super) fn entry(&self, key: &'static str) -> Option<&'r Entry> {
        self.known.borrow_mut().push(key);
        let found = self.entries.iter().position(|entry| entry.key == key)?;
        if let Some(taken) = self.taken.borrow_mut().get_mut(found) {
            *taken = true;
        }
        self.entries.get(found).copied()
    }

    /// The value of `key`.
    pub(super) fn node(&self, key: &'static str) -> Option<&'r Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// Whether `key` is there; it is not taken by that.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// All that nobody has asked for, which is taken now.
    pub(super) fn rest(&self) -> Vec<&'r Entry> {
        let mut taken = self.taken.borrow_mut();
        let mut rest = Vec::new();
        for (entry, taken) in self.entries.iter().zip(taken.iter_mut()) {
            if !*taken {
                *taken = true;
                rest.push(*entry);
            }
        }
        rest
    }

    /// How messages call the value of `key`.
    pub(super) fn name(&self, key: &str) -> String {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        match (self.what.as_str(), entry.map_or(key, |entry| entry.shown())) {
            ("", shown) => shown.to_owned(),
            (what, "") => what.to_owned(),
            (what, shown) => format!("{what}: {shown}"),
        }
    }

    /// The table under `key`; an empty one where there is none.
    ///
    /// # Errors
    /// It is no table.
    pub(super) fn table(&self, key: &'static str) -> Result<Self> {
        match self.node(key) {
            Some(node) => Self::new(self.reader, node, self.name(key)),
            None => Ok(Self::of(self.reader, self.at, Vec::new(), self.name(key))),
        }
    }

    /// Tells of a mistake, and goes on.
    pub(super) fn tell(&self, error: Error) {
        self.reader.findings.mistake(error);
    }

    /// An error about the value of `key`.
    pub(super) fn error(&self, key: &str, node: &Node, message: &str) -> Error {
        self.reader
            .error(node.at, format!("{}: {message}", self.name(key)))
    }

    fn mismatch(&self, key: &str, node: &Node, wanted: &str) -> Error {
        self.error(
            key,
            node,
            &format!("expected {wanted}, found {}", node.what()),
        )
    }

    /// The raw text of a scalar; a whole number is one, too.
    fn raw(&self, key: &str, node: &Node) -> Result<String> {
        match &node.kind {
            Kind::Text(text) => Ok(text.clone()),
            Kind::Int(number) => Ok(number.to_string()),
            _ => Err(self.mismatch(key, node, "a string")),
        }
    }

    /// Text, filled in; the node beside it.
    pub(super) fn text_at(&self, key: &'static str) -> Result<Option<(String, &'r Node)>> {
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        let text = self.reader.keep(self.text_of(key, node));
        Ok(text.map(|text| (text, node)))
    }

    /// Text, filled in, of a node of one's own.
    pub(super) fn text_of(&self, key: &str, node: &Node) -> Result<String> {
        let raw = self.raw(key, node)?;
        self.reader.render(node, &raw, &self.name(key))
    }

    /// Text, filled in.
    pub(super) fn text(&self, key: &'static str) -> Result<Option<String>> {
        Ok(self.text_at(key)?.map(|(text, _)| text))
    }

    /// Text that is not empty, filled in.
    pub(super) fn filled(&self, key: &'static str) -> Result<Option<String>> {
        Ok(self.text(key)?.filter(|text| !text.is_empty()))
    }

    /// A path that is not empty.
    pub(super) fn path(&self, key: &'static str) -> Result<Option<PathBuf>> {
        Ok(self.filled(key)?.map(PathBuf::from))
    }

    /// Text that is filled in late. `dots`: also by fields.
    pub(super) fn late(&self, key: &'static str, dots: bool) -> Result<Option<Text>> {
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        Ok(self.reader.keep(self.late_of(key, node, dots)))
    }

    /// Text that is filled in late, by none but these fields.
    pub(super) fn late_by(&self, key: &'static str, fields: &[&str]) -> Result<Option<Text>> {
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        let text = self.late_of(key, node, true)?;
        self.judge_fields(key, node, &text, fields);
        Ok(Some(text))
    }

    /// Tells of fields that nobody will know when `text` is filled in: that would end the build at its very end.
    pub(super) fn judge_fields(&self, key: &str, node: &Node, text: &Text, fields: &[&str]) {
        let known = |name: &str| fields.contains(&name) || LATE_FIELDS.contains(&name);
        // What is no template was told already.
        let asked = go::asked(&text.0, &self.reader.packer).unwrap_or_default();
        for name in asked.iter().filter(|name| !known(name)) {
            let text = format!("{}: there is no .{name} here", self.name(key));
            let remedy = match super::near(name, fields.iter().copied()) {
                Some(near) => format!("did you mean .{near}?"),
                None => format!("there is .{}", fields.join(", .")),
            };
            self.reader.find(Severity::Error, node.at, &text, &remedy);
        }
    }

    /// Text that is filled in late, of a node of one's own.
    pub(super) fn late_of(&self, key: &str, node: &Node, dots: bool) -> Result<Text> {
        let raw = self.raw(key, node)?;
        self.reader.fold(node, &raw, &self.name(key), dots)
    }

    /// True or false, also as text; empty text is nothing.
    pub(super) fn flag(&self, key: &'static str) -> Result<Option<bool>> {
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        Ok(self.reader.keep(self.flag_of(key, node)).flatten())
    }

    fn flag_of(&self, key: &str, node: &Node) -> Result<Option<bool>> {
        match &node.kind {
            Kind::Bool(value) => Ok(Some(*value)),
            Kind::Text(_) => match self.text_of(key, node)?.as_str() {
                "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Some(true)),
                "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Some(false)),
                "" => Ok(None),
                other => Err(self
                    .error(key, node, &format!("'{other}' is neither true nor false"))
                    .with_remedy("write true or false")),
            },
            _ => Err(self.mismatch(key, node, "true or false")),
        }
    }

    /// A whole number, also as text; what is empty is nothing.
    pub(super) fn int(&self, key: &'static str) -> Result<Option<(i64, &'r Node)>> {
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        let number = self.reader.keep(self.int_of(key, node)).flatten();
        Ok(number.map(|number| (number, node)))
    }

    /// A whole number, of a node of one's own.
    pub(super) fn int_of(&self, key: &str, node: &Node) -> Result<Option<i64>> {
        match &node.kind {
            Kind::Int(number) => Ok(Some(*number)),
            Kind::Text(_) => {
                let text = self.text_of(key, node)?;
                if text.is_empty() {
                    return Ok(None);
                }
                let lower = text.to_ascii_lowercase();
                let (sign, digits) = match lower.strip_prefix('-') {
                    Some(digits) => (-1, digits),
                    None => (1, lower.strip_prefix('+').unwrap_or(&lower)),
                };
                let (radix, digits) = match digits.as_bytes() {
                    [b'0', b'x', ..] => (16, &digits[2..]),
                    [b'0', b'b', ..] => (2, &digits[2..]),
                    [b'0', b'o', ..] => (8, &digits[2..]),
                    [b'0', _, ..] => (8, &digits[1..]),
                    _ => (10, digits),
                };
                let plain = digits.starts_with(|c: char| c.is_ascii_hexdigit());
                let number = i64::from_str_radix(digits, radix).ok().filter(|_| plain);
                match number {
                    Some(number) => Ok(Some(sign * number)),
                    None => Err(self.error(key, node, &format!("'{text}' is no whole number"))),
                }
            }
            _ => Err(self.mismatch(key, node, "a whole number")),
        }
    }

    /// A whole number from `least` to `most`.
    pub(super) fn number<T: TryFrom<i64>>(
        &self,
        key: &'static str,
        least: i64,
        most: i64,
    ) -> Result<Option<T>> {
        let Some((number, node)) = self.int(key)? else {
            return Ok(None);
        };
        if number < least || number > most {
            let text = format!("{number} is not within {least} to {most}");
            self.tell(self.error(key, node, &text));
            return Ok(None);
        }
        Ok(T::try_from(number).ok())
    }

    /// A port.
    pub(super) fn port(&self, key: &'static str) -> Result<Option<u16>> {
        self.number(key, 1, 65535)
    }

    /// A length of time in nanoseconds; below zero is possible.
    pub(super) fn span(&self, key: &'static str) -> Result<Option<i64>> {
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        Ok(self.reader.keep(self.span_of(key, node)))
    }

    fn span_of(&self, key: &str, node: &Node) -> Result<i64> {
        let Kind::Text(_) = node.kind else {
            return Err(self.mismatch(key, node, "a length of time such as \"10s\""));
        };
        let text = self.text_of(key, node)?;
        duration::parse(&text).ok_or_else(|| {
            self.error(key, node, &format!("'{text}' is no length of time"))
                .with_remedy("write it with its unit: 300ms, 10s, 1m30s, 2h")
        })
    }

    /// A length of time; below zero counts as none.
    pub(super) fn duration(&self, key: &'static str) -> Result<Option<Duration>> {
        Ok(self
            .span(key)?
            .map(|span| Duration::from_nanos(u64::try_from(span).unwrap_or(0))))
    }

    /// Nodes of a list; one text alone is a list of one.
    pub(super) fn items(&self, key: &'static str) -> Result<Option<Vec<&'r Node>>> {
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        Ok(self.reader.keep(self.items_of(key, node)))
    }

    /// Nodes of a list of one's own.
    pub(super) fn items_of<'n>(&self, key: &str, node: &'n Node) -> Result<Vec<&'n Node>> {
        match &node.kind {
            Kind::List(items) => Ok(items.iter().collect()),
            Kind::Text(_) => Ok(vec![node]),
            _ => Err(self.mismatch(key, node, "a list of strings")),
        }
    }

    /// Texts, filled in.
    pub(super) fn texts(&self, key: &'static str) -> Result<Vec<String>> {
        let items = self.items(key)?.unwrap_or_default();
        Ok(items
            .into_iter()
            .filter_map(|item| self.reader.keep(self.text_of(key, item)))
            .collect())
    }

    /// Texts that are filled in late, with their nodes.
    pub(super) fn lates(
        &self,
        key: &'static str,
        dots: bool,
    ) -> Result<Option<Vec<(Text, &'r Node)>>> {
        let Some(items) = self.items(key)? else {
            return Ok(None);
        };
        let texts = items.into_iter();
        Ok(Some(
            texts
                .filter_map(|item| Some((self.reader.keep(self.late_of(key, item, dots))?, item)))
                .collect(),
        ))
    }

    /// Texts by name, in the order of the file.
    pub(super) fn map(
        &self,
        key: &'static str,
        dots: bool,
    ) -> Result<Vec<(String, Text, &'r Node)>> {
        let Some(node) = self.node(key) else {
            return Ok(Vec::new());
        };
        let Kind::Table(entries) = &node.kind else {
            self.tell(self.mismatch(key, node, "an object of strings"));
            return Ok(Vec::new());
        };
        let mut map = Vec::new();
        for entry in entries {
            if let Some(text) = self.reader.keep(self.late_of(key, &entry.node, dots)) {
                map.push((entry.key.clone(), text, &entry.node));
            }
        }
        Ok(map)
    }

    /// Texts by name, filled in.
    pub(super) fn filled_map(&self, key: &'static str) -> Result<BTreeMap<String, String>> {
        let Some(node) = self.node(key) else {
            return Ok(BTreeMap::new());
        };
        let Kind::Table(entries) = &node.kind else {
            self.tell(self.mismatch(key, node, "an object of strings"));
            return Ok(BTreeMap::new());
        };
        Ok({ entries.iter() }
            .filter_map(|entry| {
                let text = self.reader.keep(self.text_of(key, &entry.node))?;
                Some((entry.key.clone(), text))
            })
            .collect())
    }

    /// One of `words`.
    pub(super) fn word(&self, key: &'static str, words: &[&str]) -> Result<Option<String>> {
        let Some((text, node)) = self.text_at(key)?.filter(|(text, _)| !text.is_empty()) else {
            return Ok(None);
        };
        if words.contains(&text.as_str()) {
            return Ok(Some(text));
        }
        let error = self.error(key, node, &format!("there is no '{text}'"));
        let near = super::near(&text, words.iter().copied());
        let list = format!("there is {}", words.join(", "));
        self.tell(error.with_remedy(match near {
            Some(near) => format!("did you mean '{near}'? {list}"),
            None => list,
        }));
        Ok(None)
    }

    /// The error for a key that is left and is close to one of `wanted`.
    pub(super) fn misspelt(&self, wanted: &[&str]) -> Option<Error> {
        let is_near = |entry: &&&Entry| super::near(&entry.key, wanted.iter().copied()).is_some();
        let rest = self.rest();
        let entry = rest.iter().find(is_near)?;
        Some(unknown_key(self.reader.source, entry, &self.what, wanted))
    }

    /// Tells of all keys that are left.
    pub(super) fn finish(&self) {
        let known = self.known.borrow();
        for entry in self.rest() {
            self.tell(unknown_key(self.reader.source, entry, &self.what, &known));
        }
    }
}

/// The error for a key that is not known.
pub(super) fn unknown_key(source: &Source, entry: &Entry, what: &str, known: &[&str]) -> Error {
    let place = match what.is_empty() {
        true => String::new(),
        false => format!("{what}: "),
    };
    let error = source.error(entry.at, format!("{place}there is no key '{}'", entry.key));
    match super::near(&entry.key, known.iter().copied()) {
        Some(near) => error.with_remedy(format!("did you mean '{near}'?")),
        None if known.len() <= 12 => error.with_remedy(format!("there is {}", known.join(", "))),
        None => error.with_remedy("take it out, or look up its spelling"),
    }
}
