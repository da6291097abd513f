//! An output that appears under its name only when it is complete.
//!
//! Knows destinations, temporary siblings, renaming and durability. Must not know what is
//! written, nor why it ends: a caller that fails, panics or is cancelled drops the value.

use std::ffi::OsString;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::file::identity_of;
use super::{FileId, HostFile, HostRun, Locking, ReadAt, WriteAt, attributes, sweep};
use crate::error::{Error, Result};

/// As many symbolic links as the kernel follows.
const MAX_LINKS: usize = 40;

/// What must have happened when [`Staged::commit`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sync {
    /// The output and its name survive a power loss; at no time is there neither old nor new.
    #[default]
    Full,
    /// Other processes see the complete output. After a power loss it may be empty or damaged.
    None,
}

/// A file being written beside its destination, under a temporary name.
///
/// [`Staged::commit`] gives it the destination's name in one step; dropping it any earlier
/// removes it. A process that is killed leaves it, and the next [`Staged::create`] in the same
/// directory removes it.
///
/// A destination that exists is held under QEMU's locks as if it were being written, and hands
/// its owner, mode and extended attributes on. Any other destination gets the mode that open(2)
/// would have given it.
///
/// ```
/// use qimg::store::{Staged, Sync, WriteAt};
///
/// # let dir = tempfile::tempdir().unwrap();
/// let destination = dir.path().join("disk.raw");
/// let staged = Staged::create(&destination)?;
/// staged.write_all_at(b"bytes", 0)?;
/// assert!(!destination.exists());
/// staged.commit(Sync::Full)?;
/// assert_eq!(std::fs::read(&destination).unwrap(), b"bytes");
/// # Ok::<(), qimg::Error>(())
/// ```
#[derive(Debug)]
pub struct Staged {
    file: Arc<HostFile>,
    /// The destination with symbolic links followed.
    destination: PathBuf,
    directory: OwnedFd,
    name: OsString,
    /// Name in `directory`; none once it is renamed or removed.
    temporary: Option<String>,
    /// What the destination was, held until it is replaced.
    replaced: Option<HostFile>,
    locking: Locking,
}

/// Writes a small file as a whole: it appears complete and synced, or not at all.
///
/// # Errors
/// As [`Staged::create`] and [`Staged::commit`].
pub fn write_file(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let staged = Staged::create(path)?;
    staged.file().write_all_at(bytes, 0)?;
    staged.commit(Sync::Full)
}

impl Staged {
    /// Begins a new file that is to become `destination`.
    ///
    /// Symbolic links are followed: the link stays and what it names, existing or not, is replaced.
    ///
    /// # Errors
    /// [`Usage`](crate::error::ErrorKind::Usage) or [`Refused`](crate::error::ErrorKind::Refused)
    /// when `destination` is a directory or anything else that is not a regular file;
    /// [`Locked`](crate::error::ErrorKind::Locked) when another process uses it; an I/O error when
    /// its directory is missing or not writable, or the destination itself is not.
    pub fn create(destination: impl AsRef<Path>) -> Result<Self> {
        Self::create_with(destination, Locking::Check)
    }

    /// As [`Staged::create`]; with [`Locking::Ignore`] a destination is replaced even while it is
    /// in use. That is for a caller which itself holds the lock: one that rewrites its own input.
    ///
    /// # Errors
    /// As [`Staged::create`].
    pub fn create_with(destination: impl AsRef<Path>, locking: Locking) -> Result<Self> {
        let named = destination.as_ref();
        refuse_special(named)?;
        let destination = follow_links(named)?;
        let Some(name) = destination.file_name().map(OsString::from) else {
            return Err(is_directory(named));
        };
        let directory = open_parent(&destination).map_err(|error| error.at_path(named))?;

        let replaced = match HostFile::open_write(&destination, locking) {
            Ok(file) => Some(file),
            Err(error) if is_not_found(&error) => None,
            Err(error) => return Err(error),
        };
        // Whoever may not read what is replaced must not read it while it is being written.
        let mode = if replaced.is_some() { 0o600 } else { 0o666 };
        let (temporary, fd) =
            sweep::create_locked(&directory, Mode::from_raw_mode(mode)).map_err(|errno| {
                Error::io("create a temporary file beside it", errno.into()).at_path(named)
            })?;
        // From here on dropping cleans up. Messages name what the user named.
        let staged = Self {
            file: Arc::new(HostFile::from_new(fd, named)?),
            destination,
            directory,
            name,
            temporary: Some(temporary),
            replaced,
            locking,
        };
        let stat = rustix::fs::fstat(&*staged.file)
            .map_err(|errno| Error::io("query the file", errno.into()).at_path(named))?;
        sweep::sweep(&staged.directory, stat.st_uid);
        if let Some(replaced) = &staged.replaced {
            attributes::carry_over(replaced, &*staged.file).map_err(|errno| {
                Error::io("keep its owner, mode and attributes", errno.into()).at_path(named)
            })?;
        }
        Ok(staged)
    }

