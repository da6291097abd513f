//! A seed's bytes where they are wanted: as an image of any format that is written here, or as they are.

use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::image::options::Qcow2Options;
use crate::image::{Format, Target, TargetOptions};
use crate::store::{Locking, Memory, Sync, WriteAt, write_file};
use crate::zero::is_zero;

/// Bytes that are written, or left out as zeros, at a time: a cluster of qcow2 by default.
const STEP: usize = 1 << 16;

/// Writes `bytes`, a volume, as an image of `format` to `path`: complete and synced, or not at all.
///
/// # Errors
/// The destination cannot be written, or is in use.
pub fn write_image(path: &Path, bytes: &[u8], format: Format) -> Result<()> {
    if format == Format::Raw {
        return write_file(path, bytes);
    }
    let target = Target::create(path, bytes.len() as u64, &options(format), false)?;
    fill(target, bytes)
}

/// The bytes of an image of `format` that holds `bytes`, a volume.
///
/// # Errors
/// None but those of the format itself.
pub fn image_bytes(bytes: &[u8], format: Format) -> Result<Vec<u8>> {
    if format == Format::Raw {
        return Ok(bytes.to_vec());
    }
    let memory = Memory::new();
    let store: Arc<dyn WriteAt> = Arc::new(memory.clone());
    fill(
        Target::in_store(store, bytes.len() as u64, &options(format), false)?,
        bytes,
    )?;
    Ok(memory.to_vec())
}

fn options(format: Format) -> TargetOptions {
    TargetOptions {
        format,
        qcow2: Qcow2Options::default(),
        existing: false,
        sync: Sync::Full,
        locking: Locking::Check,
    }
}

fn fill(mut target: Target, bytes: &[u8]) -> Result<()> {
    let mut guest = 0;
    for piece in bytes.chunks(STEP) {
        if !is_zero(piece) {
            target.writer().write_data(guest, piece, None)?;
        }
        guest += piece.len() as u64;
    }
    target.finish().map(|_| ())
}
