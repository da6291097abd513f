//! Volumes made of few sectors, each with its number before it: all others are zero.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use qimg::fs::tree::Tree;
use qimg::image::{Depth, Format, Image, OpenOptions};
use qimg::store::Memory;
use qimg::volume::Volume;

const SIZE: usize = 4 << 20;
const SECTOR: usize = 512;

pub fn with_volume(data: &[u8], each: impl FnOnce(&Volume<'_>)) {
    let mut bytes = vec![0; SIZE];
    for record in data.chunks(SECTOR + 2) {
        let Some((number, sector)) = record.split_first_chunk::<2>() else {
            break;
        };
        let at = usize::from(u16::from_le_bytes(*number)) * SECTOR % SIZE;
        bytes[at..at + sector.len()].copy_from_slice(sector);
    }
    let options = OpenOptions {
        format: Some(Format::Raw),
        ..OpenOptions::default()
    };
    let store = Arc::new(Memory::from(bytes));
    let image = Image::from_store(store, "disk", &options).expect("any bytes are a raw image");
    let chain = image.chain(Depth::Chain, None).expect("without a backing file");
    each(&Volume::whole(&chain));
}

/// Goes through all that a hostile tree offers, within bounds.
pub fn survive(tree: &dyn Tree) {
    let mut left = vec![tree.root()];
    let mut seen = BTreeSet::new();
    while let Some(node) = left.pop() {
        if seen.len() > 200 || !seen.insert(node) {
            continue;
        }
        let _ = tree.metadata(node);
        let _ = tree.read_link(node);
        let mut pieces = 0;
        let _ = tree.read_file(node, 0..u64::MAX, &mut |_| {
            pieces += 1;
            if pieces < 8 {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        let _ = tree.read_dir(node, &mut |entry| {
            assert!(!entry.name.is_empty() && !matches!(entry.name, b"." | b".."));
            left.push(entry.node);
            if left.len() < 1000 {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        let _ = tree.lookup(node, b"name");
    }
}
