//! Sparsified in place, an image of any kind reads as before but for its free bytes, and is sound: afterwards, and whenever
//! the work ends early.

mod matrix;
mod oracle;
mod patterns;

use std::ops::Range;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use matrix::{Backing, Made, for_every_image};
use oracle::{Scratch, qemu_img, qemu_io};
use patterns::Random;
use qimg::free::{FreeMap, FreeMapBuilder};
use qimg::image::check::CheckOptions;
use qimg::image::{BackingPolicy, Depth, Format, Image, InPlace, OpenOptions};
use qimg::source::Source;
use qimg::sparsify::{Sparsified, SparsifyRequest, sparsify};
use qimg::store::{
    Change, Effect, Faulty, Locking, Memory, Operation, ReadAt, Recorder, Sync, WriteAt,
};
use qimg::{Error, ErrorKind, Result};
use serde_json::Value;

/// Without locks: what one thread starts would for a moment inherit those of another.
const OPEN: OpenOptions = OpenOptions {
    format: None,
    backing: BackingPolicy::Any,
    locking: Locking::Ignore,
};

fn request(free: &FreeMap, zeros: bool, threads: usize) -> SparsifyRequest<'_> {
    SparsifyRequest {
        free,
        zeros,
        dry_run: false,
        threads,
        sync: Sync::None,
    }
}

fn run(image: InPlace, request: &SparsifyRequest<'_>) -> Result<Sparsified> {
    sparsify(image, request, &AtomicBool::new(false), &mut |_| {})
}

fn map(ranges: &[Range<u64>]) -> FreeMap {
    let mut builder = FreeMapBuilder::new();
    for range in ranges {
        builder.free(range.clone());
    }
    builder.build()
}

/// Free ranges of a disk of `size` bytes: some of whole clusters, some not.
fn random_map(random: &mut Random, size: u64, cluster: u64) -> FreeMap {
    let below = |random: &mut Random, limit: u64| random.below(limit as usize) as u64;
    let ranges: Vec<_> = (0..2 + random.below(14))
        .map(|_| {
            let unit = if random.below(3) > 0 { cluster } else { 512 };
            let start = below(random, size.div_ceil(unit)) * unit;
            let units = below(random, 4 * cluster / unit) + 1;
            start..(start + units * unit).min(size)
        })
        .collect();
    map(&ranges)
}

/// Outside `free` the disk reads as it did; inside as it did, or as zeros.
#[track_caller]
fn assert_same_but_for_free(now: &[u8], before: &[u8], free: &FreeMap, what: &str) {
    assert_eq!(now.len(), before.len(), "{what}");
    let differs = (0..before.len())
        .filter(|&at| now[at] != before[at])
        .find(|&at| now[at] != 0 || !free.at(at as u64).0);
    if let Some(at) = differs {
        panic!(
            "{what}: byte {at:#x} of {:#x} is {:#x}, was {:#x}, free {:?}",
            before.len(),
            now[at],
            before[at],
            free.at(at as u64)
        );
    }
}

/// The image's file, and its data file, to be restored.
struct Saved(Vec<(String, Vec<u8>)>);

impl Saved {
    fn new(scratch: &Scratch, image: &str) -> Self {
        let data = scratch.path("data");
        let files = [image.to_owned(), data].into_iter();
        Self(
            files
                .filter_map(|name| std::fs::read(&name).ok().map(|bytes| (name, bytes)))
                .collect(),
        )
    }

    fn restore(&self) {
        for (name, bytes) in &self.0 {
            std::fs::write(name, bytes).unwrap();
        }
    }

    fn now(&self) -> Vec<Vec<u8>> {
        let files = self.0.iter();
        files
            .map(|(name, _)| std::fs::read(name).unwrap())
            .collect()
    }
}

fn qemu_view(scratch: &Scratch, image: &str, snapshot: Option<&str>) -> Vec<u8> {
    let raw = scratch.path("seen.raw");
    let mut arguments = vec!["convert", "-f", "qcow2", "-O", "raw"];
    if let Some(name) = snapshot {
        arguments.extend(["-l", name]);
    }
    arguments.extend([image, &raw]);
    qemu_img(&arguments);
    std::fs::read(raw).unwrap()
}

