//! Disks that are made of parts: sound to sgdisk, sfdisk and fsck.fat, filled with what was asked for.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;

use qimg::ErrorKind;
use qimg::codec::{CompressionType, DeflateWindow, EncoderOptions};
use qimg::disk::{
    Content, CreateRequest, Created, Description, ImageContent, PartDescription, PartSize, create,
};
use qimg::image::options::Qcow2Options;
use qimg::image::{Format, OpenOptions, TargetOptions};
use qimg::store::{Locking, Sync};
use serde_json::Value;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// Runs a tool that must be there, in `directory`.
fn run(directory: &Path, tool: &str, arguments: &[&str]) -> Output {
    Command::new(tool)
        .args(arguments)
        .current_dir(directory)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap_or_else(|error| panic!("{tool} must be installed: {error}"))
}

/// As [`run`]; it must succeed, and what it printed comes back.
fn must(directory: &Path, tool: &str, arguments: &[&str]) -> String {
    let output = run(directory, tool, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let more = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{tool} {arguments:?}: {text}{more}"
    );
    text
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn must(&self, tool: &str, arguments: &[&str]) -> String {
        must(self.0.path(), tool, arguments)
    }

    fn describe(&self, text: &str) -> qimg::Result<Description> {
        Description::parse(text, self.0.path())
    }

    fn create(&self, text: &str, name: &str, format: Format, threads: usize) -> Created {
        let description = self.describe(text).unwrap();
        make(&description, &self.at(name), format, None, threads).unwrap()
    }

    /// Both foreign readers of tables have nothing to say against it.
    fn verify(&self, raw: &str) -> Value {
        let text = self.must("sgdisk", &["-v", raw]);
        assert!(text.contains("No problems found"), "{text}");
        serde_json::from_str(&self.must("sfdisk", &["--json", raw])).unwrap()
    }
}

fn make(
    description: &Description,
    destination: &Path,
    format: Format,
    encoding: Option<EncoderOptions>,
    threads: usize,
) -> qimg::Result<Created> {
    let target = TargetOptions {
        format,
        qcow2: Qcow2Options::default(),
        existing: false,
        sync: Sync::None,
        locking: Locking::Check,
    };
    make_as(target, description, destination, encoding, threads)
}

/// As [`make`], into what is there.
fn make_into(
    description: &Description,
    destination: &Path,
    format: Format,
) -> qimg::Result<Created> {
    let target = TargetOptions {
        format,
        qcow2: Qcow2Options::default(),
        existing: true,
        sync: Sync::None,
        locking: Locking::Check,
    };
    make_as(target, description, destination, None, 2)
}

fn make_as(
    target: TargetOptions,
    description: &Description,
    destination: &Path,
    encoding: Option<EncoderOptions>,
    threads: usize,
) -> qimg::Result<Created> {
    let request = CreateRequest {
        description,
        destination,
        target,
        encoding,
        open: OpenOptions::default(),
        sparse: 4096,
        threads,
    };
    create(&request, &AtomicBool::new(false), &mut |_, _| {})
}

const WHOLE: &str = r#"
size = "300M"
seed = "one"

[[partition]]
type = "bios-boot"
size = "1M"

[[partition]]
type = "esp"
size = "40M"
files = "efi"
copy = { "EFI/debian/grub.cfg" = "grub.cfg" }

[[partition]]
type = "root-x86-64"
name = "root"
number = 7
image = "root.img"
format = "raw"
size = "rest"
attributes = ["grow", "read-only"]

[[partition]]
type = "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"
uuid = "11111111-2222-3333-4444-555555555555"
size = "3M"
"#;

/// Parts that [`WHOLE`] needs.
fn parts() -> Bench {
    let bench = Bench::new();
    bench.write("efi/EFI/BOOT/BOOTX64.EFI", &noise(700_000, 1));
    bench.write("efi/loader/entries/debian.conf", b"title Debian\n");
    bench.write("grub.cfg", b"set timeout=0\n");
    bench.write("root/etc/hostname", b"made\n");
    bench.write("root/data", &noise(3_000_000, 2));
    bench.must(
        "mke2fs",
        &["-q", "-t", "ext4", "-d", "root", "root.img", "50M"],
    );
    bench
}

