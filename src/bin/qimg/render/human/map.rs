//! `map` in qemu-img's columns, or as its JSON: one entry a line.

use std::io::{self, Write};

use qimg::error::Escaped;
use qimg::image::{Chain, MapEntry};

use crate::render::Output;

/// Prints entries as they come: a map may be longer than memory.
pub(crate) struct Table<'a, 'b> {
    out: &'a mut Output<'b>,
    json: bool,
    empty: bool,
    /// The images of the chain, for entries that do not name their file.
    images: Vec<String>,
}

impl<'a, 'b> Table<'a, 'b> {
    pub(crate) fn new(out: &'a mut Output<'b>, chain: &Chain, json: bool) -> io::Result<Self> {
        if json {
            write!(out, "[")?;
        } else {
            writeln!(
                out,
                "{:<16}{:<16}{:<16}File",
                "Offset", "Length", "Mapped to"
            )?;
        }
        Ok(Self {
            out,
            json,
            empty: true,
            images: chain
                .paths()
                .map(|(path, _)| path.to_string_lossy().into_owned())
                .collect(),
        })
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.out.is_closed()
    }

    pub(crate) fn entry(&mut self, entry: &MapEntry) -> io::Result<()> {
        if self.json {
            if !self.empty {
                writeln!(self.out, ",")?;
            }
            self.empty = false;
            return json(self.out, entry);
        }
        if !entry.data || entry.zero {
            return Ok(());
        }
        let place = match entry.offset {
            Some(offset) => hex(offset),
            None if entry.compressed => "compressed".to_owned(),
            None => "encrypted".to_owned(),
        };
        let image = self.images.get(entry.depth as usize);
        let file = match &entry.file {
            Some(path) => path.to_string_lossy(),
            None => image.map_or("", String::as_str).into(),
        };
        let (start, length) = (hex(entry.start), hex(entry.length));
        writeln!(
            self.out,
            "{start:<16}{length:<16}{place:<16}{}",
            Escaped(&file)
        )
    }

    pub(crate) fn end(self) -> io::Result<()> {
        if self.json {
            writeln!(self.out, "]")
        } else {
            Ok(())
        }
    }
}

/// As C prints it: zero has no `0x`.
fn hex(number: u64) -> String {
    if number == 0 {
        "0".to_owned()
    } else {
        format!("{number:#x}")
    }
}

fn json(out: &mut dyn Write, entry: &MapEntry) -> io::Result<()> {
    let MapEntry {
        start,
        length,
        depth,
        present,
        zero,
        data,
        compressed,
        ..
    } = entry;
    write!(
        out,
        "{{ \"start\": {start}, \"length\": {length}, \"depth\": {depth}, \"present\": {present}, \
         \"zero\": {zero}, \"data\": {data}, \"compressed\": {compressed}"
    )?;
    if let Some(offset) = entry.offset {
        write!(out, ", \"offset\": {offset}")?;
    }
    write!(out, "}}")
}