/// Whatever is free or zero in whole clusters has no host cluster left.
fn assert_all_dropped(scratch: &Scratch, made: &Made, before: &[u8], free: &FreeMap, zeros: bool) {
    let cluster = made.case.cluster_size();
    let size = before.len() as u64;
    let told = scratch.json(&["map", "-f", "qcow2", "--output=json", &made.image]);
    for entry in told.as_array().unwrap() {
        let number = |key: &str| entry[key].as_u64().unwrap();
        let stored =
            entry["depth"] == 0 && (entry["data"] == true || entry["offset"] != Value::Null);
        if !stored {
            continue;
        }
        let (start, end) = (number("start"), number("start") + number("length"));
        for at in (start / cluster * cluster..end).step_by(cluster as usize) {
            let range = at..(at + cluster).min(size);
            let kept = |at: u64| !free.at(at).0 && (!zeros || before[at as usize] != 0);
            assert!(range.clone().any(kept), "{range:x?} is still there");
        }
    }
}

fn whole_case(scratch: &Scratch, made: &Made) {
    let mut random = Random(0x5aa5 + made.case.number() as u64);
    let saved = Saved::new(scratch, &made.image);
    let size = made.view.len() as u64;
    let image = Image::open(&made.image, &OPEN).unwrap();
    let options = image.qcow2_options().unwrap();
    drop(image);
    let random_free = random_map(&mut random, size, made.case.cluster_size());
    if made.case.has_bitmaps() {
        let image = InPlace::open(&made.image, &OPEN).unwrap();
        let error = run(image, &request(&random_free, true, 1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert_eq!(saved.now()[0], saved.0[0].1);
    }
    let all = map(std::slice::from_ref(&(0..size)));
    let maps = [
        (random_free.clone(), true),
        (FreeMap::default(), true),
        (random_free, false),
        (all, true),
    ];
    for (number, (free, zeros)) in maps.into_iter().enumerate() {
        // Every map meets many cases, by night all.
        let is_large = size > 8 << 20;
        let meets = number == 0 || (made.case.number() % 3 == number - 1 && !is_large);
        if !meets && std::env::var_os("QIMG_NIGHTLY").is_none() {
            continue;
        }
        if made.case.has_bitmaps() && !free.is_empty() {
            continue;
        }
        let mut results = Vec::new();
        for threads in [1, 3] {
            saved.restore();
            let image = InPlace::open(&made.image, &OPEN).unwrap();
            let done = run(image, &request(&free, zeros, threads)).unwrap();
            results.push((done, saved.now()));
        }
        // What the host holds may differ from one run to the next.
        assert_eq!(results[0].1, results[1].1, "threads");
        let done = results[0].0.punched;

        qemu_img(&["check", "-q", "-f", "qcow2", &made.image]);
        let now = qemu_view(scratch, &made.image, None);
        assert_same_but_for_free(&now, &made.view, &free, "guest");
        if let Some(before) = &made.snapshot_view {
            let now = qemu_view(scratch, &made.image, Some("snapshot.name=one"));
            assert!(now == *before, "the snapshot reads differently");
        }
        let plain = made.case.backing() == Backing::None && !made.case.has_snapshot();
        if plain && !options.data_file_raw {
            assert_all_dropped(scratch, made, &made.view, &free, zeros);
        }
        if free.total() == size && plain {
            assert!(
                now.iter().all(|&byte| byte == 0),
                "free data is still there"
            );
        }
        if options.data_file.is_none() {
            let length = std::fs::metadata(&made.image).unwrap().len();
            assert_eq!(length, done.file_length);
            assert!(length <= done.file_length_before);
        }

        // Again there is nothing to do.
        let image = InPlace::open(&made.image, &OPEN).unwrap();
        let again = run(image, &request(&free, zeros, 2)).unwrap().punched;
        assert_eq!((again.freed_clusters, again.leaked_clusters), (0, 0));
        assert!(again.free_bytes + again.zero_bytes == 0 || options.data_file_raw);
        assert_eq!(saved.now(), results[0].1, "a second run");

        saved.restore();
        let image = InPlace::open(&made.image, &OPEN).unwrap();
        let dry = SparsifyRequest {
            dry_run: true,
            ..request(&free, zeros, 2)
        };
        let told = run(image, &dry).unwrap().punched;
        assert!(saved.0.iter().zip(saved.now()).all(|(a, b)| a.1 == b));
        let counts = |told: qimg::image::Punched| {
            let clusters = (told.freed_clusters, told.leaked_clusters);
            (told.free_bytes, told.zero_bytes, clusters, told.file_length)
        };
        assert_eq!(counts(told), counts(done));
    }
}

#[test]
fn every_image_reads_as_before_and_is_smaller_and_sound() {
    for_every_image(whole_case);
}

/// Runs in memory; what became of the store, and the result.
fn in_memory<S: WriteAt + 'static>(
    store: S,
    path: &str,
    request: &SparsifyRequest<'_>,
) -> (Arc<S>, Result<Sparsified>) {
    let store = Arc::new(store);
    let shared: Arc<dyn WriteAt> = Arc::clone(&store) as _;
    let done = InPlace::from_store(shared, path, &OPEN).and_then(|image| run(image, request));
    (store, done)
}

/// An image in memory, as `qimg` itself reads it.
struct Seen {
    corruptions: u64,
    leaks: u64,
    guest: Vec<u8>,
    snapshot: Option<Vec<u8>>,
}

fn look(bytes: Vec<u8>, path: &str, snapshot: Option<&str>) -> Result<Seen> {
    let store: Arc<dyn ReadAt> = Arc::new(Memory::from(bytes));
    let image = Image::from_store(store, path, &OPEN)?;
    let report = image.check(&CheckOptions {
        threads: 1,
        cancel: &AtomicBool::new(false),
        progress: None,
    })?;
    let read = |snapshot| -> Result<Vec<u8>> {
        let chain = image.chain(Depth::Chain, snapshot)?;
        let mut guest = vec![0; chain.virtual_size() as usize];
        chain.reader().read_at(0, &mut guest)?;
        Ok(guest)
    };
    Ok(Seen {
        corruptions: report.corruptions + report.check_errors,
        leaks: report.leaks,
        guest: read(None)?,
        snapshot: snapshot.map(|name| read(Some(name))).transpose()?,
    })
}

/// What a disk may hold after a power loss: all that was synced, and some sectors of what was not.
fn after_power_loss(start: &[u8], changes: &[Change], random: &mut Random) -> Vec<u8> {
    let synced = changes.iter().rposition(|change| *change == Change::Sync);
    let (safe, open) = changes.split_at(synced.map_or(0, |at| at + 1));
    let disk = Memory::from(start.to_vec());
    for change in safe {
        change.replay(&disk).unwrap();
    }
    for change in open {
        match change {
            Change::Write(host, bytes) => {
                for (number, sector) in bytes.chunks(512).enumerate() {
                    if random.below(2) == 0 {
                        disk.write_all_at(sector, host + number as u64 * 512)
                            .unwrap();
                    }
                }
            }
            change if random.below(2) == 0 => change.replay(&disk).unwrap(),
            _ => {}
        }
    }
    disk.to_vec()
}

struct Crashing<'a> {
    scratch: &'a Scratch,
    made: &'a Made,
    free: &'a FreeMap,
}

