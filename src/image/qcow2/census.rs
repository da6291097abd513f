//! The clusters of a qcow2 image, counted by kind.
//!
//! Knows L2 entries; reads every L2 table once, on all threads, and of guest
//! data only a sample of compressed streams. Looks at this image alone.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use super::Qcow2File;
use super::format::entry::{L1Entry, L2Entry, L2Mapping, SUBCLUSTERS};
use super::format::{CompressedDescriptor, Geometry};
use super::l2_cache::{Table, read_words};
use crate::codec::{CompressionType, window};
use crate::error::{Error, Result};

/// Compressed clusters whose streams are looked into, at most.
const SAMPLES: u64 = 256;
/// The window of QEMU's own encoder in bytes; some readers have no larger one.
const SMALL_WINDOW: u32 = 4096;

/// The clusters of an image's active disk by kind. Backing files and internal snapshots are not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Census {
    /// Bytes of a cluster.
    pub cluster_size: u64,
    /// Clusters of the virtual disk; the sum of all kinds.
    pub total: u64,
    /// All bytes stored as they are.
    pub data: u64,
    /// Stored as a compressed stream.
    pub compressed: u64,
    /// Read as zeros, without host space.
    pub zero_plain: u64,
    /// Read as zeros, with host space kept for them.
    pub zero_preallocated: u64,
    /// Left to a backing file; zeros without one.
    pub unallocated: u64,
    /// With extended L2: subclusters of more than one kind, or host space and no contents.
    pub mixed: u64,
    /// What the subclusters of the mixed clusters are; absent without extended L2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subclusters: Option<Subclusters>,
    /// Bytes of the compressed clusters as the guest sees them.
    pub compressed_guest_bytes: u64,
    /// Bytes of their streams at most: a descriptor counts whole sectors, so that each stream may have up to 511 bytes
    /// less, and neighbours' sectors are counted twice. Divided by [`Census::compressed_guest_bytes`] it is the ratio.
    pub compressed_stream_bytes: u64,
    /// How far deflate streams reach back; absent when none was looked into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deflate_window: Option<DeflateWindow>,
}

/// The subclusters of mixed clusters by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Subclusters {
    /// Bytes of a subcluster.
    pub size: u64,
    /// Stored as they are.
    pub data: u64,
    /// Read as zeros, in clusters without host space.
    pub zero_plain: u64,
    /// Read as zeros, in clusters with host space.
    pub zero_preallocated: u64,
    /// Left to a backing file.
    pub unallocated: u64,
}

/// What a sample of deflate streams refers back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeflateWindow {
    /// Streams looked into, evenly spread over the disk: 256 at most.
    pub samples: u64,
    /// Those among them that are no sound deflate streams.
    pub unsound: u64,
    /// The greatest distance of a back reference in the sound ones, in bytes: 32768 at most.
    pub greatest_distance: u32,
    /// Whether a reader with a window of 4 KiB, like QEMU's encoder, gets along with all of the sample.
    pub fits_4k: bool,
}

impl Census {
    fn add(mut self, other: &Self) -> Self {
        self.total += other.total;
        self.data += other.data;
        self.compressed += other.compressed;
        self.zero_plain += other.zero_plain;
        self.zero_preallocated += other.zero_preallocated;
        self.unallocated += other.unallocated;
        self.mixed += other.mixed;
        self.compressed_guest_bytes += other.compressed_guest_bytes;
        self.compressed_stream_bytes += other.compressed_stream_bytes;
        if let (Some(mine), Some(theirs)) = (&mut self.subclusters, &other.subclusters) {
            mine.data += theirs.data;
            mine.zero_plain += theirs.zero_plain;
            mine.zero_preallocated += theirs.zero_preallocated;
            mine.unallocated += theirs.unallocated;
        }
        self
    }

    fn count(&mut self, mapping: L2Mapping) {
        match mapping {
            L2Mapping::Unallocated => self.unallocated += 1,
            L2Mapping::Zero { host: None } => self.zero_plain += 1,
            L2Mapping::Zero { host: Some(_) } => self.zero_preallocated += 1,
            L2Mapping::Data { .. } => self.data += 1,
            L2Mapping::Compressed(descriptor) => {
                self.compressed += 1;
                self.compressed_stream_bytes += descriptor.length;
            }
            L2Mapping::Subclusters {
                host,
                allocated,
                zero,
            } => {
                self.mixed += 1;
                if let Some(kinds) = &mut self.subclusters {
                    let zeros = u64::from(zero.count_ones());
                    kinds.data += u64::from(allocated.count_ones());
                    match host {
                        None => kinds.zero_plain += zeros,
                        Some(_) => kinds.zero_preallocated += zeros,
                    }
                    kinds.unallocated += u64::from(SUBCLUSTERS - (allocated | zero).count_ones());
                }
            }
        }
    }
}

/// One image's tables, for all threads.
struct Counter<'a> {
    file: &'a Qcow2File,
    geometry: Geometry,
    l1: Table,
    clusters: u64,
    cancel: &'a AtomicBool,
}

impl Qcow2File {
    /// Counts the clusters of the active disk on `threads` threads.
    ///
    /// # Errors
    /// A table that cannot be read or contradicts its format; `cancel` was set.
    pub(crate) fn census(&self, threads: usize, cancel: &AtomicBool) -> Result<Census> {
        let header = &self.header;
        let counter = Counter {
            file: self,
            geometry: header.geometry(),
            l1: self.read_l1(header.l1_table_offset, header.l1_size)?,
            clusters: header.cluster_bits.clusters_for(header.virtual_size()),
            cancel,
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|number| format!("qimg-census-{number}"))
            .build()
            .map_err(|error| Error::io("start worker threads", std::io::Error::other(error)))?;
        pool.install(|| counter.run())
    }
}

