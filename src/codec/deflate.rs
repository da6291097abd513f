//! Raw deflate (RFC 1951) for one cluster.
//!
//! Knows which library encodes with which window, and reproduces QEMU's rule
//! of reading. Must not know anything of zstd or of files.
//!
//! The full window is encoded by libdeflate, whose window cannot be narrowed;
//! the 4 KiB one by zlib-rs with `windowBits` -12, as QEMU does it with zlib.
//!
//! QEMU inflates in a single call into a buffer of one cluster and accepts the
//! result if and only if the buffer is full and no rule was broken up to there
//! (`qcow2_zlib_decompress` in `block/qcow2-threads.c`): the final block need
//! not be reached, and foreign bytes may follow it. libdeflate reads the
//! streams that do end, at almost twice the speed; whatever it refuses is
//! judged by zlib-rs.

use std::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use libdeflater::{CompressionLvl, Compressor, DecompressionError, Decompressor};

use super::{DecodeError, DeflateWindow};
use crate::error::{Error, Result};

/// log2 of the narrow window, as in QEMU's `qcow2_zlib_compress`.
const NARROW_WINDOW_BITS: u8 = 12;

pub(super) struct Encoder {
    backend: Backend,
    /// Holds one encoded cluster: the libraries want a place to write to.
    scratch: Vec<u8>,
}

enum Backend {
    Full(Compressor),
    Narrow(Compress),
}

impl Encoder {
    /// `level` is one that `EncoderOptions` admits for `window`.
    pub(super) fn new(level: u8, window: DeflateWindow) -> Result<Self> {
        let backend = match window {
            DeflateWindow::Full => {
                let level = CompressionLvl::new(i32::from(level))
                    .map_err(|_| Error::usage(format!("zlib has no level {level}")))?;
                Backend::Full(Compressor::new(level))
            }
            DeflateWindow::FourKiB => Backend::Narrow(Compress::new_with_window_bits(
                Compression::new(u32::from(level)),
                false,
                NARROW_WINDOW_BITS,
            )),
        };
        Ok(Self {
            backend,
            scratch: Vec::new(),
        })
    }

    /// The encoded cluster, or `None` when it is longer than `limit`.
    pub(super) fn encode(&mut self, cluster: &[u8], limit: usize) -> Result<Option<&[u8]>> {
        let bound = match &mut self.backend {
            Backend::Full(compressor) => compressor.deflate_compress_bound(cluster.len()),
            // zlib's most pessimistic bound adds 1/8 and 1/64.
            Backend::Narrow(_) => cluster.len() + cluster.len() / 4 + 64,
        };
        let room = match self.backend {
            Backend::Full(_) => limit.min(bound),
            // zlib-rs 0.6 keeps a trace of a stream that found no room, even over a reset.
            Backend::Narrow(_) => bound,
        };
        if self.scratch.len() < room {
            self.scratch.resize(room, 0);
        }
        let room = &mut self.scratch[..room];
        let len = match &mut self.backend {
            // Its only error is the lack of room.
            Backend::Full(compressor) => compressor.deflate_compress(cluster, room).ok(),
            Backend::Narrow(compress) => deflate_at_once(compress, cluster, room)?,
        };
        Ok(len
            .filter(|&len| len <= limit)
            .map(|len| &self.scratch[..len]))
    }
}

/// The length of the whole stream in `room`, or `None` when it does not fit.
fn deflate_at_once(
    compress: &mut Compress,
    cluster: &[u8],
    room: &mut [u8],
) -> Result<Option<usize>> {
    compress.reset();
    let status = compress
        .compress(cluster, room, FlushCompress::Finish)
        .map_err(|error| Error::io("deflate a cluster", error.into()))?;
    Ok(match status {
        Status::StreamEnd => usize::try_from(compress.total_out()).ok(),
        Status::Ok | Status::BufError => None,
    })
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backend = match &self.backend {
            Backend::Full(_) => "libdeflate",
            Backend::Narrow(_) => "zlib-rs",
        };
        f.debug_struct("Encoder")
            .field("backend", &backend)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
pub(super) struct Decoder {
    fast: Decompressor,
    /// Most decoders never need it.
    faithful: Option<Decompress>,
}

impl Decoder {
    pub(super) fn decode(&mut self, stored: &[u8], cluster: &mut [u8]) -> Result<(), DecodeError> {
        match self.fast.deflate_decompress(stored, cluster) {
            Ok(got) if got == cluster.len() => Ok(()),
            Ok(got) => Err(DecodeError::EndsEarly {
                got,
                want: cluster.len(),
            }),
            // It wants to see the final block end where QEMU does not.
            Err(DecompressionError::BadData | DecompressionError::InsufficientSpace) => {
                self.decode_exact(stored, cluster).map(drop)
            }
        }
    }

    pub(super) fn decode_terminated(&mut self, stored: &[u8], cluster: &mut [u8]) -> bool {
        self.fast
            .deflate_decompress(stored, cluster)
            .is_ok_and(|got| got == cluster.len())
    }

    pub(super) fn decode_exact(
        &mut self,
        stored: &[u8],
        cluster: &mut [u8],
    ) -> Result<Option<usize>, DecodeError> {
        // QEMU asks for a 4 KiB window, but in a single call zlib takes every
        // distance that stays within the output: so does the full window.
        let inflate = self.faithful.get_or_insert_with(|| Decompress::new(false));
        inflate.reset(false);
        let status = inflate
            .decompress(stored, cluster, FlushDecompress::Finish)
            .map_err(|_| DecodeError::Invalid("it is not raw deflate"))?;
        let got = usize::try_from(inflate.total_out()).unwrap_or(usize::MAX);
        if got != cluster.len() {
            return Err(DecodeError::EndsEarly {
                got,
                want: cluster.len(),
            });
        }
        Ok(match status {
            Status::StreamEnd => usize::try_from(inflate.total_in()).ok(),
            Status::Ok | Status::BufError => None,
        })
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}
