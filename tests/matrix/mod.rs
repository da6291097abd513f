//! Images of every kind that qemu-img makes, with contents of every kind that qemu-io writes.
//!
//! A case picks one value of each dimension below. Values that exclude each other in QEMU are
//! listed in [`excludes`]; of the rest, every pair of values meets in some case, and with
//! `QIMG_NIGHTLY=1` every triple. What a case must read as is qemu-img's word for it: its own
//! conversion to raw.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::oracle::{Scratch, qemu_img};
use crate::patterns::Random;

type Choices = [usize; DIMENSIONS];

const DIMENSIONS: usize = 10;
const COUNTS: Choices = [5, 7, 2, 3, 2, 3, 6, 2, 2, 8];

const CLUSTER: usize = 0;
const REFCOUNT: usize = 1;
const VERSION: usize = 2;
const CODEC: usize = 3;
const EXTENDED: usize = 4;
const DATA_FILE: usize = 5;
const BACKING: usize = 6;
const SNAPSHOT: usize = 7;
const BITMAP: usize = 8;
/// Preallocation, and whether the last cluster is cut.
const SHAPE: usize = 9;

const CLUSTERS: [u64; 5] = [512, 4 << 10, 16 << 10, 64 << 10, 2 << 20];
const REFCOUNTS: [u32; 7] = [16, 1, 2, 4, 8, 32, 64];
const PREALLOCATIONS: [&str; 4] = ["off", "metadata", "falloc", "full"];

/// Whether QEMU makes no image with both choices. The first choice of each dimension goes with everything.
fn excludes(a: (usize, usize), b: (usize, usize)) -> bool {
    let (a, b) = if a.0 <= b.0 { (a, b) } else { (b, a) };
    let preallocated = |shape: usize| shape / 2 > 0;
    match (a, b) {
        ((CLUSTER, 0 | 1), (EXTENDED, 1)) => true,
        // A version 2 image has none of what version 3 brought.
        ((REFCOUNT, 1..), (VERSION, 1)) => true,
        ((VERSION, 1), (CODEC, 2) | (EXTENDED, 1) | (DATA_FILE, 1..) | (BITMAP, 1)) => true,
        // A cluster of a snapshot has two references, and streams share clusters.
        ((REFCOUNT, 1 | 2), (SNAPSHOT, 1)) => true,
        ((CODEC, 1..), (DATA_FILE, 1..)) => true,
        ((CODEC, 1..), (SHAPE, shape)) => preallocated(shape),
        ((DATA_FILE, 1..), (SNAPSHOT, 1)) => true,
        ((DATA_FILE, 2), (BACKING, 1..) | (BITMAP, 1)) => true,
        ((BACKING, 1..), (SHAPE, shape)) => preallocated(shape),
        _ => false,
    }
}

/// What stands behind an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    None,
    Raw,
    SameClusters,
    OtherClusters,
    Shorter,
    Longer,
}

/// One kind of image.
#[derive(Clone, Copy)]
pub struct Case {
    number: usize,
    choices: Choices,
}

/// An image of a case, on disk.
pub struct Made {
    pub case: Case,
    pub image: String,
    /// What qemu-img reads in it.
    pub view: Vec<u8>,
    /// The same for its snapshot, called `one`.
    pub snapshot_view: Option<Vec<u8>>,
}

