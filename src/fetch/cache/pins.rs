//! What something outside the cache rests on, beyond the life of a process.
//!
//! Knows who that is, and that it counts for as long as it is there. Must not know what it is.
//!
//! ```text
//! pins/KEY.json   a holder, and the parts of the cache that it rests on; KEY stands for the holder's path
//! ```
//!
//! A pin is written while its parts are still held by a process, and looked for by whoever has taken a part for itself
//! alone: so nothing goes between the two.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{key_of, read_record, write_record};
use crate::error::Result;
use crate::store::{look, make_private_directory, names_in, remove_file};

/// Pins of the cache in a directory.
#[derive(Debug, Clone)]
pub(crate) struct Pins {
    cache: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pin {
    /// Absolute. The pin counts for as long as this is there.
    holder: PathBuf,
    /// What that is, in words.
    who: String,
    /// Paths of directories, relative to the cache: it may be reached by other names later.
    parts: Vec<PathBuf>,
}

impl Pin {
    /// Whether its holder is there; on any doubt it is.
    fn stands(&self) -> bool {
        match look(&self.holder) {
            Ok(seen) => seen.is_some(),
            Err(error) => {
                // Something else has taken the place of its directory.
                let source = std::error::Error::source(&error);
                let source = source.and_then(|source| source.downcast_ref::<std::io::Error>());
                source.is_none_or(|source| source.kind() != std::io::ErrorKind::NotADirectory)
            }
        }
    }
}

impl Pins {
    /// Those of the cache in `cache`.
    pub(crate) fn of(cache: &Path) -> Self {
        Self {
            cache: cache.to_owned(),
        }
    }

    fn directory(&self) -> PathBuf {
        self.cache.join("pins")
    }

    /// Keeps all parts of the cache that are among `paths`, or that these lie in, for as long as `holder` is there. A pin of
    /// the same holder is replaced. Nothing is written where no part of the cache is among them.
    ///
    /// # Errors
    /// The host's own.
    pub(crate) fn pin(&self, holder: &Path, who: &str, paths: &[PathBuf]) -> Result<()> {
        let pin = Pin {
            holder: holder.to_owned(),
            who: who.to_owned(),
            parts: paths.iter().filter_map(|path| self.part(path)).collect(),
        };
        if pin.parts.is_empty() {
            return Ok(());
        }
        make_private_directory(self.directory())?;
        let name = key_of(&holder.as_os_str().to_string_lossy());
        write_record(&self.directory().join(format!("{name}.json")), &pin)
    }

    /// Who rests on `part`, in words; `None`: nobody.
    ///
    /// # Errors
    /// The host cannot tell.
    pub(crate) fn of_part(&self, part: &Path) -> Result<Option<String>> {
        let Some(part) = self.part(part) else {
            return Ok(None);
        };
        for path in names_in(self.directory())? {
            let Some(pin) = read_record::<Pin>(&path).filter(|pin| pin.parts.contains(&part))
            else {
                continue;
            };
            if pin.stands() {
                return Ok(Some(pin.who));
            }
        }
        Ok(None)
    }

    /// Removes pins of holders that are gone.
    ///
    /// # Errors
    /// The host refuses.
    pub(crate) fn forget_stale(&self) -> Result<()> {
        for path in names_in(self.directory())? {
            if !read_record::<Pin>(&path).is_some_and(|pin| pin.stands()) {
                remove_file(path)?;
            }
        }
        Ok(())
    }

    /// The part of the cache that `path` is, or lies in: `entries/HEX` or `steps/KEY`.
    fn part(&self, path: &Path) -> Option<PathBuf> {
        let below = match path.strip_prefix(&self.cache) {
            Ok(below) => below.to_owned(),
            // Reached by another name.
            Err(_) => {
                let cache = self.cache.canonicalize().ok()?;
                path.canonicalize()
                    .ok()?
                    .strip_prefix(cache)
                    .ok()?
                    .to_owned()
            }
        };
        let mut parts = below.components();
        let kind = parts.next()?;
        let name = parts.next()?;
        Some(Path::new(&kind).join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_pinned_for_as_long_as_its_holder_is_there() {
        let top = tempfile::tempdir().unwrap();
        let cache = top.path().join("cache");
        let state = cache.join("steps/abc");
        std::fs::create_dir_all(&state).unwrap();
        let holder = top.path().join("run.json");
        std::fs::write(&holder, "").unwrap();
        let pins = Pins::of(&cache);
        assert_eq!(pins.of_part(&state).unwrap(), None);
        let outside = top.path().join("base.qcow2");
        pins.pin(&holder, "nobody", std::slice::from_ref(&outside))
            .unwrap();
        assert!(!cache.join("pins").exists());
        pins.pin(&holder, "web", &[state.join("disk-0.qcow2"), outside])
            .unwrap();
        assert_eq!(pins.of_part(&state).unwrap().as_deref(), Some("web"));
        assert_eq!(pins.of_part(&cache.join("steps/abcd")).unwrap(), None);
        // By another name of the cache.
        let link = top.path().join("link");
        std::os::unix::fs::symlink(&cache, &link).unwrap();
        let same = Pins::of(&link);
        for name in [state.clone(), link.join("steps/abc")] {
            assert_eq!(same.of_part(&name).unwrap().as_deref(), Some("web"));
        }
        pins.forget_stale().unwrap();
        assert!(pins.of_part(&state).unwrap().is_some());
        std::fs::remove_file(&holder).unwrap();
        assert_eq!(pins.of_part(&state).unwrap(), None);
        pins.forget_stale().unwrap();
        assert_eq!(names_in(cache.join("pins")).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_file_in_the_place_of_a_holders_directory_is_no_holder() {
        let top = tempfile::tempdir().unwrap();
        let state = top.path().join("cache/steps/abc");
        std::fs::create_dir_all(&state).unwrap();
        let output = top.path().join("output");
        std::fs::create_dir(&output).unwrap();
        std::fs::write(output.join("disk"), "").unwrap();
        let pins = Pins::of(&top.path().join("cache"));
        let overlay = output.join("disk");
        pins.pin(&overlay, "web", std::slice::from_ref(&state))
            .unwrap();
        std::fs::remove_dir_all(&output).unwrap();
        std::fs::write(&output, "").unwrap();
        assert_eq!(pins.of_part(&state).unwrap(), None);
        pins.forget_stale().unwrap();
        assert!(names_in(top.path().join("cache/pins")).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_pin_pins_nothing() {
        let cache = tempfile::tempdir().unwrap();
        let pins = cache.path().join("pins");
        std::fs::create_dir(&pins).unwrap();
        for (number, text) in ["", "{", "[]", "{\"holder\":\"/\"}"].iter().enumerate() {
            std::fs::write(pins.join(format!("{number}.json")), text).unwrap();
        }
        let all = Pins::of(cache.path());
        assert_eq!(all.of_part(&cache.path().join("steps/a")).unwrap(), None);
        all.forget_stale().unwrap();
        assert!(names_in(pins).unwrap().is_empty());
    }
}
