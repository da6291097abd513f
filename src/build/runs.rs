//! Directories of runs: what is kept of each build for people to look at.
//!
//! Knows whose a directory is, how long it stays, and what a killed build must not leave in it. Must not know what consoles
//! say.

use std::path::{Path, PathBuf};

use super::register::{forget_dead, is_kept};
use crate::communicator::Stop;
use crate::error::Result;
use crate::store::{
    Attempt, Hold, Kind, Share, look, make_private_directory, names_in, remove_file, remove_tree,
};

/// Runs whose logs stay, the latest ones.
const KEPT: usize = 20;
/// Held by all builds of a run, for as long as they need the directory.
pub(super) const LOCK: &str = "lock";
/// What opens the guest while a build runs.
pub(crate) const KEY: &str = "key";
/// The template's password, where it lets in, while a build runs.
pub(crate) const PASSWORD: &str = "password";
/// What brings that key into the guest.
pub(crate) const SEED: &str = "seed.img";
/// The overlay of a test, which is worth nothing without it.
pub(crate) const DISK: &str = "disk.qcow2";
/// The guest's key, for programs of others.
pub(super) const KNOWN_HOSTS: &str = "known_hosts";

/// The directory of one build, below that of its run. Only its owner reads it.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    lock: PathBuf,
    hold: Option<Hold>,
}

impl RunDirectory {
    /// Makes the directory of `build` in the run `run` below `runs`, and sweeps what earlier runs left there.
    ///
    /// # Errors
    /// The host's own; cancelled.
    pub(crate) fn make(runs: &Path, run: &str, build: &str, stop: &Stop) -> Result<Self> {
        let own = runs.join(run);
        make_private_directory(runs)?;
        make_private_directory(&own)?;
        let lock = own.join(LOCK);
        let hold = Hold::wait(&lock, Share::Shared, stop, &mut |_| {})?;
        make_private_directory(own.join(build))?;
        sweep(runs, &own);
        Ok(Self {
            lock,
            hold: Some(hold),
        })
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        drop(self.hold.take());
        // The last one takes the lock along.
        if let Ok(Attempt::Held(hold)) = Hold::attempt(&self.lock, Share::Alone) {
            let _ = hold.remove();
        }
    }
}

/// Removes what gave access to the guests of killed builds, and the oldest runs. Sweeping is a courtesy: what cannot be
/// looked at or removed stays.
fn sweep(runs: &Path, own: &Path) {
    let mut others: Vec<_> = names_in(runs)
        .unwrap_or_default()
        .into_iter()
        .filter(|path| path != own)
        .filter_map(|path| Some((look(&path).ok()??, path)))
        .filter(|(seen, _)| seen.kind == Kind::Directory)
        .map(|(seen, path)| (seen.modified, path))
        .collect();
    others.sort_unstable_by(|one, other| other.cmp(one));
    let mut logs = 0;
    for (_, run) in others {
        let Ok(Attempt::Held(hold)) = Hold::attempt(run.join(LOCK), Share::Alone) else {
            continue;
        };
        let builds = names_in(&run).unwrap_or_default();
        // A machine that was kept goes when somebody says so.
        if !builds.iter().any(|build| is_kept(build)) {
            logs += 1;
            if logs >= KEPT {
                let _ = remove_tree(&run);
                continue;
            }
        }
        for path in builds {
            match look(&path) {
                Ok(Some(seen)) if seen.kind == Kind::Directory => {
                    for name in [KEY, PASSWORD, SEED, DISK, KNOWN_HOSTS] {
                        let _ = remove_file(path.join(name));
                    }
                    forget_dead(&path);
                }
                // Scripts of the host. The lock goes with its hold.
                Ok(_) if path != hold.path() => drop(remove_file(&path)),
                _ => {}
            }
        }
        let _ = hold.remove();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn make(runs: &Path, run: &str) -> RunDirectory {
        RunDirectory::make(runs, run, "web", &|| false).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        names_in(directory)
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn only_its_owner_reads_it() {
        let top = tempfile::tempdir().unwrap();
        let runs = top.path().join("qimg/runs");
        let made = make(&runs, "one");
        for path in [runs.join("one/web"), runs.join("one"), runs.clone()] {
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{path:?}");
        }
        drop(made);
        assert_eq!(names(&runs.join("one")), ["web"]);
    }

    #[test]
    fn keys_of_a_killed_build_go_and_those_of_a_living_one_stay() {
        let runs = tempfile::tempdir().unwrap();
        let _alive = make(runs.path(), "alive");
        let alive = runs.path().join("alive/web");
        std::fs::write(alive.join(KEY), "").unwrap();
        std::fs::write(runs.path().join("alive/packer-shell"), "").unwrap();
        let dead = runs.path().join("dead/web");
        std::fs::create_dir_all(&dead).unwrap();
        for name in [KEY, PASSWORD, SEED, "console.log"] {
            std::fs::write(dead.join(name), "").unwrap();
        }
        std::fs::write(runs.path().join("dead/packer-shell"), "").unwrap();
        let _next = make(runs.path(), "next");
        assert_eq!(names(&dead), ["console.log"]);
        assert_eq!(names(&runs.path().join("dead")), ["web"]);
        assert_eq!(names(&alive), [KEY]);
        assert_eq!(
            names(&runs.path().join("alive")),
            [LOCK, "packer-shell", "web"]
        );
    }

    #[test]
    fn a_machine_that_was_kept_stays_whatever_was_run_since() {
        let runs = tempfile::tempdir().unwrap();
        let kept = runs.path().join("000/web");
        std::fs::create_dir_all(&kept).unwrap();
        let record = r#"{"run":"000/web","purpose":"build","of":"web.toml","process":1,"born":null,"started":5,
            "qemu":null,"console":"c","entrance":null,"directory":"/nowhere","left":{"why":"it failed","qemu":"/q",
            "arguments":[],"port":null,"emulated":true,"tpm":null}}"#;
        std::fs::write(kept.join("run.json"), record).unwrap();
        for number in 1..KEPT + 5 {
            std::fs::create_dir(runs.path().join(format!("{number:03}"))).unwrap();
        }
        let _own = make(runs.path(), "own");
        assert!(kept.join("run.json").exists());
        assert_eq!(names(runs.path()).len(), KEPT + 1);
    }

    #[test]
    #[expect(
        clippy::disallowed_types,
        reason = "a directory gets a time through nothing else"
    )]
    fn only_the_latest_runs_stay() {
        let runs = tempfile::tempdir().unwrap();
        for number in 0..KEPT + 5 {
            let run = runs.path().join(format!("{number:03}"));
            std::fs::create_dir(&run).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH
                + std::time::Duration::from_secs(1_000_000 + number as u64);
            std::fs::File::open(&run)
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
        let _own = make(runs.path(), "own");
        let names = names(runs.path());
        assert_eq!(names.len(), KEPT);
        assert_eq!(names.first().unwrap(), "006");
        assert_eq!(names.last().unwrap(), "own");
    }
}
