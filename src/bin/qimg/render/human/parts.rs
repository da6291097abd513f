//! The table of a disk's parts: what each is, what it uses, what of it is dropped or why nothing is.

use std::io::{self, Write};

use qimg::error::Escaped;
use qimg::survey::{Part, Survey};
use qimg::units::ByteSize;
use serde::Serialize;

/// Prints one line for each part; the last column is what is, or would be, dropped, or else the UUID.
pub(crate) fn table(out: &mut dyn Write, survey: &Survey, drops: bool) -> io::Result<()> {
    let mut rows = vec![
        [
            "PART",
            "TYPE",
            "FILESYSTEM",
            "LABEL",
            "SIZE",
            "USED",
            "FREE",
            if drops { "DROPPED" } else { "UUID" },
        ]
        .map(ToOwned::to_owned)
        .to_vec(),
    ];
    rows.extend(survey.parts.iter().map(|part| row(part, drops)));
    let columns = 8;
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    for (index, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            // Numbers stand to the right.
            if column >= 4 && (drops || column < 7) {
                line.push_str(&pad);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&pad);
            }
            line.push_str("  ");
        }
        if let Some(part) = index.checked_sub(1).and_then(|part| survey.parts.get(part)) {
            line.push_str(&remark(part));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    if let Some(stopped) = &survey.stopped {
        writeln!(out, "nothing is dropped: {}", Escaped(&stopped.to_string()))?;
    }
    for note in &survey.table.notes {
        writeln!(out, "partition table: {}", Escaped(note))?;
    }
    Ok(())
}

fn row(part: &Part, drops: bool) -> Vec<String> {
    let none = || "-".to_owned();
    let size = |bytes: u64| ByteSize(bytes).to_string();
    let identity = part.identity.as_ref();
    vec![
        Escaped(&part.name).to_string(),
        part.partition
            .as_ref()
            .map_or_else(none, |partition| partition.kind.name().to_string()),
        identity.map_or_else(none, |identity| match &identity.version {
            // ext2, ext3 and ext4 are all of version 1.0.
            Some(version) if !identity.kind.starts_with("ext") => {
                format!("{} {}", identity.kind, Escaped(version))
            }
            _ => identity.kind.to_owned(),
        }),
        identity
            .and_then(|identity| identity.label.as_deref())
            .or_else(|| part.partition.as_ref()?.label.as_deref())
            .filter(|label| !label.is_empty())
            .map_or_else(none, |label| Escaped(label).to_string()),
        size(part.size),
        part.used().map_or_else(none, size),
        part.free.map_or_else(none, size),
        if drops {
            size(part.dropped)
        } else {
            identity
                .and_then(|identity| identity.uuid.as_deref())
                .map_or_else(none, |uuid| Escaped(uuid).to_string())
        },
    ]
}

/// Why nothing of a part is dropped, or what else there is to say of it.
fn remark(part: &Part) -> String {
    match (&part.kept, &part.note) {
        (Some(refusal), _) => format!("kept: {}", Escaped(&refusal.to_string())),
        (None, Some(note)) => Escaped(note).to_string(),
        (None, None) if part.free.is_some() => "clean".to_owned(),
        (None, None) => String::new(),
    }
}

/// Says in one line each why parts with a filesystem were kept whole although that was not asked for.
pub(crate) fn reasons(out: &mut dyn Write, survey: &Survey) -> io::Result<()> {
    use qimg::fs::RefusalKind::{Asked, Protected, Unknown};
    if let Some(stopped) = &survey.stopped {
        if stopped.kind != Asked {
            writeln!(out, "kept everything: {}", Escaped(&stopped.to_string()))?;
        }
        return Ok(());
    }
    for part in &survey.parts {
        let Some(refusal) = &part.kept else { continue };
        // A part without a filesystem has nothing to tell of free space.
        let nothing = matches!(refusal.kind, Unknown | Protected) && part.identity.is_none();
        if refusal.kind == Asked || nothing {
            continue;
        }
        let name = Escaped(&part.name).to_string();
        writeln!(
            out,
            "part {name}: {}; kept all of it",
            Escaped(&refusal.to_string())
        )?;
    }
    Ok(())
}

/// What was, or would be, dropped of a guest's free space.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub(crate) enum FreeSpaceReport<'a> {
    /// What is known of each part.
    Surveyed(&'a Survey),
    /// Nothing is.
    Unread {
        /// Why.
        kept: &'a str,
    },
}

/// The table of parts for a dry run, else a line for what was dropped and one for each filesystem that was kept.
pub(crate) fn free_space(
    out: &mut dyn Write,
    report: &FreeSpaceReport<'_>,
    dry_run: bool,
) -> io::Result<()> {
    match report {
        FreeSpaceReport::Unread { kept } => writeln!(out, "kept everything: {kept}"),
        FreeSpaceReport::Surveyed(survey) if dry_run => {
            writeln!(out)?;
            table(out, survey, true)?;
            writeln!(out)
        }
        FreeSpaceReport::Surveyed(survey) => {
            if survey.dropped > 0 {
                writeln!(out, "free in the guest: {}", ByteSize(survey.dropped))?;
            }
            reasons(out, survey)
        }
    }
}