/// Makes the image of every case and hands each to `test`, on as many threads as there are cores.
pub fn for_every_image(test: impl Fn(&Scratch, &Made) + Sync) {
    let is_nightly = std::env::var_os("QIMG_NIGHTLY").is_some();
    let cases = cases(if is_nightly { 3 } else { 2 });
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let run = std::panic::AssertUnwindSafe(|| {
                        let scratch = Scratch::new();
                        test(&scratch, &case.make(&scratch));
                    });
                    if std::panic::catch_unwind(run).is_err() {
                        failed.lock().unwrap().push(*case);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{} of {} cases failed: {failed:#?}",
        failed.len(),
        cases.len()
    );
}

/// Cases in which all `strength` choices of different dimensions meet that can.
fn cases(strength: usize) -> Vec<Case> {
    let mut uncovered = BTreeSet::new();
    tuples(strength, &mut Vec::new(), &mut uncovered);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut cases = Vec::new();
    while let Some(first) = uncovered.first().cloned() {
        // The best of some: few cases, quickly found.
        let covered = |choices: &Choices| {
            let holds = |tuple: &&Vec<(usize, usize)>| {
                tuple.iter().all(|&(at, choice)| choices[at] == choice)
            };
            uncovered.iter().filter(holds).cloned().collect::<Vec<_>>()
        };
        let tries = if strength > 2 { 8 } else { 24 };
        let best = (0..tries)
            .map(|_| complete(&first, &mut random))
            .map(|choices| (covered(&choices), choices))
            .max_by_key(|(covered, _)| covered.len());
        let (covered, choices) = best.unwrap();
        for tuple in covered {
            uncovered.remove(&tuple);
        }
        cases.push(Case {
            number: cases.len(),
            choices,
        });
    }
    cases
}

fn tuples(
    strength: usize,
    tuple: &mut Vec<(usize, usize)>,
    all: &mut BTreeSet<Vec<(usize, usize)>>,
) {
    if tuple.len() == strength {
        all.insert(tuple.clone());
        return;
    }
    let from = tuple.last().map_or(0, |last| last.0 + 1);
    for (at, &count) in COUNTS.iter().enumerate().skip(from) {
        for choice in 0..count {
            if tuple.iter().all(|&other| !excludes(other, (at, choice))) {
                tuple.push((at, choice));
                tuples(strength, tuple, all);
                tuple.pop();
            }
        }
    }
}

/// A case that has the choices of `tuple`, and others at random.
fn complete(tuple: &[(usize, usize)], random: &mut Random) -> Choices {
    let mut made = tuple.to_vec();
    let mut left: Vec<usize> = (0..DIMENSIONS)
        .filter(|at| tuple.iter().all(|choice| choice.0 != *at))
        .collect();
    while !left.is_empty() {
        let at = left.swap_remove(random.below(left.len()));
        let start = random.below(COUNTS[at]);
        let choice = (0..COUNTS[at])
            .map(|step| (start + step) % COUNTS[at])
            .find(|&choice| made.iter().all(|&other| !excludes(other, (at, choice))));
        made.push((at, choice.unwrap()));
    }
    let mut choices = Choices::default();
    for (at, choice) in made {
        choices[at] = choice;
    }
    choices
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let choice = self.choices;
        write!(
            f,
            "{}: {} bytes a cluster, refcount_bits={}, compat={}, {}{}, data file {}, backing {:?}{}{}, \
             preallocation={}{}",
            self.number,
            self.cluster_size(),
            REFCOUNTS[choice[REFCOUNT]],
            ["1.1", "0.10"][choice[VERSION]],
            ["plain", "zlib", "zstd"][choice[CODEC]],
            ["", ", extended_l2"][choice[EXTENDED]],
            ["none", "plain", "raw"][choice[DATA_FILE]],
            self.backing(),
            ["", ", snapshot"][choice[SNAPSHOT]],
            ["", ", bitmaps"][choice[BITMAP]],
            PREALLOCATIONS[choice[SHAPE] / 2],
            ["", ", cut"][choice[SHAPE] % 2],
        )
    }
}

impl Case {
    /// Its place among all cases.
    pub fn number(&self) -> usize {
        self.number
    }

    pub fn cluster_size(&self) -> u64 {
        CLUSTERS[self.choices[CLUSTER]]
    }

    pub fn backing(&self) -> Backing {
        [
            Backing::None,
            Backing::Raw,
            Backing::SameClusters,
            Backing::OtherClusters,
            Backing::Shorter,
            Backing::Longer,
        ][self.choices[BACKING]]
    }

    pub fn has_snapshot(&self) -> bool {
        self.choices[SNAPSHOT] == 1
    }

    pub fn has_bitmaps(&self) -> bool {
        self.choices[BITMAP] == 1
    }

