//! YAML as cloud-init's parser understands it: values with the place where each stands.
//!
//! Knows events, anchors and which plain words are no strings: those of YAML 1.1, as PyYAML resolves them. Takes hostile
//! text: depth and size are bounded, aliases are shared, never copied. Must not know what the values are for.

mod scalar;

pub(crate) use scalar::implicit;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

/// Lists and maps within each other at most.
const MAX_DEPTH: usize = 100;
/// Values at most, those brought in by merge keys included.
const MAX_NODES: usize = 1 << 18;

/// A place in a text; both numbers begin with 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl From<Span> for Mark {
    fn from(span: Span) -> Self {
        Self {
            line: span.start.line().max(1),
            column: span.start.col().saturating_add(1),
        }
    }
}

/// A value and where it begins.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) mark: Mark,
    pub(crate) value: Value,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// `None` beyond 64 bits.
    Int(Option<i64>),
    Float(f64),
    Text(String),
    /// A date: neither text nor number to cloud-init.
    Timestamp,
    Binary,
    List(Vec<Rc<Node>>),
    Map(Vec<(Rc<Node>, Rc<Node>)>),
}

impl PartialEq for Node {
    /// By value alone.
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Node {
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn list(&self) -> &[Rc<Node>] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn map(&self) -> Option<&[(Rc<Node>, Rc<Node>)]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a key that is text; the last one where it is there twice.
    pub(crate) fn field(&self, name: &str) -> Option<&Rc<Node>> {
        let found = self
            .map()?
            .iter()
            .rev()
            .find(|(key, _)| key.text() == Some(name));
        found.map(|(_, value)| value)
    }

    /// A key in words.
    pub(crate) fn key_text(&self) -> String {
        match &self.value {
            Value::Text(text) => text.clone(),
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Int(Some(value)) => value.to_string(),
            Value::Float(value) => value.to_string(),
            _ => "?".to_owned(),
        }
    }
}

/// What is wrong with a text as YAML.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) mark: Mark,
    pub(crate) message: String,
}

impl Fault {
    /// Whether it lies in the bounds here rather than in the text.
    pub(crate) fn is_limit(&self) -> bool {
        [TOO_DEEP, TOO_MANY, "recursion limit exceeded"].contains(&self.message.as_str())
            || self.message.starts_with(IN_FLOW)
    }
}

/// What the bounds here are exceeded by.
const TOO_DEEP: &str = "lists and maps are nested too deep";
const TOO_MANY: &str = "more values than are checked";

/// A key that a map has more than once: the last value counts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Duplicate {
    pub(crate) mark: Mark,
    pub(crate) first: Mark,
    pub(crate) key: String,
}

/// What a text holds.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) root: Rc<Node>,
    pub(crate) duplicates: Vec<Duplicate>,
}

/// The one document of `text`, as cloud-init reads it.
pub(crate) fn load(text: &str) -> Result<Document, Fault> {
    load_as(text, Schema::Version11)
}

/// Which plain words are no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Schema {
    /// Those of YAML 1.1, as PyYAML resolves them.
    #[default]
    Version11,
    /// Those of YAML 1.2: `yes` and `10:30` are text.
    #[cfg(feature = "build")]
    Core,
}

/// The one document of `text`.
pub(crate) fn load_as(text: &str, schema: Schema) -> Result<Document, Fault> {
    refuse_controls(text)?;
    let parse = |text: &str| parse(text, schema);
    let first = match parse(text) {
        Err(fault) if fault.message.starts_with(IN_FLOW) && text.len() <= MAX_RELAID => fault,
        result => return result,
    };
    // The parser asks for an indent inside of brackets, which version 1.1 does not: such lines get one, and what is found
    // in them is told where it was.
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut indented = BTreeSet::new();
    let mut fault = first;
    let before = |mark: Mark, indented: &BTreeSet<usize>| {
        let shift = if indented.contains(&mark.line) {
            INDENT.len()
        } else {
            0
        };
        Mark {
            column: mark.column.saturating_sub(shift).max(1),
            ..mark
        }
    };
    for _ in 0..MAX_INDENTED {
        let line = fault.mark.line;
        match lines.get_mut(line.saturating_sub(1)) {
            Some(line_text) if fault.message.starts_with(IN_FLOW) && indented.insert(line) => {
                line_text.insert_str(0, INDENT);
            }
            _ => break,
        }
        match parse(&lines.join("\n")) {
            Ok(document) => return Ok(document),
            Err(next) => fault = next,
        }
    }
    fault.mark = before(fault.mark, &indented);
    Err(fault)
}

/// How the parser begins what it says of a line in brackets that is indented less than what the brackets belong to.
const IN_FLOW: &str = "invalid indentation";
/// More than anything around it.
const INDENT: &str = "                                                                ";
/// Lines that are indented so at most, and bytes of a text that is: each of them is a pass over all of it.
const MAX_INDENTED: usize = 32;
const MAX_RELAID: usize = 256 << 10;

