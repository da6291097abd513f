//! The files and directories that a volume is made of.
//!
//! Knows what names FAT holds and that it takes no notice of their case; must not know how they are stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Escaped, Result};
use crate::store::{Memory, ReadAt};

/// Units of UTF-16 in a name.
const LONGEST_NAME: usize = 255;

/// Files and directories by their names.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The root is the first; what is in a directory comes after it.
    pub(super) nodes: Vec<Node>,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Directory(Directory),
    File(File),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Directory {
    /// By their names without case: so are they sorted, and so are they the same.
    pub(super) entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) node: usize,
}

#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) content: Arc<dyn ReadAt>,
    pub(super) length: u64,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// One with nothing in its root.
    pub fn new() -> Self {
        Self {
            nodes: vec![Node::Directory(Directory::default())],
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// Adds a file at `path`, whose names are separated by `/`; directories that are not there are made. What it
    /// contains is read when the volume is written.
    ///
    /// # Errors
    /// A name that FAT cannot hold; something of that name is there; a file that is too long, or whose length the host
    /// cannot tell.
    pub fn add_file(&mut self, path: &str, content: Arc<dyn ReadAt>) -> Result<()> {
        let length = content.len()?;
        if length > super::LONGEST_FILE {
            return Err(Error::usage(format!(
                "'{}' has {length} bytes; a file on FAT has {} at most",
                Escaped(path),
                super::LONGEST_FILE
            ))
            .with_remedy("leave it out, or put it on another filesystem"));
        }
        let (parent, name) = self.parent(path)?;
        self.insert(parent, name, path, Node::File(File { content, length }))?;
        Ok(())
    }

    /// As [`Tree::add_file`], with these bytes in it.
    ///
    /// # Errors
    /// As [`Tree::add_file`].
    pub fn add_bytes(&mut self, path: &str, bytes: Vec<u8>) -> Result<()> {
        self.add_file(path, Arc::new(Memory::from(bytes)))
    }

    /// Makes a directory at `path`, and those above it that are not there.
    ///
    /// # Errors
    /// A name that FAT cannot hold; a file of that name is there.
    pub fn add_directory(&mut self, path: &str) -> Result<()> {
        let mut names = path.split('/').filter(|name| !name.is_empty());
        names
            .try_fold(0, |parent, name| self.descend(parent, name, path))
            .map(drop)
    }

    /// The directory in which `path` is to be, and its own name.
    fn parent<'a>(&mut self, path: &'a str) -> Result<(usize, &'a str)> {
        let mut names = path.split('/').filter(|name| !name.is_empty());
        let name = names
            .next_back()
            .ok_or_else(|| Error::usage("a file needs a name"))?;
        let parent = names.try_fold(0, |parent, name| self.descend(parent, name, path))?;
        Ok((parent, name))
    }

    /// The directory `name` in `parent`, made if need be.
    fn descend(&mut self, parent: usize, name: &str, path: &str) -> Result<usize> {
        let found = match self.nodes.get(parent) {
            Some(Node::Directory(directory)) => directory.entries.get(&fold(name)),
            _ => None,
        };
        match found.map(|entry| (entry.node, self.nodes.get(entry.node))) {
            Some((node, Some(Node::Directory(_)))) => Ok(node),
            Some(_) => Err(taken(path, name)),
            None => self.insert(parent, name, path, Node::Directory(Directory::default())),
        }
    }

    fn insert(&mut self, parent: usize, name: &str, path: &str, node: Node) -> Result<usize> {
        check_name(name)?;
        let number = self.nodes.len();
        let Some(Node::Directory(directory)) = self.nodes.get_mut(parent) else {
            return Err(taken(path, name));
        };
        let folded = fold(name);
        if let Some(other) = directory.entries.get(&folded) {
            return Err(taken(path, &other.name));
        }
        let entry = Entry {
            name: name.to_owned(),
            node: number,
        };
        directory.entries.insert(folded, entry);
        self.nodes.push(node);
        Ok(number)
    }
}

fn taken(path: &str, other: &str) -> Error {
    Error::usage(format!(
        "'{}' has no place in the tree: '{}' is there, and FAT takes no notice of the case of names",
        Escaped(path),
        Escaped(other)
    ))
}

/// Names that differ in case alone are the same. A character whose capital is several stays what it is, as in the
/// tables that guests use.
fn fold(name: &str) -> String {
    name.chars()
        .map(|c| {
            let mut upper = c.to_uppercase();
            match (upper.next(), upper.next()) {
                (Some(upper), None) => upper,
                _ => c,
            }
        })
        .collect()
}

/// Fails for a name that FAT cannot hold, or that readers would change.
fn check_name(name: &str) -> Result<()> {
    let fault = if matches!(name, "." | "..") {
        "means a directory"
    } else if name.ends_with(['.', ' ']) {
        "ends in a dot or blank, which readers drop"
    } else if name.encode_utf16().count() > LONGEST_NAME {
        "is longer than 255 characters"
    } else if name
        .chars()
        .any(|c| c < ' ' || c == '\x7f' || "\"*:<>?\\|".contains(c))
    {
        "has a character that FAT does not allow: a control character or one of \" * : < > ? \\ |"
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::Usage,
        format!("the name '{}' {fault}", Escaped(name)),
    )
    .with_remedy("rename the file"))
}
