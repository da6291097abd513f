//! The short report at the end of `sparsify`.

use std::borrow::Cow;
use std::io::{self, Write};

use qimg::error::Escaped;
use qimg::sparsify::Sparsified;
use qimg::units::ByteSize;
use serde::Serialize;

use super::parts::{self, FreeSpaceReport};

/// What was dropped, and how long it took.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Report<'a> {
    pub(crate) image: Cow<'a, str>,
    pub(crate) dry_run: bool,
    pub(crate) free_space: FreeSpaceReport<'a>,
    #[serde(flatten)]
    pub(crate) sparsified: Sparsified,
    pub(crate) seconds: f64,
}

impl Report<'_> {
    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let done = &self.sparsified.punched;
        let would = if self.dry_run {
            " (nothing was written)"
        } else {
            ""
        };
        write!(out, "{}", Escaped(&self.image))?;
        // A block device does not tell what it holds.
        if done.disk_size_before > 0 {
            let (before, after) = (ByteSize(done.disk_size_before), ByteSize(done.disk_size));
            write!(out, ": {before} -> {after}")?;
        }
        writeln!(out, "{would}")?;
        write!(
            out,
            "dropped: {} free, {} zeros",
            ByteSize(done.free_bytes),
            ByteSize(done.zero_bytes)
        )?;
        if let Some(size) = done.cluster_size
            && done.leaked_clusters > 0
        {
            let leaked = done.leaked_clusters.saturating_mul(size);
            write!(out, ", {} leaked", ByteSize(leaked))?;
        }
        writeln!(out)?;
        for (bytes, why) in [
            (
                done.shared_bytes,
                "shared with a snapshot or another cluster",
            ),
            (
                done.unmappable_bytes,
                "version 2 cannot hide a backing file without them",
            ),
        ] {
            if bytes > 0 {
                writeln!(out, "free, but kept: {} ({why})", ByteSize(bytes))?;
            }
        }
        parts::free_space(out, &self.free_space, self.dry_run)
    }
}
