//! The step cache: what was done already, and is unchanged, is not done again.
//!
//! ```text
//! base, machine, seed -> key 0 -> step 1 -> key 1 -> step 2 -> key 2 ...        (key)
//! the last key whose state is there -> disks, memory, key of the guest -> a machine that goes on from there   (shelf, memory)
//! after a step: hold, set the disks aside, write the memory, go on; the rest beside the build   (boundary)
//! ```
//!
//! Knows when a state is kept and used. A state is the machine's: its disks **and** its memory. From a disk alone a build
//! goes on, after a reboot, only if its template allows it. An image does not depend on whether its build went on from a
//! state: it is made of the same disk. Must not know what a step does.
//!
//! What a state needs to be entered is kept with it: the key that was made for it, the host key, and the seed that brought
//! both. They open nothing but guests that go on from this state, and whoever can read them can read disk and memory, which
//! hold more; from the image they are removed as ever.

mod boundary;
mod kept;
mod key;
mod memory;
mod resume;
mod shelf;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::Reporter;
use super::request::BuildRequest;
use crate::communicator::Stop;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::{Accelerator, state};
use crate::store::Hold;
use crate::template::model::StepCache;

use boundary::Making;
use key::Keys;
use shelf::{Found, Identity, Record};

pub use kept::{Kept, Removed};
pub(super) use key::Made;
pub(super) use resume::into_the_present;
pub use shelf::Shelf;

/// What a build has to do with states of its machine.
pub(super) struct Steps {
    shelf: Shelf,
    wanted: StepCache,
    keys: Keys,
    stop: Arc<Stop>,
    now: RefCell<Now>,
}

/// What changes while the build goes on.
struct Now {
    machine: Identity,
    found: Option<Resume>,
    /// The state whose disks are below those that are written.
    below: Option<String>,
    /// Nobody removes what is below.
    holds: Vec<Hold>,
    /// The disks that the machine writes.
    written: Vec<PathBuf>,
    /// Counts sets of disks.
    sets: usize,
    /// Since when no state was kept.
    since: Instant,
    /// Work that is in the state already.
    before: Duration,
    making: Option<Making>,
    /// States that could not be written; their disks are needed as long as the build is.
    unfinished: Vec<String>,
    /// Nothing more is kept.
    off: bool,
}

/// What a build goes on from.
struct Resume {
    key: String,
    record: Record,
    directory: PathBuf,
    from_memory: bool,
}

impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steps")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

impl Steps {
    /// Finds the last state that `request`'s build can go on from. `None`: nothing is kept, which is told unless it is
    /// what was asked for.
    ///
    /// # Errors
    /// The host's own; cancelled.
    pub(super) fn open(
        request: &BuildRequest<'_>,
        reporter: &Reporter<'_>,
        made: Option<&Made<'_>>,
        accelerator: &Accelerator,
        qemu: &Path,
    ) -> Result<Option<Self>> {
        let (build, host) = (request.build, request.surroundings);
        let wanted = &build.cache;
        let asked = request.options.cache;
        if !asked.unwrap_or(wanted.enabled) {
            return Ok(None);
        }
        let why = cannot(request);
        let (None, Some(made)) = (why, made) else {
            // Who asked for it shall know.
            if asked == Some(true) || build.communicator.is_some() {
                let why = why.unwrap_or("there is no base that it could be known by");
                reporter.note(&format!("No state of the machine is kept: {why}"));
            }
            return Ok(None);
        };
        let keys = match key::keys(request, made, reporter)? {
            Ok(keys) => keys,
            Err(why) => {
                reporter.note(&format!("No state of the machine is kept: {why}"));
                return Ok(None);
            }
        };
        let machine = Identity {
            accelerator: accelerator.to_string(),
            qemu: state::version(qemu, &host.launcher, &*request.stop)?,
            processor: accelerator.is_hardware().then(state::processor),
        };
        let steps = Self {
            shelf: Shelf::of(host.fetch.cache.directory()),
            wanted: wanted.clone(),
            keys,
            stop: Arc::clone(&request.stop),
            now: RefCell::new(Now {
                machine,
                found: None,
                below: None,
                holds: Vec::new(),
                written: Vec::new(),
                sets: 0,
                since: Instant::now(),
                before: Duration::ZERO,
                making: None,
                unfinished: Vec::new(),
                off: false,
            }),
        };
        match steps.look(reporter) {
            Ok(()) => Ok(Some(steps)),
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            // A cache saves work, no more.
            Err(error) => {
                reporter.warn(&format!(
                    "No state of the machine is kept or taken: {}",
                    lost(&error)
                ));
                Ok(None)
            }
        }
    }