    /// The file being written. It stays open, and readable, for as long as the `Arc` lives.
    pub fn file(&self) -> Arc<HostFile> {
        Arc::clone(&self.file)
    }

    /// Gives the file its destination's name, replacing what was there, in one step.
    ///
    /// # Errors
    /// When the host fails to sync or rename: the destination is then as it was, and the new file
    /// is gone. Only when the very last step fails, syncing the directory, is the new file in
    /// place. [`Locked`](crate::error::ErrorKind::Locked) when another file took the
    /// destination's name meanwhile and is in use.
    pub fn commit(mut self, sync: Sync) -> Result<()> {
        if sync == Sync::Full {
            self.file.sync()?;
        }
        let newcomer = self.check_newcomer()?;
        let Some(temporary) = self.temporary.clone() else {
            return Ok(());
        };
        retry_on_intr(|| {
            rustix::fs::renameat(&self.directory, &temporary, &self.directory, &self.name)
        })
        .map_err(|errno| self.error("rename the finished file", errno))?;
        self.temporary = None;
        drop(newcomer);
        if sync == Sync::Full {
            self.sync_directory()?;
        }
        Ok(())
    }

    /// Whether this file system can share blocks of `from` with a file here: tried on a file that is gone at once.
    ///
    /// # Errors
    /// When the host refuses another temporary file.
    pub fn shares_blocks_with(&self, from: &HostFile) -> Result<bool> {
        let fail = |errno| self.error("create a temporary file", errno);
        let (name, trial) =
            sweep::create_locked(&self.directory, Mode::from_raw_mode(0o600)).map_err(fail)?;
        let shared = rustix::fs::ioctl_ficlone(&trial, from).is_ok();
        retry_on_intr(|| rustix::fs::unlinkat(&self.directory, &name, AtFlags::empty()))
            .map_err(fail)?;
        Ok(shared)
    }

    /// Removes the unfinished file, as dropping does, and tells if that fails.
    ///
    /// # Errors
    /// When the host refuses to remove it.
    pub fn discard(mut self) -> Result<()> {
        self.remove()
            .map_err(|errno| self.error("remove the unfinished file", errno))
    }

    /// Claims a file that took the destination's name since we looked.
    fn check_newcomer(&self) -> Result<Option<HostFile>> {
        let Ok(stat) = rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)
        else {
            return Ok(None);
        };
        let known = self.replaced.as_ref().and_then(ReadAt::identity);
        if known == Some(identity_of(&stat))
            || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
        {
            return Ok(None);
        }
        HostFile::open_write(&self.destination, self.locking).map(Some)
    }

    fn sync_directory(&self) -> Result<()> {
        match retry_on_intr(|| rustix::fs::fsync(&self.directory)) {
            Ok(()) => Ok(()),
            // A directory that may not be read could not be opened for syncing, and some file
            // systems do not sync one: sync everything there.
            Err(Errno::BADF | Errno::INVAL | Errno::OPNOTSUPP) => {
                retry_on_intr(|| rustix::fs::syncfs(&*self.file))
                    .map_err(|errno| self.error("sync the file system", errno))
            }
            Err(errno) => Err(self.error("sync the directory", errno)),
        }
    }

    fn remove(&mut self) -> Result<(), Errno> {
        match self.temporary.take() {
            Some(name) => {
                retry_on_intr(|| rustix::fs::unlinkat(&self.directory, &name, AtFlags::empty()))
            }
            None => Ok(()),
        }
    }

    fn error(&self, doing: &str, errno: Errno) -> Error {
        Error::io(doing, errno.into()).at_path(&self.destination)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // There is nobody to tell; the next run sweeps what stays.
        let _ = self.remove();
    }
}