/// `c-printable` of YAML 1.1: no others may stand in a text.
fn refuse_controls(text: &str) -> Result<(), Fault> {
    let odd = |c: char| !matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..);
    let Some(at) = text.find(odd) else {
        return Ok(());
    };
    let before = text.get(..at).unwrap_or_default();
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    fault(Mark { line, column }, "a character that cannot be printed")
}

fn parse(text: &str, schema: Schema) -> Result<Document, Fault> {
    let mut loader = Loader {
        schema,
        ..Loader::default()
    };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Fault {
            mark: Mark {
                line: error.marker().line().max(1),
                column: error.marker().col().saturating_add(1),
            },
            message: error.info().to_owned(),
        })?;
        loader.event(event, span)?;
    }
    let nothing = || {
        Rc::new(Node {
            mark: Mark { line: 1, column: 1 },
            value: Value::Null,
        })
    };
    Ok(Document {
        root: loader.root.unwrap_or_else(nothing),
        duplicates: loader.duplicates,
    })
}

/// A list or map whose end has not come.
struct Open {
    mark: Mark,
    anchor: usize,
    contents: Contents,
}

enum Contents {
    List(Vec<Rc<Node>>),
    Map(Map),
}

#[derive(Default)]
struct Map {
    entries: Vec<(Rc<Node>, Rc<Node>)>,
    /// What `<<` brings, in order.
    merged: Vec<(Rc<Node>, Rc<Node>)>,
    keys: BTreeMap<String, Mark>,
    /// A key without its value, and whether it is the merge key.
    key: Option<(Rc<Node>, bool)>,
}

#[derive(Default)]
struct Loader {
    schema: Schema,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    documents: usize,
    nodes: usize,
    duplicates: Vec<Duplicate>,
}

impl Loader {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let mark = Mark::from(span);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return fault(
                        mark,
                        "a second document begins here: one is all that is read",
                    );
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let merge = plain && tag.is_none() && text == "<<";
                // Both are types of their own in version 1.1, and PyYAML cannot make values of them.
                if self.schema == Schema::Version11
                    && plain
                    && tag.is_none()
                    && (text == "<<" || text == "=")
                    && !self.expects_key()
                {
                    return fault(mark, "this is no text: quote it");
                }
                let value = match self.schema {
                    #[cfg(feature = "build")]
                    Schema::Core if plain && tag.is_none() => scalar::core(&text),
                    _ => scalar::resolve(&text, plain, tag.as_deref())
                        .map_err(|message| Fault { mark, message })?,
                };
                self.complete(Node { mark, value }, anchor, merge)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(
                    mark,
                    anchor,
                    tag.as_deref(),
                    "seq",
                    Contents::List(Vec::new()),
                )?;
            }
            Event::MappingStart(anchor, tag) => {
                self.begin(
                    mark,
                    anchor,
                    tag.as_deref(),
                    "map",
                    Contents::Map(Map::default()),
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return fault(mark, "an end without its start");
                };
                let value = match open.contents {
                    Contents::List(items) => Value::List(items),
                    Contents::Map(map) => Value::Map(map.entries_with_merged()),
                };
                let node = Node {
                    mark: open.mark,
                    value,
                };
                self.complete(node, open.anchor, false)?;
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).map(Rc::clone) else {
                    return fault(mark, "an alias of what contains it");
                };
                self.attach(node, mark, false)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    /// Whether the next value is the key of a map.
    fn expects_key(&self) -> bool {
        let open = self.open.last().map(|open| &open.contents);
        matches!(open, Some(Contents::Map(map)) if map.key.is_none())
    }

    fn begin(
        &mut self,
        mark: Mark,
        anchor: usize,
        tag: Option<&Tag>,
        kind: &str,
        contents: Contents,
    ) -> Result<(), Fault> {
        if self.open.len() >= MAX_DEPTH {
            return fault(mark, TOO_DEEP);
        }
        // Sets, ordered maps and pairs are loaded too, but no key of cloud-init takes one.
        let known = tag.is_none_or(|tag| {
            (tag.is_yaml_core_schema()
                && [kind, "set", "omap", "pairs"].contains(&tag.suffix.as_str()))
                || (tag.handle.is_empty() && tag.suffix == "!")
        });
        if !known {
            return fault(mark, "a tag that cloud-init does not load");
        }
        self.open.push(Open {
            mark,
            anchor,
            contents,
        });
        Ok(())
    }

    fn complete(&mut self, node: Node, anchor: usize, merge: bool) -> Result<(), Fault> {
        let mark = node.mark;
        let node = Rc::new(node);
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.attach(node, mark, merge)
    }

    fn attach(&mut self, node: Rc<Node>, mark: Mark, merge: bool) -> Result<(), Fault> {
        self.count(1, mark)?;
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.contents {
            Contents::List(items) => items.push(node),
            Contents::Map(map) => match map.key.take() {
                None => {
                    if matches!(node.value, Value::List(_) | Value::Map(_)) {
                        return fault(mark, "a list or map as a key");
                    }
                    if !merge {
                        // The words of a key are what tells it apart: 1 and "1" are two keys.
                        let name = format!("{}{}", kind_letter(&node.value), node.key_text());
                        if let Some(&first) = map.keys.get(&name) {
                            let key = node.key_text();
                            self.duplicates.push(Duplicate { mark, first, key });
                        } else {
                            map.keys.insert(name, mark);
                        }
                    }
                    map.key = Some((node, merge));
                }
                Some((key, false)) => map.entries.push((key, node)),
                Some((_, true)) => {
                    let brought = map.merge(&node, mark)?;
                    self.count(brought, mark)?;
                }
            },
        }
        Ok(())
    }

    fn count(&mut self, more: usize, mark: Mark) -> Result<(), Fault> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > MAX_NODES {
            return fault(mark, TOO_MANY);
        }
        Ok(())
    }
}