impl Counter<'_> {
    fn run(&self) -> Result<Census> {
        let tables = self.geometry.l1_entries(self.file.header.virtual_size());
        let tables = usize::try_from(tables).unwrap_or(usize::MAX);
        // Compressed clusters of each table, to find the sampled ones again.
        let mut compressed = vec![0u32; tables];
        let mut census = compressed
            .par_iter_mut()
            .enumerate()
            .map(|(number, compressed)| {
                let census = self.count_table(number)?;
                *compressed = u32::try_from(census.compressed).unwrap_or(u32::MAX);
                Ok(census)
            })
            .try_reduce(|| self.empty(), |sum, census| Ok(sum.add(&census)))?;
        // The last cluster is compressed whole, even when the disk ends within it.
        census.compressed_guest_bytes = census.compressed << self.geometry.cluster_bits.bits();
        let deflate = self.file.compression_type() == CompressionType::Zlib;
        if deflate && self.file.encryption().is_none() && census.compressed > 0 {
            census.deflate_window = Some(self.sample(&compressed, census.compressed)?);
        }
        Ok(census)
    }

    fn empty(&self) -> Census {
        Census {
            cluster_size: self.geometry.cluster_bits.size(),
            subclusters: self.geometry.extended_l2.then(|| Subclusters {
                size: self.geometry.subcluster_size(),
                ..Subclusters::default()
            }),
            ..Census::default()
        }
    }

    /// Clusters of the virtual disk before table `number`.
    fn first_cluster(&self, number: usize) -> u64 {
        (number as u64).saturating_mul(self.geometry.l2_entries())
    }

    fn count_table(&self, number: usize) -> Result<Census> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::cancelled());
        }
        let mut census = self.empty();
        let first = self.first_cluster(number);
        census.total = (self.clusters - first).min(self.geometry.l2_entries());
        match self.table(number)? {
            None => census.unallocated = census.total,
            Some(table) => self.each_mapping(number, &table, &mut |_, mapping| {
                census.count(mapping);
                Ok(())
            })?,
        }
        Ok(census)
    }

    fn table(&self, number: usize) -> Result<Option<Table>> {
        let guest = self.first_cluster(number) << self.geometry.cluster_bits.bits();
        let Some(host) = self
            .file
            .check_table(L1Entry(self.l1[number]))
            .map_err(|error| error.at_guest(guest))?
        else {
            return Ok(None);
        };
        read_words(&*self.file.store, host, self.geometry.cluster_bits.len()).map(Some)
    }

    /// Calls `each` with guest offset and mapping of all clusters of table `number` that the disk has.
    fn each_mapping(
        &self,
        number: usize,
        table: &[u64],
        each: &mut dyn FnMut(u64, L2Mapping) -> Result<()>,
    ) -> Result<()> {
        let bits = self.geometry.cluster_bits;
        let words = if self.geometry.extended_l2 { 2 } else { 1 };
        let first = self.first_cluster(number);
        for (cluster, entry) in (first..self.clusters).zip(table.chunks_exact(words)) {
            let guest = cluster << bits.bits();
            let entry = L2Entry {
                word: entry[0],
                bitmap: entry.get(1).copied().unwrap_or(0),
            };
            let mapping = entry
                .decode(self.geometry, guest)
                .map_err(|corruption| self.file.corrupt(corruption).at_guest(guest))?;
            each(guest, mapping)?;
        }
        Ok(())
    }

    /// Looks into streams evenly spread over the `total` compressed clusters, of which each table has `compressed`.
    fn sample(&self, compressed: &[u32], total: u64) -> Result<DeflateWindow> {
        let wanted = total.min(SAMPLES);
        let mut ordinals = (0..wanted).map(|n| {
            let ordinal = u128::from(n) * u128::from(total) / u128::from(wanted);
            u64::try_from(ordinal).unwrap_or(u64::MAX)
        });
        let mut next = ordinals.next();
        let mut found = Vec::new();
        let mut seen = 0;
        for (number, &here) in compressed.iter().enumerate() {
            let end = seen + u64::from(here);
            if next.is_some_and(|ordinal| ordinal < end)
                && let Some(table) = self.table(number)?
            {
                let mut at = seen;
                self.each_mapping(number, &table, &mut |guest, mapping| {
                    if let L2Mapping::Compressed(descriptor) = mapping {
                        if next == Some(at) {
                            found.push((guest, descriptor));
                            next = ordinals.next();
                        }
                        at += 1;
                    }
                    Ok(())
                })?;
            }
            seen = end;
        }
        let distances = found
            .par_iter()
            .map(|&(guest, descriptor)| self.distance(guest, descriptor))
            .collect::<Result<Vec<_>>>()?;
        let greatest_distance = distances.iter().flatten().copied().max().unwrap_or(0);
        Ok(DeflateWindow {
            samples: distances.len() as u64,
            unsound: distances.iter().filter(|found| found.is_none()).count() as u64,
            greatest_distance,
            fits_4k: greatest_distance <= SMALL_WINDOW,
        })
    }

    /// The greatest distance in one stream; `None` when it is no deflate.
    fn distance(&self, guest: u64, descriptor: CompressedDescriptor) -> Result<Option<u32>> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::cancelled());
        }
        let length = usize::try_from(descriptor.length).unwrap_or(usize::MAX);
        let mut stream = vec![0; length];
        self.file
            .store
            .read_zero_filled(&mut stream, descriptor.host.0)
            .map_err(|error| error.at_guest(guest))?;
        let limit = self.geometry.cluster_bits.len();
        Ok(window::greatest_distance(&stream, limit).ok())
    }
}
