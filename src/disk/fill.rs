//! The files of a FAT volume: from directories of the host, and one by one.

use std::sync::Arc;

use super::description::FatContent;
use crate::error::Result;
use crate::fat::{self, Tree};
use crate::store::{LaterFile, list_below};

/// The tree that `content` describes.
pub(super) fn tree_of(content: &FatContent) -> Result<Tree> {
    let mut tree = Tree::new();
    for directory in &content.directories {
        for entry in list_below(directory)? {
            let added = if entry.is_directory {
                tree.add_directory(&entry.name)
            } else {
                tree.add_file(&entry.name, Arc::new(LaterFile::new(&entry.path)?))
            };
            added.map_err(|error| error.at_path(&entry.path))?;
        }
    }
    for (target, source) in &content.files {
        // As firmware spells paths.
        let target = target.replace('\\', "/");
        let file = Arc::new(LaterFile::new(source)?);
        tree.add_file(&target, file)
            .map_err(|error| error.at_path(source))?;
    }
    Ok(tree)
}

/// Options of a volume that begins at byte `start` of the disk.
pub(super) fn options(
    content: &FatContent,
    size: fat::Size,
    sector_size: u64,
    start: u64,
    volume_id: u32,
) -> fat::Options {
    fat::Options {
        size,
        sector_size,
        kind: content.kind,
        label: content.label.clone(),
        volume_id: Some(volume_id),
        // Nobody boots from there by this number, which has 32 bits.
        hidden_sectors: u32::try_from(start / sector_size).unwrap_or(0),
        written: fat::Timestamp::default(),
    }
}
