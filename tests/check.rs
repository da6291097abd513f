//! `Image::check` counts what qemu-img check counts, on sound images and on damaged ones.
//!
//! Known differences, all of them where an image is damaged:
//! - qemu-img does not open an image whose consistent bitmaps are damaged; here that is a failure of the check, with
//!   the same exit code.
//! - An image without a refcount table is not opened; qemu-img opens it for a check, and for nothing else.
//! - L2 tables that are not aligned are followed up to a limit, so that a small image cannot keep a check busy.

mod oracle_tools;

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use oracle_tools::{must, qemu_io, run};
use qimg::ErrorKind;
use qimg::image::check::{CheckOptions, CheckReport, Finding};
use qimg::image::{Format, Image, OpenOptions};
use serde_json::Value;

static GO: AtomicBool = AtomicBool::new(false);

fn ours(path: &Path) -> qimg::Result<CheckReport> {
    let options = OpenOptions {
        format: Some(Format::Qcow2),
        ..OpenOptions::default()
    };
    let check = CheckOptions {
        threads: 2,
        cancel: &GO,
        progress: None,
    };
    Image::open(path, &options)?.check(&check)
}

/// Exit code, and the report where there is one.
fn theirs(directory: &Path, name: &str) -> (i32, Option<Value>, String) {
    let arguments = ["check", "-U", "-f", "qcow2", "--output=json", name];
    let output = run(directory, "qemu-img", &arguments);
    let mut report: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    if let Some(Value::Object(fields)) = &mut report {
        fields.remove("filename");
        fields.remove("format");
    }
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), report, words)
}

/// Compares both; false when qemu-img gave no counts.
fn same(directory: &Path, name: &str, what: &str) -> bool {
    let (code, expected, words) = theirs(directory, name);
    let report = ours(&directory.join(name));
    let Some(expected) = expected else {
        // An image that qemu-img does not open may still be looked at, but it is not sound.
        assert!(code == 1 || code < 0, "{what}: {code} {words}");
        let refused = report.as_ref().map_or(1, CheckReport::exit_code);
        assert_ne!(refused, 0, "{what}: qemu-img says {words}");
        return false;
    };
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let known = cause.is_some_and(|cause| cause.contains("refcount_table_clusters"));
            assert!(known, "{what}: {error:?}; qemu-img: {expected} {words}");
            return false;
        }
    };
    let counts = serde_json::to_value(&report).unwrap();
    let listed: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    let few = &listed[..listed.len().min(12)];
    assert_eq!(counts, expected, "{what}: {few:#?}\nqemu-img: {words}");
    assert_eq!(i32::from(report.exit_code()), code, "{what}");
    assert_eq!(
        report.findings_total,
        report.corruptions + report.leaks + report.check_errors,
        "{what}"
    );
    // Its lines are the same, in whatever order.
    if report.findings_total == report.findings.len() as u64 {
        for line in &listed {
            if line.starts_with("ERROR cluster")
                || line.starts_with("Leaked")
                || line.contains("COPIED")
            {
                assert!(
                    words.contains(line.as_str()),
                    "{what}: {line}\nqemu-img: {words}"
                );
            }
        }
    }
    true
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// Options of images, and whether they can have snapshots and bitmaps.
const MATRIX: &[(&str, bool)] = &[
    ("compat=0.10", true),
    ("compat=1.1", true),
    ("cluster_size=512", true),
    ("cluster_size=4k,refcount_bits=1", false),
    ("cluster_size=4k,refcount_bits=2", true),
    ("refcount_bits=4", true),
    ("refcount_bits=8,cluster_size=32k", true),
    ("refcount_bits=32", true),
    ("refcount_bits=64,cluster_size=2M", true),
    ("compression_type=zstd", true),
    ("extended_l2=on", true),
    ("extended_l2=on,cluster_size=16k", true),
    ("lazy_refcounts=on", true),
    ("preallocation=metadata", true),
    ("preallocation=full,cluster_size=4k", false),
    ("data_file=DATA", false),
    ("data_file=DATA,data_file_raw=on", false),
    ("data_file=DATA,extended_l2=on", false),
];

