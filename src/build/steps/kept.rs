//! What states there are, and which go when there is no room.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::boundary::occupied;
use super::shelf::Shelf;
use crate::error::Result;
use crate::fetch::Prune;
use crate::store::{Attempt, Hold, Kind, Share, look, names_in};

/// A state in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub key: String,
    /// Name of the build, and after what; empty where that is not known.
    pub text: String,
    /// Milliseconds of work that it saves.
    pub saves: u64,
    /// Bytes that it occupies on the host.
    pub size: u64,
    /// When it was used last.
    pub last_used: SystemTime,
    /// A build uses it, or makes it.
    pub in_use: bool,
    /// Its disks are on top of this one's.
    pub below: Option<String>,
    /// It is whole.
    pub whole: bool,
    /// Its directory.
    pub path: std::path::PathBuf,
}

/// What has gone, and what stayed although it should have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// What has gone.
    pub removed: Vec<Kept>,
    /// In use.
    pub kept: Vec<Kept>,
    /// Bytes that the rest occupies.
    pub left: u64,
}

impl Shelf {
    /// What there is, those used last first.
    ///
    /// # Errors
    /// The directory cannot be read; that there is none is no error.
    pub fn list(&self) -> Result<Vec<Kept>> {
        let mut all = Vec::new();
        for path in names_in(&self.directory)? {
            let Some(seen) = look(&path)?.filter(|seen| seen.kind == Kind::Directory) else {
                continue;
            };
            let Some(key) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let record = self.record(key);
            let used = look(path.join("record.json"))?.map_or(seen.modified, |seen| seen.modified);
            let lock = self.lock(key);
            let in_use = look(&lock)?.is_some()
                && matches!(Hold::attempt(&lock, Share::Alone)?, Attempt::Busy { .. });
            all.push(Kept {
                key: key.to_owned(),
                text: record
                    .as_ref()
                    .map(|record| format!("{}: after {}", record.build, record.after))
                    .unwrap_or_default(),
                saves: record.as_ref().map_or(0, |record| record.saves),
                size: occupied(&path)?,
                last_used: time(used),
                in_use,
                whole: record.is_some(),
                below: record.and_then(|record| record.below),
                path,
            });
        }
        all.sort_by(|one, other| (other.last_used, &one.key).cmp(&(one.last_used, &other.key)));
        Ok(all)
    }

    /// Removes what is not in use; with a state all that are on top of it go, too.
    ///
    /// # Errors
    /// As [`Shelf::list`]; the host refuses to remove something.
    pub fn prune(&self, what: Prune) -> Result<Removed> {
        let all = self.list()?;
        let now = SystemTime::now();
        let mut done = Removed {
            left: all.iter().map(|kept| kept.size).sum(),
            ..Removed::default()
        };
        let mut gone = BTreeSet::new();
        let mut looked_at = BTreeSet::new();
        // What was used last is looked at last.
        for one in all.iter().rev() {
            let goes = match what {
                Prune::All => true,
                Prune::OlderThan(age) => now
                    .duration_since(one.last_used)
                    .is_ok_and(|unused| unused >= age),
                Prune::Limit(most) => done.left > most,
            };
            if !goes {
                continue;
            }
            for one in with_those_above(&all, &one.key) {
                if !looked_at.insert(one.key.clone()) {
                    continue;
                }
                let has_others = all.iter().any(|other| {
                    other.below.as_ref() == Some(&one.key) && !gone.contains(&other.key)
                });
                let Attempt::Held(hold) = Hold::attempt(self.lock(&one.key), Share::Alone)? else {
                    done.kept.push(one.clone());
                    continue;
                };
                if has_others {
                    // What is on top of it is in use.
                    done.kept.push(one.clone());
                    continue;
                }
                self.clear(&one.key)?;
                hold.remove()?;
                gone.insert(one.key.clone());
                done.left = done.left.saturating_sub(one.size);
                done.removed.push(one.clone());
            }
        }
        self.forget_locks()?;
        Ok(done)
    }

    /// Removes what was not used for longest until no more than `most` bytes are left.
    pub(super) fn shrink(&self, most: u64) -> Result<()> {
        self.prune(Prune::Limit(most)).map(drop)
    }

    /// Locks of states that are gone.
    fn forget_locks(&self) -> Result<()> {
        for path in names_in(&self.directory)? {
            let is_lock = path
                .extension()
                .is_some_and(|ending| ending == "lock" || ending == "making");
            if is_lock
                && look(path.with_extension(""))?.is_none()
                && let Attempt::Held(hold) = Hold::attempt(&path, Share::Alone)?
            {
                hold.remove()?;
            }
        }
        Ok(())
    }
}

/// A state and all that are on top of it, the topmost first.
fn with_those_above<'a>(all: &'a [Kept], key: &str) -> Vec<&'a Kept> {
    let mut found: Vec<&Kept> = all.iter().filter(|kept| kept.key == key).collect();
    let mut at = 0;
    while let Some(one) = found.get(at).copied() {
        let above = all.iter().filter(|kept| {
            kept.below.as_ref() == Some(&one.key)
                && !found.iter().any(|known| known.key == kept.key)
        });
        let above: Vec<&Kept> = above.collect();
        found.extend(above);
        at += 1;
    }
    found.reverse();
    found
}

fn time((seconds, nanoseconds): (i64, i64)) -> SystemTime {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    let nanoseconds = u32::try_from(nanoseconds).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds.min(999_999_999))
}
