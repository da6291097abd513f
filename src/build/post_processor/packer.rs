//! Codecs of single files behind one face.
//!
//! Knows levels, and how each library is told to use several threads without changing a byte.

use std::io::{self, Write};

use liblzma::stream::{Check, MtStreamBuilder};

use super::chunked::Chunked;

/// A codec of single files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Gzip,
    Zstd,
    Xz,
    Bzip2,
    Lz4,
}

impl Codec {
    /// Lowest, usual and highest level.
    pub fn levels(self) -> (i32, i32, i32) {
        match self {
            Self::Gzip => (1, 6, 9),
            Self::Zstd => (1, 3, 22),
            Self::Xz => (0, 6, 9),
            Self::Bzip2 => (1, 9, 9),
            Self::Lz4 => (1, 1, 12),
        }
    }
}

/// Packs what is written to it.
pub(super) enum Packer<W: Write> {
    Pieces(Chunked<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
    Xz(liblzma::write::XzEncoder<W>),
    Lz4(lz4::Encoder<W>),
}

impl<W: Write> Packer<W> {
    /// `length` is that of what will be written, where it is known.
    pub fn new(
        codec: Codec,
        inner: W,
        level: i32,
        threads: usize,
        length: Option<u64>,
    ) -> io::Result<Self> {
        let threads = threads.max(1);
        let workers = u32::try_from(threads).unwrap_or(1);
        let plain = u32::try_from(level).unwrap_or(0);
        Ok(match codec {
            Codec::Gzip => Self::Pieces(Chunked::gzip(inner, plain, threads)?),
            Codec::Bzip2 => Self::Pieces(Chunked::bzip2(inner, plain, threads)?),
            Codec::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(inner, level)?;
                encoder.include_checksum(true)?;
                // One worker makes what many make; none would make something else.
                encoder.multithread(workers)?;
                encoder.set_pledged_src_size(length)?;
                Self::Zstd(encoder)
            }
            Codec::Xz => {
                // The length of blocks follows from the level.
                let stream = MtStreamBuilder::new()
                    .threads(workers)
                    .preset(plain)
                    .check(Check::Crc64)
                    .encoder()?;
                Self::Xz(liblzma::write::XzEncoder::new_stream(inner, stream))
            }
            Codec::Lz4 => {
                let mut builder = lz4::EncoderBuilder::new();
                builder
                    .level(plain)
                    .block_size(lz4::BlockSize::Max4MB)
                    .block_mode(lz4::BlockMode::Independent)
                    .checksum(lz4::ContentChecksum::ChecksumEnabled);
                if let Some(length) = length {
                    builder.content_size(length);
                }
                Self::Lz4(builder.build(inner)?)
            }
        })
    }

    /// Ends the stream.
    pub fn end(self) -> io::Result<W> {
        match self {
            Self::Pieces(packer) => packer.finish(),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Xz(encoder) => encoder.finish(),
            Self::Lz4(encoder) => {
                let (inner, result) = encoder.finish();
                result.map(|()| inner)
            }
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Pieces(packer) => packer,
            Self::Zstd(encoder) => encoder,
            Self::Xz(encoder) => encoder,
            Self::Lz4(encoder) => encoder,
        }
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writer().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer().flush()
    }
}
