//! Whether stored bytes are all zero, without reading holes.
//!
//! Knows where clusters are stored and how. Must not know what is free.

use std::ops::Range;

use crate::codec::Decoder;
use crate::error::Result;
use crate::image::qcow2::Qcow2File;
use crate::image::qcow2::format::CompressedDescriptor;
use crate::store::{ReadAt, RunKind};
use crate::zero::is_zero;

/// Bytes read at once where clusters are smaller.
const READ_AHEAD: u64 = 64 << 10;
/// Bytes read at once at most.
const MOST: u64 = 1 << 20;

/// One thread's buffers.
pub(super) struct Zeros<'a> {
    file: &'a Qcow2File,
    data: &'a dyn ReadAt,
    data_length: Option<u64>,
    /// The last run of the data file that was asked for.
    run: Range<u64>,
    is_hole: bool,
    /// What `buffer` holds of the data file.
    held: Range<u64>,
    buffer: Vec<u8>,
    decoder: Decoder,
    stream: Vec<u8>,
    cluster: Vec<u8>,
}

impl<'a> Zeros<'a> {
    pub(super) fn new(file: &'a Qcow2File, data: &'a dyn ReadAt) -> Self {
        Self {
            file,
            data,
            data_length: None,
            run: 0..0,
            is_hole: false,
            held: 0..0,
            buffer: Vec::new(),
            decoder: Decoder::new(),
            stream: Vec::new(),
            cluster: Vec::new(),
        }
    }

    /// Whether `length` plain bytes at `host` are zeros.
    ///
    /// # Errors
    /// The host cannot read.
    pub(super) fn at(&mut self, host: u64, length: u64) -> Result<bool> {
        let data_length = match self.data_length {
            Some(length) => length,
            None => *self.data_length.insert(self.data.len()?),
        };
        if host >= data_length {
            // A truncated image: what it has lost is not zeros.
            return Ok(false);
        }
        let end = host.saturating_add(length);
        let mut at = host;
        while at < end {
            let until = end.min(at.saturating_add(MOST));
            if self.is_hole(at, until.min(data_length))? {
                at = until;
                continue;
            }
            if !(self.held.start <= at && until <= self.held.end) {
                let ahead = READ_AHEAD.max(until - at);
                self.held = 0..0;
                self.buffer.resize(usize_of(ahead), 0);
                self.data.read_zero_filled(&mut self.buffer, at)?;
                self.held = at..at.saturating_add(ahead);
            }
            let from = usize_of(at - self.held.start);
            let bytes = self.buffer.get(from..from + usize_of(until - at));
            if !bytes.is_some_and(is_zero) {
                return Ok(false);
            }
            at = until;
        }
        Ok(true)
    }

    fn is_hole(&mut self, host: u64, end: u64) -> Result<bool> {
        if !self.run.contains(&host) {
            let run = self.data.run_at(host)?;
            self.run = host..run.end.max(host + 1);
            self.is_hole = run.kind == RunKind::Hole;
        }
        Ok(self.is_hole && end <= self.run.end)
    }

    /// Whether the guest ranges `parts` of the compressed cluster at `guest` are zeros. A stream that cannot be decoded
    /// is something else.
    ///
    /// # Errors
    /// The host cannot read.
    pub(super) fn in_stream(
        &mut self,
        stream: CompressedDescriptor,
        guest: u64,
        mut parts: impl Iterator<Item = Range<u64>>,
    ) -> Result<bool> {
        let size = self.file.header.cluster_bits.len();
        self.stream.resize(usize_of(stream.length), 0);
        self.file
            .store
            .read_zero_filled(&mut self.stream, stream.host.0)?;
        self.cluster.resize(size, 0);
        let codec = self.file.compression_type();
        let decoded = self.decoder.decode(codec, &self.stream, &mut self.cluster);
        Ok(decoded.is_ok()
            && parts.all(|part| {
                let range = usize_of(part.start - guest)..usize_of(part.end - guest);
                self.cluster.get(range).is_some_and(is_zero)
            }))
    }
}

/// A length of a cluster as a length in memory.
fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
