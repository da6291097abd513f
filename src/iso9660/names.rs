//! The names of one directory in the two trees of a volume, and the order that each tree asks for.
//!
//! Knows characters and order. Must not know records.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Child, Node};

/// A name of a directory record, and which of the directory's children it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) identifier: Vec<u8>,
    pub(super) child: usize,
}

/// 7.5 and 7.6, at interchange level 1: eight characters, of files a dot, three characters, and version 1; no two the
/// same.
pub(super) fn primary(children: &[Child]) -> Vec<Entry> {
    let mut taken = BTreeSet::new();
    // Where the search for a free number went on the last time.
    let mut numbers: BTreeMap<String, u32> = BTreeMap::new();
    let entries = children
        .iter()
        .enumerate()
        .map(|(child, Child { name, node })| {
            let (stem, extension) = match (node, name.rsplit_once('.')) {
                (Node::File(_), Some((stem, extension))) if !stem.is_empty() => (stem, extension),
                _ => (name.as_str(), ""),
            };
            let (stem, extension) = (letters(stem, 8), letters(extension, 3));
            let end = match node {
                Node::File(_) => format!(".{extension};1"),
                Node::Directory(_) => String::new(),
            };
            let mut identifier = format!("{stem}{end}");
            let number = numbers.entry(identifier.clone()).or_insert(0);
            while !taken.insert(identifier.clone()) {
                *number += 1;
                let tail = number.to_string();
                let kept: String = stem.chars().take(8 - tail.len().min(8)).collect();
                identifier = format!("{kept}{tail}{end}");
            }
            Entry {
                identifier: identifier.into_bytes(),
                child,
            }
        });
    let mut entries: Vec<_> = entries.collect();
    // 9.3: by name and extension, each filled up with spaces, which sort before all of their characters as "." does not.
    entries.sort_by_key(|entry| sort_key(&entry.identifier));
    entries
}

/// The name in UCS-2, big-endian, without a version: as every reader of Joliet takes it.
pub(super) fn joliet(children: &[Child]) -> Vec<Entry> {
    let mut entries: Vec<_> = children
        .iter()
        .enumerate()
        .map(|(child, Child { name, .. })| Entry {
            identifier: name.encode_utf16().flat_map(u16::to_be_bytes).collect(),
            child,
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
        let children: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(number, name)| match name.strip_suffix('/') {
                Some(name) => Child {
                    name: name.to_owned(),
                    node: Node::Directory(number),
                },
                None => Child {
                    name: (*name).to_owned(),
                    node: Node::File(number),
                },
            })
            .collect();
        let entries = primary(&children);
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
        assert_eq!(
            names(&["directory.one/", "directory.two/", "directory"]),
            ["DIRECTO1", "DIRECTOR", "DIRECTOR.;1"]
        );
        let many: Vec<String> = (0..3000)
            .map(|number| format!("a-long-name-{number}"))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let made: BTreeSet<String> = names(&many).into_iter().collect();
        assert_eq!(made.len(), 3000);
    }
}
