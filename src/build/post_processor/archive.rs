//! Several files in one: tar and zip.
//!
//! Knows what is written of a file besides its bytes: its name and length, and nothing that differs from one machine, user
//! or hour to another.

use std::io::{self, Seek, Write};

use ::tar::{Builder, EntryType, Header};
use ::zip::write::SimpleFileOptions;
use ::zip::{CompressionMethod, DateTime, ZipWriter};

use super::compress::Input;

/// The time of every file: the beginning of 1980, before which a zip knows none. Seconds since 1970.
const TIME: u64 = 315_532_800;

/// Above this a zip needs its longer fields; what packs badly becomes a little longer.
const LARGE: u64 = 0xf000_0000;

/// A tar archive of the files; the writer is given back with the end mark written.
pub(super) fn tar<'a, W: Write>(
    inputs: impl Iterator<Item = io::Result<Input<'a>>>,
    writer: W,
) -> io::Result<W> {
    let mut archive = Builder::new(writer);
    for input in inputs {
        let input = input?;
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(TIME);
        header.set_size(input.length);
        archive.append_data(&mut header, &input.name, input.reader)?;
    }
    archive.into_inner()
}

/// A zip archive of the files.
pub(super) fn zip<'a, W: Write + Seek>(
    inputs: impl Iterator<Item = io::Result<Input<'a>>>,
    writer: W,
    level: i32,
) -> io::Result<W> {
    let mut archive = ZipWriter::new(writer);
    for input in inputs {
        let mut input = input?;
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .compression_level(Some(i64::from(level)))
            .last_modified_time(DateTime::default())
            .unix_permissions(0o644)
            .large_file(input.length >= LARGE);
        archive.start_file(input.name.as_str(), options)?;
        io::copy(&mut input.reader, &mut archive)?;
    }
    Ok(archive.finish()?)
}
