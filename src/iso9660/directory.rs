//! Directory records: 9.1 of ECMA-119, with the system use fields of SUSP and RRIP behind the names of the primary tree.
//!
//! Knows records and the sectors they must not cross. Must not know descriptors.

use super::names::Entry;
use super::{File, SECTOR, Time, both_16, both_32};

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

/// Bytes of the directory, up to the end of its last record.
pub(super) fn length(tree: Tree, entries: &[Entry], files: &[File]) -> usize {
    let time = Time::new(0);
    let nowhere = Extent {
        sector: 0,
        length: 0,
    };
    let extents = vec![nowhere; files.len()];
    write(tree, nowhere, entries, files, &extents, &time).len()
}

/// The directory's bytes. No record crosses a sector (6.8.1.1).
pub(super) fn write(
    tree: Tree,
    root: Extent,
    entries: &[Entry],
    files: &[File],
    extents: &[Extent],
    time: &Time,
) -> Vec<u8> {
    let rock_ridge = tree == Tree::Primary;
    let mut bytes = Vec::new();
    let (mut own, mut parent) = (Vec::new(), Vec::new());
    if rock_ridge {
        // SUSP 5.3: only the root's own record carries it; skips no bytes.
        own.extend(*b"SP\x07\x01\xbe\xef\x00");
        own.extend(attributes(DIRECTORY_MODE, 2, time));
        // SUSP 5.5: which extension this is; its describing texts may be empty.
        own.extend(*b"ER\x12\x01\x0a\x00\x00\x01RRIP_1991A");
        parent.extend(attributes(DIRECTORY_MODE, 2, time));
    }
    append(&mut bytes, record(&[0], root, DIRECTORY, time, &own));
    append(&mut bytes, record(&[1], root, DIRECTORY, time, &parent));
    for entry in entries {
        let (Some(file), Some(extent)) = (files.get(entry.file), extents.get(entry.file)) else {
            continue;
        };
        let mut system_use = Vec::new();
        if rock_ridge {
            // RRIP 4.1.4: the name, whole.
            let length = u8::try_from(5 + file.name.len()).unwrap_or(u8::MAX);
            system_use.extend(*b"NM");
            system_use.extend([length, 1, 0]);
            system_use.extend(file.name.bytes());
            system_use.extend(attributes(FILE_MODE, 1, time));
        }
        append(
            &mut bytes,
            record(&entry.identifier, *extent, 0, time, &system_use),
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
