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
use qimg::image::{BackingPolicy, Depth, Format, Image, OpenOptions, Target, TargetOptions};
use qimg::rewrite::{Bitmaps, RewriteRequest, rewrite as rewrite_image};
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
    let alike = Qcow2Options {
        cluster_size: image.cluster_size() as u64,
        ..Qcow2Options::default()
    };
    let alone = recompress(&chain, &alike, 1).unwrap();
    assert!(
        alone == recompress(&chain, &alike, 3).unwrap(),
        "{context}: 3 threads differ"
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

/// A header field of `width` bytes at `at`.
fn with_field(image: &[u8], at: usize, width: usize, value: u64) -> Vec<u8> {
    let mut bytes = image.to_vec();
    bytes[at..at + width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
    bytes
}

fn testdata(name: &str) -> Vec<u8> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    std::fs::read(directory.join(name)).unwrap()
}

#[track_caller]
fn assert_fails(bytes: Vec<u8>, kind: ErrorKind, words: &str) {
    let started = Instant::now();
    let failed = open(bytes).and_then(|image| {
        let chain = image.chain(Depth::Chain, None)?;
        let mut bytes = vec![0; 4096];
        let length = bytes
            .len()
            .min(usize::try_from(chain.virtual_size()).unwrap_or(4096));
        chain.reader().read_at(0, &mut bytes[..length])
    });
    let error = failed.expect_err(words);
    assert_explains(&error, words);
    let text = format!(
        "{error} {:?}",
        std::error::Error::source(&error).map(ToString::to_string)
    );
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.contains(words), "{text}");
    assert!(started.elapsed() < Duration::from_secs(1), "{words}");
}

/// Runs the test called `name` in a process of its own, since memory is a process's, and returns what `body` allocates
/// there at most, in KiB; `None` in the process that started it.
fn kib_allocated(name: &str, body: impl FnOnce()) -> Option<u64> {
    const ALONE: &str = "QIMG_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--test-threads=1"])
            .env(ALONE, "1")
            .status()
            .unwrap();
        assert!(status.success(), "{name}, by itself: {status}");
        return None;
    }
    let peak = || -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmPeak:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.unwrap().parse().unwrap()
    };
    let before = peak();
    body();
    Some(peak() - before)
}

#[test]
fn tables_beyond_the_limits_are_refused_before_they_are_read() {
    let name = "tables_beyond_the_limits_are_refused_before_they_are_read";
    if let Some(kib) = kib_allocated(name, refuse_tables) {
        assert!(kib < 256 << 10, "{kib} KiB were allocated");
    }
}

fn refuse_tables() {
    let v3 = testdata("v3.qcow2");
    let corrupt = |at, width, value, words| {
        assert_fails(with_field(&v3, at, width, value), ErrorKind::Corrupt, words);
    };
    corrupt(20, 4, 8, "cluster_bits");
    corrupt(20, 4, 22, "cluster_bits");
    corrupt(24, 8, 1 << 63, "size");
    corrupt(24, 8, (1 << 63) - 512, "l1_size");
    // 4 Mi entries are QEMU's limit, and more than this file holds.
    corrupt(36, 4, 4 << 20, "outside the file");
    corrupt(36, 4, (4 << 20) + 1, "L1 table");
    corrupt(36, 4, u64::from(u32::MAX), "L1 table");
    corrupt(36, 4, 0, "l1_size");
    corrupt(40, 8, 0x200, "not aligned");
    corrupt(40, 8, 1 << 62, "outside the file");
    corrupt(40, 8, 1 << 63, "63 bits");
    corrupt(48, 8, 0x200, "not aligned");
    corrupt(56, 4, 0, "refcount_table_clusters");
    corrupt(56, 4, 2049, "refcount table");
    corrupt(56, 4, u64::from(u32::MAX), "refcount table");
    corrupt(60, 4, 65537, "snapshots");
    corrupt(96, 4, 7, "refcount_order");
    corrupt(100, 4, 103, "header_length");
    corrupt(100, 4, 4097, "header_length");
    corrupt(8, 8, 4097, "backing_file_offset");
    corrupt(8, 8, u64::MAX, "backing_file_offset");
    assert_fails(
        with_field(&v3, 4, 4, 1),
        ErrorKind::Unsupported,
        "version 1",
    );
    assert_fails(
        with_field(&v3, 4, 4, 4),
        ErrorKind::Unsupported,
        "version 4",
    );
    assert_fails(
        with_field(&v3, 72, 8, 1 << 40),
        ErrorKind::Unsupported,
        "features",
    );
    assert_fails(
        v3[..20].to_vec(),
        ErrorKind::NotAnImage,
        "not a qcow2 image",
    );
    // 65536 snapshots in a file that has room for none, at a place that there is not.
    let snapshots = with_field(&v3, 60, 4, 65536);
    for offset in [0u64, 4096, 1 << 40, (1 << 63) - 4096] {
        let image = with_field(&snapshots, 64, 8, offset);
        // Behind the end of the file there are zeros, to QEMU too: as many snapshots without a name.
        match open(image) {
            Ok(image) => assert!(offset >= 1 << 40 && image.snapshot_count() == 65536),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "snapshots at {offset:#x}"),
        }
    }
}

