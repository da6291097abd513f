//! A QEMU that runs, and why it does not any more.
//!
//! Knows how QEMU is started on socket pairs, and which of all that it, its guest and the kernel tell means that the
//! machine is lost. Must not know why it was started. Whoever waits for anything of the guest asks [`Running::death`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::communicator::Stop;
use crate::error::{Error, ErrorKind, Result};

use super::console::{Console, Sign, last_lines, sign_in};
pub use super::death::Death;
use super::launcher::{Ended, Launcher, Process, Streams};
use super::log::{Log, absolute};
use super::ports::forwarded_port;
use super::qmp::{Event, Qmp, SOON};
use super::screen;

/// For QEMU to say that it is there.
const GREETING: Duration = Duration::from_secs(30);

/// Between two looks at the screen; the picture is all there is once QEMU is dead.
const PICTURE: Duration = Duration::from_secs(10);

/// Between two looks for words on the screen.
const WORDS: Duration = Duration::from_secs(2);

/// For an answer of a QEMU that may hang.
const SHORTLY: Duration = Duration::from_secs(2);

/// How often a wait looks whether it should end.
const POLL: Duration = Duration::from_millis(50);

/// Lines of standard error and of the console in a report.
const TAIL: usize = 40;

/// Bytes of standard error that are kept in memory.
const REMEMBERED: usize = 64 << 10;

/// Messages to the supervising thread that wait at most.
const BACKLOG: usize = 256;

/// By these words on standard error KVM gives up, while QEMU stays up.
const KVM_WORDS: &str = "KVM internal error";

/// Something by which a guest tells that it goes no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What.
    pub sign: Sign,
    /// The line it stood in.
    pub line: String,
    /// Since the machine was started.
    pub after: Duration,
}

/// What there is to say of a machine, while it runs or when it is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Why it is lost, if it is, and after what time.
    pub death: Option<(Death, Duration)>,
    /// Last lines of QEMU's standard error.
    pub stderr: Vec<String>,
    /// Last lines of the guest's console.
    pub console: Vec<String>,
    /// The last lines of its screen, where that shows text.
    pub screen: Vec<String>,
    /// The last picture of its screen.
    pub screenshot: Option<PathBuf>,
    /// What told that it goes no further.
    pub signs: Vec<Seen>,
    /// All that the guest said on its console.
    pub console_log: PathBuf,
}

/// How to start one.
#[derive(Debug)]
pub struct Start<'a> {
    /// By what.
    pub launcher: &'a Launcher,
    /// The QEMU.
    pub qemu: &'a Path,
    /// All its arguments, those of supervision included.
    pub arguments: Vec<String>,
    /// A directory that exists, for logs and pictures.
    pub run_directory: &'a Path,
    /// Of the VNC server, set before the guest runs.
    pub vnc_password: Option<&'a str>,
}

#[derive(Debug, Default)]
struct State {
    death: Option<(Death, Duration)>,
    /// The guest said that it goes down.
    going_down: bool,
    /// The last failure of a disk: whether the host is full, and its words.
    disk_failure: Option<(bool, String)>,
    signs: Vec<Seen>,
    stderr: std::collections::VecDeque<u8>,
    screen: Vec<String>,
    screenshot: Option<PathBuf>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn die(&self, death: Death) {
        let mut state = self.lock();
        // The first reason is the cause of the others.
        if state.death.is_none() {
            state.death = Some((death, self.started.elapsed()));
        }
        self.changed.notify_all();
    }

    fn see(&self, sign: Sign, line: &str) {
        {
            let mut state = self.lock();
            let known = state.signs.iter().any(|seen| seen.sign == sign);
            if !known {
                let after = self.started.elapsed();
                let line = line.to_owned();
                state.signs.push(Seen { sign, line, after });
            }
            self.changed.notify_all();
        }
        if sign == Sign::KernelPanic {
            self.die(Death::GuestPanicked);
        }
    }
}

/// To the supervising thread.
enum Message {
    Event(Event),
    End,
}

