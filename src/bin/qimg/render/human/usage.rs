//! `map --usage`: a disk as blocks in a terminal.

use std::io::{self, Write};

use qimg::error::Escaped;
use qimg::units::ByteSize;
use qimg::usage::{Tally, Usage};

/// Blocks in a row.
pub(crate) const COLUMNS: usize = 64;
/// Blocks of the whole picture.
pub(crate) const CELLS: usize = COLUMNS * 16;

/// What the picture tells apart: a letter, an ANSI colour, a name, and how many bytes of a tally it is.
type Class = (char, u8, &'static str, fn(&Tally) -> u64);

const CLASSES: [Class; 5] = [
    ('D', 34, "data", |tally| tally.data),
    ('C', 32, "compressed", |tally| tally.compressed),
    ('f', 33, "free, but stored", |tally| tally.free),
    ('T', 35, "partition tables", |tally| tally.metadata),
    ('.', 90, "zero", |tally| tally.zero),
];

/// Prints `usage`: coloured blocks, or letters where there are no colours.
pub(crate) fn print(out: &mut dyn Write, usage: &Usage, colours: bool) -> io::Result<()> {
    let block = |class: &Class| {
        let (letter, colour, ..) = *class;
        if colours {
            format!("\u{1b}[{colour}m\u{2588}\u{1b}[0m")
        } else {
            letter.to_string()
        }
    };
    for (row, cells) in usage.cells.chunks(COLUMNS).enumerate() {
        let offset = (row * COLUMNS) as u64 * usage.cell_size;
        write!(out, "{:>10}  ", ByteSize(offset).to_string())?;
        // One escape sequence for each run of a colour.
        for run in cells.chunk_by(|a, b| largest(a).1 == largest(b).1) {
            let Some(class) = run.first().map(largest) else {
                continue;
            };
            if colours {
                let blocks = "\u{2588}".repeat(run.len());
                write!(out, "\u{1b}[{}m{blocks}\u{1b}[0m", class.1)?;
            } else {
                write!(out, "{}", block(class).repeat(run.len()))?;
            }
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "\none block is {}, shown as what most of it is\n",
        ByteSize(usage.cell_size)
    )?;
    for class in &CLASSES {
        let (.., name, bytes) = *class;
        writeln!(
            out,
            "{} {name:<17} {:>9}",
            block(class),
            ByteSize(bytes(&usage.total)).to_string()
        )?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "{:<10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "PART", "SIZE", "DATA", "COMPRESSED", "FREE", "ZERO"
    )?;
    for region in &usage.regions {
        let tally = &region.tally;
        let size = |bytes: u64| ByteSize(bytes).to_string();
        writeln!(
            out,
            "{:<10} {:>10} {:>10} {:>10} {:>10} {:>10}",
            region
                .part
                .as_deref()
                .map_or_else(|| "-".to_owned(), |name| Escaped(name).to_string()),
            size(region.size),
            size(tally.data),
            size(tally.compressed),
            size(tally.free),
            size(tally.zero),
        )?;
    }
    Ok(())
}

/// What most of a cell is. Anything that is stored wins over zeros, so that a little data in a large disk shows.
fn largest(cell: &Tally) -> &'static Class {
    let [stored @ .., zero] = &CLASSES;
    stored
        .iter()
        .filter(|(.., bytes)| bytes(cell) > 0)
        .max_by_key(|(.., bytes)| bytes(cell))
        .unwrap_or(zero)
}
