//! A directory with all that is in it, however deep and however hostile.
//!
//! Walks without recursion. A directory is entered once, whatever other names it
//! has: so the walk ends, also where directories contain each other.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use super::contents::{File, Trouble};
use super::names::Names;
use super::{ExtractProgress, ExtractRequest, Extracted, MOST_LISTED, Skipped, attributes};
use crate::error::{Error, Result};
use crate::fs::tree::{FileKind, Metadata, Node, Tree};
use crate::store::extraction::{FileTree, Obstacle, Place};

/// Directories within each other at most: what a path may hold.
const MOST_DEPTH: usize = 2048;

/// Bytes of memory for names that wait, in all directories together.
const MOST_WAITING: usize = 256 << 20;

/// Files whose further names are waited for at a time; those of others become files of their own.
const MOST_LINKED: usize = 1 << 20;

/// Bytes of a path in a report: Linux's `PATH_MAX`.
const LONGEST_TOLD: usize = 4096;

/// Copies the directory of `request`.
pub(super) fn directory(
    request: &ExtractRequest<'_>,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(ExtractProgress),
) -> Result<Extracted> {
    let mut walk = Walk {
        tree: request.tree,
        out: FileTree::create(request.destination)?,
        cancel,
        progress,
        done: Extracted {
            directories: 1,
            ..Extracted::default()
        },
        levels: Vec::new(),
        waiting: 0,
        path: Vec::new(),
        seen: BTreeSet::from([request.node]),
        linked: HashMap::new(),
    };
    walk.list(request.node, request.metadata);
    walk.run()?;
    let Walk { out, done, .. } = walk;
    out.commit(&attributes(&request.metadata), request.sync)?;
    Ok(done)
}

/// A directory that is being copied.
struct Level {
    metadata: Metadata,
    names: Names,
    /// Bytes of the path to what it is in.
    above: usize,
}

/// The first name of a file that has more of them.
struct First {
    place: Place,
    name: Vec<u8>,
    /// Names still to come, if the guest counted well.
    left: u32,
}

