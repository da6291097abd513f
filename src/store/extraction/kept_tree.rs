//! A directory that may be there already, into which files are put.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::{Errno, retry_on_intr};

use super::tree::open;
use super::{Attributes, Contents, Obstacle, check_name, stat};
use crate::error::{Error, Result};
use crate::store::sweep;

/// Directories within each other at most.
const MOST_DEPTH: usize = 1024;

/// A directory of the user's with what is in it. What is put there takes the place of files of the same name, in one step
/// each; directories stay. No symlink below it is followed.
#[derive(Debug)]
pub struct KeptTree {
    root: OwnedFd,
    destination: Arc<Path>,
}

impl KeptTree {
    /// Opens the directory `destination`, and makes it and those it lies in, unless they are there.
    ///
    /// # Errors
    /// It is something else, or cannot be made.
    pub fn open(destination: &Path) -> Result<Self> {
        make_directories(destination)?;
        let flags = rustix::fs::OFlags::RDONLY
            | rustix::fs::OFlags::DIRECTORY
            | rustix::fs::OFlags::CLOEXEC;
        let root = retry_on_intr(|| rustix::fs::open(destination, flags, Mode::empty()))
            .map_err(|errno| Error::io("open the directory", errno.into()).at_path(destination))?;
        Ok(Self {
            root,
            destination: Arc::from(destination),
        })
    }

    /// Makes the directory of these names, each within the one before, unless it is there.
    ///
    /// # Errors
    /// A name is none, or something else has it; the host fails.
    pub fn directory(&self, names: &[&[u8]]) -> Result<(), Obstacle> {
        self.enter(names).map(drop)
    }

    /// Begins a file of these names; the directories it lies in are made.
    ///
    /// # Errors
    /// As for [`KeptTree::directory`].
    pub fn file(&self, names: &[&[u8]]) -> Result<KeptFile, Obstacle> {
        let (name, above) = names
            .split_last()
            .ok_or(Obstacle::Name("the name is empty"))?;
        let name = check_name(name)?.to_owned();
        let directory = self.enter(above)?;
        match stat(directory.as_fd(), &name) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return Err(Obstacle::Taken);
            }
            _ => {}
        }
        let (temporary, fd) = sweep::create_locked(&directory, Mode::from_raw_mode(0o600))
            .map_err(|errno| self.failed("create a temporary file", errno))?;
        Ok(KeptFile {
            directory,
            name,
            temporary: Some(temporary),
            contents: Contents {
                fd,
                destination: Arc::clone(&self.destination),
            },
        })
    }

    fn enter(&self, names: &[&[u8]]) -> Result<OwnedFd, Obstacle> {
        if names.len() > MOST_DEPTH {
            return Err(Obstacle::Name("too many directories within each other"));
        }
        let mut here = rustix::io::fcntl_dupfd_cloexec(&self.root, 0)
            .map_err(|errno| self.failed("open the directory", errno))?;
        for name in names {
            let name = check_name(name)?;
            here = self.enter_one(here.as_fd(), name)?;
        }
        Ok(here)
    }

    fn enter_one(&self, above: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Obstacle> {
        match open(above, name.as_bytes()) {
            Err(Errno::NOENT) => {
                match retry_on_intr(|| rustix::fs::mkdirat(above, name, Mode::from_raw_mode(0o777)))
                {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(self.failed("make a directory", errno)),
                }
                open(above, name.as_bytes())
            }
            opened => opened,
        }
        .map_err(|errno| match errno {
            // A file, or a symlink.
            Errno::NOTDIR | Errno::LOOP => Obstacle::Taken,
            errno => self.failed("open a directory", errno),
        })
    }

    fn failed(&self, doing: &str, errno: Errno) -> Obstacle {
        Obstacle::making(doing, errno, &self.destination)
    }
}

/// A file that gets its name when it is complete; dropped before, it is gone.
#[derive(Debug)]
pub struct KeptFile {
    directory: OwnedFd,
    name: std::ffi::OsString,
    temporary: Option<String>,
    contents: Contents,
}

impl KeptFile {
    /// Where its contents go.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Ends the file with this size and these attributes, and gives it its name.
    ///
    /// # Errors
    /// When the host fails, or a directory has the name.
    pub fn commit(mut self, size: u64, attributes: &Attributes) -> Result<(), Obstacle> {
        self.contents.finish(size, attributes)?;
        if let Some(temporary) = &self.temporary {
            retry_on_intr(|| {
                rustix::fs::renameat(&self.directory, temporary, &self.directory, &self.name)
            })
            .map_err(|errno| match errno {
                Errno::ISDIR | Errno::NOTEMPTY => Obstacle::Taken,
                errno => self.contents.obstacle("rename the finished file", errno),
            })?;
        }
        self.temporary = None;
        Ok(())
    }
}

impl Drop for KeptFile {
    fn drop(&mut self) {
        if let Some(name) = self.temporary.take() {
            // There is nobody to tell; the next run sweeps what stays.
            let _ = rustix::fs::unlinkat(&self.directory, name, AtFlags::empty());
        }
    }
}

/// Makes a directory of the user's, and those it lies in, unless they are there.
///
/// # Errors
/// It cannot be made, or is something else.
pub fn make_directories(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path)
        .map_err(|error| Error::io("make the directory", error).at_path(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Attributes = Attributes {
        permissions: 0o644,
        accessed: None,
        modified: None,
    };

    fn put(tree: &KeptTree, names: &[&[u8]], bytes: &[u8]) -> Result<(), Obstacle> {
        let file = tree.file(names)?;
        file.contents().write_at(bytes, 0)?;
        file.commit(bytes.len() as u64, &PLAIN)
    }

    #[test]
    fn files_take_the_place_of_files_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        let inside = directory.path().join("a/inside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), "outside").unwrap();
        let tree = KeptTree::open(&inside).unwrap();
        put(&tree, &[b"x", b"y"], b"one").unwrap();
        put(&tree, &[b"x", b"y"], b"two").unwrap();
        assert_eq!(std::fs::read(inside.join("x/y")).unwrap(), b"two");
        tree.directory(&[b"x", b"z"]).unwrap();
        assert!(matches!(put(&tree, &[b"x"], b""), Err(Obstacle::Taken)));
        assert!(matches!(
            put(&tree, &[b"x", b"y", b"z"], b""),
            Err(Obstacle::Taken)
        ));
        // Symlinks are replaced, never followed.
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        std::os::unix::fs::symlink(outside.join("file"), inside.join("file")).unwrap();
        assert!(put(&tree, &[b"link", b"file"], b"hostile").is_err());
        put(&tree, &[b"file"], b"inside").unwrap();
        assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"outside");
        for names in [
            &[b"..".as_slice(), b"x"][..],
            &[b"a/b"],
            &[b""],
            &[],
            &[b"."],
        ] {
            assert!(put(&tree, names, b"").is_err(), "{names:?}");
        }
        drop(tree.file(&[b"unfinished"]).unwrap());
        let mut left: Vec<_> = std::fs::read_dir(&inside)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["file", "link", "x"]);
    }
}