impl Crashing<'_> {
    /// Data is what it was, and the metadata has leaks at worst; the next run takes them back.
    #[track_caller]
    fn assert_sound(&self, bytes: &[u8], by_qemu: bool, what: &str) {
        let name = self.made.snapshot_view.as_ref().map(|_| "one");
        let seen = look(bytes.to_vec(), &self.made.image, name).unwrap();
        assert_eq!(seen.corruptions, 0, "{what}");
        assert_same_but_for_free(&seen.guest, &self.made.view, self.free, what);
        assert!(seen.snapshot == self.made.snapshot_view, "{what}: snapshot");
        if !by_qemu {
            return;
        }
        // Beside the image: backing files are named relative to it.
        let path = self.scratch.path("crashed.qcow2");
        std::fs::write(&path, bytes).unwrap();
        let check = Command::new("qemu-img")
            .args(["check", "-q", "-f", "qcow2", &path])
            .output()
            .expect("the oracle qemu-img is needed");
        let code = if seen.leaks > 0 { 3 } else { 0 };
        assert_eq!(check.status.code(), Some(code), "{what}: {check:?}");
        let now = qemu_view(self.scratch, &path, None);
        assert_same_but_for_free(&now, &self.made.view, self.free, what);

        let image = InPlace::open(&path, &OPEN).unwrap();
        run(image, &request(self.free, true, 1)).unwrap();
        qemu_img(&["check", "-q", "-f", "qcow2", &path]);
    }
}

