//! What the tests of several readers have in common: foreign programs, and whole trees as plain maps.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::tree::{FileKind, Node, Piece, Tree};
use crate::image::{Chain, Depth, Format, Image, OpenOptions};
use crate::store::{Memory, ReadAt};

/// Whether there is time for everything.
pub(super) fn nightly() -> bool {
    std::env::var_os("QIMG_NIGHTLY").is_some()
}

/// Runs a tool that must be there; its success, and what it printed.
pub(super) fn run(tool: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(tool)
        .args(arguments)
        .envs([
            ("TZ", "UTC"),
            ("LC_ALL", "C.UTF-8"),
            ("MTOOLS_SKIP_CHECK", "1"),
        ])
        .output()
        .unwrap_or_else(|error| panic!("{tool} must be installed: {error}"));
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

/// As [`run`], and it must succeed.
pub(super) fn must(tool: &str, arguments: &[&str]) -> String {
    let (success, text) = run(tool, arguments);
    assert!(success, "{tool} {arguments:?}: {text}");
    text
}

fn options() -> OpenOptions {
    OpenOptions {
        format: Some(Format::Raw),
        ..OpenOptions::default()
    }
}

/// The raw image at `path`.
pub(super) fn disk(path: &Path) -> Chain {
    let image = Image::open(path, &options()).unwrap();
    image.chain(Depth::Chain, None).unwrap()
}

/// A raw image of these bytes.
pub(super) fn disk_of(bytes: Vec<u8>) -> Chain {
    let store: Arc<dyn ReadAt> = Arc::new(Memory::from(bytes));
    let image = Image::from_store(store, "disk", &options()).unwrap();
    image.chain(Depth::Chain, None).unwrap()
}

/// Bytes without a pattern, the same for the same seed.
pub(super) fn noise(length: usize, seed: u64) -> Vec<u8> {
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

/// What a file holds, piece by piece as it has to come; holes as zeros.
pub(super) fn contents(tree: &dyn Tree, node: Node, range: Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let start = range.start;
    let mut at = start;
    tree.read_file(node, range.clone(), &mut |piece| {
        match piece {
            Piece::Data {
                offset,
                bytes: more,
            } => {
                assert_eq!(offset, at);
                assert!(!more.is_empty());
                at += more.len() as u64;
                bytes.extend_from_slice(more);
            }
            Piece::Hole { offset, length } => {
                assert_eq!(offset, at);
                assert!(length > 0);
                at += length;
                bytes.resize(bytes.len() + usize::try_from(length).unwrap(), 0);
            }
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    let end = range.end.min(tree.metadata(node).unwrap().size);
    assert_eq!(at.max(start), end.max(start));
    bytes
}

/// The names in a directory, each of them once.
pub(super) fn names(tree: &dyn Tree, node: Node) -> BTreeMap<Vec<u8>, (Node, Option<FileKind>)> {
    let mut names = BTreeMap::new();
    tree.read_dir(node, &mut |entry| {
        let before = names.insert(entry.name.to_vec(), (entry.node, entry.kind));
        assert!(
            before.is_none(),
            "{:?}",
            String::from_utf8_lossy(entry.name)
        );
        ControlFlow::Continue(())
    })
    .unwrap();
    names
}

/// Everything below a directory by its path, which begins with a slash.
pub(super) fn walk(tree: &dyn Tree, node: Node) -> BTreeMap<String, Node> {
    let mut found = BTreeMap::new();
    let mut left = vec![(String::new(), node)];
    while let Some((path, node)) = left.pop() {
        for (name, (inner, kind)) in names(tree, node) {
            let path = format!("{path}/{}", String::from_utf8(name).unwrap());
            let is = tree.metadata(inner).unwrap().kind;
            assert!(kind.is_none_or(|kind| kind == is), "{path}");
            if is == FileKind::Directory {
                left.push((path.clone(), inner));
            }
            found.insert(path, inner);
        }
    }
    found
}

/// Goes through all that a hostile tree offers, within bounds; nothing may panic.
pub(super) fn survive(tree: &dyn Tree) {
    let mut left = vec![tree.root()];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(node) = left.pop() {
        if seen.len() > 2000 || !seen.insert(node) {
            continue;
        }
        let _ = tree.metadata(node);
        let _ = tree.read_link(node);
        let mut pieces = 0;
        let _ = tree.read_file(node, 0..u64::MAX, &mut |_| {
            pieces += 1;
            if pieces < 20 {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        let _ = tree.read_dir(node, &mut |entry| {
            left.push(entry.node);
            if left.len() < 5000 {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        let _ = tree.lookup(node, b"name");
    }
}
