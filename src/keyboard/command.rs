//! The grammar of boot commands: Packer's, and `<waitfor "text" 60s>`.
//!
//! At each place the first of these is taken that fits: a wait, a character that is held or let go, a named key, any
//! character as it is. So a word in angle brackets that is none of them is typed, which is rarely meant: it is a
//! [`Doubt`]. Pure: same text, same parts.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::units::duration;

/// Named keys: the name in lower case, and QEMU's.
const NAMES: [(&str, &str); 41] = [
    ("bs", "backspace"),
    ("del", "delete"),
    ("enter", "ret"),
    ("return", "ret"),
    ("esc", "esc"),
    ("tab", "tab"),
    ("spacebar", "spc"),
    ("f1", "f1"),
    ("f2", "f2"),
    ("f3", "f3"),
    ("f4", "f4"),
    ("f5", "f5"),
    ("f6", "f6"),
    ("f7", "f7"),
    ("f8", "f8"),
    ("f9", "f9"),
    ("f10", "f10"),
    ("f11", "f11"),
    ("f12", "f12"),
    ("up", "up"),
    ("down", "down"),
    ("left", "left"),
    ("right", "right"),
    ("insert", "insert"),
    ("home", "home"),
    ("end", "end"),
    ("pageup", "pgup"),
    ("pagedown", "pgdn"),
    // The key beside the right control key: `menu` in QEMU is another one.
    ("menu", "compose"),
    ("leftshift", "shift"),
    ("rightshift", "shift_r"),
    ("leftctrl", "ctrl"),
    ("rightctrl", "ctrl_r"),
    ("leftalt", "alt"),
    ("rightalt", "alt_r"),
    ("leftsuper", "meta_l"),
    ("rightsuper", "meta_r"),
    // On a Mac's keyboard the command keys are where the alt keys are, as Packer has it.
    ("leftcommand", "alt"),
    ("rightcommand", "alt_r"),
    ("leftoption", "meta_l"),
    ("rightoption", "meta_r"),
];

/// Longest text to be waited for, in characters: a line of a screen.
const LONGEST_TEXT: usize = 200;

/// What a key is called in a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symbol {
    /// QEMU's name of a key.
    Key(&'static str),
    /// Whatever makes this character.
    Character(char),
}

/// A part of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Down and up.
    Press(Symbol),
    /// Down.
    Hold(Symbol),
    /// Up.
    Release(Symbol),
    /// Nothing, for so long.
    Wait(Duration),
    /// Until the guest shows a text.
    WaitFor {
        /// The text, within one line.
        text: String,
        /// For it to appear; `None`: not given.
        timeout: Option<Duration>,
    },
}

/// A word in angle brackets that looks like a key and is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// What stands between the brackets.
    pub word: String,
    /// Byte of the command where it begins.
    pub at: usize,
}

/// A command that was understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// Its parts, in order.
    pub parts: Vec<Part>,
    /// What is typed although it looks like keys.
    pub doubts: Vec<Doubt>,
}

/// The names that there are, in lower case.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

/// Understands a command whose template actions were carried out.
///
/// # Errors
/// A wait for no time at all; a time or a text to be waited for that is too long.
pub fn parse(command: &str) -> Result<Command> {
    let mut result = Command::default();
    let mut rest = command;
    while let Some(first) = rest.chars().next() {
        if first == '<' {
            if let Some((part, length)) = wait(rest)?
                .or_else(|| toggle(rest))
                .or_else(|| special(rest))
            {
                result.parts.push(part);
                rest = &rest[length..];
                continue;
            }
            let at = command.len() - rest.len();
            result.doubts.extend(doubt(rest, at));
        }
        result.parts.push(Part::Press(Symbol::Character(first)));
        rest = &rest[first.len_utf8()..];
    }
    Ok(result)
}

/// `text` without `start`, whatever the case of its letters.
fn strip<'t>(text: &'t str, start: &str) -> Option<&'t str> {
    let head = text.get(..start.len())?;
    head.eq_ignore_ascii_case(start)
        .then(|| &text[start.len()..])
}

fn wait(text: &str) -> Result<Option<(Part, usize)>> {
    let Some(rest) = text.strip_prefix("<wait") else {
        return Ok(None);
    };
    if let Some(rest) = rest.strip_prefix("for") {
        let found = wait_for(rest)?;
        return Ok(found.map(|(part, left)| (part, text.len() - left.len())));
    }
    let Some(end) = rest.find('>') else {
        return Ok(None);
    };
    let (time, left) = (&rest[..end], &rest[end + 1..]);
    let Some(time) = time_of(time)? else {
        return Ok(None);
    };
    Ok(Some((Part::Wait(time), text.len() - left.len())))
}

