//! Codecs that pack pieces of a stream side by side: gzip and bzip2.
//!
//! Knows how pieces of the same length are joined into one stream. A piece depends on nothing but its bytes, its place
//! and the end of the one before it; so no byte depends on the number of threads.

use std::io::{self, Write};

use flate2::{Compress, Compression, FlushCompress, Status};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Back-references of deflate reach no further.
const WINDOW: usize = 32 << 10;

/// Of gzip. Large enough that what joins pieces costs nothing, small enough for many threads.
const GZIP_PIECE: usize = 512 << 10;

/// How pieces are packed.
#[derive(Debug)]
enum Packer {
    /// One member: its pieces are joined by empty stored blocks, and each may refer to the end of the one before.
    Gzip { level: u32, sum: crc32fast::Hasher },
    /// One stream after another, each of one block.
    Bzip2 { level: u32 },
}

/// Packs what is written to it.
#[derive(Debug)]
pub(super) struct Chunked<W> {
    inner: W,
    packer: Packer,
    pool: ThreadPool,
    length: usize,
    batch: Vec<Vec<u8>>,
    current: Vec<u8>,
    /// The end of the last piece of the batch before.
    tail: Vec<u8>,
    total: u64,
}

impl<W: Write> Chunked<W> {
    /// gzip, level 1 to 9.
    pub fn gzip(mut inner: W, level: u32, threads: usize) -> io::Result<Self> {
        // No name, no time; "unknown" for the system.
        let hint = match level {
            9 => 2,
            1 => 4,
            _ => 0,
        };
        inner.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, hint, 255])?;
        let sum = crc32fast::Hasher::new();
        Self::new(inner, Packer::Gzip { level, sum }, GZIP_PIECE, threads)
    }

    /// bzip2, level 1 to 9.
    pub fn bzip2(inner: W, level: u32, threads: usize) -> io::Result<Self> {
        let block = 100_000 * level as usize;
        Self::new(inner, Packer::Bzip2 { level }, block, threads)
    }

    fn new(inner: W, packer: Packer, length: usize, threads: usize) -> io::Result<Self> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .build()
            .map_err(io::Error::other)?;
        Ok(Self {
            inner,
            packer,
            pool,
            length,
            batch: Vec::new(),
            current: Vec::with_capacity(length),
            tail: Vec::new(),
            total: 0,
        })
    }

    /// Packs what is left, and ends the stream.
    pub fn finish(mut self) -> io::Result<W> {
        let last = std::mem::take(&mut self.current);
        if !last.is_empty() || self.total == 0 && self.batch.is_empty() {
            self.batch.push(last);
        }
        self.pack(true)?;
        if let Packer::Gzip { sum, .. } = &self.packer {
            let length = self.total as u32;
            self.inner
                .write_all(&sum.clone().finalize().to_le_bytes())?;
            self.inner.write_all(&length.to_le_bytes())?;
        }
        Ok(self.inner)
    }

    fn pack(&mut self, last: bool) -> io::Result<()> {
        let batch = std::mem::take(&mut self.batch);
        let tail = std::mem::take(&mut self.tail);
        let count = batch.len();
        match &mut self.packer {
            Packer::Gzip { level, sum } => {
                let level = *level;
                let packed: Vec<_> = self.pool.install(|| {
                    batch
                        .par_iter()
                        .enumerate()
                        .map(|(at, piece)| {
                            let before = if at == 0 { &tail } else { &batch[at - 1] };
                            let before = &before[before.len().saturating_sub(WINDOW)..];
                            deflate(piece, before, level, last && at + 1 == count)
                        })
                        .collect()
                });
                for piece in packed {
                    let (bytes, piece_sum) = piece?;
                    sum.combine(&piece_sum);
                    self.inner.write_all(&bytes)?;
                }
                // The last batch may have been empty already.
                if last && count == 0 {
                    self.inner.write_all(&[0x03, 0x00])?;
                }
            }
            Packer::Bzip2 { level } => {
                let level = *level;
                let packed: Vec<_> = self
                    .pool
                    .install(|| batch.par_iter().map(|piece| bzip2(piece, level)).collect());
                for piece in packed {
                    let piece: Vec<u8> = piece?;
                    self.inner.write_all(&piece)?;
                }
            }
        }
        self.total += batch.iter().map(|piece| piece.len() as u64).sum::<u64>();
        if let Some(piece) = batch.last() {
            self.tail = piece[piece.len().saturating_sub(WINDOW)..].to_vec();
        } else {
            self.tail = tail;
        }
        Ok(())
    }
}

impl<W: Write> Write for Chunked<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let taken = buf.len().min(self.length - self.current.len());
        self.current.extend_from_slice(&buf[..taken]);
        if self.current.len() == self.length {
            let next = Vec::with_capacity(self.length);
            self.batch.push(std::mem::replace(&mut self.current, next));
            if self.batch.len() >= self.pool.current_num_threads() * 4 {
                self.pack(false)?;
            }
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn deflate(
    piece: &[u8],
    before: &[u8],
    level: u32,
    last: bool,
) -> io::Result<(Vec<u8>, crc32fast::Hasher)> {
    let mut sum = crc32fast::Hasher::new();
    sum.update(piece);
    let mut compress = Compress::new(Compression::new(level), false);
    if !before.is_empty() {
        compress.set_dictionary(before).map_err(io::Error::other)?;
    }
    let flush = if last {
        FlushCompress::Finish
    } else {
        FlushCompress::Sync
    };
    let mut bytes = Vec::with_capacity(piece.len() / 2 + 1024);
    loop {
        let taken = usize::try_from(compress.total_in()).unwrap_or(piece.len());
        bytes.reserve(64 << 10);
        let status = compress
            .compress_vec(&piece[taken..], &mut bytes, flush)
            .map_err(io::Error::other)?;
        let all = compress.total_in() == piece.len() as u64;
        // Room that is left says that nothing waits to be written.
        let done = match status {
            Status::StreamEnd => true,
            _ => !last && all && bytes.len() < bytes.capacity(),
        };
        if done {
            return Ok((bytes, sum));
        }
    }
}

fn bzip2(piece: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(level));
    encoder.write_all(piece)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn sample(length: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let run = (state >> 28) as usize + 1;
            bytes.extend(std::iter::repeat_n((state >> 16) as u8, run));
        }
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn any_length_comes_out_as_it_went_in_whatever_the_number_of_threads() {
        let lengths = [
            0,
            1,
            GZIP_PIECE - 1,
            GZIP_PIECE,
            GZIP_PIECE + 1,
            9 * GZIP_PIECE,
            5_000_000,
        ];
        for length in lengths {
            let bytes = sample(length);
            let gzip = |threads| {
                let mut writer = Chunked::gzip(Vec::new(), 6, threads).unwrap();
                writer.write_all(&bytes).unwrap();
                writer.finish().unwrap()
            };
            let packed = gzip(1);
            assert_eq!(packed, gzip(3));
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&packed[..])
                .read_to_end(&mut unpacked)
                .unwrap();
            assert!(unpacked == bytes, "{length}");
            let bzip2 = |threads| {
                let mut writer = Chunked::bzip2(Vec::new(), 1, threads).unwrap();
                writer.write_all(&bytes).unwrap();
                writer.finish().unwrap()
            };
            let packed = bzip2(1);
            assert_eq!(packed, bzip2(3));
            let mut unpacked = Vec::new();
            bzip2::read::MultiBzDecoder::new(&packed[..])
                .read_to_end(&mut unpacked)
                .unwrap();
            assert!(unpacked == bytes, "{length}");
        }
    }
}