struct Walk<'a> {
    tree: &'a dyn Tree,
    out: FileTree,
    cancel: &'a AtomicBool,
    progress: &'a mut dyn FnMut(ExtractProgress),
    done: Extracted,
    levels: Vec<Level>,
    /// Bytes of memory of all names in `levels`.
    waiting: usize,
    /// From what is copied to where we are.
    path: Vec<u8>,
    /// Directories that were entered.
    seen: BTreeSet<Node>,
    linked: HashMap<Node, First>,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<()> {
        while let Some(level) = self.levels.last_mut() {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Error::cancelled());
            }
            if let Some((name, node)) = level.names.take() {
                let above = self.path.len();
                self.path.push(b'/');
                self.path.extend_from_slice(&name);
                if !self.entry(&name, node, above)? {
                    self.path.truncate(above);
                }
                (self.progress)(ExtractProgress {
                    names: names_of(&self.done),
                    bytes: self.done.bytes.saturating_add(self.done.hole_bytes),
                    total: None,
                });
                continue;
            }
            let Some(level) = self.levels.pop() else {
                break;
            };
            self.waiting = self.waiting.saturating_sub(level.names.size());
            self.path.truncate(level.above);
            // The root's own attributes come when all is done.
            if !self.levels.is_empty() {
                self.out.leave(&attributes(&level.metadata))?;
            }
        }
        Ok(())
    }

    /// Copies one name; whether that is a directory, which was entered.
    fn entry(&mut self, name: &[u8], node: Node, above: usize) -> Result<bool> {
        let metadata = match self.tree.metadata(node) {
            Ok(metadata) => metadata,
            Err(error) => return self.guest(&error),
        };
        match metadata.kind {
            FileKind::Directory => self.enter(name, node, metadata, above),
            FileKind::File => self.file(name, node, &metadata),
            FileKind::Symlink => self.symlink(name, node, &metadata),
            FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo | FileKind::Socket => {
                self.done.special += 1;
                Ok(false)
            }
        }
    }

    fn enter(&mut self, name: &[u8], node: Node, metadata: Metadata, above: usize) -> Result<bool> {
        if self.levels.len() >= MOST_DEPTH {
            return Ok(self.skip("too many directories within each other"));
        }
        if self.seen.contains(&node) {
            return Ok(self.skip("the directory has another name, or contains itself"));
        }
        if let Err(obstacle) = self.out.enter(name) {
            return self.host(obstacle);
        }
        self.seen.insert(node);
        self.done.directories += 1;
        self.list(node, metadata);
        if let Some(level) = self.levels.last_mut() {
            level.above = above;
        }
        Ok(true)
    }

    /// Begins with the names in `node`, which is the current directory by now.
    fn list(&mut self, node: Node, metadata: Metadata) {
        let mut names = Names::default();
        let most = MOST_WAITING.saturating_sub(self.waiting);
        if let Err(error) = names.read(self.tree, node, most, self.cancel) {
            self.skip(&in_words(&error));
        }
        if names.cut {
            self.skip("more names than are held at a time: some of them are missing");
        }
        self.waiting = self.waiting.saturating_add(names.size());
        self.levels.push(Level {
            metadata,
            names,
            above: 0,
        });
    }

    fn file(&mut self, name: &[u8], node: Node, metadata: &Metadata) -> Result<bool> {
        if metadata.links > 1 && self.link(name, node)? {
            return Ok(false);
        }
        let out = match self.out.file(name) {
            Ok(out) => out,
            Err(obstacle) => return self.host(obstacle),
        };
        let source = File {
            tree: self.tree,
            node,
            metadata,
            cancel: self.cancel,
        };
        let (mut written, mut holes) = (0u64, 0u64);
        let (done, progress) = (&self.done, &mut *self.progress);
        let copied = source.copy(&out, &mut |more, hole| {
            written = written.saturating_add(more);
            holes = holes.saturating_add(hole);
            progress(ExtractProgress {
                names: names_of(done),
                bytes: (done.bytes.saturating_add(done.hole_bytes))
                    .saturating_add(written)
                    .saturating_add(holes),
                total: None,
            });
        });
        drop(out);
        if let Err(trouble) = copied {
            if let Err(obstacle) = self.out.remove(name) {
                self.host(obstacle)?;
            }
            return match trouble {
                Trouble::Cancelled => Err(Error::cancelled()),
                Trouble::Guest(error) => self.guest(&error),
                Trouble::Host(obstacle) => self.host(obstacle),
            };
        }
        self.done.files += 1;
        self.done.bytes = self.done.bytes.saturating_add(written);
        self.done.hole_bytes = self.done.hole_bytes.saturating_add(holes);
        if metadata.links > 1 && self.linked.len() < MOST_LINKED {
            let first = First {
                place: self.out.place(),
                name: name.to_vec(),
                left: metadata.links - 1,
            };
            self.linked.insert(node, first);
        }
        Ok(false)
    }

    /// Makes `name` another name of `node`, if it has one here; whether that is all there is to do.
    fn link(&mut self, name: &[u8], node: Node) -> Result<bool> {
        let Some(first) = self.linked.get_mut(&node) else {
            return Ok(false);
        };
        match self.out.hard_link(&first.place, &first.name, name) {
            Ok(true) => {
                first.left = first.left.saturating_sub(1);
                if first.left == 0 {
                    self.linked.remove(&node);
                }
                self.done.hard_links += 1;
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(obstacle) => {
                self.host(obstacle)?;
                Ok(true)
            }
        }
    }

    fn symlink(&mut self, name: &[u8], node: Node, metadata: &Metadata) -> Result<bool> {
        let target = match self.tree.read_link(node) {
            Ok(target) => target,
            Err(error) => return self.guest(&error),
        };
        match self.out.symlink(name, &target, &attributes(metadata)) {
            Ok(()) => {
                self.done.symlinks += 1;
                Ok(false)
            }
            Err(obstacle) => self.host(obstacle),
        }
    }

    /// What cannot be read is reported, and the rest is copied.
    #[expect(
        clippy::unnecessary_wraps,
        reason = "stands beside its twin, which fails"
    )]
    fn guest(&mut self, error: &Error) -> Result<bool> {
        Ok(self.skip(&in_words(error)))
    }

    /// What the host cannot hold is reported; where the host itself fails, all fails.
    fn host(&mut self, obstacle: Obstacle) -> Result<bool> {
        Ok(match obstacle {
            Obstacle::Failed(error) => return Err(error),
            Obstacle::Name(why) => self.skip(why),
            Obstacle::Taken => {
                self.skip("another file has that name, or one that is the same here")
            }
            Obstacle::Unfit(error) => self.skip(&in_words(&error)),
        })
    }

    /// Reports what is at the current path.
    fn skip(&mut self, reason: &str) -> bool {
        self.done.skipped += 1;
        if self.done.skipped_names.len() < MOST_LISTED {
            let path = self.path.strip_prefix(b"/").unwrap_or(b".");
            // Of what no path could hold the end is told.
            let cut = path.len().saturating_sub(LONGEST_TOLD);
            let path = path.get(cut..).unwrap_or(path);
            let dots = if cut > 0 { "..." } else { "" };
            self.done.skipped_names.push(Skipped {
                path: format!("{dots}{}", String::from_utf8_lossy(path)),
                reason: reason.to_owned(),
            });
        }
        false
    }
}

fn names_of(done: &Extracted) -> u64 {
    done.files + done.directories + done.symlinks + done.hard_links
}

/// With its cause, on one line.
fn in_words(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
