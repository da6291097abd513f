//! A directory tree beside its destination, until it is complete.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{
    Attributes, Contents, Obstacle, Sync, Target, apply, check_name, identity, mode, removal, stat,
    times,
};
use crate::error::Result;

/// Directories that are held open, from the current one upwards; those above are found again by `..`.
const HELD: usize = 32;

/// What the user alone can do with a directory.
const PRIVATE: Mode = Mode::RWXU;

/// A directory of a [`FileTree`], to find it again.
#[derive(Debug, Clone)]
pub struct Place(Arc<Step>);

#[derive(Debug)]
struct Step {
    parent: Option<Place>,
    name: Box<[u8]>,
}

impl Place {
    fn within(self, name: &[u8]) -> Self {
        Self(Arc::new(Step {
            parent: Some(self),
            name: name.into(),
        }))
    }

    /// From the root on.
    fn names(&self) -> Vec<&[u8]> {
        let mut names = Vec::new();
        let mut step = &*self.0;
        while let Some(parent) = &step.parent {
            names.push(&*step.name);
            step = &parent.0;
        }
        names.reverse();
        names
    }
}

/// A directory on the way from the root to the current one.
#[derive(Debug)]
struct Level {
    fd: Option<OwnedFd>,
    identity: (u64, u64),
    place: Place,
}

/// A new directory with all that is in it, which takes its destination's name when it is complete.
///
/// There is one current directory, the root at first: [`FileTree::enter`] makes one in it and goes there,
/// [`FileTree::leave`] comes back. Everything else is made in the current directory.
#[derive(Debug)]
pub struct FileTree {
    target: Target,
    /// None once it is renamed.
    temporary: Option<String>,
    root: OwnedFd,
    /// The way to the current directory below the root.
    levels: Vec<Level>,
    root_place: Place,
    /// Modes that would keep the user out, for the end: hard links may have to be made to what is inside.
    closed: Vec<(Place, Attributes)>,
}

impl FileTree {
    /// Begins a directory that is to become `destination`.
    ///
    /// # Errors
    /// Something is there; the directory it is to be in is missing or cannot be written.
    pub fn create(destination: &Path) -> Result<Self> {
        let target = Target::new(destination)?;
        if target.standing()?.is_some() {
            return Err(target.exists());
        }
        let fail = |errno| target.error("create a temporary directory beside it", errno);
        let temporary = loop {
            // Freshly and randomly keyed: names need to differ, nothing else depends on them.
            let unique = RandomState::new().build_hasher().finish();
            let name = format!(".qimg-{unique:016x}.tmp");
            match retry_on_intr(|| rustix::fs::mkdirat(&target.parent, &name, PRIVATE)) {
                Ok(()) => break name,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(fail(errno)),
            }
        };
        let opened = open(target.parent.as_fd(), temporary.as_bytes()).and_then(|root| {
            // What is not empty is not what was just made.
            let empty = is_empty(root.as_fd())?;
            if empty {
                Ok(root)
            } else {
                Err(Errno::NOTEMPTY)
            }
        });
        let root = match opened {
            Ok(root) => root,
            Err(errno) => {
                let _ = rustix::fs::unlinkat(&target.parent, &temporary, AtFlags::REMOVEDIR);
                return Err(fail(errno));
            }
        };
        Ok(Self {
            target,
            temporary: Some(temporary),
            root,
            levels: Vec::new(),
            root_place: Place(Arc::new(Step {
                parent: None,
                name: Box::default(),
            })),
            closed: Vec::new(),
        })
    }

    /// The current directory.
    pub fn place(&self) -> Place {
        let level = self.levels.last();
        level.map_or(&self.root_place, |level| &level.place).clone()
    }