#[test]
fn a_disk_of_all_kinds_of_parts_is_sound() {
    let bench = parts();
    let created = bench.create(WHOLE, "disk", Format::Raw, 2);
    assert_eq!(created.virtual_size, 300 * MIB);
    let table = &bench.verify("disk")["partitiontable"];
    assert_eq!(table["id"].as_str().unwrap().to_lowercase(), created.uuid);
    let found: Vec<(u64, u64, &str)> = table["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| {
            let number = |key: &str| part[key].as_u64().unwrap() * 512;
            let name = part["name"].as_str().unwrap();
            (number("start"), number("size"), name)
        })
        .collect();
    assert_eq!(
        found,
        [
            (MIB, MIB, "BIOS boot"),
            (2 * MIB, 40 * MIB, "EFI system"),
            (296 * MIB, 3 * MIB, "Linux swap"),
            (42 * MIB, 254 * MIB, "root"),
        ]
    );
    let attributes = |number: &str| {
        let text = bench.must("sgdisk", &["-i", number, "disk"]);
        let line = text
            .lines()
            .find(|line| line.starts_with("Attribute flags"));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(attributes("7"), "1800000000000000");
    assert_eq!(attributes("1"), "0000000000000000");
    let partx = bench.must("partx", &["-b", "-g", "-o", "NR,SECTORS,UUID", "disk"]);
    assert_eq!(partx.lines().count(), 4, "{partx}");
    assert!(partx.contains("11111111-2222-3333-4444-555555555555"));
    // What is in them.
    let esp = format!("disk@@{}", 2 * MIB);
    bench.must("mcopy", &["-i", &esp, "-s", "-Q", "::*", "."]);
    assert!(std::fs::read(bench.at("EFI/BOOT/BOOTX64.EFI")).unwrap() == noise(700_000, 1));
    assert_eq!(
        std::fs::read(bench.at("EFI/debian/grub.cfg")).unwrap(),
        b"set timeout=0\n"
    );
    bench.must(
        "dd",
        &[
            "if=disk",
            "of=esp",
            "bs=1M",
            "skip=2",
            "count=40",
            "status=none",
        ],
    );
    bench.must("fsck.fat", &["-n", "esp"]);
    bench.must(
        "dd",
        &[
            "if=disk",
            "of=ext4",
            "bs=1M",
            "skip=42",
            "count=50",
            "status=none",
        ],
    );
    bench.must("cmp", &["ext4", "root.img"]);
    bench.must("e2fsck", &["-fn", "ext4"]);
    let blkid = bench.must("blkid", &["-p", "-o", "export", "esp"]);
    assert!(blkid.contains("LABEL=ESP"), "{blkid}");
    let [esp] = &created.filesystems[..] else {
        panic!()
    };
    assert!(
        blkid.contains(&format!("UUID={}", esp.uuid)),
        "{blkid} {}",
        esp.uuid
    );
    assert_eq!((esp.partition, esp.kind.as_str()), (2, "FAT32"));
}

#[test]
fn the_bytes_are_the_same_on_any_number_of_threads_and_in_any_format() {
    let bench = parts();
    bench.create(WHOLE, "1", Format::Raw, 1);
    for threads in [2, 8] {
        let name = threads.to_string();
        bench.create(WHOLE, &name, Format::Raw, threads);
        bench.must("cmp", &["1", &name]);
    }
    for (codec, name) in [
        (CompressionType::Zlib, "zlib"),
        (CompressionType::Zstd, "zstd"),
    ] {
        let encoding = EncoderOptions {
            codec,
            level: None,
            window: DeflateWindow::default(),
        };
        let description = bench.describe(WHOLE).unwrap();
        let mut digests = Vec::new();
        for threads in [1, 8] {
            let at = bench.at(name);
            let request_codec = Some(encoding);
            let request = CreateRequest {
                description: &description,
                destination: &at,
                target: TargetOptions {
                    format: Format::Qcow2,
                    qcow2: Qcow2Options {
                        compression_type: codec,
                        ..Qcow2Options::default()
                    },
                    existing: false,
                    sync: Sync::None,
                    locking: Locking::Check,
                },
                encoding: request_codec,
                open: OpenOptions::default(),
                sparse: 4096,
                threads,
            };
            create(&request, &AtomicBool::new(false), &mut |_, _| {}).unwrap();
            digests.push(crc32fast::hash(&std::fs::read(&at).unwrap()));
        }
        assert_eq!(digests[0], digests[1]);
        bench.must("qemu-img", &["check", "-q", name]);
        bench.must(
            "qemu-img",
            &["compare", "-q", "-f", "raw", "-F", "qcow2", "1", name],
        );
    }
    bench.create(WHOLE, "plain", Format::Qcow2, 2);
    bench.must(
        "qemu-img",
        &["compare", "-q", "-f", "raw", "-F", "qcow2", "1", "plain"],
    );
    // A root in any format is the same root.
    bench.must(
        "qemu-img",
        &["convert", "-c", "-O", "qcow2", "root.img", "root.qcow2"],
    );
    let text = WHOLE
        .replace("root.img", "root.qcow2")
        .replace("format = \"raw\"", "format = \"qcow2\"");
    bench.create(&text, "from-qcow2", Format::Raw, 2);
    bench.must("cmp", &["1", "from-qcow2"]);
}

