//! What is compressed here, readers that share no code with qimg or QEMU read too.
//!
//! | reader | inflates with | zstd |
//! |---|---|---|
//! | 7-Zip | its own decoder | no |
//! | imago | `miniz_oxide` | no |
//! | rust-img-qcow2 | `miniz_oxide` | ruzstd, written from the specification |
//! | CPython, piece by piece with QEMU's window of 4 KiB | zlib | no |
//!
//! A missing reader fails the test.

mod oracle;
mod patterns;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;

use imago::file::File as ImagoFile;
use imago::qcow2::Qcow2;
use imago::{FormatAccess, FormatDriverBuilder, PermissiveImplicitOpenGate};
use img_qcow2::Qcow2Reader;
use oracle::{Scratch, qemu_img};
use patterns::Random;
use qimg::codec::{CompressionType, DeflateWindow};
use qimg::compress::{CompressRequest, Effort, compress};
use qimg::image::{Image, OpenOptions};
use qimg::store::Sync;

/// Text, noise, zeros, repetitions from far away.
fn contents() -> Vec<u8> {
    let mut random = Random(99);
    let mut bytes = Vec::new();
    let far = random.noise(20_000);
    for round in 0..12 {
        bytes.extend(random.text(150_000));
        bytes.extend(&far);
        bytes.extend(random.text(9_000));
        bytes.extend(&far);
        if round % 3 == 0 {
            bytes.extend(random.noise(140_000));
            bytes.extend(vec![0; 300_000]);
        }
    }
    // Some readers want whole clusters.
    bytes.resize(bytes.len().next_multiple_of(2 << 20), 0);
    bytes
}

struct Made {
    scratch: Scratch,
    bytes: Vec<u8>,
}

impl Made {
    fn new() -> Self {
        let scratch = Scratch::new();
        let bytes = contents();
        std::fs::write(scratch.path("in.raw"), &bytes).unwrap();
        let (raw, theirs) = (scratch.path("in.raw"), scratch.path("theirs.qcow2"));
        qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", &raw, &theirs]);
        Self { scratch, bytes }
    }

    /// Compresses in every way that `wanted` admits, and hands each image with the bytes it holds to `test`.
    fn each(
        &self,
        wanted: impl Fn(CompressionType, Option<DeflateWindow>) -> bool,
        test: impl Fn(&str, &[u8]),
    ) {
        let narrow = Some(DeflateWindow::FourKiB);
        let (zlib, zstd) = (CompressionType::Zlib, CompressionType::Zstd);
        let ways = [
            ("in.raw", zlib, Effort::Default, None, 64 << 10),
            ("in.raw", zlib, Effort::Best, None, 64 << 10),
            ("in.raw", zlib, Effort::Default, None, 4 << 10),
            ("in.raw", zlib, Effort::Default, None, 2 << 20),
            ("in.raw", zlib, Effort::Default, narrow, 64 << 10),
            ("in.raw", zlib, Effort::Best, narrow, 256 << 10),
            ("theirs.qcow2", zlib, Effort::Default, None, 64 << 10),
            ("theirs.qcow2", zlib, Effort::Level(9), narrow, 64 << 10),
            ("in.raw", zstd, Effort::Default, None, 64 << 10),
            ("in.raw", zstd, Effort::Level(19), None, 64 << 10),
            ("in.raw", zstd, Effort::Default, None, 4 << 10),
            ("in.raw", zstd, Effort::Default, None, 2 << 20),
        ];
        for (number, (from, codec, effort, window, cluster_size)) in ways.into_iter().enumerate() {
            if !wanted(codec, window) {
                continue;
            }
            let source = Image::open(self.scratch.path(from), &OpenOptions::default()).unwrap();
            let path = self.scratch.path(&format!("{number}.qcow2"));
            let request = CompressRequest {
                source: &source,
                free: None,
                destination: Some(Path::new(&path)),
                codec,
                effort,
                window,
                cluster_size: Some(cluster_size),
                flatten: false,
                drop_snapshots: false,
                drop_bitmaps: false,
                existing: false,
                threads: 2,
                sync: Sync::None,
            };
            compress(&request, &AtomicBool::new(false), &mut |_, _| {}).unwrap();
            test(&path, &self.bytes);
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("the reader {program} is needed: {error}"))
}

fn is_zlib(codec: CompressionType, _: Option<DeflateWindow>) -> bool {
    codec == CompressionType::Zlib
}

#[test]
fn seven_zip_reads_zlib() {
    Made::new().each(is_zlib, |path, bytes| {
        // The type is said: else it looks into the disk for partitions.
        let output = run("7zz", &["e", "-so", "-tqcow", path]);
        assert!(
            output.status.success(),
            "{path}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            output.stdout == bytes,
            "{path}: {} bytes",
            output.stdout.len()
        );
    });
}

#[test]
fn imago_reads_zlib() {
    Made::new().each(is_zlib, |path, bytes| {
        let image = Qcow2::<ImagoFile>::builder_path(path)
            .open(PermissiveImplicitOpenGate::default())
            .unwrap();
        let image = FormatAccess::new(image);
        let mut read = vec![0; bytes.len()];
        image.read(&mut read[..], 0).unwrap();
        assert!(read == bytes, "{path}");
    });
}

#[test]
fn rust_img_qcow2_reads_zlib_and_zstd() {
    Made::new().each(
        |_, _| true,
        |path, bytes| {
            let image = Qcow2Reader::open(path).unwrap();
            assert_eq!(image.virtual_size(), bytes.len() as u64);
            let mut read = vec![0; bytes.len()];
            image.read_at(0, &mut read).unwrap();
            assert!(read == bytes, "{path}");
        },
    );
}

/// As scripts read qcow2: inflates each cluster with QEMU's window, in the pieces that CPython makes.
const SCRIPT: &str = r"
import struct, sys, zlib
data = open(sys.argv[1], 'rb').read()
bits, size = struct.unpack('>IQ', data[20:32])
entries, l1 = struct.unpack('>IQ', data[36:48])
shift, cluster = 62 - (bits - 8), 1 << bits
out = bytearray(size)
for i in range(entries):
    table = struct.unpack('>Q', data[l1 + 8 * i:l1 + 8 * i + 8])[0] & 0x00fffffffffffe00
    for j in range(cluster // 8 if table else 0):
        word = struct.unpack('>Q', data[table + 8 * j:table + 8 * j + 8])[0]
        guest = (i * cluster // 8 + j) * cluster
        if word >> 62 & 1:
            host = word & ((1 << shift) - 1)
            length = ((word >> shift & ((1 << (bits - 8)) - 1)) + 1) * 512 - host % 512
            out[guest:guest + cluster] = zlib.decompressobj(-12).decompress(data[host:host + length])
        elif word & 0x00fffffffffffe00:
            host = word & 0x00fffffffffffe00
            out[guest:guest + cluster] = data[host:host + cluster]
sys.stdout.buffer.write(out)
";

#[test]
fn a_narrow_window_is_read_by_scripts_that_inflate_piece_by_piece() {
    let made = Made::new();
    let is_narrow = |_, window: Option<DeflateWindow>| window.is_some();
    made.each(is_narrow, |path, bytes| {
        let output = run("python3", &["-c", SCRIPT, path]);
        assert!(
            output.status.success(),
            "{path}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.stdout == bytes, "{path}");
    });
    // The default does reach further: this is what the option is for.
    let path = made.scratch.path("0.qcow2");
    made.each(is_zlib, |_, _| {});
    let output = run("python3", &["-c", SCRIPT, &path]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("invalid distance too far back"), "{said}");
}
