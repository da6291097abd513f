//! Speed of the codecs over one cluster of 64 KiB.
//!
//! The clusters are generated: text, records, code-like bytes and noise in
//! turn, so that the mix compresses about as a disk image does. Only ratios
//! taken in one run on one machine mean something.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use qimg::codec::{CompressionType, Decoder, DeflateWindow, Encoder, EncoderOptions, window};

const CLUSTER: usize = 64 * 1024;
const CLUSTERS: usize = 64;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `bound`, and small numbers far more often.
    fn skewed(&mut self, bound: u64) -> usize {
        let roll = self.next() % bound;
        (roll * (self.next() % bound) / bound) as usize
    }
}

fn clusters() -> Vec<Vec<u8>> {
    let mut random = Random(42);
    let words: Vec<String> = (0..3000)
        .map(|_| {
            let len = 2 + random.next() % 9;
            (0..len)
                .map(|_| char::from(b'a' + random.skewed(26) as u8))
                .collect()
        })
        .collect();
    let mut all = Vec::with_capacity(CLUSTER * CLUSTERS + 4096);
    let mut address = 0x40_0000_u32;
    while all.len() < CLUSTER * CLUSTERS {
        match random.next() % 16 {
            // Text.
            0..=6 => {
                for _ in 0..300 {
                    all.extend_from_slice(words[random.skewed(3000)].as_bytes());
                    all.push(if random.next().is_multiple_of(12) {
                        b'\n'
                    } else {
                        b' '
                    });
                }
            }
            // Records: a counter, flags, an address.
            7..=9 => {
                for _ in 0..100 {
                    address += 16 * random.skewed(64) as u32;
                    all.extend_from_slice(&address.to_le_bytes());
                    all.extend_from_slice(&(random.skewed(300) as u32).to_le_bytes());
                    all.extend_from_slice(&[0, 0, 0, random.skewed(4) as u8]);
                }
            }
            // Code: few opcodes, many small operands.
            10..=14 => {
                for _ in 0..400 {
                    let opcode = [0x48, 0x8b, 0x89, 0xe8, 0x0f, 0x74, 0xc3, 0x83];
                    all.push(opcode[random.skewed(8)]);
                    all.push(random.skewed(256) as u8);
                    if random.next().is_multiple_of(3) {
                        all.extend_from_slice(&(random.skewed(1 << 20) as u32).to_le_bytes());
                    }
                }
            }
            // What is compressed already.
            _ => all.extend((0..256).flat_map(|_| random.next().to_le_bytes())),
        }
    }
    all.chunks_exact(CLUSTER).map(<[u8]>::to_vec).collect()
}

const CASES: [(&str, CompressionType, u8, DeflateWindow); 5] = [
    ("zlib-1", CompressionType::Zlib, 1, DeflateWindow::Full),
    ("zlib-6", CompressionType::Zlib, 6, DeflateWindow::Full),
    (
        "zlib-6-4k",
        CompressionType::Zlib,
        6,
        DeflateWindow::FourKiB,
    ),
    ("zstd-1", CompressionType::Zstd, 1, DeflateWindow::Full),
    ("zstd-4", CompressionType::Zstd, 4, DeflateWindow::Full),
];

fn codec(c: &mut Criterion) {
    let clusters = clusters();
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Bytes((CLUSTER * CLUSTERS) as u64));
    group.sample_size(10);
    for (name, codec, level, window) in CASES {
        let options = EncoderOptions {
            codec,
            level: Some(level),
            window,
        };
        let mut encoder = Encoder::new(&options, CLUSTER).expect("a level of the codec");
        let mut out = Vec::new();
        group.bench_function(format!("encode/{name}"), |b| {
            b.iter(|| {
                for cluster in &clusters {
                    out.clear();
                    black_box(encoder.encode(cluster, CLUSTER - 1, &mut out)).expect("encodes");
                }
            });
        });

        let mut decoder = Decoder::new();
        let mut cluster = vec![0; CLUSTER];
        let mut stored = Vec::new();
        for original in &clusters {
            let mut one = Vec::new();
            encoder
                .encode(original, usize::MAX, &mut one)
                .expect("encodes");
            decoder.decode(codec, &one, &mut cluster).expect("decodes");
            assert!(cluster == *original, "{name} does not round trip");
            stored.push(one);
        }
        group.bench_function(format!("decode/{name}"), |b| {
            b.iter(|| {
                for one in &stored {
                    decoder.decode(codec, one, &mut cluster).expect("decodes");
                }
            });
        });
        group.bench_function(format!("decode-exact/{name}"), |b| {
            b.iter(|| {
                for one in &stored {
                    black_box(decoder.decode_exact(codec, one, &mut cluster)).expect("decodes");
                }
            });
        });
        if codec == CompressionType::Zlib {
            group.bench_function(format!("walk/{name}"), |b| {
                b.iter(|| {
                    for one in &stored {
                        black_box(window::walk(one, CLUSTER)).expect("sound");
                    }
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
