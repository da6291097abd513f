//! Hostile images: whatever the bytes, every reader ends soon with an answer or with an error that says what and where.
//!
//! Also the streams of compressed clusters that no honest program writes and every reader takes: they are copied
//! without a decoding, and must decode to what they did.
//!
//! `QIMG_NIGHTLY=1` tries every case instead of a sample.

mod handmade;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use handmade::{Handmade, deflated, stored};
use qimg::codec::{DeflateWindow, EncoderOptions};
use qimg::convert::{Options, Reuse, convert};
use qimg::image::options::Qcow2Options;
use qimg::image::{Depth, Format, Image, OpenOptions, Target, TargetOptions};
use qimg::source::Source;
use qimg::store::{Locking, Memory, ReadAt, Sync};
use qimg::{Error, ErrorKind, Result};

/// Longest time one case may take.
const PATIENCE: Duration = Duration::from_secs(5);

fn nightly() -> bool {
    std::env::var_os("QIMG_NIGHTLY").is_some()
}

/// A file in memory that has a name, as a file has.
#[derive(Debug)]
struct Named(Memory);

impl ReadAt for Named {
    fn len(&self) -> Result<u64> {
        self.0.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], host: u64) -> Result<()> {
        self.0
            .read_exact_at(buf, host)
            .map_err(|error| error.at_path("bad.qcow2"))
    }

    fn path(&self) -> Option<&Path> {
        Some(Path::new("bad.qcow2"))
    }
}

fn open(bytes: Vec<u8>) -> Result<Image> {
    let options = OpenOptions {
        format: Some(Format::Qcow2),
        ..OpenOptions::default()
    };
    let store = Arc::new(Named(Memory::from(bytes)));
    Image::from_store(store, "bad.qcow2", &options)
}

fn read_all(source: &dyn Source) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(source.virtual_size()).unwrap()];
    source.reader().read_at(0, &mut bytes)?;
    Ok(bytes)
}

fn recompress(source: &dyn Source, qcow2: &Qcow2Options, threads: usize) -> Result<Vec<u8>> {
    let encoding = Some(EncoderOptions {
        codec: qcow2.compression_type,
        level: Some(1),
        window: DeflateWindow::Full,
    });
    rewrite(source, qcow2, encoding, threads)
}

fn rewrite(
    source: &dyn Source,
    qcow2: &Qcow2Options,
    encoding: Option<EncoderOptions>,
    threads: usize,
) -> Result<Vec<u8>> {
    let options = TargetOptions {
        format: Format::Qcow2,
        qcow2: qcow2.clone(),
        existing: false,
        sync: Sync::None,
        locking: Locking::Ignore,
    };
    let store = Memory::new();
    let size = source.virtual_size();
    let mut target = Target::in_store(Arc::new(store.clone()), size, &options, encoding.is_some())?;
    let options = Options {
        threads,
        encoding,
        reuse: Reuse::Copy,
        overlay: false,
        sparse: 4096,
        share: false,
        cancel: &AtomicBool::new(false),
    };
    convert(source, target.writer(), &options, &mut |_| {})?;
    target.finish()?;
    Ok(store.to_vec())
}

fn qemu_img(args: &[&str]) -> String {
    let output = Command::new("qemu-img")
        .args(args)
        .output()
        .expect("qemu-img must be installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "qemu-img {args:?}: {text}");
    text
}

/// Small numbers that look random.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 16) % limit.max(1) as u64).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn noise(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.below(256) as u8).collect()
    }

    fn text(&mut self, length: usize) -> Vec<u8> {
        let words: Vec<Vec<u8>> = (0..200).map(|_| self.noise(6)).collect();
        let mut text = Vec::new();
        while text.len() < length {
            text.extend_from_slice(&words[self.below(200)]);
        }
        text.truncate(length);
        text
    }
}

/// Copies the image's streams into images of several refcount widths, and sees that nothing changed.
fn assert_survives_copying(image: &Handmade, widths: &[u64], context: &str) {
    let flat = image.flat();
    let source = open(image.build()).unwrap();
    let chain = source.chain(Depth::Chain, None).unwrap();
    assert!(
        read_all(&chain).unwrap() == flat,
        "{context}: the source itself is misread"
    );
    for &refcount_bits in widths {
        let options = Qcow2Options {
            cluster_size: image.cluster_size() as u64,
            refcount_bits,
            ..Qcow2Options::default()
        };
        let copy = recompress(&chain, &options, 1)
            .unwrap_or_else(|error| panic!("{context}, {refcount_bits} bits: {error:?}"));
        assert_reads_as(copy, &flat, &format!("{context}, {refcount_bits} bits"));
    }
}

