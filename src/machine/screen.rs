//! The guest's screen, as a picture and as text.
//!
//! Knows QEMU's `screendump`, and the text memory of a PC. Must not know why somebody looks.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::error::{Error, ErrorKind, Result};
use crate::store::{read_file, write_file};

use super::log::take;
use super::qmp::{Qmp, SOON};

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
    let mut lines: Vec<String> = characters.chunks(COLUMNS).map(line).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
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
