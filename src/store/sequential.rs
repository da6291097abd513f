//! A store from its beginning to its end: for codecs and archives, which know no offsets.
//!
//! Knows holes: they are read as zeros without asking the host, and long runs of zeros are written as holes. Must not
//! know what the bytes are.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::{ReadAt, RunKind, WriteAt};
use crate::error::{Error, Result};

/// Runs of zeros shorter than this are written out.
const HOLE: usize = 64 << 10;

/// Reads a store from some offset to its end.
#[derive(Debug)]
pub struct SequentialReader<S> {
    store: S,
    at: u64,
    len: u64,
    /// The run that was found last.
    run: (RunKind, u64),
}

impl<S: ReadAt> SequentialReader<S> {
    /// From offset 0.
    ///
    /// # Errors
    /// The store does not know its length.
    pub fn new(store: S) -> Result<Self> {
        let len = store.len()?;
        Ok(Self {
            store,
            at: 0,
            len,
            run: (RunKind::Data, 0),
        })
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.at
    }
}

impl<S: ReadAt> Read for SequentialReader<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.len || buf.is_empty() {
            return Ok(0);
        }
        if self.at >= self.run.1 {
            let run = self.store.run_at(self.at).map_err(io::Error::other)?;
            self.run = (run.kind, run.end.max(self.at + 1));
        }
        let left = self.run.1.min(self.len) - self.at;
        let length = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let buf = &mut buf[..length];
        match self.run.0 {
            RunKind::Hole => buf.fill(0),
            RunKind::Data => self
                .store
                .read_exact_at(buf, self.at)
                .map_err(io::Error::other)?,
        }
        self.at += length as u64;
        Ok(length)
    }
}

/// Writes a store from some offset on. It must be empty where it has not been written to.
#[derive(Debug)]
pub struct SequentialWriter<S> {
    store: S,
    at: u64,
    sparse: bool,
}

impl<S: WriteAt> SequentialWriter<S> {
    /// From offset 0; `sparse` leaves long runs of zeros out, which [`SequentialWriter::finish`] then accounts for.
    pub fn new(store: S, sparse: bool) -> Self {
        Self {
            store,
            at: 0,
            sparse,
        }
    }

    /// The offset of the next byte.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Gives the store the length that was written, and gives it back.
    ///
    /// # Errors
    /// The host refuses.
    pub fn finish(self) -> Result<S> {
        if self.store.len()? < self.at {
            self.store.set_len(self.at)?;
        }
        Ok(self.store)
    }

    fn put(&mut self, piece: &[u8]) -> io::Result<()> {
        let hole = self.sparse && piece.len() >= HOLE && piece.iter().all(|byte| *byte == 0);
        if !hole {
            self.store
                .write_all_at(piece, self.at)
                .map_err(io::Error::other)?;
        }
        self.at += piece.len() as u64;
        Ok(())
    }
}

impl<S: WriteAt> Write for SequentialWriter<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        for piece in buf.chunks(HOLE) {
            self.put(piece)?;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: WriteAt> Seek for SequentialWriter<S> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let end = || self.store.len().map_err(io::Error::other);
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => end()?.checked_add_signed(by),
        };
        self.at = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// The failure of a store that travelled through a codec as an I/O error, or else that error as what `doing` could not
/// be done for.
pub fn recovered(doing: &str, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::io(doing, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{HostFile, Locking, Memory};

    #[test]
    fn holes_are_read_as_zeros_and_written_as_holes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sparse");
        let file = HostFile::create_new(&path).unwrap();
        let mut writer = SequentialWriter::new(&file, true);
        let zeros = vec![0; 8 << 20];
        writer.write_all(b"start").unwrap();
        writer.write_all(&zeros).unwrap();
        writer.write_all(b"end").unwrap();
        writer.write_all(&zeros).unwrap();
        let length = writer.position();
        writer.finish().unwrap();
        let file = HostFile::open_read(&path, Locking::Check).unwrap();
        assert_eq!(file.len().unwrap(), length);
        assert!(file.allocated_bytes().unwrap() < 1 << 20);
        let mut read = Vec::new();
        SequentialReader::new(&file)
            .unwrap()
            .read_to_end(&mut read)
            .unwrap();
        assert_eq!(read, [b"start", &zeros[..], b"end", &zeros[..]].concat());
    }

    #[test]
    fn a_failure_of_the_store_comes_out_as_it_went_in() {
        let memory = Memory::from(vec![1; 10]);
        let mut writer = SequentialWriter::new(memory, false);
        assert_eq!(writer.seek(SeekFrom::End(-2)).unwrap(), 8);
        assert!(writer.seek(SeekFrom::Current(-9)).is_err());
        let error = io::Error::other(Error::usage("not so"));
        assert_eq!(recovered("read", error).to_string(), "not so");
        let error = io::Error::other("plain");
        assert_eq!(recovered("read", error).to_string(), "cannot read");
    }
}
