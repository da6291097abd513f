//! Volumes as bytes, and as the reader in this crate sees them.

use std::sync::Arc;

use super::*;
use crate::fs::probe::{identify, open_tree};
use crate::fs::tree::read_start;
use crate::image::{Depth, Format, Image, OpenOptions};
use crate::store::{Memory, ReadAt};

fn file(name: &str, bytes: &[u8]) -> File {
    File {
        name: name.to_owned(),
        bytes: bytes.to_vec(),
    }
}

fn volume(files: &[File]) -> Vec<u8> {
    write(&Volume {
        label: "cidata",
        files,
        time: 0,
    })
    .unwrap()
}

#[test]
fn the_bytes_are_those_that_they_were() {
    let bytes = volume(&[
        file("user-data", b"#cloud-config\n"),
        file("meta-data", b"instance-id: a\n"),
        file("empty", b""),
    ]);
    assert_eq!(bytes.len(), 65_536);
    // A change here is a change of "Image bytes" in the changelog.
    assert_eq!(
        crc32fast::hash(&bytes),
        GOLDEN,
        "{:#x}",
        crc32fast::hash(&bytes)
    );
}

const GOLDEN: u32 = 0xa1a6_7009;

#[test]
fn numbers_stand_where_the_standard_puts_them() {
    let bytes = volume(&[file("user-data", &[7; 5000])]);
    let at = |offset: usize, length: usize| &bytes[offset..offset + length];
    let (primary, joliet) = (16 * SECTOR, 17 * SECTOR);
    assert_eq!(at(primary, 7), b"\x01CD001\x01");
    assert_eq!(at(joliet, 7), b"\x02CD001\x01");
    assert_eq!(at(18 * SECTOR, 7), b"\xffCD001\x01");
    assert_eq!(at(primary + 40, 32), b"cidata                          ");
    assert_eq!(at(joliet + 40, 12), b"\0c\0i\0d\0a\0t\0a");
    assert_eq!(at(joliet + 88, 3), b"%/E");
    assert_eq!(at(primary + 80, 8), [32, 0, 0, 0, 0, 0, 0, 32]);
    assert_eq!(at(primary + 813, 17), b"1970010100000000\0");
    // The root's record in the descriptor and the first one in the directory say the same.
    assert_eq!(at(primary + 158, 8), at(23 * SECTOR + 2, 8));
    assert_eq!(&at(23 * SECTOR + 34, 7), b"SP\x07\x01\xbe\xef\0");
    assert_eq!(bytes.len() % SECTOR, 0);
}

#[test]
fn what_was_written_is_read_back() {
    let mut files: Vec<File> = (0..150)
        .map(|n| {
            file(
                &format!("a file with a name of length {n:03}.txt"),
                format!("{n}").repeat(n).as_bytes(),
            )
        })
        .collect();
    files.push(file("grüße.yaml", &[1; 2049]));
    let bytes = write(&Volume {
        label: "cidata",
        files: &files,
        time: 1_700_000_000,
    })
    .unwrap();
    let store: Arc<dyn ReadAt> = Arc::new(Memory::from(bytes));
    let options = OpenOptions {
        format: Some(Format::Raw),
        ..OpenOptions::default()
    };
    let image = Image::from_store(store, "seed.iso", &options).unwrap();
    let chain = image.chain(Depth::Chain, None).unwrap();
    let volume = crate::volume::Volume::whole(&chain);
    assert_eq!(
        identify(&volume).unwrap()[0].label.as_deref(),
        Some("cidata")
    );
    let tree = open_tree(&volume).unwrap().unwrap();
    for file in &files {
        let node = tree
            .lookup(tree.root(), file.name.as_bytes())
            .unwrap()
            .unwrap();
        assert_eq!(
            read_start(&*tree, node, 1 << 20).unwrap(),
            file.bytes,
            "{}",
            file.name
        );
        let metadata = tree.metadata(node).unwrap();
        assert_eq!((metadata.permissions, metadata.uid), (0o644, 0));
        assert_eq!(metadata.modified.unwrap().seconds, 1_700_000_000);
    }
}

