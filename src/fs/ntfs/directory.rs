//! The root directory, as far as needed to find `hiberfil.sys`.
//!
//! Source: `INDEX_ROOT`, `INDEX_BLOCK` and `INDEX_ENTRY` of the kernel's `fs/ntfs/layout.h`. All blocks of the index
//! are looked through, whatever leads to them.

use std::ops::ControlFlow;

use super::record::{Record, restore, text};
use super::runs::Stream;
use super::{ATTRIBUTE_LIST, DATA, ROOT, Table};
use crate::fields::Fields;
use crate::fs::Refusal;

const INDEX_ROOT: u32 = 0x90;
const INDEX_ALLOCATION: u32 = 0xa0;
/// `$I30`
const NAMES: &[u8] = b"$\0I\x003\x000\0";
const LAST: u16 = 2;

const FILE: &str = "hiberfil.sys";
/// What is looked at of it.
const HEADER: usize = 4096;
/// Bytes of the root directory's index that are looked through at most.
const MOST_INDEX: u64 = 64 << 20;
/// A reference's low bits are the record's number, the rest counts how often it was used.
const NUMBER: u64 = (1 << 48) - 1;

/// What the root says of a sleeping Windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hibernation {
    Awake,
    Asleep,
}

/// Whether Windows left its memory here. A file that cannot be read may hold one.
pub(super) fn hibernation(table: &Table<'_, '_>) -> Result<Hibernation, Refusal> {
    let Some(number) = find_file(table)? else {
        return Ok(Hibernation::Awake);
    };
    // Woken up, a system marks the header or wipes it.
    match header(table, number) {
        Ok(bytes) if bytes.iter().all(|&byte| byte == 0) => Ok(Hibernation::Awake),
        Ok(bytes) if bytes.starts_with(b"wake") || bytes.starts_with(b"WAKE") => {
            Ok(Hibernation::Awake)
        }
        _ => Ok(Hibernation::Asleep),
    }
}

fn find_file(table: &Table<'_, '_>) -> Result<Option<u64>, Refusal> {
    let record = table.record(ROOT)?;
    if record.find(ATTRIBUTE_LIST, b"")?.is_some() {
        return Err(Refusal::unsupported(
            "ntfs root directory is in too many pieces",
        ));
    }
    let damaged = || Refusal::damaged("ntfs root directory is damaged");
    let root = record.find(INDEX_ROOT, NAMES)?;
    let root = root.and_then(|root| root.resident()).ok_or_else(damaged)?;
    let mut found = None;
    let mut each = |number: u64, name: &str| {
        if name.eq_ignore_ascii_case(FILE) {
            found = Some(number);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    if entries(root.get(16..).unwrap_or_default(), &mut each)
        .ok_or_else(damaged)?
        .is_break()
    {
        return Ok(found);
    }
    let Some(blocks) = record.find(INDEX_ALLOCATION, NAMES)? else {
        return Ok(None);
    };
    let blocks = Stream::first(&blocks, table.boot)?;
    let size = Fields(root).le32(8);
    if !size.is_power_of_two() || !(512..=65536).contains(&size) {
        return Err(damaged());
    }
    if blocks.initialized() > MOST_INDEX {
        return Err(Refusal::unsupported("ntfs root directory is too large"));
    }
    let mut block = vec![0; usize::try_from(size).unwrap_or(0)];
    for n in 0..blocks.initialized() / u64::from(size) {
        blocks.read_at(table.volume, table.boot, n * u64::from(size), &mut block)?;
        // Others were never used, or are no longer.
        if !block.starts_with(b"INDX") {
            continue;
        }
        if !restore(&mut block) {
            return Err(damaged());
        }
        let list = block.get(24..).unwrap_or_default();
        if entries(list, &mut each).ok_or_else(damaged)?.is_break() {
            break;
        }
    }
    Ok(found)
}

/// Calls `each` with the entries behind an `INDEX_HEADER`; `None` for an impossible one.
fn entries(
    list: &[u8],
    each: &mut dyn FnMut(u64, &str) -> ControlFlow<()>,
) -> Option<ControlFlow<()>> {
    let mut at = usize::try_from(Fields(list).le32(0)).ok()?;
    let list = list.get(..usize::try_from(Fields(list).le32(4)).ok()?)?;
    loop {
        let fields = Fields(list.get(at..)?);
        let length = usize::from(fields.le16(8));
        if fields.le16(12) & LAST != 0 {
            return Some(ControlFlow::Continue(()));
        }
        if length < 16 + 66 {
            return None;
        }
        let name = fields.slice(16 + 66, 2 * usize::from(fields.u8(16 + 64)));
        if each(fields.le64(0) & NUMBER, &text(name)).is_break() {
            return Some(ControlFlow::Break(()));
        }
        at = at.checked_add(length)?;
    }
}

/// The first bytes of a file.
fn header(table: &Table<'_, '_>, number: u64) -> Result<Vec<u8>, Refusal> {
    let record = table.record(number)?;
    match record.find(ATTRIBUTE_LIST, b"")? {
        Some(list) => {
            let part = list.resident().and_then(first_part);
            let part = part.ok_or_else(|| Refusal::unsupported("ntfs file in too many pieces"))?;
            start_of(table, &table.record(part)?)
        }
        None => start_of(table, &record),
    }
}

/// The record that has the first piece of a file's data, as the list of its attributes says.
fn first_part(mut list: &[u8]) -> Option<u64> {
    loop {
        let fields = Fields(list);
        let length = usize::from(fields.le16(4));
        let unnamed = fields.u8(6) == 0;
        if length < 26 || list.len() < length {
            return None;
        }
        if fields.le32(0) == DATA && unnamed && fields.le64(8) == 0 {
            return Some(fields.le64(16) & NUMBER);
        }
        list = list.get(length..)?;
    }
}

fn start_of(table: &Table<'_, '_>, record: &Record) -> Result<Vec<u8>, Refusal> {
    let data = record.find(DATA, b"")?;
    let data = data.ok_or_else(|| Refusal::damaged("ntfs file without data"))?;
    if let Some(value) = data.resident() {
        return Ok(value.to_vec());
    }
    let stream = Stream::first(&data, table.boot)?;
    let length = usize::try_from(stream.initialized()).unwrap_or(HEADER);
    let mut bytes = vec![0; length.min(HEADER)];
    stream.read_at(table.volume, table.boot, 0, &mut bytes)?;
    Ok(bytes)
}
