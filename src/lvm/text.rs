//! The text that metadata is written in: sections, numbers, strings and lists of those.
//!
//! Source: lvm.conf(5), "SYNTAX", and LVM2's `libdm/libdm-config.c`. What LVM never writes into metadata
//! (real numbers, paths of keys, strings without quotes) is an error here.

use std::borrow::Cow;
use std::collections::HashSet;

/// Sections within sections: a volume group has three levels.
const MOST_DEPTH: usize = 8;

/// What a name in a section stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Section(Section<'a>),
    Value(Value<'a>),
}

/// What a name is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
}

/// Names and what they stand for, in the order of the text; no name occurs twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Section<'a> {
    pub(super) items: Vec<(&'a str, Item<'a>)>,
}

impl<'a> Section<'a> {
    /// Parses all of `text`; `None` when it is none.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let mut parser = Parser { rest: text };
        let section = parser.section(0)?;
        parser.rest.is_empty().then_some(section)
    }

    fn item(&self, name: &str) -> Option<&Item<'a>> {
        let found = self.items.iter().find(|(other, _)| *other == name);
        found.map(|(_, item)| item)
    }

    pub(super) fn section(&self, name: &str) -> Option<&Self> {
        match self.item(name)? {
            Item::Section(section) => Some(section),
            Item::Value(_) => None,
        }
    }

    pub(super) fn sections(&self) -> impl Iterator<Item = (&'a str, &Self)> {
        self.items.iter().filter_map(|(name, item)| match item {
            Item::Section(section) => Some((*name, section)),
            Item::Value(_) => None,
        })
    }

    pub(super) fn values(&self) -> impl Iterator<Item = (&'a str, &Value<'a>)> {
        self.items.iter().filter_map(|(name, item)| match item {
            Item::Value(value) => Some((*name, value)),
            Item::Section(_) => None,
        })
    }

    fn value(&self, name: &str) -> Option<&Value<'a>> {
        match self.item(name)? {
            Item::Value(value) => Some(value),
            Item::Section(_) => None,
        }
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.value(name)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.value(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The list called `name`; a single value is one, too.
    pub(super) fn list(&self, name: &str) -> Option<&[Value<'a>]> {
        Some(match self.value(name)? {
            Value::List(list) => list,
            single => std::slice::from_ref(single),
        })
    }

    /// The words in the list called `name`, none when there is no such list; `None` when there is anything else in it.
    pub(super) fn words(&self, name: &str) -> Option<Vec<&str>> {
        if self.item(name).is_none() {
            return Some(Vec::new());
        }
        self.list(name)?
            .iter()
            .map(|value| match value {
                Value::Text(text) => Some(&**text),
                _ => None,
            })
            .collect()
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// Up to the brace that ends it, or to the end of the text.
    fn section(&mut self, depth: usize) -> Option<Section<'a>> {
        let mut section = Section::default();
        loop {
            self.skip();
            if self.rest.is_empty() {
                if depth > 0 {
                    return None;
                }
                break;
            }
            if depth > 0 && self.eat('}') {
                break;
            }
            let name = self.name()?;
            self.skip();
            let item = if self.eat('{') {
                if depth >= MOST_DEPTH {
                    return None;
                }
                Item::Section(self.section(depth + 1)?)
            } else if self.eat('=') {
                Item::Value(self.value()?)
            } else {
                return None;
            };
            section.items.push((name, item));
        }
        let mut seen = HashSet::new();
        let unique = section.items.iter().all(|(name, _)| seen.insert(*name));
        unique.then_some(section)
    }

    /// Of the characters that LVM allows in names of groups and volumes.
    fn name(&mut self) -> Option<&'a str> {
        let length = self
            .rest
            .bytes()
            .take_while(|byte| byte.is_ascii_alphanumeric() || b"_.+-".contains(byte))
            .count();
        let (name, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        (!name.is_empty()).then_some(name)
    }

    fn value(&mut self) -> Option<Value<'a>> {
        self.skip();
        if !self.eat('[') {
            return self.single();
        }
        let mut list = Vec::new();
        loop {
            self.skip();
            if self.eat(']') {
                return Some(Value::List(list));
            }
            if !list.is_empty() {
                if !self.eat(',') {
                    return None;
                }
                self.skip();
                if self.eat(']') {
                    return Some(Value::List(list));
                }
            }
            list.push(self.single()?);
        }
    }

    fn single(&mut self) -> Option<Value<'a>> {
        if self.eat('"') {
            return self.quoted().map(Value::Text);
        }
        let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.rest.split_at_checked(digits)?;
        let ends = rest
            .chars()
            .next()
            .is_none_or(|c| c.is_ascii_whitespace() || "],}#".contains(c));
        self.rest = rest;
        ends.then(|| digits.parse().ok().map(Value::Number))?
    }

    /// Up to the quote that ends it; a backslash takes the next character as it is.
    fn quoted(&mut self) -> Option<Cow<'a, str>> {
        let mut escapes = false;
        let mut skip = false;
        let end = self.rest.bytes().position(|byte| {
            if skip {
                skip = false;
                return false;
            }
            skip = byte == b'\\';
            escapes |= skip;
            byte == b'"'
        })?;
        let text = self.rest.get(..end)?;
        self.rest = self.rest.get(end + 1..)?;
        if !escapes {
            return Some(Cow::Borrowed(text));
        }
        let mut plain = String::with_capacity(text.len());
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            plain.push(if c == '\\' { characters.next()? } else { c });
        }
        Some(Cow::Owned(plain))
    }

    fn eat(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Passes over space and comments.
    fn skip(&mut self) {
        loop {
            self.rest = self
                .rest
                .trim_start_matches(|c: char| c.is_ascii_whitespace());
            if !self.eat('#') {
                return;
            }
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.rest = self.rest.get(end..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_sections() {
        let text =
            "# first\na = 1\tb{c=\"x\\\"y\\\\\" # then\n d = [ \"e\", 2,\n]f{}}\nb.c-1+_ = []";
        let section = Section::parse(text).unwrap();
        assert_eq!(section.number("a"), Some(1));
        let b = section.section("b").unwrap();
        assert_eq!(b.text("c"), Some("x\"y\\"));
        assert_eq!(
            b.list("d"),
            Some(&[Value::Text("e".into()), Value::Number(2)][..])
        );
        assert_eq!(b.section("f"), Some(&Section::default()));
        assert_eq!(section.words("b.c-1+_"), Some(vec![]));
        assert_eq!((b.words("d"), b.words("none")), (None, Some(vec![])));
        let names: Vec<_> = section.items.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["a", "b", "b.c-1+_"]);
    }

    #[test]
    fn what_is_no_text_is_told() {
        for text in [
            "a",
            "a =",
            "a = b",
            "a = 1x",
            "a = -1",
            "a = 1.5",
            "a {",
            "}",
            "a = \"",
            "a = \"\\\"",
            "a = [1 2]",
            "a = [1",
            "a = [[1]]",
            "a = 1 a = 2",
            "a = 1 a {}",
            "a = 18446744073709551616",
            "= 1",
            "a = [,]",
            "a/b = 1",
        ] {
            assert_eq!(Section::parse(text), None, "{text}");
        }
        let deep = format!("{}{}", "a{".repeat(100_000), "}".repeat(100_000));
        assert_eq!(Section::parse(&deep), None);
    }
}
