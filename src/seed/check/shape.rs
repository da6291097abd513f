//! Shapes of values: a small language that says what a key takes, and the comparison of a value with it.
//!
//! Knows the language of the `.shapes` files and the words of its findings. Must not know any key.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::yaml::{Node, Value};
use super::near::nearest;
use super::{Finding, Severity};

/// Comparisons of a value with a shape at most: shared aliases can make a small text a large tree.
const MAX_STEPS: usize = 1 << 20;

/// What a value may be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Any,
    Null,
    Bool,
    /// At least so much.
    Int(Option<i64>),
    Number(Option<i64>),
    Text,
    Pattern(String),
    AnyMap {
        filled: bool,
    },
    AnyList,
    Literal(String),
    True,
    False,
    List {
        item: Box<Shape>,
        least: usize,
        most: usize,
        unique: bool,
    },
    Map(MapShape),
    Either(Vec<Shape>),
    Deprecated(Box<Shape>),
    Named(String),
}

/// The keys of a map.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct MapShape {
    fields: Vec<(String, bool, Shape)>,
    /// Any other key, where its name fits: `*`, `*word`, `*hostkey`.
    others: Option<(String, Box<Shape>)>,
    open: bool,
    filled: bool,
}

/// Shapes by name: those of keys, and those that others refer to as `@name`.
#[derive(Debug)]
pub(super) struct Table(BTreeMap<String, Shape>);

impl Table {
    /// Reads a `.shapes` file; an entry goes on in lines that begin with a space.
    pub(super) fn read(text: &str) -> Self {
        let mut table = BTreeMap::new();
        let mut entry = String::new();
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .chain(["end"]);
        for line in lines {
            if !line.starts_with(' ') && !entry.is_empty() {
                let mut reader = Reader { rest: &entry };
                let name = reader.name();
                reader.skip(":");
                let shape = reader.shape();
                debug_assert!(reader.rest.trim().is_empty(), "{name}: {}", reader.rest);
                table.insert(name, shape);
                entry.clear();
            }
            entry.push_str(line);
        }
        Self(table)
    }

    pub(super) fn shape(&self, name: &str) -> Option<&Shape> {
        self.0.get(name)
    }

    /// All names but those of references.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0
            .keys()
            .map(String::as_str)
            .filter(|name| !name.starts_with('@'))
    }
}

/// Reads shapes out of text that this crate ships: it is taken as it comes.
struct Reader<'t> {
    rest: &'t str,
}