#[test]
fn small_clusters_do_not_lift_the_limit_of_the_l1_table() {
    let image = with_field(&testdata("cluster-512.qcow2"), 24, 8, 1 << 41);
    // 64 Mi entries of 32 KiB each.
    let image = with_field(&image, 36, 4, 64 << 20);
    assert_fails(image, ErrorKind::Corrupt, "L1 table");
}

#[test]
fn header_extensions_must_fit_where_they_stand() {
    let v3 = testdata("v3.qcow2");
    let start = usize::try_from(u32::from_be_bytes(v3[100..104].try_into().unwrap())).unwrap();
    for length in [4096 - start as u64, 1 << 20, 0xffff_fff8, 0xffff_ffff] {
        let image = with_field(&v3, start, 4, 0xe279_2aca);
        let image = with_field(&image, start + 4, 4, length);
        assert_fails(image, ErrorKind::Corrupt, "header");
    }
}

/// Where the only L2 table and the first entry of the L1 table are, in `v3.qcow2`.
fn tables_of(image: &[u8]) -> (usize, usize) {
    let word = |at: usize| u64::from_be_bytes(image[at..at + 8].try_into().unwrap());
    let l1 = usize::try_from(word(40)).unwrap();
    let l2 = usize::try_from(word(l1) & 0x00ff_ffff_ffff_fe00).unwrap();
    (l1, l2)
}

#[test]
fn entries_that_point_where_no_table_can_be() {
    let v3 = testdata("v3.qcow2");
    let (l1, l2) = tables_of(&v3);
    let copied = 1u64 << 63;
    // Tables that are other tables read as whatever their words say: bounded, and never a panic.
    for host in [0x1000, l1 as u64, l2 as u64] {
        exercise(
            with_field(&v3, l1, 8, copied | host),
            "an L2 table elsewhere",
        );
        exercise(
            with_field(&v3, l2, 8, copied | host),
            "a cluster that is a table",
        );
    }
    assert_fails(
        with_field(&v3, l1, 8, copied | 0x200),
        ErrorKind::Corrupt,
        "L1 entry",
    );
    assert_fails(
        with_field(&v3, l1, 8, copied | 1 << 55),
        ErrorKind::Corrupt,
        "end of the file",
    );
    assert_fails(
        with_field(&v3, l2, 8, copied | 0x200),
        ErrorKind::Corrupt,
        "L2 entry",
    );
    assert_fails(
        with_field(&v3, l2, 8, copied | 1 << 55),
        ErrorKind::Corrupt,
        "end of the file",
    );
    let compressed = 1u64 << 62;
    assert_fails(
        with_field(&v3, l2, 8, compressed | 1 << 55),
        ErrorKind::Corrupt,
        "end of the file",
    );
    let last_byte = compressed | 15 << 58 | (v3.len() as u64 - 1);
    assert_fails(
        with_field(&v3, l2, 8, last_byte),
        ErrorKind::Corrupt,
        "compressed cluster",
    );
}

