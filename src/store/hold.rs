//! Names that are held: by one process alone, or by several that share.
//!
//! Knows a file that stands for something else, `flock` on it, and who holds it. Must not know what it stands for.
//!
//! The kernel gives a hold back however its holder dies. Who holds alone writes its process id into the file, for those
//! that wait; who shares writes nothing. A file that is removed while it is held stands for nothing any more: whoever
//! locked it afterwards notices that it lost its name, and makes another.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Error, Result};

/// Whether others may hold the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Nobody else.
    Alone,
    /// Others that share, too.
    Shared,
}

/// What an attempt to hold a name came to.
#[derive(Debug)]
pub enum Attempt {
    /// It is held until this is dropped.
    Held(Hold),
    /// Somebody else holds it.
    Busy {
        /// The process, where it holds alone and has said who it is.
        process: Option<u32>,
    },
}

/// A name that is held. Dropping it gives it back.
#[derive(Debug)]
pub struct Hold {
    file: OwnedFd,
    path: PathBuf,
    share: Share,
}

impl Hold {
    /// Tries to hold the name `path`, whose file is made if need be; never waits.
    ///
    /// # Errors
    /// The host refuses the file, or fails to lock it.
    pub fn attempt(path: impl AsRef<Path>, share: Share) -> Result<Attempt> {
        let path = path.as_ref();
        let operation = match share {
            Share::Alone => FlockOperation::NonBlockingLockExclusive,
            Share::Shared => FlockOperation::NonBlockingLockShared,
        };
        let failed = |errno: Errno| Error::io("hold", errno.into()).at_path(path);
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = retry_on_intr(|| rustix::fs::open(path, flags, Mode::from_raw_mode(0o666)))
                .map_err(failed)?;
            match retry_on_intr(|| rustix::fs::flock(&file, operation)) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    return Ok(Attempt::Busy {
                        process: written_process(&file),
                    });
                }
                // A file system without locks: as if nobody else were there.
                Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(errno) => return Err(failed(errno)),
            }
            let locked = rustix::fs::fstat(&file).map_err(failed)?;
            let named = rustix::fs::lstat(path);
            if named
                .is_ok_and(|named| (named.st_dev, named.st_ino) == (locked.st_dev, locked.st_ino))
            {
                let hold = Self {
                    file,
                    path: path.to_owned(),
                    share,
                };
                hold.sign();
                return Ok(Attempt::Held(hold));
            }
            // It was removed between opening and locking.
        }
    }

    /// Holds the name `path`, waiting for as long as others hold it. `waits` is told at once, and whenever another
    /// process is found to hold it, who that is.
    ///
    /// # Errors
    /// As [`Hold::attempt`]; [`Cancelled`](crate::ErrorKind::Cancelled) when `stop` says so.
    pub fn wait(
        path: impl AsRef<Path>,
        share: Share,
        stop: &(dyn Fn() -> bool + Send + Sync),
        waits: &mut dyn FnMut(Option<u32>),
    ) -> Result<Self> {
        const PAUSE: Duration = Duration::from_millis(50);
        let mut told = None;
        loop {
            match Self::attempt(&path, share)? {
                Attempt::Held(hold) => return Ok(hold),
                Attempt::Busy { process } => {
                    if told.is_none_or(|told| told != process && process.is_some()) {
                        waits(process);
                        told = Some(process);
                    }
                }
            }
            if stop() {
                return Err(Error::cancelled());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The file that stands for the name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file that stands for the name, which must be held alone.
    ///
    /// # Errors
    /// The host refuses.
    pub fn remove(self) -> Result<()> {
        retry_on_intr(|| rustix::fs::unlink(&self.path))
            .map_err(|errno| Error::io("remove", errno.into()).at_path(&self.path))
    }

    /// Says who holds alone. Nothing depends on it but a message.
    fn sign(&self) {
        if self.share == Share::Alone {
            let text = format!("{}\n", rustix::process::getpid().as_raw_nonzero());
            let _ = rustix::fs::ftruncate(&self.file, 0);
            let _ = rustix::io::pwrite(&self.file, text.as_bytes(), 0);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.share == Share::Alone {
            let _ = rustix::fs::ftruncate(&self.file, 0);
        }
    }
}

fn written_process(file: &OwnedFd) -> Option<u32> {
    let mut text = [0; 16];
    let read = rustix::io::pread(file, &mut text, 0).ok()?;
    std::str::from_utf8(&text[..read]).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_or_several_that_share() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("name");
        let held = |share| match Hold::attempt(&path, share).unwrap() {
            Attempt::Held(hold) => hold,
            Attempt::Busy { process } => panic!("held by {process:?}"),
        };
        let busy = |share| match Hold::attempt(&path, share).unwrap() {
            Attempt::Held(_) => panic!("nobody holds it"),
            Attempt::Busy { process } => process,
        };
        let alone = held(Share::Alone);
        assert_eq!(busy(Share::Alone), Some(std::process::id()));
        assert_eq!(busy(Share::Shared), Some(std::process::id()));
        drop(alone);
        let one = held(Share::Shared);
        let other = held(Share::Shared);
        assert_eq!(busy(Share::Alone), None);
        drop((one, other));
        held(Share::Alone).remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn who_waits_is_told_for_whom_and_may_stop() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("name");
        let Attempt::Held(first) = Hold::attempt(&path, Share::Alone).unwrap() else {
            panic!("nobody holds it");
        };
        let mut told = Vec::new();
        let error = Hold::wait(&path, Share::Shared, &|| true, &mut |process| {
            told.push(process);
        })
        .unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Cancelled);
        assert_eq!(told, [Some(std::process::id())]);
        let second = std::thread::scope(|scope| {
            let second = scope.spawn(|| Hold::wait(&path, Share::Alone, &|| false, &mut |_| {}));
            std::thread::sleep(Duration::from_millis(100));
            // Removed while another waits for it: the name is made anew.
            first.remove().unwrap();
            second.join().unwrap().unwrap()
        });
        assert!(second.path().exists());
    }
}