/// A change of these is one of the bytes that users get: it belongs into the changelog's "Image bytes".
#[test]
fn the_bytes_of_a_disk_are_those_of_the_last_release() {
    let bench = parts();
    let mut digests = Vec::new();
    for sector in [512, 4096] {
        let text = format!(
            "seed = \"golden\"\nsize = \"64M\"\nsector-size = {sector}\n\
             [[partition]]\ntype = \"bios-boot\"\nsize = \"1M\"\n\
             [[partition]]\ntype = \"esp\"\nsize = \"40M\"\nfiles = \"efi\"\n\
             [[partition]]\ntype = \"root-x86-64\"\nsize = \"rest\"\n"
        );
        bench.create(&text, "golden", Format::Raw, 2);
        let bytes = std::fs::read(bench.at("golden")).unwrap();
        digests.push(format!("{:08x}", crc32fast::hash(&bytes)));
    }
    assert_eq!(digests, ["a4a658ee", "95fcc200"]);
}

#[test]
fn guids_come_from_the_seed_or_from_what_the_table_says() {
    let bench = parts();
    let one = bench.create(WHOLE, "one", Format::Raw, 2);
    let other = bench.create(
        &WHOLE.replace("\"one\"", "\"other\""),
        "other",
        Format::Raw,
        2,
    );
    assert_ne!(one.uuid, other.uuid);
    assert_ne!(one.partitions[0].uuid, other.partitions[0].uuid);
    assert_eq!(one.partitions[2].uuid, other.partitions[2].uuid);
    assert_ne!(one.filesystems[0].uuid, other.filesystems[0].uuid);
    let unseeded = WHOLE.replace("seed = \"one\"", "");
    let first = bench.create(&unseeded, "first", Format::Raw, 2);
    let second = bench.create(&unseeded, "second", Format::Raw, 2);
    assert_eq!(first, second);
    let third = bench.create(
        &unseeded.replace("\"root\"", "\"toor\""),
        "third",
        Format::Raw,
        2,
    );
    assert_ne!(first.uuid, third.uuid);
}

#[test]
fn sizes_are_minimal_unless_they_are_given() {
    let bench = parts();
    for (sector_size, alignment) in [(512, "1M"), (512, "512"), (4096, "4k"), (4096, "1M")] {
        let text = format!(
            "sector-size = {sector_size}\nalignment = \"{alignment}\"\n\
             [[partition]]\ntype = \"esp\"\nfiles = \"efi\"\n\
             [[partition]]\ntype = \"linux\"\nimage = \"root.img\"\n\
             [[partition]]\ntype = \"bios\"\n"
        );
        let created = bench.create(&text, "disk", Format::Raw, 2);
        assert!(created.virtual_size < 55 * MIB, "{created:?}");
        if sector_size == 512 {
            bench.verify("disk");
        }
        assert_eq!(created.sector_size, sector_size);
        let table = read_table(&bench.at("disk"));
        assert!(
            table.damaged.is_none() && table.notes.is_empty(),
            "{table:?}"
        );
        assert_eq!(table.sector_size, sector_size);
        assert_eq!(table.partitions, created.partitions);
        let esp = &created.partitions[0];
        let skip = format!("skip={}", esp.range.start);
        let count = format!("count={}", esp.size());
        let flags = "iflag=skip_bytes,count_bytes";
        bench.must(
            "dd",
            &[
                "if=disk",
                "of=esp",
                "bs=64k",
                &skip,
                &count,
                flags,
                "status=none",
            ],
        );
        bench.must("fsck.fat", &["-n", "esp"]);
        let listing = bench.must("mdir", &["-i", "esp", "-b", "-s", "::"]);
        assert!(listing.contains("BOOTX64.EFI"), "{listing}");
    }
}

fn read_table(path: &Path) -> qimg::partition::Table {
    let options = OpenOptions {
        format: Some(Format::Raw),
        ..OpenOptions::default()
    };
    let image = qimg::image::Image::open(path, &options).unwrap();
    let chain = image.chain(qimg::image::Depth::Chain, None).unwrap();
    qimg::partition::read(&qimg::volume::Volume::whole(&chain)).unwrap()
}