    /// Makes the directory `name` and goes there.
    ///
    /// # Errors
    /// As every [`Obstacle`] says; the current directory is then what it was.
    pub fn enter(&mut self, name: &[u8]) -> Result<(), Obstacle> {
        let name_here = check_name(name)?;
        let here = self.here()?;
        retry_on_intr(|| rustix::fs::mkdirat(here, name_here, PRIVATE)).map_err(|errno| {
            Obstacle::making("create a directory", errno, &self.target.destination)
        })?;
        let fail = |errno| Obstacle::Failed(self.target.error("open a new directory", errno));
        let fd = open(here, name).map_err(fail)?;
        let stat = rustix::fs::fstat(&fd).map_err(fail)?;
        let level = Level {
            fd: Some(fd),
            identity: identity(&stat),
            place: self.place().within(name),
        };
        self.levels.push(level);
        if let Some(above) = self.levels.len().checked_sub(HELD + 1)
            && let Some(level) = self.levels.get_mut(above)
        {
            level.fd = None;
        }
        Ok(())
    }

    /// Gives the current directory its attributes and goes back to the one that it is in.
    ///
    /// # Errors
    /// When the host fails, or somebody exchanged the directories. In the root it does nothing.
    pub fn leave(&mut self, attributes: &Attributes) -> Result<()> {
        let Some(Level {
            fd: Some(fd),
            place,
            ..
        }) = self.levels.pop()
        else {
            return Ok(());
        };
        let fail = |errno| self.target.error("go back from a directory", errno);
        if let Some(above) = self.levels.last_mut()
            && above.fd.is_none()
        {
            let found = open(fd.as_fd(), b"..").map_err(fail)?;
            let stat = rustix::fs::fstat(&found).map_err(fail)?;
            if identity(&stat) != above.identity {
                return Err(fail(Errno::STALE));
            }
            above.fd = Some(found);
        }
        let mut now = *attributes;
        if attributes.permissions & 0o700 != 0o700 {
            self.closed.push((place, *attributes));
            now.permissions |= 0o700;
        }
        apply(fd.as_fd(), &now).map_err(|errno| {
            self.target
                .error("set times and mode of a directory", errno)
        })
    }

    /// Makes the file `name`, still empty.
    ///
    /// # Errors
    /// As every [`Obstacle`] says.
    pub fn file(&self, name: &[u8]) -> Result<Contents, Obstacle> {
        let name = check_name(name)?;
        let here = self.here()?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = retry_on_intr(|| rustix::fs::openat(here, name, flags, mode))
            .map_err(|errno| Obstacle::making("create a file", errno, &self.target.destination))?;
        Ok(Contents {
            fd,
            destination: Arc::clone(&self.target.destination),
        })
    }

    /// Removes the file `name` that was made in the current directory.
    ///
    /// # Errors
    /// When the host fails.
    pub fn remove(&self, name: &[u8]) -> Result<(), Obstacle> {
        let name = check_name(name)?;
        let here = self.here()?;
        retry_on_intr(|| rustix::fs::unlinkat(here, name, AtFlags::empty())).map_err(|errno| {
            Obstacle::new("remove an unfinished file", errno, &self.target.destination)
        })
    }

