//! Images whose disk becomes larger or smaller, or gets another table, in place: sound whenever that ends, and in
//! qemu-img's eyes what qemu-img would have made.

use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use qimg::ErrorKind;
use qimg::disk::{AddEspRequest, FatContent, GrowRequest, add_esp, grow};
use qimg::image::check::CheckOptions;
use qimg::image::{Depth, Format, Image, InPlace, OpenOptions};
use qimg::partition::Table;
use qimg::resize::{NewSize, ResizeRequest, resize};
use qimg::source::Source;
use qimg::store::{Change, Effect, Faulty, Memory, Operation, Recorder, WriteAt};

mod oracle;
mod patterns;

use oracle::{Scratch, qemu_img, qemu_io};
use patterns::Random;

const MIB: u64 = 1 << 20;

fn options(format: Format) -> OpenOptions {
    OpenOptions {
        format: Some(format),
        ..OpenOptions::default()
    }
}

fn to(size: u64) -> ResizeRequest {
    ResizeRequest {
        size: NewSize::To(size),
        shrink: true,
        threads: 2,
    }
}

fn must(directory: &str, tool: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap_or_else(|error| panic!("{tool} must be installed: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let more = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{tool} {arguments:?}: {text}{more}"
    );
    text
}

/// What is in the guest's disk, and whether the metadata is sound.
fn look(bytes: Vec<u8>, format: Format) -> (Vec<u8>, u64) {
    let store = Arc::new(Memory::from(bytes));
    let image = Image::from_store(store, "image", &options(format)).unwrap();
    let corruptions = if format == Format::Qcow2 {
        let never = AtomicBool::new(false);
        let options = CheckOptions {
            threads: 1,
            cancel: &never,
            progress: None,
        };
        let report = image.check(&options).unwrap();
        report.corruptions + report.check_errors
    } else {
        0
    };
    let chain = image.chain(Depth::Chain, None).unwrap();
    let mut guest = vec![0; usize::try_from(chain.virtual_size()).unwrap()];
    chain.reader().read_at(0, &mut guest).unwrap();
    (guest, corruptions)
}

fn table_of(bytes: &[u8], format: Format) -> Table {
    let store = Arc::new(Memory::from(bytes.to_vec()));
    let image = Image::from_store(store, "image", &options(format)).unwrap();
    let chain = image.chain(Depth::Chain, None).unwrap();
    qimg::partition::read(&qimg::volume::Volume::whole(&chain)).unwrap()
}

/// Does `work` to an image in memory.
fn in_memory<S: WriteAt + 'static>(
    store: S,
    format: Format,
    work: &dyn Fn(InPlace) -> qimg::Result<()>,
) -> (Arc<S>, qimg::Result<()>) {
    let store = Arc::new(store);
    let image = InPlace::from_store(
        Arc::clone(&store) as Arc<dyn WriteAt>,
        "image",
        &options(format),
    );
    let done = image.and_then(work);
    (store, done)
}

/// What a power failure may leave of `changes`, the last of which need not have reached the disk.
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

/// Ends `work` in every way and at every place; `assert_sound` looks at what is left.
fn crash_everywhere(
    bytes: &[u8],
    format: Format,
    work: &dyn Fn(InPlace) -> qimg::Result<()>,
    assert_sound: &dyn Fn(&[u8], &str),
) {
    let (store, done) = in_memory(Recorder::new(Memory::from(bytes.to_vec())), format, work);
    done.unwrap();
    let changes = store.changes();
    assert!(!changes.is_empty());
    let mut random = Random(7);
    let step = (changes.len() / 120).max(1);
    for ended in (0..=changes.len()).step_by(step) {
        let killed = Memory::from(bytes.to_vec());
        for change in &changes[..ended] {
            change.replay(&killed).unwrap();
        }
        assert_sound(&killed.to_vec(), &format!("killed at {ended}"));
        for _ in 0..2 {
            let disk = after_power_loss(bytes, &changes[..ended], &mut random);
            assert_sound(
                &disk,
                &format!("power lost at {ended} of {}", changes.len()),
            );
        }
    }
    for nth in (0..changes.len() as u64).step_by(step) {
        for effect in [Effect::Fail(5), Effect::Short(512, 28), Effect::Die(5)] {
            let store =
                Faulty::new(Memory::from(bytes.to_vec())).failing(Operation::Change, nth, effect);
            let (store, done) = in_memory(store, format, work);
            let error = done.expect_err("a change that fails must not pass");
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert!(error.path().is_some());
            assert_sound(&store.inner().to_vec(), &format!("{effect:?} at {nth}"));
        }
    }
}

