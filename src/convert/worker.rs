//! One thread's share: read an item, look for zeros, encode.
//!
//! Knows extents, codecs and the target's cluster size. Must not write, and
//! must not know what other workers do: its result depends on its item alone.

use std::ops::Range;

use super::plan::Item;
use super::{Options, Reuse, Stats};
use crate::codec::{CompressionType, Decoder, DeflateWindow, Encoder, EncoderOptions, window};
use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentKind};
use crate::source::{Reader, Source, Stream};
use crate::writer::{StoredCluster, Tail};
use crate::zero::{is_zero, nonzero_runs};

/// What the writer wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) cluster_size: u64,
    pub(super) skips_zeros: bool,
}

/// What came of one item.
#[derive(Debug)]
pub(super) struct Output {
    /// End of the item's guest range.
    pub(super) end: u64,
    pub(super) parts: Vec<Part>,
    pub(super) clusters: Vec<StoredCluster>,
    /// Data and streams that the parts refer to.
    pub(super) bytes: Vec<u8>,
    pub(super) stats: Stats,
}

/// What is to be written, in guest order.
#[derive(Debug)]
pub(super) enum Part {
    /// Guest range of zeros.
    Zero(Range<u64>),
    /// Bytes as they are.
    Data {
        /// Guest offset of the first.
        guest: u64,
        /// Where they are.
        bytes: Range<usize>,
        /// Depth and host offset at which the source stores them, when that may be shared.
        origin: Option<(u32, u64)>,
    },
    /// Which of the output's compressed clusters.
    Compressed(Range<usize>),
}

/// What is done with a guest range of whole target clusters.
enum Step {
    Leave,
    Zero,
    Copy(CompressionType),
    Read,
}

pub(super) struct Worker<'a> {
    source: &'a dyn Source,
    reader: Box<dyn Reader + 'a>,
    encoder: Option<(EncoderOptions, Encoder)>,
    decoder: Decoder,
    options: &'a Options<'a>,
    target: Target,
    /// Guest bytes of a run of clusters.
    plain: Vec<u8>,
    /// One decoded cluster.
    cluster: Vec<u8>,
    streams: Vec<Stream>,
}

