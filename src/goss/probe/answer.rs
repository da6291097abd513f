//! What the guest says, line by line: the number of a check, a name, and a value in an encoding that has no line ends.
//!
//! The guest may be hostile: what it sends is counted, what is no answer to a question is told as such, and nothing that it
//! says can stand for the answer to another question's check than the one it names.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::error::{Error, ErrorKind, Result};
use crate::seed::base64;

/// Bytes of all answers at most.
pub const MOST_BYTES: usize = 96 << 20;
/// Values at most.
const MOST_VALUES: usize = 400_000;
/// The longest name of a value.
const LONGEST_NAME: usize = 32;

/// All that a guest said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    values: BTreeMap<(Option<usize>, String), Vec<u8>>,
}

impl Answers {
    /// Reads the output of the script for `checks` checks.
    ///
    /// # Errors
    /// It is not what the script would have said, or ends early.
    pub fn parse(output: &[u8], checks: usize) -> Result<Self> {
        let mut answers = Self::default();
        let mut is_whole = false;
        for line in output.split(|&byte| byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            let Some((key, value)) = value(line, checks) else {
                let shown: String = String::from_utf8_lossy(line).chars().take(80).collect();
                return Err(odd(&format!(
                    "its answer has a line that is none: {shown:?}"
                )));
            };
            is_whole = key == (None, "end".to_owned());
            if answers.values.len() >= MOST_VALUES {
                return Err(odd("it answers more than it was asked"));
            }
            if answers.values.insert(key, value).is_some() {
                return Err(odd("it answers the same question twice"));
            }
        }
        match answers.global_text("lacks").as_deref() {
            Some("place") => {
                return Err(Error::new(
                    ErrorKind::Guest,
                    "the guest has no place for temporary files: none of $TMPDIR, /tmp, /run, /dev/shm and /var/tmp can be written",
                ));
            }
            Some(_) => {
                return Err(Error::new(
                    ErrorKind::Guest,
                    "the guest has none of base64, openssl and od, by one of which it would answer",
                ));
            }
            None => {}
        }
        if !is_whole {
            return Err(odd("its answer ends early"));
        }
        Ok(answers)
    }

    /// A value of a check.
    pub fn bytes(&self, check: usize, name: &str) -> Option<&[u8]> {
        let key = (Some(check), name.to_owned());
        self.values.get(&key).map(Vec::as_slice)
    }

    /// A value of a check as text; what is no UTF-8 in it is replaced.
    pub fn text(&self, check: usize, name: &str) -> Option<String> {
        let bytes = self.bytes(check, name)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    /// Whether a value of a check is 1; `None`: it is not there.
    pub fn flag(&self, check: usize, name: &str) -> Option<bool> {
        self.bytes(check, name).map(|bytes| bytes == b"1")
    }

    /// A value that is asked once.
    pub fn global_text(&self, name: &str) -> Option<String> {
        let bytes = self.values.get(&(None, name.to_owned()))?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

fn odd(message: &str) -> Error {
    Error::new(
        ErrorKind::Guest,
        format!("the guest does not answer as it was asked: {message}"),
    )
    .with_remedy(
        "its shell may print something at every login: it must not where there is no terminal",
    )
}

type Key = (Option<usize>, String);

fn value(line: &[u8], checks: usize) -> Option<(Key, Vec<u8>)> {
    let text = std::str::from_utf8(line).ok()?;
    let (number, rest) = text.split_once(' ')?;
    let (name, value) = rest.split_once(' ')?;
    let number = match number {
        "g" => None,
        number => Some(number.parse().ok().filter(|number| *number < checks)?),
    };
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(fits) {
        return None;
    }
    let bytes = match (value.strip_prefix('='), value.split_once(':')) {
        (Some(word), _) => word.as_bytes().to_vec(),
        (None, Some(("b", digits))) => base64::decode(digits)?,
        (None, Some(("x", digits))) => hexadecimal(digits)?,
        _ => return None,
    };
    Some(((number, name.to_owned()), bytes))
}

fn hexadecimal(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let bytes = digits.as_bytes();
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    bytes
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

/// Takes the output of the script; refuses what is too long.
#[derive(Debug, Default)]
pub struct Collector {
    /// So far.
    pub bytes: Vec<u8>,
}

impl Write for Collector {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(piece.len()) > MOST_BYTES {
            return Err(io::Error::other("the guest answers without an end"));
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