    /// The last cluster is cut where this is not 0.
    fn tail(&self) -> u64 {
        let is_cut = self.choices[SHAPE] % 2 == 1;
        if is_cut && self.cluster_size() > 512 {
            3 * 512
        } else {
            0
        }
    }

    fn clusters(&self) -> u64 {
        match self.cluster_size() {
            0..=4096 => 150,
            4097..=65536 => 24,
            _ => 13,
        }
    }

    fn options(&self, scratch: &Scratch) -> String {
        let version = ["1.1", "0.10"][self.choices[VERSION]];
        let mut options = format!(
            "cluster_size={},refcount_bits={},compat={version},preallocation={}",
            self.cluster_size(),
            REFCOUNTS[self.choices[REFCOUNT]],
            PREALLOCATIONS[self.choices[SHAPE] / 2]
        );
        if self.choices[CODEC] == 2 {
            options += ",compression_type=zstd";
        }
        if self.choices[EXTENDED] == 1 {
            options += ",extended_l2=on";
        }
        match self.choices[DATA_FILE] {
            0 => {}
            1 => options += &format!(",data_file={}", scratch.path("data")),
            _ => options += &format!(",data_file={},data_file_raw=on", scratch.path("data")),
        }
        options
    }

    /// Makes the image, and what stands behind it, in `scratch`.
    fn make(self, scratch: &Scratch) -> Made {
        let image = scratch.path("image.qcow2");
        let size = self.clusters() * self.cluster_size() + self.tail();
        let options = self.options(scratch);
        let size_text = size.to_string();
        let mut create = vec!["create", "-q", "-f", "qcow2", "-o", &options];
        if let Some(format) = self.make_backing(scratch, size) {
            create.extend(["-b", "base", "-F", format]);
        }
        create.extend([image.as_str(), &size_text]);
        qemu_img(&create);

        let patterns = Patterns::new(scratch, self.cluster_size(), self.number as u64);
        write(&image, &self.first_contents(&patterns));
        let mut snapshot_view = None;
        if self.has_snapshot() {
            qemu_img(&["snapshot", "-c", "one", &image]);
            let raw = scratch.path("snapshot.raw");
            qemu_img(&[
                "convert",
                "-l",
                "snapshot.name=one",
                "-O",
                "raw",
                &image,
                &raw,
            ]);
            snapshot_view = Some(std::fs::read(&raw).unwrap());
        }
        if self.has_bitmaps() {
            qemu_img(&["bitmap", "--add", "-g", "32768", &image, "recording"]);
            qemu_img(&["bitmap", "--add", "--disable", &image, "stopped"]);
        }
        write(&image, &self.later_contents(&patterns));
        let raw = scratch.path("view.raw");
        qemu_img(&["convert", "-f", "qcow2", "-O", "raw", &image, &raw]);
        let view = std::fs::read(&raw).unwrap();
        assert_eq!(view.len() as u64, size);
        Made {
            case: self,
            image,
            view,
            snapshot_view,
        }
    }