#[test]
fn an_l1_table_of_one_l2_table_ends_in_time() {
    // Every L1 entry is the same L2 table, whose entries are the same cluster.
    let mut image = testdata("v3.qcow2");
    let (_, l2) = tables_of(&image);
    let entry = image[l2..l2 + 8].to_vec();
    for at in (l2..l2 + 4096).step_by(8) {
        image[at..at + 8].copy_from_slice(&entry);
    }
    let l1 = image.len().next_multiple_of(4096);
    image.resize(l1, 0);
    for _ in 0..512 {
        image.extend_from_slice(&(l2 as u64 | 1 << 63).to_be_bytes());
    }
    let image = with_field(&image, 40, 8, l1 as u64);
    let image = with_field(&image, 36, 4, 512);
    let image = with_field(&image, 24, 8, 512 << 21);
    let started = Instant::now();
    let source = open(image).unwrap();
    let chain = source.chain(Depth::Chain, None).unwrap();
    assert_eq!(
        qimg::convert::stored_bytes(&chain, &AtomicBool::new(false)).unwrap(),
        1 << 30
    );
    assert!(started.elapsed() < PATIENCE);
}

#[test]
fn a_stream_that_would_fill_the_memory_fills_one_cluster() {
    let name = "a_stream_that_would_fill_the_memory_fills_one_cluster";
    if let Some(kib) = kib_allocated(name, decode_bombs) {
        assert!(kib < 512 << 10, "{kib} KiB were allocated");
    }
}

fn decode_bombs() {
    let size = 1 << 16;
    // A terabyte of zeros starts like this, and 512 bytes of it fill the cluster.
    let bomb = deflated(&vec![0; 16 << 20]);
    let mut image = Handmade::new(16, size);
    image.put(0, &bomb[..512]);
    image.stream(0, 0, 512);
    exercise(image.build(), "a bomb");
    // One frame, content size 2^40, window 2^31.
    for frame in [
        &[
            0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0xa8, 0, 0, 0, 0, 0, 1, 0, 0, 3, 0, 0,
        ][..],
        // No content size, the window alone.
        &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 3, 0, 0],
        // A single segment of 2^60 bytes: the window is the content.
        &[
            0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 16, 3, 0, 0,
        ],
        // An endless row of empty blocks, and of empty frames.
        &[
            0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ],
        &[0x50, 0x2a, 0x4d, 0x18, 0xf8, 0xff, 0xff, 0xff],
    ] {
        let mut image = Handmade::new(16, size);
        image.put(0, frame);
        image.stream(0, 0, 60_000);
        let mut bytes = image.build();
        bytes = with_field(&bytes, 72, 8, 8);
        bytes = with_field(&bytes, 100, 4, 112);
        bytes[104] = 1;
        assert_fails(bytes.clone(), ErrorKind::Corrupt, "compressed");
        exercise(bytes, "a frame that asks for too much");
    }
}

/// An image file that names `backing`, of format raw, as nothing but an attacker would.
fn naming(directory: &Path, name: &str, backing: &str, format: &str) -> std::path::PathBuf {
    // No image is made that names itself: it is made under another name.
    let path = directory.join(name.to_owned() + ".new");
    let target = TargetOptions {
        format: Format::Qcow2,
        qcow2: Qcow2Options {
            backing: Some((backing.into(), format.into())),
            ..Qcow2Options::default()
        },
        existing: false,
        sync: Sync::None,
        locking: Locking::Check,
    };
    Target::create(&path, 1 << 16, &target, false)
        .unwrap()
        .finish()
        .unwrap();
    std::fs::rename(&path, directory.join(name)).unwrap();
    directory.join(name)
}

fn chain_of(path: &Path, backing: BackingPolicy) -> Result<Vec<u8>> {
    let options = OpenOptions {
        format: Some(Format::Qcow2),
        backing,
        locking: Locking::Check,
    };
    let image = Image::open(path, &options)?;
    read_all(&image.chain(Depth::Chain, None)?)
}

