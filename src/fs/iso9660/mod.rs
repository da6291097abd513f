//! ISO 9660, with the names and attributes of Rock Ridge or the names of Joliet: what it is, and its files.
//!
//! Nothing of it is ever free: it is made once, as a whole.

mod descriptor;
pub(super) mod files;
mod record;
mod rock_ridge;

#[cfg(test)]
mod tests;

use crate::fs::{FreeOptions, FreeSpace, Identity, Refusal};
use crate::volume::Volume;

/// What the primary volume descriptor says of itself; `None` when there is none.
///
/// # Errors
/// Whatever the image fails with.
pub(super) fn identify(volume: &Volume<'_>) -> crate::Result<Option<Identity>> {
    descriptor::identify(volume)
}

/// Refuses, always.
///
/// # Errors
/// As said.
pub(super) fn free_space(_: &Volume<'_>, _: &FreeOptions) -> Result<FreeSpace, Refusal> {
    Err(Refusal::unsupported(
        "iso9660 is read-only: nothing in it is free",
    ))
}
