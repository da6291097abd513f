//! What the cache holds, and what of it may go.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::pins::Pins;
use super::{Cache, Known, Pointer, Record, parsed, read_record};
use crate::digest::{Digest, DigestKind};
use crate::error::Result;
use crate::store::{
    Attempt, Hold, Kind, Share, look, names_in, remove_empty_directory, remove_file,
};

/// Something that the cache holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where it came from; empty, where that is not known.
    pub url: String,
    /// SHA-256 of what was downloaded; none for a download that is not complete.
    pub digest: Option<Digest>,
    /// Length in bytes.
    pub length: u64,
    /// Bytes that it occupies on the host.
    pub size: u64,
    /// When it was used last.
    pub last_used: SystemTime,
    /// A build uses it, or it is being downloaded, or something rests on it.
    pub in_use: bool,
    /// What rests on it without being a process, in words.
    pub pinned_by: Option<String>,
    /// The file.
    pub path: PathBuf,
    lock: PathBuf,
}

/// What shall go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prune {
    /// Everything.
    All,
    /// What has not been used for so long.
    OlderThan(Duration),
    /// What has not been used for longest, until the rest occupies no more than so many bytes.
    Limit(u64),
}

/// What has gone, and what stayed although it should have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// What has gone.
    pub removed: Vec<Item>,
    /// In use.
    pub kept: Vec<Item>,
    /// Bytes that the rest occupies.
    pub left: u64,
}

impl Cache {
    /// What the cache holds: complete entries and begun downloads, those used last first.
    ///
    /// # Errors
    /// The directory cannot be read; that there is none is no error.
    pub fn list(&self) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        let pins = Pins::of(&self.directory);
        for path in names_in(self.directory.join("entries"))? {
            if look(&path)?.is_some_and(|seen| seen.kind == Kind::Directory) {
                items.extend(entry(&path, &pins)?);
            }
        }
        for path in names_in(self.directory.join("downloads"))? {
            if path.extension().is_some_and(|ending| ending == "part") {
                items.extend(download(&path)?);
            }
        }
        items.sort_by(|one, other| (other.last_used, &one.path).cmp(&(one.last_used, &other.path)));
        Ok(items)
    }

    /// Removes what is not in use, and what nothing rests on.
    ///
    /// # Errors
    /// As [`Cache::list`]; the host refuses to remove something.
    pub fn prune(&self, what: Prune) -> Result<Pruned> {
        let items = self.list()?;
        let pins = Pins::of(&self.directory);
        let mut pruned = Pruned {
            left: items.iter().map(|item| item.size).sum(),
            ..Pruned::default()
        };
        let now = SystemTime::now();
        // What was used last is looked at last.
        for item in items.into_iter().rev() {
            let goes = match what {
                Prune::All => true,
                Prune::OlderThan(age) => now
                    .duration_since(item.last_used)
                    .is_ok_and(|unused| unused >= age),
                Prune::Limit(most) => pruned.left > most,
            };
            if !goes {
                continue;
            }
            // Held alone, nobody can be about to use it.
            let Attempt::Held(hold) = Hold::attempt(&item.lock, Share::Alone)? else {
                pruned.kept.push(Item {
                    in_use: true,
                    ..item
                });
                continue;
            };
            // Only now nobody can be about to pin it.
            let pinned_by = pins.of_part(&item.lock.with_extension(""))?;
            if pinned_by.is_some() {
                pruned.kept.push(Item {
                    in_use: true,
                    pinned_by,
                    ..item
                });
                continue;
            }
            remove(&item)?;
            hold.remove()?;
            pruned.left = pruned.left.saturating_sub(item.size);
            pruned.removed.push(Item {
                in_use: false,
                ..item
            });
        }
        self.forget_stale()?;
        pins.forget_stale()?;
        Ok(pruned)
    }

    /// Removes what is remembered of things that are gone.
    fn forget_stale(&self) -> Result<()> {
        for path in names_in(self.directory.join("urls"))? {
            let stands = read_record::<Pointer>(&path)
                .and_then(|pointer| pointer.digest.parse::<Digest>().ok())
                .is_some_and(|digest| {
                    let record = self.entry_path(&digest.hex()).join("entry.json");
                    matches!(look(record), Ok(Some(_)))
                });
            if !stands {
                remove_file(&path)?;
            }
        }
        for path in names_in(self.directory.join("files"))? {
            let stands = read_record::<Known>(&path)
                .is_some_and(|known| matches!(look(known.path), Ok(Some(_))));
            if !stands {
                remove_file(&path)?;
            }
        }
        // Locks of downloads that are over, and of entries that never came to be.
        for directory in ["downloads", "entries"] {
            for path in names_in(self.directory.join(directory))? {
                let is_lock = path.extension().is_some_and(|ending| ending == "lock");
                let subject = match directory {
                    "downloads" => path.with_extension("part"),
                    _ => path.with_extension(""),
                };
                if is_lock
                    && look(subject)?.is_none()
                    && let Attempt::Held(hold) = Hold::attempt(&path, Share::Alone)?
                {
                    remove_file(path.with_extension("json"))?;
                    remove_file(path.with_extension("unpacked"))?;
                    hold.remove()?;
                }
            }
        }
        Ok(())
    }
}

