//! One error type for the whole library: what kind of failure, in which file,
//! at which place, why, and what the user can do about it.
//!
//! Knows nothing of formats: a format's own typed corruption travels as
//! [`std::error::Error::source`]. Never prints.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller may want to branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The host failed to read, write, lock or rename.
    Io,
    /// The bytes are not an image of the format that was expected.
    NotAnImage,
    /// The image contradicts its format.
    Corrupt,
    /// The image is sound, but needs something this crate does not do.
    Unsupported,
    /// Possible, but not without the user's explicit word.
    Refused,
    /// Another process holds the image.
    Locked,
    /// The caller's options contradict each other, or the image.
    Usage,
    /// The caller asked to stop.
    Cancelled,
    /// There is no way into the guest, or it was lost.
    Connection,
    /// The guest was asked and refused; the message has its words.
    Guest,
    /// It took longer than it was given.
    TimedOut,
}

/// A failure of the library.
///
/// `Display` is one line in lower case without the cause; causes are reached
/// through [`std::error::Error::source`], advice through [`Error::remedy`].
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    path: Option<PathBuf>,
    place: Option<(usize, usize)>,
    guest: Option<u64>,
    host: Option<u64>,
    remedy: Option<Cow<'static, str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            path: None,
            place: None,
            guest: None,
            host: None,
            remedy: None,
            source: None,
        }))
    }

    /// A failed host operation; `doing` completes "cannot ...".
    pub fn io(doing: impl fmt::Display, source: io::Error) -> Self {
        let mut error = Self::new(ErrorKind::Io, format!("cannot {doing}"));
        error.0.source = Some(Box::new(source));
        error
    }

    /// A contradiction in the image; `cause` is the format's own typed finding.
    pub fn corrupt(
        message: impl Into<Cow<'static, str>>,
        cause: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let mut error = Self::new(ErrorKind::Corrupt, message);
        error.0.source = Some(cause.into());
        error
    }

    /// Sound, but beyond this crate.
    pub fn unsupported(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// Needs the user's explicit word, which `remedy` names.
    pub fn refused(
        message: impl Into<Cow<'static, str>>,
        remedy: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(ErrorKind::Refused, message).with_remedy(remedy)
    }

    /// Contradictory or impossible options.
    pub fn usage(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// The caller asked to stop.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "interrupted")
    }

    /// Adds what it comes from, as [`std::error::Error::source`].
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Names the file, unless an inner layer already did.
    #[must_use]
    pub fn at_path(mut self, path: impl AsRef<Path>) -> Self {
        self.0.path.get_or_insert_with(|| path.as_ref().to_owned());
        self
    }

    /// Names the line and the column of a text, both from 1 on, unless an inner layer already did.
    #[must_use]
    pub fn at_place(mut self, line: usize, column: usize) -> Self {
        self.0.place.get_or_insert((line, column));
        self
    }

    /// Names the guest offset in bytes, unless an inner layer already did.
    #[must_use]
    pub fn at_guest(mut self, offset: u64) -> Self {
        self.0.guest.get_or_insert(offset);
        self
    }

    /// Names the host offset in bytes, unless an inner layer already did.
    #[must_use]
    pub fn at_host(mut self, offset: u64) -> Self {
        self.0.host.get_or_insert(offset);
        self
    }

    /// Says what the user can do.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file concerned, as far as known.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The line and the column of the text concerned, both from 1 on.
    pub fn place(&self) -> Option<(usize, usize)> {
        self.0.place
    }

    /// What it says, without file, place and offsets.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The guest offset concerned, in bytes.
    pub fn guest_offset(&self) -> Option<u64> {
        self.0.guest
    }

    /// The host offset concerned, in bytes.
    pub fn host_offset(&self) -> Option<u64> {
        self.0.host
    }

    /// What the user can do about it.
    pub fn remedy(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.0.path {
            // A path may come out of an image: control characters are escaped.
            write!(f, "{}: ", Escaped(&path.to_string_lossy()))?;
        }
        if let Some((line, column)) = self.0.place {
            write!(f, "line {line}, column {column}: ")?;
        }
        write!(f, "{}", Escaped(&self.0.message))?;
        match (self.0.guest, self.0.host) {
            (Some(guest), Some(host)) => write!(f, " (guest {guest:#x}, host {host:#x})"),
            (Some(guest), None) => write!(f, " (guest {guest:#x})"),
            (None, Some(host)) => write!(f, " (host {host:#x})"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.to_string())
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Text from an image, safe for a terminal: control characters come out
/// as `\x1b`-style escapes, everything else as it is.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for c in self.0.chars() {
            // Bidirectional overrides reorder what a terminal shows.
            let reorders = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if c.is_control() || reorders {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_file_and_place_once() {
        let error = Error::new(ErrorKind::Corrupt, "bad entry")
            .at_path("a.qcow2")
            .at_host(0x200)
            .at_host(0x400)
            .at_guest(0x1000);
        assert_eq!(
            error.to_string(),
            "a.qcow2: bad entry (guest 0x1000, host 0x200)"
        );
    }

    #[test]
    fn terminal_escapes_do_not_pass() {
        assert_eq!(Escaped("a\x1b[2Jb\n").to_string(), "a\\u{1b}[2Jb\\n");
    }
}