    fn make_backing(&self, scratch: &Scratch, size: u64) -> Option<&'static str> {
        let cluster = self.cluster_size();
        let other = if cluster == 1 << 16 { 4096 } else { 1 << 16 };
        let (format, cluster_size, length) = match self.backing() {
            Backing::None => return None,
            Backing::Raw => ("raw", 0, size),
            Backing::SameClusters => ("qcow2", cluster, size),
            Backing::OtherClusters => ("qcow2", other, size),
            // Ends within a cluster of the overlay, where that has more than one sector.
            Backing::Shorter => ("qcow2", cluster, 9 * cluster + 512),
            Backing::Longer => ("raw", 0, size + 3 * cluster),
        };
        let base = scratch.path("base");
        let options = format!("cluster_size={cluster_size}");
        let length_text = length.to_string();
        let mut create = vec!["create", "-q", "-f", format];
        if format == "qcow2" {
            create.extend(["-o", &options]);
        }
        create.extend([base.as_str(), &length_text]);
        qemu_img(&create);
        let mut random = Random(0xbac + self.number as u64);
        let mut bytes = vec![0; length as usize];
        let mut put = |from: u64, until: u64, contents: Vec<u8>| {
            let (from, until) = (from.min(length) as usize, until.min(length) as usize);
            bytes[from..until].copy_from_slice(&contents[..until - from]);
        };
        put(0, cluster, random.text(cluster as usize));
        put(5 * cluster, 9 * cluster, random.text(4 * cluster as usize));
        put(
            9 * cluster,
            11 * cluster,
            random.noise(2 * cluster as usize),
        );
        put(length - 512, length, random.text(512));
        let raw = scratch.path("base.raw");
        std::fs::write(&raw, bytes).unwrap();
        qemu_img(&["convert", "-n", "-f", "raw", "-O", format, &raw, &base]);
        Some(format)
    }

    /// qemu-io's commands for an image that may be kept in a snapshot.
    fn first_contents(&self, patterns: &Patterns) -> Vec<String> {
        let c = self.cluster_size();
        let piece = (c / 32).max(512).min(c);
        let compressed = if self.choices[CODEC] == 0 { "" } else { "-c " };
        let Patterns { text, other, noise } = patterns;
        let mut commands = vec![
            format!("write {compressed}-s {text} 0 {}", 3 * c),
            format!("write {compressed}-s {noise} {} {c}", 4 * c),
            format!("write -s {noise} {} {c}", 5 * c),
            format!("write -z {} {c}", 6 * c),
            format!("write -z -u {} {c}", 7 * c),
            format!("write -s {other} {} {c}", 8 * c),
            format!("discard {} {c}", 8 * c),
            format!("write -P 0 {} {c}", 9 * c),
            // Within one cluster, which may have subclusters.
            format!("write -s {other} {} {piece}", 10 * c),
            format!("write -P 0 {} {piece}", 10 * c + c / 4 / 512 * 512),
            format!("write -z {} {piece}", 10 * c + c / 2 / 512 * 512),
            // Twice the same.
            format!("write {compressed}-s {text} {} {c}", 11 * c),
            format!("write {compressed}-s {text} {} {c}", 12 * c),
        ];
        if self.tail() > 0 {
            let last = self.clusters() * c;
            commands.push(format!(
                "write {compressed}-s {other} {last} {}",
                self.tail()
            ));
        }
        if c <= 4096 {
            // Enough to need more than one L2 table of the smallest kind.
            commands.push(format!(
                "write {compressed}-s {other} {} {}",
                70 * c,
                40 * c
            ));
        }
        commands
    }

    /// What happens after the snapshot.
    fn later_contents(&self, patterns: &Patterns) -> Vec<String> {
        let c = self.cluster_size();
        let Patterns { other, noise, .. } = patterns;
        vec![
            format!("write -s {other} {} {}", c, c.min(8192)),
            format!("discard {} {c}", 2 * c),
            format!("write -s {noise} {} 512", 3 * c),
            format!("write -z {} 512", 5 * c),
        ]
    }
}

/// Files that qemu-io fills its writes from.
struct Patterns {
    text: String,
    other: String,
    noise: String,
}

impl Patterns {
    fn new(scratch: &Scratch, cluster: u64, seed: u64) -> Self {
        let mut random = Random(0x5eed + seed);
        let length = 3 * cluster as usize;
        let save = |name: &str, bytes: Vec<u8>| {
            std::fs::write(scratch.path(name), bytes).unwrap();
            scratch.path(name)
        };
        Self {
            text: save("text", random.text(length)),
            other: save("other", random.text(length)),
            noise: save("noise", random.noise(cluster as usize)),
        }
    }
}

/// Runs qemu-io, with discards that do something.
fn write(image: &str, commands: &[String]) {
    let mut io = Command::new("qemu-io");
    io.args(["-d", "unmap", "-f", "qcow2"]);
    for command in commands {
        io.args(["-c", command]);
    }
    let output = io
        .arg(image)
        .output()
        .expect("the oracle qemu-io is needed");
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = !output.status.success() || said.contains("failed") || said.contains("rror");
    assert!(!failed, "{commands:?}: {output:?}");
}
