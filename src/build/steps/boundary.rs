//! After a step: the machine is held for a moment, its state is set aside, and it goes on.
//!
//! Knows what is done while the guest stands still, and what beside it. A build never fails for a state that cannot be
//! kept: it says why, and goes on without.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::shelf::{self, Aside, Begun, Layer, Memory, Record, disk_name, file_name};
use super::{Now, Shelf, Steps, lost};
use crate::build::disk::{self, Origin};
use crate::build::event::Reporter;
use crate::build::guest::Connected;
use crate::build::provisioner::in_words;
use crate::communicator::{Communicator, Stop};
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::cache::write_record;
use crate::image::Format;
use crate::machine::state::Overlay;
use crate::store::{
    look, make_directory, move_anywhere, read_file, remove_file, remove_tree, sync_file,
    write_secret,
};
use crate::units::ByteSize;

/// States on top of one another. A guest reads through all of them, and an image has no longer chain than
/// [`MAX_CHAIN`](crate::image::MAX_CHAIN).
const DEEPEST: usize = 64;

/// Firmware has no more variables.
const LARGEST_ASIDE: u64 = 64 << 20;

/// For a guest to write what it has in memory.
const SYNCING: Duration = Duration::from_secs(60);

/// A state that is written while the build goes on.
pub(super) struct Making {
    thread: JoinHandle<Result<u64>>,
    after: String,
    pub(super) key: String,
}

impl Making {
    /// Waits until it is there; the bytes that it occupies.
    pub(super) fn wait(self) -> Result<u64> {
        self.thread
            .join()
            .unwrap_or_else(|_| Err(Error::usage("the state could not be written")))
    }
}

/// A machine that was held, and goes on with new disks.
struct HeldBack {
    record: Record,
    /// It stood still for so long.
    stood: Duration,
    /// Why a disk stays where the build is: then there is no state.
    stays: Option<Error>,
    /// Why it cannot be found even there: nothing can be made of the machine any more.
    without_disk: Option<Error>,
}

