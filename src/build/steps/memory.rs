//! The memory of a machine in a file, packed and unpacked.
//!
//! Knows zstd with its checksum, which tells of every bit that is not what it was. Must not know what is in it.

use std::io::{self, Read, Write};
use std::path::Path;

use crate::communicator::Stop;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{
    HostFile, Locking, ReadAt, SequentialReader, SequentialWriter, Staged, Sync, recovered,
    remove_file,
};

/// Fast: it is packed while the build goes on.
const LEVEL: i32 = 1;
const PIECE: usize = 1 << 20;

/// Packs `from` into `to`, synced; the lengths of both. `from` is removed.
///
/// # Errors
/// The host's own; cancelled. Nothing is at `to` then.
pub(super) fn pack(from: &Path, to: &Path, stop: &Stop) -> Result<(u64, u64)> {
    let source = HostFile::open_read(from, Locking::Ignore)?;
    let unpacked = source.len()?;
    let mut reader = SequentialReader::new(&source)?;
    let staged = Staged::create_with(to, Locking::Ignore)?;
    let writer = io::BufWriter::with_capacity(PIECE, SequentialWriter::new(staged, false));
    let failed = |error| recovered("pack the memory", error).at_path(from);
    let mut encoder = zstd::stream::Encoder::new(writer, LEVEL).map_err(failed)?;
    encoder.include_checksum(true).map_err(failed)?;
    encoder
        .set_pledged_src_size(Some(unpacked))
        .map_err(failed)?;
    copy(&mut reader, &mut encoder, stop).map_err(failed)??;
    let writer = encoder.finish().map_err(failed)?;
    let writer = writer
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    let length = writer.position();
    writer.finish()?.commit(Sync::Full)?;
    remove_file(from)?;
    Ok((length, unpacked))
}

/// Unpacks `from` into a new file at `to`, which is of no use after a power loss.
///
/// # Errors
/// [`Corrupt`](ErrorKind::Corrupt): it is not what it was; the host's own; cancelled. Nothing is at `to` then.
pub(super) fn unpack(from: &Path, to: &Path, stop: &Stop) -> Result<()> {
    remove_file(to)?;
    let result = unpack_to(from, to, stop);
    if result.is_err() {
        let _ = remove_file(to);
    }
    result
}

fn unpack_to(from: &Path, to: &Path, stop: &Stop) -> Result<()> {
    let source = HostFile::open_read(from, Locking::Ignore)?;
    let reader = SequentialReader::new(&source)?;
    let damaged = |error: io::Error| {
        Error::new(ErrorKind::Corrupt, "is not what it was")
            .with_source(error)
            .at_path(from)
    };
    let mut decoder = zstd::stream::Decoder::new(reader).map_err(damaged)?;
    let file = HostFile::create_new(to)?;
    let mut writer = SequentialWriter::new(file, false);
    let mut failure = None;
    let mut to_disk = Told {
        to: &mut writer,
        failure: &mut failure,
    };
    let copied = copy(&mut decoder, &mut to_disk, stop);
    if let Some(error) = failure {
        // That the host has no room says nothing of the state.
        return Err(recovered("unpack the memory", error).at_path(to));
    }
    copied.map_err(damaged)??;
    writer.finish()?;
    Ok(())
}

/// Tells what is written wrongly from what is read wrongly.
struct Told<'a, W> {
    to: &'a mut W,
    failure: &'a mut Option<io::Error>,
}

impl<W: Write> Write for Told<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes).map_err(|error| {
            let kind = error.kind();
            // What was only interrupted is tried again.
            if kind != io::ErrorKind::Interrupted {
                *self.failure = Some(error);
            }
            kind.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn copy(from: &mut dyn Read, to: &mut dyn Write, stop: &Stop) -> io::Result<Result<()>> {
    let mut buffer = vec![0; PIECE];
    loop {
        if stop() {
            return Ok(Err(Error::cancelled()));
        }
        let read = from.read(&mut buffer)?;
        match buffer.get(..read) {
            None | Some([]) => return Ok(Ok(())),
            Some(bytes) => to.write_all(bytes)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_that_is_not_what_it_was_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(at("memory"), &bytes).unwrap();
        let (packed, unpacked) = pack(&at("memory"), &at("memory.zst"), &|| false).unwrap();
        assert_eq!(unpacked, bytes.len() as u64);
        assert_eq!(packed, at("memory.zst").metadata().unwrap().len());
        assert!(!at("memory").exists());
        unpack(&at("memory.zst"), &at("again"), &|| false).unwrap();
        assert!(std::fs::read(at("again")).unwrap() == bytes);
        let mut damaged = std::fs::read(at("memory.zst")).unwrap();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        std::fs::write(at("memory.zst"), &damaged).unwrap();
        let error = unpack(&at("memory.zst"), &at("again"), &|| false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        damaged.truncate(middle);
        std::fs::write(at("memory.zst"), &damaged).unwrap();
        assert!(unpack(&at("memory.zst"), &at("again"), &|| false).is_err());
        assert!(!at("again").exists());
        let error = pack(&at("none"), &at("memory.zst"), &|| true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
    }
}
