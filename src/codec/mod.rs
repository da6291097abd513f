//! Compression of exactly one cluster.
//!
//! Knows the two encodings a compressed qcow2 cluster may have, raw deflate
//! (RFC 1951) and zstd (RFC 8878), what QEMU's readers accept of them, and that
//! a cluster decodes to its full length or not at all. Must not know where a
//! stream lies in a file, how its descriptor is packed, or what runs on which
//! thread: an [`Encoder`] and a [`Decoder`] belong to one worker each.
//!
//! Encoded bytes are a function of the input and the [`EncoderOptions`] alone,
//! never of what the same encoder saw before, so that an image comes out equal
//! whichever worker took which cluster.

mod deflate;
pub mod window;
mod zstd;

use std::error::Error as StdError;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// How the compressed clusters of an image are encoded.
///
/// The header field of the same name, `docs/interop/qcow2.rst` of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompressionType {
    /// A raw deflate stream; QEMU calls it zlib.
    Zlib,
    /// One or more zstd frames.
    Zstd,
}

impl CompressionType {
    /// The type a header's `compression_type` byte names, if this crate knows it.
    pub fn from_header(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Zlib),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The header's `compression_type` byte.
    pub fn to_header(self) -> u8 {
        match self {
            Self::Zlib => 0,
            Self::Zstd => 1,
        }
    }
}

impl fmt::Display for CompressionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        })
    }
}

impl FromStr for CompressionType {
    type Err = Error;

    /// Reads qemu-img's spelling; anything else is a usage error.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "zlib" => Ok(Self::Zlib),
            "zstd" => Ok(Self::Zstd),
            _ => Err(
                Error::usage(format!("'{text}' is not a compression type of qcow2"))
                    .with_remedy("use zlib or zstd"),
            ),
        }
    }
}

/// How far back a deflate stream may refer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DeflateWindow {
    /// 32 KiB, all of RFC 1951: smaller output, and what QEMU reads, but not
    /// what a reader that inflates piece by piece with a 4 KiB window reads.
    #[default]
    Full,
    /// 4 KiB, what QEMU writes and every reader reads.
    FourKiB,
}

/// How clusters are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderOptions {
    /// The encoding.
    pub codec: CompressionType,
    /// Effort, in the scale of the codec: zlib 1 to 12 (1 to 9 with the 4 KiB
    /// window), zstd 1 to 22. `None` is 6 for zlib and 4 for zstd.
    pub level: Option<u8>,
    /// The reach of deflate's references; without effect on zstd.
    pub window: DeflateWindow,
}

impl EncoderOptions {
    /// The level in effect: as asked for, or the default of the codec.
    ///
    /// # Errors
    ///
    /// A usage error when the codec has no such level.
    pub fn effective_level(&self) -> Result<u8> {
        let (default, greatest, name) = match (self.codec, self.window) {
            (CompressionType::Zlib, DeflateWindow::Full) => (6, 12, "zlib"),
            (CompressionType::Zlib, DeflateWindow::FourKiB) => (6, 9, "zlib with a 4 KiB window"),
            (CompressionType::Zstd, _) => (4, 22, "zstd"),
        };
        match self.level {
            None => Ok(default),
            Some(level) if (1..=greatest).contains(&level) => Ok(level),
            Some(level) => Err(Error::usage(format!("{name} has no level {level}"))
                .with_remedy(format!("use a level from 1 to {greatest}"))),
        }
    }
}

/// Encodes clusters, one after the other, with state that is set up once.
#[derive(Debug)]
pub struct Encoder {
    cluster_size: usize,
    engine: Engine,
}

#[derive(Debug)]
enum Engine {
    Deflate(deflate::Encoder),
    Zstd(zstd::Encoder),
}

impl Encoder {
    /// An encoder for clusters of `cluster_size` bytes.
    ///
    /// # Errors
    ///
    /// A usage error when the codec has no such level.
    pub fn new(options: &EncoderOptions, cluster_size: usize) -> Result<Self> {
        let level = options.effective_level()?;
        let engine = match options.codec {
            CompressionType::Zlib => Engine::Deflate(deflate::Encoder::new(level, options.window)?),
            CompressionType::Zstd => Engine::Zstd(zstd::Encoder::new(level, cluster_size)?),
        };
        Ok(Self {
            cluster_size,
            engine,
        })
    }

