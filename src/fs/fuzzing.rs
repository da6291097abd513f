//! The readers of single formats, for the fuzz targets: there only when cargo-fuzz builds the crate.

use super::tree::Tree;
use super::{FreeOptions, FreeSpace, Refusal, ext4, fat, iso9660};
use crate::volume::Volume;

/// Reads `volume` as FAT: its free ranges lie within it, and its files go to `each`.
pub fn fat(volume: &Volume<'_>, each: &mut dyn FnMut(&dyn Tree)) {
    let _ = fat::identify(volume);
    if let Ok(space) = fat::free_space(volume, &FreeOptions::default()) {
        let last = space.free.ranges().last();
        assert!(last.is_none_or(|range| range.end <= volume.size()));
    }
    if let Ok(files) = fat::files::Files::open(volume) {
        each(&files);
    }
}

/// Reads `volume` as ISO 9660; its files go to `each`.
pub fn iso9660(volume: &Volume<'_>, each: &mut dyn FnMut(&dyn Tree)) {
    let _ = iso9660::identify(volume);
    if let Ok(files) = iso9660::files::Files::open(volume) {
        each(&files);
    }
}

/// Reads the files of `volume` as those of ext4; they go to `each`.
pub fn ext4_files(volume: &Volume<'_>, each: &mut dyn FnMut(&dyn Tree)) {
    if let Ok(files) = ext4::files::Files::open(volume) {
        each(&files);
    }
}

/// The free space of ext4 alone.
///
/// # Errors
/// Whatever makes its reader refuse.
pub fn ext4_free_space(volume: &Volume<'_>, options: &FreeOptions) -> Result<FreeSpace, Refusal> {
    ext4::free_space(volume, options)
}