/// Nothing, whole seconds, or Go's lengths of time as Packer's grammar has them. `None`: it is none of that.
fn time_of(time: &str) -> Result<Option<Duration>> {
    if time.is_empty() {
        return Ok(Some(Duration::from_secs(1)));
    }
    let whole = |digits: &str| {
        !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0'))
    };
    let too_long = || Error::usage(format!("<wait{time}> is too long a time"));
    if whole(time) {
        let seconds: u32 = time.parse().map_err(|_| too_long())?;
        return Ok(Some(Duration::from_secs(seconds.into())));
    }
    // Numbers with units, each whole or with digits behind a point.
    let mut rest = time;
    while !rest.is_empty() {
        let number = rest.strip_prefix('-').unwrap_or(rest);
        let end = number.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, after) = number.split_at(end.unwrap_or(number.len()));
        let (integer, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
        let unit = ["ns", "us", "µs", "ms", "s", "m", "h"]
            .iter()
            .find_map(|unit| after.strip_prefix(unit));
        match unit {
            Some(after) if whole(integer) && digits => rest = after,
            _ => return Ok(None),
        }
    }
    match duration::parse(time) {
        Some(span) if span > 0 => Ok(Some(Duration::from_nanos(span.unsigned_abs()))),
        Some(_) => Err(
            Error::usage(format!("<wait{time}> waits for no time at all"))
                .with_remedy("write a time above zero, such as <wait5s>"),
        ),
        None => Err(too_long()),
    }
}

/// What stands behind `<waitfor`: a text in double quotes, and for how long. `None`: it is typed.
fn wait_for(rest: &str) -> Result<Option<(Part, &str)>> {
    let Some(quoted) = rest.trim_start_matches(' ').strip_prefix('"') else {
        return Ok(None);
    };
    let mut text = String::new();
    let mut letters = quoted.chars();
    loop {
        match letters.next() {
            Some('"') => break,
            Some('\\') => match letters.next() {
                Some(letter @ ('"' | '\\')) => text.push(letter),
                Some(letter) => text.extend(['\\', letter]),
                None => return Ok(None),
            },
            Some(letter) => text.push(letter),
            None => return Ok(None),
        }
    }
    let left = letters.as_str();
    let Some((time, left)) = left.split_once('>') else {
        return Ok(None);
    };
    let time = time.trim_matches(' ');
    let timeout = match time {
        "" => None,
        time => match time_of(time)? {
            Some(time) => Some(time),
            None => return Ok(None),
        },
    };
    if text.trim().is_empty() || text.chars().count() > LONGEST_TEXT || text.contains(['\n', '\r'])
    {
        return Err(Error::usage("<waitfor> needs a text within one line")
            .with_remedy("write it in double quotes, as in <waitfor \"login:\" 60s>"));
    }
    Ok(Some((Part::WaitFor { text, timeout }, left)))
}

/// `On>` or `Off>`: whether it is held, and what follows.
fn on_off(text: &str) -> Option<(bool, &str)> {
    let (on, rest) = match strip(text, "on") {
        Some(rest) => (true, rest),
        None => (false, strip(text, "off")?),
    };
    Some((on, rest.strip_prefix('>')?))
}

/// `<XOn>`, `<XOff>` for any one character.
fn toggle(text: &str) -> Option<(Part, usize)> {
    let mut letters = text.strip_prefix('<')?.chars();
    let symbol = Symbol::Character(letters.next()?);
    let (on, left) = on_off(letters.as_str())?;
    let part = if on {
        Part::Hold(symbol)
    } else {
        Part::Release(symbol)
    };
    Some((part, text.len() - left.len()))
}

/// `<name>`, `<nameOn>`, `<nameOff>`.
fn special(text: &str) -> Option<(Part, usize)> {
    let inside = text.strip_prefix('<')?;
    NAMES.iter().find_map(|(name, key)| {
        let rest = strip(inside, name)?;
        let symbol = Symbol::Key(key);
        let (part, left) = match (rest.strip_prefix('>'), on_off(rest)) {
            (Some(left), _) => (Part::Press(symbol), left),
            (None, Some((true, left))) => (Part::Hold(symbol), left),
            (None, Some((false, left))) => (Part::Release(symbol), left),
            (None, None) => return None,
        };
        Some((part, text.len() - left.len()))
    })
}

/// Whether the first of some words is a key's name, held or released, or a wait's. Tags with attributes are text.
fn begins_with_name(words: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || " +-_.".contains(c);
    let first = words
        .split(|c: char| !c.is_ascii_alphanumeric())
        .next()
        .unwrap_or("");
    let is_name = |(name, _): &(&str, &str)| {
        strip(first, name)
            .is_some_and(|end| ["", "on", "off"].contains(&end.to_ascii_lowercase().as_str()))
    };
    words.chars().all(plain) && (NAMES.iter().any(is_name) || strip(first, "wait").is_some())
}

/// Whether what is not understood looks as if it was meant to be.
fn doubt(text: &str, at: usize) -> Option<Doubt> {
    let inside = text.strip_prefix('<')?;
    let word = &inside[..inside.find(['<', '>']).unwrap_or(inside.len())];
    let closed = inside[word.len()..].starts_with('>');
    // As `<wait 5>`, `<WaitFor "x">`, `<leftCtrl+c>`: what begins like one of these words and goes on otherwise.
    if strip(inside, "waitfor").is_some() || (closed && begins_with_name(word)) {
        let word = word.chars().take(60).collect();
        return Some(Doubt { word, at });
    }
    // What cannot be meant as a key is text: a tag, a comparison, an address.
    let looks = !word.is_empty()
        && word.len() <= 20
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    (closed && looks).then(|| Doubt {
        word: word.to_owned(),
        at,
    })
}

#[cfg(test)]
mod tests;
