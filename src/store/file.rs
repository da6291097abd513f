//! A file or block device of the host behind [`ReadAt`] and [`WriteAt`].
//!
//! Knows what may be opened as an image, holes, host space and in-kernel copies.
//! Must not know formats, or when an output is complete (that is
//! [`Staged`](super::Staged)).

use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Advice, FallocateFlags, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::lock::{self, Claim};
use super::{FileId, HostRun, Locking, ReadAt, RunKind, WriteAt, loops};
use crate::error::{Error, ErrorKind, Result};

/// `st_blocks` counts these, whatever the block size of the file system.
const STAT_BLOCK: u64 = 512;

/// Where a device may demand aligned ranges; no logical block is larger.
const DEVICE_ALIGNMENT: u64 = 4096;

/// A regular file or block device of the host.
///
/// Its length is read once, when it is opened, and follows what is written through this
/// value. A file that another process cuts short is noticed when it is read: as an error
/// that names the host offset, never as zeros.
#[derive(Debug)]
pub struct HostFile {
    fd: OwnedFd,
    path: PathBuf,
    len: AtomicU64,
    identity: FileId,
}

impl HostFile {
    /// Opens an existing regular file or block device for reading.
    ///
    /// # Errors
    /// When it cannot be opened; [`Usage`](ErrorKind::Usage) when it is anything else, without
    /// ever blocking on it; [`Locked`](ErrorKind::Locked) when another process writes it.
    pub fn open_read(path: impl AsRef<Path>, locking: Locking) -> Result<Self> {
        Self::open(path.as_ref(), Claim::Read, locking)
    }

    /// Opens a file for reading that lies below `directory`, whatever `relative` and symbolic links say.
    ///
    /// The kernel resolves the path (openat2, `RESOLVE_BENEATH`), so that nobody can exchange a
    /// part of it between a check and the opening.
    ///
    /// # Errors
    /// As [`HostFile::open_read`]; and [`Refused`](ErrorKind::Refused) when the path leads out of `directory`.
    pub fn open_beneath(directory: &Path, relative: &Path, locking: Locking) -> Result<Self> {
        Self::open_resolved(directory, relative, Claim::Read, locking)
    }

    /// As [`HostFile::open_beneath`], for reading and writing in place.
    ///
    /// # Errors
    /// As [`HostFile::open_beneath`] and [`HostFile::open_write`].
    pub fn open_write_beneath(directory: &Path, relative: &Path, locking: Locking) -> Result<Self> {
        Self::open_resolved(directory, relative, Claim::Write, locking)
    }

