//! The machines that there are on this host: who runs them, how they are entered, and what is left of those that failed.
//!
//! Knows the file in which each is described, and that it is only as true as its lock is held. Must not know how a machine
//! is started.
//!
//! ```text
//! RUNS/RUN/NAME/run.json   what is known of it
//!              /alive      held by its process, as long as that lives: nothing is believed by a number alone
//! ```

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::layers::Layer;
use super::runs::LOCK;
use crate::communicator::Stop;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::cache::{read_record, write_record};
use crate::store::{
    Attempt, Hold, Share, look, make_private, names_in, read_file, remove_file, remove_tree,
    write_secret,
};

pub(super) const RECORD: &str = "run.json";
const ALIVE: &str = "alive";

/// Longest file of the kernel about a process.
const LONGEST_STATUS: u64 = 1 << 16;
/// Between two looks whether a process has ended.
const POLL: Duration = Duration::from_millis(50);
/// Tries to take a machine that somebody only looks at.
const TRIES: usize = 40;

/// What a machine runs for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// A build.
    Build,
    /// Somebody looks around in it.
    Visit,
}

/// How a machine is entered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entrance {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Login name.
    pub user: String,
    /// File with the private key, where there is one.
    pub key: Option<PathBuf>,
    /// File with the password, where one lets in.
    pub password: Option<PathBuf>,
    /// File with the host's key, as OpenSSH has it.
    pub known_hosts: Option<PathBuf>,
}

/// A machine of a build that failed, which can be started once more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Left {
    /// Why the build failed.
    pub why: String,
    /// The QEMU.
    pub qemu: PathBuf,
    /// All its arguments; the files are those that were kept.
    pub arguments: Vec<String>,
    /// The guest's port of SSH, where qimg forwards one.
    pub port: Option<u16>,
    /// Something else than the host's processor runs the guest.
    pub emulated: bool,
    /// The TPM that is a part of it.
    pub tpm: Option<LeftTpm>,
    /// Its disks.
    #[serde(default)]
    pub disks: Vec<PathBuf>,
    /// What these rest on.
    #[serde(default)]
    pub layers: Vec<Layer>,
}

/// The TPM in software of a machine that was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LeftTpm {
    /// The swtpm.
    pub program: PathBuf,
    /// The directory of its state.
    pub directory: PathBuf,
    /// Its version is 1.2, not 2.0.
    pub version_1: bool,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Run {
    /// Its name: that of the run and its own, with `/` in between.
    pub run: String,
    /// What for.
    pub purpose: Purpose,
    /// The template, or the image.
    pub of: PathBuf,
    /// The process that looks after it.
    pub process: u32,
    /// When the kernel started that process, in its own count; `None` where the host does not tell.
    pub born: Option<u64>,
    /// Seconds since 1970.
    pub started: u64,
    /// QEMU's process.
    pub qemu: Option<i32>,
    /// All that the guest says on its console.
    pub console: PathBuf,
    /// How it is entered, once that is known.
    pub entrance: Option<Entrance>,
    /// What is left of it after a failure.
    pub left: Option<Left>,
    /// Its directory.
    pub directory: PathBuf,
}

/// A machine and whether it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// It.
    pub run: Run,
    /// Its process lives.
    pub alive: bool,
}

/// A machine that is entered into the register for as long as this lives.
#[derive(Debug)]
pub(super) struct Registered {
    run: Mutex<Run>,
    hold: Option<Hold>,
}

impl Registered {
    /// Enters a machine whose directory is there.
    ///
    /// # Errors
    /// The host's own; another process has it.
    pub(super) fn enter(mut run: Run) -> Result<Self> {
        let hold = take(&run)?;
        run.process = own_number();
        run.born = born(run.process);
        let record = run.directory.join(RECORD);
        // QEMU's arguments may hold a template's secrets. What replaces a file keeps its mode.
        match look(&record)? {
            Some(_) => make_private(&record)?,
            None => write_secret(&record, b"")?,
        }
        write_record(&record, &run)?;
        Ok(Self {
            run: Mutex::new(run),
            hold: Some(hold),
        })
    }