    /// Makes the symlink `name` with `target` as it is.
    ///
    /// # Errors
    /// As every [`Obstacle`] says.
    pub fn symlink(
        &self,
        name: &[u8],
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<(), Obstacle> {
        let name = check_name(name)?;
        if target.is_empty() || target.contains(&0) {
            return Err(Obstacle::Name(
                "the symlink's target is empty or holds a NUL",
            ));
        }
        let here = self.here()?;
        retry_on_intr(|| rustix::fs::symlinkat(target, here, name)).map_err(|errno| {
            Obstacle::making("create a symlink", errno, &self.target.destination)
        })?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        super::permitted(rustix::fs::utimensat(here, name, &times(attributes), flags)).map_err(
            |errno| {
                Obstacle::new(
                    "set the times of a symlink",
                    errno,
                    &self.target.destination,
                )
            },
        )?;
        Ok(())
    }

    /// Makes `name` another name of the file that was made as `first` in `place`; false, and nothing is made, where
    /// the file system has no such names, or no more of them.
    ///
    /// # Errors
    /// As every [`Obstacle`] says.
    pub fn hard_link(&self, place: &Place, first: &[u8], name: &[u8]) -> Result<bool, Obstacle> {
        let (first, name) = (check_name(first)?, check_name(name)?);
        let here = self.here()?;
        let walked;
        let from = if Arc::ptr_eq(&place.0, &self.place().0) {
            here
        } else {
            match self.walk(place) {
                Ok(found) => walked = found,
                // Exchanged by somebody: the contents are copied again.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
                Err(errno) => {
                    let error = self.target.error("find a directory again", errno);
                    return Err(Obstacle::Failed(error));
                }
            }
            walked.as_fd()
        };
        let regular = stat(from, first)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        if !regular {
            return Ok(false);
        }
        match retry_on_intr(|| rustix::fs::linkat(from, first, here, name, AtFlags::empty())) {
            Ok(()) => Ok(true),
            Err(Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOENT) => {
                Ok(false)
            }
            Err(errno) => Err(Obstacle::making(
                "create a hard link",
                errno,
                &self.target.destination,
            )),
        }
    }

    /// Gives the tree its destination's name, in one step; `attributes` are the root's.
    ///
    /// # Errors
    /// When the host fails, or something took the name meanwhile: the destination is then as it was, and the tree is
    /// gone. Only when syncing the parent directory fails is the tree in place.
    pub fn commit(mut self, attributes: &Attributes, sync: Sync) -> Result<()> {
        // Each directory comes before those that it is in.
        for (place, attributes) in std::mem::take(&mut self.closed) {
            let set = self.walk(&place).and_then(|directory| {
                super::permitted(rustix::fs::fchmod(&directory, mode(&attributes)))
            });
            set.map_err(|errno| self.target.error("set the mode of a directory", errno))?;
        }
        apply(self.root.as_fd(), attributes)
            .map_err(|errno| self.target.error("set times and mode", errno))?;
        if sync == Sync::Full {
            retry_on_intr(|| rustix::fs::syncfs(&self.root))
                .map_err(|errno| self.target.error("sync the file system", errno))?;
        }
        if let Some(temporary) = &self.temporary {
            self.target.rename(temporary, self.root.as_fd(), false)?;
        }
        self.temporary = None;
        self.target.sync_name(self.root.as_fd(), sync)
    }

    fn here(&self) -> Result<BorrowedFd<'_>, Obstacle> {
        match self.levels.last() {
            None => Ok(self.root.as_fd()),
            Some(Level { fd: Some(fd), .. }) => Ok(fd.as_fd()),
            // The last one is always held.
            Some(_) => Err(Obstacle::Failed(
                self.target.error("find the current directory", Errno::BADF),
            )),
        }
    }

    /// Opens a directory made earlier, one name at a time.
    fn walk(&self, place: &Place) -> rustix::io::Result<OwnedFd> {
        let mut found: Option<OwnedFd> = None;
        for name in place.names() {
            let above = found.as_ref().unwrap_or(&self.root);
            found = Some(open(above.as_fd(), name)?);
        }
        match found {
            Some(found) => Ok(found),
            None => rustix::io::fcntl_dupfd_cloexec(&self.root, 0),
        }
    }
}

impl Drop for FileTree {
    fn drop(&mut self) {
        let Some(name) = self.temporary.take() else {
            return;
        };
        self.levels.clear();
        // There is nobody to tell.
        let _ = removal::remove(self.target.parent.as_fd(), name.as_bytes(), &self.root);
    }
}

/// Opens the directory `name` to make and find names in it.
pub(super) fn open(above: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    retry_on_intr(|| rustix::fs::openat(above, name, flags, Mode::empty()))
}

fn is_empty(directory: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    for entry in Dir::read_from(directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}