#[test]
fn a_name_in_an_image_opens_nothing_that_is_not_beside_it() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    std::fs::write(&secret, vec![0x5e; 1 << 16]).unwrap();
    let directory = tempfile::tempdir_in(outside.path()).unwrap();
    let here = directory.path();
    std::fs::write(here.join("beside"), vec![1; 1 << 16]).unwrap();
    std::os::unix::fs::symlink(&secret, here.join("link")).unwrap();
    std::os::unix::fs::symlink(outside.path(), here.join("up")).unwrap();
    std::fs::create_dir(here.join("sub")).unwrap();
    let made = Command::new("mkfifo")
        .arg(here.join("fifo"))
        .status()
        .unwrap();
    assert!(made.success());

    let fine = naming(here, "fine", "beside", "raw");
    assert_eq!(chain_of(&fine, BackingPolicy::Beside).unwrap()[0], 1);
    let denied = chain_of(&fine, BackingPolicy::Deny).unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Refused);

    let absolute = secret.to_str().unwrap();
    for name in [
        absolute,
        "../secret",
        "sub/../../secret",
        "link",
        "up/secret",
        "fifo",
        "sub",
        ".",
        "..",
        "/dev/zero",
        "/proc/self/mem",
        "missing",
        "json:{\"file.filename\":\"/etc/passwd\"}",
        "nbd://localhost",
        "file:beside",
        "fat:rw:.",
        "\u{1b}[2J",
        "a\nb",
    ] {
        let path = naming(here, "evil", name, "raw");
        let started = Instant::now();
        let error = chain_of(&path, BackingPolicy::Beside).expect_err(name);
        assert!(started.elapsed() < Duration::from_secs(2), "{name}: waited");
        assert!(error.path().is_some(), "{name}: {error:?}");
        assert!(
            !error.to_string().contains(['\u{1b}', '\n']),
            "{name}: {error}"
        );
        if matches!(name, "fifo" | "sub" | "/dev/zero" | "missing") || name.contains(':') {
            chain_of(&path, BackingPolicy::Any).expect_err(name);
        }
    }
}

#[test]
fn a_chain_that_leads_back_or_goes_on_too_long_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let itself = naming(here, "self", "self", "qcow2");
    let first = naming(here, "first", "second", "qcow2");
    naming(here, "second", "first", "qcow2");
    for path in [&itself, &first] {
        let error = chain_of(path, BackingPolicy::Beside).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("leads back"), "{error}");
    }
    std::fs::write(here.join("0"), vec![1; 1 << 16]).unwrap();
    for depth in 1..=257 {
        let format = if depth == 1 { "raw" } else { "qcow2" };
        let path = naming(here, &depth.to_string(), &(depth - 1).to_string(), format);
        if (18..255).contains(&depth) {
            continue;
        }
        match chain_of(&path, BackingPolicy::Beside) {
            Ok(bytes) => assert!(depth < 256 && bytes[0] == 1, "{depth} files behind"),
            Err(error) => {
                assert!(depth >= 256, "{depth}: {error}");
                assert_eq!(error.kind(), ErrorKind::Unsupported);
            }
        }
    }
}

#[test]
fn a_backing_file_without_a_format_is_never_probed() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("base"), vec![1; 1 << 16]).unwrap();
    let path = naming(directory.path(), "top", "base", "raw");
    let mut bytes = std::fs::read(&path).unwrap();
    // The extension's magic becomes one that nobody knows.
    let at = bytes
        .windows(4)
        .position(|four| four == [0xe2, 0x79, 0x2a, 0xca])
        .unwrap();
    bytes[at] = 0x11;
    std::fs::write(&path, bytes).unwrap();
    for policy in [BackingPolicy::Beside, BackingPolicy::Any] {
        let error = chain_of(&path, policy).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.remedy().is_some());
    }
}