    fn open_resolved(
        directory: &Path,
        relative: &Path,
        claim: Claim,
        locking: Locking,
    ) -> Result<Self> {
        let path = directory.join(relative);
        let base = retry_on_intr(|| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            // Names keep the user's spelling, in which the current directory may be empty.
            rustix::fs::open(Path::new(".").join(directory), flags, Mode::empty())
        })
        .map_err(|errno| Error::io("open", errno.into()).at_path(directory))?;
        let open = |flags: OFlags| {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            rustix::fs::openat2(
                &base,
                relative,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            )
        };
        // A descriptor that cannot read shows what the path leads to without setting a device off.
        match retry_on_intr(|| open(OFlags::PATH)) {
            Ok(seen) => {
                let stat = rustix::fs::fstat(&seen)
                    .map_err(|errno| Error::io("query the file", errno.into()).at_path(&path))?;
                refuse_special(&stat).map_err(|error| error.at_path(&path))?;
            }
            Err(Errno::XDEV) => {
                return Err(Error::refused(
                    "lies outside the directory it may be in",
                    "move it there, or allow any path",
                )
                .at_path(path));
            }
            Err(errno) => return Err(Error::io("open", errno.into()).at_path(path)),
        }
        Self::open_by(&path, claim, locking, open)
    }

    /// Opens an existing regular file or block device for reading and writing in place.
    ///
    /// Never creates and never truncates.
    ///
    /// # Errors
    /// As [`HostFile::open_read`]; and [`Locked`](ErrorKind::Locked) when another process reads
    /// it, or the system has mounted the device.
    pub fn open_write(path: impl AsRef<Path>, locking: Locking) -> Result<Self> {
        Self::open(path.as_ref(), Claim::Write, locking)
    }

    /// Creates a regular file that must not exist yet, with the mode the process's umask gives.
    ///
    /// Takes no locks: nobody can have it open.
    ///
    /// # Errors
    /// When the name is taken or the host refuses.
    pub fn create_new(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::open(path, flags, Mode::from_raw_mode(0o666)))
            .map_err(|errno| Error::io("create", errno.into()).at_path(path))?;
        Self::from_new(fd, path)
    }

    /// A file that was just created, called `path` in messages.
    pub(super) fn from_new(fd: OwnedFd, path: &Path) -> Result<Self> {
        let stat = rustix::fs::fstat(&fd)
            .map_err(|errno| Error::io("query the file", errno.into()).at_path(path))?;
        Ok(Self {
            fd,
            path: path.to_owned(),
            len: AtomicU64::new(0),
            identity: identity_of(&stat),
        })
    }

    fn open(path: &Path, claim: Claim, locking: Locking) -> Result<Self> {
        let failed = |errno: Errno| Error::io("open", errno.into()).at_path(path);
        // Opening alone can block on a FIFO, or set a device off: look first. What was
        // seen can change before the opening, so it does not block, and is looked at again.
        let stat = retry_on_intr(|| rustix::fs::stat(path)).map_err(failed)?;
        refuse_special(&stat).map_err(|error| error.at_path(path))?;

        let exclusive = is_block_device(&stat) && claim == Claim::Write;
        Self::open_by(path, claim, locking, |mut flags| {
            if exclusive && locking == Locking::Check {
                // Without CREATE this means: fail if the system itself uses the device.
                flags |= OFlags::EXCL;
            }
            rustix::fs::open(path, flags, Mode::empty())
        })
    }

    /// Opens by `open`, which adds to the given flags, and makes sure of what was opened.
    fn open_by(
        path: &Path,
        claim: Claim,
        locking: Locking,
        open: impl Fn(OFlags) -> rustix::io::Result<OwnedFd>,
    ) -> Result<Self> {
        let failed = |errno: Errno| Error::io("open", errno.into()).at_path(path);
        let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        flags |= match claim {
            Claim::Read => OFlags::RDONLY,
            Claim::Write => OFlags::RDWR,
        };
        let fd = match retry_on_intr(|| open(flags)) {
            Ok(fd) => fd,
            Err(Errno::BUSY) if claim == Claim::Write => {
                return Err(Error::new(
                    ErrorKind::Locked,
                    "is mounted, or held by another process",
                )
                .with_remedy("unmount it, or stop what uses it")
                .at_path(path));
            }
            Err(errno) => return Err(failed(errno)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        refuse_special(&stat).map_err(|error| error.at_path(path))?;

        if locking == Locking::Check {
            lock::claim(&fd, claim).map_err(|error| error.at_path(path))?;
            if claim == Claim::Write
                && let Some(device) = loops::holder(&stat)
            {
                return Err(Error::new(
                    ErrorKind::Locked,
                    format!("is in use by the loop device {}", device.display()),
                )
                .with_remedy("unmount what is on it, and detach it with `losetup --detach`")
                .at_path(path));
            }
        }
        // Only now: who held the lock before us may have changed the length.
        let len = rustix::fs::seek(&fd, SeekFrom::End(0)).map_err(failed)?;
        Ok(Self {
            fd,
            path: path.to_owned(),
            len: AtomicU64::new(len),
            identity: identity_of(&stat),
        })
    }

    fn error(&self, doing: impl fmt::Display, cause: impl Into<io::Error>, host: u64) -> Error {
        Error::io(doing, cause.into())
            .at_path(&self.path)
            .at_host(host)
    }

    fn stat(&self) -> Result<Stat> {
        rustix::fs::fstat(&self.fd)
            .map_err(|errno| Error::io("query the file", errno.into()).at_path(&self.path))
    }

    fn known_len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn is_device(&self) -> bool {
        matches!(self.identity, FileId::BlockDevice { .. })
    }

    fn check_device_holds(&self, len: u64) -> Result<()> {
        let size = self.known_len();
        if len <= size {
            return Ok(());
        }
        let message = format!("the device has {size} bytes, {len} are needed");
        Err(Error::usage(message).at_path(&self.path))
    }

    /// Writes zeros over a range inside the file.
    fn write_zeros(&self, host: Range<u64>) -> Result<()> {
        let zeros = vec![0; 1 << 16];
        let mut at = host.start;
        while at < host.end {
            let left = usize::try_from(host.end - at).unwrap_or(usize::MAX);
            let piece = &zeros[..left.min(zeros.len())];
            self.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Asks the kernel to make a range inside the file read as zeros, holes first; false if it cannot.
    fn clear(&self, host: &Range<u64>) -> Result<bool> {
        Ok(self.fallocate_zeros(FallocateFlags::PUNCH_HOLE, host)?
            || self.fallocate_zeros(FallocateFlags::ZERO_RANGE, host)?)
    }

    fn fallocate_zeros(&self, how: FallocateFlags, host: &Range<u64>) -> Result<bool> {
        if host.is_empty() {
            return Ok(true);
        }
        let len = host.end - host.start;
        let flags = how | FallocateFlags::KEEP_SIZE;
        match retry_on_intr(|| rustix::fs::fallocate(&self.fd, flags, host.start, len)) {
            Ok(()) => Ok(true),
            // Block devices say INVAL for a range they find unaligned.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => Ok(false),
            Err(errno) => Err(self.error("punch a hole", errno, host.start)),
        }
    }
}

impl AsFd for HostFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl ReadAt for HostFile {
    fn len(&self) -> Result<u64> {
        Ok(self.known_len())
    }

    fn read_exact_at(&self, buf: &mut [u8], host: u64) -> Result<()> {
        let whole = buf.len();
        let mut done = 0;
        while done < whole {
            let at = host.saturating_add(done as u64);
            match retry_on_intr(|| rustix::io::pread(&self.fd, &mut buf[done..], at)) {
                Ok(0) => {
                    let cause = io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("the file ends, {} bytes are missing", whole - done),
                    );
                    return Err(self.error("read", cause, at));
                }
                Ok(read) => done += read,
                Err(errno) => return Err(self.error("read", errno, at)),
            }
        }
        Ok(())
    }

    fn run_at(&self, host: u64) -> Result<HostRun> {
        let len = self.known_len();
        let run = |kind, end: u64| {
            Ok(HostRun {
                kind,
                end: end.min(len),
            })
        };
        if host >= len {
            return run(RunKind::Hole, len);
        }
        // The file position that this moves is used by nobody: all other access is positional.
        let failed = |errno| self.error("find the holes", errno, host);
        match rustix::fs::seek(&self.fd, SeekFrom::Data(host)) {
            Ok(data) if data > host => run(RunKind::Hole, data),
            Ok(_) => match rustix::fs::seek(&self.fd, SeekFrom::Hole(host)) {
                Ok(hole) => run(RunKind::Data, hole.max(host + 1)),
                Err(errno) => Err(failed(errno)),
            },
            Err(Errno::NXIO) => {
                // No data from here on: a hole up to the end, if the end is still there.
                let now = rustix::fs::seek(&self.fd, SeekFrom::End(0)).map_err(failed)?;
                if now < len {
                    let cause = io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("the file shrank from {len} to {now} bytes"),
                    );
                    return Err(self.error("find the holes", cause, now));
                }
                run(RunKind::Hole, len)
            }
            // A file system that keeps no holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => run(RunKind::Data, len),
            Err(errno) => Err(failed(errno)),
        }
    }

    fn will_need(&self, host: Range<u64>) {
        if let Some(len) = NonZeroU64::new(host.end.saturating_sub(host.start)) {
            // Advice: nothing depends on it.
            let _ = rustix::fs::fadvise(&self.fd, host.start, Some(len), Advice::WillNeed);
        }
    }

    fn allocated_bytes(&self) -> Result<u64> {
        let blocks = u64::try_from(self.stat()?.st_blocks).unwrap_or(0);
        Ok(blocks.saturating_mul(STAT_BLOCK))
    }

    fn block_size(&self) -> u64 {
        if self.is_device() {
            return DEVICE_ALIGNMENT;
        }
        // What a network file system calls its block size is its favourite length of a request.
        let told = self.stat().map_or(0, |stat| stat.st_blksize);
        u64::try_from(told)
            .ok()
            .filter(|size| size.is_power_of_two())
            .map_or(4096, |size| size.clamp(512, 1 << 16))
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn identity(&self) -> Option<FileId> {
        Some(self.identity)
    }

    fn as_host_file(&self) -> Option<&HostFile> {
        Some(self)
    }
}

impl WriteAt for HostFile {
    fn write_all_at(&self, buf: &[u8], host: u64) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = host.saturating_add(done as u64);
            match retry_on_intr(|| rustix::io::pwrite(&self.fd, &buf[done..], at)) {
                Ok(0) => return Err(self.error("write", io::ErrorKind::WriteZero, at)),
                Ok(written) => done += written,
                Err(errno) => return Err(self.error("write", errno, at)),
            }
            self.len
                .fetch_max(host.saturating_add(done as u64), Ordering::AcqRel);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        if self.is_device() {
            return self.check_device_holds(len);
        }
        retry_on_intr(|| rustix::fs::ftruncate(&self.fd, len))
            .map_err(|errno| self.error("set the length", errno, len))?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    fn punch_hole(&self, host: Range<u64>) -> Result<()> {
        let host = host.start..host.end.min(self.known_len());
        if self.clear(&host)? {
            return Ok(());
        }
        // A device may take only whole blocks; its edges are written.
        let inner = host.start.next_multiple_of(DEVICE_ALIGNMENT)
            ..host.end / DEVICE_ALIGNMENT * DEVICE_ALIGNMENT;
        if inner.is_empty() || !self.clear(&inner)? {
            return self.write_zeros(host);
        }
        self.write_zeros(host.start..inner.start)?;
        self.write_zeros(inner.end..host.end)
    }

    /// On a block device PUNCH_HOLE means: zeros for certain, by unmapping, or not at all. So it does what a plain
    /// discard, which may leave anything behind, must not be trusted with.
    fn deallocate(&self, host: Range<u64>) -> Result<bool> {
        let host = host.start..host.end.min(self.known_len());
        self.fallocate_zeros(FallocateFlags::PUNCH_HOLE, &host)
    }

    /// A regular file is asked for a hole behind its end, where there is nothing to lose; a device cannot be asked.
    fn can_deallocate(&self) -> Result<bool> {
        if self.is_device() {
            return Ok(true);
        }
        let block = self.block_size();
        let behind = self.known_len().saturating_add(block) & !(block - 1);
        self.fallocate_zeros(
            FallocateFlags::PUNCH_HOLE,
            &(behind..behind.saturating_add(block)),
        )
    }

    fn preallocate(&self, host: Range<u64>) -> Result<()> {
        if host.is_empty() {
            return Ok(());
        }
        if self.is_device() {
            // All of it is there already.
            return self.check_device_holds(host.end);
        }
        let len = host.end - host.start;
        let flags = FallocateFlags::empty();
        match retry_on_intr(|| rustix::fs::fallocate(&self.fd, flags, host.start, len)) {
            Ok(()) => {
                self.len.fetch_max(host.end, Ordering::AcqRel);
                Ok(())
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => {
                Err(Error::unsupported("the file system cannot reserve space")
                    .at_path(&self.path)
                    .at_host(host.start))
            }
            Err(errno) => Err(self.error("reserve space", errno, host.start)),
        }
    }

    fn sync(&self) -> Result<()> {
        retry_on_intr(|| rustix::fs::fsync(&self.fd))
            .map_err(|errno| Error::io("sync", errno.into()).at_path(&self.path))
    }

    fn copy_from(&self, from: &dyn ReadAt, from_host: u64, to_host: u64, len: u64) -> Result<u64> {
        let Some(source) = from.as_host_file() else {
            return Ok(0);
        };
        let (mut read_at, mut write_at) = (from_host, to_host);
        let mut done = 0;
        while done < len {
            let left = usize::try_from(len - done).unwrap_or(usize::MAX);
            let copied = rustix::fs::copy_file_range(
                &source.fd,
                Some(&mut read_at),
                &self.fd,
                Some(&mut write_at),
                left,
            );
            match copied {
                Ok(0) => break,
                // The kernel advances both offsets.
                Ok(copied) => {
                    done += copied as u64;
                    self.len.fetch_max(to_host + done, Ordering::AcqRel);
                }
                Err(Errno::INTR) => {}
                Err(
                    errno @ (Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::FBIG | Errno::ROFS),
                ) => {
                    return Err(self.error("copy", errno, write_at));
                }
                // Another file system, overlapping ranges, a device: not this way.
                Err(_) => break,
            }
        }
        Ok(done)
    }
}

/// Whether `store` is the file that `path` names, under whatever name it was opened.
///
/// A `path` that does not exist is no file, and a store that is not a host file is none either.
///
/// # Errors
/// When the host cannot tell what `path` is.
pub fn same_file(store: &dyn ReadAt, path: impl AsRef<Path>) -> Result<bool> {
    let path = path.as_ref();
    let Some(identity) = store.identity() else {
        return Ok(false);
    };
    match retry_on_intr(|| rustix::fs::stat(path)) {
        Ok(stat) => Ok(identity_of(&stat) == identity),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(errno) => Err(Error::io("query the file", errno.into()).at_path(path)),
    }
}

pub(super) fn identity_of(stat: &Stat) -> FileId {
    if is_block_device(stat) {
        FileId::BlockDevice { rdev: stat.st_rdev }
    } else {
        FileId::Inode {
            dev: stat.st_dev,
            ino: stat.st_ino,
        }
    }
}

fn is_block_device(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice
}

/// Refuses what can hold no image: everything but regular files and block devices.
fn refuse_special(stat: &Stat) -> Result<()> {
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::BlockDevice => return Ok(()),
        FileType::Directory => return Err(Error::usage("is a directory, not an image")),
        FileType::Fifo => "is a pipe, not an image",
        FileType::Socket => "is a socket, not an image",
        FileType::CharacterDevice => "is a character device, not an image",
        _ => "is not a file that can hold an image",
    };
    Err(Error::usage(what).with_remedy("name a regular file or a block device"))
}

#[cfg(test)]
mod tests;
