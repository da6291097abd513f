//! Patterns of lines: `foo`, `!foo`, `\!foo`, `/re/`, `!/re/`.

use regex::{Regex, RegexBuilder};

/// Bytes that a compiled expression may take.
const LARGEST: usize = 4 << 20;

/// One pattern.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    /// As it was written.
    pub(super) written: String,
    /// No line may match.
    pub(super) inverse: bool,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Part(String),
    Expression(Regex),
}

impl Pattern {
    /// Reads one.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (inverse, rest) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let inner = rest
            .strip_prefix('/')
            .and_then(|rest| rest.strip_suffix('/'));
        let what = match inner {
            Some(inner) => What::Expression(expression(inner)?),
            // A backslash keeps what follows from being a sign.
            None => What::Part(rest.strip_prefix('\\').unwrap_or(rest).to_owned()),
        };
        if matches!(&what, What::Part(part) if part.is_empty()) {
            return Err("an empty pattern is found in anything: it asserts nothing".to_owned());
        }
        Ok(Self {
            written: text.to_owned(),
            inverse,
            what,
        })
    }

    /// Whether `text` has a line in which it is, or none where it is inverse.
    pub(super) fn holds(&self, text: &str) -> bool {
        let found = text.split('\n').any(|line| {
            let line = line.strip_suffix('\r').unwrap_or(line);
            match &self.what {
                What::Part(part) => line.contains(part.as_str()),
                What::Expression(expression) => expression.is_match(line),
            }
        });
        found != self.inverse
    }
}

/// A regular expression as Go has them.
pub(super) fn expression(text: &str) -> Result<Regex, String> {
    // The end of the text is `\z` in both; Go's `\C` and octal escapes are not there.
    RegexBuilder::new(text)
        .size_limit(LARGEST)
        .build()
        .map_err(|error| {
            let words = error.to_string();
            let last = words.lines().last().unwrap_or_default();
            let last = last.strip_prefix("error: ").unwrap_or(last);
            format!("'{text}' is no regular expression: {last}")
        })
}
