//! `compare` in qemu-img's words.

use std::io::{self, Write};

use qimg::compare::Comparison;
use serde::Serialize;

/// What came of a comparison, and whether that counts as identical.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) identical: bool,
    #[serde(flatten)]
    comparison: Comparison,
    #[serde(skip)]
    strict: bool,
    #[serde(skip)]
    all: bool,
}

impl Report {
    pub(crate) fn new(comparison: Comparison, strict: bool, all: bool) -> Self {
        Self {
            identical: comparison.is_identical(strict),
            comparison,
            strict,
            all,
        }
    }

    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let found = &self.comparison;
        if found.sizes_differ() && self.strict {
            writeln!(out, "Strict mode: Image size mismatch!")?;
        } else if found.sizes_differ() && self.common_part_is_same() {
            writeln!(out, "Warning: Image size mismatch!")?;
        }
        if self.all && found.first_difference.is_some() {
            self.print_ranges(out)?;
        } else {
            match (found.first_difference, found.first_status_difference) {
                (Some(data), Some(status)) if status < data => block_status(out, status)?,
                (Some(offset), _) => writeln!(out, "Content mismatch at offset {offset}!")?,
                (None, Some(offset)) => block_status(out, offset)?,
                (None, None) => {}
            }
        }
        if self.identical {
            writeln!(out, "Images are identical.")?;
        }
        Ok(())
    }

    /// qemu-img looks at the sizes when it is through with what both disks have.
    fn common_part_is_same(&self) -> bool {
        let [first, second] = self.comparison.sizes;
        self.comparison
            .first_difference
            .is_none_or(|offset| offset >= first.min(second))
    }

    fn print_ranges(&self, out: &mut dyn Write) -> io::Result<()> {
        let found = &self.comparison;
        writeln!(out, "{:<16}Length", "Offset")?;
        for range in &found.ranges {
            writeln!(out, "{:<#16x}{:#x}", range.start, range.end - range.start)?;
        }
        if found.truncated {
            writeln!(out, "... and more")?;
        }
        writeln!(out, "{} bytes differ.", found.different_bytes)?;
        match found.first_status_difference {
            Some(offset) => block_status(out, offset),
            None => Ok(()),
        }
    }
}

fn block_status(out: &mut dyn Write, offset: u64) -> io::Result<()> {
    writeln!(out, "Strict mode: Offset {offset} block status mismatch!")
}
