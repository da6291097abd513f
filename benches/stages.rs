//! The engine's stages one by one, in memory: L2 walk, zero scan, commit, and all of it.
//!
//! The codecs have a benchmark of their own, `codec`.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qimg::codec::{CompressionType, DeflateWindow, EncoderOptions};
use qimg::convert::{self, Reuse};
use qimg::image::{Depth, Format, Image, OpenOptions, Target, TargetOptions};
use qimg::rewrite::{Bitmaps, RewriteRequest, rewrite};
use qimg::store::{Locking, Memory, ReadAt, Sync};
use qimg::zero::is_zero;

const CLUSTER: usize = 1 << 16;

/// Bytes that compress about as well as a system image does, the same at every run.
fn contents(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let word = state.to_le_bytes();
        // Runs and repeated words between noise.
        match state % 4 {
            0 => bytes.extend_from_slice(&word),
            1 => bytes.extend_from_slice(&[word[0]; 12]),
            _ => bytes.extend_from_slice(b"the same words again "),
        }
    }
    bytes.truncate(length);
    bytes
}

fn memory_image(bytes: Vec<u8>, format: Format) -> Image {
    let options = OpenOptions {
        format: Some(format),
        ..OpenOptions::default()
    };
    let store: Arc<dyn ReadAt> = Arc::new(Memory::from(bytes));
    Image::from_store(store, Path::new("memory"), &options).expect("a well-formed image")
}

fn target(format: Format) -> TargetOptions {
    TargetOptions {
        format,
        qcow2: qimg::image::options::Qcow2Options::default(),
        existing: false,
        sync: Sync::None,
        locking: Locking::Check,
    }
}

fn zero_scan(c: &mut Criterion) {
    let mut group = c.benchmark_group("zero scan");
    group.throughput(Throughput::Bytes(CLUSTER as u64));
    let zeros = vec![0u8; CLUSTER];
    group.bench_function("zeros", |b| b.iter(|| is_zero(black_box(&zeros))));
    let data = contents(CLUSTER);
    group.bench_function("data", |b| b.iter(|| is_zero(black_box(&data))));
    group.finish();
}

fn l2_walk(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("walk.qcow2");
    let size = 64u64 << 30;
    let mut image = Target::create(&path, size, &target(Format::Qcow2), false).expect("created");
    // Every other cluster holds data: the worst case for runs.
    for guest in (0..size).step_by(16 * CLUSTER) {
        image
            .writer()
            .write_data(guest, &[1; 512], None)
            .expect("written");
    }
    image.finish().expect("finished");
    let image = Image::open(&path, &OpenOptions::default()).expect("opened");
    let chain = image.chain(Depth::Chain, None).expect("chain");
    let never = AtomicBool::new(false);
    let mut group = c.benchmark_group("L2 walk");
    group.throughput(Throughput::Elements(size / CLUSTER as u64));
    group.bench_function("64 GiB, a data cluster in 16", |b| {
        b.iter(|| convert::stored_bytes(&chain, &never).expect("walked"));
    });
    group.finish();
}

fn commit(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = contents(64 << 20);
    let mut group = c.benchmark_group("commit");
    group
        .throughput(Throughput::Bytes(data.len() as u64))
        .sample_size(10);
    group.bench_function("64 MiB of plain clusters", |b| {
        b.iter(|| {
            let path = dir.path().join("commit.qcow2");
            let size = data.len() as u64;
            let mut image =
                Target::create(&path, size, &target(Format::Qcow2), false).expect("created");
            for (index, part) in data.chunks(1 << 20).enumerate() {
                image
                    .writer()
                    .write_data((index as u64) << 20, part, None)
                    .expect("written");
            }
            image.finish().expect("finished")
        });
    });
    group.finish();
}

fn whole_path(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = contents(32 << 20);
    let source = memory_image(data.clone(), Format::Raw);
    let mut group = c.benchmark_group("raw to qcow2");
    group
        .throughput(Throughput::Bytes(data.len() as u64))
        .sample_size(10);
    for codec in [
        None,
        Some(CompressionType::Zlib),
        Some(CompressionType::Zstd),
    ] {
        let name = codec.map_or("plain".to_owned(), |codec| codec.to_string());
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                let mut options = target(Format::Qcow2);
                options.qcow2.compression_type = codec.unwrap_or(CompressionType::Zlib);
                let encoding = codec.map(|codec| EncoderOptions {
                    codec,
                    level: None,
                    window: DeflateWindow::Full,
                });
                let request = RewriteRequest {
                    source: &source,
                    snapshot: None,
                    free: None,
                    destination: &dir.path().join("whole.qcow2"),
                    target: options,
                    overlay: false,
                    encoding,
                    reuse: Reuse::Copy,
                    bitmaps: Bitmaps::Leave,
                    sparse: 4096,
                    in_place: false,
                    threads: std::thread::available_parallelism().map_or(1, usize::from),
                };
                rewrite(&request, &AtomicBool::new(false), &mut |_, _| {}).expect("rewritten")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, zero_scan, l2_walk, commit, whole_path);
criterion_main!(benches);