/// A stream whose end is known.
struct Known {
    length: usize,
    /// Its cluster has been decoded.
    decoded: bool,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        source: &'a dyn Source,
        options: &'a Options<'a>,
        target: Target,
    ) -> Result<Self> {
        let size = bytes(target.cluster_size);
        let encoder = options
            .encoding
            .map(|encoding| Encoder::new(&encoding, size).map(|encoder| (encoding, encoder)))
            .transpose()?;
        Ok(Self {
            source,
            reader: source.reader(),
            encoder,
            decoder: Decoder::new(),
            options,
            target,
            plain: Vec::new(),
            cluster: Vec::new(),
            streams: Vec::new(),
        })
    }

    /// Works on `item`; the result's bytes go into `buffer`, whose contents count for nothing.
    pub(super) fn run(&mut self, item: &Item, mut buffer: Vec<u8>) -> Result<Output> {
        buffer.clear();
        let mut output = Output {
            end: item.range.end,
            parts: Vec::new(),
            clusters: Vec::new(),
            bytes: buffer,
            stats: Stats::default(),
        };
        let mut run: Option<Range<u64>> = None;
        let mut extents = &item.extents[..];
        let mut at = item.range.start;
        while at < item.range.end {
            let (step, end) = self.step(extents, at, item.range.end);
            if let Step::Read = step {
                // Neighbours are read together.
                run = Some(run.map_or(at, |run| run.start)..end);
            } else {
                if let Some(run) = run.take() {
                    self.read(run, &item.extents, &mut output)?;
                }
                match step {
                    Step::Copy(codec) => self.copy(at..end, codec, &mut output)?,
                    Step::Zero => output.parts.push(Part::Zero(at..end)),
                    Step::Leave | Step::Read => {}
                }
            }
            at = end;
            while extents.first().is_some_and(|extent| extent.end() <= at) {
                extents = &extents[1..];
            }
        }
        if let Some(run) = run {
            self.read(run, &item.extents, &mut output)?;
        }
        Ok(output)
    }

    /// What to do from `at` on, and up to where. `extents` starts with the one at `at`.
    fn step(&self, extents: &[Extent], at: u64, item_end: u64) -> (Step, u64) {
        let size = self.target.cluster_size;
        let cluster_end = (at - at % size).saturating_add(size).min(item_end);
        let first = &extents[0];
        let kind = self.effective(first);
        if first.end() >= cluster_end {
            // One answer for the whole cluster, and maybe for many.
            let whole = if first.end() >= item_end {
                item_end
            } else {
                first.end() / size * size
            };
            return match kind {
                ExtentKind::Unallocated => (Step::Leave, whole),
                ExtentKind::Zero => (Step::Zero, whole),
                ExtentKind::Data => (Step::Read, whole),
                ExtentKind::Compressed(codec) if self.can_copy(codec, first) => {
                    (Step::Copy(codec), whole)
                }
                ExtentKind::Compressed(_) => (Step::Read, whole),
            };
        }
        let mut all_zero = true;
        let mut all_left = true;
        for extent in extents
            .iter()
            .take_while(|extent| extent.start < cluster_end)
        {
            let kind = self.effective(extent);
            all_left &= kind == ExtentKind::Unallocated;
            all_zero &= kind == ExtentKind::Zero;
        }
        // A cluster that is left in part must be filled from the backing file: reading does that.
        match (all_left, all_zero) {
            (true, _) => (Step::Leave, cluster_end),
            (_, true) => (Step::Zero, cluster_end),
            _ => (Step::Read, cluster_end),
        }
    }

    /// What an extent is to the target.
    fn effective(&self, extent: &Extent) -> ExtentKind {
        let kind = match extent.kind {
            _ if self.options.overlay && extent.depth > 0 => ExtentKind::Unallocated,
            ExtentKind::Unallocated if !self.options.overlay => ExtentKind::Zero,
            kind => kind,
        };
        if kind == ExtentKind::Zero && self.options.sparse == 0 {
            ExtentKind::Data
        } else {
            kind
        }
    }

    fn can_copy(&self, codec: CompressionType, extent: &Extent) -> bool {
        let size = self.target.cluster_size;
        self.encoder.as_ref().is_some_and(|(encoding, _)| encoding.codec == codec)
            && self.source.cluster_size_at(extent.depth) == size
            && extent.start.is_multiple_of(size)
            // A shorter backing file's last cluster holds bytes that its overlay does not show.
            && (extent.length >= size || extent.end() == self.source.virtual_size())
    }

    /// Carries over a run of compressed clusters, decoding each as far as that is needed to be sure of it.
    fn copy(
        &mut self,
        guest: Range<u64>,
        codec: CompressionType,
        output: &mut Output,
    ) -> Result<()> {
        output.stats.stored_bytes += guest.end - guest.start;
        let mut streams = std::mem::take(&mut self.streams);
        streams.clear();
        self.reader
            .read_streams(guest.clone(), &mut output.bytes, &mut streams)?;
        for (index, stream) in streams.iter().enumerate() {
            let end = guest.end.min(stream.guest + self.target.cluster_size);
            match streams
                .get(index + 1)
                .and_then(|next| self.leans_on(stream, codec, next))
            {
                Some(length) => {
                    output.stats.copied_clusters += 1;
                    let tail = Tail {
                        bound: stream.length,
                        phase: stream.phase,
                    };
                    let stored = stream.start..stream.start + length;
                    push_stream(output, stream.guest..end, stored, Some(tail));
                }
                None => self.copy_stream(stream, end, codec, output)?,
            }
        }
        self.streams = streams;
        Ok(())
    }

    /// The length of `stream` when it can be copied unseen, because `next` stands behind it and will again.
    fn leans_on(&self, stream: &Stream, codec: CompressionType, next: &Stream) -> Option<usize> {
        let length = stream.neighbour?;
        let unseen = self.options.reuse == Reuse::Copy
            && codec == CompressionType::Zlib
            && stream.start + length == next.start
            // Honest streams end in the last sector that their descriptor names.
            && stream.length - length < 512
            && !self.may_be_zero(length)
            // A stream of zeros is left out: nothing can lean on it.
            && !self.may_be_zero(next.neighbour.unwrap_or(next.length));
        unseen.then_some(length)
    }

    /// Only a short stream can be one of zeros.
    fn may_be_zero(&self, length: usize) -> bool {
        length <= 1024 + bytes(self.target.cluster_size) / 256
    }

    fn copy_stream(
        &mut self,
        stream: &Stream,
        guest_end: u64,
        codec: CompressionType,
        output: &mut Output,
    ) -> Result<()> {
        let mut cluster = std::mem::take(&mut self.cluster);
        cluster.resize(bytes(self.target.cluster_size), 0);
        let known = match self.length_of(stream, codec, &output.bytes, &mut cluster) {
            Ok(known) => known,
            Err(_) => {
                // The reader knows the file and the place in it. Should it take what zlib does not (libdeflate knows
                // two more length symbols), the new image gets a stream that every reader takes.
                let (shown, behind) = cluster.split_at_mut(bytes(guest_end - stream.guest));
                self.reader.read_at(stream.guest, shown)?;
                behind.fill(0);
                None
            }
        };
        let guest = stream.guest..guest_end;
        match known {
            // Without an end of its own, a stream is only as good as what happens to follow it.
            None => self.encode(guest, &cluster, output)?,
            Some(Known { decoded: true, .. }) if is_zero(&cluster) => push_zero(output, guest),
            Some(Known { length, .. }) => {
                let stored = stream.start..stream.start + length;
                let shorter = match self.options.reuse {
                    Reuse::Copy => None,
                    Reuse::KeepSmaller => self.shorten(stored.clone(), &cluster, output)?,
                };
                if shorter.is_some() {
                    output.stats.encoded_clusters += 1;
                } else {
                    output.stats.copied_clusters += 1;
                }
                push_stream(output, guest, shorter.unwrap_or(stored), None);
            }
        }
        self.cluster = cluster;
        Ok(())
    }

    /// The exact length of `stream` within `stored`; `None` when it has no end of its own and `cluster` holds what it
    /// decodes to.
    fn length_of(
        &mut self,
        stream: &Stream,
        codec: CompressionType,
        stored: &[u8],
        cluster: &mut [u8],
    ) -> Result<Option<Known>> {
        let stored = &stored[stream.start..stream.start + stream.length];
        if self.options.reuse == Reuse::Copy
            && let Some(length) = self.decoder.stream_end(codec, stored, cluster.len())
            && !self.may_be_zero(length)
        {
            return Ok(Some(Known {
                length,
                decoded: false,
            }));
        }
        // Where the neighbour starts is a guess until the stream has been seen to end before.
        if let Some(length) = stream.neighbour
            && self
                .decoder
                .decode_terminated(codec, &stored[..length], cluster)
        {
            return Ok(Some(Known {
                length,
                decoded: true,
            }));
        }
        let length = self
            .decoder
            .decode_exact(codec, stored, cluster)
            .map_err(|error| {
                Error::corrupt("a compressed cluster cannot be decoded", error)
                    .at_guest(stream.guest)
            })?;
        Ok(length.map(|length| Known {
            length,
            decoded: true,
        }))
    }

    /// Encodes `cluster` again; where the new stream is, when it takes the place of the one at `stored`.
    fn shorten(
        &mut self,
        stored: Range<usize>,
        cluster: &[u8],
        output: &mut Output,
    ) -> Result<Option<Range<usize>>> {
        let Some((encoding, encoder)) = &mut self.encoder else {
            return Ok(None);
        };
        let old_fits = encoding.window == DeflateWindow::Full
            || window::greatest_distance(&output.bytes[stored.clone()], cluster.len())
                .is_ok_and(|distance| distance <= 4096);
        let limit = if old_fits {
            stored.len().saturating_sub(1)
        } else {
            cluster.len()
        };
        let start = output.bytes.len();
        let length = encoder.encode(cluster, limit, &mut output.bytes)?;
        Ok(length.map(|length| start..start + length))
    }

    /// Reads a run of target clusters and carries each over.
    fn read(&mut self, guest: Range<u64>, extents: &[Extent], output: &mut Output) -> Result<()> {
        let size = bytes(self.target.cluster_size);
        let length = bytes(guest.end - guest.start);
        output.stats.stored_bytes += guest.end - guest.start;
        if self.encoder.is_none() {
            return self.read_plain(guest, extents, output);
        }
        // The disk's last cluster is encoded whole: zeros behind the end.
        let mut plain = std::mem::take(&mut self.plain);
        plain.resize(length.next_multiple_of(size), 0);
        self.reader.read_at(guest.start, &mut plain[..length])?;
        plain[length..].fill(0);
        for (index, cluster) in plain.chunks_exact(size).enumerate() {
            let start = guest.start + (index * size) as u64;
            let end = guest.end.min(start + size as u64);
            self.encode(start..end, cluster, output)?;
        }
        self.plain = plain;
        Ok(())
    }

    fn encode(&mut self, guest: Range<u64>, cluster: &[u8], output: &mut Output) -> Result<()> {
        let guest_bytes = guest.end - guest.start;
        if is_zero(cluster) {
            push_zero(output, guest);
            return Ok(());
        }
        let Some((_, encoder)) = &mut self.encoder else {
            return Ok(());
        };
        let start = output.bytes.len();
        // A stream that saves next to nothing costs every reader a decoding.
        let limit = cluster.len() - (cluster.len() / 128).max(1);
        if let Some(length) = encoder.encode(cluster, limit, &mut output.bytes)? {
            output.stats.encoded_clusters += 1;
            push_stream(output, guest, start..start + length, None);
        } else {
            output
                .bytes
                .extend_from_slice(&cluster[..bytes(guest_bytes)]);
            output.stats.plain_bytes += guest_bytes;
            let bytes = start..output.bytes.len();
            output.parts.push(Part::Data {
                guest: guest.start,
                bytes,
                origin: None,
            });
        }
        Ok(())
    }

    /// Reads a run into the output itself and says which of its bytes are to be written.
    fn read_plain(
        &mut self,
        guest: Range<u64>,
        extents: &[Extent],
        output: &mut Output,
    ) -> Result<()> {
        let size = bytes(self.target.cluster_size);
        let base = output.bytes.len();
        output
            .bytes
            .resize(base + bytes(guest.end - guest.start), 0);
        self.reader
            .read_at(guest.start, &mut output.bytes[base..])?;
        let first_part = output.parts.len();
        let (parts, stats) = (&mut output.parts, &mut output.stats);
        let mut at = guest.start;
        for cluster in output.bytes[base..].chunks(size) {
            let end = at + cluster.len() as u64;
            let offset = base + bytes(at - guest.start);
            if self.options.sparse > 0 && is_zero(cluster) {
                stats.zero_bytes += cluster.len() as u64;
                push_zeros(parts, at..end);
            } else if self.options.sparse > 0 && self.target.skips_zeros {
                for run in nonzero_runs(cluster, self.options.sparse.min(size)) {
                    let start = at + run.start as u64;
                    push_data(parts, start, offset + run.start..offset + run.end);
                }
                stats.plain_bytes += cluster.len() as u64;
            } else {
                push_data(parts, at, offset..offset + cluster.len());
                stats.plain_bytes += cluster.len() as u64;
            }
            at = end;
        }
        if self.options.share {
            let found = output.parts.split_off(first_part);
            output
                .parts
                .extend(found.into_iter().flat_map(|part| part.by_origin(extents)));
        }
        Ok(())
    }
}

