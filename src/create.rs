//! New, empty images.
//!
//! Knows what qemu-img's `create` accepts. A backing file is opened here only
//! because the user, not an image, named it.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::image::options::Preallocation;
use crate::image::{Format, Image, OpenOptions, Target, TargetOptions};

/// What to create.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// Where; an existing file is replaced.
    pub path: PathBuf,
    /// Virtual size in bytes; that of the backing file when absent.
    pub size: Option<u64>,
    /// Format and options.
    pub target: TargetOptions,
    /// Do not open the backing file to see that it is there.
    pub unchecked_backing: bool,
}

/// What was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Virtual size in bytes.
    pub virtual_size: u64,
}

/// Creates an empty image.
///
/// # Errors
/// No size and no backing file to take it from; a backing file that cannot be opened as its format; options that
/// contradict each other; a destination that cannot be written.
pub fn create(request: &CreateRequest) -> Result<Created> {
    let backing = match (&request.target.qcow2.backing, request.target.format) {
        (Some(_), Format::Raw) => {
            return Err(Error::usage("a raw image has no backing file")
                .with_remedy("create the overlay with -f qcow2"));
        }
        (backing, _) => backing.as_ref(),
    };
    let mut size = request.size;
    if let Some((name, format)) = backing {
        request.target.qcow2.validate()?;
        if !request.unchecked_backing {
            let backing = open_backing(&request.path, name, format)?;
            size = size.or(Some(backing.virtual_size()?));
        }
    }
    let size = size.ok_or_else(|| {
        Error::usage("the size of the new image is missing")
            .with_remedy("say it behind the file name")
    })?;
    let virtual_size = size
        .checked_next_multiple_of(512)
        .filter(|&size| i64::try_from(size).is_ok())
        .ok_or_else(|| Error::usage(format!("{size} bytes are too many for an image")))?;
    if request.target.qcow2.preallocation != Preallocation::Off
        && backing.is_some()
        && !request.target.qcow2.extended_l2
    {
        return Err(Error::usage(
            "preallocation with a backing file needs extended_l2=on",
        ));
    }
    Target::create(&request.path, virtual_size, &request.target, false)?.finish()?;
    Ok(Created { virtual_size })
}

/// Opens the file that `overlay`, which is to be made, shall call `name`.
///
/// # Errors
/// It cannot be opened as `format`; QEMU would take its name for something else.
pub fn open_backing(overlay: &Path, name: &str, format: &str) -> Result<Image> {
    let directory = overlay.parent().unwrap_or(Path::new(""));
    if crate::image::is_protocol(name) {
        let error = Error::unsupported("QEMU takes this name for a protocol, and no file");
        return Err(error.at_path(name).with_remedy(format!(
            "write ./{name} for a file; -u creates the overlay without looking at its backing file"
        )));
    }
    let options = OpenOptions {
        format: Some(format.parse()?),
        ..OpenOptions::default()
    };
    Image::open(directory.join(name), &options).map_err(|error| {
        error.with_remedy("-u creates the overlay without looking at its backing file")
    })
}
