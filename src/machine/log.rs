//! Logs of what a machine says, of bounded length.
//!
//! Knows one file and how much of it may be filled. Must not know what is written to it.

#![expect(clippy::disallowed_types, reason = "a log is not an image")]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};

/// Bytes of one log: a guest that talks without end does not fill the disk.
const LARGEST: usize = 64 << 20;

/// A file that takes up to 64 MiB, and then says that more was left out.
///
/// A log that cannot be written is no reason to end what it tells of: failures are kept silent.
#[derive(Debug)]
pub(super) struct Log {
    file: Option<File>,
    room: usize,
    cut: bool,
}

impl Log {
    /// A new file at `path`, which only its owner reads: consoles show passwords. An old one is emptied.
    ///
    /// # Errors
    ///
    /// When the host refuses to create it.
    pub(super) fn create(path: &Path) -> Result<Self> {
        Ok(Self {
            file: Some(create_private(path)?),
            room: LARGEST,
            cut: false,
        })
    }

    /// Writes `bytes` as far as there is room.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        let fits = bytes.len().min(self.room);
        self.room -= fits;
        if let Some(file) = &mut self.file {
            if file.write_all(&bytes[..fits]).is_err() {
                self.file = None;
                return;
            }
            if fits < bytes.len() && !std::mem::replace(&mut self.cut, true) {
                let _ = file.write_all(b"\n[the rest was left out: this log is full]\n");
            }
        }
    }

    /// Closes the file.
    pub(super) fn finish(&mut self) {
        self.file = None;
    }
}

/// A new, empty file at `path` that only its owner may read.
pub(super) fn create_private(path: &Path) -> Result<File> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
        .map(File::from)
        .map_err(|errno| Error::io("create", errno.into()).at_path(path))
}

/// Reads at most `most` bytes of the file at `path`, and removes it.
pub(super) fn take(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    std::fs::remove_file(path)?;
    Ok(bytes)
}

/// `name` in `directory`, as an absolute path: QEMU's own directory may be another.
pub(super) fn absolute(directory: &Path, name: &str) -> PathBuf {
    std::path::absolute(directory)
        .unwrap_or_else(|_| directory.to_owned())
        .join(name)
}