impl Reader<'_> {
    fn skip(&mut self, sign: &str) -> bool {
        let rest = self.rest.trim_start();
        let found = rest.strip_prefix(sign);
        self.rest = found.unwrap_or(rest);
        found.is_some()
    }

    fn name(&mut self) -> String {
        self.rest = self.rest.trim_start();
        if self.rest.starts_with('"') {
            return self.quoted();
        }
        let of_name = |c: char| c.is_ascii_alphanumeric() || "_-@%*".contains(c);
        let end = self.rest.find(|c| !of_name(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name.to_owned()
    }

    fn quoted(&mut self) -> String {
        let mut parts = self.rest.splitn(3, '"');
        let text = parts.nth(1).unwrap_or_default().to_owned();
        self.rest = parts.next().unwrap_or_default();
        text
    }

    fn number(&mut self) -> Option<i64> {
        let rest = self.rest.trim_start();
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '-')
            .unwrap_or(rest.len());
        let (digits, rest) = rest.split_at(end);
        self.rest = rest;
        digits.parse().ok()
    }

    fn shape(&mut self) -> Shape {
        let mut alternatives = vec![self.single()];
        while self.skip("|") {
            alternatives.push(self.single());
        }
        match alternatives.pop() {
            Some(only) if alternatives.is_empty() => only,
            Some(last) => {
                alternatives.push(last);
                Shape::Either(alternatives)
            }
            None => Shape::Any,
        }
    }

    fn single(&mut self) -> Shape {
        if self.skip("~") {
            return Shape::Deprecated(Box::new(self.single()));
        }
        if self.skip("[") {
            let item = Box::new(self.shape());
            self.skip("]");
            let (mut least, mut most) = (0, usize::MAX);
            if self.skip("{") {
                let count = |number: Option<i64>| number.and_then(|n| usize::try_from(n).ok());
                least = count(self.number()).unwrap_or(0);
                if self.skip(",") {
                    most = count(self.number()).unwrap_or(usize::MAX);
                }
                self.skip("}");
            }
            let unique = self.skip("#");
            return Shape::List {
                item,
                least,
                most,
                unique,
            };
        }
        if self.skip("{") {
            return self.map();
        }
        if self.rest.trim_start().starts_with('"') {
            self.rest = self.rest.trim_start();
            return Shape::Literal(self.quoted());
        }
        let name = self.name();
        match name.as_str() {
            "str" => Shape::Text,
            "int" | "num" => {
                let least = if self.skip(">=") { self.number() } else { None };
                if name == "int" {
                    Shape::Int(least)
                } else {
                    Shape::Number(least)
                }
            }
            "bool" => Shape::Bool,
            "null" => Shape::Null,
            "map" => Shape::AnyMap {
                filled: self.skip("+"),
            },
            "list" => Shape::AnyList,
            "true" => Shape::True,
            "false" => Shape::False,
            _ if name.starts_with('@') => Shape::Named(name),
            _ if name.starts_with('%') => Shape::Pattern(name),
            _ => {
                debug_assert_eq!(name, "any");
                Shape::Any
            }
        }
    }

    fn map(&mut self) -> Shape {
        let mut map = MapShape::default();
        while !self.skip("}") && !self.rest.is_empty() {
            if self.skip("...") {
                map.open = true;
            } else {
                let name = self.name();
                let required = self.skip("!");
                self.skip(":");
                let shape = self.shape();
                if name.starts_with('*') {
                    map.others = Some((name, Box::new(shape)));
                } else {
                    map.fields.push((name, required, shape));
                }
            }
            self.skip(",");
        }
        map.filled = self.skip("+");
        Shape::Map(map)
    }
}

/// Compares values with shapes, and notes what does not fit.
pub(super) struct Comparison<'t> {
    table: &'t Table,
    steps: usize,
}

impl<'t> Comparison<'t> {
    pub(super) fn new(table: &'t Table) -> Self {
        Self { table, steps: 0 }
    }

    /// What of `node`, found at `path`, does not fit `shape`; nothing where it fits.
    pub(super) fn compare(&mut self, shape: &Shape, node: &Rc<Node>, path: &str) -> Vec<Finding> {
        self.steps = self.steps.saturating_add(1);
        if self.steps > MAX_STEPS {
            return Vec::new();
        }
        let wrong = || vec![self.misfit(shape, node, path)];
        match (shape, &node.value) {
            (Shape::Any, _)
            | (Shape::Null, Value::Null)
            | (Shape::Bool, Value::Bool(_))
            | (Shape::True, Value::Bool(true))
            | (Shape::False, Value::Bool(false))
            | (Shape::Text, Value::Text(_) | Value::Binary)
            | (Shape::AnyList, Value::List(_)) => Vec::new(),
            (Shape::Int(least) | Shape::Number(least), Value::Int(value)) => match (least, value) {
                (Some(least), Some(value)) if value < least => wrong(),
                _ => Vec::new(),
            },
            (Shape::Number(least), Value::Float(value)) => {
                #[expect(clippy::cast_precision_loss, reason = "the bounds are small")]
                let fits = least.is_none_or(|least| *value >= least as f64);
                if fits { Vec::new() } else { wrong() }
            }
            (Shape::Literal(wanted), Value::Text(text)) if text == wanted => Vec::new(),
            (Shape::Pattern(name), Value::Text(text)) if fits_pattern(name, text) => Vec::new(),
            (Shape::AnyMap { filled }, Value::Map(entries)) => {
                if *filled && entries.is_empty() {
                    wrong()
                } else {
                    Vec::new()
                }
            }
            (
                Shape::List {
                    item,
                    least,
                    most,
                    unique,
                },
                Value::List(items),
            ) => {
                if items.len() < *least || items.len() > *most {
                    return wrong();
                }
                let mut findings = Vec::new();
                for (at, value) in items.iter().enumerate() {
                    findings.extend(self.compare(item, value, &format!("{path}.{at}")));
                }
                if *unique {
                    findings.extend(repeated(items, path));
                }
                findings
            }
            (Shape::Map(map), Value::Map(entries)) => self.compare_map(map, entries, node, path),
            (Shape::Either(alternatives), _) => {
                self.compare_either(alternatives, shape, node, path)
            }
            (Shape::Deprecated(inner), _) => {
                let mut findings = self.compare(inner, node, path);
                if findings
                    .iter()
                    .all(|finding| finding.severity == Severity::Note)
                {
                    let note =
                        Finding::new(Severity::Note, format!("{} is deprecated", spoken(path)));
                    findings.push(note.at(node.mark));
                }
                findings
            }
            (Shape::Named(name), _) => match self.table.shape(name) {
                Some(named) => self.compare(named, node, path),
                None => Vec::new(),
            },
            _ => wrong(),
        }
    }