#[test]
fn a_data_file_is_opened_under_the_same_policy() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let image = testdata("external.qcow2");
    let at = image
        .windows(12)
        .position(|name| name == b"external.raw")
        .unwrap();
    for (name, kind) in [
        (&b"/etc/passwd\0"[..], ErrorKind::Refused),
        (b"json:{\"a\":1}", ErrorKind::Unsupported),
        (b"../../passwd", ErrorKind::Refused),
    ] {
        let mut bytes = image.clone();
        bytes[at..at + 12].copy_from_slice(name);
        let path = here.join("top");
        std::fs::write(&path, &bytes).unwrap();
        let error = chain_of(&path, BackingPolicy::Beside).expect_err("an escape");
        assert!(error.path().is_some());
        let expected = [
            kind,
            ErrorKind::Io,
            ErrorKind::Refused,
            ErrorKind::Unsupported,
        ];
        assert!(expected.contains(&error.kind()), "{error:?}");
        assert_eq!(
            chain_of(&path, BackingPolicy::Deny).unwrap_err().kind(),
            ErrorKind::Refused
        );
    }
}

#[test]
fn streams_far_from_each_other_are_not_read_with_all_that_is_between() {
    let clusters = 256;
    let mut image = Handmade::new(9, clusters << 9);
    let stream = deflated(&[3; 512]);
    for guest in 0..clusters {
        let at = usize::try_from(guest).unwrap() * (60 << 10);
        image.put(at, &stream);
        image.stream(guest, at, stream.len());
    }
    let source = open(image.build()).unwrap();
    let chain = source.chain(Depth::Chain, None).unwrap();
    let (mut out, mut streams) = (Vec::new(), Vec::new());
    let size = chain.virtual_size();
    chain
        .reader()
        .read_streams(0..size, &mut out, &mut streams)
        .unwrap();
    assert_eq!(streams.len() as u64, clusters);
    assert!(
        out.len() as u64 <= 4 * size,
        "{} bytes for {size}",
        out.len()
    );
}

#[test]
fn bitmaps_that_fill_the_memory_together_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let image = path("image");
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "cluster_size=2M",
        &image,
        "1T",
    ]);
    for name in ["a", "b", "c"] {
        qemu_img(&["bitmap", "--add", "-g", "512", &image, name]);
    }
    let source = Image::open(&image, &OpenOptions::default()).unwrap();
    let request = RewriteRequest {
        source: &source,
        snapshot: None,
        free: None,
        destination: &directory.path().join("copy"),
        target: TargetOptions {
            format: Format::Qcow2,
            qcow2: Qcow2Options::default(),
            existing: false,
            sync: Sync::None,
            locking: Locking::Check,
        },
        overlay: false,
        encoding: None,
        reuse: Reuse::Copy,
        bitmaps: Bitmaps::Copy,
        sparse: 4096,
        in_place: false,
        threads: 1,
    };
    let error = rewrite_image(&request, &AtomicBool::new(false), &mut |_, _| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
}

/// libdeflate takes two length symbols that zlib does not know.
#[test]
fn a_stream_that_only_some_decoders_take_becomes_one_that_all_do() {
    let mut image = Handmade::new(9, 512);
    image.put(0, &[0x63, 0x60, 0x18, 0x07, 0x0c, 0x23, 0x18]);
    image.stream(0, 0, 200);
    let source = open(image.build()).unwrap();
    let chain = source.chain(Depth::Chain, None).unwrap();
    let options = Qcow2Options {
        cluster_size: 512,
        ..Qcow2Options::default()
    };
    let copied = recompress(&chain, &options, 1);
    match read_all(&chain) {
        Err(_) => drop(copied.unwrap_err()),
        Ok(contents) => {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("copy");
            let copied = copied.unwrap();
            assert_reads_as(copied.clone(), &contents, "a lenient stream");
            std::fs::write(&path, copied).unwrap();
            let raw = directory.path().join("raw");
            let (path, raw) = (path.to_str().unwrap(), raw.to_str().unwrap());
            qemu_img(&["convert", "-O", "raw", path, raw]);
            assert!(std::fs::read(raw).unwrap() == contents);
        }
    }
}