/// Makes image number `index` of the matrix.
fn make(directory: &Path, index: usize) -> String {
    let (options, snapshots) = MATRIX[index];
    let name = format!("{index}.qcow2");
    let options = options.replace("DATA", &format!("{index}.data"));
    let mut arguments = vec!["create", "-q", "-f", "qcow2", "-o", &options];
    if index % 3 == 1 && !options.contains("data_file_raw") && !options.contains("preallocation") {
        must(
            directory,
            "qemu-img",
            &["create", "-q", "-f", "raw", "base.raw", "3M"],
        );
        arguments.extend(["-b", "base.raw", "-F", "raw"]);
    }
    arguments.extend([name.as_str(), "3M"]);
    must(directory, "qemu-img", &arguments);
    qemu_io(
        directory,
        &name,
        &[
            "write -P 1 0 300k",
            "write -P 2 1M 100k",
            "write -P 3 700k 9k",
        ],
    );
    if !options.contains("data_file")
        && !options.ends_with("refcount_bits=1")
        && !options.ends_with("refcount_bits=2")
        && !options.ends_with("refcount_bits=4")
        && !options.contains("preallocation")
    {
        qemu_io(directory, &name, &["write -c -P 4 2M 1M"]);
    }
    if !options.contains("0.10") {
        qemu_io(directory, &name, &["write -z 512k 64k", "write -z 0 8k"]);
        for bitmap in ["first", "second"] {
            must(
                directory,
                "qemu-img",
                &["bitmap", "--add", "-g", "4k", &name, bitmap],
            );
        }
        qemu_io(directory, &name, &["write -P 5 800k 100k"]);
    }
    if snapshots {
        must(directory, "qemu-img", &["snapshot", "-c", "one", &name]);
        qemu_io(
            directory,
            &name,
            &["write -P 6 100k 100k", "discard 1M 64k"],
        );
        must(directory, "qemu-img", &["snapshot", "-c", "two", &name]);
        qemu_io(directory, &name, &["write -P 7 1500k 100k"]);
    }
    name
}

#[test]
fn sound_images_have_the_same_counts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for (index, (options, _)) in MATRIX.iter().enumerate() {
        let name = make(path, index);
        assert!(same(path, &name, options));
        assert_eq!(ours(&path.join(&name)).unwrap().exit_code(), 0);
        for recipe in [
            &["-c"][..],
            &["-o", "cluster_size=2M"],
            &["-c", "-o", "cluster_size=4k,compression_type=zstd"],
        ] {
            let mut arguments = vec!["convert", "-O", "qcow2"];
            arguments.extend(recipe);
            arguments.extend([name.as_str(), "converted.qcow2"]);
            must(path, "qemu-img", &arguments);
            assert!(same(path, "converted.qcow2", "converted"));
        }
    }
}

#[test]
fn committed_samples_have_the_same_counts() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut checked = 0;
    for entry in fs::read_dir(&samples).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // Without its key qemu-img does not open an encrypted image: what it would count is not known.
        if name.ends_with(".qcow2") && name != "aes.qcow2" {
            checked += u32::from(same(&samples, &name, &name));
        }
    }
    assert!(checked > 15);
}

/// Where an image has its tables.
struct Layout {
    bytes: Vec<u8>,
    cluster: u64,
}

impl Layout {
    fn new(bytes: Vec<u8>) -> Self {
        let cluster = 1 << u32::from_be_bytes(bytes[20..24].try_into().unwrap());
        Self { bytes, cluster }
    }

    fn word(&self, at: u64) -> u64 {
        let at = at as usize;
        self.bytes
            .get(at..at + 8)
            .map_or(0, |field| u64::from_be_bytes(field.try_into().unwrap()))
    }

    fn put(&mut self, at: u64, word: u64) {
        let at = at as usize;
        if let Some(field) = self.bytes.get_mut(at..at + 8) {
            field.copy_from_slice(&word.to_be_bytes());
        }
    }

