//! Bytes of the volume as they will be once the journal was replayed.
//!
//! Metadata is read in chunks, of which some are remembered: inodes and small directories lie close to each other, and
//! are asked for again and again while a tree is walked.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

use super::EachPiece;
use crate::error::Result;
use crate::fs::ext4::blocks::{Copy, JOURNAL_MAGIC};
use crate::fs::tree::{PIECE, Piece};
use crate::volume::Volume;

/// Bytes of a chunk, and how many are remembered: 4 MiB.
const CHUNK: u64 = 1 << 15;
const CHUNKS: u64 = 128;

/// Reads a filesystem.
#[derive(Debug)]
pub(super) struct Blocks<'a> {
    volume: Volume<'a>,
    block_size: u64,
    newer: BTreeMap<u64, Copy>,
    /// Each chunk has one slot that it may be in.
    chunks: RefCell<BTreeMap<u64, (u64, Vec<u8>)>>,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(volume: &Volume<'a>, block_size: u64, newer: BTreeMap<u64, Copy>) -> Self {
        Self {
            volume: volume.clone(),
            block_size,
            newer,
            chunks: RefCell::default(),
        }
    }

    /// The volume, as it is.
    pub(super) fn volume(&self) -> &Volume<'a> {
        &self.volume
    }

    /// Whether the journal has newer copies of some of these bytes.
    pub(super) fn has_newer(&self, bytes: Range<u64>) -> bool {
        let first = bytes.start / self.block_size;
        let end = bytes.end.div_ceil(self.block_size);
        !self.newer.is_empty() && first < end && self.newer.range(first..end).next().is_some()
    }

    /// `length` bytes from `at` on, which are at most those of a block; for metadata.
    pub(super) fn read(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        let end = at.saturating_add(length as u64);
        let mut next = at;
        while next < end {
            let chunk = next / CHUNK;
            let upto = end.min((chunk + 1) * CHUNK);
            self.chunk(chunk, next % CHUNK, upto - next, &mut bytes)?;
            next = upto;
        }
        self.renew(at, &mut bytes)?;
        Ok(bytes)
    }

    fn chunk(&self, chunk: u64, from: u64, length: u64, bytes: &mut Vec<u8>) -> Result<()> {
        let start = chunk * CHUNK;
        let mut chunks = self.chunks.borrow_mut();
        let slot = chunks.entry(chunk % CHUNKS).or_default();
        if slot.1.is_empty() || slot.0 != chunk {
            let size = CHUNK.min(self.volume.size().saturating_sub(start));
            // Empty while it is not whole.
            slot.1.clear();
            let whole = self
                .volume
                .read_vec(start, usize::try_from(size).unwrap_or(0))?;
            *slot = (chunk, whole);
        }
        let range = usize::try_from(from).unwrap_or(usize::MAX)
            ..usize::try_from(from + length).unwrap_or(usize::MAX);
        match slot.1.get(range) {
            Some(part) => bytes.extend_from_slice(part),
            // The volume says what is wrong with it.
            None => self.volume.read_at(self.volume.size(), &mut [0])?,
        }
        Ok(())
    }

    /// Puts newer copies over `bytes`, which are those from `at` on.
    fn renew(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        let end = at.saturating_add(bytes.len() as u64);
        if !self.has_newer(at..end) {
            return Ok(());
        }
        let blocks = at / self.block_size..end.div_ceil(self.block_size);
        for (&block, newer) in self.newer.range(blocks) {
            let length = usize::try_from(self.block_size).unwrap_or(0);
            let mut copy = self.volume.read_vec(newer.at, length)?;
            if newer.escaped
                && let Some(first) = copy.first_chunk_mut()
            {
                *first = JOURNAL_MAGIC;
            }
            let start = block.saturating_mul(self.block_size);
            // Either begins within the other.
            let into = usize::try_from(start.saturating_sub(at)).unwrap_or(usize::MAX);
            let from = usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
            let new = copy.get(from..).unwrap_or_default();
            for (byte, new) in bytes.iter_mut().skip(into).zip(new) {
                *byte = *new;
            }
        }
        Ok(())
    }

    /// As `send_data`, with newer copies; for contents of files that the journal has.
    pub(super) fn send(
        &self,
        at: u64,
        offset: u64,
        length: u64,
        each: EachPiece<'_>,
    ) -> Result<ControlFlow<()>> {
        let mut done = 0;
        while done < length {
            let now = (length - done).min(PIECE as u64);
            let mut bytes = self
                .volume
                .read_vec(at + done, usize::try_from(now).unwrap_or(0))?;
            self.renew(at + done, &mut bytes)?;
            let piece = Piece::Data {
                offset: offset + done,
                bytes: &bytes,
            };
            if each(piece).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            done += now;
        }
        Ok(ControlFlow::Continue(()))
    }
}