impl Connected<'_> {
    /// Keeps the state of the machine after so many steps, if it is worth it.
    ///
    /// # Errors
    /// The machine is lost; cancelled. Anything else is told.
    pub(in crate::build) fn keep_state(&self, done: usize) -> Result<()> {
        let reporter = self.prepared.reporter;
        let Some(steps) = &self.prepared.steps else {
            return Ok(());
        };
        if steps.now.borrow().off {
            return Ok(());
        }
        let Some(key) = steps.keys.all.get(done) else {
            if let Some(why) = steps
                .keys
                .ended
                .as_ref()
                .filter(|_| done == steps.keys.all.len())
            {
                reporter.note(&format!("From here on no state is kept: {why}"));
            }
            return Ok(());
        };
        let worked = steps.now.borrow().since.elapsed();
        if worked < steps.wanted.after {
            return Ok(());
        }
        if steps.now.borrow().holds.len() >= DEEPEST {
            reporter.note(&format!(
                "From here on no state is kept: {DEEPEST} are below it already"
            ));
            steps.now.borrow_mut().off = true;
            return Ok(());
        }
        let after = match done.checked_sub(1) {
            None => "the guest was up".to_owned(),
            Some(last) => {
                let step = self.prepared.request.build.provisioners.get(last);
                step.map_or_else(String::new, |step| {
                    format!("{} (line {})", step.kind, step.line)
                })
            }
        };
        match self.set_aside(steps, key, done, &after) {
            Ok(None) => Ok(()),
            Ok(Some(without_disk)) => Err(without_disk),
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            Err(error) => {
                // Only a guest that runs is one that nothing happened to.
                match self.running.status() {
                    Ok(status) if status == "running" => {}
                    _ => return Err(error),
                }
                reporter.warn(&format!(
                    "The state after {after} is not kept: {}",
                    lost(&error)
                ));
                steps.now.borrow_mut().off = true;
                Ok(())
            }
        }
    }

    /// Gives an error where the machine is of no use any more.
    fn set_aside(
        &self,
        steps: &Steps,
        key: &str,
        done: usize,
        after: &str,
    ) -> Result<Option<Error>> {
        let reporter = self.prepared.reporter;
        steps.settle(reporter);
        let began = Instant::now();
        let mut now = steps.now.borrow_mut();
        let Some(begun) = steps.shelf.begin(key)? else {
            // Another build was faster, unless somebody needs one that is of no use to a build.
            if let Some(who) = steps.shelf.pins.of_part(&steps.shelf.place(key))? {
                reporter.note(&format!(
                    "The state after {after} is not kept anew: {who} rests on the one that was there"
                ));
            }
            return Ok(None);
        };
        let directory = begun.directory.clone();
        let result = self.hold(steps, &mut now, &begun, done, after);
        let HeldBack {
            record,
            stood,
            stays,
            without_disk,
        } = match result {
            Ok(held) => held,
            Err(error) => {
                let Begun { making, hold, .. } = begun;
                remove_tree(&directory)?;
                drop(hold);
                making.remove()?;
                return Err(error);
            }
        };
        now.since = Instant::now();
        now.before = Duration::from_millis(record.saves);
        now.below = Some(key.to_owned());
        let Begun { making, hold, .. } = begun;
        now.holds.push(hold);
        drop(now);
        self.prepared.pin_files();
        let mut now = steps.now.borrow_mut();
        if let Some(error) = &stays {
            reporter.warn(&format!(
                "The state after {after} is not kept: {}",
                lost(error)
            ));
        }
        if stays.is_some() || record.memory.is_none() && !steps.wanted.from_disk {
            // Nobody could go on from it; its disk is needed as long as the build is.
            now.unfinished.push(key.to_owned());
            now.off = true;
            making.remove()?;
            return Ok(without_disk);
        }
        let sizes = record
            .disks
            .iter()
            .map(|layer| layer.virtual_size)
            .collect();
        let work = Work {
            shelf: steps.shelf.clone(),
            directory,
            record,
            sizes,
            limit: steps.wanted.limit,
            stop: Arc::clone(&steps.stop),
        };
        let thread = std::thread::Builder::new()
            .name("step-cache".to_owned())
            .spawn(move || {
                let result = work.finish();
                let _ = making.remove();
                result
            })
            .map_err(|error| Error::io("keep the state", error))?;
        now.making = Some(Making {
            thread,
            after: after.to_owned(),
            key: key.to_owned(),
        });
        reporter.note(&format!(
            "Kept the state after {after}: the guest stood still for {}, in all {}",
            in_words(stood),
            in_words(began.elapsed())
        ));
        Ok(None)
    }

    /// What is done while the guest stands still.
    fn hold(
        &self,
        steps: &Steps,
        now: &mut Now,
        begun: &Begun,
        done: usize,
        after: &str,
    ) -> Result<HeldBack> {
        let prepared = &self.prepared;
        let request = prepared.request;
        let asides = self.asides(now)?;
        let blocked = self.running.memory_is_blocked()?;
        if let (Some(why), false) = (&blocked, steps.wanted.from_disk) {
            return Err(Error::unsupported(format!(
                "the machine's memory cannot be had: {why}"
            )));
        }
        if steps.wanted.from_disk
            && let Some(ssh) = &self.ssh
        {
            // A disk that is booted from shall hold what was written.
            ssh.run("sync", Some(SYNCING), &mut |_, _| {})?;
        }
        prepared.access.keep(&begun.directory)?;
        let set = prepared.output.work().join(format!("set-{}", now.sets));
        now.sets += 1;
        make_directory(&set)?;
        let mut overlays = Vec::new();
        let mut disks = Vec::new();
        for (number, of) in now.written.iter().enumerate() {
            let below = begun.directory.join(disk_name(number));
            let file = set.join(of.file_name().unwrap_or_default());
            let size = prepared.sizes.get(number).copied();
            let origin = Origin {
                path: below,
                format: Format::Qcow2,
                virtual_size: size.unwrap_or_default(),
            };
            let virtual_size = disk::make(&file, Some(&origin), size)?;
            disks.push(virtual_size);
            overlays.push(Overlay {
                of: of.clone(),
                file,
            });
        }
        let memory = begun.directory.join("memory");
        let held = self.running.hold(
            &overlays,
            blocked.is_none().then_some(&*memory),
            &mut || {
                for (number, (_, path)) in asides.iter().enumerate() {
                    let bytes = read_file(path, LARGEST_ASIDE)?;
                    write_secret(begun.directory.join(file_name(number)), &bytes)?;
                }
                Ok(())
            },
            &*request.stop,
        )?;
        // From here on the machine has other disks, and the files below belong where these look for them.
        now.written = overlays
            .iter()
            .map(|overlay| overlay.file.clone())
            .collect();
        let mut stays = None;
        let mut without_disk = None;
        for (number, overlay) in overlays.iter().enumerate() {
            let below = begun.directory.join(disk_name(number));
            let Err(error) = move_anywhere(&overlay.of, &below) else {
                continue;
            };
            // Whoever reads the overlay later looks for what is below where that has stayed.
            if let Err(second) = self.running.name_below(&overlay.file, &overlay.of) {
                let message = "the machine's disk can neither be kept nor stay where it is";
                without_disk = Some(
                    Error::new(ErrorKind::Io, message)
                        .with_source(second)
                        .at_path(&overlay.of),
                );
            }
            stays = Some(error);
        }
        let no_memory = held.no_memory.map(|error| lost(&error)).or(blocked);
        if let Some(why) = &no_memory {
            prepared
                .reporter
                .note(&format!("Its memory is not kept: {why}"));
            // The disks are there already: nothing may undo that any more.
            let _ = remove_file(&memory);
        }
        let saves = now.before + now.since.elapsed();
        let record = Record {
            build: request.build.name.clone(),
            template: request.template.path.clone(),
            after: after.to_owned(),
            steps: done,
            saves: u64::try_from(saves.as_millis()).unwrap_or(u64::MAX),
            below: now.below.clone(),
            disks: disks.into_iter().map(Layer::unread).collect(),
            files: asides.into_iter().map(|(aside, _)| aside).collect(),
            memory: no_memory.is_none().then(|| Memory {
                machine: now.machine.clone(),
                length: 0,
                unpacked: 0,
            }),
            no_memory,
            instance_id: prepared.access.instance_id.clone(),
            created_user: prepared.access.created_user.clone(),
        };
        if stays.is_some() {
            let _ = remove_file(&memory);
        }
        Ok(HeldBack {
            record,
            stood: held.stood,
            stays,
            without_disk,
        })
    }

    /// Files besides its disks that the machine writes, all of them qimg's own.
    fn asides(&self, now: &Now) -> Result<Vec<(Aside, PathBuf)>> {
        let output = &self.prepared.output;
        let mut asides = Vec::new();
        for written in self.running.written_files()? {
            let path = &written.file;
            if now.written.contains(path) {
                continue;
            }
            let of_artifact = path.parent() == Some(&*output.artifact());
            let of_work = path.parent() == Some(output.work());
            let Some(name) = path
                .file_name()
                .and_then(|name| name.to_str())
                .filter(|_| of_artifact || of_work)
            else {
                return Err(Error::unsupported(
                    "the machine writes a file that is not qimg's, and that does not go back with it",
                )
                .at_path(path));
            };
            let aside = Aside {
                of_artifact,
                name: name.to_owned(),
            };
            asides.push((aside, path.clone()));
        }
        Ok(asides)
    }
}