impl ReadAt for Staged {
    fn len(&self) -> Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], host: u64) -> Result<()> {
        self.file.read_exact_at(buf, host)
    }

    fn run_at(&self, host: u64) -> Result<HostRun> {
        self.file.run_at(host)
    }

    fn will_need(&self, host: Range<u64>) {
        self.file.will_need(host);
    }

    fn allocated_bytes(&self) -> Result<u64> {
        self.file.allocated_bytes()
    }

    fn block_size(&self) -> u64 {
        self.file.block_size()
    }

    fn path(&self) -> Option<&Path> {
        self.file.path()
    }

    fn identity(&self) -> Option<FileId> {
        self.file.identity()
    }

    fn as_host_file(&self) -> Option<&HostFile> {
        Some(&self.file)
    }
}

impl WriteAt for Staged {
    fn write_all_at(&self, buf: &[u8], host: u64) -> Result<()> {
        self.file.write_all_at(buf, host)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len)
    }

    fn punch_hole(&self, host: Range<u64>) -> Result<()> {
        self.file.punch_hole(host)
    }

    fn deallocate(&self, host: Range<u64>) -> Result<bool> {
        self.file.deallocate(host)
    }

    fn can_deallocate(&self) -> Result<bool> {
        self.file.can_deallocate()
    }

    fn preallocate(&self, host: Range<u64>) -> Result<()> {
        self.file.preallocate(host)
    }

    fn sync(&self) -> Result<()> {
        self.file.sync()
    }

    fn copy_from(&self, from: &dyn ReadAt, from_host: u64, to_host: u64, len: u64) -> Result<u64> {
        self.file.copy_from(from, from_host, to_host, len)
    }
}

/// Refuses a destination that exists and is not a regular file.
fn refuse_special(destination: &Path) -> Result<()> {
    if destination.as_os_str().as_bytes().ends_with(b"/") {
        return Err(is_directory(destination));
    }
    let kind = match retry_on_intr(|| rustix::fs::stat(destination)) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        // It, its directory or what it links to does not exist: told apart later.
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => {
            return Err(Error::io("query the destination", errno.into()).at_path(destination));
        }
    };
    let refused = match kind {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => is_directory(destination),
        FileType::BlockDevice => Error::refused(
            "is a block device, and would be replaced by a file",
            "`qimg convert -n` writes to a device that is there",
        ),
        FileType::Fifo => Error::usage("is a pipe: an image needs random access"),
        FileType::Socket => Error::usage("is a socket: an image needs random access"),
        _ => Error::usage("is not a file that can hold an image"),
    };
    Err(refused.at_path(destination))
}

fn is_directory(destination: &Path) -> Error {
    Error::usage("is a directory")
        .with_remedy("name a file in it")
        .at_path(destination)
}

/// The name that `destination` comes to, whether or not a file is there.
fn follow_links(destination: &Path) -> Result<PathBuf> {
    let mut path = destination.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(target) = std::fs::read_link(&path) else {
            // Not a link, or nothing at all.
            return Ok(path);
        };
        // Relative to the link's directory; the kernel resolves any `..` in it.
        path = match path.parent() {
            Some(parent) => parent.join(target),
            None => target,
        };
    }
    Err(Error::io("follow the symbolic links", Errno::LOOP.into()).at_path(destination))
}

/// Opens the directory that holds `destination`, for syncing if it may be read.
pub(super) fn open_parent(destination: &Path) -> Result<OwnedFd> {
    let parent = match destination.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let open = |access| {
        let flags = access | OFlags::DIRECTORY | OFlags::CLOEXEC;
        retry_on_intr(|| rustix::fs::open(parent, flags, Mode::empty()))
    };
    let opened = match open(OFlags::RDONLY) {
        Err(Errno::ACCESS) => open(OFlags::PATH),
        opened => opened,
    };
    opened.map_err(|errno| match errno {
        Errno::NOENT => Error::io(
            format_args!("write there: directory {} does not exist", parent.display()),
            errno.into(),
        )
        .with_remedy("create the directory first"),
        _ => Error::io(
            format_args!("open directory {}", parent.display()),
            errno.into(),
        ),
    })
}

fn is_not_found(error: &Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|cause| cause.kind() == std::io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests;