fn assert_reads_as(image: Vec<u8>, flat: &[u8], context: &str) {
    let copy = open(image).unwrap();
    let chain = copy.chain(Depth::Chain, None).unwrap();
    let copied = read_all(&chain).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    if let Some(at) = (0..flat.len()).find(|&at| copied[at] != flat[at]) {
        panic!("{context}: guest {at:#x} differs");
    }
}

const WIDTHS: [u64; 5] = [1, 2, 4, 8, 16];

/// A stream whose last bytes are the next one's first, which ends before they do.
#[test]
fn a_stream_that_reaches_over_a_short_neighbour_keeps_its_bytes() {
    for bits in [12, 16] {
        let mut image = Handmade::new(bits, 4 << bits);
        let size = image.cluster_size();
        let mut random = Random::new(1);
        let outer = stored(&random.noise(size), true);
        let inner = deflated(&vec![7; size]);
        for overlap in [inner.len() + 1, 300, 500] {
            // The outer stream ends with a sector, so that its last sector is all overlap.
            let start = outer.len().next_multiple_of(512) - outer.len();
            let at = start + outer.len() - overlap;
            image.put(start, &outer);
            image.put(at, &inner);
            image.stream(0, start, outer.len());
            image.stream(1, at, 3000);
            image.put(at + 6000, &outer);
            image.stream(2, at + 6000, outer.len());
            image.put(at + 6000 + outer.len() + 2 * size, &[0]);
            assert_survives_copying(&image, &WIDTHS, &format!("{size}, overlap {overlap}"));
        }
    }
}

/// Streams in every order, overlapping, doubled, without an end, with descriptors that reach too far.
fn random_streams(random: &mut Random, bits: u32) -> Handmade {
    let clusters = if bits > 17 { 3 } else { 2 + random.below(24) };
    let cut = if bits > 9 && random.chance(50) {
        512
    } else {
        0
    };
    let mut image = Handmade::new(bits, ((clusters as u64) << bits) - cut);
    let size = image.cluster_size();
    let most = (1usize << (bits - 8)) * 512 - 511;
    let mut guests: Vec<u64> = (0..clusters as u64).collect();
    if random.chance(40) {
        for index in (1..guests.len()).rev() {
            guests.swap(index, random.below(index + 1));
        }
    }
    let mut end = random.below(2) * random.below(1500);
    let mut old: Vec<(usize, usize, bool)> = Vec::new();
    for guest in guests {
        if random.chance(8) {
            continue;
        }
        if random.chance(10) && !old.is_empty() {
            let (at, reach, _) = old[random.below(old.len())];
            image.stream(guest, at, reach);
            continue;
        }
        let last = !random.chance(10);
        let stream = match random.below(8) {
            0 | 1 => deflated(&random.text(size)),
            2 => deflated(&vec![random.below(256) as u8; size]),
            3 => deflated(&vec![0; size]),
            4 => stored(&vec![0; size], true),
            _ if last => stored(&random.noise(size), true),
            // The cluster is full before the stream ends.
            _ => stored(&random.noise(size + 20), false),
        };
        // Over the tail of the one before: its last block is stored, and takes what lies there.
        let over = match old.last() {
            Some(&(_, _, true)) if random.chance(60) => {
                let most = if random.chance(70) { 512 } else { 1200 };
                random.below(most).min(size / 4)
            }
            _ => 0,
        };
        let at = end - over;
        let at = if over == 0 && random.chance(20) {
            at + random.below(3 * size)
        } else {
            at
        };
        image.put(at, &stream);
        end = end.max(at + stream.len());
        let room = most.saturating_sub(stream.len()).min(3000);
        let reach = if random.chance(25) {
            random.below(room + 1)
        } else {
            0
        };
        if stream.len() + reach <= most {
            image.stream(guest, at, stream.len() + reach);
            // Only stored bytes may be written over.
            let is_last = at + stream.len() == end && stream.len() > size;
            old.push((at, stream.len() + reach, is_last));
        }
    }
    image.put(end + 3 * size, &[0]);
    image
}

