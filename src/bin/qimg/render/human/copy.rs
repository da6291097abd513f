//! The short report at the end of `cp`, and what was not copied.

use std::borrow::Cow;
use std::io::{self, Write};

use qimg::error::Escaped;
use qimg::extract::Extracted;
use qimg::units::ByteSize;
use serde::Serialize;

/// What was copied, where to, and how long it took.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Report<'a> {
    pub(crate) source: String,
    pub(crate) destination: Cow<'a, str>,
    #[serde(flatten)]
    pub(crate) extracted: Extracted,
    pub(crate) seconds: f64,
}

impl Report<'_> {
    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let done = &self.extracted;
        let counts = [
            (done.files, "file", "files"),
            (done.directories, "directory", "directories"),
            (done.symlinks, "symlink", "symlinks"),
            (done.hard_links, "hard link", "hard links"),
        ];
        let counts = counts.into_iter().filter(|(number, ..)| *number > 0);
        let counts: Vec<String> = counts.map(count).collect();
        write!(
            out,
            "{}: {}, {}",
            Escaped(&self.destination),
            counts.join(", "),
            ByteSize(done.bytes)
        )?;
        if done.hole_bytes > 0 {
            write!(out, " and {} of holes", ByteSize(done.hole_bytes))?;
        }
        writeln!(out)?;
        if done.special > 0 {
            let special = (
                done.special,
                "device, pipe or socket",
                "devices, pipes and sockets",
            );
            writeln!(out, "left out: {}", count(special))?;
        }
        Ok(())
    }

    /// What was not copied, line by line.
    pub(crate) fn print_skipped(&self, err: &mut dyn Write) -> io::Result<()> {
        let done = &self.extracted;
        for skipped in &done.skipped_names {
            let (path, reason) = (Escaped(&skipped.path), Escaped(&skipped.reason));
            writeln!(err, "qimg: not copied: {path}: {reason}")?;
        }
        let more = done.skipped.saturating_sub(done.skipped_names.len() as u64);
        if more > 0 {
            writeln!(err, "qimg: not copied: {more} more")?;
        }
        Ok(())
    }
}

fn count((number, one, more): (u64, &str, &str)) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

#[cfg(test)]
mod tests {
    use qimg::extract::Skipped;

    use super::*;

    #[test]
    fn what_was_copied_and_what_was_not() {
        let report = Report {
            source: "disk:/a".to_owned(),
            destination: "out\x1b".into(),
            extracted: Extracted {
                files: 1,
                directories: 2,
                bytes: 1 << 20,
                hole_bytes: 1 << 30,
                special: 3,
                skipped: 7,
                skipped_names: vec![Skipped {
                    path: "x/\n".to_owned(),
                    reason: "the name holds a slash".to_owned(),
                }],
                ..Extracted::default()
            },
            seconds: 1.0,
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        report.print(&mut out).unwrap();
        report.print_skipped(&mut err).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "out\\u{1b}: 1 file, 2 directories, 1 MiB and 1 GiB of holes\nleft out: 3 devices, pipes and sockets\n"
        );
        assert_eq!(
            String::from_utf8(err).unwrap(),
            "qimg: not copied: x/\\n: the name holds a slash\nqimg: not copied: 6 more\n"
        );
    }
}