    /// From the last state to the first.
    pub(in crate::build) fn look(&self, reporter: &Reporter<'_>) -> Result<()> {
        let mut told = Vec::new();
        for key in self.keys.all.iter().rev() {
            let found = match self.shelf.find(key, &*self.stop)? {
                None => continue,
                Some(Ok(found)) => found,
                Some(Err(damaged)) => {
                    reporter.warn(&format!(
                        "The state after {} cannot be used: {}",
                        damaged.after, damaged.why
                    ));
                    continue;
                }
            };
            let mut now = self.now.borrow_mut();
            let why_not = match &found.record.memory {
                Some(memory) => now.machine.differs_from(&memory.machine),
                None => Some(
                    found
                        .record
                        .no_memory
                        .clone()
                        .unwrap_or_else(|| "it was not kept".to_owned()),
                ),
            };
            if let Some(why) = &why_not {
                let then = if self.wanted.from_disk {
                    "the machine is booted from its disk"
                } else {
                    "it is passed over; resume = \"disk\" allows a boot from its disk"
                };
                let text = format!(
                    "The memory of the state after {} cannot be taken: {why}; {then}",
                    found.record.after
                );
                if !told.contains(&text) {
                    reporter.note(&text);
                    told.push(text);
                }
                if !self.wanted.from_disk {
                    drop(found);
                    // A state of this machine takes its place.
                    self.shelf.remove(std::slice::from_ref(key))?;
                    continue;
                }
            }
            let Found {
                record,
                directory,
                holds,
            } = found;
            now.holds = holds;
            now.below = Some(key.clone());
            now.before = Duration::from_millis(record.saves);
            now.found = Some(Resume {
                key: key.clone(),
                record,
                directory,
                from_memory: why_not.is_none(),
            });
            return Ok(());
        }
        Ok(())
    }
}

impl Steps {
    /// Directories of the states that the machine's disks are on top of.
    pub(super) fn below(&self) -> Vec<PathBuf> {
        let now = self.now.borrow();
        let holds = now.holds.iter();
        holds.map(|hold| hold.path().with_extension("")).collect()
    }
}

/// Why no state of a build is of use.
fn cannot(request: &BuildRequest<'_>) -> Option<&'static str> {
    let build = request.build;
    if build.communicator.is_none() {
        return Some("without a way into the guest nobody knows when it is done");
    }
    if build.boot.kernel.is_some() || build.boot.network.is_some() {
        return Some(
            "a machine that a kernel or the network starts is another one once it starts from its disk",
        );
    }
    if build.seed.as_ref().is_some_and(|seed| seed.over_http) {
        return Some("its seed is served anew, under an address of each run");
    }
    if build.machine.tpm.is_some() {
        return Some("what its TPM holds is not kept with it");
    }
    if build.disk.keep_backing_file {
        return Some("the artifact stays an overlay of its base, so nothing may be in between");
    }
    if build.machine.net_bridge.is_some() {
        return Some("the guest is in a network of others, which does not go back with it");
    }
    let ssh = build.communicator.as_ref()?;
    ssh.host
        .is_some()
        .then_some("the guest is reached by an address of its own, which is not qimg's to forward")
}

impl Drop for Steps {
    /// What was set aside becomes a state also when the build fails: the next one goes on from there.
    fn drop(&mut self) {
        let mut now = self.now.borrow_mut();
        if let Some(making) = now.making.take() {
            let key = making.key.clone();
            if making.wait().is_err() {
                now.unfinished.push(key);
            }
        }
        now.holds.clear();
        // There is nobody to tell; whoever prunes the cache finds what is left.
        let _ = self.shelf.remove(&now.unfinished);
    }
}

/// An error of something that only saves work.
fn lost(error: &Error) -> String {
    super::provisioner::with_cause(error)
}