impl Part {
    /// Data cut along the extents that it comes from, each with its place there.
    fn by_origin(self, extents: &[Extent]) -> Vec<Self> {
        let Self::Data { guest, bytes, .. } = self else {
            return vec![self];
        };
        let end = guest + bytes.len() as u64;
        let overlapping = extents
            .iter()
            .filter(|extent| extent.end() > guest && extent.start < end);
        overlapping
            .map(|extent| {
                let (from, until) = (extent.start.max(guest), extent.end().min(end));
                let distance = |at: u64| bytes.start + usize::try_from(at - guest).unwrap_or(0);
                let host = extent.host.filter(|_| extent.kind == ExtentKind::Data);
                Self::Data {
                    guest: from,
                    bytes: distance(from)..distance(until),
                    origin: host.map(|host| (extent.depth, host + (from - extent.start))),
                }
            })
            .collect()
    }
}

fn push_stream(output: &mut Output, guest: Range<u64>, stored: Range<usize>, tail: Option<Tail>) {
    output.stats.compressed_bytes += guest.end - guest.start;
    output.stats.stream_bytes += stored.len() as u64;
    let digest = crc32fast::hash(&output.bytes[stored.clone()]);
    let index = output.clusters.len();
    let (start, length) = (stored.start, stored.len());
    output.clusters.push(StoredCluster {
        guest: guest.start,
        start,
        length,
        digest,
        tail,
    });
    match output.parts.last_mut() {
        Some(Part::Compressed(last)) if last.end == index => last.end += 1,
        _ => output.parts.push(Part::Compressed(index..index + 1)),
    }
}

fn push_zero(output: &mut Output, guest: Range<u64>) {
    output.stats.zero_bytes += guest.end - guest.start;
    push_zeros(&mut output.parts, guest);
}

fn push_zeros(parts: &mut Vec<Part>, guest: Range<u64>) {
    match parts.last_mut() {
        Some(Part::Zero(last)) if last.end == guest.start => last.end = guest.end,
        _ => parts.push(Part::Zero(guest)),
    }
}

fn push_data(parts: &mut Vec<Part>, guest: u64, bytes: Range<usize>) {
    if let Some(Part::Data {
        guest: first,
        bytes: last,
        ..
    }) = parts.last_mut()
        && last.end == bytes.start
        && *first + last.len() as u64 == guest
    {
        last.end = bytes.end;
        return;
    }
    parts.push(Part::Data {
        guest,
        bytes,
        origin: None,
    });
}

/// A guest length as a length in memory; items are far smaller than any address space.
fn bytes(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}
