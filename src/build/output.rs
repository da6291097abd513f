//! Where the files of a build appear: complete, or not at all.
//!
//! Knows the directory of the artifact, who builds it, and what an earlier build left there. Must not know what the files
//! are.
//!
//! Beside the directory `output` there are, while a build runs: `.output.qimg-lock`, held by its process;
//! `.output.qimg-work`, where all files are made; and `.output.qimg-old`, what stood there before. The work directory's
//! `artifact` becomes the directory itself in one step. A template that names a file of the directory in QEMU's arguments has
//! it made at once: then a mark in it says that it is not finished, and the manifest is written last.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::store::{
    Attempt, Hold, Kind, Share, look, make_directory, move_file, remove_file, remove_tree,
    write_file,
};

/// In a directory that is not finished.
const MARK: &str = ".qimg-unfinished";
/// In a work directory that was left for people to look at.
const LEFT: &str = ".qimg-left";
/// Written last into a directory that was there from the beginning.
pub const MANIFEST: &str = "qimg-manifest.json";

/// The directory of a build's files. Dropped before [`OutputDirectory::finish`], it leaves what was there before.
#[derive(Debug)]
pub struct OutputDirectory {
    directory: PathBuf,
    work: PathBuf,
    old: PathBuf,
    replace: bool,
    /// The directory itself holds the files from the beginning.
    early: bool,
    /// Nothing is removed when this goes.
    keep: AtomicBool,
    done: bool,
    // Last: nobody else begins before all is tidied up.
    hold: Option<Hold>,
}

impl OutputDirectory {
    /// Claims `directory`; sweeps what a killed build left. `replace`: an earlier build's output is set aside, and gone
    /// when this one is done. `early`: the directory is made at once.
    ///
    /// # Errors
    /// [`Locked`](ErrorKind::Locked): another process builds it; [`Refused`](ErrorKind::Refused): it exists; the host's own.
    pub fn claim(directory: &Path, replace: bool, early: bool) -> Result<Self> {
        let name = directory
            .file_name()
            .ok_or_else(|| Error::usage("is no name of a directory").at_path(directory))?
            .to_string_lossy();
        let parent = directory
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        make_directory(parent)?;
        let beside = |what: &str| parent.join(format!(".{name}.qimg-{what}"));
        let hold = match Hold::attempt(beside("lock"), Share::Alone)? {
            Attempt::Held(hold) => hold,
            Attempt::Busy { process } => {
                let by = process.map_or_else(
                    || "another process".to_owned(),
                    |process| format!("process {process}"),
                );
                return Err(
                    Error::new(ErrorKind::Locked, format!("{by} builds it already"))
                        .with_remedy("wait for it, or give this build another output directory")
                        .at_path(directory),
                );
            }
        };
        let this = Self {
            directory: directory.to_owned(),
            work: beside("work"),
            old: beside("old"),
            replace,
            early,
            keep: AtomicBool::new(false),
            done: false,
            hold: Some(hold),
        };
        let seen = look(directory)?;
        if seen.is_some_and(|seen| seen.kind != Kind::Directory) {
            // Whatever it is, no build made it.
            this.keep();
            return Err(Error::usage("is no directory")
                .with_remedy(
                    "give the build another output directory; --force does not replace it either",
                )
                .at_path(directory));
        }
        if exists(&this.work.join(LEFT)) && !replace {
            // Somebody wanted it to stay.
            this.keep();
            return Err(Error::refused(
                "is what a build that failed was told to leave",
                "--force removes it; or look at it, and remove it",
            )
            .at_path(&this.work));
        }
        this.sweep()?;
        if exists(&this.directory) && !replace {
            // What stands there is not ours.
            this.keep();
            return Err(Error::refused(
                "exists",
                "--force replaces it when this build is done; or remove it, or give another output directory",
            )
            .at_path(directory));
        }
        make_directory(this.work.join("artifact"))?;
        if early {
            if exists(&this.directory) {
                move_file(&this.directory, &this.old)?;
            }
            make_directory(&this.directory)?;
            write_file(this.directory.join(MARK), b"")?;
        }
        Ok(this)
    }

    /// Removes what a killed build left, and puts back what it had set aside.
    fn sweep(&self) -> Result<()> {
        remove_tree(&self.work)?;
        if exists(&self.directory.join(MARK)) {
            remove_tree(&self.directory)?;
        }
        if exists(&self.old) {
            if exists(&self.directory) {
                remove_tree(&self.old)?;
            } else {
                move_file(&self.old, &self.directory)?;
            }
        }
        Ok(())
    }

    /// Where the artifact's files will be in the end.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where files lie that are nobody's in the end.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Where the artifact's files are made.
    pub fn artifact(&self) -> PathBuf {
        if self.early {
            self.directory.clone()
        } else {
            self.work.join("artifact")
        }
    }

    /// Leaves all files where they are, for people to look at.
    pub fn keep(&self) {
        self.keep.store(true, Ordering::Relaxed);
    }

    /// Whether files stay if the build fails.
    pub(super) fn keeps(&self) -> bool {
        self.keep.load(Ordering::Relaxed)
    }

