//! The image of a trial: it names no other file of the host, and is after the trial what it was before.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::build::disk;
use crate::communicator::Stop;
use crate::digest::{Digest, DigestKind, Digester};
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::check_base::refuse_named_files;
use crate::image::{Format, Image, OpenOptions};
use crate::store::{HostFile, Locking, SequentialReader};

/// An image that may be booted.
#[derive(Debug)]
pub struct Origin {
    /// For overlays.
    pub(super) disk: disk::Origin,
    /// SHA-256 of its file, in hexadecimal digits.
    pub sha256: String,
}

impl Origin {
    /// Opens the image at `path`, which relative names start from `directory`.
    ///
    /// # Errors
    /// It is no image, or names another file: QEMU would open that.
    pub fn open(
        path: &Path,
        format: Option<Format>,
        directory: &Path,
        stop: &Stop,
    ) -> Result<Self> {
        let path: PathBuf = directory.join(path);
        let options = OpenOptions {
            format,
            ..OpenOptions::default()
        };
        let image = Image::open(&path, &options)?;
        refuse_named_files(&image, &path)?;
        let virtual_size = image.virtual_size()?;
        if virtual_size == 0 {
            return Err(Error::usage("holds a disk of no size").at_path(&path));
        }
        let format = image.format();
        drop(image);
        let sha256 = sha256(&path, stop)?;
        Ok(Self {
            disk: disk::Origin {
                path,
                format,
                virtual_size,
            },
            sha256,
        })
    }

    /// Whether the file is what it was.
    ///
    /// # Errors
    /// It is not, or cannot be read any more.
    pub fn verify(&self, stop: &Stop) -> Result<()> {
        if sha256(&self.disk.path, stop)? == self.sha256 {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Corrupt,
            "is not what it was before the trial: somebody has written it meanwhile",
        )
        .with_remedy("try it again while nobody else uses it")
        .at_path(&self.disk.path))
    }
}

fn sha256(path: &Path, stop: &Stop) -> Result<String> {
    let mut reader = SequentialReader::new(HostFile::open_read(path, Locking::Check)?)?;
    let mut digester = Digester::new(&[DigestKind::Sha256]);
    let mut buffer = vec![0; 1 << 20];
    loop {
        if stop() {
            return Err(Error::cancelled());
        }
        let read = reader
            .read(&mut buffer)
            .map_err(|error| Error::io("read", error).at_path(path))?;
        match buffer.get(..read) {
            None | Some([]) => break,
            Some(bytes) => digester.update(bytes),
        }
    }
    Ok(digester
        .finish()
        .first()
        .map(Digest::hex)
        .unwrap_or_default())
}
