//! The writer and the data path against a flat array: an image made of random operations, then carried over again and
//! again with random options, always reads as the array does, and counts exactly what it refers to.
#![no_main]

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use qimg::codec::{CompressionType, DeflateWindow, Encoder, EncoderOptions};
use qimg::convert::{Options, Reuse, convert};
use qimg::fuzzing::addr::HostOffset;
use qimg::fuzzing::entry::{L1Entry, L2Entry, L2Mapping};
use qimg::fuzzing::header::Header;
use qimg::image::options::{Preallocation, Qcow2Options};
use qimg::image::{BackingPolicy, Depth, Format, Image, OpenOptions, Target, TargetOptions};
use qimg::source::Source;
use qimg::store::{Locking, Memory, Sync};
use qimg::writer::StoredCluster;

/// Longest disk, in bytes: many runs are worth more than large ones.
const LARGEST: u64 = 160 << 10;

#[derive(Arbitrary, Debug)]
struct Input {
    shape: Shape,
    sectors: u16,
    backing: Option<Vec<Content>>,
    clusters: Vec<Cluster>,
    passes: [Option<Pass>; 3],
}

#[derive(Arbitrary, Debug, Clone, Copy)]
struct Shape {
    cluster_bits: u8,
    refcount_order: u8,
    version2: bool,
    extended_l2: bool,
    zstd: bool,
    lazy_refcounts: bool,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Cluster {
    Leave,
    Zero,
    Data(Content),
    Compressed(Content),
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Content {
    Fill(u8),
    Noise(u16),
    Text(u16),
    /// Zeros between two parts that are not.
    Hollow(u8, u8, u8),
}

#[derive(Arbitrary, Debug)]
struct Pass {
    shape: Shape,
    /// Keep shape and codec, so that streams are copied.
    same: bool,
    level: Option<u8>,
    narrow: bool,
    again: bool,
    flatten: bool,
    sparse: u8,
    threads: u8,
    preallocate: bool,
}

impl Shape {
    fn options(self) -> Qcow2Options {
        let version = if self.version2 { 2 } else { 3 };
        let bits = 9 + self.cluster_bits % 8;
        let v3 = version == 3;
        Qcow2Options {
            cluster_size: 1 << bits,
            version,
            refcount_bits: if v3 {
                1 << (self.refcount_order % 7)
            } else {
                16
            },
            compression_type: if v3 && self.zstd {
                CompressionType::Zstd
            } else {
                CompressionType::Zlib
            },
            extended_l2: v3 && self.extended_l2 && bits >= 14,
            lazy_refcounts: v3 && self.lazy_refcounts,
            ..Qcow2Options::default()
        }
    }
}

impl Content {
    fn fill(self, bytes: &mut [u8]) {
        match self {
            Self::Fill(byte) => bytes.fill(byte),
            Self::Noise(seed) => {
                let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                for byte in bytes {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    *byte = (state >> 32) as u8;
                }
            }
            Self::Text(seed) => {
                for (index, byte) in bytes.iter_mut().enumerate() {
                    let word = (index / 7 + usize::from(seed)) * 40503 >> 3;
                    *byte = b'a' + ((word >> (index % 7)) & 15) as u8;
                }
            }
            Self::Hollow(from, length, byte) => {
                let unit = bytes.len().div_ceil(256);
                let from = (usize::from(from) * unit).min(bytes.len());
                let until = (from + usize::from(length) * unit).min(bytes.len());
                bytes.fill(byte);
                bytes[from..until].fill(0);
            }
        }
    }
}

fuzz_target!(|input: Input| {
    let mut options = input.shape.options();
    let size = (u64::from(input.sectors) * 512).min(LARGEST);
    let mut flat = vec![0; size as usize];
    if let Some(backing) = &input.backing {
        options.backing = Some(("backing.raw".into(), "raw".into()));
        write_backing(backing, &mut flat);
    }
    let mut image = build(&input, &options, &mut flat);
    assert_holds(&image, &options, &flat);
    for pass in input.passes.iter().flatten() {
        (image, options) = carry_over(&image, &options, pass);
        assert_holds(&image, &options, &flat);
    }
});

/// One file for the whole run: backing files are opened by name alone.
fn backing_path() -> PathBuf {
    static DIRECTORY: OnceLock<tempfile::TempDir> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| tempfile::tempdir().unwrap());
    directory.path().join("backing.raw")
}

fn write_backing(contents: &[Content], flat: &mut [u8]) {
    let mut bytes = vec![0; contents.len().min(64) * 5 * 512];
    for (part, content) in bytes.chunks_mut(5 * 512).zip(contents) {
        content.fill(part);
    }
    let shown = flat.len().min(bytes.len());
    flat[..shown].copy_from_slice(&bytes[..shown]);
    std::fs::write(backing_path(), bytes).unwrap();
}

fn target(store: &Memory, size: u64, options: &Qcow2Options, compresses: bool) -> Target {
    let options = TargetOptions {
        format: Format::Qcow2,
        qcow2: options.clone(),
        existing: false,
        sync: Sync::None,
        locking: Locking::Ignore,
    };
    Target::in_store(Arc::new(store.clone()), size, &options, compresses).unwrap()
}

/// The first image, by the writer's own calls.
fn build(input: &Input, options: &Qcow2Options, flat: &mut [u8]) -> Memory {
    let store = Memory::new();
    let size = flat.len() as u64;
    let cluster_size = options.cluster_size as usize;
    let mut target = target(&store, size, options, true);
    let writer = target.writer();
    let encoding = EncoderOptions {
        codec: options.compression_type,
        level: Some(1),
        window: DeflateWindow::Full,
    };
    let mut encoder = Encoder::new(&encoding, cluster_size).unwrap();
    let mut guest = 0;
    for (part, cluster) in flat.chunks_mut(cluster_size).zip(&input.clusters) {
        let end = guest + part.len() as u64;
        match *cluster {
            Cluster::Leave => {}
            Cluster::Zero => {
                part.fill(0);
                writer.write_zeros(guest..end).unwrap();
            }
            Cluster::Data(content) => {
                content.fill(part);
                writer.write_data(guest, part, None).unwrap();
            }
            Cluster::Compressed(content) => {
                content.fill(part);
                let mut whole = part.to_vec();
                whole.resize(cluster_size, 0);
                let mut arena = Vec::new();
                let limit = cluster_size - 1;
                match encoder.encode(&whole, limit, &mut arena).unwrap() {
                    None => writer.write_data(guest, part, None).unwrap(),
                    Some(length) => {
                        let stream = StoredCluster {
                            guest,
                            start: 0,
                            length,
                            // As bad as a checksum can be: only the bytes decide.
                            digest: 7,
                            tail: None,
                        };
                        writer
                            .write_compressed(&[stream], &arena, &mut |_| true)
                            .unwrap();
                    }
                }
            }
        }
        guest = end;
    }
    target.finish().unwrap();
    store
}

fn open(store: &Memory) -> Image {
    let options = OpenOptions {
        format: Some(Format::Qcow2),
        backing: BackingPolicy::Beside,
        locking: Locking::Ignore,
    };
    let path = backing_path().with_file_name("top.qcow2");
    Image::from_store(Arc::new(store.clone()), path, &options).unwrap()
}

fn carry_over(image: &Memory, old: &Qcow2Options, pass: &Pass) -> (Memory, Qcow2Options) {
    let overlay = old.backing.is_some() && !pass.flatten;
    let mut options = if pass.same {
        old.clone()
    } else {
        pass.shape.options()
    };
    options.backing = old.backing.clone().filter(|_| overlay);
    let encoding = pass.level.map(|level| EncoderOptions {
        codec: options.compression_type,
        level: Some(1 + level % 5),
        window: if pass.narrow {
            DeflateWindow::FourKiB
        } else {
            DeflateWindow::Full
        },
    });
    let can_preallocate = options.backing.is_none() || options.extended_l2;
    if pass.preallocate && encoding.is_none() && can_preallocate {
        options.preallocation = Preallocation::Metadata;
    }
    let source = open(image);
    let chain = source.chain(Depth::Chain, None).unwrap();
    let copy = Memory::new();
    let mut target = target(&copy, chain.virtual_size(), &options, encoding.is_some());
    options.preallocation = Preallocation::Off;
    let how = Options {
        threads: 1 + usize::from(pass.threads % 3),
        encoding,
        reuse: if pass.again {
            Reuse::KeepSmaller
        } else {
            Reuse::Copy
        },
        overlay,
        sparse: [0, 512, 4096, 65536][usize::from(pass.sparse % 4)],
        share: false,
        cancel: &AtomicBool::new(false),
    };
    convert(&chain, target.writer(), &how, &mut |_| {}).unwrap();
    target.finish().unwrap();
    (copy, options)
}

fn assert_holds(store: &Memory, options: &Qcow2Options, flat: &[u8]) {
    let image = open(store);
    assert_eq!(image.qcow2_options().as_ref(), Some(options));
    let chain = image.chain(Depth::Chain, None).unwrap();
    assert_eq!(chain.virtual_size(), flat.len() as u64);
    let mut bytes = vec![0xee; flat.len()];
    chain.reader().read_at(0, &mut bytes).unwrap();
    if let Some(at) = (0..flat.len()).find(|&at| bytes[at] != flat[at]) {
        panic!("guest {at:#x} is {:#x}, not {:#x}", bytes[at], flat[at]);
    }
    assert_counts(&store.to_vec());
}

/// Counts all references again, by the format's own rules, and compares them with what is stored.
fn assert_counts(image: &[u8]) {
    let header = Header::parse(image).unwrap();
    let geometry = header.geometry();
    let bits = geometry.cluster_bits;
    assert_eq!(image.len() as u64 % bits.size(), 0);
    let mut counts = vec![0u64; image.len() >> bits.bits()];
    let mut count = |host: u64, length: u64| {
        for cluster in host >> bits.bits()..bits.clusters_for(host + length) {
            counts[cluster as usize] += 1;
        }
    };
    let word = |at: u64| u64::from_be_bytes(*image[at as usize..].first_chunk().unwrap());
    count(0, bits.size());
    count(header.l1_table_offset, u64::from(header.l1_size) * 8);
    let mut plain = Vec::new();
    for index in 0..u64::from(header.l1_size) {
        let entry = L1Entry(word(header.l1_table_offset + index * 8));
        let Some(HostOffset(table)) = entry.table(bits).unwrap() else {
            continue;
        };
        assert_eq!(L1Entry::to_table(HostOffset(table)), entry);
        count(table, bits.size());
        for slot in 0..geometry.l2_entries() {
            let at = table + slot * geometry.l2_entry_size();
            let entry = L2Entry {
                word: word(at),
                bitmap: if geometry.extended_l2 {
                    word(at + 8)
                } else {
                    0
                },
            };
            let guest = (index * geometry.l2_entries() + slot) << bits.bits();
            match entry.decode(geometry, guest).unwrap() {
                L2Mapping::Compressed(descriptor) => count(descriptor.host.0, descriptor.length),
                L2Mapping::Data { host }
                | L2Mapping::Zero { host: Some(host) }
                | L2Mapping::Subclusters {
                    host: Some(host), ..
                } => {
                    count(host.0, bits.size());
                    plain.push(host.0);
                }
                _ => {}
            }
        }
    }
    let table_bytes = u64::from(header.refcount_table_clusters) << bits.bits();
    count(header.refcount_table_offset, table_bytes);
    let order = header.refcount_order;
    let blocks: Vec<u64> = (0..table_bytes / 8)
        .map(|index| word(header.refcount_table_offset + index * 8))
        .collect();
    for &block in blocks.iter().filter(|&&block| block != 0) {
        count(block, bits.size());
    }
    for (cluster, &expected) in counts.iter().enumerate() {
        let per_block = order.entries_per_block(bits) as usize;
        let block = blocks[cluster / per_block] as usize;
        let stored = match block {
            0 => 0,
            at => order
                .load(&image[at..at + bits.len()], cluster % per_block)
                .unwrap(),
        };
        assert_eq!(stored, expected, "references of host cluster {cluster}");
    }
    for host in plain {
        assert_eq!(
            counts[(host >> bits.bits()) as usize],
            1,
            "a plain cluster is shared"
        );
    }
}
