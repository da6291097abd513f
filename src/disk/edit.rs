//! The partition table of a disk that is there, changed in steps of which each leaves it sound.

use crate::error::Result;
use crate::image::{Depth, InPlace};
use crate::partition::NewGpt;
use crate::volume::Volume;

use super::assembly::Assembly;

/// The table on the disk of `image`.
///
/// # Errors
/// There is no sound GPT on it.
pub(super) fn read(image: &InPlace) -> Result<NewGpt> {
    let chain = image.image().chain(Depth::Chain, None)?;
    NewGpt::read(&Volume::whole(&chain)).map_err(|error| error.at_path(image.image().path()))
}

/// Writes a table: its second copy; when that is there for good, the first; then the first sector.
///
/// # Errors
/// Whatever [`InPlace::write`] may fail with.
pub(super) fn write(image: &mut InPlace, gpt: &NewGpt) -> Result<()> {
    let size = image.image().virtual_size()?;
    let [header, entries] = gpt.primary();
    for step in [vec![gpt.backup()], vec![header, entries], vec![gpt.mbr()]] {
        let mut disk = Assembly::new(size);
        let mut ranges = Vec::new();
        for (at, bytes) in step {
            ranges.push(at..at + bytes.len() as u64);
            disk.push_bytes(at, bytes)?;
        }
        image.write(&disk, &ranges)?;
    }
    Ok(())
}