    /// Lets the artifact appear. `manifest` is what is written last where the directory was there from the beginning.
    ///
    /// # Errors
    /// The host's own; what was there before is there then.
    pub fn finish(mut self, manifest: &[u8]) -> Result<PathBuf> {
        if self.early {
            write_file(self.directory.join(MANIFEST), manifest)?;
            remove_file(self.directory.join(MARK))?;
        } else {
            if self.replace && exists(&self.directory) {
                move_file(&self.directory, &self.old)?;
            }
            move_file(self.artifact(), &self.directory)?;
        }
        self.done = true;
        remove_tree(&self.old)?;
        remove_tree(&self.work)?;
        Ok(self.directory.clone())
    }
}

impl Drop for OutputDirectory {
    fn drop(&mut self) {
        // There is nobody to tell; the next build sweeps what is left.
        if self.keeps() && !self.done && exists(&self.work) {
            let _ = write_file(self.work.join(LEFT), b"");
        }
        if !self.keep.load(Ordering::Relaxed) && !self.done {
            let _ = remove_tree(&self.work);
            if self.early {
                let _ = remove_tree(&self.directory);
            }
            if exists(&self.old) && !exists(&self.directory) {
                let _ = move_file(&self.old, &self.directory);
            }
        }
        if let Some(hold) = self.hold.take() {
            let _ = hold.remove();
        }
    }
}

/// Whether there is such a directory; on any doubt there is.
fn exists(path: &Path) -> bool {
    !matches!(look(path), Ok(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_artifact_appears_complete_or_not_at_all() {
        let top = tempfile::tempdir().unwrap();
        let wanted = top.path().join("output");
        let claimed = OutputDirectory::claim(&wanted, false, false).unwrap();
        std::fs::write(claimed.artifact().join("disk"), "1").unwrap();
        assert!(!wanted.exists());
        drop(claimed);
        assert!(names(top.path()).is_empty());

        let claimed = OutputDirectory::claim(&wanted, false, false).unwrap();
        std::fs::write(claimed.artifact().join("disk"), "2").unwrap();
        claimed.finish(b"{}").unwrap();
        assert_eq!(names(top.path()), ["output"]);
        assert_eq!(names(&wanted), ["disk"]);

        let error = OutputDirectory::claim(&wanted, false, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        // Set aside until the next is done, and back when that fails.
        let claimed = OutputDirectory::claim(&wanted, true, true).unwrap();
        std::fs::write(claimed.artifact().join("disk"), "3").unwrap();
        drop(claimed);
        assert_eq!(std::fs::read_to_string(wanted.join("disk")).unwrap(), "2");
        let claimed = OutputDirectory::claim(&wanted, true, true).unwrap();
        std::fs::write(claimed.artifact().join("disk"), "4").unwrap();
        claimed.finish(b"{}").unwrap();
        assert_eq!(names(&wanted), ["disk", MANIFEST]);
        assert_eq!(names(top.path()), ["output"]);
    }

    #[test]
    fn what_a_killed_build_left_is_swept() {
        let top = tempfile::tempdir().unwrap();
        let wanted = top.path().join("output");
        std::fs::create_dir(&wanted).unwrap();
        std::fs::write(wanted.join("disk"), "good").unwrap();
        for early in [false, true] {
            let claimed = OutputDirectory::claim(&wanted, true, early).unwrap();
            std::fs::write(claimed.artifact().join("disk"), "half").unwrap();
            // As kill -9 leaves it.
            claimed.keep();
            drop(claimed);
            std::fs::remove_file(top.path().join(".output.qimg-work").join(LEFT)).unwrap();
            let error = OutputDirectory::claim(&wanted, false, false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
            assert_eq!(
                std::fs::read_to_string(wanted.join("disk")).unwrap(),
                "good"
            );
            assert_eq!(names(top.path()), ["output"]);
        }
    }

    #[test]
    fn what_was_left_on_purpose_goes_only_when_somebody_says_so() {
        let top = tempfile::tempdir().unwrap();
        let wanted = top.path().join("output");
        for early in [false, true] {
            let claimed = OutputDirectory::claim(&wanted, false, early).unwrap();
            let work = claimed.work().to_owned();
            std::fs::write(work.join("disk"), "half").unwrap();
            claimed.keep();
            drop(claimed);
            for early in [false, true] {
                let error = OutputDirectory::claim(&wanted, false, early).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Refused);
                assert!(error.remedy().unwrap().contains("--force"), "{error}");
                assert!(work.join("disk").exists());
            }
            drop(OutputDirectory::claim(&wanted, true, early).unwrap());
            assert!(names(top.path()).is_empty());
        }
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_stays() {
        let top = tempfile::tempdir().unwrap();
        let wanted = top.path().join("output");
        std::fs::write(&wanted, "mine").unwrap();
        for replace in [false, true] {
            let error = OutputDirectory::claim(&wanted, replace, false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
            assert_eq!(std::fs::read_to_string(&wanted).unwrap(), "mine");
            assert_eq!(names(top.path()), ["output"]);
        }
    }

    #[test]
    fn a_second_build_of_one_directory_fails_at_once_and_names_the_first() {
        let top = tempfile::tempdir().unwrap();
        let wanted = top.path().join("output");
        let _first = OutputDirectory::claim(&wanted, false, false).unwrap();
        let error = OutputDirectory::claim(&wanted, false, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        let process = std::process::id().to_string();
        assert!(error.to_string().contains(&process), "{error}");
    }
}
