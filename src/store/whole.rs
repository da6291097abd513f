//! Small files of the host as a whole.

use std::io::{Read, Write};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::retry_on_intr;

use crate::error::{Error, Result};

/// Everything in the file `path`, which may be a pipe, up to `most` bytes.
///
/// # Errors
/// It cannot be read, or is longer.
pub fn read_file(path: impl AsRef<Path>, most: u64) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let failed = |error: std::io::Error| Error::io("read it", error).at_path(path);
    let fd =
        retry_on_intr(|| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))
            .map_err(|error| Error::io("open it", error.into()).at_path(path))?;
    let mut bytes = Vec::new();
    #[expect(clippy::disallowed_types, reason = "this is store")]
    let mut file = std::fs::File::from(fd).take(most.saturating_add(1));
    file.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(Error::usage(format!("is longer than {most} bytes")).at_path(path));
    }
    Ok(bytes)
}

/// Makes the file `path` of `bytes` that nobody but its owner can read, at no moment.
///
/// # Errors
/// It exists, or cannot be made.
pub fn write_secret(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = retry_on_intr(|| rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR))
        .map_err(|error| Error::io("make it", error.into()).at_path(path))?;
    #[expect(clippy::disallowed_types, reason = "this is store")]
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)
        .map_err(|error| Error::io("write it", error).at_path(path))
}
