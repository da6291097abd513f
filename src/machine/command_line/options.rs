//! QEMU's `key=value,key=value` lists: a comma in a value is doubled.
//!
//! Knows that form alone. Must not know what any key means.

use std::path::Path;

use crate::error::{Error, Result};

/// A list as written: a part without `=` has no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options(Vec<(Option<String>, String)>);

impl Options {
    /// Takes any text apart; it always has a meaning.
    pub fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut part = (None, String::new());
        // As in QEMU, a key holds no comma: behind a doubled one `=` is a letter of the value.
        let mut in_key = true;
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                ',' if letters.next_if_eq(&',').is_some() => {
                    part.1.push(',');
                    in_key = false;
                }
                ',' => {
                    parts.push(std::mem::take(&mut part));
                    in_key = true;
                }
                '=' if in_key => {
                    part.0 = Some(std::mem::take(&mut part.1));
                    in_key = false;
                }
                letter => part.1.push(letter),
            }
        }
        parts.push(part);
        Self(parts)
    }

    /// All keys and values.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .flat_map(|part| [part.0.as_deref(), Some(part.1.as_str())])
            .flatten()
    }

    /// The last value of `key`.
    pub fn value(&self, key: &str) -> Option<&str> {
        let of = |(name, _): &&(Option<String>, String)| name.as_deref() == Some(key);
        let found = self.0.iter().rev().find(of);
        found.map(|(_, value)| value.as_str())
    }

    /// All values of `key`.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let of = move |(name, value): &'a (Option<String>, String)| {
            (name.as_deref() == Some(key)).then_some(value.as_str())
        };
        self.0.iter().filter_map(of)
    }

    /// The part without a key that comes first: what kind of thing it is.
    pub fn kind(&self) -> Option<&str> {
        let (key, value) = self.0.first()?;
        key.is_none().then_some(value.as_str())
    }

    /// Whether `key` is on: `key=on`, or `key` alone.
    pub fn is_on(&self, key: &str) -> bool {
        let alone = self
            .0
            .iter()
            .any(|(name, word)| name.is_none() && word == key);
        alone || matches!(self.value(key), Some("on" | "yes" | "true"))
    }

    /// Gives `key` the one value `value`, where its first stood or else at the end.
    pub fn set(&mut self, key: &str, value: &str) {
        let at = self
            .0
            .iter()
            .position(|(name, _)| name.as_deref() == Some(key));
        self.0.retain(|(name, _)| name.as_deref() != Some(key));
        let at = at.unwrap_or(self.0.len());
        self.0.insert(at, (Some(key.to_owned()), value.to_owned()));
    }

    /// Leaves out all that has none of these keys.
    pub fn keep_only(&mut self, keys: &[&str]) {
        self.0
            .retain(|(name, _)| name.as_deref().is_some_and(|name| keys.contains(&name)));
    }

    /// Puts another kind first.
    pub fn set_kind(&mut self, kind: &str) {
        if let Some((None, first)) = self.0.first_mut() {
            kind.clone_into(first);
        }
    }
}

impl std::fmt::Display for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, (key, value)) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str(",")?;
            }
            if let Some(key) = key {
                write!(f, "{key}=")?;
            }
            f.write_str(&escaped(value))?;
        }
        Ok(())
    }
}

/// `value` with its commas doubled.
pub(super) fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

/// `path` as a value.
///
/// # Errors
///
/// When it is no Unicode.
pub(in crate::machine) fn path_value(path: &Path) -> Result<String> {
    path_text(path).map(escaped)
}

/// `path` as a whole argument.
pub(super) fn path_text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::unsupported("a name that is no Unicode cannot be given to QEMU")
            .at_path(path)
            .with_remedy("rename it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_out_as_they_went_in() {
        for text in [
            "",
            "a",
            "a,b=c",
            "file=/a,,b,if=virtio",
            "a=b=c",
            "user,id=x,hostfwd=tcp::1-:2",
            ",",
            "=,=",
            "a,,b=c",
            "a=b,c,,d=e",
            ",,=",
        ] {
            assert_eq!(Options::parse(text).to_string(), text);
        }
        let mut options = Options::parse("file=a,,b,format=raw,file=c");
        assert_eq!(options.value("file"), Some("c"));
        options.set("file", "x,y");
        options.set("id", "1");
        assert_eq!(options.to_string(), "file=x,,y,format=raw,id=1");
        assert!(Options::parse("if=pflash,readonly").is_on("readonly"));
        assert!(!Options::parse("if=pflash,readonly=off").is_on("readonly"));
    }

    #[test]
    fn a_doubled_comma_before_an_equals_sign_stays_doubled() {
        // A first part of QEMU's that has no key, such as the name in `-fw_cfg`.
        let mut options = Options::parse("opt/a,,b=c,file=/x");
        assert_eq!(options.kind(), Some("opt/a,b=c"));
        assert_eq!(options.value("file"), Some("/x"));
        options.set("file", "/y");
        assert_eq!(options.to_string(), "opt/a,,b=c,file=/y");
    }
}
