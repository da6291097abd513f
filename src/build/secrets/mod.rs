//! Values that no output may show, in all the forms that programs print them in.
//!
//! Knows how texts are searched, also in pieces. Must not know where values or texts come from.

mod forms;

use std::borrow::Cow;
use std::fmt;

use aho_corasick::{AhoCorasick, MatchKind};

use crate::error::{Error, Result};

/// What stands in the place of a value.
pub const MASK: &str = "<sensitive>";

/// Values of fewer bytes are too ordinary to be looked for inside of words: they are masked where they stand alone.
const SHORTEST: usize = 4;

/// Finds the given values in texts: as they are, and quoted, escaped or encoded.
///
/// ```
/// use qimg::build::secrets::Masks;
///
/// let masks = Masks::new(["it's me"])?;
/// assert_eq!(masks.mask("password=it%27s+me; echo aXQncyBtZQ=="), "password=<sensitive>; echo <sensitive>");
/// # Ok::<(), qimg::Error>(())
/// ```
pub struct Masks {
    finder: Option<AhoCorasick>,
    /// The patterns of `finder`, for texts that end within one.
    patterns: Vec<Box<[u8]>>,
    /// Values that are masked only where they stand alone.
    short: Vec<String>,
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masks")
            .field("patterns", &self.patterns.len())
            .finish_non_exhaustive()
    }
}

impl Masks {
    /// Masks for `values`; empty ones count for nothing.
    ///
    /// Each line of a value of several lines is masked, too. What has fewer than 4 bytes is masked only where it stands
    /// alone, between signs that are neither letters nor digits.
    ///
    /// # Errors
    /// The values are too long to be searched for.
    pub fn new<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> Result<Self> {
        let mut patterns = std::collections::BTreeSet::new();
        let mut short = std::collections::BTreeSet::new();
        for value in values {
            let value = value.as_ref();
            for value in [value, value.trim_end_matches(['\n', '\r'])] {
                match value.len() {
                    0 => {}
                    length if length < SHORTEST => drop(short.insert(value.to_owned())),
                    _ => forms::add(value, &mut patterns),
                }
            }
        }
        let patterns: Vec<Box<[u8]>> = patterns
            .into_iter()
            .map(|pattern| pattern.into_bytes().into_boxed_slice())
            .collect();
        let mut masks = Self {
            finder: None,
            patterns,
            short: short.into_iter().rev().collect(),
        };
        if !masks.patterns.is_empty() {
            let finder = AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .build(&masks.patterns)
                // The reason would name sizes only; nothing of it helps.
                .map_err(|_| Error::usage("the sensitive values are too long to be masked"))?;
            masks.finder = Some(finder);
        }
        Ok(masks)
    }

    /// Masks nothing.
    pub fn none() -> Self {
        Self {
            finder: None,
            patterns: Vec::new(),
            short: Vec::new(),
        }
    }

    /// `text` with [`MASK`] in the place of every value.
    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let Some(finder) = &self.finder else {
            return self.mask_short(text);
        };
        let mut out = String::new();
        let mut from = 0;
        for found in finder.find_iter(text) {
            // Two in a row are said to be there once more: that they touch tells nothing.
            let Some(before) = text.get(from..found.start()) else {
                continue;
            };
            out.push_str(&self.mask_short(before));
            out.push_str(MASK);
            from = found.end();
        }
        if from == 0 {
            return self.mask_short(text);
        }
        out.push_str(&self.mask_short(text.get(from..).unwrap_or_default()));
        Cow::Owned(out)
    }

    fn mask_short<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for value in &self.short {
            if let Some(masked) = mask_alone(&text, value) {
                text = Cow::Owned(masked);
            }
        }
        text
    }

    /// For a text that comes in pieces.
    pub fn stream(&self) -> MaskStream<'_> {
        MaskStream {
            masks: self,
            held: String::new(),
        }
    }

    /// Bytes at the end of `text` that may be the beginning of a value.
    fn unfinished(&self, text: &str) -> usize {
        // Of a short value all: whether it stands alone is known by what follows.
        let mut longest = match self.short.is_empty() {
            true => 0,
            false => text.len().min(SHORTEST - 1),
        };
        for pattern in &self.patterns {
            let most = pattern.len().saturating_sub(1).min(text.len());
            let found = (longest + 1..=most).rev().find(|&length| {
                text.as_bytes()
                    .ends_with(pattern.get(..length).unwrap_or(b"\0"))
            });
            longest = found.unwrap_or(longest);
        }
        // A value that begins within a character of the text does not.
        while !text.is_char_boundary(text.len() - longest) {
            longest += 1;
        }
        longest
    }
}

/// Masks a text that comes in pieces: a value is found wherever the text is cut.
///
/// What may be the beginning of a value is held back until the next piece tells.
#[derive(Debug)]
pub struct MaskStream<'a> {
    masks: &'a Masks,
    held: String,
}

impl MaskStream<'_> {
    /// Takes the next piece; what can be shown by now.
    pub fn push(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        let text = std::mem::take(&mut self.held);
        let mut end = text.len() - self.masks.unfinished(&text);
        for value in &self.masks.short {
            let mut found = text.match_indices(value.as_str()).map(|(at, _)| at);
            let crossing = found.find(|at| *at < end && end < at + value.len());
            end = crossing.unwrap_or(end);
        }
        // Nothing that is found is cut: a longer value may begin with it, but then what is held back overlaps it. Short
        // ones come before: the beginning of one may lie in a long one.
        if let Some(finder) = &self.masks.finder {
            let crossing = finder
                .find_iter(&text)
                .find(|found| found.start() < end && end < found.end());
            end = crossing.map_or(end, |found| found.start());
        }
        let (shown, held) = text.split_at_checked(end).unwrap_or((&text, ""));
        self.held.push_str(held);
        self.masks.mask(shown).into_owned()
    }

    /// What was held back when the text ends; empty where that is nothing.
    pub fn finish(&mut self) -> String {
        let text = std::mem::take(&mut self.held);
        self.masks.mask(&text).into_owned()
    }
}

/// `None` where `value` does not stand alone anywhere.
fn mask_alone(text: &str, value: &str) -> Option<String> {
    let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut out = String::new();
    let mut from = 0;
    for (at, _) in text.match_indices(value) {
        let (before, after) = (text.get(..at)?, text.get(at + value.len()..)?);
        if at < from || joins(before.chars().next_back()) || joins(after.chars().next()) {
            continue;
        }
        out.push_str(text.get(from..at)?);
        out.push_str(MASK);
        from = at + value.len();
    }
    if from == 0 {
        return None;
    }
    out.push_str(text.get(from..)?);
    Some(out)
}

#[cfg(test)]
mod tests;
