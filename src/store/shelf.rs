//! Directories in which files are kept for later: what is there, and what becomes of it.
//!
//! Knows names, sizes, times and durability. Must not know what the files hold.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::{Errno, retry_on_intr};

use super::FileId;
use super::staged::open_parent;
use crate::error::{Error, Result};

/// What kind of thing has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

/// What a look at a name shows. Equal looks at a file mean that nobody wrote it between them, unless the host's clock
/// stood still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What it is.
    pub kind: Kind,
    /// Length in bytes.
    pub length: u64,
    /// Bytes it occupies on the host.
    pub allocated: u64,
    /// When its contents changed: seconds since 1970, and nanoseconds.
    pub modified: (i64, i64),
    /// When anything of it changed; no program can set this.
    pub changed: (i64, i64),
    /// Which file it is.
    pub identity: FileId,
}

impl Seen {
    fn new(metadata: &std::fs::Metadata) -> Self {
        Self {
            kind: if metadata.is_file() {
                Kind::File
            } else if metadata.is_dir() {
                Kind::Directory
            } else {
                Kind::Other
            },
            length: metadata.len(),
            allocated: metadata.blocks().saturating_mul(512),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            identity: FileId::Inode {
                dev: metadata.dev(),
                ino: metadata.ino(),
            },
        }
    }
}

/// Looks at what `path` names, links followed; nothing, where nothing is there.
///
/// # Errors
/// The host cannot tell.
pub fn look(path: impl AsRef<Path>) -> Result<Option<Seen>> {
    let path = path.as_ref();
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(Seen::new(&metadata))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("query the file", error).at_path(path)),
    }
}

/// The names in a directory, sorted; none, where there is no such directory.
///
/// # Errors
/// The directory cannot be read.
pub fn names_in(directory: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let directory = directory.as_ref();
    let failed = |error| Error::io("list the directory", error).at_path(directory);
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(failed)?;
    names.sort_unstable();
    Ok(names)
}

/// Makes a directory, and those above it.
///
/// # Errors
/// The host refuses, or something else has the name.
pub fn make_directory(directory: impl AsRef<Path>) -> Result<()> {
    let directory = directory.as_ref();
    std::fs::create_dir_all(directory)
        .map_err(|error| Error::io("make the directory", error).at_path(directory))
}

/// Makes a directory that only its owner may look into, and those above it as usual. One that is there is made so.
///
/// # Errors
/// The host refuses, or something else has the name.
pub fn make_private_directory(directory: impl AsRef<Path>) -> Result<()> {
    let directory = directory.as_ref();
    if let Some(parent) = directory.parent() {
        make_directory(parent)?;
    }
    match retry_on_intr(|| rustix::fs::mkdir(directory, Mode::RWXU)) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => retry_on_intr(|| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = rustix::fs::open(directory, flags, Mode::empty())?;
            rustix::fs::fchmod(&directory, Mode::RWXU)
        }),
        Err(errno) => Err(errno),
    }
    .map_err(|errno| Error::io("make the directory", errno.into()).at_path(directory))
}

/// Removes a file; one that is not there is removed already.
///
/// # Errors
/// The host refuses.
pub fn remove_file(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", error).at_path(path))
        }
        _ => Ok(()),
    }
}

/// Removes a directory if nothing is in it; whether it is gone.
///
/// # Errors
/// The host refuses for another reason than that something is in it.
pub fn remove_empty_directory(path: impl AsRef<Path>) -> Result<bool> {
    let path = path.as_ref();
    match retry_on_intr(|| rustix::fs::rmdir(path)) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(errno) => Err(Error::io("remove the directory", errno.into()).at_path(path)),
    }
}

/// Removes a directory with all that is in it; one that is not there is removed already. No link is followed.
///
/// # Errors
/// The host refuses.
pub fn remove_tree(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", error).at_path(path))
        }
        _ => Ok(()),
    }
}

