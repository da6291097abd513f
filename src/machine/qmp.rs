//! QMP: the control channel of a QEMU.
//!
//! Knows lines, replies and events. Must not know processes, command lines or what a command is for. The peer is not
//! trusted: a line is bounded, an answer is waited for with a limit, and what is not understood ends the conversation.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::communicator::Stop;
use crate::error::{Error, ErrorKind, Result};

/// Longest line that is taken from the peer, in bytes. QEMU's largest answer, its schema, has about 200 KiB.
pub const LONGEST_LINE: usize = 8 << 20;

/// For an answer to a command that only asks or sets something.
pub const SOON: Duration = Duration::from_secs(10);

/// How often a wait looks whether it should end.
const POLL: Duration = Duration::from_millis(50);

/// Something that happened to the machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// QEMU's name of it: `STOP`, `SHUTDOWN`, `GUEST_PANICKED`, ...
    pub name: String,
    /// What belongs to it; null where there is nothing.
    pub data: Value,
}

/// What a line of the peer is.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The first line; with QEMU's version as `(major, minor)`, where it says so.
    Greeting(Option<(u64, u64)>),
    /// A command succeeded.
    Return(Option<u64>, Value),
    /// A command failed: QEMU's words.
    Failure(Option<u64>, String),
    /// An event.
    Event(Event),
}

/// Understands one line, which has no line end.
///
/// # Errors
///
/// Says what the line is not.
pub fn parse(line: &[u8]) -> Result<Message, &'static str> {
    let value: Value = serde_json::from_slice(line).map_err(|_| "a line that is not JSON")?;
    let Value::Object(mut fields) = value else {
        return Err("a line that is no object");
    };
    if let Some(greeting) = fields.get("QMP") {
        let version = &greeting["version"]["qemu"];
        let version = version["major"].as_u64().zip(version["minor"].as_u64());
        return Ok(Message::Greeting(version));
    }
    let id = fields.get("id").and_then(Value::as_u64);
    if let Some(value) = fields.remove("return") {
        return Ok(Message::Return(id, value));
    }
    if let Some(failure) = fields.get("error") {
        let words = failure["desc"].as_str().unwrap_or("no reason given");
        return Ok(Message::Failure(id, words.to_owned()));
    }
    match fields.remove("event") {
        Some(Value::String(name)) => {
            let data = fields.remove("data").unwrap_or(Value::Null);
            Ok(Message::Event(Event { name, data }))
        }
        _ => Err("an object that is no message"),
    }
}

/// Cuts what comes in pieces into lines of bounded length.
#[derive(Debug)]
pub struct Lines {
    kept: Vec<u8>,
    longest: usize,
}

impl Lines {
    /// Lines of at most `longest` bytes.
    pub fn new(longest: usize) -> Self {
        let kept = Vec::new();
        Self { kept, longest }
    }

    /// Takes the next piece; hands each line that is complete to `line`, without its end, until one is refused.
    ///
    /// # Errors
    ///
    /// When a line is too long, or `line` says so.
    pub fn push<E>(
        &mut self,
        mut piece: &[u8],
        too_long: E,
        mut line: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(end) = piece.iter().position(|&byte| byte == b'\n') {
            let (before, after) = piece.split_at(end);
            piece = &after[1..];
            if self.kept.len() + before.len() > self.longest {
                return Err(too_long);
            }
            self.kept.extend_from_slice(before);
            let whole = std::mem::take(&mut self.kept);
            let whole = whole.strip_suffix(b"\r").unwrap_or(&whole);
            if !whole.is_empty() {
                line(whole)?;
            }
        }
        if self.kept.len() + piece.len() > self.longest {
            return Err(too_long);
        }
        self.kept.extend_from_slice(piece);
        Ok(())
    }
}

#[derive(Default)]
struct State {
    greeting: Option<Option<(u64, u64)>>,
    /// Commands under way, and their answers once these are there.
    pending: BTreeMap<u64, Option<Result<Value, String>>>,
    next: u64,
    /// Why the conversation ended.
    ended: Option<String>,
    /// QEMU leaves when its guest has shut down.
    leaves_with_guest: bool,
    /// It is about to leave.
    leaving: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, message: Message, events: &mut (dyn FnMut(Event) + Send)) {
        let mut state = self.lock();
        match message {
            Message::Greeting(version) => state.greeting = Some(version),
            Message::Return(id, value) => state.answer(id, Ok(value)),
            Message::Failure(id, words) => state.answer(id, Err(words)),
            Message::Event(event) => {
                if event.name == "SHUTDOWN" && state.leaves_with_guest {
                    state.leaving = true;
                }
                drop(state);
                events(event);
                return;
            }
        }
        self.changed.notify_all();
    }
}

impl State {
    /// An answer that nobody waits for any more is dropped.
    fn answer(&mut self, id: Option<u64>, answer: Result<Value, String>) {
        if let Some(slot) = id.and_then(|id| self.pending.get_mut(&id)) {
            *slot = Some(answer);
        }
    }
}

/// A conversation with one QEMU.
pub struct Qmp {
    stream: Mutex<UnixStream>,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

impl fmt::Debug for Qmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = &self.shared.lock().ended;
        f.debug_struct("Qmp")
            .field("ended", ended)
            .finish_non_exhaustive()
    }
}