#[test]
fn streams_that_overlap_are_copied_without_a_change() {
    let rounds = if nightly() { 3000 } else { 60 };
    for seed in 0..rounds {
        let mut random = Random::new(seed + 1);
        let bits = [9, 10, 11, 12, 12, 14, 16][random.below(7)];
        let image = random_streams(&mut random, bits);
        assert_survives_copying(
            &image,
            &WIDTHS,
            &format!("seed {seed}, cluster bits {bits}"),
        );
    }
}

#[test]
fn overlapping_streams_satisfy_qemu_img() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (before, after) = (path("before.qcow2"), path("after.qcow2"));
    for (seed, bits) in [(1, 9), (2, 12), (3, 16), (4, 21), (5, 16), (6, 12)] {
        let image = random_streams(&mut Random::new(seed), bits).build();
        std::fs::write(&before, &image).unwrap();
        qemu_img(&["check", "-q", &before]);
        let source = open(image).unwrap();
        let chain = source.chain(Depth::Chain, None).unwrap();
        for refcount_bits in [1, 2, 4, 8, 16] {
            let options = Qcow2Options {
                cluster_size: 1 << bits,
                refcount_bits,
                ..Qcow2Options::default()
            };
            std::fs::write(&after, recompress(&chain, &options, 2).unwrap()).unwrap();
            qemu_img(&["check", "-q", &after]);
            qemu_img(&["compare", "-q", &before, &after]);
        }
    }
}

/// An error is worth nothing without the place: the file always, and where in it.
fn assert_explains(error: &Error, context: &str) {
    let cause = std::error::Error::source(error).map_or_else(String::new, ToString::to_string);
    let header = error.to_string().contains("header") || cause.contains("header");
    let placed = error.guest_offset().is_some() || error.host_offset().is_some() || header;
    assert!(error.path().is_some(), "{context}: which file? {error:?}");
    match error.kind() {
        ErrorKind::Corrupt | ErrorKind::Io => assert!(placed, "{context}: where? {error:?}"),
        ErrorKind::NotAnImage | ErrorKind::Unsupported | ErrorKind::Refused => {}
        kind => panic!("{context}: {kind:?} is not what a bad image is: {error:?}"),
    }
}

/// Opens, walks, reads and converts `bytes`, whatever they are.
fn exercise(bytes: Vec<u8>, context: &str) {
    let started = Instant::now();
    if let Err(error) = try_everything(bytes, context) {
        assert_explains(&error, context);
    }
    let took = started.elapsed();
    assert!(took < PATIENCE, "{context}: took {took:?}");
}

/// Disks up to this size are read as a whole.
const SMALL_DISK: u64 = 1 << 20;

fn try_everything(bytes: Vec<u8>, context: &str) -> Result<()> {
    let image = open(bytes)?;
    if image.snapshot_count() > 0 {
        match image.chain(Depth::Top, Some("1")) {
            Ok(chain) => walk(&chain, context),
            // The snapshot may be called differently by now.
            Err(error) if error.kind() == ErrorKind::Usage => {}
            Err(error) => assert_explains(&error, context),
        }
    }
    let chain = image.chain(Depth::Top, None)?;
    walk(&chain, context);
    if chain.virtual_size() > SMALL_DISK {
        return Ok(());
    }
    let contents = read_all(&chain);
    let like_it = Qcow2Options {
        backing: None,
        data_file: None,
        data_file_raw: false,
        ..image.qcow2_options().unwrap()
    };
    match (recompress(&chain, &like_it, 1), contents) {
        (Ok(copy), Ok(contents)) => assert_reads_as(copy, &contents, context),
        (Ok(_), Err(error)) => assert_explains(&error, context),
        (Err(error), Err(_)) => return Err(error),
        (Err(error), Ok(_)) => panic!("{context}: readable, but not to be copied: {error:?}"),
    }
    Ok(())
}

fn walk(source: &dyn Source, context: &str) {
    let size = source.virtual_size();
    let mut reader = source.reader();
    let mut buffer = vec![0; 16 << 10];
    let mut at = 0;
    for _ in 0..64 {
        if at >= size {
            break;
        }
        let (end, error) = match source.extent_at(at..size) {
            Ok(extent) => {
                assert!(extent.length > 0 && extent.end() <= size, "{context}");
                let length = extent.length.min(buffer.len() as u64);
                let part = &mut buffer[..usize::try_from(length).unwrap()];
                (extent.end(), reader.read_at(at, part).err())
            }
            Err(error) => {
                let unit = source.cluster_size();
                ((at / unit + 1).saturating_mul(unit), Some(error))
            }
        };
        if let Some(error) = error {
            assert_explains(&error, context);
        }
        at = end;
    }
}