    fn half(&self, at: u64) -> u64 {
        self.word(at) >> 32
    }

    /// Places of the used entries of the table of `entries` entries at `offset`.
    fn used(&self, offset: u64, entries: u64) -> Vec<u64> {
        (0..entries)
            .map(|index| offset + index * 8)
            .filter(|&at| self.word(at) != 0)
            .collect()
    }

    fn l1(&self) -> Vec<u64> {
        self.used(self.word(40), self.half(36))
    }

    fn snapshot_l1(&self) -> Vec<u64> {
        let table = self.word(64);
        if self.half(60) == 0 {
            return Vec::new();
        }
        self.used(self.word(table), self.half(table + 8))
    }

    fn l2(&self, l1: &[u64]) -> Vec<u64> {
        let tables = l1.iter().map(|&at| self.word(at) & 0x00ff_ffff_ffff_fe00);
        tables
            .flat_map(|table| self.used(table, self.cluster / 8))
            .collect()
    }

    fn refcount_table(&self) -> Vec<u64> {
        self.used(self.word(48), self.half(56) * self.cluster / 8)
    }

    /// Places of the bitmap directory and of the first bitmap's table.
    fn bitmaps(&self) -> Option<(u64, u64)> {
        let mut at = if self.half(4) >= 3 {
            self.half(100)
        } else {
            return None;
        };
        while self.half(at) != 0 && at < self.cluster {
            if self.half(at) == 0x2385_2875 {
                let directory = self.word(at + 24);
                return Some((directory, self.word(directory)));
            }
            at += 8 + self.half(at + 4).next_multiple_of(8);
        }
        None
    }

    /// Damages the image in one of the ordinary ways; says how.
    fn damage(&mut self, random: &mut Random) -> Option<String> {
        let kind = random.below(14);
        let pick = |places: &[u64], random: &mut Random| {
            (!places.is_empty()).then(|| places[random.below(places.len() as u64) as usize])
        };
        let what = match kind {
            0 | 1 => {
                let entry = pick(&self.refcount_table(), random)?;
                let block = self.word(entry) & !0x1ff;
                // Where counts are used at all, near the start of the block.
                let at = block + random.below(64).min(self.cluster - 1);
                let bit = random.below(8);
                *self.bytes.get_mut(at as usize)? ^= 1 << bit;
                format!("refcount byte {at:#x} bit {bit}")
            }
            2 => {
                let at = pick(&self.refcount_table(), random)?;
                let bit = random.below(64);
                self.put(at, self.word(at) ^ 1 << bit);
                format!("refcount table {at:#x} bit {bit}")
            }
            3 | 4 => {
                let at = pick(&self.l1(), random)?;
                let bit = random.below(64);
                self.put(at, self.word(at) ^ 1 << bit);
                format!("L1 entry {at:#x} bit {bit}")
            }
            5 | 6 => {
                let at = pick(&self.l2(&self.l1()), random)?;
                let bit = random.below(64);
                self.put(at, self.word(at) ^ 1 << bit);
                format!("L2 entry {at:#x} bit {bit}")
            }
            7 => {
                let l1 = self.l1();
                let at = pick(&[l1.clone(), self.l2(&l1)].concat(), random)?;
                self.put(at, self.word(at) ^ 1 << 63);
                format!("copied flag at {at:#x}")
            }
            8 => {
                let l2 = self.l2(&self.l1());
                let (from, to) = (pick(&l2, random)?, pick(&l2, random)?);
                self.put(to, self.word(from));
                format!("L2 entry {from:#x} at {to:#x} too")
            }
            9 => {
                let l1 = self.snapshot_l1();
                let at = pick(&[l1.clone(), self.l2(&l1)].concat(), random)?;
                let bit = random.below(64);
                self.put(at, self.word(at) ^ 1 << bit);
                format!("snapshot's L1 or L2 entry {at:#x} bit {bit}")
            }
            10 => {
                let (directory, table) = self.bitmaps()?;
                let at = if random.below(2) == 0 {
                    table
                } else {
                    directory + random.below(4) * 8
                };
                let bit = random.below(64);
                self.put(at, self.word(at) ^ 1 << bit);
                format!("bitmap word {at:#x} bit {bit}")
            }
            11 => {
                let length = random.below(self.bytes.len() as u64);
                self.bytes.truncate(length as usize);
                format!("{length} bytes left")
            }
            12 => {
                // A table where another one is.
                let (l1, table) = (self.l1(), self.refcount_table());
                let from = pick(&[l1.clone(), table.clone()].concat(), random)?;
                let to = pick(&[l1, table].concat(), random)?;
                self.put(to, self.word(from) & !0x1ff);
                format!("table entry {from:#x} at {to:#x} too")
            }
            _ => {
                let at = random.below(112);
                let bit = random.below(8);
                *self.bytes.get_mut(at as usize)? ^= 1 << bit;
                format!("header byte {at} bit {bit}")
            }
        };
        Some(what)
    }
}

