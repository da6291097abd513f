//! Images against a flat array: whatever is written, and however often it is carried over, the guest reads the same.
//!
//! `QIMG_NIGHTLY=1` runs many times as many cases.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::collection::vec;
use proptest::prelude::*;
use qimg::codec::{CompressionType, DeflateWindow, EncoderOptions};
use qimg::convert::{Options, Reuse, convert};
use qimg::image::options::Qcow2Options;
use qimg::image::{BackingPolicy, Depth, Format, Image, OpenOptions, Target, TargetOptions};
use qimg::source::Source;
use qimg::store::{Locking, Memory, Sync};
use qimg::writer::{ImageWriter, Origin, StoredCluster, Written};
use qimg::{Error, Result};

/// Bytes of the largest disk here.
const LARGEST: usize = 384 << 10;

fn cases(few: u32) -> ProptestConfig {
    let times = if std::env::var_os("QIMG_NIGHTLY").is_some() {
        40
    } else {
        1
    };
    ProptestConfig {
        cases: few * times,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// What a write puts on the disk.
#[derive(Debug, Clone, Copy)]
enum Content {
    Zeros,
    Fill(u8),
    Noise(u64),
    /// Compresses well, and is not the same everywhere.
    Text(u64),
}

impl Content {
    fn fill(self, bytes: &mut [u8]) {
        let mut state = 0;
        let mut next = |seed: u64| {
            state = if state == 0 { seed | 1 } else { state };
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24).to_le_bytes()[0]
        };
        match self {
            Self::Zeros => bytes.fill(0),
            Self::Fill(byte) => bytes.fill(byte),
            Self::Noise(seed) => bytes.fill_with(|| next(seed)),
            Self::Text(seed) => bytes.fill_with(|| b'a' + next(seed) % 4),
        }
    }
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        Just(Content::Zeros),
        any::<u8>().prop_map(Content::Fill),
        any::<u64>().prop_map(Content::Noise),
        any::<u64>().prop_map(Content::Text),
    ]
}

/// Guest ranges in sectors, later ones over earlier ones.
fn writes() -> impl Strategy<Value = Vec<(usize, usize, Content)>> {
    vec((0..LARGEST / 512, 1..200usize, content()), 0..12)
}

fn apply(writes: &[(usize, usize, Content)], flat: &mut [u8]) {
    for &(at, sectors, content) in writes {
        let start = (at * 512).min(flat.len());
        let end = (start + sectors * 512).min(flat.len());
        content.fill(&mut flat[start..end]);
    }
}

fn shape() -> impl Strategy<Value = Qcow2Options> {
    (9u32..=17, 0u32..=6, 0..4u8, any::<bool>(), any::<bool>()).prop_map(
        |(bits, order, version, extended_l2, zstd)| {
            let v3 = version > 0;
            Qcow2Options {
                cluster_size: 1 << bits,
                version: if v3 { 3 } else { 2 },
                refcount_bits: if v3 { 1 << order } else { 16 },
                extended_l2: v3 && extended_l2 && bits >= 14,
                compression_type: if v3 && zstd {
                    CompressionType::Zstd
                } else {
                    CompressionType::Zlib
                },
                ..Qcow2Options::default()
            }
        },
    )
}

/// How an image is carried over.
#[derive(Debug, Clone)]
struct Pass {
    shape: Qcow2Options,
    /// Into the same shape, so that streams stay.
    same: bool,
    compress: Option<u8>,
    window: DeflateWindow,
    reuse: Reuse,
    flatten: bool,
    sparse: usize,
}

fn pass() -> impl Strategy<Value = Pass> {
    let window = prop_oneof![Just(DeflateWindow::Full), Just(DeflateWindow::FourKiB)];
    let reuse = prop_oneof![Just(Reuse::Copy), Just(Reuse::KeepSmaller)];
    let sparse = prop_oneof![Just(0), Just(512), Just(4096), Just(65536)];
    let compress = proptest::option::of(1..=6u8);
    let flags = (any::<bool>(), any::<bool>());
    (shape(), flags, compress, window, reuse, sparse).prop_map(
        |(shape, (same, flatten), compress, window, reuse, sparse)| Pass {
            shape,
            same,
            compress,
            window,
            reuse,
            flatten,
            sparse,
        },
    )
}

impl Pass {
    fn options(&self, old: &Qcow2Options) -> Qcow2Options {
        let shape = if self.same { old } else { &self.shape };
        Qcow2Options {
            backing: old.backing.clone().filter(|_| !self.flatten),
            ..shape.clone()
        }
    }

    fn run(&self, source: &dyn Source, qcow2: &Qcow2Options, threads: usize) -> Vec<u8> {
        let encoding = self.compress.map(|level| EncoderOptions {
            codec: qcow2.compression_type,
            level: Some(level),
            window: self.window,
        });
        let options = Options {
            threads,
            encoding,
            reuse: self.reuse,
            overlay: qcow2.backing.is_some(),
            sparse: self.sparse,
            share: false,
            cancel: &AtomicBool::new(false),
        };
        let store = Memory::new();
        let mut target = in_store(&store, source.virtual_size(), qcow2, encoding.is_some());
        convert(source, target.writer(), &options, &mut |_| {}).unwrap();
        target.finish().unwrap();
        store.to_vec()
    }
}

