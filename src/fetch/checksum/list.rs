//! Files of checksums: which digest stands beside a name.
//!
//! Knows the lines of GNU's and BSD's programs, of OpenSSL and of a digest alone. Must not know whether the file can be
//! trusted, nor where it came from.

use crate::digest::{Digest, DigestKind};
use crate::error::{Error, ErrorKind, Result};

/// Names in an error, at most.
const MOST_TOLD: usize = 5;

/// One line of a file of checksums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// From 1.
    pub number: usize,
    /// What the file must come to.
    pub digest: Digest,
    /// The file, as written; none, where the digest stands alone.
    pub name: Option<String>,
}

/// All lines that hold a digest, in order. Whatever else there is, is passed over: comments, blank lines, prose.
pub fn read(text: &str) -> Vec<Line> {
    text.lines()
        .enumerate()
        .filter_map(|(at, line)| read_line(at + 1, line))
        .collect()
}

fn read_line(number: usize, line: &str) -> Option<Line> {
    let line = line.trim_start_matches('\u{feff}').trim_end_matches('\r');
    let plain = line.trim_start();
    if plain.starts_with('#') {
        return None;
    }
    // A backslash in front says that the name is written with escapes.
    let (escaped, body) = match plain.strip_prefix('\\') {
        Some(body) => (true, body),
        None => (false, plain),
    };
    let (digest, name) = gnu(body).or_else(|| bsd(body))?;
    let name = match name {
        Some(name) if escaped => Some(unescaped(name)?),
        name => name.map(ToOwned::to_owned),
    };
    Some(Line {
        number,
        digest,
        name,
    })
}

/// `HEX  NAME`, `HEX *NAME`, `HEX<tab>NAME`, or `HEX` alone.
fn gnu(line: &str) -> Option<(Digest, Option<&str>)> {
    let end = line.find([' ', '\t']).unwrap_or(line.len());
    let digest = Digest::from_bare_hex(&line[..end])?;
    let rest = &line[end..];
    if rest.trim().is_empty() {
        return Some((digest, None));
    }
    // The first sign divides, the second tells text from binary; what follows belongs to the name.
    let name = &rest[1..];
    let name = name
        .strip_prefix(' ')
        .or_else(|| name.strip_prefix('*'))
        .unwrap_or(name);
    // Files made by hand hold more blanks, and some at the end.
    let name = name.trim_matches([' ', '\t']);
    Some((digest, Some(name.strip_prefix('*').unwrap_or(name))))
}

/// `SHA256 (NAME) = HEX`, with or without the blanks.
fn bsd(line: &str) -> Option<(Digest, Option<&str>)> {
    let (kind, rest) = line.split_once('(')?;
    let kind: DigestKind = kind.trim().parse().ok()?;
    // The name may hold parentheses itself.
    let (name, digits) = rest.rsplit_once(')')?;
    let digits = digits.trim_start().strip_prefix('=')?.trim();
    Some((Digest::from_hex(kind, digits).ok()?, Some(name)))
}

fn unescaped(name: &str) -> Option<String> {
    let mut plain = String::with_capacity(name.len());
    let mut letters = name.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            letter => letter,
        });
    }
    Some(plain)
}

/// The digest of one file in `lines`.
///
/// `relative` is its path as seen from the directory of the list, where it is known, and counts most; then a line with
/// exactly `name`; then one with `name` in any directory. Of several kinds of digest the strongest is taken. A list that
/// is one digest alone holds for any file.
///
/// # Errors
/// [`Usage`](ErrorKind::Usage): no line is of that file, or two that contradict each other, which are both named.
pub fn digest_of(lines: &[Line], name: &str, relative: Option<&str>) -> Result<Digest> {
    let named: Vec<(&Line, &str)> = lines
        .iter()
        .filter_map(|line| Some((line, plain(line.name.as_deref()?))))
        .collect();
    if named.is_empty() {
        return alone(lines);
    }
    let by_path = |path: &str| -> Vec<&Line> {
        let found = named.iter().filter(|(_, name)| *name == plain(path));
        found.map(|(line, _)| *line).collect()
    };
    let by_name = || -> Vec<&Line> {
        let found = named.iter().filter(|(_, path)| {
            path.rsplit_once(['/', '\\'])
                .is_some_and(|(_, last)| last == name)
        });
        found.map(|(line, _)| *line).collect()
    };
    let mut found = relative.map(by_path).unwrap_or_default();
    if found.is_empty() {
        found = by_path(name);
    }
    if found.is_empty() {
        found = by_name();
    }
    let Some(strongest) = found.iter().map(|line| line.digest.kind()).max() else {
        return Err(absent(&named, name));
    };
    found.retain(|line| line.digest.kind() == strongest);
    let first = found[0];
    match found.iter().find(|line| line.digest != first.digest) {
        None => Ok(first.digest.clone()),
        Some(other) => Err(contradiction(first, other, name)),
    }
}

/// A file that holds a digest and nothing else, perhaps one of each kind.
fn alone(lines: &[Line]) -> Result<Digest> {
    let Some(strongest) = lines.iter().map(|line| line.digest.kind()).max() else {
        return Err(Error::usage("holds no checksum")
            .with_remedy("lines are read as sha256sum writes them, with or without --tag"));
    };
    let mut found: Vec<&Digest> = lines
        .iter()
        .map(|line| &line.digest)
        .filter(|digest| digest.kind() == strongest)
        .collect();
    found.dedup();
    match found[..] {
        [digest] => Ok(digest.clone()),
        _ => Err(Error::usage(
            "holds several checksums without names of files, of which any could be meant",
        )),
    }
}

/// Without what does not change which file it is.
fn plain(name: &str) -> &str {
    let mut name = name;
    while let Some(rest) = name.strip_prefix("./") {
        name = rest.trim_start_matches('/');
    }
    name
}

fn absent(named: &[(&Line, &str)], name: &str) -> Error {
    let mut others: Vec<&str> = named.iter().map(|(_, name)| *name).collect();
    // What begins alike is what may have been meant.
    let alike = |other: &str| {
        let last = other.rsplit('/').next().unwrap_or(other);
        last.chars()
            .zip(name.chars())
            .take_while(|(one, other)| one == other)
            .count()
    };
    others.sort_by_key(|other| std::cmp::Reverse(alike(other)));
    others.truncate(MOST_TOLD);
    Error::usage(format!("holds no checksum of {name}")).with_remedy(format!(
        "it holds those of {}{}",
        others.join(", "),
        if named.len() > others.len() {
            " and others"
        } else {
            ""
        }
    ))
}

fn contradiction(one: &Line, other: &Line, name: &str) -> Error {
    let told = |line: &Line| {
        format!(
            "line {}: {}{}",
            line.number,
            line.digest,
            line.name
                .as_deref()
                .filter(|written| *written != name)
                .map_or_else(String::new, |written| format!(" ({written})"))
        )
    };
    Error::new(
        ErrorKind::Usage,
        format!(
            "holds two checksums of {name}: {}; {}",
            told(one),
            told(other)
        ),
    )
    .with_remedy("give the right one itself, as sha256:HEX")
}

#[cfg(test)]
mod tests;
