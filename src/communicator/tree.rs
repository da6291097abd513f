//! Directories of the guest: made, listed, found by patterns. Works through any [`Communicator`] whose guest has
//! a POSIX shell and `find`.

use std::io::{self, Write};

use super::{Communicator, Exit, Stream, quote};
use crate::error::{Error, ErrorKind, Result};

/// Longer listings are not taken.
const LONGEST_LISTING: usize = 64 * 1024 * 1024;

/// Longest text of errors that is kept.
const LONGEST_WORDS: usize = 4 * 1024;

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file, or a link to one.
    File {
        /// Its user may run it.
        executable: bool,
    },
    /// Anything else: links to nothing or to directories, sockets, devices.
    Other,
}

/// One entry below a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Path below the directory that was listed, without it; empty for that itself.
    pub path: String,
    /// What it is.
    pub kind: Kind,
}

/// Makes a directory and those it lies in, unless they are there.
///
/// # Errors
/// The guest refuses, with its words.
pub fn make_directory(guest: &dyn Communicator, path: &str) -> Result<()> {
    let command = format!("mkdir -p {}", quote::path(path));
    ask(guest, &command, path).map(drop)
}

/// What lies at and below `path`, in order of names, directories before what is in them. Links to directories are
/// not followed.
///
/// # Errors
/// There is nothing of that name, or the guest refuses, with its words; or names are not UTF-8.
pub fn list(guest: &dyn Communicator, path: &str) -> Result<Vec<Entry>> {
    let root = quote::path(path.trim_end_matches('/'));
    let root = if path.starts_with('/') && path.trim_end_matches('/').is_empty() {
        "/".to_owned()
    } else {
        root
    };
    // `cd` resolves a link to a directory, a file is told by itself; then names are relative.
    let command = format!(
        "if [ -d {root} ]; then cd {root} && find . -exec sh -c '{TELL}' sh {{}} +; \
         elif [ -e {root} ]; then set -- {root}; {TELL_ONE}; \
         else ls -d {root} >/dev/null; fi"
    );
    let said = ask(guest, &command, path)?;
    let mut entries = Vec::new();
    let mut parts = said.split(|byte| *byte == 0);
    while let Some(kind) = parts.next().filter(|kind| !kind.is_empty()) {
        let Some(name) = parts.next() else { break };
        let name = std::str::from_utf8(name).map_err(|_| {
            let name = String::from_utf8_lossy(name);
            Error::unsupported(format!("a name in the guest is not UTF-8: {name}"))
        })?;
        let name = match name {
            "." => "",
            name => name.strip_prefix("./").unwrap_or(name),
        };
        // Nothing is to be written outside of where it belongs.
        if name.split('/').any(|part| part == "..") || name.starts_with('/') {
            continue;
        }
        let kind = match kind.last() {
            Some(b'd') => Kind::Directory,
            Some(b'x') => Kind::File { executable: true },
            Some(b'f') => Kind::File { executable: false },
            _ => Kind::Other,
        };
        entries.push(Entry {
            path: name.to_owned(),
            kind,
        });
    }
    entries.sort();
    Ok(entries)
}

/// Says kind and name of each argument, each ended by a zero byte.
const TELL: &str = r#"for f do if [ -h "$f" ] && [ ! -f "$f" ]; then k=o; elif [ -d "$f" ]; then k=d; elif [ -f "$f" ]; then if [ -x "$f" ]; then k=x; else k=f; fi; else k=o; fi; printf "%s\0%s\0" "$k" "$f"; done"#;

/// The same of one file, whose name is not said.
const TELL_ONE: &str = r#"if [ -f "$1" ]; then if [ -x "$1" ]; then k=x; else k=f; fi; else k=o; fi; printf "%s\0%s\0" "$k" ."#;

/// Paths that match a shell's pattern, in order; none where nothing does.
///
/// # Errors
/// The guest refuses, with its words; or names are not UTF-8.
pub fn glob(guest: &dyn Communicator, pattern: &str) -> Result<Vec<String>> {
    let quoted = quote::pattern(pattern);
    let command = format!(
        r#"for f in {quoted}; do if [ -e "$f" ] || [ -h "$f" ]; then printf "%s\0" "$f"; fi; done"#
    );
    let said = ask(guest, &command, pattern)?;
    let names = said
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let names: std::result::Result<Vec<_>, _> = names.map(std::str::from_utf8).collect();
    let mut names: Vec<String> = names
        .map_err(|_| Error::unsupported(format!("names that match {pattern} are not UTF-8")))?
        .into_iter()
        .map(ToOwned::to_owned)
        .collect();
    names.sort();
    Ok(names)
}

/// Whether `path` names a directory, also through a link.
///
/// # Errors
/// The guest could not be asked.
pub fn is_directory(guest: &dyn Communicator, path: &str) -> Result<bool> {
    let command = format!("test -d {}", quote::path(path));
    match guest.run(&command, None, &mut |_, _| ())? {
        Exit::Code(code) => Ok(code == 0),
        exit => Err(ended(path, &exit, "")),
    }
}

/// The output of a command that has to succeed.
fn ask(guest: &dyn Communicator, command: &str, path: &str) -> Result<Vec<u8>> {
    let mut said = Bounded(Vec::new());
    let mut words = String::new();
    let exit = guest.pipe(command, &mut io::empty(), &mut said, &mut |stream, line| {
        if stream == Stream::Err && words.len() + line.len() < LONGEST_WORDS {
            if !words.is_empty() {
                words.push_str("; ");
            }
            words.push_str(line.trim());
        }
    })?;
    match exit {
        Exit::Code(0) => Ok(said.0),
        exit => Err(ended(path, &exit, &words)),
    }
}

fn ended(path: &str, exit: &Exit, words: &str) -> Error {
    let (kind, words) = match (exit, words) {
        (Exit::Disconnected, _) => (ErrorKind::Connection, "the connection was lost".to_owned()),
        (Exit::Signal(signal), "") => (ErrorKind::Guest, format!("ended by signal {signal}")),
        (Exit::Code(code), "") => (ErrorKind::Guest, format!("exit code {code}")),
        (_, words) => (ErrorKind::Guest, words.to_owned()),
    };
    Error::new(kind, format!("the guest refuses {path}: {words}"))
}

/// Output up to a limit.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST_LISTING {
            return Err(io::Error::other("the guest lists files without end"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
