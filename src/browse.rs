//! Browse a guest's files: which filesystem a path lies on, and what is there.
//!
//! Joins a disk's parts with their trees as the guest would mount them. Knows
//! no words and no host paths.

use std::ops::ControlFlow;

use crate::error::{Error, ErrorKind, Result};
use crate::fs::path::{Found, LastLink, resolve};
use crate::fs::probe::{identify, open_tree};
use crate::fs::tree::{FileKind, Node, Tree, read_start};
use crate::partition::TableKind;
use crate::survey::{Layout, Origin, Place, Selector};
use crate::volume::Volume;

/// Most bytes of /etc/fstab that are looked at.
const FSTAB: usize = 64 << 10;

/// The readable filesystems of a disk.
pub struct Browser<'a> {
    layout: Layout<'a>,
    /// One for each part of the layout.
    trees: Vec<Result<Option<Box<dyn Tree + 'a>>>>,
    root: usize,
    /// Mount points below the root and their parts, longest first.
    mounts: Vec<(Vec<u8>, usize)>,
}

impl std::fmt::Debug for Browser<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Browser")
            .field("root", &self.root)
            .field("mounts", &self.mounts)
            .finish_non_exhaustive()
    }
}

/// Where a path leads.
#[derive(Clone)]
pub struct Location<'b> {
    /// The filesystem.
    pub tree: &'b dyn Tree,
    /// The part that holds it.
    pub part: String,
    /// What is there.
    pub found: Found,
}

impl std::fmt::Debug for Location<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Location")
            .field("part", &self.part)
            .field("found", &self.found)
            .finish_non_exhaustive()
    }
}

impl<'a> Browser<'a> {
    /// Opens the filesystem of one part of `disk`, or of the part that holds a system's root and of those that its
    /// fstab(5) mounts.
    ///
    /// # Errors
    /// The image cannot be read; there is no such part, none that can be read, or more than one to choose from.
    pub fn open(disk: &Volume<'a>, part: Option<&Selector>) -> Result<Self> {
        let mut layout = Layout::read(disk)?;
        // An ISO image for CDs and for disks has a filesystem across all of its partitions.
        if layout.table.kind != TableKind::None && matches!(open_tree(disk), Ok(Some(_))) {
            layout.places.push(Place {
                volume: disk.clone(),
                origin: Origin::Disk,
            });
        }
        let trees: Vec<_> = layout
            .places
            .iter()
            .map(|place| open_tree(&place.volume))
            .collect();
        let mut browser = Self {
            layout,
            trees,
            root: 0,
            mounts: Vec::new(),
        };
        match part {
            Some(selector) => {
                browser.root = browser.part(selector)?;
                browser.tree(browser.root)?;
            }
            None => {
                browser.root = browser.choose_root()?;
                browser.mounts = browser.fstab();
            }
        }
        Ok(browser)
    }

