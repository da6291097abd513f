//! The password of a template, where `qimg ssh` can take it: a file that goes with the build.
//!
//! Knows that nobody but its owner reads it. Must not know how it is used.

use std::path::{Path, PathBuf};

use super::runs::PASSWORD;
use crate::error::Result;
use crate::store::{remove_file, write_secret};

/// The file; it is there for as long as this is.
#[derive(Debug)]
pub(super) struct PasswordFile {
    path: PathBuf,
}

impl PasswordFile {
    /// Writes `password` down in `directory`.
    ///
    /// # Errors
    /// The host's own.
    pub(super) fn write(directory: &Path, password: &str) -> Result<Self> {
        let path = directory.join(PASSWORD);
        write_secret(&path, password.as_bytes())?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PasswordFile {
    fn drop(&mut self) {
        // There is nobody to tell; the next run sweeps it.
        let _ = remove_file(&self.path);
    }
}