fn in_store(store: &Memory, size: u64, qcow2: &Qcow2Options, compresses: bool) -> Target {
    let options = TargetOptions {
        format: Format::Qcow2,
        qcow2: qcow2.clone(),
        existing: false,
        sync: Sync::None,
        locking: Locking::Ignore,
    };
    Target::in_store(Arc::new(store.clone()), size, &options, compresses).unwrap()
}

fn open(bytes: Vec<u8>, format: Format, directory: &Path) -> Image {
    let options = OpenOptions {
        format: Some(format),
        backing: BackingPolicy::Beside,
        locking: Locking::Ignore,
    };
    let path = directory.join("image");
    Image::from_store(Arc::new(Memory::from(bytes)), path, &options).unwrap()
}

/// Reads in pieces that end at no border.
fn read_all(source: &dyn Source) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(source.virtual_size()).unwrap()];
    let mut reader = source.reader();
    let mut at = 0;
    for part in bytes.chunks_mut(70_001) {
        reader.read_at(at, part).unwrap();
        at += part.len() as u64;
    }
    bytes
}

fn assert_reads_as(source: &dyn Source, flat: &[u8]) {
    let bytes = read_all(source);
    assert_eq!(bytes.len(), flat.len());
    if let Some(at) = (0..flat.len()).find(|&at| bytes[at] != flat[at]) {
        panic!("guest {at:#x} is {:#x}, not {:#x}", bytes[at], flat[at]);
    }
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} must be installed: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

proptest! {
    #![proptest_config(cases(40))]

    /// A raw disk, through image after image.
    #[test]
    fn contents_survive_any_chain_of_conversions(
        size in 0..LARGEST / 512,
        writes in writes(),
        first in shape(),
        passes in vec(pass(), 1..4),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut flat = vec![0; size * 512];
        apply(&writes, &mut flat);
        let mut image = open(flat.clone(), Format::Raw, directory.path());
        let mut options = first;
        for pass in &passes {
            options = pass.options(&options);
            let chain = image.chain(Depth::Chain, None).unwrap();
            let copy = pass.run(&chain, &options, 1);
            for threads in [2, 8] {
                prop_assert!(copy == pass.run(&chain, &options, threads), "{threads} threads differ");
            }
            image = open(copy, Format::Qcow2, directory.path());
            prop_assert_eq!(image.qcow2_options(), Some(options.clone()));
            assert_reads_as(&image.chain(Depth::Chain, None).unwrap(), &flat);
        }
    }

    /// An overlay on a backing file that may be shorter or longer, kept or merged.
    #[test]
    fn an_overlay_hides_what_it_wrote_and_nothing_else(
        size in 1..LARGEST / 512,
        behind in (0..LARGEST / 512, writes()),
        clusters in vec(proptest::option::of(content()), 0..100),
        first in shape(),
        passes in vec(pass(), 1..4),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut backing = vec![0; behind.0 * 512];
        apply(&behind.1, &mut backing);
        std::fs::write(directory.path().join("backing"), &backing).unwrap();
        let mut flat = backing;
        flat.resize(size * 512, 0);
        let mut options = Qcow2Options {
            backing: Some(("backing".into(), "raw".into())),
            ..first
        };
        let store = Memory::new();
        let mut target = in_store(&store, flat.len() as u64, &options, false);
        let cluster_size = usize::try_from(options.cluster_size).unwrap();
        let mut guest = 0;
        for (cluster, content) in flat.chunks_mut(cluster_size).zip(clusters) {
            let end = guest + cluster.len() as u64;
            if let Some(content) = content {
                content.fill(cluster);
                match content {
                    Content::Zeros => target.writer().write_zeros(guest..end).unwrap(),
                    _ => target.writer().write_data(guest, cluster, None).unwrap(),
                }
            }
            guest = end;
        }
        target.finish().unwrap();
        let mut image = open(store.to_vec(), Format::Qcow2, directory.path());
        assert_reads_as(&image.chain(Depth::Chain, None).unwrap(), &flat);
        for pass in &passes {
            options = pass.options(&options);
            let chain = image.chain(Depth::Chain, None).unwrap();
            let copy = pass.run(&chain, &options, 1);
            prop_assert!(copy == pass.run(&chain, &options, 3), "3 threads differ");
            image = open(copy, Format::Qcow2, directory.path());
            assert_reads_as(&image.chain(Depth::Chain, None).unwrap(), &flat);
        }
    }
}