    fn compare_map(
        &mut self,
        map: &MapShape,
        entries: &[(Rc<Node>, Rc<Node>)],
        node: &Rc<Node>,
        path: &str,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        if map.filled && entries.is_empty() {
            let text = format!("{} is empty", spoken(path));
            findings.push(Finding::new(Severity::Error, text).at(node.mark));
        }
        for (key, value) in entries {
            let name = key.key_text();
            let inner = format!("{path}.{name}");
            let field = map.fields.iter().find(|(field, ..)| *field == name);
            match (field, &map.others) {
                (Some((_, _, shape)), _) => findings.extend(self.compare(shape, value, &inner)),
                (None, Some((pattern, shape))) if fits_key(pattern, &name) => {
                    findings.extend(self.compare(shape, value, &inner));
                }
                _ if map.open => {}
                _ => {
                    let known = map.fields.iter().map(|(field, ..)| field.as_str());
                    let text = format!("{} has no key '{name}'", spoken(path));
                    let finding = Finding::new(Severity::Error, text).at(key.mark);
                    findings.push(match nearest(&name, known) {
                        Some(near) => finding.with_remedy(format!("did you mean '{near}'?")),
                        None => finding,
                    });
                }
            }
        }
        for (name, required, _) in &map.fields {
            let there = || entries.iter().any(|(key, _)| key.text() == Some(name));
            if *required && !there() {
                let text = format!("{} lacks '{name}'", spoken(path));
                findings.push(Finding::new(Severity::Error, text).at(node.mark));
            }
        }
        findings
    }

    /// The first alternative that fits; else the findings of the one that comes nearest.
    fn compare_either(
        &mut self,
        alternatives: &[Shape],
        shape: &Shape,
        node: &Rc<Node>,
        path: &str,
    ) -> Vec<Finding> {
        let mut best: Option<Vec<Finding>> = None;
        for alternative in alternatives {
            let findings = self.compare(alternative, node, path);
            if findings
                .iter()
                .all(|finding| finding.severity == Severity::Note)
            {
                return findings;
            }
            let same_kind = self.is_container(alternative, node, 0);
            if same_kind && best.as_ref().is_none_or(|best| findings.len() < best.len()) {
                best = Some(findings);
            }
        }
        best.unwrap_or_else(|| vec![self.misfit(shape, node, path)])
    }

    /// Whether both are lists, or both are maps.
    fn is_container(&self, shape: &Shape, node: &Node, depth: usize) -> bool {
        match (shape, &node.value) {
            (Shape::List { .. }, Value::List(_)) | (Shape::Map(_), Value::Map(_)) => true,
            (Shape::Deprecated(inner), _) => self.is_container(inner, node, depth),
            (Shape::Either(inner), _) => inner
                .iter()
                .any(|shape| self.is_container(shape, node, depth)),
            (Shape::Named(name), _) if depth < 8 => {
                let named = self.table.shape(name);
                named.is_some_and(|shape| self.is_container(shape, node, depth + 1))
            }
            _ => false,
        }
    }

