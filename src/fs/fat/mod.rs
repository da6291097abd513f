//! FAT12, FAT16 and FAT32: what it is, which of its clusters are free, and its files.
//!
//! The truth about free space is the file allocation table alone. Its copies have to agree, every entry has to be one
//! that the format knows, and both marks that a mount leaves behind have to be gone. Directories are not walked for it,
//! but that those in the root lie where the boot sector puts their clusters is checked.
//!
//! exFAT and NTFS begin with a sector of the same shape and are other formats: they are not taken for FAT.

mod boot;
pub(super) mod files;
mod names;
mod table;

#[cfg(test)]
mod tests;

use crate::free::FreeMapBuilder;
use crate::fs::{FreeOptions, FreeSpace, Identity, Refusal};
use crate::volume::Volume;

use boot::{Boot, Kind};
use table::Entry;

use files::Files;

/// What the boot sector and the root directory say of it; `None` when there is no sound boot sector.
///
/// # Errors
/// Whatever the image fails with.
pub(super) fn identify(volume: &Volume<'_>) -> crate::Result<Option<Identity>> {
    let Some(boot) = Boot::read(volume)? else {
        return Ok(None);
    };
    // As blkid has it: the name in the boot sector is only a copy, which Windows does not keep up to date.
    let label = match Files::of(volume, &boot) {
        Some(files) => files.label(),
        None => None,
    };
    Ok(Some(Identity {
        kind: "vfat",
        version: Some(boot.kind.name().to_owned()),
        label,
        uuid: (boot.serial != 0)
            .then(|| format!("{:04X}-{:04X}", boot.serial >> 16, boot.serial & 0xffff)),
        size: Some(boot.size()),
        block_size: Some(boot.cluster_size),
    }))
}

/// The clusters whose entry in the table is zero.
///
/// # Errors
/// A mark of a mount or of an I/O error; tables that differ; an entry that cannot be; whatever contradicts itself.
pub(super) fn free_space(volume: &Volume<'_>, _: &FreeOptions) -> Result<FreeSpace, Refusal> {
    let boot = Boot::require(volume)?;
    if boot.state & boot::STATE_DIRTY != 0 {
        return Err(dirty("fat boot sector is marked as mounted"));
    }
    if boot.state & boot::STATE_ERROR != 0 {
        return Err(dirty("fat boot sector is marked for a test of its surface"));
    }
    table::require_equal(volume, &boot)?;
    let mut map = FreeMapBuilder::new();
    // A run of free clusters that goes on.
    let mut run: Option<u64> = None;
    let mut root_is_used = boot.kind != Kind::Fat32;
    table::scan(volume, &boot, &mut |cluster, value| {
        match cluster {
            0 => return require_media(&boot, value),
            1 => return require_clean(&boot, value),
            _ => {}
        }
        let entry = boot.entry(value);
        if entry == Entry::Free {
            run.get_or_insert(cluster);
            return Ok(());
        }
        if let Some(first) = run.take() {
            map.free(boot.bytes_of(first..cluster));
        }
        root_is_used |= cluster == boot.root_cluster && entry != Entry::Bad;
        if entry == Entry::Impossible {
            return Err(Refusal::damaged(format!(
                "fat entry of cluster {cluster} is {value:#x}, which is no cluster"
            )));
        }
        Ok(())
    })?;
    if let Some(first) = run {
        map.free(boot.bytes_of(first..boot.clusters + 2));
    }
    if !root_is_used {
        return Err(Refusal::damaged("fat root directory is in a free cluster"));
    }
    if let Some(files) = Files::of(volume, &boot) {
        files.require_places()?;
    }
    Ok(FreeSpace {
        free: map.build(),
        note: None,
    })
}

/// The first entry repeats the medium of the boot sector, below bits that are all set.
fn require_media(boot: &Boot, value: u32) -> Result<(), Refusal> {
    if value == boot.kind.mask() & !0xff | u32::from(boot.media) {
        return Ok(());
    }
    Err(Refusal::damaged(
        "fat does not begin with the medium of its boot sector",
    ))
}

/// The second entry has two bits that are set while nothing has it mounted and nothing went wrong.
fn require_clean(boot: &Boot, value: u32) -> Result<(), Refusal> {
    let (clean, sound) = match boot.kind {
        // Without such bits.
        Kind::Fat12 => return Ok(()),
        Kind::Fat16 => (1 << 15, 1 << 14),
        Kind::Fat32 => (1 << 27, 1 << 26),
    };
    if value & clean == 0 {
        return Err(dirty("fat is marked as mounted in its table"));
    }
    if value & sound == 0 {
        return Err(dirty("fat is marked with an i/o error in its table"));
    }
    Ok(())
}

fn dirty(reason: &'static str) -> Refusal {
    Refusal::dirty(reason)
        .with_remedy("shut the guest down cleanly, or run fsck.fat -a on the filesystem")
}
