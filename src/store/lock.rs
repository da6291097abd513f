//! QEMU's image locks, so that qimg and a running QEMU never surprise each other.
//!
//! Knows the byte ranges QEMU locks in an image file and what they mean. Must not
//! know who opens the file or why.
//!
//! QEMU (`block/file-posix.c`) takes shared open-file-description locks on single
//! bytes, which need not exist in the file:
//!
//! | byte | a shared lock on it says |
//! |---|---|
//! | 100 + permission | I use this permission |
//! | 200 + permission | I do not let others use this permission |
//!
//! Nothing is ever locked exclusively: whoever opens an image first declares what it
//! uses and what it does not share, then *tests* whether an exclusive lock would
//! conflict on the opposite bytes. Declaring before testing means that of two
//! openers at once at least one sees the other.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::error::{Error, ErrorKind, Result};

/// Whether to respect, and take, the locks by which QEMU guards an image in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Locking {
    /// Refuse an image that another process uses in a conflicting way, and guard it ourselves.
    #[default]
    Check,
    /// Neither look at locks nor take any: qemu-img's `-U`.
    Ignore,
}

/// What an opener does with an image and tolerates from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Reads, as the source of `qemu-img convert`; nobody may write or resize.
    Read,
    /// Writes and resizes; others may at most read without caring for changes.
    Write,
}

const USED: i64 = 100;
const UNSHARED: i64 = 200;

const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;
const WRITE_UNCHANGED: i64 = 2;
const RESIZE: i64 = 3;

impl Claim {
    fn uses(self) -> &'static [i64] {
        match self {
            Self::Read => &[CONSISTENT_READ],
            Self::Write => &[CONSISTENT_READ, WRITE, RESIZE],
        }
    }

    fn unshared(self) -> &'static [i64] {
        match self {
            Self::Read => &[WRITE, RESIZE],
            // QEMU's own writers share write-unchanged, because one process
            // coordinates them; another process must not write behind our back.
            Self::Write => &[WRITE, WRITE_UNCHANGED, RESIZE],
        }
    }
}

/// A child that another thread of this process forked holds all our descriptors, and their locks, until it has become
/// another program: a moment, but long enough to find a file locked that was just closed.
const PATIENCE: u32 = 10;
const PAUSE: Duration = Duration::from_millis(10);

/// Declares `claim` on the open file and checks it against everybody else's.
///
/// The locks last until the last descriptor of this opening is closed. A file system
/// without locks is treated as if nobody else used the file.
///
/// # Errors
/// [`Locked`](ErrorKind::Locked) when another opening conflicts; its path is for the caller to add.
pub(super) fn claim(file: impl AsFd, claim: Claim) -> Result<()> {
    let bytes = || {
        let used = claim.uses().iter().map(|permission| USED + permission);
        used.chain(
            claim
                .unshared()
                .iter()
                .map(|permission| UNSHARED + permission),
        )
    };
    for byte in bytes() {
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&lock(libc::F_RDLCK, byte))) {
            Ok(_) => {}
            Err(errno) if is_unsupported(errno) => return Ok(()),
            Err(Errno::EAGAIN | Errno::EACCES) => return Err(conflict(claim, true)),
            Err(errno) => return Err(Error::io("lock", errno.into())),
        }
    }
    let opposite = || {
        let used = claim.uses().iter().map(|permission| UNSHARED + permission);
        used.chain(claim.unshared().iter().map(|permission| USED + permission))
    };
    for byte in opposite() {
        let mut patience = PATIENCE;
        while is_locked(&file, byte)? {
            if patience == 0 {
                return Err(conflict(claim, is_locked(&file, USED + WRITE)?));
            }
            patience -= 1;
            std::thread::sleep(PAUSE);
        }
    }
    Ok(())
}

/// Whether another opening holds a lock on `byte`.
fn is_locked(file: impl AsFd, byte: i64) -> Result<bool> {
    let mut probe = lock(libc::F_WRLCK, byte);
    match fcntl(&file, FcntlArg::F_OFD_GETLK(&mut probe)) {
        Ok(_) => Ok(i32::from(probe.l_type) != libc::F_UNLCK),
        Err(errno) if is_unsupported(errno) => Ok(false),
        Err(errno) => Err(Error::io("query locks", errno.into())),
    }
}

fn lock(kind: i32, byte: i64) -> libc::flock {
    libc::flock {
        // The constants are 0, 1 and 2.
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        // Open file description locks demand it.
        l_pid: 0,
    }
}

fn is_unsupported(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EINVAL | Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS
    )
}

fn conflict(claim: Claim, held_for_writing: bool) -> Error {
    let message = if held_for_writing {
        "is held for writing by another process (a running QEMU?)"
    } else {
        "is in use by another process (a running QEMU?)"
    };
    let remedy = match claim {
        Claim::Read => "stop it, or read anyway with -U (--force-share)",
        Claim::Write => "stop it",
    };
    Error::new(ErrorKind::Locked, message).with_remedy(remedy)
}
