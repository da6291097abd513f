//! One file beside its destination, until it is complete.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::retry_on_intr;

use super::{Contents, Sync, Target};
use crate::error::{Error, Result};
use crate::store::sweep;

/// A new file that takes its destination's name when it is complete.
///
/// Unlike [`Staged`](crate::store::Staged), which holds images, it follows no symlink at its destination, takes
/// nothing over from what is there, and replaces it only where that is asked for.
#[derive(Debug)]
pub struct SingleFile {
    target: Target,
    contents: Contents,
    /// None once it is renamed.
    temporary: Option<String>,
    replace: bool,
}

impl SingleFile {
    /// Begins a file that is to become `destination`, in the place of a file or symlink that is there if `replace`.
    ///
    /// # Errors
    /// Something is there that may not be replaced; the directory is missing or cannot be written.
    pub fn create(destination: &Path, replace: bool) -> Result<Self> {
        let target = Target::new(destination)?;
        refuse_standing(&target, replace)?;
        // Nobody else reads it before it has its own mode.
        let (temporary, fd) = sweep::create_locked(&target.parent, Mode::from_raw_mode(0o600))
            .map_err(|errno| target.error("create a temporary file beside it", errno))?;
        let single = Self {
            contents: Contents {
                fd,
                destination: Arc::clone(&target.destination),
            },
            target,
            temporary: Some(temporary),
            replace,
        };
        if let Ok(stat) = rustix::fs::fstat(&single.contents.fd) {
            sweep::sweep(&single.target.parent, stat.st_uid);
        }
        Ok(single)
    }

    /// Where its contents go.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Gives the file its destination's name, in one step.
    ///
    /// # Errors
    /// When the host fails to sync or rename, or something took the name meanwhile: the destination is then as it
    /// was, and the new file is gone. Only when syncing the directory fails is the new file in place.
    pub fn commit(mut self, sync: Sync) -> Result<()> {
        if sync == Sync::Full {
            retry_on_intr(|| rustix::fs::fsync(&self.contents.fd))
                .map_err(|errno| self.target.error("sync", errno))?;
        }
        refuse_standing(&self.target, self.replace)?;
        let file = self.contents.fd.as_fd();
        if let Some(temporary) = &self.temporary {
            self.target.rename(temporary, file, self.replace)?;
        }
        self.temporary = None;
        self.target.sync_name(self.contents.fd.as_fd(), sync)
    }
}

impl Drop for SingleFile {
    fn drop(&mut self) {
        if let Some(name) = self.temporary.take() {
            // There is nobody to tell; the next run sweeps what stays.
            let _ = rustix::fs::unlinkat(&self.target.parent, name, AtFlags::empty());
        }
    }
}

fn refuse_standing(target: &Target, replace: bool) -> Result<()> {
    let error = match target.standing()? {
        None => return Ok(()),
        Some(FileType::RegularFile | FileType::Symlink) if replace => return Ok(()),
        Some(FileType::RegularFile | FileType::Symlink) => {
            Error::refused("is there already", "replace it with --force")
        }
        Some(FileType::Directory) => {
            Error::usage("is a directory").with_remedy("name a file that is to be made")
        }
        Some(_) => Error::usage("is there, and no file that could be replaced"),
    };
    Err(error.at_path(&*target.destination))
}