#[test]
fn damaged_images_have_the_same_counts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let cases = std::env::var("QIMG_CHECK_CASES").map_or(24, |cases| cases.parse().unwrap());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut compared, mut refused) = (0, 0);
    for (index, (options, _)) in MATRIX.iter().enumerate() {
        let name = make(path, index);
        let sound = fs::read(path.join(&name)).unwrap();
        for case in 0..cases {
            let mut image = Layout::new(sound.clone());
            let mut done = Vec::new();
            for _ in 0..=random.below(3) {
                done.extend(image.damage(&mut random));
                if image.bytes.len() < sound.len() {
                    break;
                }
            }
            fs::write(path.join("damaged.qcow2"), &image.bytes).unwrap();
            let what = format!("{options} case {case}: {done:?}");
            if same(path, "damaged.qcow2", &what) {
                compared += 1;
            } else {
                refused += 1;
            }
        }
    }
    assert!(compared > refused, "{compared} compared, {refused} refused");
}

#[test]
fn a_reference_count_that_cannot_hold_all_references_is_a_corruption() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    must(
        path,
        "qemu-img",
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            "refcount_bits=2",
            "a.qcow2",
            "8M",
        ],
    );
    qemu_io(path, "a.qcow2", &["write -P 1 0 8M"]);
    let mut image = Layout::new(fs::read(path.join("a.qcow2")).unwrap());
    let l2 = image.l2(&image.l1());
    let first = image.word(l2[0]);
    for &at in &l2 {
        image.put(at, first);
    }
    fs::write(path.join("a.qcow2"), &image.bytes).unwrap();
    assert!(same(path, "a.qcow2", "one cluster for all"));
}

#[test]
fn an_l1_table_that_leads_to_one_table_everywhere_is_checked_in_no_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    must(
        path,
        "qemu-img",
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            "cluster_size=64k",
            "a.qcow2",
            "64T",
        ],
    );
    qemu_io(path, "a.qcow2", &["write -P 1 0 4M"]);
    let mut image = Layout::new(fs::read(path.join("a.qcow2")).unwrap());
    let (l1, entries) = (image.word(40), image.half(36));
    let first = image.word(l1);
    for index in 0..entries {
        image.put(l1 + index * 8, first);
    }
    fs::write(path.join("a.qcow2"), &image.bytes).unwrap();
    let started = std::time::Instant::now();
    let report = ours(&path.join("a.qcow2")).unwrap();
    assert!(started.elapsed().as_secs() < 10);
    assert_eq!(report.allocated_clusters, 64 * entries);
    // Of each of the clusters and of the table, all references but 65535; and their counts are too low.
    assert_eq!(report.corruptions, 65 * (entries - 65535) + 65);
    assert!(matches!(
        report.findings[0],
        Finding::RefcountOverflow { .. }
    ));
}