const SHAPES: [(&str, u64); 7] = [
    ("cluster_size=64k", 3 * MIB),
    ("cluster_size=512", MIB),
    ("cluster_size=512,refcount_bits=64", MIB),
    ("cluster_size=512,refcount_bits=1", MIB),
    ("cluster_size=4k,extended_l2=off,compat=0.10", 2 * MIB + 512),
    ("cluster_size=16k,extended_l2=on", 2 * MIB + 1536),
    ("cluster_size=2M,compression_type=zstd", 5 * MIB),
];

/// An image with data, zeros and holes; `name` in `scratch`.
fn make(scratch: &Scratch, name: &str, shape: &str, size: u64, compressed: bool) -> String {
    let path = scratch.path(name);
    let raw = scratch.path("made.raw");
    let mut random = Random(3);
    let mut disk = vec![0; usize::try_from(size).unwrap()];
    for piece in disk.chunks_mut(20_000) {
        if random.below(2) == 0 {
            piece.copy_from_slice(&random.text(piece.len()));
        }
    }
    // Bytes in the last cluster, which is whole in few of the shapes.
    let last = disk.len() - 512;
    disk[last..].fill(7);
    std::fs::write(&raw, disk).unwrap();
    let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", shape];
    if compressed {
        arguments.push("-c");
    }
    arguments.extend([raw.as_str(), path.as_str()]);
    qemu_img(&arguments);
    path
}

fn virtual_size(path: &str) -> u64 {
    let text = qemu_img(&["info", "--output", "json", path]);
    let info: serde_json::Value = serde_json::from_str(&text).unwrap();
    info["virtual-size"].as_u64().unwrap()
}

#[test]
fn grown_and_shrunk_images_are_what_qemu_img_makes() {
    let scratch = Scratch::new();
    for (number, (shape, size)) in SHAPES.into_iter().enumerate() {
        let path = make(&scratch, "image", shape, size, number % 2 == 1);
        let theirs = scratch.path("theirs");
        std::fs::copy(&path, &theirs).unwrap();
        let far = if shape.contains("512") {
            100 * MIB
        } else {
            20 << 30
        };
        for new in [size + 512, 7 * MIB, far, 40 * MIB, MIB + 512, 512, 3 * MIB] {
            let image = InPlace::open(&path, &options(Format::Qcow2)).unwrap();
            let before = image.image().virtual_size().unwrap();
            let resized = resize(image, &to(new), &AtomicBool::new(false)).unwrap();
            assert_eq!(
                (resized.virtual_size_before, resized.virtual_size),
                (before, new)
            );
            qemu_img(&["check", "-q", "-f", "qcow2", &path]);
            assert_eq!(virtual_size(&path), new);
            qemu_img(&[
                "resize",
                "-q",
                "--shrink",
                "-f",
                "qcow2",
                &theirs,
                &new.to_string(),
            ]);
            // qemu-img leaves what was in the last cluster, and shows it again: that is compared as long as it shrinks
            // no cluster in the middle.
            if new != 3 * MIB {
                let said = qemu_img(&["compare", &path, &theirs]);
                assert!(said.contains("identical"), "{shape} {new}: {said}");
            }
        }
        let view = scratch.path("view");
        qemu_img(&["convert", "-f", "qcow2", "-O", "raw", &path, &view]);
        let view = std::fs::read(&view).unwrap();
        assert!(view[512..].iter().all(|&byte| byte == 0), "{shape}");
        // It goes on living.
        qemu_io("qcow2", &path, &["write -P 5 1M 1M", "write -P 6 2M 512"]);
        qemu_img(&["check", "-q", "-f", "qcow2", &path]);
    }
}

