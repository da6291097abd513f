//! Temporary files that tell by a lock whether their maker still lives.
//!
//! Knows the names of unfinished outputs, and how a killed run is told from a working one.
//! Must not know what is written to them, or where they go.
//!
//! A maker holds an exclusive `flock` on its temporary file, which the kernel releases when
//! the maker dies in any way. Between creating and locking the file a sweeper may take it
//! for an abandoned one; so whoever locked its new file looks whether it still has its name,
//! and makes another if not. A file system without `flock` is never swept.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, Result, retry_on_intr};

const PREFIX: &str = ".qimg-";
const SUFFIX: &str = ".tmp";
const UNIQUE_DIGITS: usize = 16;

/// A new, empty, locked file of `mode` (less the umask) in `directory`, and its name there.
///
/// # Errors
/// When the host refuses to create it.
pub(super) fn create_locked(directory: impl AsFd, mode: Mode) -> Result<(String, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        let name = unique_name();
        let file = match retry_on_intr(|| rustix::fs::openat(&directory, &name, flags, mode)) {
            Ok(file) => file,
            Err(Errno::EXIST) => continue,
            Err(errno) => return Err(errno),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // A sweeper has it. It is going to remove the file; whoever is first, it is gone.
            Err(Errno::WOULDBLOCK) => {
                let _ = rustix::fs::unlinkat(&directory, &name, AtFlags::empty());
            }
            // Swept before we locked it.
            Ok(()) if rustix::fs::fstat(&file)?.st_nlink == 0 => {}
            // Locked; or the file system has no locks, and so no sweepers.
            Ok(()) | Err(_) => return Ok((name, file)),
        }
    }
}

/// Removes the files in `directory` that makers of the same user left when they were killed.
///
/// What cannot be examined or removed stays: sweeping is a courtesy.
pub(super) fn sweep(directory: impl AsFd, user: u32) {
    let Ok(entries) = Dir::read_from(&directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().is_ok_and(is_ours) {
            let _ = remove_if_abandoned(&directory, name, user);
        }
    }
}

fn remove_if_abandoned(directory: impl AsFd, name: &std::ffi::CStr, user: u32) -> Result<()> {
    let named = || rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW);
    let stat = named()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_uid != user {
        return Ok(());
    }
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&directory, name, flags, Mode::empty())?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    // Under the lock nobody finishes or removes it; but the name may be another file's by now.
    let (locked, named) = (rustix::fs::fstat(&file)?, named()?);
    if (locked.st_dev, locked.st_ino) == (named.st_dev, named.st_ino) {
        rustix::fs::unlinkat(&directory, name, AtFlags::empty())?;
    }
    Ok(())
}

fn unique_name() -> String {
    // Freshly and randomly keyed: names need to differ, nothing else depends on them.
    let unique = RandomState::new().build_hasher().finish();
    format!("{PREFIX}{unique:0UNIQUE_DIGITS$x}{SUFFIX}")
}

fn is_ours(name: &str) -> bool {
    let unique = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_suffix(SUFFIX));
    unique.is_some_and(|unique| {
        unique.len() == UNIQUE_DIGITS
            && unique
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn open_dir(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_dead_one_goes_and_a_live_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let user = dir.path().metadata().unwrap().uid();
        let fd = open_dir(dir.path());
        let (dead, file) = create_locked(&fd, Mode::RUSR | Mode::WUSR).unwrap();
        drop(file);
        let (live, _file) = create_locked(&fd, Mode::RUSR | Mode::WUSR).unwrap();
        assert_eq!(names(dir.path()).len(), 2);
        assert!(names(dir.path()).contains(&dead));
        sweep(&fd, user);
        assert_eq!(names(dir.path()), [live]);
    }

    #[test]
    fn only_files_of_the_pattern_and_user_go() {
        let dir = tempfile::tempdir().unwrap();
        let user = dir.path().metadata().unwrap().uid();
        let fd = open_dir(dir.path());
        let others = [
            ".qimg-.tmp",
            ".qimg-0123456789abcde.tmp",
            ".qimg-0123456789abcdeX.tmp",
            ".qimg-0123456789abcdef.tmp.qcow2",
            "x.qimg-0123456789abcdef.tmp",
        ];
        for name in others {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let matching = dir.path().join(".qimg-0123456789abcdef.tmp");
        std::os::unix::fs::symlink("elsewhere", &matching).unwrap();
        sweep(&fd, user);
        assert_eq!(names(dir.path()).len(), others.len() + 1);

        std::fs::remove_file(&matching).unwrap();
        std::fs::write(&matching, "").unwrap();
        sweep(&fd, user.wrapping_add(1));
        assert!(matching.exists());
        sweep(&fd, user);
        assert!(!matching.exists());
    }

    #[test]
    fn makers_and_sweepers_at_once_lose_no_live_file() {
        let dir = tempfile::tempdir().unwrap();
        let user = dir.path().metadata().unwrap().uid();
        let fd = open_dir(dir.path());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        sweep(&fd, user);
                    }
                });
            }
            for _ in 0..2000 {
                let (name, file) = create_locked(&fd, Mode::RUSR | Mode::WUSR).unwrap();
                let path = dir.path().join(&name);
                let inode = rustix::fs::fstat(&file).unwrap().st_ino;
                assert_eq!(path.metadata().unwrap().ino(), inode);
                std::fs::remove_file(path).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
