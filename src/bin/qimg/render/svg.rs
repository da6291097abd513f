//! The picture of a disk as SVG: a bar of its parts, and its bytes as a grid of cells in guest order.

use std::fmt::Write;

use qimg::error::Escaped;
use qimg::survey::Survey;
use qimg::units::ByteSize;
use qimg::usage::{Tally, Usage};

const COLUMNS: usize = 64;
const CELL: usize = 14;
const MARGIN: usize = 24;
const WIDTH: usize = COLUMNS * CELL + 2 * MARGIN;
const BAR: usize = 28;

/// What the picture tells apart: a name, a colour, and how many bytes of a tally it is.
type Class = (&'static str, &'static str, fn(&Tally) -> u64);

const CLASSES: [Class; 5] = [
    ("data", "#3b6fb6", |tally| tally.data),
    ("compressed", "#3f9b6c", |tally| tally.compressed),
    ("free, but stored", "#e0a030", |tally| tally.free),
    ("partition tables", "#9a4fa3", |tally| tally.metadata),
    ("zero", "#e8eaed", |tally| tally.zero),
];

/// Draws `usage`.
pub(crate) fn picture(title: &str, usage: &Usage, survey: &Survey) -> String {
    let rows = usage.cells.len().div_ceil(COLUMNS);
    let bar_top = 64;
    let grid_top = bar_top + BAR + 40;
    let legend_top = grid_top + rows * CELL + 28;
    let parts_top = legend_top + CLASSES.len() * 20 + 16;
    let height = parts_top + (survey.parts.len() + 1) * 20 + MARGIN;
    let mut svg = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#202124\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"{MARGIN}\" y=\"32\" font-size=\"18\">{}</text>\n\
         <text x=\"{MARGIN}\" y=\"52\" fill=\"#5f6368\">{} in all; each cell is {}</text>\n",
        text(title),
        ByteSize(usage.size),
        ByteSize(usage.cell_size),
    );
    bar(&mut svg, usage, bar_top);
    for (index, cell) in usage.cells.iter().enumerate() {
        let x = MARGIN + index % COLUMNS * CELL;
        let y = grid_top + index / COLUMNS * CELL;
        stack(&mut svg, cell, x, y, CELL - 1, CELL - 1);
    }
    for (index, (name, colour, bytes)) in CLASSES.iter().enumerate() {
        let y = legend_top + index * 20;
        let _ = writeln!(
            svg,
            "<rect x=\"{MARGIN}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{}\">{name}: {}</text>",
            MARGIN + 20,
            y + 11,
            ByteSize(bytes(&usage.total)),
        );
    }
    for (index, part) in survey.parts.iter().enumerate() {
        let kind = part.identity.as_ref().map_or("", |identity| identity.kind);
        let used = part
            .used()
            .map(|used| format!(", {} used", ByteSize(used)))
            .unwrap_or_default();
        let _ = writeln!(
            svg,
            "<text x=\"{MARGIN}\" y=\"{}\">part {}: {} {kind}{used}</text>",
            parts_top + index * 20,
            text(&part.name),
            ByteSize(part.size),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// The parts side by side, as wide as they are large.
fn bar(svg: &mut String, usage: &Usage, top: usize) {
    let width = u128::try_from(WIDTH - 2 * MARGIN).unwrap_or(1);
    let place = |at: u64| {
        let x = u128::from(at) * width / u128::from(usage.size.max(1));
        MARGIN + usize::try_from(x).unwrap_or(0)
    };
    for region in &usage.regions {
        let x = place(region.start);
        let wide = place(region.start + region.size).saturating_sub(x).max(1);
        let name = region.part.as_deref().unwrap_or("");
        let colour = if region.part.is_some() {
            "#c6d4ea"
        } else {
            "#f1f3f4"
        };
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{top}\" width=\"{wide}\" height=\"{BAR}\" fill=\"{colour}\" stroke=\"#ffffff\">\
             <title>{} {}</title></rect>",
            text(if name.is_empty() {
                "between parts"
            } else {
                name
            }),
            ByteSize(region.size)
        );
        if wide > 10 * name.chars().count() && !name.is_empty() {
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\">{}</text>",
                x + 5,
                top + 19,
                text(name)
            );
        }
    }
}

/// One cell: what it holds, from left to right.
fn stack(svg: &mut String, tally: &Tally, x: usize, y: usize, width: usize, height: usize) {
    let total = u128::from(tally.total().max(1));
    let mut done = 0_u128;
    let mut left = 0;
    for (name, colour, bytes) in CLASSES {
        let bytes = bytes(tally);
        if bytes == 0 {
            continue;
        }
        done += u128::from(bytes);
        let right = usize::try_from(done * width as u128 / total).unwrap_or(width);
        // Even one byte of data shows.
        let right = right.max(left + 1).min(width);
        if right > left {
            let _ = writeln!(
                svg,
                "<rect x=\"{}\" y=\"{y}\" width=\"{}\" height=\"{height}\" fill=\"{colour}\"><title>{name}</title></rect>",
                x + left,
                right - left
            );
        }
        left = right;
    }
}

/// Text that stays text in XML, whatever is in it.
fn text(text: &str) -> String {
    let escaped = Escaped(text).to_string();
    let mut safe = String::with_capacity(escaped.len());
    for c in escaped.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            // Not all that a string may hold is allowed in XML 1.0.
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn a_name_cannot_leave_its_element() {
        assert_eq!(
            text("a<script>&\"\u{1b}"),
            format!(
                "a&lt;script&gt;&amp;&quot;{}",
                qimg::error::Escaped("\u{1b}")
            )
        );
    }
}