#[test]
fn a_label_has_up_to_32_characters_and_is_cut_for_joliet() {
    let whole = "l".repeat(MAX_LABEL);
    for label in ["cidata", "config-2", "my cd", "AUTOINSTALL_CONFIG1", &whole] {
        let bytes = write(&Volume {
            label,
            files: &[],
            time: 0,
        })
        .unwrap();
        assert_eq!(
            bytes[16 * SECTOR + 40..][..32],
            *format!("{label:32}").as_bytes()
        );
        let cut: Vec<u8> = format!("{label:16}")
            .bytes()
            .take(JOLIET_LABEL)
            .flat_map(|byte| [0, byte])
            .collect();
        assert_eq!(bytes[17 * SECTOR + 40..][..32], cut);
        let store: Arc<dyn ReadAt> = Arc::new(Memory::from(bytes));
        let options = OpenOptions {
            format: Some(Format::Raw),
            ..OpenOptions::default()
        };
        let image = Image::from_store(store, "label.iso", &options).unwrap();
        let chain = image.chain(Depth::Chain, None).unwrap();
        let found = identify(&crate::volume::Volume::whole(&chain)).unwrap();
        assert_eq!(found[0].label.as_deref(), Some(label));
    }
}

#[test]
fn what_the_format_does_not_hold_is_refused() {
    let long = "l".repeat(MAX_LABEL + 1);
    for label in ["", " ", &long, "a\nb", "ümlaut"] {
        assert!(
            write(&Volume {
                label,
                files: &[],
                time: 0
            })
            .is_err(),
            "{label}"
        );
    }
    for name in [
        "",
        ".",
        "..",
        "a//b",
        "a;1",
        "a\0",
        "a:b",
        "\u{1f600}",
        &"x".repeat(65),
        &"ü".repeat(65),
    ] {
        assert!(
            write(&Volume {
                label: "a",
                files: &[file(name, b"")],
                time: 0
            })
            .is_err(),
            "{name}"
        );
    }
    assert!(
        write(&Volume {
            label: "a",
            files: &[file("x", b""), file("x", b"")],
            time: 0
        })
        .is_err()
    );
    let longest = [file(&"ü".repeat(64), b""), file(&"x".repeat(64), b"")];
    assert!(
        write(&Volume {
            label: "a",
            files: &longest,
            time: i64::MIN
        })
        .is_ok()
    );
}

#[test]
fn points_in_time_are_dates() {
    for (seconds, date) in [
        (0, "1970010100000000"),
        (951_782_399, "2000022823595900"),
        (951_782_400, "2000022900000000"),
        (1_700_000_000, "2023111422132000"),
        (5_869_583_999, "2155123123595900"),
        (i64::MAX, "2155123123595900"),
    ] {
        assert_eq!(
            Time::new(seconds).long()[..16],
            *date.as_bytes(),
            "{seconds}"
        );
    }
}

#[test]
fn directories_are_laid_out_level_by_level() {
    let files = [
        file("b/two/deep file.txt", b"deep"),
        file("a/one", b"1"),
        file("b/one", b"22"),
        file("root", &[3; 3000]),
        file("b/two/empty", b""),
    ];
    let bytes = volume(&files);
    let store: Arc<dyn ReadAt> = Arc::new(Memory::from(bytes));
    let options = OpenOptions {
        format: Some(Format::Raw),
        ..OpenOptions::default()
    };
    let image = Image::from_store(store, "cd.iso", &options).unwrap();
    let chain = image.chain(Depth::Chain, None).unwrap();
    let volume = crate::volume::Volume::whole(&chain);
    let tree = open_tree(&volume).unwrap().unwrap();
    for file in &files {
        let node = file.name.split('/').fold(tree.root(), |node, name| {
            tree.lookup(node, name.as_bytes()).unwrap().unwrap()
        });
        assert_eq!(read_start(&*tree, node, 1 << 20).unwrap(), file.bytes);
    }
    let wrong = |name: &str| {
        write(&Volume {
            label: "cidata",
            files: &[file("a/b", b""), file(name, b"")],
            time: 0,
        })
        .unwrap_err()
        .to_string()
    };
    assert!(wrong("a/b").contains("twice"));
    assert!(wrong("a").contains("twice"));
    assert!(wrong("a/b/c").contains("twice"));
    assert!(wrong("a//c").contains("not a name"));
    assert!(wrong("../c").contains("not a name"));
    assert!(wrong("1/2/3/4/5/6/7/8/9").contains("deeper"));
}
