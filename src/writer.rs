//! What an operation writes: the guest-visible side of a new image.
//!
//! Knows guest offsets and stored clusters; must not know formats or files.

use std::ops::Range;

use crate::error::Result;
use crate::store::{ReadAt, WriteAt};

/// Where bytes are stored already.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The file.
    pub store: &'a dyn ReadAt,
    /// Host offset of the first byte there.
    pub host: u64,
}

impl Origin<'_> {
    /// Blocks are shared whole; no file system that does has larger ones by default.
    const BLOCK: u64 = 4096;

    /// Has the host share `length` bytes from `skip` bytes behind the origin on with `to`; false when it cannot.
    pub(crate) fn share(
        &self,
        to: &dyn WriteAt,
        skip: u64,
        host: u64,
        length: u64,
    ) -> Result<bool> {
        let from = self.host + skip;
        if [from, host, length]
            .iter()
            .any(|value| !value.is_multiple_of(Self::BLOCK))
        {
            return Ok(false);
        }
        Ok(to.copy_from(self.store, from, host, length)? == length)
    }
}

/// A compressed cluster inside an arena of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredCluster {
    /// Guest offset of the cluster in bytes.
    pub guest: u64,
    /// Where its stream starts in the arena.
    pub start: usize,
    /// Length of the stream in bytes.
    pub length: usize,
    /// CRC-32 of the stream: where to look for one that is the same.
    pub digest: u32,
    /// Set for a stream whose end has not been seen.
    pub tail: Option<Tail>,
}

/// A stream that was copied without decoding it: its length is only where the next one starts.
///
/// The next cluster of the same call follows it in the arena. Stored the same way, with as many bytes in reach as
/// before, it decodes to what it did, whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// Bytes from its start on that may belong to it.
    pub bound: usize,
    /// Its former host offset within a 512-byte sector; the bound ends with a sector.
    pub phase: u16,
}

impl StoredCluster {
    /// The stream's bytes.
    pub fn bytes<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        &arena[self.start..self.start + self.length]
    }
}

/// What was written, apart from guest contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Length of the image file in bytes.
    pub file_length: u64,
    /// Compressed clusters that share the stream of an earlier one.
    pub shared_clusters: u64,
}

/// A new image that takes guest contents in guest order.
///
/// What is never written is unallocated: a backing file shows through, else it reads as zeros. All calls come from one
/// thread; the bytes of the image depend on nothing but the calls.
pub trait ImageWriter: Send {
    /// The unit of allocation in bytes.
    fn cluster_size(&self) -> u64;

    /// Whether ranges of zeros within a cluster need not be written.
    fn skips_zeros(&self) -> bool;

    /// Writes guest bytes as they are; within a cluster in any number of ascending parts. `origin` says where the same
    /// bytes are stored already, for hosts that can share them.
    ///
    /// # Errors
    /// The host fails to write.
    fn write_data(&mut self, guest: u64, bytes: &[u8], origin: Option<Origin<'_>>) -> Result<()>;

    /// Stores compressed clusters whose streams lie in `arena`. `is_whole` decodes a stream to see that it is complete.
    ///
    /// # Errors
    /// The host fails to write; a format without compressed clusters.
    fn write_compressed(
        &mut self,
        clusters: &[StoredCluster],
        arena: &[u8],
        is_whole: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<()>;

    /// Makes whole clusters (or the rest of the disk) read as zeros, hiding a backing file.
    ///
    /// # Errors
    /// The host fails to write.
    fn write_zeros(&mut self, range: Range<u64>) -> Result<()>;

    /// Writes what is left: tables and header. Nothing may be written afterwards.
    ///
    /// # Errors
    /// The host fails to write.
    fn finish(&mut self) -> Result<Written>;
}