impl Map {
    /// Takes the entries of a map, or of a list of maps; how many.
    fn merge(&mut self, node: &Node, mark: Mark) -> Result<usize, Fault> {
        let mut brought = 0;
        let maps: Vec<&Node> = match &node.value {
            Value::Map(_) => vec![node],
            Value::List(items) => items.iter().map(|item| &**item).collect(),
            _ => return fault(mark, "'<<' takes a map, or a list of maps"),
        };
        for map in maps {
            let Some(entries) = map.map() else {
                return fault(mark, "'<<' takes a map, or a list of maps");
            };
            brought += entries.len();
            if brought > MAX_NODES {
                return fault(mark, TOO_MANY);
            }
            self.merged.extend(entries.iter().cloned());
        }
        Ok(brought)
    }

    fn entries_with_merged(self) -> Vec<(Rc<Node>, Rc<Node>)> {
        let mut entries = self.entries;
        if self.merged.is_empty() {
            return entries;
        }
        let mut taken: BTreeSet<String> = entries.iter().map(|(key, _)| key.key_text()).collect();
        for (key, value) in self.merged {
            if taken.insert(key.key_text()) {
                entries.push((key, value));
            }
        }
        entries
    }
}

fn kind_letter(value: &Value) -> char {
    match value {
        Value::Text(_) => 't',
        _ => 'o',
    }
}

fn fault<T>(mark: Mark, message: &str) -> Result<T, Fault> {
    Err(Fault {
        mark,
        message: message.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(text: &str) -> Rc<Node> {
        load(text).unwrap().root
    }

    #[test]
    fn values_know_their_places() {
        let root = root("a: 1\nb:\n  - x\n  - {c: yes}\n");
        let b = root.field("b").unwrap();
        assert_eq!(b.mark, Mark { line: 3, column: 3 });
        let c = b.list().last().unwrap().field("c").unwrap();
        assert_eq!(
            (c.mark, &c.value),
            (Mark { line: 4, column: 9 }, &Value::Bool(true))
        );
    }

    #[test]
    fn a_key_that_is_there_twice_is_told_and_the_last_value_counts() {
        let document = load("a: 1\nb: 2\na: 3\n").unwrap();
        assert_eq!(document.root.field("a").unwrap().value, Value::Int(Some(3)));
        let [duplicate] = document.duplicates.as_slice() else {
            panic!()
        };
        assert_eq!(
            (
                duplicate.first.line,
                duplicate.mark.line,
                duplicate.key.as_str()
            ),
            (1, 3, "a")
        );
    }

    #[test]
    fn aliases_and_merge_keys_are_followed() {
        let root = root("base: &b {x: 1, y: 2}\nown:\n  <<: *b\n  y: 3\nsame: *b\n");
        let own = root.field("own").unwrap();
        assert_eq!(own.field("x").unwrap().value, Value::Int(Some(1)));
        assert_eq!(own.field("y").unwrap().value, Value::Int(Some(3)));
        assert_eq!(root.field("same"), root.field("base"));
    }

    #[test]
    fn faults_name_line_and_column() {
        let fault = load("a: 1\nb: [1\nc: 2\n").unwrap_err();
        assert!(fault.mark.line >= 2, "{fault:?}");
        for text in [
            "a: [1, 2\n",
            "a: *b\n",
            "- x\nb: 1\n",
            "a: 1\n---\nb: 2\n",
            "? [1]\n: 2\n",
            "a: !foo 1\n",
        ] {
            load(text).unwrap_err();
        }
    }

    #[test]
    fn bombs_do_not_go_off() {
        assert!(load(&"[".repeat(10_000)).is_err());
        let mut text = "a0: &a0 [x, x]\n".to_owned();
        for level in 1..60 {
            let below = level - 1;
            text += &format!("a{level}: &a{level} [*a{below}, *a{below}]\n");
        }
        load(&text).unwrap();
        let mut text = "a0: &a0 {x: 1}\n".to_owned();
        for level in 1..60 {
            let below = level - 1;
            text += &format!("a{level}: &a{level} {{<<: [*a{below}, *a{below}], k{level}: 1}}\n");
        }
        load(&text).unwrap();
    }
}