#[test]
fn whenever_growing_ends_the_image_is_sound() {
    let scratch = Scratch::new();
    for (shape, size, new) in [
        ("cluster_size=512", MIB, 40 * MIB),
        ("cluster_size=512,refcount_bits=64", MIB, 48 * MIB),
        ("cluster_size=4k,compat=0.10", 2 * MIB + 512, 40 * MIB),
        ("cluster_size=16k,extended_l2=on", 2 * MIB + 1536, 600 * MIB),
    ] {
        for compressed in [false, true] {
            let path = make(&scratch, "image", shape, size, compressed);
            let bytes = std::fs::read(&path).unwrap();
            let (before, _) = look(bytes.clone(), Format::Qcow2);
            let work = |image| resize(image, &to(new), &AtomicBool::new(false)).map(drop);
            crash_everywhere(&bytes, Format::Qcow2, &work, &|now, what| {
                let (guest, corruptions) = look_start(now.to_vec(), before.len());
                assert_eq!(corruptions, 0, "{shape}: {what}");
                assert!(guest == before, "{shape}: {what}");
            });
        }
    }
}

/// As [`look`], of the start of the disk alone.
fn look_start(bytes: Vec<u8>, length: usize) -> (Vec<u8>, u64) {
    let store = Arc::new(Memory::from(bytes));
    let image = Image::from_store(store, "image", &options(Format::Qcow2)).unwrap();
    let never = AtomicBool::new(false);
    let check = CheckOptions {
        threads: 1,
        cancel: &never,
        progress: None,
    };
    let report = image.check(&check).unwrap();
    let chain = image.chain(Depth::Chain, None).unwrap();
    let mut guest = vec![0; length];
    chain.reader().read_at(0, &mut guest).unwrap();
    (guest, report.corruptions + report.check_errors)
}

#[test]
fn whenever_shrinking_ends_the_image_is_sound() {
    let scratch = Scratch::new();
    for (shape, size) in SHAPES {
        if shape.contains("512,") {
            continue;
        }
        let path = make(&scratch, "image", shape, size, false);
        let bytes = std::fs::read(&path).unwrap();
        let new = 700 * 1024 + 512;
        let (before, _) = look(bytes.clone(), Format::Qcow2);
        let work = |image| resize(image, &to(new), &AtomicBool::new(false)).map(drop);
        crash_everywhere(&bytes, Format::Qcow2, &work, &|now, what| {
            let (guest, corruptions) = look_start(now.to_vec(), usize::try_from(new).unwrap());
            assert_eq!(corruptions, 0, "{shape}: {what}");
            assert!(guest[..] == before[..guest.len()], "{shape}: {what}");
        });
    }
}

