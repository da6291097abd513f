//! The short report at the end of `compress`.

use std::borrow::Cow;
use std::io::{self, Write};

use qimg::compress::Compressed;
use qimg::error::Escaped;
use qimg::units::ByteSize;
use serde::Serialize;

use super::parts::{self, FreeSpaceReport};

/// What was done, to what, and how long it took.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Report<'a> {
    pub(crate) source: Cow<'a, str>,
    /// None in place, or when nothing was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) destination: Option<Cow<'a, str>>,
    pub(crate) dry_run: bool,
    pub(crate) free_space: FreeSpaceReport<'a>,
    #[serde(flatten)]
    pub(crate) compressed: Compressed,
    pub(crate) seconds: f64,
}

impl Report<'_> {
    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let done = &self.compressed;
        let (before, after) = (done.rewritten.source_disk_size, done.rewritten.disk_size);
        let name = self.destination.as_ref().unwrap_or(&self.source);
        let would = if self.dry_run {
            " (nothing was written)"
        } else {
            ""
        };
        write!(
            out,
            "{}: {} -> {}",
            Escaped(name),
            ByteSize(before),
            ByteSize(after)
        )?;
        if before > 0 {
            write!(out, ", {:.1} %", after as f64 * 100.0 / before as f64)?;
        }
        writeln!(
            out,
            ", {}, {} clusters{would}",
            done.codec,
            ByteSize(done.cluster_size)
        )?;
        let lost = [
            count(done.dropped_snapshots as u64, "snapshot"),
            count(u64::from(done.dropped_bitmaps), "bitmap"),
        ];
        let lost: Vec<String> = lost.into_iter().flatten().collect();
        if !lost.is_empty() {
            writeln!(out, "dropped: {}", lost.join(", "))?;
        }
        if let Some(name) = &done.backing_file {
            writeln!(out, "needs its backing file: {}", Escaped(name))?;
        }
        parts::free_space(out, &self.free_space, self.dry_run)?;
        let stored = done.rewritten.contents.stored_bytes;
        let rate = stored as f64 / self.seconds.max(1e-3);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is for the eye"
        )]
        let rate = ByteSize(rate as u64);
        writeln!(
            out,
            "read {} in {:.1} s, {rate}/s",
            ByteSize(stored),
            self.seconds
        )
    }
}

fn count(number: u64, noun: &str) -> Option<String> {
    match number {
        0 => None,
        1 => Some(format!("1 {noun}")),
        _ => Some(format!("{number} {noun}s")),
    }
}