    /// Changes what is known of it. A register that cannot be written is no reason to end a build.
    pub(super) fn change(&self, change: impl FnOnce(&mut Run)) {
        let mut run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut run);
        let _ = write_record(&run.directory.join(RECORD), &*run);
    }

    /// What is known of it.
    pub(super) fn run(&self) -> Run {
        self.run
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let run = self.run();
        // There is nobody to tell; without its lock it counts for nothing anyway. The port is another one the next time.
        if let Some(file) = run
            .entrance
            .as_ref()
            .and_then(|way| way.known_hosts.as_ref())
        {
            let _ = remove_file(file);
        }
        if run.left.is_none() {
            let _ = remove_file(run.directory.join(RECORD));
        }
        if let Some(hold) = self.hold.take() {
            let _ = hold.remove();
        }
    }
}

fn take(run: &Run) -> Result<Hold> {
    let lock = run.directory.join(ALIVE);
    for _ in 0..TRIES {
        match Hold::attempt(&lock, Share::Alone)? {
            Attempt::Held(hold) => return Ok(hold),
            Attempt::Busy { .. } => std::thread::sleep(POLL),
        }
    }
    Err(Error::new(ErrorKind::Locked, "another process has this machine").at_path(&run.directory))
}

/// Whether the machine in `directory` was kept.
pub(super) fn is_kept(directory: &Path) -> bool {
    read_record::<Run>(&directory.join(RECORD)).is_some_and(|run| run.left.is_some())
}

/// Removes a machine that was kept, with all that is in its directory; what it rested on in the cache may go from then on.
///
/// # Errors
/// It runs, or somebody starts it; it was not kept; the host refuses.
pub fn forget(run: &Run) -> Result<()> {
    let alive = match take(run) {
        Ok(alive) => alive,
        Err(error) if error.kind() == ErrorKind::Locked => {
            let message = format!("{} runs", run.run);
            return Err(Error::new(ErrorKind::Locked, message)
                .with_remedy(format!("`qimg kill {}` ends it", run.run)));
        }
        Err(error) => return Err(error),
    };
    if !is_kept(&run.directory) {
        alive.remove()?;
        return Err(super::leave::gone(run));
    }
    remove_tree(&run.directory)?;
    drop(alive);
    // That of the whole run goes with its last machine.
    if let Some(whole) = run.directory.parent()
        && let Attempt::Held(hold) = Hold::attempt(whole.join(LOCK), Share::Alone)?
    {
        let others = names_in(whole)?;
        if others.iter().all(|path| path == hold.path()) {
            remove_tree(whole)?;
        } else {
            hold.remove()?;
        }
    }
    Ok(())
}

/// Takes a machine of a killed process out of the register. One that was kept stays, and so does one that runs.
pub(super) fn forget_dead(directory: &Path) {
    // Sweeping is a courtesy: what cannot be removed stays.
    let Ok(Attempt::Held(hold)) = Hold::attempt(directory.join(ALIVE), Share::Alone) else {
        return;
    };
    let record = directory.join(RECORD);
    if read_record::<Run>(&record).is_none_or(|run| run.left.is_none()) {
        let _ = remove_file(&record);
    }
    let _ = hold.remove();
}

/// All machines below `runs`: those that run, and those that failed and were kept; the latest first.
///
/// # Errors
/// The directory cannot be read; that there is none is no error.
pub fn list(runs: &Path) -> Result<Vec<Listed>> {
    let mut all = Vec::new();
    for run in names_in(runs)? {
        if !run.is_dir() {
            continue;
        }
        for directory in names_in(&run)? {
            let Some(run) = read_record::<Run>(&directory.join(RECORD)) else {
                continue;
            };
            let alive = is_alive(&directory)?;
            // What a killed process left is nothing.
            if alive || run.left.is_some() {
                let run = Run { directory, ..run };
                all.push(Listed { run, alive });
            }
        }
    }
    all.sort_by(|one, other| {
        (other.run.started, &one.run.run).cmp(&(one.run.started, &other.run.run))
    });
    Ok(all)
}

