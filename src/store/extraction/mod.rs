//! Files made under somebody else's names, confined to one place.
//!
//! Knows names, modes, times and links of the host. Must not know where names and contents come
//! from: all of them are taken for hostile.
//!
//! [`KeptTree`] is a directory that may be there before, into which single files are put.
//! [`SingleFile`] is one file, [`FileTree`] a directory with all that is in it. Both are made under
//! a temporary name beside their destination, and take its name in one step when they are complete;
//! dropping them any earlier removes them. A process that is killed leaves a file to be swept by the
//! next run, but a directory to its user: nothing here removes a whole tree that it did not make.
//!
//! Every name is made relative to a directory that this process made and holds open, must be new
//! there, and is one name: no path is ever handed to the kernel, and no symlink is followed. Nobody
//! else can enter the temporary directory, so that whoever exchanges parts of it is the user.

mod kept_tree;
mod removal;
mod single;
mod tree;

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, RenameFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::{Errno, retry_on_intr};

use super::Sync;
use super::attributes::permitted;
use super::staged::open_parent;
use crate::error::{Error, Result};

pub use kept_tree::{KeptFile, KeptTree, make_directories};
pub use single::SingleFile;
pub use tree::{FileTree, Place};

/// The longest name that Linux takes, in bytes: `NAME_MAX`.
const NAME_MAX: usize = 255;

/// Permissions that a file may have; never set-user-id, set-group-id or sticky bits.
const PERMISSIONS: u16 = 0o777;

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970 in UTC.
    pub seconds: i64,
    /// Nanoseconds within the second; what exceeds a second is cut off.
    pub nanoseconds: u32,
}

/// What a file keeps besides its name and contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits; those above 0o777 are ignored.
    pub permissions: u16,
    /// Last read; left as it is where unknown.
    pub accessed: Option<Time>,
    /// Last write; left as it is where unknown.
    pub modified: Option<Time>,
}

/// Why a file was not made.
#[derive(Debug)]
pub enum Obstacle {
    /// The host has no such names.
    Name(&'static str),
    /// A file of that name was made before, or one whose name the file system takes for the same.
    Taken,
    /// The file system does not hold such a file; it may hold others.
    Unfit(Error),
    /// The host failed: it makes no sense to go on.
    Failed(Error),
}

impl Obstacle {
    fn new(doing: &str, errno: Errno, destination: &Path) -> Self {
        let error = Error::io(doing, errno.into()).at_path(destination);
        match errno {
            Errno::NAMETOOLONG
            | Errno::INVAL
            | Errno::ILSEQ
            | Errno::PERM
            | Errno::OPNOTSUPP
            | Errno::FBIG
            | Errno::OVERFLOW
            | Errno::MLINK => Self::Unfit(error),
            _ => Self::Failed(error),
        }
    }

    /// As [`Obstacle::new`], where something may have the name already.
    fn making(doing: &str, errno: Errno, destination: &Path) -> Self {
        match errno {
            Errno::EXIST => Self::Taken,
            errno => Self::new(doing, errno, destination),
        }
    }
}

/// The contents of a file that is being made.
#[derive(Debug)]
pub struct Contents {
    fd: OwnedFd,
    /// For messages.
    destination: Arc<Path>,
}

impl Contents {
    /// Writes all of `bytes` from `offset` on; what is left out is a hole.
    ///
    /// # Errors
    /// When the host fails to write.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), Obstacle> {
        let mut left = bytes;
        let mut at = offset;
        while !left.is_empty() {
            let written = retry_on_intr(|| rustix::io::pwrite(&self.fd, left, at))
                .map_err(|errno| self.obstacle("write", errno))?;
            left = match left.get(written..) {
                Some(rest) if written > 0 => rest,
                _ => return Err(self.obstacle("write", Errno::IO)),
            };
            at = at.saturating_add(written as u64);
        }
        Ok(())
    }

    /// Gives the file its size and attributes.
    ///
    /// # Errors
    /// When the host fails, or cannot have a file of that size.
    pub fn finish(&self, size: u64, attributes: &Attributes) -> Result<(), Obstacle> {
        if i64::try_from(size).is_err() {
            return Err(self.obstacle("set the length", Errno::FBIG));
        }
        retry_on_intr(|| rustix::fs::ftruncate(&self.fd, size))
            .map_err(|errno| self.obstacle("set the length", errno))?;
        apply(self.fd.as_fd(), attributes)
            .map_err(|errno| self.obstacle("set times and mode", errno))
    }

    fn obstacle(&self, doing: &str, errno: Errno) -> Obstacle {
        Obstacle::new(doing, errno, &self.destination)
    }
}

