//! YAML that every parser reads the same way, version 1.1 or 1.2.

use std::fmt::Write;

/// A value to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    Text(String),
    Bool(bool),
    List(Vec<Item>),
    Map(Vec<(&'static str, Item)>),
}

/// `entries` in block style, one key a line.
pub(super) fn document(entries: &[(&'static str, Item)]) -> String {
    let mut out = String::new();
    map(&mut out, entries, 0, false);
    out
}

fn map(out: &mut String, entries: &[(&'static str, Item)], indent: usize, first_in_line: bool) {
    for (at, (key, item)) in entries.iter().enumerate() {
        if at > 0 || !first_in_line {
            pad(out, indent);
        }
        out.push_str(key);
        out.push(':');
        value(out, item, indent);
    }
}

/// What stands behind a key or a dash, up to its line end.
fn value(out: &mut String, item: &Item, indent: usize) {
    match item {
        Item::Text(text) => {
            out.push(' ');
            scalar(out, text, indent + 2);
            out.push('\n');
        }
        Item::Bool(value) => out.push_str(if *value { " true\n" } else { " false\n" }),
        Item::List(items) if items.is_empty() => out.push_str(" []\n"),
        Item::Map(entries) if entries.is_empty() => out.push_str(" {}\n"),
        Item::List(items) => {
            out.push('\n');
            for item in items {
                pad(out, indent + 2);
                out.push('-');
                match item {
                    Item::Map(entries) if !entries.is_empty() => {
                        out.push(' ');
                        map(out, entries, indent + 4, true);
                    }
                    item => value(out, item, indent + 2),
                }
            }
        }
        Item::Map(entries) => {
            out.push('\n');
            map(out, entries, indent + 2, false);
        }
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Plain where no parser takes it for anything but text, a literal block for whole lines, else quoted as in JSON.
fn scalar(out: &mut String, text: &str, indent: usize) {
    if is_plain(text) {
        out.push_str(text);
    } else if is_block(text) {
        out.push('|');
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            out.push('\n');
            if !line.is_empty() {
                pad(out, indent);
                out.push_str(line);
            }
        }
    } else {
        quoted(out, text);
    }
}

fn is_plain(text: &str) -> bool {
    let of_word = |c: char| c.is_ascii_alphanumeric() || "_./@%+,=^-".contains(c);
    let starts = |c: char| c.is_ascii_alphabetic() || c == '/';
    text.starts_with(starts)
        && text.len() <= 80
        && text.split(' ').all(|word| !word.is_empty() && word.chars().all(of_word))
        && matches!(super::yaml::implicit(text), super::yaml::Value::Text(_))
        // Words of either version that are no text, and those that only some parsers take for none.
        && !matches!(text, "y" | "Y" | "n" | "N")
}

/// Lines that a literal block holds as they are, each with its end.
fn is_block(text: &str) -> bool {
    text.len() > 1
        && text.ends_with('\n')
        && !text.ends_with("\n\n")
        && !text.starts_with([' ', '\t', '\n'])
        && text
            .chars()
            .all(|c| c == '\n' || c == '\t' || (!c.is_control() && is_printable(c)))
}

/// `c-printable` of YAML, without what breaks lines in version 1.1.
fn is_printable(c: char) -> bool {
    !matches!(
        c,
        '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
    )
}

/// As in JSON, which both versions of YAML read.
fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || !is_printable(c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::super::yaml::load;
    use super::*;

    #[test]
    fn every_text_comes_back() {
        for text in [
            "plain",
            "two words",
            "",
            " lead",
            "trail ",
            "a: b",
            "- a",
            "#c",
            "yes",
            "No",
            "null",
            "~",
            "1",
            "0644",
            "1.5",
            "2020-01-01",
            "a\nb",
            "a\nb\n",
            "a\n\nb\n",
            "a\n\n",
            " a\nb\n",
            "tab\there\n",
            "quote\"\\",
            "ünïcode",
            "\u{7}",
            "\u{feff}x",
            "\u{2028}",
            "a\r\nb\r\n",
            "x #y",
            "x:",
            "{a}",
            "[a",
            "&a",
            "*a",
            "!a",
            "|",
            ">",
            "%a",
            "@a",
            "`a",
            "'a'",
            "on",
            "y",
            "=",
            "<<",
            "---",
            "...",
            "\n",
            "a\t\n",
            "52:54:00:12:34:56",
        ] {
            let text_item = || Item::Text(text.to_owned());
            let yaml = document(&[
                ("a", text_item()),
                (
                    "b",
                    Item::List(vec![
                        text_item(),
                        Item::Map(vec![("c", text_item()), ("d", Item::Bool(true))]),
                    ]),
                ),
            ]);
            let root = load(&yaml)
                .unwrap_or_else(|fault| panic!("{fault:?} in\n{yaml}"))
                .root;
            assert_eq!(
                root.field("a").and_then(|node| node.text()),
                Some(text),
                "{yaml}"
            );
            let list = root.field("b").unwrap().list();
            assert_eq!(list[0].text(), Some(text), "{yaml}");
            assert_eq!(
                list[1].field("c").and_then(|node| node.text()),
                Some(text),
                "{yaml}"
            );
        }
    }

    #[test]
    fn it_looks_as_people_write_it() {
        let yaml = document(&[
            (
                "packages",
                Item::List(vec![Item::Text("git".into()), Item::Text("on".into())]),
            ),
            (
                "users",
                Item::List(vec![Item::Map(vec![
                    ("name", Item::Text("me".into())),
                    ("x", Item::Bool(false)),
                ])]),
            ),
        ]);
        assert_eq!(
            yaml,
            "packages:\n  - git\n  - \"on\"\nusers:\n  - name: me\n    x: false\n"
        );
    }
}