#[test]
fn what_would_be_lost_is_asked_for() {
    let scratch = Scratch::new();
    let open = |path: &str, format| InPlace::open(path, &options(format)).unwrap();
    let never = AtomicBool::new(false);
    let path = scratch.path("image");
    scratch.create("image", &["-f", "qcow2"], "64M");
    let no = ResizeRequest {
        shrink: false,
        ..to(MIB)
    };
    let error = resize(open(&path, Format::Qcow2), &no, &never).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.remedy().unwrap().contains("--shrink"));
    for bad in [0, 513] {
        let error = resize(open(&path, Format::Qcow2), &to(bad), &never).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
    }
    // A snapshot is of the old size; a bitmap would have to grow.
    qemu_img(&["snapshot", "-c", "one", &path]);
    assert!(resize(open(&path, Format::Qcow2), &to(MIB), &never).is_err());
    resize(open(&path, Format::Qcow2), &to(2 << 40), &never).unwrap();
    qemu_img(&["check", "-q", &path]);
    qemu_img(&["snapshot", "-a", "one", &path]);
    assert_eq!(virtual_size(&path), 64 * MIB);
    scratch.create("image", &["-f", "qcow2"], "64M");
    qemu_img(&["bitmap", "--add", &path, "b"]);
    assert!(resize(open(&path, Format::Qcow2), &to(2 << 30), &never).is_err());
    scratch.create("image", &["-f", "qcow2", "-o", "compat=0.10"], "64M");
    qemu_img(&["snapshot", "-c", "one", &path]);
    assert!(resize(open(&path, Format::Qcow2), &to(2 << 30), &never).is_err());
    // Partitions and filesystems.
    let raw = scratch.path("raw");
    std::fs::write(&raw, []).unwrap();
    must(scratch.directory(), "truncate", &["-s", "64M", "raw"]);
    must(scratch.directory(), "sgdisk", &["-n", "1:2048:+20M", "raw"]);
    let error = resize(open(&raw, Format::Raw), &to(20 * MIB), &never).unwrap_err();
    assert!(error.to_string().contains("partition 1"), "{error}");
    let done = resize(open(&raw, Format::Raw), &to(30 * MIB), &never).unwrap();
    assert_eq!(done.notes.len(), 1, "{done:?}");
    assert_eq!(std::fs::metadata(&raw).unwrap().len(), 30 * MIB);
    must(scratch.directory(), "truncate", &["-s", "0", "raw"]);
    must(scratch.directory(), "mke2fs", &["-q", "raw", "40M"]);
    let error = resize(open(&raw, Format::Raw), &to(39 * MIB), &never).unwrap_err();
    assert!(error.to_string().contains("ext2"), "{error}");
    resize(open(&raw, Format::Raw), &to(41 * MIB), &never).unwrap();
    must(scratch.directory(), "e2fsck", &["-fn", "raw"]);
    // A backing file that is longer would show through.
    scratch.create("base", &["-f", "raw"], "10M");
    scratch.create("over", &["-f", "qcow2", "-b", "base", "-F", "raw"], "5M");
    let over = scratch.path("over");
    assert!(resize(open_beside(&over), &to(20 * MIB), &never).is_err());
    scratch.create("over", &["-f", "qcow2", "-b", "base", "-F", "raw"], "10M");
    resize(open_beside(&over), &to(20 * MIB), &never).unwrap();
    qemu_img(&["check", "-q", &over]);
}

fn open_beside(path: &str) -> InPlace {
    let options = OpenOptions {
        backing: qimg::image::BackingPolicy::Beside,
        ..options(Format::Qcow2)
    };
    InPlace::open(path, &options).unwrap()
}

/// A disk with a GPT, in raw form: a root partition with noise in it, `room` bytes behind it.
fn bios_disk(scratch: &Scratch, room: u64) -> Vec<u8> {
    let raw = scratch.path("disk.raw");
    std::fs::write(&raw, []).unwrap();
    let size = (6 * MIB + room).to_string();
    must(scratch.directory(), "truncate", &["-s", &size, "disk.raw"]);
    must(
        scratch.directory(),
        "sgdisk",
        &[
            "-n",
            "14:2048:+1M",
            "-t",
            "14:ef02",
            "-n",
            "1:4096:+3M",
            "-c",
            "1:root",
            "disk.raw",
        ],
    );
    let mut bytes = std::fs::read(&raw).unwrap();
    let noise = Random(5).noise(3 << 20);
    bytes[2 << 20..5 << 20].copy_from_slice(&noise);
    std::fs::write(&raw, &bytes).unwrap();
    bytes
}

fn growing(size: NewSize, grow_last: bool) -> GrowRequest {
    GrowRequest {
        size,
        grow_last,
        alignment: MIB,
        threads: 1,
    }
}