/// Images of every kind that are small enough to be broken in thousands of ways.
fn victims() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let names = [
        "v2",
        "v3",
        "cluster-512",
        "zlib",
        "zstd",
        "subclusters",
        "zeros",
        "snapshots",
        "bitmaps",
        "external",
        "chain-mid",
        "refcount-1",
        "aes",
        "preallocated",
    ];
    let mut victims: Vec<_> = names
        .iter()
        .map(|name| {
            let path = directory.join(format!("{name}.qcow2"));
            (String::from(*name), std::fs::read(path).unwrap())
        })
        .collect();
    let mut random = Random::new(9);
    victims.push(("handmade".into(), random_streams(&mut random, 9).build()));
    victims
}

/// Every host offset whose byte is worth breaking: metadata, and the first streams.
fn targets(image: &[u8]) -> Vec<usize> {
    let word = |at: usize| {
        let word = image
            .get(at..at + 8)
            .map(|word| u64::from_be_bytes(word.try_into().unwrap()));
        usize::try_from(word.unwrap_or(0) & 0x00ff_ffff_ffff_fe00).unwrap()
    };
    let (l1, refcounts, snapshots) = (word(40), word(48), word(64));
    let (l2, block) = (word(l1), word(refcounts));
    let mut targets: Vec<usize> = (0..640).collect();
    for table in [l1, l2, refcounts, block, snapshots] {
        targets.extend(table..table + 160);
    }
    // The first compressed stream, wherever the descriptor points.
    let bits = u32::from(image[23]);
    let stream = (l2..l2 + 512).step_by(8).find_map(|at| {
        let entry = u64::from_be_bytes(image.get(at..at + 8)?.try_into().unwrap());
        let host = entry & ((1 << (62 - (bits - 8))) - 1);
        (entry >> 62 == 1).then_some(usize::try_from(host).unwrap())
    });
    if let Some(stream) = stream {
        targets.extend(stream..stream + 200);
    }
    targets.retain(|&at| at < image.len());
    targets.sort_unstable();
    targets.dedup();
    targets
}

#[test]
fn a_flipped_bit_is_an_answer_or_an_error() {
    let step = if nightly() { 1 } else { 61 };
    let mut number = 0;
    for (name, image) in victims() {
        for at in targets(&image) {
            for bit in 0..8 {
                number += 1;
                if number % step != 0 {
                    continue;
                }
                let mut bytes = image.clone();
                bytes[at] ^= 1 << bit;
                exercise(bytes, &format!("{name}, byte {at:#x}, bit {bit}"));
            }
        }
    }
}

/// Values that break arithmetic, in every aligned word.
#[test]
fn an_extreme_word_is_an_answer_or_an_error() {
    let step = if nightly() { 1 } else { 37 };
    let words = [
        0,
        1,
        0x1ff,
        0x200,
        0xffff_ffff,
        1 << 32,
        1 << 62,
        1 << 63,
        u64::MAX,
        u64::MAX << 9,
        (1 << 63) - 512,
        0x00ff_ffff_ffff_fe00,
        0x7fff_ffff_ffff_ffff,
        0x4000_0000_0000_0001,
        0x3fff_ffff_ffff_ffff,
    ];
    let mut number = 0;
    for (name, image) in victims() {
        for at in targets(&image).into_iter().filter(|at| at % 4 == 0) {
            for word in words {
                number += 1;
                if number % step != 0 {
                    continue;
                }
                let mut bytes = image.clone();
                let end = (at + 8).min(bytes.len());
                bytes[at..end].copy_from_slice(&word.to_be_bytes()[..end - at]);
                exercise(bytes, &format!("{name}, {word:#x} at {at:#x}"));
            }
        }
    }
}

#[test]
fn a_truncated_file_is_an_answer_or_an_error() {
    let step = if nightly() { 1 } else { 17 };
    for (name, image) in victims() {
        let lengths = (0..600).chain((600..image.len()).step_by(509));
        for length in lengths.step_by(step) {
            exercise(
                image[..length].to_vec(),
                &format!("{name}, {length} bytes of it"),
            );
        }
    }
}
