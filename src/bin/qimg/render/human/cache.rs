//! What the cache of downloads holds.

use std::io::{self, Write};
use std::path::Path;
use std::time::UNIX_EPOCH;

use qimg::error::Escaped;
use qimg::fetch::{Item, Pruned};
use qimg::units::ByteSize;

use super::date;

/// One line each, those used last first.
pub(crate) fn list(out: &mut dyn Write, directory: &Path, items: &[Item]) -> io::Result<()> {
    writeln!(out, "{}", directory.display())?;
    for item in items {
        let used = item
            .last_used
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let used = date::seconds(i64::try_from(used.as_secs()).unwrap_or(0));
        let state = match (item.in_use, &item.digest) {
            (true, _) => "in use",
            (false, None) => "incomplete",
            (false, Some(_)) => "",
        };
        writeln!(
            out,
            "{:>10}  {used}  {state:10}  {}",
            ByteSize(item.size).to_string(),
            Escaped(&item.url)
        )?;
    }
    Ok(())
}

/// What has gone.
pub(crate) fn pruned(out: &mut dyn Write, pruned: &Pruned) -> io::Result<()> {
    let freed: u64 = pruned.removed.iter().map(|item| item.size).sum();
    writeln!(
        out,
        "removed {} ({}), {} left",
        pruned.removed.len(),
        ByteSize(freed),
        ByteSize(pruned.left)
    )?;
    for item in &pruned.kept {
        writeln!(out, "in use: {}", Escaped(&item.url))?;
    }
    Ok(())
}