/// The image as qcow2 with clusters of a size, or as it is.
fn variants(scratch: &Scratch) -> Vec<(String, Format)> {
    let mut made = vec![(scratch.path("disk.raw"), Format::Raw)];
    for (number, (options, compress)) in [
        ("cluster_size=64k", false),
        ("cluster_size=64k", true),
        ("cluster_size=512,refcount_bits=64", false),
        ("cluster_size=16k,extended_l2=on", false),
        ("cluster_size=4k,compat=0.10", true),
    ]
    .into_iter()
    .enumerate()
    {
        let path = scratch.path(&format!("disk{number}.qcow2"));
        let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
        if compress {
            arguments.push("-c");
        }
        let raw = scratch.path("disk.raw");
        arguments.extend([raw.as_str(), path.as_str()]);
        qemu_img(&arguments);
        made.push((path, Format::Qcow2));
    }
    made
}

fn verify_table(scratch: &Scratch, path: &str) {
    let view = scratch.path("view.raw");
    qemu_img(&["convert", "-O", "raw", path, &view]);
    let said = must(scratch.directory(), "sgdisk", &["-v", "view.raw"]);
    assert!(said.contains("No problems found"), "{said}");
}

#[test]
fn a_grown_disk_has_its_table_at_its_new_end() {
    let scratch = Scratch::new();
    let before = bios_disk(&scratch, 0);
    for (path, format) in variants(&scratch) {
        for (size, grow_last) in [
            (NewSize::More(0), false),
            (NewSize::More(512), false),
            (NewSize::More(10 << 10), false),
            (NewSize::To(50 * MIB), false),
            (NewSize::More(30 * MIB), true),
        ] {
            let image = InPlace::open(&path, &options(format)).unwrap();
            let grown = grow(image, &growing(size, grow_last), &AtomicBool::new(false)).unwrap();
            assert_eq!(grown.grown.is_some(), grow_last);
            if format == Format::Qcow2 {
                qemu_img(&["check", "-q", &path]);
            }
            verify_table(&scratch, &path);
        }
        let view = std::fs::read(scratch.path("view.raw")).unwrap();
        assert!(view[1 << 20..5 << 20] == before[1 << 20..5 << 20]);
        let table = table_of(&view, Format::Raw);
        assert!(
            table.notes.is_empty() && table.damaged.is_none(),
            "{table:?}"
        );
        let root = &table.partitions[0];
        assert_eq!((root.number, root.range.clone()), (1, 2 * MIB..79 * MIB));
    }
}

/// The first copy or the one at the end of the disk tells of the partitions.
fn assert_partitions(now: &[u8], format: Format, ranges: &[&[Range<u64>]], what: &str) {
    let table = table_of(now, format);
    let found: Vec<Range<u64>> = table
        .partitions
        .iter()
        .map(|partition| partition.range.clone())
        .collect();
    assert!(ranges.contains(&&found[..]), "{what}: {table:?}");
}

#[test]
fn whenever_growing_a_disk_ends_one_table_is_whole() {
    let scratch = Scratch::new();
    let before = bios_disk(&scratch, 0);
    for (path, format) in variants(&scratch) {
        let bytes = std::fs::read(&path).unwrap();
        let request = growing(NewSize::To(16 * MIB), true);
        let work = |image| grow(image, &request, &AtomicBool::new(false)).map(drop);
        crash_everywhere(&bytes, format, &work, &|now, what| {
            let (guest, corruptions) = look(now.to_vec(), format);
            assert_eq!(corruptions, 0, "{path} {what}");
            assert!(
                guest[1 << 20..5 << 20] == before[1 << 20..5 << 20],
                "{path} {what}"
            );
            let old = [2 * MIB..5 * MIB, MIB..2 * MIB];
            let new = [2 * MIB..15 * MIB, MIB..2 * MIB];
            assert_partitions(now, format, &[&old, &new], what);
            // Running it again finishes what was begun.
            let (store, done) = in_memory(Memory::from(now.to_vec()), format, &work);
            done.unwrap();
            let table = table_of(&store.to_vec(), format);
            assert!(
                table.notes.is_empty() && table.damaged.is_none(),
                "{what}: {table:?}"
            );
        });
    }
}

