//! Removing a tree that was not completed, however deep it is.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode};
use rustix::io::{Errno, Result, retry_on_intr};

use super::identity;
use super::tree::open;

/// Removes all that is in `root`, and then `root` itself, which is `name` in `parent`.
///
/// No symlink is followed, and no directory left for another one than that it was entered from. Two directories are
/// open at a time.
///
/// # Errors
/// When the host fails; what was removed stays removed.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &[u8], root: &OwnedFd) -> Result<()> {
    // The user may be kept out by modes that were set already.
    let _ = rustix::fs::fchmod(root, Mode::RWXU);
    let mut here = rustix::io::fcntl_dupfd_cloexec(root, 0)?;
    // Where each open directory is, from the root down: the one above it, and its name there.
    let mut way: Vec<((u64, u64), Vec<u8>)> = Vec::new();
    loop {
        if let Some(inner) = clear(here.as_fd())? {
            let above = identity(&rustix::fs::fstat(&here)?);
            here = enter(here.as_fd(), &inner)?;
            way.push((above, inner));
            continue;
        }
        let Some((above, inner)) = way.pop() else {
            break;
        };
        let up = open(here.as_fd(), b"..")?;
        if identity(&rustix::fs::fstat(&up)?) != above {
            return Err(Errno::STALE);
        }
        retry_on_intr(|| rustix::fs::unlinkat(&up, inner.as_slice(), AtFlags::REMOVEDIR))?;
        here = up;
    }
    retry_on_intr(|| rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR))
}

/// Removes files from `directory` until it is empty, or a directory in it is found.
fn clear(directory: BorrowedFd<'_>) -> Result<Option<Vec<u8>>> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            return Ok(Some(name.to_bytes().to_vec()));
        }
        match retry_on_intr(|| rustix::fs::unlinkat(directory, name, AtFlags::empty())) {
            Ok(()) | Err(Errno::NOENT) => {}
            // A file system that does not tell kinds.
            Err(Errno::ISDIR) => return Ok(Some(name.to_bytes().to_vec())),
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

/// Opens the directory `name`, in which the user, who alone can be here, can then do everything.
fn enter(above: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let opened = match open(above, name) {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(above, name, Mode::RWXU, AtFlags::empty())?;
            open(above, name)
        }
        opened => opened,
    }?;
    let _ = rustix::fs::fchmod(&opened, Mode::RWXU);
    Ok(opened)
}
