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
    /// A build uses it, or makes it, or something rests on it.
    pub in_use: bool,
    /// What rests on its disks without being a process, in words.
    pub pinned_by: Option<String>,
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
            let pinned_by = self.pins.of_part(&path)?;
            let in_use = pinned_by.is_some()
                || look(&lock)?.is_some()
                    // Where nobody can hold anything, nobody does.
                    && matches!(
                        Hold::attempt(&lock, Share::Alone),
                        Ok(Attempt::Busy { .. })
                    );
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
                pinned_by,
                whole: record.is_some(),
                below: record.and_then(|record| record.below),
                path,
            });
        }
        all.sort_by(|one, other| (other.last_used, &one.key).cmp(&(one.last_used, &other.key)));
        Ok(all)
    }

    /// Removes what is not in use, and what nothing rests on; with a state all that are on top of it go, too.
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
                // Only now nobody can be about to pin it.
                let pinned_by = self.pins.of_part(&one.path)?;
                if has_others || pinned_by.is_some() {
                    // It is in use, or what is on top of it is.
                    done.kept.push(Kept {
                        pinned_by,
                        ..one.clone()
                    });
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
        self.pins.forget_stale()?;
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

#[cfg(test)]
mod tests {
    use super::super::shelf::{Layer, Record, layer};
    use super::*;
    use crate::build::disk::{self, Origin};
    use crate::communicator::Stop;
    use crate::fetch::cache::write_record;
    use crate::image::Format;

    const NEVER: &Stop = &|| false;

    /// A state with one disk, on top of `below`.
    fn state(shelf: &Shelf, key: &str, below: Option<&str>, bytes: usize) {
        let begun = shelf.begin(key).unwrap().expect("nobody else makes it");
        let disk = begun.directory.join("disk-0.qcow2");
        let origin = below.map(|below| Origin {
            path: shelf.place(below).join("disk-0.qcow2"),
            format: Format::Qcow2,
            virtual_size: 1 << 20,
        });
        disk::make(&disk, origin.as_ref(), Some(1 << 20)).unwrap();
        let mut whole = std::fs::read(&disk).unwrap();
        whole.resize(whole.len() + bytes, 7);
        std::fs::write(&disk, whole).unwrap();
        let layer: Layer = layer(&disk, 1 << 20, NEVER).unwrap();
        let record = Record {
            build: "web".to_owned(),
            template: "web.toml".into(),
            after: format!("step {key}"),
            steps: 1,
            saves: 1000,
            below: below.map(str::to_owned),
            disks: vec![layer],
            files: Vec::new(),
            memory: None,
            no_memory: None,
            instance_id: None,
            created_user: None,
        };
        write_record(&begun.directory.join("record.json"), &record).unwrap();
        begun.making.remove().unwrap();
        // Times differ by this.
        std::thread::sleep(Duration::from_millis(20));
    }

    fn keys(shelf: &Shelf) -> Vec<String> {
        let all = shelf.list().unwrap().into_iter();
        let mut keys: Vec<String> = all.map(|one| one.key).collect();
        keys.sort();
        keys
    }

    fn shelf() -> (tempfile::TempDir, Shelf) {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::of(directory.path());
        assert!(shelf.list().unwrap().is_empty());
        (directory, shelf)
    }

    #[test]
    fn a_state_is_found_with_all_that_is_below_it() {
        let (_directory, shelf) = shelf();
        state(&shelf, "a", None, 100_000);
        state(&shelf, "b", Some("a"), 100_000);
        let found = shelf.find("b", NEVER).unwrap().unwrap().unwrap();
        assert_eq!(found.record.after, "step b");
        assert_eq!(found.holds.len(), 2);
        // Both are in use.
        let removed = shelf.prune(Prune::All).unwrap();
        assert_eq!((removed.removed.len(), removed.kept.len()), (0, 2));
        let all = shelf.list().unwrap();
        assert!(all.iter().all(|one| one.in_use && one.whole));
        drop(found);
        assert!(shelf.find("c", NEVER).unwrap().is_none());
        // Nobody makes what is there.
        assert!(shelf.begin("b").unwrap().is_none());
        let removed = shelf.prune(Prune::All).unwrap();
        assert_eq!((removed.removed.len(), removed.left), (2, 0));
        let mut rest = std::fs::read_dir(&shelf.directory).unwrap();
        assert!(rest.next().is_none());
    }

    #[test]
    fn what_is_not_what_it_was_is_noticed_and_goes_with_all_above_it() {
        let (_directory, shelf) = shelf();
        state(&shelf, "a", None, 50_000);
        state(&shelf, "b", Some("a"), 50_000);
        state(&shelf, "c", Some("b"), 50_000);
        let disk = shelf.place("b").join("disk-0.qcow2");
        let mut bytes = std::fs::read(&disk).unwrap();
        bytes[17] ^= 1;
        std::fs::write(&disk, &bytes).unwrap();
        let damaged = shelf.find("c", NEVER).unwrap().unwrap().unwrap_err();
        assert!(damaged.why.contains("not what it was"), "{damaged:?}");
        assert_eq!(keys(&shelf), ["a"]);
        assert!(shelf.find("a", NEVER).unwrap().unwrap().is_ok());
        // Written again, but with the same bytes: that is no damage.
        let disk = shelf.place("a").join("disk-0.qcow2");
        let bytes = std::fs::read(&disk).unwrap();
        std::fs::write(&disk, bytes).unwrap();
        assert!(shelf.find("a", NEVER).unwrap().unwrap().is_ok());
        // What is below was removed behind its back.
        state(&shelf, "b", Some("a"), 50_000);
        shelf.clear("a").unwrap();
        let damaged = shelf.find("b", NEVER).unwrap().unwrap().unwrap_err();
        assert!(damaged.why.contains("was removed"), "{damaged:?}");
        assert!(keys(&shelf).is_empty());
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let (_directory, shelf) = shelf();
        state(&shelf, "a", None, 1 << 20);
        state(&shelf, "b", Some("a"), 1 << 20);
        state(&shelf, "x", None, 1 << 20);
        // Also those below are used.
        drop(shelf.find("b", NEVER).unwrap());
        let removed = shelf.prune(Prune::Limit(3 << 20)).unwrap();
        assert_eq!(removed.removed.len(), 1);
        assert_eq!(keys(&shelf), ["a", "b"]);
        shelf.prune(Prune::Limit(3 << 19)).unwrap();
        assert_eq!(keys(&shelf), ["a"]);
        shelf.shrink(1).unwrap();
        assert!(keys(&shelf).is_empty());
    }

    #[test]
    fn what_a_machine_rests_on_stays_and_what_is_damaged_keeps_its_disk() {
        let (directory, shelf) = shelf();
        state(&shelf, "a", None, 1 << 20);
        state(&shelf, "b", Some("a"), 1 << 20);
        state(&shelf, "x", None, 1 << 20);
        let holder = directory.path().join("run.json");
        std::fs::write(&holder, "").unwrap();
        let rests_on = [shelf.place("a"), shelf.place("b")];
        shelf.pins.pin(&holder, "web", &rests_on).unwrap();
        for what in [Prune::Limit(0), Prune::All] {
            let pruned = shelf.prune(what).unwrap();
            let by = pruned.kept.iter().map(|kept| kept.pinned_by.as_deref());
            assert!(by.eq([Some("web"); 2]), "{pruned:?}");
        }
        assert_eq!(keys(&shelf), ["a", "b"]);
        // No build goes on from what is damaged, but its disk is another's.
        let memory = shelf.place("b").join("memory.zst");
        std::fs::write(&memory, "x").unwrap();
        shelf.remove(&["b".to_owned()]).unwrap();
        assert!(shelf.find("b", NEVER).unwrap().is_none());
        assert!(shelf.begin("b").unwrap().is_none());
        assert!(shelf.place("b").join("disk-0.qcow2").exists() && !memory.exists());
        std::fs::remove_file(&holder).unwrap();
        assert!(shelf.begin("b").unwrap().is_some());
        shelf.prune(Prune::All).unwrap();
        assert!(keys(&shelf).is_empty());
    }

    #[test]
    fn what_a_killed_build_left_is_no_state_and_is_made_anew() {
        let (_directory, shelf) = shelf();
        let begun = shelf.begin("a").unwrap().unwrap();
        // Nobody else makes it meanwhile.
        assert!(shelf.begin("a").unwrap().is_none());
        std::fs::write(begun.directory.join("disk-0.qcow2"), "half").unwrap();
        assert!(shelf.find("a", NEVER).unwrap().is_none());
        assert!(!shelf.list().unwrap()[0].whole);
        // Its disk is in use as long as the build lives.
        begun.making.remove().unwrap();
        assert!(shelf.begin("a").unwrap().is_none());
        drop(begun.hold);
        let again = shelf.begin("a").unwrap().unwrap();
        assert!(!again.directory.join("disk-0.qcow2").exists());
    }

    #[test]
    fn records_that_are_none_are_no_states() {
        let (_directory, shelf) = shelf();
        state(&shelf, "a", None, 1000);
        let record = shelf.place("a").join("record.json");
        let whole = std::fs::read_to_string(&record).unwrap();
        let half = &whole[..whole.len() / 2];
        let other = whole.replace("null", "7");
        for text in ["", "{", "[]", half, &other] {
            std::fs::write(&record, text).unwrap();
            assert!(shelf.find("a", NEVER).unwrap().is_none(), "{text}");
        }
        // One that is below itself.
        let circle = whole.replace("\"below\":null", "\"below\":\"a\"");
        std::fs::write(&record, circle).unwrap();
        let damaged = shelf.find("a", NEVER).unwrap().unwrap().unwrap_err();
        assert!(damaged.why.contains("elsewhere"), "{damaged:?}");
    }
}