    fn misfit(&self, shape: &Shape, node: &Node, path: &str) -> Finding {
        let text = format!(
            "{} takes {}, and this is {}",
            spoken(path),
            self.words(shape, 0),
            kind(&node.value)
        );
        let finding = Finding::new(Severity::Error, text).at(node.mark);
        let texts = matches!(shape, Shape::Text)
            || matches!(shape, Shape::Either(all) if all.contains(&Shape::Text));
        match &node.value {
            Value::Map(_) if texts => finding.with_remedy("quote a text that holds ': '"),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Timestamp | Value::Null
                if texts =>
            {
                finding.with_remedy("quote it to make it a text")
            }
            _ => finding,
        }
    }

    fn words(&self, shape: &Shape, depth: usize) -> String {
        match shape {
            Shape::Any => "anything".into(),
            Shape::Null => "nothing".into(),
            Shape::Bool => "true or false".into(),
            Shape::True => "true".into(),
            Shape::False => "false".into(),
            Shape::Int(None) => "a whole number".into(),
            Shape::Int(Some(least)) => format!("a whole number from {least} on"),
            Shape::Number(None) => "a number".into(),
            Shape::Number(Some(least)) => format!("a number from {least} on"),
            Shape::Text => "a text".into(),
            Shape::Pattern(name) => pattern_words(name).into(),
            Shape::AnyMap { filled: false } => "a map".into(),
            Shape::AnyMap { filled: true } => "a map with something in it".into(),
            Shape::AnyList => "a list".into(),
            Shape::Literal(text) => format!("'{text}'"),
            Shape::List { least, most, .. } => match (least, most) {
                (0, &usize::MAX) => "a list".into(),
                (1, &usize::MAX) => "a list with something in it".into(),
                (least, most) if least == most => format!("a list of {least}"),
                (least, &usize::MAX) => format!("a list of {least} or more"),
                (least, most) => format!("a list of {least} to {most}"),
            },
            Shape::Map(_) => "a map".into(),
            Shape::Deprecated(inner) => self.words(inner, depth),
            Shape::Named(name) => match self.table.shape(name) {
                Some(shape) if depth < 8 => self.words(shape, depth + 1),
                _ => "something else".into(),
            },
            Shape::Either(all) => {
                let live = all
                    .iter()
                    .filter(|shape| !matches!(shape, Shape::Deprecated(_)));
                let mut words: Vec<String> = live.map(|shape| self.words(shape, depth)).collect();
                words.dedup();
                match words.split_last() {
                    Some((last, rest)) if !rest.is_empty() => {
                        format!("{} or {last}", rest.join(", "))
                    }
                    Some((only, _)) => only.clone(),
                    None => "something else".into(),
                }
            }
        }
    }
}

fn repeated(items: &[Rc<Node>], path: &str) -> Option<Finding> {
    let mut seen = std::collections::BTreeSet::new();
    let twice = items
        .iter()
        .find(|item| item.text().is_some_and(|text| !seen.insert(text)))?;
    let text = format!("{} holds '{}' twice", spoken(path), twice.key_text());
    Some(Finding::new(Severity::Error, text).at(twice.mark))
}