#[test]
fn raw_images_have_no_check() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.raw");
    fs::write(&path, vec![0; 4096]).unwrap();
    let options = OpenOptions {
        format: Some(Format::Raw),
        ..OpenOptions::default()
    };
    let check = CheckOptions {
        threads: 1,
        cancel: &GO,
        progress: None,
    };
    let error = Image::open(&path, &options)
        .unwrap()
        .check(&check)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn an_encrypted_image_counts_its_luks_header() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let secret = "secret,id=key,data=sesame";
    let options = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10";
    must(
        path,
        "qemu-img",
        &[
            "create", "-q", "--object", secret, "-f", "qcow2", "-o", options, "a.qcow2", "4M",
        ],
    );
    let image = "driver=qcow2,encrypt.key-secret=key,file.filename=a.qcow2";
    let check = [
        "check",
        "--object",
        secret,
        "--image-opts",
        "--output=json",
        image,
    ];
    let output = must(path, "qemu-img", &check);
    let mut expected: Value = serde_json::from_slice(&output.stdout).unwrap();
    let fields = expected.as_object_mut().unwrap();
    fields.remove("filename");
    fields.remove("format");
    let report = ours(&path.join("a.qcow2")).unwrap();
    assert_eq!(serde_json::to_value(&report).unwrap(), expected);
    assert_eq!(report.exit_code(), 0);
}

#[test]
fn bitmaps_in_use_and_incomplete_snapshots_are_checked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let name = make(path, 1);
    let sound = fs::read(path.join(&name)).unwrap();
    let mut image = Layout::new(sound.clone());
    let (bitmaps, table) = image.bitmaps().unwrap();
    image.put(bitmaps + 8, image.word(bitmaps + 8) | 1);
    fs::write(path.join("a.qcow2"), &image.bytes).unwrap();
    assert!(same(path, "a.qcow2", "bitmap in use"));
    // Its bits are where another table is.
    image.put(table, image.word(40));
    fs::write(path.join("a.qcow2"), &image.bytes).unwrap();
    assert!(same(path, "a.qcow2", "bits over the L1 table"));
    assert_eq!(ours(&path.join("a.qcow2")).unwrap().exit_code(), 2);

    let mut image = Layout::new(sound);
    let snapshots = image.word(64);
    for extra in [0u64, 8, 15, 16] {
        let state = image.word(snapshots + 32) >> 32 << 32;
        image.put(snapshots + 32, state | extra);
        // One entry alone: what follows the shorter one is not the next.
        image.put(60, 1 << 32 | snapshots >> 32);
        fs::write(path.join("a.qcow2"), &image.bytes).unwrap();
        same(path, "a.qcow2", &format!("{extra} bytes of extra data"));
    }
}

#[test]
fn reports_do_not_depend_on_the_number_of_threads() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let name = make(path, 2);
    let mut image = Layout::new(fs::read(path.join(&name)).unwrap());
    for at in image.l2(&image.l1()) {
        image.put(at, image.word(at) ^ 1 << 63);
    }
    fs::write(path.join(&name), &image.bytes).unwrap();
    let image = Image::open(path.join(&name), &OpenOptions::default()).unwrap();
    let reports = [1, 2, 7].map(|threads| {
        let check = CheckOptions {
            threads,
            cancel: &GO,
            progress: None,
        };
        image.check(&check).unwrap()
    });
    assert_eq!(reports[0], reports[1]);
    assert_eq!(reports[0], reports[2]);
    assert!(reports[0].findings_total > reports[0].findings.len() as u64);
}

#[test]
fn cancelling_ends_a_check() {
    let directory = tempfile::tempdir().unwrap();
    let name = make(directory.path(), 1);
    let image = Image::open(directory.path().join(name), &OpenOptions::default()).unwrap();
    let cancel = AtomicBool::new(true);
    let check = CheckOptions {
        threads: 2,
        cancel: &cancel,
        progress: None,
    };
    assert_eq!(
        image.check(&check).unwrap_err().kind(),
        ErrorKind::Cancelled
    );
}
