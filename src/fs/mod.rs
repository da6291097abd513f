//! Filesystems, and whatever else fills a volume: what it is, and which of its
//! blocks it does not use.
//!
//! Parses, never mounts, never writes. The rule of every reader here: **free
//! space may only be under-reported**. Each checks whatever the format lets it
//! check, and on any doubt (a dirty journal, a feature it does not know, a
//! checksum or a count that does not match) refuses with one line that says why;
//! then everything in the volume is kept.
//!
//! Knows volumes, not images, partitions or operations.

mod btrfs;
mod ext4;
mod fat;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod iso9660;
mod ntfs;
pub mod path;
pub mod probe;
mod swap;
pub mod tree;
mod xfs;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use crate::error::Error;
use crate::free::FreeMap;

/// Why the free space of a volume is not used: all of it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Refusal {
    /// What kind of reason.
    pub kind: RefusalKind,
    /// One line in lower case.
    pub reason: Cow<'static, str>,
    /// What the user can do about it.
    pub remedy: Option<Cow<'static, str>>,
}

/// What a caller may want to branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RefusalKind {
    /// Not recognised, or ambiguous.
    Unknown,
    /// Known, but its free space is not read: a format or feature without a reader here.
    Unsupported,
    /// Not cleanly unmounted: the truth may lie in a journal or in a guest's memory.
    Dirty,
    /// Contradicts itself.
    Damaged,
    /// Sound, but blocks that look free matter to somebody: RAID, encryption, verity, hibernation.
    Protected,
    /// The image could not be read there.
    Unreadable,
    /// The user asked for it.
    Asked,
}

impl Refusal {
    /// A refusal with its one-line reason.
    pub fn new(kind: RefusalKind, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            reason: reason.into(),
            remedy: None,
        }
    }

    /// Says what the user can do.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// A format's contradiction.
    pub fn damaged(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusalKind::Damaged, reason)
    }

    /// A feature without a reader.
    pub fn unsupported(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusalKind::Unsupported, reason)
    }

    /// A system that was not shut down knows more of the disk than is on it.
    pub fn hibernated() -> Self {
        Self::new(RefusalKind::Protected, "holds a hibernated system")
            .with_remedy("start it and shut it down")
    }

    /// Not cleanly unmounted.
    pub fn dirty(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusalKind::Dirty, reason)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        match &self.remedy {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let mut reason = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            reason.push_str(": ");
            reason.push_str(&inner.to_string());
            cause = inner.source();
        }
        Self::new(RefusalKind::Unreadable, reason)
    }
}

/// What a volume's superblock or header says of itself. Text is as found: escape it before printing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Identity {
    /// The format's name as blkid has it: `ext4`, `xfs`, `vfat`, `swap`, `LVM2_member`, `crypto_LUKS`.
    pub kind: &'static str,
    /// More on the format: `FAT32`, `v5`.
    pub version: Option<String>,
    /// The name that the user gave it.
    pub label: Option<String>,
    /// As blkid prints it.
    pub uuid: Option<String>,
    /// Bytes that it claims of the volume.
    pub size: Option<u64>,
    /// Bytes of an allocation unit.
    pub block_size: Option<u64>,
}

/// How the readers are to judge.
#[derive(Debug, Clone, Copy, Default)]
pub struct FreeOptions {
    /// Replay an ext4 journal in memory to see the true bitmaps, instead of refusing.
    pub replay_journal: bool,
}

/// What a filesystem knows of its own blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FreeSpace {
    /// Free ranges of the volume, in bytes.
    pub free: FreeMap,
    /// What holds back some of it, or how it was found, in one line: `journal replayed in memory`.
    pub note: Option<Cow<'static, str>>,
}