/// A path as findings name it: without the dot that the root leaves.
fn spoken(path: &str) -> String {
    match path.trim_start_matches('.') {
        "" => "the whole".to_owned(),
        path => format!("'{path}'"),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Int(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Text(_) => "a text",
        Value::Timestamp => "a date",
        Value::Binary => "binary data",
        Value::List(items) if items.is_empty() => "an empty list",
        Value::List(_) => "a list",
        Value::Map(entries) if entries.is_empty() => "an empty map",
        Value::Map(_) => "a map",
    }
}

fn fits_key(pattern: &str, name: &str) -> bool {
    match pattern {
        "*word" => !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
        "*hostkey" => name.split_once('_').is_some_and(|(kind, part)| {
            ["dsa", "ecdsa", "ed25519", "rsa"].contains(&kind)
                && ["public", "private", "certificate"].contains(&part)
        }),
        _ => !name.is_empty(),
    }
}

fn fits_pattern(name: &str, text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match name {
        // `[0-9]+.?[0-9]*` and a unit.
        "%size" => text
            .strip_suffix(['B', 'K', 'M', 'G', 'T'])
            .is_some_and(|number| match number.split_once('.') {
                Some((whole, part)) => (whole.is_empty() || digits(whole)) && digits(part),
                None => digits(number),
            }),
        "%tags" => text.split(',').all(|tag| {
            !tag.is_empty()
                && tag
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        }),
        "%delay" => digits(text.strip_prefix('+').unwrap_or(text)),
        "%pair" => text.lines().next().is_some_and(|line| {
            line.match_indices(':')
                .any(|(at, _)| at > 0 && at + 1 < line.len())
        }),
        "%date" => is_date(text),
        "%mac" => {
            let parts: Vec<&str> = text.split(':').collect();
            [6, 20].contains(&parts.len())
                && parts
                    .iter()
                    .all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
        }
        "%ip" => text.parse::<std::net::IpAddr>().is_ok(),
        "%address" => {
            let (address, prefix) = text.split_once('/').unwrap_or((text, "0"));
            address.parse::<std::net::IpAddr>().is_ok_and(|address| {
                let most = if address.is_ipv4() { 32 } else { 128 };
                prefix.parse::<u8>().is_ok_and(|prefix| prefix <= most)
                    || prefix.parse::<std::net::Ipv4Addr>().is_ok()
            })
        }
        _ => true,
    }
}

fn pattern_words(name: &str) -> &'static str {
    match name {
        "%size" => "a size such as 512M",
        "%tags" => "words with commas between them",
        "%delay" => "a number of minutes",
        "%pair" => "texts of the form name:password",
        "%date" => "a date such as \"2030-12-31\"",
        "%mac" => "a MAC address such as \"52:54:00:12:34:56\"",
        "%ip" => "an IP address",
        "%address" => "an IP address with its prefix, such as 192.0.2.10/24",
        _ => "a text of some form",
    }
}

/// `YYYY-MM-DD`, a day that there is.
fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts.as_slice() else {
        return false;
    };
    let number = |text: &str, length: usize| {
        (text.len() == length)
            .then(|| text.parse::<u32>().ok())
            .flatten()
    };
    let (Some(year), Some(month), Some(day)) = (number(year, 4), number(month, 2), number(day, 2))
    else {
        return false;
    };
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    };
    year > 0 && (1..=12).contains(&month) && (1..=days).contains(&day)
}

#[cfg(test)]
mod tests {
    use super::super::super::yaml::load;
    use super::*;

    fn findings(shapes: &str, text: &str) -> Vec<String> {
        let table = Table::read(shapes);
        let root = load(text).unwrap().root;
        let shape = table.shape("x").unwrap();
        let findings = Comparison::new(&table).compare(shape, &root, "x");
        findings
            .into_iter()
            .map(|finding| finding.message)
            .collect()
    }

    #[test]
    fn shapes_say_what_fits() {
        let shapes = "x: [[str]|str|@m]{1}\n@m: {a!: int>=0,\n  b: \"u\"|~bool, *: null}\n";
        assert!(findings(shapes, "[a, [b], {a: 1, b: u, c: }]").is_empty());
        assert_eq!(
            findings(shapes, "[]"),
            ["'x' takes a list with something in it, and this is an empty list"]
        );
        assert_eq!(
            findings(shapes, "[1]"),
            ["'x.0' takes a list, a text or a map, and this is a whole number"]
        );
        assert_eq!(findings(shapes, "[{b: u}]"), ["'x.0' lacks 'a'"]);
        assert_eq!(
            findings(shapes, "[{a: 1, b: true}]"),
            ["'x.0.b' is deprecated"]
        );
        assert_eq!(
            findings(shapes, "[{a: -1}]"),
            ["'x.0.a' takes a whole number from 0 on, and this is a whole number"]
        );
    }

    #[test]
    fn patterns_fit_what_they_name() {
        assert!(
            fits_pattern("%size", "1.5G")
                && fits_pattern("%size", "100M")
                && !fits_pattern("%size", "G")
        );
        assert!(is_date("2024-02-29") && !is_date("2023-02-29") && !is_date("2023-2-01"));
        assert!(
            fits_pattern("%address", "10.0.0.1/24") && !fits_pattern("%address", "10.0.0.1/33")
        );
        assert!(fits_pattern("%pair", "a:b") && !fits_pattern("%pair", "a:"));
    }
}