#[test]
fn a_disk_of_more_than_two_tebibytes_takes_the_space_of_its_parts() {
    let bench = parts();
    let text = WHOLE.replace("\"300M\"", "\"3T\"");
    for format in [Format::Raw, Format::Qcow2] {
        let created = bench.create(&text, "disk", format, 2);
        assert_eq!(created.virtual_size, 3 << 40);
        assert!(created.disk_size < 60 * MIB, "{created:?}");
        if format == Format::Raw {
            bench.verify("disk");
        }
    }
}

#[test]
fn bad_descriptions_are_one_line_with_a_place_and_a_remedy() {
    let bench = parts();
    let part = "[[partition]]\ntype = \"esp\"\n";
    for (text, needles) in [
        ("size = \"x\"\n", vec!["line 1", "size", "'x'"]),
        ("\nsize = [\n", vec!["line"]),
        ("sector-size = 1000\n", vec!["line 1", "sector-size"]),
        ("alignment = \"3M\"\n", vec!["line 1", "alignment"]),
        ("colour = 1\n", vec!["line 1", "colour"]),
        ("[[partition]]\nsize = 1\n", vec!["line 1", "type"]),
        (
            "[[partition]]\n\ntype = \"rooot\"\n",
            vec!["line 3", "type", "rooot"],
        ),
        (
            &format!("{part}size = \"big\"\n"),
            vec!["line 3", "size", "big"],
        ),
        (
            &format!("{part}files = \"nowhere\"\n"),
            vec!["line 3", "files", "nowhere"],
        ),
        (
            &format!("{part}copy = {{ a = \"nowhere\" }}\n"),
            vec!["copy", "nowhere"],
        ),
        (&format!("{part}uuid = \"1\"\n"), vec!["line 3", "uuid"]),
        (
            &format!("{part}attributes = [\"x\"]\n"),
            vec!["line 3", "attributes", "'x'"],
        ),
        (
            &format!("{part}image = \"root.img\"\nlabel = \"x\"\n"),
            vec!["line 1", "image"],
        ),
        (
            &format!("{part}fat = \"ntfs\"\n"),
            vec!["line 3", "fat", "ntfs"],
        ),
        (
            &format!("{part}format = \"raw\"\n"),
            vec!["line 1", "format"],
        ),
    ] {
        let error = bench.describe(text).unwrap_err();
        let message = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Usage, "{message}");
        assert!(!message.contains('\n'), "{message}");
        for needle in needles {
            assert!(message.contains(needle), "{needle} is not in: {message}");
        }
    }
    bench.write("efi/a:b", b"");
    let rest = format!("{part}size = \"rest\"\n");
    for (text, needle) in [
        (format!("{rest}{rest}"), "rest"),
        (format!("size = \"10M\"\n{part}size = \"20M\"\n"), "need"),
        (format!("{part}size = \"1000\"\n"), "1000"),
        (format!("{part}size = \"4k\"\n"), "FAT"),
        (format!("{part}files = \"efi\"\n"), "a:b"),
        (format!("{part}name = \"{}\"\n", "n".repeat(37)), "36"),
        (format!("{part}number = 200\n"), "200"),
        (format!("{part}number = 2\n{part}number = 2\n"), "number"),
        (format!("{part}label = \"a/b\"\n"), "a/b"),
        (
            "[[partition]]\ntype = \"linux\"\nimage = \"root.img\"\nsize = \"20M\"\n".to_owned(),
            "larger",
        ),
        ("size = \"8k\"\n".to_owned(), "larger"),
    ] {
        let description = bench.describe(&text).unwrap();
        let error = make(&description, &bench.at("out"), Format::Raw, None, 1).unwrap_err();
        let message = format!("{error} {}", error.remedy().unwrap_or_default());
        assert!(message.contains(needle), "{text}: {message}");
        assert!(!bench.at("out").exists());
    }
}

