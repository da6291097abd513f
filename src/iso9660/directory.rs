//! Directory records: 9.1 of ECMA-119, with the system use fields of SUSP and RRIP behind the names of the primary tree.
//!
//! Knows records and the sectors they must not cross. Must not know descriptors.

use super::names::Entry;
use super::tree::{Directory, Node};
use super::{SECTOR, Time, both_16, both_32};

/// Which of the two trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tree {
    /// With Rock Ridge.
    Primary,
    /// In UCS-2.
    Joliet,
}

/// Where something lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// First sector.
    pub(super) sector: u32,
    /// Bytes.
    pub(super) length: u32,
}

/// File flags: 9.1.6.
const DIRECTORY: u8 = 2;
/// Modes of PX (RRIP 4.1.1): `S_IFDIR`, `S_IFREG` and permissions.
const DIRECTORY_MODE: u32 = 0o040_755;
const FILE_MODE: u32 = 0o100_644;

/// Where everything of one tree lies.
#[derive(Debug)]
pub(super) struct Places<'a> {
    /// Of directories, by number.
    pub(super) directories: &'a [Extent],
    /// Of files, by number.
    pub(super) files: &'a [Extent],
}

/// Bytes of a directory, up to the end of its last record.
pub(super) fn length(tree: Tree, number: usize, directory: &Directory, entries: &[Entry]) -> usize {
    let places = Places {
        directories: &[],
        files: &[],
    };
    write(tree, number, directory, entries, &places, &Time::new(0)).len()
}

/// A directory's bytes; the root's number is 0. No record crosses a sector (6.8.1.1).
pub(super) fn write(
    tree: Tree,
    number: usize,
    directory: &Directory,
    entries: &[Entry],
    places: &Places<'_>,
    time: &Time,
) -> Vec<u8> {
    let nowhere = Extent {
        sector: 0,
        length: 0,
    };
    let of = |extents: &[Extent], number: usize| extents.get(number).copied().unwrap_or(nowhere);
    let rock_ridge = tree == Tree::Primary;
    let mut bytes = Vec::new();
    let (mut own, mut parent) = (Vec::new(), Vec::new());
    if rock_ridge {
        if number == 0 {
            // SUSP 5.3: only the root's own record carries it; skips no bytes.
            own.extend(*b"SP\x07\x01\xbe\xef\x00");
        }
        own.extend(attributes(DIRECTORY_MODE, directory.links(), time));
        if number == 0 {
            // SUSP 5.5: which extension this is; its describing texts may be empty.
            own.extend(*b"ER\x12\x01\x0a\x00\x00\x01RRIP_1991A");
        }
        parent.extend(attributes(DIRECTORY_MODE, 2, time));
    }
    let here = of(places.directories, number);
    let above = of(places.directories, directory.parent);
    append(&mut bytes, record(&[0], here, DIRECTORY, time, &own));
    append(&mut bytes, record(&[1], above, DIRECTORY, time, &parent));
    for entry in entries {
        let Some(child) = directory.children.get(entry.child) else {
            continue;
        };
        let (extent, flags, mode, links) = match child.node {
            Node::File(number) => (of(places.files, number), 0, FILE_MODE, 1),
            Node::Directory(number) => {
                (of(places.directories, number), DIRECTORY, DIRECTORY_MODE, 2)
            }
        };
        let mut system_use = Vec::new();
        if rock_ridge {
            // RRIP 4.1.4: the name, whole.
            let length = u8::try_from(5 + child.name.len()).unwrap_or(u8::MAX);
            system_use.extend(*b"NM");
            system_use.extend([length, 1, 0]);
            system_use.extend(child.name.bytes());
            system_use.extend(attributes(mode, links, time));
        }
        append(
            &mut bytes,
            record(&entry.identifier, extent, flags, time, &system_use),
        );
    }
    bytes
}

/// The record of the root in a volume descriptor: 34 bytes, without system use.
pub(super) fn root_record(root: Extent, time: &Time) -> Vec<u8> {
    record(&[0], root, DIRECTORY, time, &[])
}

fn append(directory: &mut Vec<u8>, record: Vec<u8>) {
    let left = SECTOR - directory.len() % SECTOR;
    if record.len() > left {
        directory.resize(directory.len() + left, 0);
    }
    directory.extend(record);
}

/// 9.1. Names are short enough for the length to fit its byte: at most 33 + 128 + 1, or 33 + 14 + 5 + 128 + 62 + 2.
fn record(identifier: &[u8], extent: Extent, flags: u8, time: &Time, system_use: &[u8]) -> Vec<u8> {
    let mut record = vec![0, 0];
    record.extend(both_32(extent.sector));
    record.extend(both_32(extent.length));
    record.extend(time.short());
    record.extend([flags, 0, 0]);
    record.extend(both_16(1));
    record.push(u8::try_from(identifier.len()).unwrap_or(u8::MAX));
    record.extend(identifier);
    if identifier.len().is_multiple_of(2) {
        record.push(0);
    }
    record.extend(system_use);
    if !record.len().is_multiple_of(2) {
        record.push(0);
    }
    let length = u8::try_from(record.len()).unwrap_or(u8::MAX);
    if let Some(first) = record.first_mut() {
        *first = length;
    }
    record
}

/// PX and TF (RRIP 4.1.1, 4.1.6): mode, links, owner root; times of modification, access and change.
fn attributes(mode: u32, links: u32, time: &Time) -> Vec<u8> {
    let mut fields = b"PX\x24\x01".to_vec();
    for value in [mode, links, 0, 0] {
        fields.extend(both_32(value));
    }
    fields.extend(*b"TF\x1a\x01\x0e");
    for _ in 0..3 {
        fields.extend(time.short());
    }
    fields
}
