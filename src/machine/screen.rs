//! The guest's screen, as a picture and as text.
//!
//! Knows QEMU's `screendump`, and the text memory of a PC. Must not know why somebody looks.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use serde_json::json;

use crate::error::{Error, ErrorKind, Result};
use crate::store::{read_file, write_file};

use super::log::take;
use super::qmp::{Qmp, SOON};
use super::running::Running;

/// Largest picture that is taken from QEMU, in bytes.
const LARGEST: u64 = 256 << 20;

/// Text memory of a PC: 25 lines of 80 characters, each with a byte of colours.
const TEXT_AT: u64 = 0xb8000;
const COLUMNS: usize = 80;
const LINES: usize = 25;

/// The screen as `screen.png` in `directory`, replacing the last one.
///
/// # Errors
///
/// When the machine has no screen, or QEMU cannot write there.
pub(super) fn picture(qmp: &Qmp, directory: &Path) -> Result<PathBuf> {
    let path = directory.join("screen.png");
    let raw = directory.join("screen.tmp");
    let filename = raw.to_str().ok_or_else(|| {
        Error::unsupported("a name that is no Unicode cannot be given to QEMU").at_path(&raw)
    })?;
    let png = json!({"filename": filename, "format": "png"});
    let done = qmp.execute("screendump", &png, SOON);
    if done.is_err_and(|error| error.kind() == ErrorKind::Unsupported) {
        // Built without PNG, or older than it; or there is no screen, which it says again.
        qmp.execute("screendump", &json!({"filename": filename}), SOON)?;
    }
    let failed = |cause| Error::io("read the picture", cause).at_path(&raw);
    let bytes = take(&raw, LARGEST).map_err(failed)?;
    let bytes = if bytes.starts_with(b"\x89PNG") {
        bytes
    } else {
        png_of_ppm(&bytes)?
    };
    write_file(&path, &bytes)?;
    Ok(path)
}

/// A PNG of the same picture as the PPM (P6, 8 bits a colour).
///
/// # Errors
///
/// When it is no such PPM.
pub fn png_of_ppm(ppm: &[u8]) -> Result<Vec<u8>> {
    let not = || {
        Error::new(
            ErrorKind::Unsupported,
            "QEMU's picture is of an unknown kind",
        )
    };
    let mut at = 2;
    let mut number = || {
        at += ppm
            .get(at..)?
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        let digits = ppm
            .get(at..)?
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let text = std::str::from_utf8(ppm.get(at..at + digits)?).ok()?;
        at += digits;
        text.parse::<u32>().ok()
    };
    let header = (ppm.get(..2) == Some(b"P6")).then(|| Some([number()?, number()?, number()?]));
    let [width, height, most] = header.flatten().ok_or_else(not)?;
    let pixels = ppm.get(at + 1..).ok_or_else(not)?;
    let length = u128::from(width) * u128::from(height) * 3;
    if most != 255 || width == 0 || height == 0 || pixels.len() as u128 != length {
        return Err(not());
    }
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(Cursor::new(&mut png), width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let written = encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(pixels));
    written.map_err(|cause| Error::io("make a picture", std::io::Error::other(cause)))?;
    Ok(png)
}

/// The lines of the screen without blanks at their ends, where the guest shows text; empty where it does not.
///
/// # Errors
///
/// When QEMU cannot read the guest's memory.
pub(super) fn text(qmp: &Qmp, directory: &Path) -> Result<Vec<String>> {
    let path = directory.join("text.tmp");
    let filename = path.to_str().ok_or_else(|| {
        Error::unsupported("a name that is no Unicode cannot be given to QEMU").at_path(&path)
    })?;
    let size = COLUMNS * LINES * 2;
    let arguments = json!({"val": TEXT_AT, "size": size, "filename": filename});
    qmp.execute("pmemsave", &arguments, SOON)?;
    let failed = |cause| Error::io("read the screen", cause).at_path(&path);
    let cells = take(&path, size as u64).map_err(failed)?;
    Ok(text_of(&cells))
}

/// All of the text memory: a guest may show any 25 lines of it.
const TEXT_SIZE: usize = 32 << 10;

/// The text memory of a PC, whether it is shown or not.
///
/// # Errors
///
/// When QEMU cannot read the guest's memory.
pub(super) fn text_memory(qmp: &Qmp, directory: &Path) -> Result<Vec<u8>> {
    let path = directory.join("memory.tmp");
    let filename = path.to_str().ok_or_else(|| {
        Error::unsupported("a name that is no Unicode cannot be given to QEMU").at_path(&path)
    })?;
    let arguments = json!({"val": TEXT_AT, "size": TEXT_SIZE, "filename": filename});
    qmp.execute("pmemsave", &arguments, SOON)?;
    let failed = |cause| Error::io("read the screen", cause).at_path(&path);
    take(&path, TEXT_SIZE as u64).map_err(failed)
}

/// Whether the characters of `text` stand side by side in text memory.
pub(super) fn memory_has(memory: &[u8], text: &str) -> bool {
    let wanted = text.as_bytes();
    let characters: Vec<u8> = memory.chunks_exact(2).map(|cell| cell[0]).collect();
    !wanted.is_empty()
        && characters
            .windows(wanted.len())
            .any(|window| window == wanted)
}

