//! LVM2: the logical volumes on a physical volume, and what of it none of them uses.
//!
//! Reads groups of a single physical volume that carries its own metadata, and in them volumes that are runs of its
//! extents. Whatever maps blocks in another way (thin, snapshot, cache, RAID ...) is in use as a whole, and so are the
//! hidden volumes that it is made of. Must not know what volumes hold.

mod group;
mod label;
mod text;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::free::FreeMap;
use crate::fs::Refusal;
use crate::volume::Volume;

/// A volume group on a single physical volume.
#[derive(Debug)]
pub struct Group<'a> {
    /// Its name, of letters, digits and `_.+-` only.
    pub name: String,
    /// Ranges of the physical volume that no logical volume uses.
    pub free: FreeMap,
    /// What holds some of it back.
    pub notes: Vec<String>,
    /// Those that a user sees, in the order of the metadata.
    pub volumes: Vec<Logical<'a>>,
}

/// A logical volume.
#[derive(Debug)]
pub struct Logical<'a> {
    /// Its name, of letters, digits and `_.+-` only.
    pub name: String,
    /// Bytes that it shows.
    pub size: u64,
    /// Its contents; of no length when it is unusable.
    pub volume: Volume<'a>,
    /// Why it cannot be read as one volume.
    pub unusable: Option<Cow<'static, str>>,
}

/// The group on the physical volume `volume`; `None` when it is none.
///
/// # Errors
/// A physical volume of a group that is not read here, or whose metadata does not fit together.
pub fn read<'a>(volume: &Volume<'a>) -> Result<Option<Group<'a>>, Refusal> {
    let Some(label) = label::Label::read(volume)? else {
        return Ok(None);
    };
    let metadata = label.metadata(volume)?;
    group::read(volume, &label, &metadata).map(Some)
}
