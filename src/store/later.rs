//! Files that are opened when they are read: trees of them, more than a process may hold open at once.
//!
//! Knows host files and directories by their names. Must not know what is made of them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{FileId, HostFile, Locking, ReadAt};
use crate::error::{Error, ErrorKind, Result};

/// A regular file that is not held open. It must stay what it was.
#[derive(Debug)]
pub struct LaterFile {
    path: PathBuf,
    length: u64,
    identity: FileId,
    modified: (i64, i64),
}

impl LaterFile {
    /// Looks at the file that `path` names.
    ///
    /// # Errors
    /// There is none, or it is no regular file.
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path)
            .map_err(|error| Error::io("find the file", error).at_path(path))?;
        if !metadata.is_file() {
            return Err(Error::usage("is no regular file").at_path(path));
        }
        Ok(Self {
            path: path.to_owned(),
            length: metadata.len(),
            identity: FileId::Inode {
                dev: metadata.dev(),
                ino: metadata.ino(),
            },
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

impl ReadAt for LaterFile {
    fn len(&self) -> Result<u64> {
        Ok(self.length)
    }

    fn read_exact_at(&self, buf: &mut [u8], host: u64) -> Result<()> {
        let now = Self::new(&self.path)?;
        let same =
            (now.length, now.identity, now.modified) == (self.length, self.identity, self.modified);
        if !same {
            return Err(
                Error::new(ErrorKind::Io, "has changed while it was to be read")
                    .at_path(&self.path),
            );
        }
        HostFile::open_read(&self.path, Locking::Ignore)?.read_exact_at(buf, host)
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn identity(&self) -> Option<FileId> {
        Some(self.identity)
    }
}

/// What is in a directory of the host, or below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its path from the directory on, with `/` between names.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is a directory.
    pub is_directory: bool,
}

/// All files and directories below `directory`, each directory before what is in it, in the order of their names.
///
/// A symbolic link counts as the file that it leads to.
///
/// # Errors
/// A directory that cannot be read; a name that is not in UTF-8; a link to a directory; anything that is neither file nor
/// directory.
pub fn list_below(directory: impl AsRef<Path>) -> Result<Vec<Listed>> {
    let mut listed = Vec::new();
    let mut left = vec![(String::new(), directory.as_ref().to_owned())];
    while let Some((prefix, directory)) = left.pop() {
        let failed = |error| Error::io("list the directory", error).at_path(&directory);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let name = entry
                .file_name()
                .into_string()
                .map_err(|_| Error::usage("has a name that is not in UTF-8").at_path(&path))?;
            let kind = entry.file_type().map_err(failed)?;
            let is_directory = kind.is_dir();
            if !is_directory && !path.is_file() {
                return Err(Error::usage("is neither a file nor a directory")
                    .with_remedy("leave it out")
                    .at_path(&path));
            }
            found.push(Listed {
                name: format!("{prefix}{name}"),
                path,
                is_directory,
            });
        }
        found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let below = found.iter().rev().filter(|entry| entry.is_directory);
        left.extend(below.map(|entry| (format!("{}/", entry.name), entry.path.clone())));
        listed.extend(found);
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_later_and_noticed_when_they_change() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("b/c")).unwrap();
        std::fs::write(at("b/c/file"), b"content").unwrap();
        std::fs::write(at("a"), b"").unwrap();
        std::os::unix::fs::symlink(at("a"), at("link")).unwrap();
        let names: Vec<_> = list_below(directory.path())
            .unwrap()
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        assert_eq!(names, ["a", "b", "link", "b/c", "b/c/file"]);
        let file = LaterFile::new(at("b/c/file")).unwrap();
        let mut buf = [0; 3];
        file.read_exact_at(&mut buf, 4).unwrap();
        assert_eq!(&buf, b"ent");
        std::fs::write(at("b/c/file"), b"longer than before").unwrap();
        assert!(file.read_exact_at(&mut buf, 0).is_err());
        std::os::unix::fs::symlink(at("b"), at("loop")).unwrap();
        assert!(list_below(directory.path()).is_err());
        assert!(LaterFile::new(at("b")).is_err());
    }
}