    /// Appends the encoded cluster to `out` and returns its length in bytes;
    /// `None`, with `out` as it was, when it would be longer than `limit`.
    ///
    /// # Errors
    ///
    /// A usage error when `cluster` is not exactly one cluster (its stream
    /// would yield too few bytes), an I/O error when the host is out of memory.
    pub fn encode(
        &mut self,
        cluster: &[u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>> {
        if cluster.len() != self.cluster_size {
            return Err(Error::usage(format!(
                "{} bytes are not one cluster of {} bytes",
                cluster.len(),
                self.cluster_size
            )));
        }
        let encoded = match &mut self.engine {
            Engine::Deflate(encoder) => encoder.encode(cluster, limit)?,
            Engine::Zstd(encoder) => encoder.encode(cluster, limit)?,
        };
        Ok(encoded.map(|bytes| {
            out.extend_from_slice(bytes);
            bytes.len()
        }))
    }
}

/// Decodes clusters, one after the other, with state that is set up once.
///
/// Accepts whatever QEMU accepts. A stream is hostile input: memory is bounded
/// by the decoder's own fixed state, time by the lengths of the two buffers.
#[derive(Debug, Default)]
pub struct Decoder {
    deflate: deflate::Decoder,
    zstd: zstd::Decoder,
}

impl Decoder {
    /// A decoder for clusters of any size and either codec.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes exactly one cluster, so that `cluster` is filled to its end;
    /// `stored` may go on with foreign bytes after the stream.
    ///
    /// # Errors
    ///
    /// What is wrong with the stream; the contents of `cluster` are then
    /// unspecified.
    pub fn decode(
        &mut self,
        codec: CompressionType,
        stored: &[u8],
        cluster: &mut [u8],
    ) -> Result<(), DecodeError> {
        match codec {
            CompressionType::Zlib => self.deflate.decode(stored, cluster),
            CompressionType::Zstd => self.zstd.decode(stored, cluster).map(drop),
        }
    }

    /// Decodes like [`Decoder::decode`] and returns how many bytes of `stored`
    /// the stream occupies: what has to be kept when it is copied as it is.
    ///
    /// `None` says that the cluster is sound but its stream has no end of its
    /// own: QEMU reads a deflate stream only up to the end of the cluster, so
    /// what follows belongs to the stream as far as one can tell.
    ///
    /// For zstd this costs nothing more than `decode`; for zlib it takes a
    /// slower decoder, at about two thirds of the speed.
    ///
    /// # Errors
    ///
    /// As for [`Decoder::decode`].
    pub fn decode_exact(
        &mut self,
        codec: CompressionType,
        stored: &[u8],
        cluster: &mut [u8],
    ) -> Result<Option<usize>, DecodeError> {
        match codec {
            CompressionType::Zlib => self.deflate.decode_exact(stored, cluster),
            CompressionType::Zstd => self.zstd.decode(stored, cluster).map(Some),
        }
    }

    /// Whether `stored` holds a stream that ends in it and fills `cluster` exactly; decodes it.
    ///
    /// As fast as [`Decoder::decode`]; what QEMU accepts beyond that is false here.
    pub fn decode_terminated(
        &mut self,
        codec: CompressionType,
        stored: &[u8],
        cluster: &mut [u8],
    ) -> bool {
        match codec {
            CompressionType::Zlib => self.deflate.decode_terminated(stored, cluster),
            CompressionType::Zstd => self.zstd.decode(stored, cluster).is_ok(),
        }
    }

    /// Where the stream ends, in bytes from the start of `stored`, found
    /// without decoding it: zstd frames with content sizes that add up to
    /// exactly `cluster_len` bytes. `None` when the format does not tell (any
    /// deflate stream, see [`window::walk`]) or the frames are not sound.
    ///
    /// Reads the frames' outlines only: a stream whose end is known may still
    /// fail to decode.
    pub fn stream_end(
        &mut self,
        codec: CompressionType,
        stored: &[u8],
        cluster_len: usize,
    ) -> Option<usize> {
        match codec {
            CompressionType::Zlib => None,
            CompressionType::Zstd => zstd::stream_end(stored, cluster_len),
        }
    }
}

/// What is wrong with a stored cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The stream yields fewer bytes than a cluster has.
    EndsEarly {
        /// How many bytes it yields.
        got: usize,
        /// How many bytes the cluster has.
        want: usize,
    },
    /// The stream breaks the rules of its format, as described.
    Invalid(&'static str),
    /// A zstd frame yields more bytes than are left of the cluster.
    TooLong,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndsEarly { got, want } => {
                write!(f, "the compressed stream ends after {got} of {want} bytes")
            }
            Self::Invalid(what) => write!(f, "the compressed stream is invalid: {what}"),
            Self::TooLong => f.write_str("the compressed stream yields more than one cluster"),
        }
    }
}

impl StdError for DecodeError {}

#[cfg(test)]
mod tests;
