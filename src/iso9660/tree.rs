//! The directories of a volume, from the paths of its files.
//!
//! Knows names and which directory holds which. Must not know records.

use std::collections::BTreeMap;

use super::{MAX_FILES, MAX_NAME};
use crate::error::{Error, Escaped, Result};

/// Levels of directories that the standard allows, the root among them (6.8.2.1).
const MAX_LEVELS: usize = 8;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    /// The file of this number.
    File(usize),
    /// The directory of this number.
    Directory(usize),
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) name: String,
    pub(super) node: Node,
}

/// A directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Directory {
    /// Its parent's number; the root is its own.
    pub(super) parent: usize,
    /// In the order in which they came.
    pub(super) children: Vec<Child>,
    by_name: BTreeMap<String, usize>,
}

impl Directory {
    /// What PX calls links: itself, its parent's name for it, and its directories' names for it.
    pub(super) fn links(&self) -> u32 {
        let directories = self
            .children
            .iter()
            .filter(|child| matches!(child.node, Node::Directory(_)));
        u32::try_from(directories.count() + 2).unwrap_or(u32::MAX)
    }
}

/// All directories; the first is the root.
///
/// # Errors
/// A name that the format does not hold, a name twice, too many of them, or too deep.
pub(super) fn directories<'a>(paths: impl Iterator<Item = &'a str>) -> Result<Vec<Directory>> {
    let mut all = vec![Directory::default()];
    for (file, path) in paths.enumerate() {
        if file >= MAX_FILES {
            return Err(Error::usage(format!("more than {MAX_FILES} files")));
        }
        let mut names: Vec<&str> = path.split('/').collect();
        let own = names.pop().unwrap_or_default();
        if names.len() + 1 > MAX_LEVELS {
            return Err(Error::usage(format!(
                "'{}' lies deeper than {MAX_LEVELS} directories",
                Escaped(path)
            )));
        }
        let mut at = 0;
        for name in names {
            at = descend(&mut all, at, name, path)?;
        }
        add(&mut all, at, own, path, Node::File(file))?;
    }
    Ok(all)
}

fn twice(path: &str) -> Error {
    Error::usage(format!("'{}' is there twice", Escaped(path)))
}

fn descend(all: &mut Vec<Directory>, at: usize, name: &str, path: &str) -> Result<usize> {
    let here = &all[at];
    match here
        .by_name
        .get(name)
        .map(|number| here.children[*number].node)
    {
        Some(Node::Directory(number)) => Ok(number),
        Some(Node::File(_)) => Err(twice(path)),
        None => {
            let number = all.len();
            // Their numbers have 16 bits in a path table.
            if number >= usize::from(u16::MAX) {
                return Err(Error::usage("too many directories"));
            }
            add(all, at, name, path, Node::Directory(number))?;
            all.push(Directory {
                parent: at,
                ..Directory::default()
            });
            Ok(number)
        }
    }
}

fn add(all: &mut [Directory], at: usize, name: &str, path: &str, node: Node) -> Result<()> {
    // Joliet is UCS-2: what lies beyond the basic plane has no place in it.
    let fits = !name.is_empty()
        && name.chars().count() <= MAX_NAME
        && name.len() <= 2 * MAX_NAME
        && name != "."
        && name != ".."
        && name
            .chars()
            .all(|c| !c.is_control() && !"/\\:*?;".contains(c) && u32::from(c) < 0x1_0000);
    if !fits {
        return Err(Error::usage(format!(
            "'{}': not a name for a file in such a volume",
            Escaped(path)
        )));
    }
    let directory = &mut all[at];
    let number = directory.children.len();
    if directory.by_name.insert(name.to_owned(), number).is_some() {
        return Err(twice(path));
    }
    directory.children.push(Child {
        name: name.to_owned(),
        node,
    });
    Ok(())
}