impl Steps {
    /// Waits for the state that is being written.
    fn settle(&self, reporter: &Reporter<'_>) {
        let Some(making) = self.now.borrow_mut().making.take() else {
            return;
        };
        let (after, key) = (making.after.clone(), making.key.clone());
        match making.wait() {
            Ok(bytes) => reporter.note(&format!(
                "The state after {after} occupies {}",
                ByteSize(bytes)
            )),
            Err(error) => {
                reporter.warn(&format!(
                    "The state after {after} is not kept: {}",
                    lost(&error)
                ));
                let mut now = self.now.borrow_mut();
                now.unfinished.push(key);
                now.off = true;
            }
        }
    }

    /// The disks that the machine has written last, once it has ended and all states are there.
    pub(in crate::build) fn disks(&self, reporter: &Reporter<'_>) -> Vec<PathBuf> {
        self.settle(reporter);
        self.now.borrow().written.clone()
    }

    /// What the machine is about to write.
    pub(in crate::build) fn begin(&self, written: Vec<PathBuf>, accelerator: &str) {
        let mut now = self.now.borrow_mut();
        now.written = written;
        now.machine.accelerator = accelerator.to_owned();
        if accelerator == "tcg" {
            // It shows the guest a processor of its own.
            now.machine.processor = None;
        }
        now.since = Instant::now();
    }
}

impl Layer {
    /// One that was not read yet.
    fn unread(virtual_size: u64) -> Self {
        Self {
            digest: String::new(),
            virtual_size,
            state: None,
        }
    }
}

/// What is done while the build goes on.
struct Work {
    shelf: Shelf,
    directory: PathBuf,
    record: Record,
    sizes: Vec<u64>,
    limit: u64,
    stop: Arc<Stop>,
}

impl Work {
    fn finish(mut self) -> Result<u64> {
        let at = |name: &str| self.directory.join(name);
        if let Some(memory) = &mut self.record.memory {
            let (packed, unpacked) =
                super::memory::pack(&at("memory"), &at("memory.zst"), &*self.stop)?;
            memory.length = packed;
            memory.unpacked = unpacked;
        }
        let mut disks = Vec::new();
        for (number, size) in self.sizes.iter().enumerate() {
            let path = self.directory.join(disk_name(number));
            sync_file(&path)?;
            disks.push(shelf::layer(&path, *size, &*self.stop)?);
        }
        self.record.disks = disks;
        write_record(&self.directory.join("record.json"), &self.record)?;
        let bytes = occupied(&self.directory)?;
        self.shelf.shrink(self.limit)?;
        Ok(bytes)
    }
}

/// Bytes on the host of all files in a directory.
pub(super) fn occupied(directory: &Path) -> Result<u64> {
    let mut bytes: u64 = 0;
    for path in crate::store::names_in(directory)? {
        let seen = look(path)?;
        bytes = bytes.saturating_add(seen.map_or(0, |seen| seen.allocated));
    }
    Ok(bytes)
}
