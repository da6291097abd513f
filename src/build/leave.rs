//! What stays of a build that failed, for somebody to look at: everything its machine needs to be started once more.
//!
//! Knows which files those are. Must not know why the build failed.

use std::path::{Path, PathBuf};

use super::event::Reporter;
use super::prepared::Prepared;
use super::register::{Left, Run};
use crate::error::{Error, Result};
use crate::machine::Accelerator;
use crate::machine::command_line::Boot;
use crate::store::{move_anywhere, read_file, write_file, write_secret};

/// Firmware has no more variables.
const LARGEST_VARIABLES: u64 = 64 << 20;
/// Seeds are small.
const LARGEST_SEED: u64 = 1 << 30;

/// Names in the directory of a run. A key of that name is not swept: what it opens was kept on purpose.
const KEY: &str = "kept-key";
const SEED: &str = "kept-seed.img";
const COMMAND: &str = "qemu-command";

impl Prepared<'_> {
    /// Keeps the machine of a build that failed with `error`, if that is wanted; QEMU has ended. What cannot be kept is
    /// told.
    pub(super) fn leave(&mut self, error: &Error, accelerator: &Accelerator) {
        let cancelled = error.kind() == crate::ErrorKind::Cancelled;
        if !self.request.options.keep || cancelled {
            return;
        }
        self.settle();
        match self.left(error, accelerator) {
            Ok(()) => tell(self.reporter, &self.run_directory, &self.registered.run()),
            Err(error) => self.reporter.warn(&format!(
                "The machine cannot be kept: {}",
                super::provisioner::with_cause(&error)
            )),
        }
    }

    fn left(&self, error: &Error, accelerator: &Accelerator) -> Result<()> {
        let line = self.command_line(accelerator, None, false)?;
        let to = self.run_directory.clone();
        let mut moved: Vec<(PathBuf, PathBuf)> = Vec::new();
        for (number, file) in self.disks().into_iter().enumerate() {
            let kept = to.join(format!("kept-disk-{number}.qcow2"));
            move_anywhere(&file, &kept)?;
            if number == 0 && line.main_by_template {
                // By which names the template's own arguments may call it.
                let output = &self.request.build.output;
                let relative = output.directory.join(&output.name);
                let whole = self.request.surroundings.directory.join(&relative);
                moved.extend([(whole, kept.clone()), (relative, kept.clone())]);
            }
            moved.push((file, kept));
        }
        let mut copied: Vec<PathBuf> = self.copies.values().cloned().collect();
        if let Some(Boot::Flash(flash)) = &self.boot {
            copied.push(flash.variables.clone());
        }
        for (number, file) in copied.into_iter().enumerate() {
            let kept = to.join(format!("kept-variables-{number}.fd"));
            write_file(&kept, &read_file(&file, LARGEST_VARIABLES)?)?;
            moved.push((file, kept));
        }
        if let Some(seed) = &self.access.seed {
            let kept = to.join(SEED);
            write_secret(&kept, &read_file(seed, LARGEST_SEED)?)?;
            moved.push((seed.clone(), kept));
        }
        let mut key_file = None;
        if let Some(key) = &self.access.key {
            let kept = to.join(KEY);
            key.write(&kept)?;
            key_file = Some(kept);
        }
        let mut arguments: Vec<String> = line.all().cloned().collect();
        for (from, kept) in &moved {
            let (from, kept) = (from.to_string_lossy(), kept.to_string_lossy());
            for argument in &mut arguments {
                *argument = argument.replace(&*from, &kept);
            }
        }
        let words: Vec<String> = std::iter::once(self.qemu.display().to_string())
            .chain(arguments.iter().cloned())
            .map(|word| crate::communicator::quote::word(&word))
            .collect();
        write_file(to.join(COMMAND), (words.join(" ") + "\n").as_bytes())?;
        let ssh = self.request.build.communicator.as_ref();
        let left = Left {
            why: self.reporter.masked(&error.to_string()),
            qemu: self.qemu.clone(),
            arguments,
            port: ssh.filter(|ssh| ssh.host.is_none()).map(|ssh| ssh.port),
            emulated: !accelerator.is_hardware(),
        };
        self.registered.change(|run| {
            run.qemu = None;
            if let (Some(entrance), Some(key)) = (&mut run.entrance, key_file) {
                entrance.key = Some(key);
            }
            run.left = Some(left);
        });
        Ok(())
    }
}

fn tell(reporter: &Reporter<'_>, directory: &Path, run: &Run) {
    reporter.step(&format!(
        "The machine stays in {}: `qimg ssh {}` starts it again and enters it",
        directory.display(),
        run.run
    ));
}