fn crash_case(scratch: &Scratch, made: &Made) {
    let bytes = std::fs::read(&made.image).unwrap();
    let image = Image::open(&made.image, &OPEN).unwrap();
    let has_data_file = image.qcow2_options().unwrap().data_file.is_some();
    drop(image);
    if has_data_file || bytes.len() > 8 << 20 {
        return;
    }
    let mut random = Random(0xdead + made.case.number() as u64);
    let size = made.view.len() as u64;
    let free = if made.case.has_bitmaps() {
        FreeMap::default()
    } else {
        random_map(&mut random, size, made.case.cluster_size())
    };
    let crashing = Crashing {
        scratch,
        made,
        free: &free,
    };
    let request = request(&free, true, 2);
    let store = Recorder::new(Memory::from(bytes.clone()));
    let (store, done) = in_memory(store, &made.image, &request);
    done.unwrap();
    let changes = store.changes();
    for ended in 0..=changes.len() {
        let by_qemu = ended % 7 == made.case.number() % 7;
        let killed = Memory::from(bytes.clone());
        for change in &changes[..ended] {
            change.replay(&killed).unwrap();
        }
        crashing.assert_sound(&killed.to_vec(), by_qemu, &format!("killed at {ended}"));
        for round in 0..3 {
            let disk = after_power_loss(&bytes, &changes[..ended], &mut random);
            let what = format!("power lost at {ended} of {}", changes.len());
            crashing.assert_sound(&disk, by_qemu && round == 0, &what);
        }
    }
    // A failing write, sync or hole ends the work; so does a torn write. No host tears an aligned word, so entries are whole.
    for nth in 0..changes.len() as u64 {
        for effect in [Effect::Fail(5), Effect::Short(704, 28), Effect::Die(5)] {
            let store =
                Faulty::new(Memory::from(bytes.clone())).failing(Operation::Change, nth, effect);
            let (store, done) = in_memory(store, &made.image, &request);
            let error = done.expect_err("a change that fails must not pass");
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert!(error.path().is_some());
            let what = format!("{effect:?} at {nth}");
            crashing.assert_sound(&store.inner().to_vec(), false, &what);
        }
    }
}

#[test]
fn whenever_it_ends_the_image_is_sound_and_the_data_there() {
    for_every_image(crash_case);
}

