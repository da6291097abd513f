//! Images made by hand, byte by byte: what no honest program writes.
//!
//! Knows `docs/interop/qcow2.rst` and nothing of qimg, so that it can serve as a witness against it.

use std::collections::BTreeMap;

/// A version 3 image with standard L2 entries and 16-bit counts, whose streams lie where the test says.
#[derive(Debug, Clone)]
pub struct Handmade {
    cluster_bits: u32,
    virtual_size: u64,
    /// Host bytes behind the metadata.
    pub data: Vec<u8>,
    /// By guest cluster: host offset in `data`, and bytes that the descriptor shall reach at least.
    streams: BTreeMap<u64, (u64, u64)>,
}

/// A raw deflate stream of stored blocks; `last` says whether it has an end.
pub fn stored(bytes: &[u8], last: bool) -> Vec<u8> {
    let mut stream = Vec::new();
    // Of equal length, so that the last one can be written over.
    let blocks = bytes.len().div_ceil(65535);
    let mut chunks = bytes.chunks(bytes.len().div_ceil(blocks)).peekable();
    while let Some(chunk) = chunks.next() {
        let length = u16::try_from(chunk.len()).unwrap();
        stream.push(u8::from(last && chunks.peek().is_none()));
        stream.extend_from_slice(&length.to_le_bytes());
        stream.extend_from_slice(&(!length).to_le_bytes());
        stream.extend_from_slice(chunk);
    }
    stream
}

/// The one raw deflate stream that zlib makes of `bytes`.
pub fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder =
        flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

impl Handmade {
    pub fn new(cluster_bits: u32, virtual_size: u64) -> Self {
        Self {
            cluster_bits,
            virtual_size,
            data: Vec::new(),
            streams: BTreeMap::new(),
        }
    }

    pub fn cluster_size(&self) -> usize {
        1 << self.cluster_bits
    }

    /// Puts `bytes` at `at` in the data area, over what is there.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[at..end].copy_from_slice(bytes);
    }

    /// Lets guest cluster `guest` be the stream at `at` in the data area, with `length` bytes or more in reach.
    pub fn stream(&mut self, guest: u64, at: usize, length: usize) {
        self.streams.insert(guest, (at as u64, length as u64));
    }

    /// What the descriptor of `guest` lets a reader see, zeros past the end of the file.
    fn reach(&self, at: u64, length: u64) -> u64 {
        (at + length).next_multiple_of(512) - at
    }

    /// The guest's bytes, as flate2 decodes them in one call.
    pub fn flat(&self) -> Vec<u8> {
        let size = usize::try_from(self.virtual_size).unwrap();
        let mut flat = vec![0; size.next_multiple_of(self.cluster_size())];
        for (&guest, &(at, length)) in &self.streams {
            let at_index = usize::try_from(at).unwrap();
            let reach = usize::try_from(self.reach(at, length)).unwrap();
            let mut seen = self.data[at_index..(at_index + reach).min(self.data.len())].to_vec();
            seen.resize(reach, 0);
            let start = usize::try_from(guest).unwrap() * self.cluster_size();
            let cluster = &mut flat[start..start + self.cluster_size()];
            let mut inflate = flate2::Decompress::new(false);
            inflate
                .decompress(&seen, cluster, flate2::FlushDecompress::Finish)
                .unwrap();
            assert_eq!(inflate.total_out(), self.cluster_size() as u64);
        }
        flat.truncate(size);
        flat
    }

    /// The image: header, L1 table, L2 tables, data, refcount table, refcount blocks.
    pub fn build(&self) -> Vec<u8> {
        let bits = self.cluster_bits;
        let size = 1u64 << bits;
        let clusters_for = |bytes: u64| bytes.div_ceil(size);
        let per_l2 = size / 8;
        let l2_tables = clusters_for(self.virtual_size).div_ceil(per_l2);
        let l1_clusters = clusters_for(l2_tables * 8).max(1);
        let first_l2 = 1 + l1_clusters;
        let first_data = first_l2 + l2_tables;
        let data_start = first_data << bits;
        let end = first_data + clusters_for(self.data.len() as u64);
        let per_block = size / 2;
        let blocks = (end + 64).div_ceil(per_block) + 1;
        let table_clusters = clusters_for(blocks * 8);
        let total = end + table_clusters + blocks;

        let mut image = vec![0; usize::try_from(total << bits).unwrap()];
        let mut put = |at: u64, bytes: &[u8]| {
            let at = usize::try_from(at).unwrap();
            image[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(0, b"QFI\xfb\0\0\0\x03");
        put(20, &bits.to_be_bytes());
        put(24, &self.virtual_size.to_be_bytes());
        put(36, &u32::try_from(l2_tables).unwrap().to_be_bytes());
        put(40, &size.to_be_bytes());
        put(48, &(end << bits).to_be_bytes());
        put(56, &u32::try_from(table_clusters).unwrap().to_be_bytes());
        put(96, &4u32.to_be_bytes());
        put(100, &104u32.to_be_bytes());

        let mut counts = vec![0u16; usize::try_from(total).unwrap()];
        let mut count = |from: u64, until: u64| {
            for cluster in from..until {
                counts[usize::try_from(cluster).unwrap()] += 1;
            }
        };
        count(0, first_data);
        count(end, total);
        for table in 0..l2_tables {
            let host = (first_l2 + table) << bits;
            put(size + table * 8, &(host | 1 << 63).to_be_bytes());
        }
        put(data_start, &self.data);
        for (&guest, &(at, length)) in &self.streams {
            let host = data_start + at;
            let sectors = (host + self.reach(at, length)) / 512 - host / 512 - 1;
            assert!(sectors < 1 << (bits - 8), "no descriptor reaches so far");
            let entry = 1 << 62 | sectors << (62 - (bits - 8)) | host;
            put((first_l2 << bits) + guest * 8, &entry.to_be_bytes());
            count(host >> bits, clusters_for(host + self.reach(at, length)));
        }
        for block in 0..blocks {
            let host = (end + table_clusters + block) << bits;
            put((end << bits) + block * 8, &host.to_be_bytes());
        }
        let first_block = (end + table_clusters) << bits;
        for (index, count) in (0u64..).zip(&counts) {
            put(first_block + index * 2, &count.to_be_bytes());
        }
        image
    }
}
