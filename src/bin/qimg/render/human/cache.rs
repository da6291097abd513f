//! What the cache of downloads holds.

use std::io::{self, Write};
use std::path::Path;
use std::time::UNIX_EPOCH;

use qimg::build::steps::{Kept, Removed};
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
        rests(out, item.pinned_by.as_deref())?;
    }
    Ok(())
}

fn rests(out: &mut dyn Write, pinned_by: Option<&str>) -> io::Result<()> {
    match pinned_by {
        Some(who) => writeln!(out, "{:>12}by {}", "", Escaped(who)),
        None => Ok(()),
    }
}

/// One line each, those used last first.
pub(crate) fn states(out: &mut dyn Write, states: &[Kept]) -> io::Result<()> {
    for state in states {
        let used = state
            .last_used
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let used = date::seconds(i64::try_from(used.as_secs()).unwrap_or(0));
        let word = match (state.in_use, state.whole) {
            (true, _) => "in use",
            (false, false) => "incomplete",
            (false, true) => "",
        };
        writeln!(
            out,
            "{:>10}  {used}  {word:10}  state of {} (saves {} s)",
            ByteSize(state.size).to_string(),
            Escaped(&state.text),
            state.saves / 1000
        )?;
        rests(out, state.pinned_by.as_deref())?;
    }
    Ok(())
}

/// What has gone.
pub(crate) fn pruned(out: &mut dyn Write, pruned: &Pruned, states: &Removed) -> io::Result<()> {
    let freed: u64 = pruned.removed.iter().map(|item| item.size).sum();
    let of_states: u64 = states.removed.iter().map(|state| state.size).sum();
    writeln!(
        out,
        "removed {} ({}), {} left",
        pruned.removed.len() + states.removed.len(),
        ByteSize(freed.saturating_add(of_states)),
        ByteSize(pruned.left.saturating_add(states.left))
    )?;
    for state in &states.kept {
        writeln!(out, "in use: {}", Escaped(&state.text))?;
        rests(out, state.pinned_by.as_deref())?;
    }
    for item in &pruned.kept {
        writeln!(out, "in use: {}", Escaped(&item.url))?;
        rests(out, item.pinned_by.as_deref())?;
    }
    Ok(())
}