fn is_alive(directory: &Path) -> Result<bool> {
    let lock = directory.join(ALIVE);
    if look(&lock)?.is_none() {
        return Ok(false);
    }
    Ok(matches!(
        Hold::attempt(&lock, Share::Shared)?,
        Attempt::Busy { .. }
    ))
}

/// The machine that is called `name`: its whole name, that of its run, its own, or the beginning of one of them; where
/// `name` is empty, the only one.
///
/// # Errors
/// There is none, or more than one.
pub fn find(runs: &Path, name: &str, alive_only: bool) -> Result<Listed> {
    let all: Vec<Listed> = list(runs)?
        .into_iter()
        .filter(|listed| listed.alive || !alive_only)
        .collect();
    let parts = |listed: &Listed| {
        let run = listed.run.run.clone();
        let (of, own) = run.split_once('/').unwrap_or((&run, ""));
        [run.clone(), of.to_owned(), own.to_owned()]
    };
    let exact = |listed: &&Listed| parts(listed).iter().any(|part| part == name);
    let begins = |listed: &&Listed| parts(listed).iter().any(|part| part.starts_with(name));
    let mut found: Vec<&Listed> = all.iter().filter(exact).collect();
    if found.is_empty() {
        found = all.iter().filter(begins).collect();
    }
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Error::usage(match name {
            "" => "no machine runs".to_owned(),
            name => format!("there is no machine {name}"),
        })
        .with_remedy("`qimg ps --all` lists all there are")),
        several => {
            let names: Vec<&str> = several
                .iter()
                .map(|listed| listed.run.run.as_str())
                .collect();
            let names = names.join(", ");
            Err(match name {
                "" => Error::usage(format!("there are several: {names}"))
                    .with_remedy("name one of them"),
                name => Error::usage(format!("'{name}' may be {names}"))
                    .with_remedy("give more of its name"),
            })
        }
    }
}