#[test]
fn with_a_data_file_tables_come_before_holes() {
    let scratch = Scratch::new();
    let data = scratch.path("data");
    let image = scratch.path("image.qcow2");
    for raw in ["off", "on"] {
        let _ = std::fs::remove_file(&data);
        let options = format!("data_file={data},data_file_raw={raw},cluster_size=4k");
        scratch.create("image.qcow2", &["-f", "qcow2", "-o", &options], "1M");
        let io = [
            "write -P 7 0 512k",
            "write -P 0 600k 64k",
            "write -P 9 900k 64k",
        ];
        qemu_io("qcow2", &image, &io);
        let before = qemu_view(&scratch, &image, None);
        let free = map(&[100 << 10..300 << 10, 910 << 10..911 << 10]);
        let (image_bytes, data_bytes) = (
            std::fs::read(&image).unwrap(),
            std::fs::read(&data).unwrap(),
        );
        let stores = [image_bytes.clone(), data_bytes.clone()]
            .map(|bytes| Arc::new(Recorder::new(Memory::from(bytes))));
        let [store, data_store] = stores.clone();
        let opened = InPlace::from_stores(store, data_store, &image, &OPEN).unwrap();
        let chain = opened.image().chain(Depth::Chain, None).unwrap();
        assert_eq!(chain.virtual_size(), 1 << 20);
        drop(chain);
        let done = run(opened, &request(&free, true, 2)).unwrap().punched;
        assert_eq!(
            (done.free_bytes, done.zero_bytes >> 10),
            (
                200 << 10,
                match raw {
                    // The raw file's unallocated parts are zeros in memory, too.
                    "on" => done.zero_bytes >> 10,
                    _ => 64,
                }
            )
        );
        let image_changes = stores[0].changes();
        assert_eq!(image_changes.is_empty(), raw == "on");
        let first_sync = image_changes
            .iter()
            .position(|change| *change == Change::Sync);
        for kept in [0, first_sync.map_or(0, |at| at + 1), image_changes.len()] {
            let disk = Memory::from(image_bytes.clone());
            for change in &image_changes[..kept] {
                change.replay(&disk).unwrap();
            }
            std::fs::write(&image, disk.to_vec()).unwrap();
            let data_changes = stores[1].changes();
            let most = if kept == 0 && raw == "off" {
                0
            } else {
                data_changes.len()
            };
            for kept in [0, most / 2, most] {
                let disk = Memory::from(data_bytes.clone());
                for change in &data_changes[..kept] {
                    change.replay(&disk).unwrap();
                }
                std::fs::write(&data, disk.to_vec()).unwrap();
                qemu_img(&["check", "-q", &image]);
                let now = qemu_view(&scratch, &image, None);
                assert_same_but_for_free(&now, &before, &free, raw);
                if raw == "on" {
                    assert!(disk.to_vec() == now, "the data file is the disk");
                }
            }
        }
        // The real files, whose data file is written under the policy alone.
        std::fs::write(&image, &image_bytes).unwrap();
        std::fs::write(&data, &data_bytes).unwrap();
        let denied = OpenOptions {
            backing: BackingPolicy::Deny,
            ..OPEN
        };
        let error = InPlace::open(&image, &denied).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        let beside = OpenOptions {
            backing: BackingPolicy::Beside,
            ..OPEN
        };
        let opened = InPlace::open(&image, &beside).unwrap();
        let mut first = [0; 512];
        let chain = opened.image().chain(Depth::Chain, None).unwrap();
        chain.reader().read_at(0, &mut first).unwrap();
        assert_eq!(first, [7; 512]);
        drop(chain);
        run(opened, &request(&free, true, 2)).unwrap();
        qemu_img(&["check", "-q", &image]);
        let now = qemu_view(&scratch, &image, None);
        assert_same_but_for_free(&now, &before, &free, raw);
    }
}

