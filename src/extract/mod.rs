//! Copy files out of a guest: one file, or a directory with all that is in it.
//!
//! Knows what is kept of a file, and what of a hostile tree must not be followed.
//! Joins a [`Tree`] with [`store::extraction`](crate::store::extraction), which
//! confines whatever comes out of it; knows no format and no words of people.

mod contents;
mod names;
mod walk;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::fs::tree::{FileKind, Metadata, Node, Timestamp, Tree};
use crate::store::Sync;
use crate::store::extraction::{Attributes, Obstacle, SingleFile, Time};

/// Most of what was not copied that a report lists; all of it is counted.
pub const MOST_LISTED: usize = 100;

/// What `extract` shall do.
#[derive(Clone, Copy)]
pub struct ExtractRequest<'a> {
    /// Where the files are.
    pub tree: &'a dyn Tree,
    /// The file or directory that is copied.
    pub node: Node,
    /// What the tree says of it.
    pub metadata: Metadata,
    /// The name that the copy gets, in a directory that is there.
    pub destination: &'a Path,
    /// A file may take the place of a file or symlink; nothing ever takes that of a directory.
    pub replace: bool,
    /// What must have happened before the copy is called done.
    pub sync: Sync,
}

impl std::fmt::Debug for ExtractRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExtractRequest")
            .field("node", &self.node)
            .field("destination", &self.destination)
            .finish_non_exhaustive()
    }
}

/// How far the copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtractProgress {
    /// Names made so far.
    pub names: u64,
    /// Bytes of files so far, holes included.
    pub bytes: u64,
    /// Bytes in all; none of a directory, whose files are not counted beforehand.
    pub total: Option<u64>,
}

/// What `extract` did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Extracted {
    /// Files with contents of their own.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// Further names of files.
    pub hard_links: u64,
    /// Bytes that were written.
    pub bytes: u64,
    /// Bytes that are holes.
    pub hole_bytes: u64,
    /// Devices, pipes and sockets, which are never copied.
    pub special: u64,
    /// How much else was not copied.
    pub skipped: u64,
    /// The first [`MOST_LISTED`] of that.
    pub skipped_names: Vec<Skipped>,
}

/// Something that was not copied, while the rest was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Skipped {
    /// Where it is, from what was copied on; what is not UTF-8 is replaced.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Copies a file or directory out of a guest.
///
/// Contents, permissions (no set-user-id, set-group-id and sticky bits), times of last read and write, symlinks as
/// they are, hard links within the copy, and holes are kept; owners are not. The copy appears at its destination in one
/// step when it is complete: a file whole, a directory with everything that could be copied. What could not, because
/// the host has no such name or the guest's filesystem is damaged there, is in the report.
///
/// `progress` is called often on the calling thread.
///
/// # Errors
/// Something is at the destination; `node` is neither a file nor a directory; the host fails; a single file cannot
/// be read. Nothing is left then. [`Cancelled`](crate::ErrorKind::Cancelled) soon after `cancel` is raised, likewise.
pub fn extract(
    request: &ExtractRequest<'_>,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(ExtractProgress),
) -> Result<Extracted> {
    match request.metadata.kind {
        FileKind::File => file(request, cancel, progress),
        FileKind::Directory => walk::directory(request, cancel, progress),
        _ => Err(Error::usage("is neither a file nor a directory")),
    }
}

fn file(
    request: &ExtractRequest<'_>,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(ExtractProgress),
) -> Result<Extracted> {
    let mut done = Extracted::default();
    let single = SingleFile::create(request.destination, request.replace)?;
    let metadata = &request.metadata;
    let source = contents::File {
        tree: request.tree,
        node: request.node,
        metadata,
        cancel,
    };
    source
        .copy(single.contents(), &mut |written, hole| {
            done.bytes = done.bytes.saturating_add(written);
            done.hole_bytes = done.hole_bytes.saturating_add(hole);
            progress(ExtractProgress {
                names: 0,
                bytes: done.bytes.saturating_add(done.hole_bytes),
                total: Some(metadata.size),
            });
        })
        .map_err(|trouble| match trouble {
            contents::Trouble::Cancelled => Error::cancelled(),
            contents::Trouble::Guest(error) => error,
            contents::Trouble::Host(Obstacle::Unfit(error) | Obstacle::Failed(error)) => error,
            contents::Trouble::Host(Obstacle::Name(why)) => {
                Error::usage(why).at_path(request.destination)
            }
            contents::Trouble::Host(Obstacle::Taken) => {
                Error::usage("is there already").at_path(request.destination)
            }
        })?;
    single.commit(request.sync)?;
    done.files = 1;
    Ok(done)
}

/// What is kept of `metadata`.
fn attributes(metadata: &Metadata) -> Attributes {
    let time = |time: Timestamp| Time {
        seconds: time.seconds,
        nanoseconds: time.nanoseconds,
    };
    Attributes {
        permissions: metadata.permissions,
        // Where nobody wrote down when it was read, that is no later than when it was written.
        accessed: metadata.accessed.or(metadata.modified).map(time),
        modified: metadata.modified.map(time),
    }
}