/// A QEMU. Dropped, it is killed and waited for.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    process: Process,
    qmp: Arc<Qmp>,
    console: Console,
    pub(super) run_directory: PathBuf,
    supervisor: Option<JoinHandle<()>>,
    watcher: Option<JoinHandle<()>>,
    tell: SyncSender<Message>,
    pub(super) picture: Arc<Mutex<()>>,
    /// Places of keys that a BIOS kept, and that nobody will read any more.
    pub(super) stale_keys: Mutex<Option<(u16, u16)>>,
    /// Overlays that were put on top of its disks, by the names that QEMU has for them.
    pub(super) overlays: Mutex<BTreeMap<String, PathBuf>>,
}

impl Running {
    /// Starts QEMU and its guest.
    ///
    /// # Errors
    ///
    /// When QEMU cannot be started or ends at once, with its words; when `stop` says so.
    pub fn start(start: &Start<'_>, stop: &Stop) -> Result<Self> {
        Self::start_from(start, None, stop)
    }

    /// As [`Running::start`]; with `state`, a file that [`Running::hold`] wrote, the guest goes on from there.
    ///
    /// # Errors
    ///
    /// As [`Running::start`]; also when QEMU does not take the state, with its words.
    pub fn start_from(start: &Start<'_>, state: Option<&Path>, stop: &Stop) -> Result<Self> {
        let refused = |cause| Error::io("start QEMU", cause);
        let (qmp_here, qmp_there) = UnixStream::pair().map_err(refused)?;
        let (console_here, console_there) = UnixStream::pair().map_err(refused)?;
        let (errors, complains) = std::io::pipe().map_err(refused)?;
        let run_directory = absolute(start.run_directory, "");
        let console_log = Log::create(&run_directory.join("console.log"))?;
        let errors_log = Log::create(&run_directory.join("qemu.log"))?;
        let shared = Arc::new(Shared {
            started: Instant::now(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });

        let (tell, hear) = mpsc::sync_channel(BACKLOG);
        let told = tell.clone();
        // What nobody can keep up with is dropped: QEMU is asked for its state again and again anyway.
        let going = Arc::clone(&shared);
        let events = move |event: Event| {
            if event.name == "SHUTDOWN" && event.data["reason"] != "host-error" {
                going.lock().going_down = true;
            }
            drop(told.try_send(Message::Event(event)));
        };
        let qmp = Arc::new(Qmp::over(qmp_here, events)?);
        if !start.arguments.iter().any(|word| stays(word)) {
            qmp.leaves_with_guest();
        }
        let seen = Arc::clone(&shared);
        let console = Console::follow(console_here, console_log, move |sign, line| {
            seen.see(sign, line);
        })?;
        let listening = Arc::clone(&shared);
        let complaints = std::thread::Builder::new()
            .name("qemu-stderr".to_owned())
            .spawn(move || follow_errors(errors, errors_log, &listening))
            .map_err(refused)?;

        let mut arguments: Vec<OsString> = start.arguments.iter().map(OsString::from).collect();
        if state.is_some() {
            arguments.extend(["-incoming".into(), "defer".into()]);
        }
        let streams = Streams {
            input: Stdio::from(OwnedFd::from(qmp_there)),
            output: Stdio::from(OwnedFd::from(console_there)),
            errors: Stdio::from(complains),
            directory: None,
        };
        let process = start.launcher.start(start.qemu, &arguments, streams)?;
        let watching = process.watch();
        let (dying, control) = (Arc::clone(&shared), Arc::clone(&qmp));
        let watcher = std::thread::Builder::new()
            .name("qemu-end".to_owned())
            .spawn(move || {
                let ended = watching.wait_for_end();
                // Its last words come first.
                let _ = complaints.join();
                let ended_at = Instant::now();
                while control.ended().is_none() && ended_at.elapsed() < SHORTLY {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let down = dying.lock().going_down;
                dying.die(match ended {
                    Ended::Code(0) if down => Death::PoweredOff,
                    ended => Death::Ended(ended),
                });
            })
            .map_err(refused)?;
        let picture = Arc::new(Mutex::new(()));
        let mut running = Self {
            shared,
            process,
            qmp,
            console,
            run_directory,
            supervisor: None,
            watcher: Some(watcher),
            tell,
            picture,
            stale_keys: Mutex::new(None),
            overlays: Mutex::new(BTreeMap::new()),
        };
        running.begin(start, state, hear, stop)?;
        Ok(running)
    }

    fn begin(
        &mut self,
        start: &Start<'_>,
        state: Option<&Path>,
        hear: Receiver<Message>,
        stop: &Stop,
    ) -> Result<()> {
        self.qmp
            .negotiate(GREETING, stop)
            .map_err(|error| self.early_end(error))?;
        let supervision = Supervision {
            shared: Arc::clone(&self.shared),
            qmp: Arc::clone(&self.qmp),
            run_directory: self.run_directory.clone(),
            picture: Arc::clone(&self.picture),
        };
        let supervisor = std::thread::Builder::new()
            .name("machine".to_owned())
            .spawn(move || supervision.run(&hear))
            .map_err(|cause| Error::io("watch over QEMU", cause))?;
        self.supervisor = Some(supervisor);
        if let Some(password) = start.vnc_password {
            let arguments = json!({"protocol": "vnc", "password": password, "connected": "keep"});
            self.qmp.execute("set_password", &arguments, SOON)?;
        }
        if let Some(state) = state {
            self.take_state(state, stop)
                .map_err(|error| self.early_end(error))?;
        }
        self.qmp
            .execute("cont", &Value::Null, SOON)
            .map_err(|error| self.early_end(error))?;
        Ok(())
    }

    /// A QEMU that does not come up says why on standard error.
    fn early_end(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Cancelled {
            return error;
        }
        let _ = self.wait(Duration::from_secs(1), &|| false);
        let Some(death) = self.death() else {
            return error;
        };
        let words = self.stderr_tail(TAIL);
        let words: Vec<&str> = words
            .iter()
            .map(|line| line.trim())
            .filter(|line| !line.contains("warning:"))
            .collect();
        let because = if words.is_empty() {
            String::new()
        } else {
            format!(": {}", words.join("; "))
        };
        Error::new(
            ErrorKind::Io,
            format!("QEMU does not start ({death}){because}"),
        )
        .with_remedy("look at its arguments: `qimg build --plan` shows them")
    }

    /// QEMU's number as a process.
    pub fn id(&self) -> i32 {
        self.process.id()
    }

    /// Since it was started.
    pub fn age(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// Why the machine is lost, if it is: told within a fraction of a second.
    pub fn death(&self) -> Option<Death> {
        let state = self.shared.lock();
        state.death.as_ref().map(|(death, _)| death.clone())
    }

    /// What told that the guest goes no further, in order; a panic is also a [`Death`].
    pub fn signs(&self) -> Vec<Seen> {
        self.shared.lock().signs.clone()
    }

    /// Waits for the end of the machine for at most `timeout`; `None`: it runs on.
    ///
    /// # Errors
    ///
    /// When `stop` says so.
    pub fn wait(&self, timeout: Duration, stop: &Stop) -> Result<Option<Death>> {
        let started = Instant::now();
        let mut state = self.shared.lock();
        loop {
            if let Some((death, _)) = &state.death {
                return Ok(Some(death.clone()));
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

    /// Whether QEMU itself has ended, and how.
    pub fn ended(&self) -> Option<Ended> {
        self.process.ended()
    }

    /// Waits for the end of QEMU itself.
    ///
    /// # Errors
    ///
    /// When `stop` says so.
    pub(super) fn wait_for_end(&self, timeout: Duration, stop: &Stop) -> Result<Option<Ended>> {
        self.process.wait(timeout, stop)
    }

    /// QEMU's word for its state: `running`, `paused`, `shutdown`, `internal-error`, ...
    ///
    /// # Errors
    ///
    /// When QEMU does not answer.
    pub fn status(&self) -> Result<String> {
        let answer = self.qmp.execute("query-status", &Value::Null, SOON)?;
        Ok(answer["status"].as_str().unwrap_or("unknown").to_owned())
    }

    /// The guest's console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// The control channel.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// The port of the host that leads to port `guest` of the guest.
    ///
    /// # Errors
    ///
    /// When QEMU does not answer.
    pub fn forwarded_port(&self, guest: u16) -> Result<Option<u16>> {
        Ok(forwarded_port(&self.qmp.human("info usernet")?, guest))
    }

    /// Address and port of the VNC server, if there is one.
    ///
    /// # Errors
    ///
    /// When QEMU does not answer.
    pub fn vnc_address(&self) -> Result<Option<(String, String)>> {
        let answer = self.qmp.execute("query-vnc", &Value::Null, SOON)?;
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        Ok(text("host").zip(text("service")))
    }

    /// Last lines of QEMU's standard error.
    pub fn stderr_tail(&self, count: usize) -> Vec<String> {
        let state = self.shared.lock();
        let (first, second) = state.stderr.as_slices();
        last_lines([first, second], count)
    }

    /// A new picture of the screen, as PNG, in the run directory; the last one where QEMU cannot make one any more.
    pub fn screenshot(&self) -> Option<PathBuf> {
        let one = self.picture.lock().unwrap_or_else(PoisonError::into_inner);
        if self.ended().is_none()
            && let Ok(path) = screen::picture(&self.qmp, &self.run_directory)
        {
            self.shared.lock().screenshot = Some(path);
        }
        drop(one);
        self.shared.lock().screenshot.clone()
    }

    /// The lines of the screen, where it shows text (a BIOS guest); empty otherwise.
    pub fn screen_text(&self) -> Vec<String> {
        let _one = self.picture.lock().unwrap_or_else(PoisonError::into_inner);
        screen::text(&self.qmp, &self.run_directory).unwrap_or_default()
    }

    /// All there is to say, with a fresh picture if one can be had.
    pub fn report(&self) -> Report {
        // A QEMU that hangs is not waited for again and again.
        let asked = self.qmp.execute("query-status", &Value::Null, SHORTLY);
        if asked.is_ok() {
            self.screenshot();
            let lines = self.screen_lines().unwrap_or_else(|| self.screen_text());
            if !lines.is_empty() {
                self.shared.lock().screen = lines;
            }
        }
        let console = self.console.tail(TAIL);
        let stderr = self.stderr_tail(TAIL);
        let state = self.shared.lock();
        Report {
            death: state.death.clone(),
            stderr,
            console,
            screen: state.screen.clone(),
            screenshot: state.screenshot.clone(),
            signs: state.signs.clone(),
            console_log: self.run_directory.join("console.log"),
        }
    }

    /// Holds the guest.
    ///
    /// # Errors
    ///
    /// When QEMU does not answer.
    pub fn pause(&self) -> Result<()> {
        self.qmp.execute("stop", &Value::Null, SOON).map(drop)
    }

    /// Lets it go on.
    ///
    /// # Errors
    ///
    /// When QEMU does not answer.
    pub fn resume(&self) -> Result<()> {
        self.qmp.execute("cont", &Value::Null, SOON).map(drop)
    }

    /// Presses the power button.
    ///
    /// # Errors
    ///
    /// When QEMU does not answer.
    pub fn press_power_button(&self) -> Result<()> {
        self.shared.lock().going_down = true;
        match self.qmp.execute("system_powerdown", &Value::Null, SOON) {
            // It goes down already.
            Err(_) if self.qmp.is_leaving() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Has QEMU write out its disks and end.
    ///
    /// # Errors
    ///
    /// When QEMU does not answer.
    pub fn quit(&self) -> Result<()> {
        self.shared.lock().going_down = true;
        let leaves = self.qmp.is_leaving();
        match self.qmp.execute("quit", &Value::Null, SOON) {
            // It may end before its answer is out, or have been about to.
            Err(_) if leaves || self.qmp.ended().is_some() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Ends QEMU at once.
    pub fn kill(&mut self) {
        self.process.kill();
        self.settle();
    }

    /// After QEMU's end: everything it said is read, all threads are gone.
    pub(super) fn settle(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
        self.console.drain();
        let _ = self.tell.try_send(Message::End);
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether an argument has QEMU stay when its guest has shut down.
fn stays(argument: &str) -> bool {
    argument.trim_start_matches('-') == "no-shutdown" || argument.contains("shutdown=pause")
}

fn follow_errors(mut errors: std::io::PipeReader, mut log: Log, shared: &Shared) {
    let mut piece = [0; 4096];
    let mut line = Vec::new();
    loop {
        let length = match errors.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        log.write(&piece[..length]);
        {
            let mut state = shared.lock();
            state.stderr.extend(&piece[..length]);
            let excess = state.stderr.len().saturating_sub(REMEMBERED);
            state.stderr.drain(..excess);
        }
        // The words may come in two pieces.
        line.extend_from_slice(&piece[..length]);
        if line
            .windows(KVM_WORDS.len())
            .any(|window| window == KVM_WORDS.as_bytes())
        {
            shared.die(Death::KvmInternalError);
        }
        let excess = line.len().saturating_sub(KVM_WORDS.len());
        line.drain(..excess);
    }
    log.finish();
}

/// What the supervising thread has.
struct Supervision {
    shared: Arc<Shared>,
    qmp: Arc<Qmp>,
    run_directory: PathBuf,
    picture: Arc<Mutex<()>>,
}

impl Supervision {
    fn run(&self, hear: &Receiver<Message>) {
        let mut next_words = Instant::now() + WORDS;
        let mut next_picture = Instant::now() + PICTURE;
        loop {
            let now = Instant::now();
            let until = next_words.min(next_picture).saturating_duration_since(now);
            match hear.recv_timeout(until) {
                Ok(Message::Event(event)) => self.take(&event),
                Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.qmp.ended().is_some() {
                return;
            }
            let now = Instant::now();
            let Ok(_one) = self.picture.try_lock() else {
                continue;
            };
            if now >= next_words {
                self.read_screen();
                next_words = Instant::now() + WORDS;
            }
            if now >= next_picture {
                if let Ok(path) = screen::picture(&self.qmp, &self.run_directory) {
                    self.shared.lock().screenshot = Some(path);
                }
                next_picture = Instant::now() + PICTURE;
            }
        }
    }

    fn take(&self, event: &Event) {
        match event.name.as_str() {
            "GUEST_PANICKED" => self.shared.die(Death::GuestPanicked),
            // With -no-shutdown QEMU would stay for ever; any other is not asked.
            "SHUTDOWN" if self.status().as_deref() == Some("shutdown") => {
                let _ = self.qmp.execute("quit", &Value::Null, SOON);
            }
            "BLOCK_IO_ERROR" => {
                let full = event.data["nospace"] == true;
                let why = event.data["reason"].as_str().unwrap_or("I/O error");
                self.shared.lock().disk_failure = Some((full, why.to_owned()));
            }
            "STOP" => match self.status().as_deref() {
                Some("io-error") => {
                    let failure = self.shared.lock().disk_failure.clone();
                    let (full, why) = failure.unwrap_or((false, "I/O error".to_owned()));
                    self.shared.die(Death::DiskFailed { full, why });
                }
                Some("internal-error") => self.shared.die(Death::KvmInternalError),
                Some("guest-panicked") => self.shared.die(Death::GuestPanicked),
                Some("shutdown") => {
                    self.shared.lock().going_down = true;
                    let _ = self.qmp.execute("quit", &Value::Null, SOON);
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn status(&self) -> Option<String> {
        let answer = self.qmp.execute("query-status", &Value::Null, SOON).ok()?;
        answer["status"].as_str().map(str::to_owned)
    }

    fn read_screen(&self) {
        let Ok(lines) = screen::text(&self.qmp, &self.run_directory) else {
            return;
        };
        for line in &lines {
            if let Some(sign) = sign_in(line) {
                self.shared.see(sign, line);
            }
        }
        if !lines.is_empty() {
            self.shared.lock().screen = lines;
        }
    }
}

#[cfg(test)]
mod tests;