/// Gives a file another name on the same file system, replacing what has it, in one step that survives a power loss.
///
/// # Errors
/// The host refuses.
pub fn move_file(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    std::fs::rename(from, to).map_err(|error| Error::io("rename", error).at_path(from))?;
    let directory = open_parent(to)?;
    match retry_on_intr(|| rustix::fs::fsync(&directory)) {
        // Some file systems do not sync a directory; the name is there all the same.
        Ok(()) | Err(Errno::BADF | Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(Error::io("sync the directory", errno.into()).at_path(to)),
    }
}

/// As [`move_file`], also to another file system: then the bytes are copied, and `from` is removed. Nothing is synced.
///
/// # Errors
/// The host refuses; nothing is left at `to` then.
pub fn move_anywhere(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    match std::fs::rename(from, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            if let Err(error) = std::fs::copy(from, to) {
                remove_file(to)?;
                return Err(Error::io("copy", error).at_path(from));
            }
            remove_file(from)
        }
        Err(error) => Err(Error::io("rename", error).at_path(from)),
    }
}

/// Lets nobody but its owner read or write a file.
///
/// # Errors
/// The host refuses.
pub fn make_private(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    retry_on_intr(|| rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR))
        .map_err(|errno| Error::io("make it private", errno.into()).at_path(path))
}

/// Makes the bytes of a file survive a power loss.
///
/// # Errors
/// The host refuses.
pub fn sync_file(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))
        .and_then(|file| retry_on_intr(|| rustix::fs::fsync(&file)))
        .map_err(|errno| Error::io("sync", errno.into()).at_path(path))
}

/// Makes `link` lead to `target`, a path from its own directory on, instead of wherever it led, in one step.
///
/// # Errors
/// The host refuses, or `link` is something else than a link.
pub fn point_to(link: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<()> {
    let link = link.as_ref();
    match std::fs::symlink_metadata(link) {
        Ok(metadata) if !metadata.file_type().is_symlink() => {
            return Err(Error::usage("is there, and is no link").at_path(link));
        }
        _ => {}
    }
    // Whoever makes the same link at the same time has to be kept away by the caller.
    let mut name = std::ffi::OsString::from(".");
    name.push(link.file_name().unwrap_or_default());
    name.push(".new");
    let temporary = link.with_file_name(name);
    remove_file(&temporary)?;
    std::os::unix::fs::symlink(target, &temporary)
        .map_err(|error| Error::io("make a link", error).at_path(&temporary))?;
    move_file(&temporary, link).inspect_err(|_| {
        let _ = remove_file(&temporary);
    })
}

/// Gives a file the present as its time of modification, for whoever asks when it was used last.
///
/// Nothing may depend on it: a host that refuses is no failure.
pub fn mark_used(path: impl AsRef<Path>) {
    let at = |nanoseconds| Timespec {
        tv_sec: 0,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: at(UTIME_OMIT),
        last_modification: at(UTIME_NOW),
    };
    let _ = rustix::fs::utimensat(CWD, path.as_ref(), &times, AtFlags::empty());
}

/// Bytes that this process may still write to the file system that holds `path`.
///
/// # Errors
/// The host cannot tell.
pub fn free_bytes(path: impl AsRef<Path>) -> Result<u64> {
    let path = path.as_ref();
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let stat = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))
        .and_then(|fd| rustix::fs::fstatvfs(&fd))
        .map_err(|errno| Error::io("query the file system", errno.into()).at_path(path))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_seen_and_what_is_not_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        make_directory(at("a/b")).unwrap();
        std::fs::write(at("a/file"), b"content").unwrap();
        let seen = look(at("a/file")).unwrap().unwrap();
        assert_eq!((seen.kind, seen.length), (Kind::File, 7));
        assert_eq!(look(at("a")).unwrap().unwrap().kind, Kind::Directory);
        assert_eq!(look(at("none")).unwrap(), None);
        assert_eq!(names_in(at("a")).unwrap(), [at("a/b"), at("a/file")]);
        assert!(names_in(at("none")).unwrap().is_empty());
        assert!(!remove_empty_directory(at("a")).unwrap());
        move_file(at("a/file"), at("a/b/file")).unwrap();
        assert_eq!(look(at("a/b/file")).unwrap().unwrap().length, 7);
        remove_file(at("a/b/file")).unwrap();
        remove_file(at("a/b/file")).unwrap();
        assert!(remove_empty_directory(at("a/b")).unwrap());
        assert!(remove_empty_directory(at("a")).unwrap());
        assert!(free_bytes(directory.path()).unwrap() > 0);
        std::fs::write(at("now"), b"").unwrap();
        assert_ne!(look(at("now")).unwrap().unwrap().changed, seen.changed);
    }
}