impl Qmp {
    /// Takes over `stream`; `events` is called for each event, by the thread that reads: it must not wait.
    ///
    /// # Errors
    ///
    /// When the host refuses a thread or a second handle of the stream.
    pub fn over(
        stream: UnixStream,
        mut events: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self> {
        let refused = |cause| Error::io("talk to QEMU", cause);
        let mut reading = stream.try_clone().map_err(refused)?;
        stream.set_write_timeout(Some(SOON)).map_err(refused)?;
        let shared = Arc::new(Shared::default());
        let told = Arc::clone(&shared);
        let reader = std::thread::Builder::new()
            .name("qmp".to_owned())
            .spawn(move || {
                let why = read(&mut reading, &told, &mut events);
                let _ = reading.shutdown(Shutdown::Both);
                told.lock().ended = Some(why);
                told.changed.notify_all();
            })
            .map_err(refused)?;
        Ok(Self {
            stream: Mutex::new(stream),
            shared,
            reader: Some(reader),
        })
    }

    /// Waits for the greeting and leaves the mode in which only capabilities are talked about; QEMU's version.
    ///
    /// # Errors
    ///
    /// When there is no greeting within `timeout`, the peer ends, or `stop` says so.
    pub fn negotiate(&self, timeout: Duration, stop: &Stop) -> Result<Option<(u64, u64)>> {
        let started = Instant::now();
        let version = self.wait("its greeting", timeout, stop, |state| state.greeting)?;
        let left = timeout.saturating_sub(started.elapsed());
        self.execute_unless("qmp_capabilities", &Value::Null, left.max(POLL), stop)?;
        Ok(version)
    }

    /// From now on nothing is asked any more once the guest has shut down: QEMU leaves then by itself, and one that is asked
    /// while it takes its monitors apart may crash (seen with 10.0: `aio_co_wake` of a dispatcher that is gone).
    pub fn leaves_with_guest(&self) {
        self.shared.lock().leaves_with_guest = true;
    }

    /// Whether QEMU ends by itself now.
    pub fn is_leaving(&self) -> bool {
        self.shared.lock().leaving
    }

    /// Has QEMU do `command` with `arguments` (an object, or null for none), and waits for its answer.
    ///
    /// # Errors
    ///
    /// When QEMU refuses, with its words; when the answer does not come within `timeout`; when the conversation has ended.
    pub fn execute(&self, command: &str, arguments: &Value, timeout: Duration) -> Result<Value> {
        self.execute_unless(command, arguments, timeout, &|| false)
    }

    /// As [`Qmp::execute`], for what may take long.
    ///
    /// # Errors
    ///
    /// Also when `stop` says so.
    pub fn execute_unless(
        &self,
        command: &str,
        arguments: &Value,
        timeout: Duration,
        stop: &Stop,
    ) -> Result<Value> {
        let id = {
            let mut state = self.shared.lock();
            if state.leaving {
                let text = format!("QEMU is about to end, and is not asked for {command} any more");
                return Err(Error::new(ErrorKind::Io, text));
            }
            // What is asked after that finds nobody.
            state.leaving = command == "quit";
            let id = state.next;
            state.next += 1;
            state.pending.insert(id, None);
            id
        };
        let answer = self.send(id, command, arguments).and_then(|()| {
            self.wait(
                &format!("an answer to {command}"),
                timeout,
                stop,
                |state| match state.pending.get_mut(&id) {
                    Some(slot) => slot.take(),
                    None => None,
                },
            )
        });
        self.shared.lock().pending.remove(&id);
        answer?.map_err(|words| {
            Error::new(
                ErrorKind::Unsupported,
                format!("QEMU refuses {command}: {words}"),
            )
        })
    }

    /// A command of the monitor for people; its output.
    ///
    /// # Errors
    ///
    /// As [`Qmp::execute`]; what the monitor complains of is output.
    pub fn human(&self, command: &str) -> Result<String> {
        let arguments = json!({ "command-line": command });
        let answer = self.execute("human-monitor-command", &arguments, SOON)?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// Why the conversation has ended, if it has.
    pub fn ended(&self) -> Option<String> {
        self.shared.lock().ended.clone()
    }

    fn send(&self, id: u64, command: &str, arguments: &Value) -> Result<()> {
        let mut message = json!({ "execute": command, "id": id });
        if !arguments.is_null() {
            message["arguments"] = arguments.clone();
        }
        let mut line = message.to_string();
        line.push('\n');
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream
            .write_all(line.as_bytes())
            .map_err(|cause| Error::io(format!("send {command} to QEMU"), cause))
    }

    fn wait<T>(
        &self,
        what: &str,
        timeout: Duration,
        stop: &Stop,
        mut found: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T> {
        let started = Instant::now();
        let mut state = self.shared.lock();
        loop {
            if let Some(found) = found(&mut state) {
                return Ok(found);
            }
            if let Some(why) = &state.ended {
                return Err(Error::new(
                    ErrorKind::Io,
                    format!("QEMU's control channel ended before {what}: {why}"),
                ));
            }
            if stop() {
                return Err(Error::cancelled());
            }
            let left = timeout.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(Error::new(
                    ErrorKind::Io,
                    format!("QEMU has not given {what} within {timeout:?}"),
                ));
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, left.min(POLL))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = stream.shutdown(Shutdown::Both);
        drop(stream);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Reads until the peer ends or is not understood; why.
fn read(
    stream: &mut UnixStream,
    shared: &Shared,
    events: &mut (dyn FnMut(Event) + Send),
) -> String {
    let mut lines = Lines::new(LONGEST_LINE);
    let mut piece = [0; 16 << 10];
    loop {
        let length = match stream.read(&mut piece) {
            Ok(0) => return "the other end closed it".to_owned(),
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return error.to_string(),
        };
        let taken = lines.push(&piece[..length], "a line without end", |line| {
            shared.take(parse(line)?, events);
            Ok(())
        });
        if let Err(what) = taken {
            return format!("it sent {what}");
        }
    }
}

#[cfg(test)]
mod tests;
