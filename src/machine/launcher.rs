//! A child that never outlives its parent.
//!
//! Knows how a program becomes one of a machine's processes: in a session of its own, and killed by the kernel when
//! its parent ends in whatever way. Must not know what program that is.
//!
//! The kernel's parent-death signal belongs to the thread that started the child, and only the child can ask for it.
//! So the program is started as `LAUNCHER __supervised PARENT PROGRAM ARGUMENTS`: the launcher, which is qimg itself,
//! asks for the signal and becomes PROGRAM ([`entered`]); and the thread that starts it stays until it has ended.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::communicator::Stop;
use crate::error::{Error, ErrorKind, Result};

/// First argument of a launcher.
const ENTRY: &str = "__supervised";

/// How often a wait looks whether it should end.
const POLL: Duration = Duration::from_millis(50);

/// To be called first of all by a program that is a [`Launcher`], with its arguments: it becomes another program if it
/// was started for that, and only returns if it was not.
///
/// # Errors
///
/// When the program cannot be started, or the parent is gone already; the words are for standard error.
pub fn entered(arguments: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next().is_none_or(|first| first != ENTRY) {
        return Ok(());
    }
    let parent = arguments.next();
    let parent = parent.and_then(|parent| parent.to_str()?.parse::<i32>().ok());
    let (Some(parent), Some(program)) = (parent, arguments.next()) else {
        return Err("this is not for people".to_owned());
    };
    // Signals of the terminal are for the parent, who ends what it has begun.
    let _ = rustix::process::setsid();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| format!("cannot be bound to the life of its parent: {errno}"))?;
    // The parent may have ended before the signal was asked for.
    if rustix::process::getppid().map(Pid::as_raw_pid) != Some(parent) {
        return Err("the parent has ended".to_owned());
    }
    let error = Command::new(&program).args(arguments).exec();
    Err(format!("cannot start {}: {error}", program.display()))
}

/// The program that calls [`entered`] first of all.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
}

impl Launcher {
    /// `program` must call [`entered`] first of all: for the running program, `/proc/self/exe`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let program = program.into();
        Self { program }
    }

    /// Starts `program` with `arguments`, bound to the life of this process.
    ///
    /// # Errors
    ///
    /// When the launcher cannot be started. That `program` cannot be is seen by exit code 127 and its standard error.
    pub fn start(
        &self,
        program: &Path,
        arguments: &[OsString],
        streams: Streams,
    ) -> Result<Process> {
        let mut command = Command::new(&self.program);
        command
            .arg(ENTRY)
            .arg(rustix::process::getpid().to_string())
            .arg(program)
            .args(arguments);
        if let Some(directory) = &streams.directory {
            command.current_dir(directory);
        }
        command
            .stdin(streams.input)
            .stdout(streams.output)
            .stderr(streams.errors);
        Process::start(command)
            .map_err(|cause| Error::io(format!("start {}", program.display()), cause))
    }
}

/// What a child reads from and writes to.
#[derive(Debug)]
pub struct Streams {
    /// Standard input.
    pub input: Stdio,
    /// Standard output.
    pub output: Stdio,
    /// Standard error.
    pub errors: Stdio,
    /// Its directory; `None`: that of this process.
    pub directory: Option<PathBuf>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    ended: Option<Ended>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A child and its whole session. Dropped, it is killed and waited for.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    shared: Arc<Shared>,
    watcher: Option<std::thread::JoinHandle<()>>,
}

impl Process {
    fn start(mut command: Command) -> io::Result<Self> {
        let (tell, hear) = mpsc::sync_channel(1);
        let shared = Arc::new(Shared::default());
        let told = Arc::clone(&shared);
        // The death of this thread would be taken for that of the parent: it stays as long as the child.
        let watcher = std::thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(move || {
                let child = command.spawn();
                // Its ends of pipes and sockets must not stay open here.
                drop(command);
                match child {
                    Ok(child) => {
                        let pid = Pid::from_child(&child);
                        let _ = tell.send(Ok(pid));
                        watch(child, pid, &told);
                    }
                    Err(error) => drop(tell.send(Err(error))),
                }
            })?;
        let gone = || io::Error::other("its thread has ended");
        let pid = hear.recv().map_err(|_| gone())??;
        Ok(Self {
            pid,
            shared,
            watcher: Some(watcher),
        })
    }

    /// Its number.
    pub fn id(&self) -> i32 {
        self.pid.as_raw_pid()
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<Ended> {
        self.shared.lock().ended
    }

    /// Waits for its end for at most `timeout`.
    ///
    /// # Errors
    ///
    /// When `stop` says so.
    pub fn wait(&self, timeout: Duration, stop: &Stop) -> Result<Option<Ended>> {
        let started = Instant::now();
        let mut state = self.shared.lock();
        loop {
            if state.ended.is_some() {
                return Ok(state.ended);
            }
            if stop() {
                return Err(Error::cancelled());
            }
            let left = timeout.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            let waited = self.shared.changed.wait_timeout(state, left.min(POLL));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// For another thread to wait for its end.
    pub(super) fn watch(&self) -> Watching {
        Watching(Arc::clone(&self.shared))
    }

    /// Kills it with all of its session's first group, and waits for its end.
    pub fn kill(&mut self) {
        {
            // As long as this is locked its number is its own.
            let state = self.shared.lock();
            if state.ended.is_none() {
                let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
                // Before it has made a session of its own it is in no group of that number.
                let _ = rustix::process::kill_process(self.pid, Signal::KILL);
            }
        }
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

/// A process to be waited for.
#[derive(Debug)]
pub(super) struct Watching(Arc<Shared>);

impl Watching {
    /// Waits as long as it takes.
    pub(super) fn wait_for_end(&self) -> Ended {
        let mut state = self.0.lock();
        loop {
            if let Some(ended) = state.ended {
                return ended;
            }
            state = self
                .0
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for the end of `child`, whose number stays its own until that is told.
fn watch(mut child: Child, pid: Pid, shared: &Shared) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(errno) = rustix::process::waitid(WaitId::Pid(pid), options) {
        if errno != rustix::io::Errno::INTR {
            break;
        }
    }
    let mut state = shared.lock();
    // What it has started itself ends with it: a wrapper may have been in between.
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    state.ended = Some(child.wait().map_or(Ended::Code(-1), Ended::from));
    shared.changed.notify_all();
}

/// Whether `program` is there: a path, or a name to be looked up in `path`, as PATH has it.
///
/// # Errors
///
/// When it is not, with `remedy`.
pub fn find_program(program: &Path, path: Option<&OsString>, remedy: String) -> Result<PathBuf> {
    let is_there = |file: &Path| {
        rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && !file.is_dir()
    };
    if program.components().count() > 1 {
        if is_there(program) {
            return Ok(program.to_owned());
        }
    } else if let Some(path) = path {
        use std::os::unix::ffi::OsStrExt;
        let directories = path.as_bytes().split(|&byte| byte == b':');
        for directory in directories.filter(|directory| !directory.is_empty()) {
            let file = Path::new(std::ffi::OsStr::from_bytes(directory)).join(program);
            if is_there(&file) {
                return Ok(file);
            }
        }
    }
    let message = format!("the program {} is not there", program.display());
    Err(Error::new(ErrorKind::Unsupported, message).with_remedy(remedy))
}