fn entry(directory: &Path, pins: &Pins) -> Result<Option<Item>> {
    let path = directory.join("image");
    let lock = directory.with_extension("lock");
    let record: Option<Record> = read_record(&directory.join("entry.json"));
    // Whatever a killed process left of an entry is listed, so that it can go.
    let seen = look(&path)?.or(look(directory)?);
    let Some(seen) = seen else {
        return Ok(None);
    };
    let whole = record.as_ref().and_then(|record| {
        parsed(&record.digests)
            .into_iter()
            .find(|digest| digest.kind() == DigestKind::Sha256)
    });
    let pinned_by = pins.of_part(directory)?;
    Ok(Some(Item {
        url: record.map(|record| record.url).unwrap_or_default(),
        digest: whole,
        length: seen.length,
        size: seen.allocated,
        last_used: used(&directory.join("entry.json"), seen.modified)?,
        in_use: pinned_by.is_some() || is_held(&lock)?,
        pinned_by,
        path,
        lock,
    }))
}

fn download(part: &Path) -> Result<Option<Item>> {
    let Some(seen) = look(part)? else {
        return Ok(None);
    };
    let lock = part.with_extension("lock");
    let record: Option<crate::fetch::transfer::Begun> = read_record(&part.with_extension("json"));
    Ok(Some(Item {
        url: record.map(|record| record.url).unwrap_or_default(),
        digest: None,
        length: seen.length,
        size: seen.allocated,
        last_used: time(seen.modified),
        in_use: is_held(&lock)?,
        pinned_by: None,
        path: part.to_owned(),
        lock,
    }))
}

fn remove(item: &Item) -> Result<()> {
    if item.path.extension().is_some_and(|ending| ending == "part") {
        remove_file(item.path.with_extension("json"))?;
        remove_file(item.path.with_extension("unpacked"))?;
        return remove_file(&item.path);
    }
    let directory = item.lock.with_extension("");
    // Without its record it is no entry; then the rest goes.
    remove_file(directory.join("entry.json"))?;
    for path in names_in(&directory)? {
        remove_file(path)?;
    }
    remove_empty_directory(directory).map(drop)
}

/// Whether anybody holds the name, as far as can be told without being in the way for longer than a moment.
fn is_held(lock: &Path) -> Result<bool> {
    if look(lock)?.is_none() {
        return Ok(false);
    }
    Ok(matches!(
        // Where nobody can hold anything, nobody does.
        Hold::attempt(lock, Share::Alone),
        Ok(Attempt::Busy { .. })
    ))
}

fn used(record: &Path, otherwise: (i64, i64)) -> Result<SystemTime> {
    Ok(time(look(record)?.map_or(otherwise, |seen| seen.modified)))
}

fn time((seconds, nanoseconds): (i64, i64)) -> SystemTime {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    let nanoseconds = u32::try_from(nanoseconds).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds.min(999_999_999))
}