#[test]
fn a_part_is_not_its_own_destination() {
    let bench = parts();
    let description = bench.describe(WHOLE).unwrap();
    for part in ["root.img", "grub.cfg"] {
        let before = std::fs::read(bench.at(part)).unwrap();
        let error = make(&description, &bench.at(part), Format::Raw, None, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(std::fs::read(bench.at(part)).unwrap() == before);
    }
}

const ROOT: &str = r#"
[[partition]]
type = "root-x86-64"
image = "root.img"
format = "raw"
"#;

/// A disk of `length` bytes with one partition, and a table at both of its ends.
fn old_disk(bench: &Bench, length: u64) {
    bench.write("old", b"");
    bench.must("truncate", &["-s", &length.to_string(), "old"]);
    bench.must("sgdisk", &["-n1:0:0", "old"]);
    assert!(read_table(&bench.at("old")).notes.is_empty());
}

#[test]
fn the_second_table_of_the_disk_that_was_there_does_not_stay_at_its_end() {
    let bench = parts();
    let all = "size = \"100M\"\n";
    let rest = format!("{ROOT}size = \"rest\"\n");
    for (text, end) in [
        (ROOT.to_owned(), 51 * MIB),
        (rest.clone(), 99 * MIB),
        (format!("{all}{rest}"), 99 * MIB),
    ] {
        let description = bench.describe(&text).unwrap();
        for format in [Format::Raw, Format::Qcow2] {
            old_disk(&bench, 100 * MIB);
            let mut raw = "old";
            if format == Format::Qcow2 {
                let convert = ["convert", "-f", "raw", "-O", "qcow2", "old", "old.qcow2"];
                bench.must("qemu-img", &convert);
                raw = "again";
            }
            let name = if format == Format::Raw {
                "old"
            } else {
                "old.qcow2"
            };
            let created = make_into(&description, &bench.at(name), format).unwrap();
            assert_eq!(created.virtual_size, 100 * MIB);
            assert_eq!(created.partitions[0].range, MIB..end);
            if format == Format::Qcow2 {
                bench.must("qemu-img", &["convert", "-O", "raw", name, raw]);
            }
            assert_eq!(bench.at(raw).metadata().unwrap().len(), 100 * MIB);
            bench.verify(raw);
            let table = read_table(&bench.at(raw));
            let sound = table.damaged.is_none() && table.notes.is_empty();
            assert!(sound, "{table:?}");
        }
    }
}

#[test]
fn less_than_a_sector_at_the_end_keeps_nothing_of_the_disk_that_was_there() {
    let bench = parts();
    old_disk(&bench, 100 * MIB + 512);
    let description = bench
        .describe(&format!("sector-size = 4096\n{ROOT}"))
        .unwrap();
    let created = make_into(&description, &bench.at("old"), Format::Raw).unwrap();
    assert_eq!(created.virtual_size, 100 * MIB + 512);
    let bytes = std::fs::read(bench.at("old")).unwrap();
    let (disk, tail) = bytes.split_last_chunk::<512>().unwrap();
    assert_eq!(disk.len() as u64, 100 * MIB);
    assert!(*tail == [0; 512]);
    assert_eq!(disk[disk.len() - 4096..][..8], *b"EFI PART");
}

#[test]
fn a_disk_of_another_size_than_what_it_is_written_into_is_refused() {
    let bench = parts();
    for (size, how) in [("60M", "is larger"), ("200M", "is smaller")] {
        old_disk(&bench, 100 * MIB);
        let before = std::fs::read(bench.at("old")).unwrap();
        let description = bench
            .describe(&format!("size = \"{size}\"\n{ROOT}"))
            .unwrap();
        let error = make_into(&description, &bench.at("old"), Format::Raw).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains(how), "{error}");
        let remedy = error.remedy().unwrap();
        assert!(remedy.contains("--size 104857600"), "{remedy}");
        assert!(std::fs::read(bench.at("old")).unwrap() == before);
    }
    let description = bench.describe(ROOT).unwrap();
    old_disk(&bench, 20 * MIB);
    let error = make_into(&description, &bench.at("old"), Format::Raw).unwrap_err();
    assert!(error.to_string().contains("need"), "{error}");
    // Not for want of room.
    let error = make_into(&description, &bench.at("root.img"), Format::Raw).unwrap_err();
    assert!(error.to_string().contains("is read from"), "{error}");
}

#[test]
fn descriptions_can_be_made_without_text() {
    let bench = parts();
    let mut root = PartDescription::new("--root", PartDescription::parse_kind("linux").unwrap());
    root.size = PartSize::Fixed(64 * MIB);
    root.content = Content::Image(ImageContent {
        path: bench.at("root.img"),
        format: Some(Format::Raw),
    });
    let description = Description {
        partitions: vec![root],
        ..Description::default()
    };
    let created = make(&description, &bench.at("disk"), Format::Raw, None, 2).unwrap();
    assert_eq!(created.virtual_size, 66 * MIB);
    bench.verify("disk");
}
