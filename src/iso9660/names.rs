//! The names of one file in the two trees of a volume, and the order that each tree asks for.
//!
//! Knows characters and order. Must not know records.

use std::collections::BTreeSet;

use super::File;

/// A name of a directory record, and which file it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) identifier: Vec<u8>,
    pub(super) file: usize,
}

/// 7.5, at interchange level 1: eight characters, a dot, three characters, and version 1; no two the same.
pub(super) fn primary(files: &[File]) -> Vec<Entry> {
    let mut taken = BTreeSet::new();
    let entries = files.iter().enumerate().map(|(file, File { name, .. })| {
        let (stem, extension) = match name.rsplit_once('.') {
            Some((stem, extension)) if !stem.is_empty() => (stem, extension),
            _ => (name.as_str(), ""),
        };
        let (stem, extension) = (letters(stem, 8), letters(extension, 3));
        let mut identifier = format!("{stem}.{extension};1");
        let mut number = 0;
        while !taken.insert(identifier.clone()) {
            number += 1;
            let tail = number.to_string();
            let kept: String = stem.chars().take(8 - tail.len()).collect();
            identifier = format!("{kept}{tail}.{extension};1");
        }
        Entry {
            identifier: identifier.into_bytes(),
            file,
        }
    });
    let mut entries: Vec<_> = entries.collect();
    // 9.3: by name and extension, each filled up with spaces, which sort before all of their characters as "." does not.
    entries.sort_by_key(|entry| sort_key(&entry.identifier));
    entries
}

/// The name in UCS-2, big-endian, without a version: as every reader of Joliet takes it.
pub(super) fn joliet(files: &[File]) -> Vec<Entry> {
    let mut entries: Vec<_> = files
        .iter()
        .enumerate()
        .map(|(file, File { name, .. })| Entry {
            identifier: name.encode_utf16().flat_map(u16::to_be_bytes).collect(),
            file,
        })
        .collect();
    entries.sort_by(|a, b| a.identifier.cmp(&b.identifier));
    entries
}

/// The first `most` characters as d-characters (7.4.1).
fn letters(text: &str, most: usize) -> String {
    text.chars()
        .take(most)
        .map(|c| match c.to_ascii_uppercase() {
            c @ ('A'..='Z' | '0'..='9') => c,
            _ => '_',
        })
        .collect()
}

fn sort_key(identifier: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let dot = identifier
        .iter()
        .position(|&byte| byte == b'.')
        .unwrap_or(identifier.len());
    let (stem, rest) = identifier.split_at(dot);
    (stem.to_vec(), rest.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        let files: Vec<_> = names
            .iter()
            .map(|name| File {
                name: (*name).to_owned(),
                bytes: Vec::new(),
            })
            .collect();
        let entries = primary(&files);
        entries
            .into_iter()
            .map(|entry| String::from_utf8(entry.identifier).unwrap())
            .collect()
    }

    #[test]
    fn names_that_collide_in_eight_characters_are_told_apart() {
        assert_eq!(
            names(&["user-data", "meta-data"]),
            ["META_DAT.;1", "USER_DAT.;1"]
        );
        assert_eq!(
            names(&["vendor-data", "vendor-data2", "vendor-d.txt", ".profile"]),
            [
                "VENDOR_1.;1",
                "VENDOR_D.;1",
                "VENDOR_D.TXT;1",
                "_PROFILE.;1"
            ]
        );
    }
}