fn kind_of(name: &str) -> Result<Sparsified, Error> {
    let path = format!("{}/testdata/{name}", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap();
    let free = map(std::slice::from_ref(&(0..1 << 40)));
    let store = Recorder::new(Memory::from(bytes.clone()));
    let (store, done) = in_memory(store, &path, &request(&free, true, 1));
    if done.is_err() {
        assert!(store.changes().is_empty(), "{name} was changed");
    }
    done
}

#[test]
fn what_must_not_be_written_is_refused_before_the_first_byte() {
    for (name, kind, word) in [
        ("dirty.qcow2", ErrorKind::Refused, "was not closed"),
        ("corrupt-bit.qcow2", ErrorKind::Refused, "marked corrupt"),
        ("aes.qcow2", ErrorKind::Unsupported, "encrypted"),
        (
            "unknown-feature.qcow2",
            ErrorKind::Unsupported,
            "time travel",
        ),
        ("refcount-lost.qcow2", ErrorKind::Corrupt, "has errors"),
        ("truncated.qcow2", ErrorKind::Corrupt, ""),
        ("bitmaps.qcow2", ErrorKind::Refused, "bitmap"),
    ] {
        match kind_of(name) {
            Err(error) => {
                assert_eq!(error.kind(), kind, "{name}: {error}");
                assert!(error.to_string().contains(word), "{error}");
                assert!(error.path().is_some(), "{error}");
            }
            // qemu-img finds nothing wrong with a file that ends within its last cluster.
            Ok(_) => assert_eq!(name, "truncated.qcow2"),
        }
    }
}

#[test]
fn leaked_clusters_are_taken_back() {
    let done = kind_of("leaked.qcow2").unwrap().punched;
    assert_eq!(done.leaked_clusters, 1);
}

#[test]
fn what_an_unknown_extension_may_point_to_is_no_leak() {
    let path = format!("{}/testdata/leaked.qcow2", env!("CARGO_MANIFEST_DIR"));
    let mut bytes = std::fs::read(&path).unwrap();
    // The end of the extensions becomes one that nobody knows, and an end.
    let header_length = u32::from_be_bytes(bytes[100..104].try_into().unwrap()) as usize;
    let mut at = header_length;
    loop {
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let (magic, length) = (word(at), word(at + 4) as usize);
        if magic == 0 {
            break;
        }
        at += 8 + length.next_multiple_of(8);
    }
    bytes[at..at + 8].copy_from_slice(&[0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0]);
    let free = FreeMap::default();
    let (store, done) = in_memory(Memory::from(bytes.clone()), &path, &request(&free, true, 1));
    assert_eq!(done.unwrap().punched.leaked_clusters, 0);
    assert_eq!(look(store.to_vec(), &path, None).unwrap().leaks, 1);

    // An autoclear feature that nobody knows is gone once the image has been written.
    bytes[at..at + 8].fill(0);
    bytes[88] = 0x80;
    let all = map(std::slice::from_ref(&(0..1 << 40)));
    let (store, done) = in_memory(Memory::from(bytes), &path, &request(&all, true, 1));
    assert!(done.unwrap().punched.freed_clusters > 0);
    assert_eq!(store.to_vec()[88..96], [0; 8]);
}

#[test]
fn a_machine_in_a_snapshot_keeps_the_free_map_away() {
    let path = format!("{}/testdata/snapshots.qcow2", env!("CARGO_MANIFEST_DIR"));
    let mut bytes = std::fs::read(&path).unwrap();
    let table = u64::from_be_bytes(bytes[64..72].try_into().unwrap()) as usize;
    bytes[table + 40..table + 48].copy_from_slice(&4096u64.to_be_bytes());
    let free = map(std::slice::from_ref(&(0..1 << 20)));
    let (_, refused) = in_memory(Memory::from(bytes.clone()), &path, &request(&free, true, 1));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Refused);
    let none = FreeMap::default();
    let zeros = request(&none, true, 1);
    in_memory(Memory::from(bytes), &path, &zeros).1.unwrap();
}

