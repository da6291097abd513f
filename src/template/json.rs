//! JSON, strictly, in which everything knows its place.
//!
//! Knows that a key stands once in an object: what Packer takes the second time for would be lost silently. Nesting is
//! bounded.

use super::document::{Entry, Kind, Node, Source};
use crate::error::{Error, Result};

/// Levels at most.
const DEEPEST: usize = 64;

/// Reads the text of `source`.
///
/// # Errors
/// It is no JSON, or a key stands twice in an object.
pub(super) fn parse(source: &Source) -> Result<Node> {
    let mut parser = Parser {
        source,
        text: source.text(),
        at: 0,
        depth: 0,
    };
    parser.space();
    let node = parser.value()?;
    parser.space();
    if parser.at < parser.text.len() {
        return Err(parser.wrong("something stands behind the end"));
    }
    Ok(node)
}

struct Parser<'a> {
    source: &'a Source,
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }

    fn wrong(&self, message: &str) -> Error {
        let found = match self.rest().chars().next() {
            None => "the end of the file".to_owned(),
            Some(c) => format!("'{}'", c.escape_default()),
        };
        let error = self.source.error(self.at, format!("{message}: {found}"));
        let comment = self.rest().starts_with("//") || self.rest().starts_with("/*");
        let hash = self.rest().starts_with('#');
        if comment || hash {
            return error
                .with_remedy("JSON has no comments; a key at the top that starts with _ is one");
        }
        error
            .with_remedy("templates are strict JSON: keys in double quotes, no comma before } or ]")
    }

    fn value(&mut self) -> Result<Node> {
        let at = self.at;
        let kind = match self.peek() {
            Some(b'{') => self.object()?,
            Some(b'[') => self.list()?,
            Some(b'"') => Kind::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => {
                let words = [
                    ("true", Kind::Bool(true)),
                    ("false", Kind::Bool(false)),
                    ("null", Kind::Null),
                ];
                let found = words
                    .into_iter()
                    .find(|(word, _)| self.rest().starts_with(word));
                let Some((word, kind)) = found else {
                    return Err(self.wrong("expected a value"));
                };
                self.at += word.len();
                kind
            }
        };
        Ok(Node { at, kind })
    }

    fn deeper(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEEPEST {
            let text = format!("more than {DEEPEST} levels within one another");
            return Err(self.source.error(self.at, text));
        }
        Ok(())
    }

    fn object(&mut self) -> Result<Kind> {
        self.deeper()?;
        self.at += 1;
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = std::collections::HashMap::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            self.depth -= 1;
            return Ok(Kind::Table(entries));
        }
        loop {
            self.space();
            let at = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.wrong("expected a key in double quotes"));
            }
            let key = self.string()?;
            if let Some(first) = seen.insert(key.clone(), at) {
                let line = self.source.place(first).line;
                let text =
                    format!("the key '{key}' stands here again: the first is on line {line}");
                return Err(self.source.error(at, text).with_remedy("keep one of them"));
            }
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.wrong("expected ':' behind a key"));
            }
            self.at += 1;
            self.space();
            let node = self.value()?;
            let shown = None;
            entries.push(Entry {
                at,
                key,
                shown,
                node,
            });
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.wrong("expected ',' or '}' in an object")),
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(Kind::Table(entries))
    }

    fn list(&mut self) -> Result<Kind> {
        self.deeper()?;
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            self.depth -= 1;
            return Ok(Kind::List(items));
        }
        loop {
            self.space();
            items.push(self.value()?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.wrong("expected ',' or ']' in a list")),
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(Kind::List(items))
    }

    fn number(&mut self) -> Result<Kind> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c))
            .unwrap_or(rest.len());
        let text = &rest[..end];
        let digits = text.strip_prefix('-').unwrap_or(text);
        let leading_zero =
            digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
        let bare = digits.starts_with('.')
            || text.ends_with('.')
            || text.contains(".e")
            || text.contains(".E");
        let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
        let Some(value) = value.filter(|_| !leading_zero && !bare) else {
            return Err(self.wrong("expected a number"));
        };
        self.at += end;
        Ok(match text.parse::<i64>() {
            Ok(number) => Kind::Int(number),
            Err(_) => Kind::Float(value),
        })
    }

    fn string(&mut self) -> Result<String> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            let Some(c) = self.rest().chars().next() else {
                return Err(self.source.error(start, "a string that never ends"));
            };
            match c {
                '"' => {
                    self.at += 1;
                    return Ok(text);
                }
                '\\' => text.push(self.escape()?),
                c if c < ' ' => {
                    let error = self.wrong("a control character in a string");
                    return Err(error.with_remedy("write a line break as \\n, a tab as \\t"));
                }
                c => {
                    self.at += c.len_utf8();
                    text.push(c);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        let rest = self.rest();
        let plain = match rest.as_bytes().get(1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => {
                let error = self.wrong("an unknown escape in a string");
                return Err(error.with_remedy("write a backslash as \\\\"));
            }
        };
        self.at += 2;
        Ok(plain)
    }

    /// `\u` and four digits, and a second such where the first is half a character.
    fn unicode(&mut self) -> Result<char> {
        let half = |rest: &str| {
            let digits = rest.strip_prefix("\\u")?.get(..4)?;
            let all = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            all.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
        };
        let Some(first) = half(self.rest()) else {
            return Err(self.wrong("expected four hexadecimal digits behind \\u"));
        };
        self.at += 6;
        if (0xd800..0xdc00).contains(&first)
            && let Some(second) = half(self.rest()).filter(|value| (0xdc00..0xe000).contains(value))
        {
            self.at += 6;
            let value = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            return Ok(char::from_u32(value).unwrap_or('\u{fffd}'));
        }
        Ok(char::from_u32(first).unwrap_or('\u{fffd}'))
    }
}
