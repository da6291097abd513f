//! zstd (RFC 8878) for one cluster.
//!
//! Knows how to write one frame per cluster that every reader takes, and how
//! to read any sequence of frames without trusting their headers. Must not
//! know anything of deflate or of files.
//!
//! Reading never streams: each frame is measured first and then decoded in one
//! call straight into the cluster, so that no window buffer is allocated,
//! whatever window a header claims.

use std::fmt;
use std::io;

use ::zstd::zstd_safe::{
    CCtx, CParameter, DCtx, ErrorCode, compress_bound, find_frame_compressed_size, get_error_name,
    get_frame_content_size, is_error_kind, zstd_sys::ZSTD_ErrorCode,
};

use super::DecodeError;
use crate::error::{Error, Result};

pub(super) struct Encoder {
    level: u8,
    /// The context for every cluster, where reuse leaves no trace in the
    /// output; `None` where each cluster needs a fresh one.
    reused: Option<CCtx<'static>>,
    /// Holds one encoded cluster: zstd wants a place to write to.
    scratch: Vec<u8>,
}

impl Encoder {
    /// `level` is one that `EncoderOptions` admits.
    pub(super) fn new(level: u8, cluster_size: usize) -> Result<Self> {
        let reused = if leaves_no_trace(level, cluster_size) {
            Some(context(level)?)
        } else {
            None
        };
        Ok(Self {
            level,
            reused,
            scratch: Vec::new(),
        })
    }

    /// The encoded cluster, or `None` when it is longer than `limit`.
    pub(super) fn encode(&mut self, cluster: &[u8], limit: usize) -> Result<Option<&[u8]>> {
        // Always the full bound: given less room, zstd stores blocks that it
        // would have compressed, and the output would depend on the limit.
        let bound = compress_bound(cluster.len());
        if self.scratch.len() < bound {
            self.scratch.resize(bound, 0);
        }
        let room = self.scratch.as_mut_slice();
        let len = match &mut self.reused {
            Some(context) => context.compress2(room, cluster),
            None => context(self.level)?.compress2(room, cluster),
        }
        .map_err(|code| failed("compress a cluster with zstd", code))?;
        Ok((len <= limit).then(|| &self.scratch[..len]))
    }
}

/// Whether a context may be reused without the output showing it.
///
/// zstd's row match finder (strategies greedy to lazy2, windows above 16 KiB)
/// salts its hash with what the context saw before and keeps the tags of
/// earlier inputs. As of zstd 1.5.7 that is not seen to change the output, but
/// nothing promises it, and from level 5 on a fresh context costs little next
/// to the work. The strategies below, fast and dfast, have no salt; level 4 is
/// greedy for inputs above 128 KiB and up to 256 KiB, see `clevels.h` of zstd.
fn leaves_no_trace(level: u8, cluster_size: usize) -> bool {
    match level {
        0..=3 => true,
        4 => !(128 * 1024 + 1..=256 * 1024).contains(&cluster_size),
        _ => false,
    }
}

/// A context that writes a content size, but no checksum and no dictionary id:
/// the plain frame that the least capable readers take.
fn context(level: u8) -> Result<CCtx<'static>> {
    let doing = "set up zstd";
    let mut context = CCtx::try_create()
        .ok_or_else(|| Error::io(doing, io::Error::from(io::ErrorKind::OutOfMemory)))?;
    for parameter in [
        CParameter::CompressionLevel(i32::from(level)),
        CParameter::ContentSizeFlag(true),
        CParameter::ChecksumFlag(false),
        CParameter::DictIdFlag(false),
    ] {
        context
            .set_parameter(parameter)
            .map_err(|code| failed(doing, code))?;
    }
    Ok(context)
}

fn failed(doing: &str, code: ErrorCode) -> Error {
    Error::io(doing, io::Error::other(get_error_name(code)))
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder")
            .field("level", &self.level)
            .field("reused", &self.reused.is_some())
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
pub(super) struct Decoder {
    /// An image has one codec; the decoder for the other is never set up.
    context: Option<DCtx<'static>>,
}

impl Decoder {
    /// Fills `cluster` from the frames at the start of `stored`; returns how
    /// many bytes they occupy.
    pub(super) fn decode(
        &mut self,
        stored: &[u8],
        cluster: &mut [u8],
    ) -> Result<usize, DecodeError> {
        let context = self.context.get_or_insert_with(DCtx::create);
        let want = cluster.len();
        let (mut used, mut got) = (0, 0);
        // A frame is never empty, so that `used` grows with each round.
        while got < want {
            let rest = &stored[used..];
            let frame = match find_frame_compressed_size(rest) {
                Ok(len) if 0 < len && len <= rest.len() => &rest[..len],
                // No frame, or one that is cut off, after frames that were
                // whole: the cluster lacks its end.
                _ if rest.is_empty() || got > 0 => {
                    return Err(DecodeError::EndsEarly { got, want });
                }
                Ok(_) => return Err(DecodeError::Invalid("a frame without a length")),
                Err(code) => return Err(DecodeError::Invalid(get_error_name(code))),
            };
            got += context
                .decompress(&mut cluster[got..], frame)
                .map_err(|code| {
                    if is_error_kind(code, ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall) {
                        DecodeError::TooLong
                    } else {
                        DecodeError::Invalid(get_error_name(code))
                    }
                })?;
            used += frame.len();
        }
        Ok(used)
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

/// Where the frames end whose content sizes add up to `cluster_len` bytes.
pub(super) fn stream_end(stored: &[u8], cluster_len: usize) -> Option<usize> {
    let mut used = 0;
    let mut left = u64::try_from(cluster_len).ok()?;
    while left > 0 {
        let rest = &stored[used..];
        let frame = find_frame_compressed_size(rest).ok()?;
        if frame == 0 || frame > rest.len() {
            return None;
        }
        // A skippable frame reports a content size of zero.
        left = left.checked_sub(get_frame_content_size(rest).ok()??)?;
        used += frame;
    }
    Some(used)
}

#[cfg(test)]
mod tests;