proptest! {
    #![proptest_config(cases(3))]

    /// What qemu-io wrote is what is read, and what is written holds for qemu-img.
    #[test]
    fn qemu_agrees_about_random_images(
        writes in writes(),
        shape in shape(),
        pass in pass(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let (before, after) = (path("before"), path("after"));
        let options = format!(
            "cluster_size={},compat={},refcount_bits={},extended_l2={},compression_type={}",
            shape.cluster_size,
            if shape.version == 2 { "0.10" } else { "1.1" },
            shape.refcount_bits,
            if shape.extended_l2 { "on" } else { "off" },
            shape.compression_type,
        );
        run("qemu-img", &["create", "-q", "-f", "qcow2", "-o", &options, &before, &LARGEST.to_string()]);
        let mut flat = vec![0; LARGEST];
        let mut commands = Vec::new();
        for &(at, sectors, content) in &writes {
            let start = at * 512;
            let end = (start + sectors * 512).min(LARGEST);
            // qemu-io writes one byte over and over.
            let byte = match content {
                Content::Zeros => 0,
                Content::Fill(byte) => byte,
                Content::Noise(seed) | Content::Text(seed) => seed.to_le_bytes()[0],
            };
            flat[start..end].fill(byte);
            let how = match content {
                Content::Zeros if shape.version == 3 => "-z".into(),
                _ => format!("-P {byte}"),
            };
            commands.extend(["-c".into(), format!("write -q {how} {start} {}", end - start)]);
        }
        commands.push(before.clone());
        run("qemu-io", &commands.iter().map(String::as_str).collect::<Vec<_>>());
        let image = open(std::fs::read(&before).unwrap(), Format::Qcow2, directory.path());
        let chain = image.chain(Depth::Chain, None).unwrap();
        assert_reads_as(&chain, &flat);
        let copy = pass.run(&chain, &pass.options(&shape), 2);
        std::fs::write(&after, &copy).unwrap();
        run("qemu-img", &["check", "-q", &after]);
        run("qemu-img", &["compare", "-q", &before, &after]);
    }
}

fn plain(sparse: usize) -> Pass {
    Pass {
        shape: Qcow2Options::default(),
        same: false,
        compress: None,
        window: DeflateWindow::Full,
        reuse: Reuse::Copy,
        flatten: false,
        sparse,
    }
}

/// Zeros that an overlay wrote inside a cluster with data stay zeros when it is copied with subclusters.
#[test]
fn zeros_inside_a_cluster_do_not_let_the_backing_file_through() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("backing"), vec![0xbb; 64 << 10]).unwrap();
    let mut flat = vec![0; 64 << 10];
    flat[..512].fill(1);
    let mut options = Qcow2Options {
        backing: Some(("backing".into(), "raw".into())),
        ..Qcow2Options::default()
    };
    let store = Memory::new();
    let mut target = in_store(&store, 64 << 10, &options, false);
    target.writer().write_data(0, &flat, None).unwrap();
    target.finish().unwrap();
    let image = open(store.to_vec(), Format::Qcow2, directory.path());
    let chain = image.chain(Depth::Chain, None).unwrap();
    options.extended_l2 = true;
    let copy = plain(4096).run(&chain, &options, 1);
    let copy = open(copy, Format::Qcow2, directory.path());
    assert_reads_as(&copy.chain(Depth::Chain, None).unwrap(), &flat);
}

/// Takes what comes, up to a limit.
#[derive(Debug, Default)]
struct Gauge {
    largest: usize,
    written: u64,
}

impl ImageWriter for Gauge {
    fn cluster_size(&self) -> u64 {
        64 << 10
    }

    fn skips_zeros(&self) -> bool {
        false
    }

    fn write_data(&mut self, _: u64, bytes: &[u8], _: Option<Origin<'_>>) -> Result<()> {
        self.largest = self.largest.max(bytes.len());
        self.written += bytes.len() as u64;
        if self.written > 64 << 20 {
            return Err(Error::cancelled());
        }
        Ok(())
    }

    fn write_compressed(
        &mut self,
        _: &[StoredCluster],
        _: &[u8],
        _: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<()> {
        Ok(())
    }

    fn write_zeros(&mut self, _: Range<u64>) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> Result<Written> {
        Ok(Written::default())
    }
}

/// Without sparseness a hole is read and written like data: in pieces, not at once.
#[test]
fn writing_out_a_large_hole_takes_no_more_memory_than_data() {
    let store = Memory::new();
    in_store(&store, 1 << 40, &Qcow2Options::default(), false)
        .finish()
        .unwrap();
    let image = open(store.to_vec(), Format::Qcow2, &PathBuf::new());
    let chain = image.chain(Depth::Chain, None).unwrap();
    let options = Options {
        threads: 1,
        encoding: None,
        reuse: Reuse::Copy,
        overlay: false,
        sparse: 0,
        share: false,
        cancel: &AtomicBool::new(false),
    };
    let mut gauge = Gauge::default();
    convert(&chain, &mut gauge, &options, &mut |_| {}).unwrap_err();
    assert!(gauge.written > 64 << 20);
    assert!(gauge.largest <= 2 << 20, "{} bytes at once", gauge.largest);
}
