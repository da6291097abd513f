//! What is published: a file that stays as it is, with its digests.
//!
//! Knows bytes of the host and their digests, whole and in parts. Must not know where they go.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::attend::{Event, Work, attended};
use super::courier::Again;
use crate::communicator::Stop;
use crate::digest::{Digest, DigestKind, Digester};
use crate::error::{Error, Result};
use crate::store::{HostFile, Kind, Locking, ReadAt, look};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// A file of the host that is to be published, held as long as this lives: whoever writes images by their locks does not
/// write this one.
#[derive(Debug)]
pub struct Original {
    file: HostFile,
    path: PathBuf,
    length: u64,
    sha256: Digest,
    md5: Digest,
    part_size: u64,
    part_md5: Vec<Digest>,
}

impl Original {
    /// Opens `path` and makes its digests, also of each part of `part_size` bytes.
    ///
    /// # Errors
    /// It is no regular file, is empty, in use, or cannot be read; [`Cancelled`](crate::ErrorKind::Cancelled).
    pub fn read(
        path: impl AsRef<Path>,
        part_size: u64,
        stop: &Stop,
        tell: &mut dyn FnMut(Event),
    ) -> Result<Self> {
        let path = path.as_ref();
        match look(path)? {
            Some(seen) if seen.kind == Kind::File => {}
            Some(_) => {
                return Err(Error::usage("is no regular file")
                    .with_remedy("name the image itself, not its directory")
                    .at_path(path));
            }
            None => return Err(Error::usage("is not there").at_path(path)),
        }
        if part_size == 0 {
            return Err(Error::usage("parts of no bytes"));
        }
        let file = HostFile::open_read(path, Locking::Check)?;
        attended(stop, tell, |work| {
            Self::digested(file, path, part_size, work)
        })
    }

    fn digested(file: HostFile, path: &Path, part_size: u64, work: &Work) -> Result<Self> {
        let length = file.len()?;
        if length == 0 {
            return Err(Error::usage("is empty").at_path(path));
        }
        work.begin(format!("read {}", path.display()), length);
        let mut whole = [
            Digester::new(&[DigestKind::Sha256]),
            Digester::new(&[DigestKind::Md5]),
        ];
        let mut part = Digester::new(&[DigestKind::Md5]);
        let mut part_md5 = Vec::new();
        let mut buffer = vec![0; PIECE];
        let mut at = 0;
        while at < length {
            work.go_on()?;
            let left = (length - at).min(part_size - at % part_size);
            let bytes = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
            let Some(bytes) = buffer.get_mut(..bytes) else {
                break;
            };
            file.read_exact_at(bytes, at)?;
            let bytes = &*bytes;
            let [sha256, md5] = &mut whole;
            rayon::join(
                || sha256.update(bytes),
                || {
                    md5.update(bytes);
                    part.update(bytes);
                },
            );
            at += bytes.len() as u64;
            if at % part_size == 0 || at == length {
                let ended = std::mem::replace(&mut part, Digester::new(&[DigestKind::Md5]));
                part_md5.extend(ended.finish());
            }
            work.advance(bytes.len() as u64);
        }
        let mut digests = whole.into_iter().flat_map(Digester::finish);
        let (Some(sha256), Some(md5)) = (digests.next(), digests.next()) else {
            return Err(Error::usage("no digest was made").at_path(path));
        };
        Ok(Self {
            file,
            path: path.to_owned(),
            length,
            sha256,
            md5,
            part_size,
            part_md5,
        })
    }

    /// Its path, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name without directories.
    pub fn name(&self) -> String {
        self.path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    /// In bytes, at least 1.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Of the whole file.
    pub fn sha256(&self) -> &Digest {
        &self.sha256
    }

    /// Of the whole file.
    pub fn md5(&self) -> &Digest {
        &self.md5
    }

    /// Bytes of a part; the last one may have fewer.
    pub fn part_size(&self) -> u64 {
        self.part_size
    }

    /// MD5 of each part.
    pub fn part_md5(&self) -> &[Digest] {
        &self.part_md5
    }

    /// First byte and length of a part, from 0 on.
    pub fn part(&self, number: usize) -> (u64, u64) {
        let start = (number as u64)
            .saturating_mul(self.part_size)
            .min(self.length);
        (start, self.part_size.min(self.length - start))
    }

    /// The bytes from `start` on, `length` of them, counted while they are read.
    pub(super) fn stretch<'a>(&'a self, start: u64, length: u64, work: &'a Work) -> Stretch<'a> {
        let start = start.min(self.length);
        Stretch {
            original: self,
            start,
            length: length.min(self.length - start),
            work,
        }
    }

    /// Everything in it, in order.
    pub(super) fn store(&self) -> &HostFile {
        &self.file
    }

    /// Makes sure that a part is what it was when its digest was made.
    ///
    /// # Errors
    /// It is not.
    pub fn check_part(&self, number: usize) -> Result<()> {
        let (start, length) = self.part(number);
        let mut digester = Digester::new(&[DigestKind::Md5]);
        let mut buffer = vec![0; PIECE];
        let mut at = start;
        while at < start + length {
            let left = usize::try_from(start + length - at).map_or(PIECE, |left| left.min(PIECE));
            let Some(bytes) = buffer.get_mut(..left) else {
                break;
            };
            self.file.read_exact_at(bytes, at)?;
            digester.update(bytes);
            at += bytes.len() as u64;
        }
        if digester.finish().first() != self.part_md5.get(number) {
            return Err(Error::usage("has changed while it was being published")
                .with_remedy("publish it again when nobody writes it")
                .at_path(&self.path));
        }
        Ok(())
    }
}

/// Bytes of an original, to be sent as often as it takes.
pub(super) struct Stretch<'a> {
    original: &'a Original,
    start: u64,
    length: u64,
    work: &'a Work,
}

impl Again for Stretch<'_> {
    fn length(&self) -> u64 {
        self.length
    }

    fn reader(&self) -> Box<dyn Read + '_> {
        Box::new(Counted {
            original: self.original,
            at: self.start,
            end: self.start + self.length,
            counted: 0,
            work: self.work,
        })
    }
}

/// Reads a part of an original, and counts for as long as it is on its way.
struct Counted<'a> {
    original: &'a Original,
    at: u64,
    end: u64,
    counted: u64,
    work: &'a Work,
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let left =
            usize::try_from(self.end - self.at).map_or(buf.len(), |left| left.min(buf.len()));
        let Some(bytes) = buf.get_mut(..left.min(PIECE)) else {
            return Ok(0);
        };
        if bytes.is_empty() {
            return Ok(0);
        }
        self.original
            .file
            .read_exact_at(bytes, self.at)
            .map_err(std::io::Error::other)?;
        self.at += bytes.len() as u64;
        self.counted += bytes.len() as u64;
        self.work.advance(bytes.len() as u64);
        Ok(bytes.len())
    }
}

/// Whether what was read has arrived is for others to say, who count it once more.
impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.work.retreat(self.counted);
    }
}
