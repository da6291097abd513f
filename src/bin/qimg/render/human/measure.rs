//! `measure` in qemu-img's words.

use std::io::{self, Write};

use qimg::image::measure::Measurement;

pub(crate) fn print(out: &mut dyn Write, measurement: &Measurement) -> io::Result<()> {
    writeln!(out, "required size: {}", measurement.required)?;
    writeln!(out, "fully allocated size: {}", measurement.fully_allocated)?;
    match measurement.bitmaps {
        Some(bytes) => writeln!(out, "bitmaps size: {bytes}"),
        None => Ok(()),
    }
}