/// What a VGA shows: read while the machine is held, so that the guest's own use of these ports is not disturbed.
///
/// `None`: it shows graphics, or there is no VGA.
pub(super) fn shown_lines(qmp: &Qmp, directory: &Path) -> Result<Option<Vec<String>>> {
    let port = |port: u16| -> Result<Option<u8>> {
        Ok(super::typing::port_value(
            &qmp.human(&format!("i /b {port:#x}"))?,
        ))
    };
    // An index is set, its register read, and the guest's own index put back.
    let registers = |index_port: u16, wanted: &[u8]| -> Result<Option<Vec<u8>>> {
        let Some(before) = port(index_port)? else {
            return Ok(None);
        };
        let set = |index: u8| qmp.human(&format!("o /b {index_port:#x} {index:#x}"));
        let mut values = Vec::new();
        let mut read = || -> Result<bool> {
            for &index in wanted {
                set(index)?;
                let Some(value) = port(index_port + 1)? else {
                    return Ok(false);
                };
                values.push(value);
            }
            Ok(true)
        };
        let done = read();
        set(before)?;
        Ok(done?.then_some(values))
    };
    // Graphics controller, register 6: bit 0 is graphics.
    let graphics = registers(0x3ce, &[6])?;
    if graphics.is_none_or(|values| values.first().is_none_or(|value| value & 1 != 0)) {
        return Ok(None);
    }
    // CRT controller: columns less one, and where what is shown begins, in characters.
    let Some(&[columns, high, low]) = registers(0x3d4, &[0x01, 0x0c, 0x0d])?.as_deref() else {
        return Ok(None);
    };
    let start = usize::from(u16::from_be_bytes([high, low]));
    let columns = usize::from(columns) + 1;
    if !matches!(columns, 40 | 80 | 90 | 132) {
        return Ok(None);
    }
    let memory = text_memory(qmp, directory)?;
    Ok(Some(lines_from(&memory, start, columns)))
}

impl Running {
    /// What a PC shows in text mode, without empty lines at the end; `None`: it shows graphics, or nothing can be told.
    /// The guest is held for a moment.
    pub fn screen_lines(&self) -> Option<Vec<String>> {
        let _one = self.picture.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.status().ok()? == "running";
        if held {
            self.pause().ok()?;
        }
        let lines = shown_lines(self.qmp(), &self.run_directory);
        if held {
            self.resume().ok()?;
        }
        lines.ok().flatten()
    }

    /// Whether `text` stands anywhere in the text memory of a PC, shown or not.
    pub fn text_memory_has(&self, text: &str) -> bool {
        let _one = self.picture.lock().unwrap_or_else(PoisonError::into_inner);
        text_memory(self.qmp(), &self.run_directory).is_ok_and(|memory| memory_has(&memory, text))
    }
}

/// The lines that are shown of text memory, without empty ones at the end.
fn lines_from(memory: &[u8], start: usize, columns: usize) -> Vec<String> {
    let characters: Vec<u8> = memory.chunks_exact(2).map(|cell| cell[0]).collect();
    if characters.is_empty() {
        return Vec::new();
    }
    let shown: Vec<u8> = (0..columns * LINES)
        .filter_map(|at| characters.get((start + at) % characters.len()).copied())
        .collect();
    lines_of(&shown, columns)
}

fn lines_of(characters: &[u8], columns: usize) -> Vec<String> {
    let line = |line: &[u8]| {
        let letter = |&byte: &u8| {
            if matches!(byte, 0x20..=0x7e) {
                char::from(byte)
            } else {
                ' '
            }
        };
        line.iter()
            .map(letter)
            .collect::<String>()
            .trim_end()
            .to_owned()
    };
    let mut lines: Vec<String> = characters.chunks(columns).map(line).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// The lines that `cells` show; empty where they cannot be text.
fn text_of(cells: &[u8]) -> Vec<String> {
    let characters: Vec<u8> = cells.chunks_exact(2).map(|cell| cell[0]).collect();
    let printable = |byte: &&u8| matches!(byte, 0 | 0x20..=0x7e | 0xb0..=0xdf);
    let shown = characters.iter().filter(printable).count();
    let blank = characters.iter().all(|&byte| matches!(byte, 0 | b' '));
    // Memory that is no text has all kinds of bytes.
    if blank || shown * 20 < characters.len() * 19 {
        return Vec::new();
    }
    lines_of(&characters, COLUMNS)
}

/// The width and height that a PNG file says it has.
///
/// # Errors
///
/// When it is no PNG.
pub fn png_size(path: &Path) -> Result<(u32, u32)> {
    let bytes = read_file(path, LARGEST)?;
    let info = png::Decoder::new(Cursor::new(bytes))
        .read_info()
        .map_err(|cause| Error::io("read it", std::io::Error::other(cause)).at_path(path))?;
    Ok(info.info().size())
}

#[cfg(test)]
mod tests;
