//! Sparsify in place: drop what a guest does not use from an image, without a
//! second copy. The one operation that writes its input.
//!
//! Knows what must not be lost on the way. Joins a free map, wherever it comes
//! from, with [`InPlace`], and knows no format's insides.

use std::sync::atomic::AtomicBool;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::free::FreeMap;
use crate::image::{InPlace, PunchOptions, PunchProgress, Punched};
use crate::store::Sync;

/// What `sparsify` shall do.
///
/// The image comes open, so that nobody can write to it between the reading of its free map and the dropping of what
/// that map names.
#[derive(Debug, Clone, Copy)]
pub struct SparsifyRequest<'a> {
    /// Guest bytes that nothing uses.
    pub free: &'a FreeMap,
    /// Drop clusters of zeros, too; the data is read to find them.
    pub zeros: bool,
    /// Write nothing.
    pub dry_run: bool,
    /// Worker threads.
    pub threads: usize,
    /// What must have happened before the image is called done.
    pub sync: Sync,
}

/// What `sparsify` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sparsified {
    /// Size of the virtual disk in bytes.
    pub virtual_size: u64,
    /// What was dropped, or would be.
    #[serde(flatten)]
    pub punched: Punched,
}

/// Drops free and zero clusters from `image`.
///
/// The guest's disk reads as before, but for free bytes, which may read as zeros. Internal snapshots read as before.
/// The same clusters go whatever the number of threads. `progress` is called from time to time on the calling thread.
///
/// # Errors
/// A free map for an image whose persistent bitmaps would have to record what changes, or with a snapshot that holds
/// the state of a running machine; whatever [`InPlace::punch`] may fail with.
pub fn sparsify(
    image: InPlace,
    request: &SparsifyRequest<'_>,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(PunchProgress),
) -> Result<Sparsified> {
    refuse_losses(&image, request.free)?;
    let virtual_size = image.image().virtual_size()?;
    let options = PunchOptions {
        free: request.free,
        zeros: request.zeros,
        dry_run: request.dry_run,
        threads: request.threads,
        sync: request.sync,
        cancel,
    };
    let punched = image.punch(&options, progress)?;
    Ok(Sparsified {
        virtual_size,
        punched,
    })
}

/// Fails when `free` must not be used for `image`, whatever else is done with it.
fn refuse_losses(image: &InPlace, free: &FreeMap) -> Result<()> {
    if free.is_empty() {
        return Ok(());
    }
    let image = image.image();
    let refused = |message: String, remedy: &'static str| {
        Err(Error::new(ErrorKind::Refused, message)
            .with_remedy(remedy)
            .at_path(image.path()))
    };
    let bitmaps = image.bitmap_count();
    if bitmaps > 0 {
        return refused(
            format!(
                "has {bitmaps} persistent bitmap(s), which would not record that free bytes change"
            ),
            "remove them with `qemu-img bitmap --remove`, or drop zeros alone with --exact",
        );
    }
    if image.has_vm_state() {
        return refused(
            "has a snapshot with the state of a running machine, which may know more than its disk"
                .to_owned(),
            "delete it with `qemu-img snapshot -d`, or drop zeros alone with --exact",
        );
    }
    Ok(())
}
