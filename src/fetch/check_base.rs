//! Whether QEMU may be given an image from elsewhere.
//!
//! Knows what an image may name, and that its contents decide what it is. Must not open what it names.

use std::path::Path;

use crate::error::{Error, Result};
use crate::image::{BackingPolicy, Depth, Format, Image, OpenOptions};
use crate::store::{HostFile, Locking, ReadAt as _};

/// Whether an image may name other files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NamedFiles {
    /// No: whoever made it could have any file of this host read.
    #[default]
    Refuse,
    /// Yes: it is the user's own, and the user said so.
    Allow,
}

/// What an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Its format, by its contents.
    pub format: Format,
    /// Size of the disk in it, in bytes.
    pub virtual_size: u64,
}

/// Checks the image at `path` before anything else opens it.
///
/// # Errors
/// It cannot be read, is empty, or of a format that is not supported; [`Refused`](crate::ErrorKind::Refused): it names a
/// backing file or an external data file, and may not.
pub fn check_base(path: &Path, named: NamedFiles) -> Result<Checked> {
    let store = HostFile::open_read(path, Locking::Check)?;
    if store.is_empty()? {
        return Err(Error::usage("is empty").at_path(path));
    }
    let options = OpenOptions {
        backing: BackingPolicy::Deny,
        ..OpenOptions::default()
    };
    let image = Image::from_store(std::sync::Arc::new(store), path, &options)?;
    if named == NamedFiles::Refuse {
        refuse_named_files(&image, path)?;
    }
    let virtual_size = image.virtual_size()?;
    if virtual_size == 0 {
        return Err(Error::usage("holds a disk of no size").at_path(path));
    }
    Ok(Checked {
        format: image.format(),
        virtual_size,
    })
}

pub(crate) fn refuse_named_files(image: &Image, path: &Path) -> Result<()> {
    let remedy = "QEMU would open that file of this host; get an image that stands alone, or make one of it with \
                  `qimg convert` where you trust it";
    if let Some((name, _)) = image.backing_file() {
        return Err(
            Error::refused(format!("names a backing file, '{name}'"), remedy).at_path(path),
        );
    }
    if let Some(name) = image.qcow2_options().and_then(|options| options.data_file) {
        return Err(
            Error::refused(format!("names an external data file, '{name}'"), remedy).at_path(path),
        );
    }
    // Whatever else it would need is not opened either, and said.
    image.chain(Depth::Top, None).map(drop)
}