#[test]
fn cancelled_before_it_writes_it_has_written_nothing() {
    let path = format!("{}/testdata/zeros.qcow2", env!("CARGO_MANIFEST_DIR"));
    let store = Arc::new(Recorder::new(Memory::from(std::fs::read(&path).unwrap())));
    let shared: Arc<dyn WriteAt> = Arc::clone(&store) as _;
    let image = InPlace::from_store(shared, &path, &OPEN).unwrap();
    let cancel = AtomicBool::new(false);
    let free = FreeMap::default();
    // Raised when the last cluster has been looked at.
    let error = sparsify(image, &request(&free, true, 1), &cancel, &mut |step| {
        if step.guest == step.total {
            cancel.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    })
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(store.changes().is_empty());
}

/// Whatever bytes an image has, it ends with an answer; and a sound one stays sound.
#[test]
fn damaged_images_end_with_an_answer() {
    let rounds = if std::env::var_os("QIMG_NIGHTLY").is_some() {
        20_000
    } else {
        400
    };
    let mut random = Random(0xf00d);
    let mut written = 0;
    for name in [
        "cluster-512.qcow2",
        "refcount-1.qcow2",
        "refcount-64.qcow2",
        "snapshots.qcow2",
        "subclusters.qcow2",
        "v2.qcow2",
        "zeros.qcow2",
        "zlib.qcow2",
        "zstd.qcow2",
        "leaked.qcow2",
    ] {
        let path = format!("{}/testdata/{name}", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(&path).unwrap();
        for _ in 0..rounds {
            let mut damaged = bytes.clone();
            for _ in 0..1 + random.below(3) {
                let at = random.below(damaged.len());
                damaged[at] = match random.below(3) {
                    0 => damaged[at] ^ (1 << random.below(8)),
                    1 => 0,
                    _ => random.below(256) as u8,
                };
            }
            let Ok(before) = look(damaged.clone(), &path, None) else {
                let all = map(std::slice::from_ref(&(0..1 << 30)));
                let _ = in_memory(Memory::from(damaged), &path, &request(&all, true, 1));
                continue;
            };
            let free = random_map(&mut random, before.guest.len().max(4096) as u64, 4096);
            let (store, done) = in_memory(
                Memory::from(damaged.clone()),
                &path,
                &request(&free, true, 1),
            );
            if done.is_err() {
                assert!(store.to_vec() == damaged, "{name}: refused, but written");
                continue;
            }
            written += 1;
            let after = look(store.to_vec(), &path, None).unwrap();
            assert_eq!(after.corruptions, 0, "{name}");
            assert_same_but_for_free(&after.guest, &before.guest, &free, name);
        }
    }
    assert!(written > rounds, "{written}");
}

#[test]
fn raw_files_lose_free_and_zero_blocks() {
    let scratch = Scratch::new();
    let path = scratch.path("disk.raw");
    let mut random = Random(77);
    for round in 0..12 {
        let length = 3 * 1024 * 1024 + [0, 512, 700][round % 3];
        let mut bytes = vec![0; length];
        for _ in 0..20 {
            let start = random.below(length);
            let end = (start + random.below(300_000)).min(length);
            let noise = random.noise(end - start);
            bytes[start..end].copy_from_slice(&noise);
        }
        let free = random_map(&mut random, length as u64, 65536);
        let mut seen = Vec::new();
        for (threads, zeros) in [(1, true), (3, true), (2, false)] {
            std::fs::write(&path, &bytes).unwrap();
            let raw = OpenOptions {
                format: Some(Format::Raw),
                ..OPEN
            };
            let opened = InPlace::open(&path, &raw).unwrap();
            let dry = SparsifyRequest {
                dry_run: true,
                ..request(&free, zeros, threads)
            };
            let told = run(opened, &dry).unwrap().punched;
            assert!(std::fs::read(&path).unwrap() == bytes);
            let opened = InPlace::open(&path, &raw).unwrap();
            let done = run(opened, &request(&free, zeros, threads))
                .unwrap()
                .punched;
            assert_eq!(
                (told.free_bytes, told.zero_bytes),
                (done.free_bytes, done.zero_bytes)
            );
            let now = std::fs::read(&path).unwrap();
            assert_same_but_for_free(&now, &bytes, &free, "raw");
            for range in free.ranges() {
                let inner = range.start.next_multiple_of(4096)..range.end / 4096 * 4096;
                if !inner.is_empty() {
                    let inner = inner.start as usize..inner.end as usize;
                    assert!(now[inner].iter().all(|&byte| byte == 0));
                }
            }
            if zeros {
                let blocks = now
                    .chunks(4096)
                    .filter(|block| block.iter().any(|&byte| byte != 0));
                assert!(done.disk_size <= blocks.count() as u64 * 4096 + 65536);
                seen.push((now, done.free_bytes, done.zero_bytes));
            }
        }
        assert!(seen[0] == seen[1]);
    }
}

/// A field of eight bytes.
fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The bytes of an image of 64 KiB clusters with a stream at guest cluster 0 and data at 1; where its L2 table and its
/// refcount block are.
fn stream_and_data(scratch: &Scratch) -> (Vec<u8>, usize, usize) {
    let path = scratch.path("two.qcow2");
    scratch.create("two.qcow2", &["-f", "qcow2"], "1M");
    qemu_io(
        "qcow2",
        &path,
        &["write -c -P 5 0 64k", "write -P 6 64k 64k"],
    );
    let bytes = std::fs::read(&path).unwrap();
    let at = |at| usize::try_from(word(&bytes, at) & 0x00ff_ffff_ffff_fe00).unwrap();
    let (l2, block) = (at(at(40)), at(at(48)));
    (bytes, l2, block)
}

fn assert_check(scratch: &Scratch, bytes: &[u8], code: i32) {
    let path = scratch.path("checked.qcow2");
    std::fs::write(&path, bytes).unwrap();
    let check = Command::new("qemu-img").args(["check", &path]).output();
    let check = check.expect("the oracle qemu-img is needed");
    assert_eq!(check.status.code(), Some(code), "{check:?}");
}

#[test]
fn a_stream_beside_plain_data_in_its_host_cluster_stays() {
    let scratch = Scratch::new();
    let (mut bytes, l2, block) = stream_and_data(&scratch);
    // Both in the host cluster of the stream, which no program writes but the format allows.
    let cluster = usize::try_from((word(&bytes, l2) & 0xffff_ffff_ffff) >> 16).unwrap();
    let old = usize::try_from((word(&bytes, l2 + 8) & 0xffff_ffff_ffff) >> 16).unwrap();
    bytes[l2 + 8..l2 + 16].copy_from_slice(&((cluster as u64) << 16).to_be_bytes());
    bytes[block + cluster * 2 + 1] = 2;
    bytes[block + old * 2 + 1] = 0;
    assert_check(&scratch, &bytes, 0);
    for free in [0..65536, 65536..131_072, 0..131_072] {
        let free = map(std::slice::from_ref(&free));
        let store = Memory::from(bytes.clone());
        let (store, done) = in_memory(store, "two.qcow2", &request(&free, true, 1));
        let done = done.unwrap().punched;
        assert_eq!((done.free_bytes, done.shared_bytes), (0, free.total()));
        assert_check(&scratch, &store.to_vec(), 0);
    }
}

#[test]
fn a_leak_of_a_cluster_in_use_is_left_to_who_can_set_its_copied_flag() {
    let scratch = Scratch::new();
    let (mut bytes, l2, block) = stream_and_data(&scratch);
    let cluster = usize::try_from((word(&bytes, l2 + 8) & 0xffff_ffff_ffff) >> 16).unwrap();
    bytes[l2 + 8] &= 0x7f;
    bytes[block + cluster * 2 + 1] = 2;
    assert_check(&scratch, &bytes, 3);
    let free = FreeMap::default();
    let (store, done) = in_memory(Memory::from(bytes), "two.qcow2", &request(&free, true, 1));
    assert_eq!(done.unwrap().punched.leaked_clusters, 0);
    assert_check(&scratch, &store.to_vec(), 3);
}

#[test]
fn version_2_keeps_what_it_cannot_hide_a_backing_file_without() {
    let scratch = Scratch::new();
    let base = scratch.path("base");
    scratch.create("base", &["-f", "raw"], "1M");
    qemu_io("raw", &base, &["write -P 3 0 1M"]);
    let top = scratch.path("top.qcow2");
    let arguments = ["-f", "qcow2", "-o", "compat=0.10", "-b", &base, "-F", "raw"];
    scratch.create("top.qcow2", &arguments, "1M");
    qemu_io("qcow2", &top, &["write -P 0 0 128k", "write -P 4 256k 64k"]);
    let before = std::fs::read(&top).unwrap();
    let free = map(std::slice::from_ref(&(256 << 10..320 << 10)));
    let done = run(
        InPlace::open(&top, &OPEN).unwrap(),
        &request(&free, true, 1),
    );
    let done = done.unwrap().punched;
    assert_eq!((done.unmappable_bytes, done.free_bytes), (64 << 10, 0));
    assert!(std::fs::read(&top).unwrap() == before);
}

#[test]
fn a_terabyte_full_of_clusters_is_done_in_bounded_time() {
    if std::env::var_os("QIMG_NIGHTLY").is_none() {
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.path("large.qcow2");
    let options = ["-f", "qcow2", "-o", "preallocation=metadata"];
    scratch.create("large.qcow2", &options, "1T");
    let free = map(std::slice::from_ref(&(0..1 << 39)));
    let started = std::time::Instant::now();
    let image = InPlace::open(&path, &OPEN).unwrap();
    let done = run(image, &request(&free, true, 2)).unwrap().punched;
    assert_eq!(done.free_bytes, 1 << 39);
    assert_eq!(done.free_bytes + done.zero_bytes, 1 << 40);
    assert!(started.elapsed().as_secs() < 120, "{:?}", started.elapsed());
    qemu_img(&["check", "-q", &path]);
}
