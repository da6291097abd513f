//! Files of a guest: `ls` and `stat`.

use std::io::{self, Write};

use qimg::browse::Listed;
use qimg::error::Escaped;
use qimg::fs::tree::{FileKind, Metadata, Timestamp};
use serde::Serialize;

use super::date;

/// Prints names as they come.
pub(crate) struct Listing {
    long: bool,
    json: bool,
    empty: bool,
}

/// What is told of one name.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Entry<'a> {
    name: String,
    #[serde(flatten)]
    facts: Facts<'a>,
}

/// What a filesystem says of a file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Facts<'a> {
    #[serde(rename = "type")]
    kind: FileKind,
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    links: u32,
    inode: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    accessed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<qimg::fs::tree::Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<std::borrow::Cow<'a, str>>,
}

impl<'a> Facts<'a> {
    fn new(metadata: &Metadata, target: Option<&'a [u8]>) -> Self {
        let time = |time: Option<Timestamp>| time.map(precise);
        Self {
            kind: metadata.kind,
            mode: format!("{:04o}", metadata.permissions),
            uid: metadata.uid,
            gid: metadata.gid,
            size: metadata.size,
            links: metadata.links,
            inode: metadata.inode,
            accessed: time(metadata.accessed),
            modified: time(metadata.modified),
            changed: time(metadata.changed),
            created: time(metadata.created),
            device: metadata.device,
            target: target.map(String::from_utf8_lossy),
        }
    }
}

/// `2026-11-22T12:52:42.000000000Z`.
fn precise(time: Timestamp) -> String {
    let date = date::seconds(time.seconds).replace(' ', "T");
    format!("{date}.{:09}Z", time.nanoseconds)
}

impl Listing {
    pub(crate) fn new(long: bool, json: bool) -> Self {
        Self {
            long,
            json,
            empty: true,
        }
    }

    /// One name.
    pub(crate) fn entry(
        &mut self,
        out: &mut dyn Write,
        path: &[u8],
        listed: &Listed,
    ) -> io::Result<()> {
        let metadata = &listed.found.metadata;
        let target = listed.target.as_deref();
        if self.json {
            write!(out, "{}", if self.empty { "[\n" } else { ",\n" })?;
            self.empty = false;
            let entry = Entry {
                name: String::from_utf8_lossy(path).into_owned(),
                facts: Facts::new(metadata, target),
            };
            return Ok(serde_json::to_writer(out, &entry)?);
        }
        if self.long {
            let size = match metadata.device {
                Some(device) => format!("{},{}", device.major, device.minor),
                None => metadata.size.to_string(),
            };
            write!(
                out,
                "{} {:>3} {:>5} {:>5} {size:>12} {} ",
                mode(metadata),
                metadata.links,
                metadata.uid,
                metadata.gid,
                metadata
                    .modified
                    .map_or_else(|| format!("{:19}", "-"), |time| date::seconds(time.seconds)),
            )?;
        }
        write!(out, "{}", escaped(path))?;
        if let (true, Some(target)) = (self.long, target) {
            write!(out, " -> {}", escaped(target))?;
        }
        writeln!(out)
    }

    /// After the last name.
    pub(crate) fn end(&self, out: &mut dyn Write) -> io::Result<()> {
        match (self.json, self.empty) {
            (true, true) => writeln!(out, "[]"),
            (true, false) => writeln!(out, "\n]"),
            (false, _) => Ok(()),
        }
    }
}

fn escaped(name: &[u8]) -> String {
    Escaped(&String::from_utf8_lossy(name)).to_string()
}

/// `stat`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Stat<'a> {
    path: std::borrow::Cow<'a, str>,
    part: &'a str,
    filesystem: &'static str,
    #[serde(flatten)]
    facts: Facts<'a>,
    #[serde(skip)]
    symbolic_mode: String,
}

impl<'a> Stat<'a> {
    pub(crate) fn new(
        path: &'a [u8],
        part: &'a str,
        filesystem: &'static str,
        metadata: &Metadata,
        target: Option<&'a [u8]>,
    ) -> Self {
        Self {
            path: String::from_utf8_lossy(path),
            part,
            filesystem,
            facts: Facts::new(metadata, target),
            symbolic_mode: mode(metadata),
        }
    }

    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let facts = &self.facts;
        write!(out, "  File: {}", Escaped(&self.path))?;
        if let Some(target) = &facts.target {
            write!(out, " -> {}", Escaped(target))?;
        }
        writeln!(out)?;
        writeln!(
            out,
            "  Size: {:<12} {} on {}, part {}",
            facts.size,
            kind_words(facts.kind),
            self.filesystem,
            Escaped(self.part)
        )?;
        writeln!(out, " Inode: {:<12} Links: {}", facts.inode, facts.links)?;
        if let Some(device) = facts.device {
            writeln!(out, "Device: {},{}", device.major, device.minor)?;
        }
        writeln!(
            out,
            "  Mode: {}/{}  Uid: {}  Gid: {}",
            facts.mode, self.symbolic_mode, facts.uid, facts.gid
        )?;
        for (name, time) in [
            ("Access", &facts.accessed),
            ("Modify", &facts.modified),
            ("Change", &facts.changed),
            (" Birth", &facts.created),
        ] {
            if let Some(time) = time {
                writeln!(out, "{name}: {time}")?;
            }
        }
        Ok(())
    }
}

/// What a file is, in words.
pub(crate) fn kind_words(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "a file",
        FileKind::Directory => "a directory",
        FileKind::Symlink => "a symlink",
        FileKind::CharDevice => "a character device",
        FileKind::BlockDevice => "a block device",
        FileKind::Fifo => "a named pipe",
        FileKind::Socket => "a socket",
    }
}

/// As ls(1) writes it: `-rwsr-xr-x`.
fn mode(metadata: &Metadata) -> String {
    let kind = match metadata.kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
    };
    let bits = metadata.permissions;
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let class = bits >> shift;
        text.push(if class & 4 != 0 { 'r' } else { '-' });
        text.push(if class & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & special != 0, class & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_ls_does() {
        let mut metadata = Metadata {
            kind: FileKind::File,
            permissions: 0o4755,
            uid: 0,
            gid: 0,
            size: 0,
            links: 1,
            inode: 1,
            accessed: None,
            modified: None,
            changed: None,
            created: None,
            device: None,
        };
        assert_eq!(mode(&metadata), "-rwsr-xr-x");
        metadata.kind = FileKind::Directory;
        metadata.permissions = 0o1776;
        assert_eq!(mode(&metadata), "drwxrwxrwT");
        metadata.permissions = 0o2060;
        assert_eq!(mode(&metadata), "d---rwS---");
    }
}