fn esp(scratch: &Scratch, room: Option<NewSize>) -> AddEspRequest {
    let file = scratch.path("BOOTX64.EFI");
    std::fs::write(&file, Random(8).noise(300_000)).unwrap();
    AddEspRequest {
        content: FatContent {
            files: vec![("EFI/BOOT/BOOTX64.EFI".to_owned(), file.into())],
            label: Some("ESP".to_owned()),
            ..FatContent::default()
        },
        size: None,
        number: Some(15),
        name: "EFI system".to_owned(),
        grow: room,
        alignment: MIB,
        threads: 1,
    }
}

#[test]
fn a_disk_takes_on_an_esp() {
    let scratch = Scratch::new();
    let before = bios_disk(&scratch, 4 * MIB);
    let request = esp(&scratch, None);
    for (path, format) in variants(&scratch) {
        let image = InPlace::open(&path, &options(format)).unwrap();
        let added = add_esp(image, &request, &AtomicBool::new(false)).unwrap();
        assert_eq!(added.partition.range, 5 * MIB..6 * MIB);
        if format == Format::Qcow2 {
            qemu_img(&["check", "-q", &path]);
        }
        verify_table(&scratch, &path);
        let view = std::fs::read(scratch.path("view.raw")).unwrap();
        assert!(view[1 << 20..5 << 20] == before[1 << 20..5 << 20]);
        std::fs::write(scratch.path("esp"), &view[5 << 20..6 << 20]).unwrap();
        must(scratch.directory(), "fsck.fat", &["-n", "esp"]);
        must(
            scratch.directory(),
            "mcopy",
            &["-n", "-i", "esp", "::EFI/BOOT/BOOTX64.EFI", "out"],
        );
        must(scratch.directory(), "cmp", &["out", "BOOTX64.EFI"]);
        let image = InPlace::open(&path, &options(format)).unwrap();
        let error = add_esp(image, &request, &AtomicBool::new(false)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
    }
    bios_disk(&scratch, 0);
    let path = scratch.path("disk.raw");
    let image = InPlace::open(&path, &options(Format::Raw)).unwrap();
    let error = add_esp(image, &request, &AtomicBool::new(false)).unwrap_err();
    assert!(error.remedy().unwrap().contains("--grow"), "{error}");
    let image = InPlace::open(&path, &options(Format::Raw)).unwrap();
    let request = esp(&scratch, Some(NewSize::More(40 * MIB)));
    let request = AddEspRequest {
        size: Some(40 * MIB),
        ..request
    };
    let added = add_esp(image, &request, &AtomicBool::new(false)).unwrap();
    assert_eq!(added.filesystem.kind, "FAT32");
    verify_table(&scratch, &path);
}

#[test]
fn whenever_adding_an_esp_ends_the_disk_is_what_it_was_or_has_it() {
    let scratch = Scratch::new();
    let before = bios_disk(&scratch, 4 * MIB);
    let request = esp(&scratch, None);
    for (path, format) in variants(&scratch) {
        let bytes = std::fs::read(&path).unwrap();
        let work = |image| add_esp(image, &request, &AtomicBool::new(false)).map(drop);
        crash_everywhere(&bytes, format, &work, &|now, what| {
            let (guest, corruptions) = look(now.to_vec(), format);
            assert_eq!(corruptions, 0, "{path} {what}");
            assert!(
                guest[1 << 20..5 << 20] == before[1 << 20..5 << 20],
                "{path} {what}"
            );
            let old = [2 * MIB..5 * MIB, MIB..2 * MIB];
            let new = [2 * MIB..5 * MIB, MIB..2 * MIB, 5 * MIB..6 * MIB];
            assert_partitions(now, format, &[&old, &new], what);
        });
    }
}

#[test]
fn an_image_in_use_is_left_alone() {
    let scratch = Scratch::new();
    bios_disk(&scratch, 0);
    let path = scratch.path("disk.raw");
    let _held = InPlace::open(&path, &options(Format::Raw)).unwrap();
    let error = InPlace::open(Path::new(&path), &options(Format::Raw)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
}
