//! What a volume holds: every signature in it, the free space and the files of the one filesystem that has a reader.
//!
//! Joins the readers; knows nothing of their formats. Two signatures that contradict each other mean that one of them
//! is stale, and nobody can say which: then all is kept.

mod members;
mod record;
mod signatures;

#[cfg(test)]
pub(super) mod tests;

use super::tree::Tree;
use super::{
    FreeOptions, FreeSpace, Identity, Refusal, RefusalKind, btrfs, ext4, fat, iso9660, ntfs, swap,
    xfs,
};
use crate::error::{Error, ErrorKind, Result};
use crate::free::FreeMapBuilder;
use crate::volume::Volume;

/// A filesystem, or something like it, whose free space is read.
struct Reader {
    identify: fn(&Volume<'_>) -> Result<Option<Identity>>,
    free_space: fn(&Volume<'_>, &FreeOptions) -> Result<FreeSpace, Refusal>,
    open: Option<Open>,
    hibernated: Option<fn(&Volume<'_>) -> bool>,
}

type Open = for<'a> fn(&Volume<'a>) -> Result<Box<dyn Tree + 'a>, Refusal>;

impl Reader {
    const fn new(
        identify: fn(&Volume<'_>) -> Result<Option<Identity>>,
        free_space: fn(&Volume<'_>, &FreeOptions) -> Result<FreeSpace, Refusal>,
    ) -> Self {
        Self {
            identify,
            free_space,
            open: None,
            hibernated: None,
        }
    }

    /// Its files can be read, too.
    const fn with_files(mut self, open: Open) -> Self {
        self.open = Some(open);
        self
    }

    /// It may hold the memory of a hibernated system, or be in it.
    const fn with_hibernation(mut self, hibernated: fn(&Volume<'_>) -> bool) -> Self {
        self.hibernated = Some(hibernated);
        self
    }
}

/// One row a format.
const READERS: &[Reader] = &[
    Reader::new(ext4::identify, ext4::free_space)
        .with_files(|volume| Ok(Box::new(ext4::files::Files::open(volume)?))),
    Reader::new(fat::identify, fat::free_space)
        .with_files(|volume| Ok(Box::new(fat::files::Files::open(volume)?))),
    Reader::new(xfs::identify, xfs::free_space)
        .with_files(|volume| Ok(Box::new(xfs::files::Files::open(volume)?))),
    Reader::new(iso9660::identify, iso9660::free_space)
        .with_files(|volume| Ok(Box::new(iso9660::files::Files::open(volume)?))),
    Reader::new(btrfs::identify, btrfs::free_space),
    Reader::new(ntfs::identify, ntfs::free_space).with_hibernation(ntfs::is_hibernated),
    Reader::new(swap::identify, swap::free_space).with_hibernation(swap::is_hibernated),
];

/// What fills a volume that has no reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// A filesystem whose free space is not read.
    Filesystem,
    /// Something that has volumes of its own inside, and says more of its blocks than a filesystem in it may.
    Container(&'static str),
    /// Hashes of other blocks.
    HashTree,
}

/// A match.
struct Found {
    identity: Identity,
    by: By,
}

enum By {
    Reader(&'static Reader),
    Signature(Class),
}

/// All that match: containers come first, then filesystems with a reader, then those without.
fn find(volume: &Volume<'_>) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for (identity, class) in members::find(volume)?
        .into_iter()
        .chain(signatures::find(volume)?)
    {
        // Copies of one superblock are one finding.
        let known = |other: &Found| other.identity.kind == identity.kind;
        if !found.iter().any(known) {
            found.push(Found {
                identity,
                by: By::Signature(class),
            });
        }
    }
    for reader in READERS {
        if let Some(identity) = (reader.identify)(volume)? {
            found.push(Found {
                identity,
                by: By::Reader(reader),
            });
        }
    }
    found.sort_by_key(|found| match found.by {
        By::Signature(Class::Container(_) | Class::HashTree) => 0,
        By::Reader(_) => 1,
        By::Signature(Class::Filesystem) => 2,
    });
    Ok(found)
}

/// Every signature in `volume`, strongest first; more than one is a doubt about all of them.
///
/// # Errors
/// Whatever the image fails with.
pub fn identify(volume: &Volume<'_>) -> Result<Vec<Identity>> {
    let found = find(volume)?;
    Ok(found.into_iter().map(|found| found.identity).collect())
}

/// What is known of a volume.
#[derive(Debug)]
pub struct Examined {
    /// The strongest of its signatures.
    pub identity: Option<Identity>,
    /// What nothing in it uses, or why that is not known.
    pub space: Result<FreeSpace, Refusal>,
    /// It holds the memory of a hibernated system, or is remembered by one: nothing on the disk may change.
    pub hibernated: bool,
    /// It holds hashes, maybe of other volumes' blocks.
    pub verity: bool,
}

/// Looks for what `volume` holds and does not use.
pub fn examine(volume: &Volume<'_>, options: &FreeOptions) -> Examined {
    let found = match find(volume) {
        Ok(found) => found,
        Err(error) => {
            return Examined {
                identity: None,
                space: Err(error.into()),
                hibernated: false,
                verity: false,
            };
        }
    };
    let hibernated = found.iter().any(|found| match found.by {
        By::Reader(reader) => reader.hibernated.is_some_and(|test| test(volume)),
        By::Signature(_) => false,
    });
    let verity = found
        .iter()
        .any(|found| matches!(found.by, By::Signature(Class::HashTree)));
    let mut space = space(volume, options, &found);
    if hibernated && space.is_ok() {
        space = Err(Refusal::hibernated());
    }
    Examined {
        identity: found.into_iter().next().map(|found| found.identity),
        space,
        hibernated,
        verity,
    }
}

fn space(
    volume: &Volume<'_>,
    options: &FreeOptions,
    found: &[Found],
) -> Result<FreeSpace, Refusal> {
    let Some(first) = found.first() else {
        return Err(Refusal::new(
            RefusalKind::Unknown,
            "nothing that qimg knows",
        ));
    };
    let kind = first.identity.kind;
    match first.by {
        By::Signature(Class::Container(what)) => {
            return Err(Refusal::new(
                RefusalKind::Protected,
                format!("{kind}: {what}"),
            ));
        }
        By::Signature(Class::HashTree) => {
            return Err(Refusal::new(
                RefusalKind::Protected,
                format!("{kind}: a hash tree"),
            ));
        }
        _ => {}
    }
    if found.len() > 1 {
        let kinds: Vec<&str> = found.iter().map(|found| found.identity.kind).collect();
        return Err(Refusal::new(
            RefusalKind::Unknown,
            format!("ambiguous: {}", kinds.join(" and ")),
        ));
    }
    let end = first.identity.size.unwrap_or(volume.size());
    if end > volume.size() {
        return Err(Refusal::damaged(format!(
            "{kind} of {end} bytes reaches past the end of its volume of {} bytes",
            volume.size()
        )));
    }
    let reader = match first.by {
        By::Reader(reader) => reader,
        By::Signature(_) => {
            return Err(Refusal::unsupported(format!(
                "free space of {kind} is not read"
            )));
        }
    };
    let mut space = (reader.free_space)(volume, options)?;
    if space
        .free
        .ranges()
        .last()
        .is_some_and(|last| last.end > end)
    {
        // Whatever a reader says: behind the end of a filesystem nothing is its own.
        let mut inside = FreeMapBuilder::new();
        for range in space.free.within(0..end) {
            inside.free(range);
        }
        space.free = inside.build();
    }
    Ok(space)
}

/// The files of the filesystem in `volume`; `None` when none has a reader, or more than one.
///
/// Signatures of filesystems without a reader do not matter: disc images have more than one on purpose.
///
/// # Errors
/// The filesystem has a reader, and cannot be read; whatever the image fails with.
pub fn open_tree<'a>(volume: &Volume<'a>) -> Result<Option<Box<dyn Tree + 'a>>> {
    let found = find(volume)?;
    let readers: Vec<_> = found
        .iter()
        .filter(|found| !matches!(found.by, By::Signature(Class::Filesystem)))
        .collect();
    let [
        Found {
            by: By::Reader(reader),
            ..
        },
    ] = readers.as_slice()
    else {
        return Ok(None);
    };
    let Some(open) = reader.open else {
        return Ok(None);
    };
    open(volume).map(Some).map_err(|refusal| {
        let kind = match refusal.kind {
            RefusalKind::Damaged => ErrorKind::Corrupt,
            RefusalKind::Unreadable => ErrorKind::Io,
            _ => ErrorKind::Unsupported,
        };
        Error::new(kind, refusal.reason)
    })
}