    /// What is at `path`.
    ///
    /// # Errors
    /// Nothing is there; the filesystem cannot be read.
    pub fn locate(&self, path: &[u8], last: LastLink) -> Result<Location<'_>> {
        let (part, rest) = self.mounted(path);
        let place = self.layout.places.get(part);
        let name = place.map(Place::name).unwrap_or_default();
        let tree = self.tree(part)?;
        let found = resolve(tree, rest, last)?.ok_or_else(|| {
            Error::new(
                ErrorKind::Usage,
                format!(
                    "part {name} has no '{}'",
                    crate::error::Escaped(&String::from_utf8_lossy(rest))
                ),
            )
        })?;
        Ok(Location {
            tree,
            part: name,
            found,
        })
    }

    /// The part that `path` lies on, and the path there.
    fn mounted<'p>(&self, path: &'p [u8]) -> (usize, &'p [u8]) {
        // Where a path turns back, its text does not tell what it crosses.
        if path.split(|&byte| byte == b'/').any(|name| name == b"..") {
            return (self.root, path);
        }
        for (point, part) in &self.mounts {
            if let Some(rest) = path.strip_prefix(point.as_slice())
                && (rest.is_empty() || rest.starts_with(b"/"))
            {
                return (*part, if rest.is_empty() { b"/" } else { rest });
            }
        }
        (self.root, path)
    }

    fn tree(&self, part: usize) -> Result<&dyn Tree> {
        let name = self.layout.places.get(part).map(Place::name);
        let name = name.unwrap_or_default();
        match self.trees.get(part) {
            Some(Ok(Some(tree))) => Ok(&**tree),
            Some(Err(error)) => Err(Error::new(error.kind(), format!("part {name}: {error}"))),
            Some(Ok(None)) | None => {
                let kind = self
                    .layout
                    .places
                    .get(part)
                    .and_then(|place| identify(&place.volume).ok())
                    .and_then(|found| found.first().map(|identity| identity.kind));
                Err(Error::unsupported(match kind {
                    Some(kind) => {
                        format!("part {name} holds {kind}, whose files qimg does not read")
                    }
                    None => format!("part {name} holds no filesystem that qimg knows"),
                }))
            }
        }
    }

    /// The part that `selector` names.
    fn part(&self, selector: &Selector) -> Result<usize> {
        if let Some(index) = self.layout.find(selector)? {
            return Ok(index);
        }
        let index = self.layout.places.iter().position(|place| {
            let Ok(identities) = identify(&place.volume) else {
                return false;
            };
            identities.iter().any(|identity| match selector {
                Selector::Label(label) => identity.label.as_deref() == Some(label),
                Selector::Uuid(uuid) => identity
                    .uuid
                    .as_deref()
                    .is_some_and(|own| own.eq_ignore_ascii_case(uuid)),
                _ => false,
            })
        });
        index.ok_or_else(|| self.layout.no_such(selector))
    }

    fn choose_root(&self) -> Result<usize> {
        let readable: Vec<(usize, &dyn Tree)> = self
            .trees
            .iter()
            .enumerate()
            .filter_map(|(index, tree)| match tree {
                Ok(Some(tree)) => Some((index, &**tree)),
                _ => None,
            })
            .collect();
        let is_root = |tree: &dyn Tree| {
            ["/etc/os-release", "/usr/lib/os-release"]
                .iter()
                .any(|path| matches!(resolve(tree, path.as_bytes(), LastLink::Keep), Ok(Some(_))))
        };
        let mut roots = readable.iter().filter(|(_, tree)| is_root(*tree));
        if let (Some((index, _)), None) = (roots.next(), roots.next()) {
            return Ok(*index);
        }
        let across = readable.iter().find(|(index, _)| {
            let place = self.layout.places.get(*index);
            place.is_some_and(|place| matches!(place.origin, Origin::Disk))
        });
        match readable.as_slice() {
            _ if across.is_some() => Ok(across.map_or(0, |(index, _)| *index)),
            [(index, _)] => Ok(*index),
            [] => {
                // With one part alone its own reason is the answer.
                if self.trees.len() == 1 {
                    self.tree(0)?;
                }
                let failed = self.trees.iter().position(Result::is_err);
                if let Some(part) = failed {
                    self.tree(part)?;
                }
                Err(Error::unsupported(
                    "the disk has no filesystem whose files qimg reads",
                ))
            }
            several => {
                let names: Vec<String> = several
                    .iter()
                    .filter_map(|(index, tree)| {
                        let name = self.layout.places.get(*index)?.name();
                        Some(format!("{name} ({})", tree.format()))
                    })
                    .collect();
                Err(Error::usage(
                    "the disk has more than one filesystem, and none holds a system's root",
                )
                .with_remedy(format!("choose one with --partition: {}", names.join(", "))))
            }
        }
    }

    /// What the root's fstab(5) mounts of this disk.
    fn fstab(&self) -> Vec<(Vec<u8>, usize)> {
        let Ok(tree) = self.tree(self.root) else {
            return Vec::new();
        };
        let Ok(Some(found)) = resolve(tree, b"/etc/fstab", LastLink::Follow) else {
            return Vec::new();
        };
        let Ok(text) = read_start(tree, found.node, FSTAB) else {
            return Vec::new();
        };
        let text = String::from_utf8_lossy(&text);
        let mut mounts: Vec<(Vec<u8>, usize)> = text
            .lines()
            .filter_map(|line| {
                let mut fields = line.split_whitespace();
                let (device, point) = (fields.next()?, fields.next()?);
                let selector: Selector = device.parse().ok()?;
                let point = point.trim_end_matches('/');
                let part = self.part(&selector).ok()?;
                (point.starts_with('/') && part != self.root)
                    .then(|| (point.as_bytes().to_vec(), part))
            })
            .take(64)
            .collect();
        mounts.sort_by_key(|(point, _)| std::cmp::Reverse(point.len()));
        mounts
    }
}

/// A name in a directory, and what it names.
#[derive(Debug, Clone)]
pub struct Listed {
    /// As found.
    pub name: Vec<u8>,
    /// What it is.
    pub found: Found,
    /// Where it points, of a symlink.
    pub target: Option<Vec<u8>>,
}

/// The names in the directory `node`, sorted.
///
/// # Errors
/// The directory cannot be read; more than `limit` names.
pub fn list(tree: &dyn Tree, node: Node, limit: usize) -> Result<Vec<Listed>> {
    let mut names = Vec::new();
    let mut too_many = false;
    tree.read_dir(node, &mut |entry| {
        too_many = names.len() >= limit;
        if too_many {
            return ControlFlow::Break(());
        }
        names.push((entry.name.to_vec(), entry.node));
        ControlFlow::Continue(())
    })?;
    if too_many {
        return Err(Error::unsupported(format!(
            "a directory of more than {limit} names"
        )));
    }
    names.sort();
    names
        .into_iter()
        .map(|(name, node)| {
            let metadata = tree.metadata(node)?;
            Ok(Listed {
                name,
                found: Found { node, metadata },
                target: match metadata.kind {
                    FileKind::Symlink => Some(tree.read_link(node)?),
                    _ => None,
                },
            })
        })
        .collect()
}