/// Asks the process that looks after a machine to end, as Ctrl-C does, and waits for that; with `hard` it is ended at once.
///
/// # Errors
/// It does not run, or is another one by now; it does not end within `patience`; cancelled.
pub fn end(run: &Run, hard: bool, patience: Duration, stop: &Stop) -> Result<()> {
    let gone = || Error::usage(format!("{} does not run any more", run.run));
    let signal = if hard { Signal::KILL } else { Signal::TERM };
    send(run, signal)?.ok_or_else(gone)?;
    let started = Instant::now();
    while is_alive(&run.directory)? {
        if stop() {
            return Err(Error::cancelled());
        }
        if started.elapsed() > patience {
            return Err(Error::new(
                ErrorKind::TimedOut,
                format!("process {} has not ended", run.process),
            )
            .with_remedy("--force ends it at once"));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Asks the child `process`, which nobody has waited for yet, to end: it puts the terminal back as it was.
pub fn ask_to_end(process: u32) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    if let Some(process) = process {
        // Until it is waited for its number is nobody else's.
        let _ = rustix::process::kill_process(process, Signal::TERM);
    }
}

/// Sends a signal to the process of `run` and to no other: it is taken hold of before it is looked at.
#[cfg(target_os = "linux")]
fn send(run: &Run, signal: Signal) -> Result<Option<()>> {
    use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
    let failed =
        |errno: rustix::io::Errno| Error::io(format!("end process {}", run.process), errno.into());
    let Some(pid) = pid_of(run) else {
        return Ok(None);
    };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    };
    if !is_alive(&run.directory)? || born(run.process) != run.born {
        return Ok(None);
    }
    match pidfd_send_signal(process, signal) {
        Ok(()) => Ok(Some(())),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(errno) => Err(failed(errno)),
    }
}

#[cfg(not(target_os = "linux"))]
fn send(run: &Run, signal: Signal) -> Result<Option<()>> {
    let Some(pid) = pid_of(run).filter(|_| is_alive(&run.directory).unwrap_or(false)) else {
        return Ok(None);
    };
    match rustix::process::kill_process(pid, signal) {
        Ok(()) => Ok(Some(())),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(errno) => Err(Error::io(
            format!("end process {}", run.process),
            errno.into(),
        )),
    }
}

fn pid_of(run: &Run) -> Option<Pid> {
    i32::try_from(run.process).ok().and_then(Pid::from_raw)
}

/// The number of this process.
fn own_number() -> u32 {
    rustix::process::getpid()
        .as_raw_nonzero()
        .get()
        .unsigned_abs()
}

/// When the kernel started a process: two processes of one number have different ones.
fn born(process: u32) -> Option<u64> {
    let text = read_file(format!("/proc/{process}/stat"), LONGEST_STATUS).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The name, in brackets, may hold anything.
    let (_, behind) = text.rsplit_once(')')?;
    behind.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(directory: &Path) -> Run {
        std::fs::create_dir_all(directory).unwrap();
        Run {
            run: format!(
                "{}/{}",
                directory.parent().unwrap().file_name().unwrap().display(),
                directory.file_name().unwrap().display()
            ),
            purpose: Purpose::Build,
            of: PathBuf::from("web.toml"),
            process: 0,
            born: None,
            started: 5,
            qemu: None,
            console: directory.join("console.log"),
            entrance: None,
            left: None,
            directory: directory.to_owned(),
        }
    }

    #[test]
    fn what_nobody_holds_does_not_run() {
        let runs = tempfile::tempdir().unwrap();
        let directory = runs.path().join("17-1/web");
        let registered = Registered::enter(run(&directory)).unwrap();
        let listed = list(runs.path()).unwrap();
        assert!(listed[0].alive);
        assert_eq!(listed[0].run.process, std::process::id());
        assert_eq!(find(runs.path(), "17", true).unwrap(), listed[0]);
        assert_eq!(find(runs.path(), "web", true).unwrap(), listed[0]);
        assert_eq!(find(runs.path(), "", true).unwrap(), listed[0]);
        assert!(find(runs.path(), "18", true).is_err());
        // As kill -9 leaves it: the file stays, the lock does not.
        let left = std::fs::read(directory.join(RECORD)).unwrap();
        drop(registered);
        assert!(list(runs.path()).unwrap().is_empty());
        std::fs::write(directory.join(RECORD), &left).unwrap();
        std::fs::write(directory.join(ALIVE), "").unwrap();
        assert!(list(runs.path()).unwrap().is_empty());
        let error = end(&run(&directory), false, POLL, &|| false).unwrap_err();
        assert!(error.to_string().contains("does not run"), "{error}");
        for garbage in ["", "{", "{\"run\":1}", "[]"] {
            std::fs::write(directory.join(RECORD), garbage).unwrap();
            assert!(list(runs.path()).unwrap().is_empty());
        }
    }

    #[test]
    fn a_process_of_the_same_number_is_not_ended() {
        let runs = tempfile::tempdir().unwrap();
        let directory = runs.path().join("17-1/web");
        let registered = Registered::enter(run(&directory)).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        // The lock is held, by this process; the number is another's.
        let stale = Run {
            process: child.id(),
            born: Some(1),
            ..registered.run()
        };
        let error = end(&stale, true, POLL, &|| false).unwrap_err();
        assert!(error.to_string().contains("does not run"), "{error}");
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn two_that_may_be_meant_are_both_named() {
        let runs = tempfile::tempdir().unwrap();
        let _one = Registered::enter(run(&runs.path().join("17-1/web"))).unwrap();
        let _two = Registered::enter(run(&runs.path().join("17-1/db"))).unwrap();
        let error = find(runs.path(), "17", true).unwrap_err();
        assert!(error.to_string().contains("17-1/db, 17-1/web"), "{error}");
        assert_eq!(
            find(runs.path(), "17-1/w", true).unwrap().run.run,
            "17-1/web"
        );
    }
}