/// The directory of a destination, and its name there.
#[derive(Debug)]
struct Target {
    parent: OwnedFd,
    name: OsString,
    /// As the user named it.
    destination: Arc<Path>,
}

impl Target {
    fn new(destination: &Path) -> Result<Self> {
        let Some(name) = destination.file_name().map(OsString::from) else {
            return Err(Error::usage("names no file")
                .with_remedy("name a file or a new directory")
                .at_path(destination));
        };
        let parent = open_parent(destination).map_err(|error| error.at_path(destination))?;
        Ok(Self {
            parent,
            name,
            destination: Arc::from(destination),
        })
    }

    /// What has the destination's name; a symlink is not followed.
    fn standing(&self) -> Result<Option<FileType>> {
        match stat(self.parent.as_fd(), &self.name) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.error("query the destination", errno)),
        }
    }

    /// Gives what is called `temporary`, and is `file`, the destination's name.
    fn rename(&self, temporary: &str, file: BorrowedFd<'_>, replace: bool) -> Result<()> {
        // Whoever may write to the parent may have put something else there.
        let same = rustix::fs::fstat(file)
            .and_then(
                |held| Ok(identity(&held) == identity(&stat(self.parent.as_fd(), temporary)?)),
            )
            .map_err(|errno| self.error("find the finished copy", errno))?;
        if !same {
            return Err(self.error("find the finished copy", Errno::NOENT));
        }
        let rename = |flags| {
            retry_on_intr(|| {
                let parent = self.parent.as_fd();
                rustix::fs::renameat_with(parent, temporary, parent, &self.name, flags)
            })
        };
        let renamed = if replace {
            rename(RenameFlags::empty())
        } else {
            match rename(RenameFlags::NOREPLACE) {
                // A file system that cannot promise it: looked first, then.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => match self.standing()? {
                    Some(_) => Err(Errno::EXIST),
                    None => rename(RenameFlags::empty()),
                },
                renamed => renamed,
            }
        };
        renamed.map_err(|errno| match errno {
            Errno::EXIST if !replace => self.exists(),
            errno => self.error("rename the finished copy", errno),
        })
    }

    /// Makes the destination's name survive a power loss; `file` is what has it.
    fn sync_name(&self, file: BorrowedFd<'_>, sync: Sync) -> Result<()> {
        if sync == Sync::None {
            return Ok(());
        }
        match retry_on_intr(|| rustix::fs::fsync(&self.parent)) {
            // As for any staged file: a directory that cannot be synced alone.
            Err(Errno::BADF | Errno::INVAL | Errno::OPNOTSUPP) => {
                retry_on_intr(|| rustix::fs::syncfs(file))
            }
            synced => synced,
        }
        .map_err(|errno| self.error("sync the directory", errno))
    }

    fn exists(&self) -> Error {
        Error::refused("is there already", "name another destination").at_path(&*self.destination)
    }

    fn error(&self, doing: &str, errno: Errno) -> Error {
        Error::io(doing, errno.into()).at_path(&*self.destination)
    }
}

/// Whether the host can have a file called `name`: one name, and no way out.
fn check_name(name: &[u8]) -> Result<&OsStr, Obstacle> {
    use std::os::unix::ffi::OsStrExt;
    let why = match name {
        b"" => "the name is empty",
        b"." | b".." => "the name means a directory",
        name if name.contains(&b'/') => "the name holds a slash",
        name if name.contains(&0) => "the name holds a NUL",
        name if name.len() > NAME_MAX => "the name is longer than 255 bytes",
        name => return Ok(OsStr::from_bytes(name)),
    };
    Err(Obstacle::Name(why))
}

/// What the host's file system cannot keep is left out.
fn apply(file: BorrowedFd<'_>, attributes: &Attributes) -> rustix::io::Result<()> {
    permitted(rustix::fs::futimens(file, &times(attributes)))?;
    permitted(rustix::fs::fchmod(file, mode(attributes)))?;
    Ok(())
}

fn mode(attributes: &Attributes) -> Mode {
    Mode::from_raw_mode(u32::from(attributes.permissions & PERMISSIONS))
}

fn times(attributes: &Attributes) -> Timestamps {
    let time = |time: Option<Time>| match time {
        Some(time) => Timespec {
            tv_sec: time.seconds,
            tv_nsec: time.nanoseconds.min(999_999_999).into(),
        },
        None => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
    };
    Timestamps {
        last_access: time(attributes.accessed),
        last_modification: time(attributes.modified),
    }
}

/// Without following a symlink.
fn stat(directory: BorrowedFd<'_>, name: impl rustix::path::Arg) -> rustix::io::Result<Stat> {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Which file it is: device and inode.
fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}
