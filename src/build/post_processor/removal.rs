//! What goes in the end: files that a job took, that nobody keeps, and that are no part of anything that stays.
//!
//! Knows which file is which, whatever it is called. Must not know why something is not kept.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use super::Context;
use crate::build::artifact::Artifact;
use crate::error::Result;
use crate::store::{Kind, look, remove_empty_directory, remove_file};

/// Removes the files of `unkept` that are neither of `kept` nor among `written`; which those were.
///
/// # Errors
/// The host refuses.
pub(super) fn remove(
    unkept: &[Artifact],
    kept: &[Artifact],
    written: &BTreeSet<PathBuf>,
    context: &Context<'_>,
) -> Result<Vec<PathBuf>> {
    let mut stays = HashSet::new();
    let of_kept = kept.iter().flat_map(|artifact| &artifact.files);
    for file in of_kept {
        stays.extend(look(context.place(file))?.map(|seen| seen.identity));
    }
    let taken: BTreeSet<&PathBuf> = unkept.iter().flat_map(|artifact| &artifact.files).collect();
    // What a job wrote and listed nowhere, such as a manifest, is a result of its own.
    for file in written.iter().filter(|file| !taken.contains(file)) {
        stays.extend(look(context.place(file))?.map(|seen| seen.identity));
    }
    let mut removed = Vec::new();
    for artifact in unkept {
        for file in &artifact.files {
            let place = context.place(file);
            let Some(seen) = look(&place)? else {
                continue;
            };
            if seen.kind == Kind::File && !stays.contains(&seen.identity) {
                remove_file(&place)?;
                removed.push(file.clone());
            }
        }
    }
    for directory in unkept
        .iter()
        .filter_map(|artifact| artifact.directory.as_ref())
    {
        // Whatever else lies in it is somebody's.
        remove_empty_directory(context.place(directory))?;
    }
    Ok(removed)
}
