//! Programs run on the host.
//!
//! Knows processes, their groups, streams and ends. Must not know what is run, or why. Takes nothing from this
//! process's environment: all that the program may see is handed in, and what is secret only by environment or standard
//! input, which nobody else on the host can read.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::communicator::lines::Splitter;
use crate::communicator::{Lines, Stop, Stream};
use crate::error::{Error, ErrorKind, Result};

/// How often it is looked whether to stop.
const GLANCE: Duration = Duration::from_millis(20);

/// From the polite signal to the other one.
const GRACE: Duration = Duration::from_secs(2);

/// After the program has ended, for output of what it left behind.
const ECHO: Duration = Duration::from_millis(300);

/// Pieces of output, of 16 KiB at most, that wait to be taken.
const WAITING: usize = 256;

/// Pieces after which a program that has ended, but whose heirs go on talking, is no longer listened to: more than a pipe
/// holds and the channel keeps.
const MOST_ECHOED: usize = 4 * WAITING;

/// A program to run.
#[derive(Clone, Default)]
pub struct Program {
    /// Path, or a name that is looked up in the `PATH` of `environment`.
    pub program: OsString,
    /// Arguments. Everybody on the host can read them.
    pub arguments: Vec<OsString>,
    /// The whole environment; of a name that is there twice the last value counts.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it runs; `None`: where this process does.
    pub directory: Option<PathBuf>,
    /// Its standard input.
    pub input: Vec<u8>,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program")
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this code.
    Code(i32),
    /// By the signal of this number.
    Signal(i32),
}

/// Runs `program` in a process group of its own until it ends, and hands on its lines as they come. A line of more than
/// 64 KiB comes in pieces.
///
/// What it started and left running is left alone when it ends by itself.
///
/// # Errors
/// It cannot be started; [`Cancelled`](ErrorKind::Cancelled) or [`TimedOut`](ErrorKind::TimedOut), and then the whole
/// group was ended.
pub fn run(
    program: &Program,
    timeout: Option<Duration>,
    stop: &Stop,
    lines: &mut Lines<'_>,
) -> Result<Ended> {
    let started = Instant::now();
    let found = find(&program.program, &program.environment)?;
    let mut command = std::process::Command::new(&found);
    command
        .args(&program.arguments)
        .env_clear()
        .envs(
            program
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .stdin(if program.input.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(directory) = &program.directory {
        command.current_dir(directory);
    }
    let child = command
        .spawn()
        .map_err(|error| Error::io("run it", error).at_path(&found))?;
    // From here on dropping ends the group.
    let mut group = Group {
        child,
        ended: false,
    };
    let received = listen(&mut group.child, program.input.clone());
    let mut streams = Streams::default();
    loop {
        match received.recv_timeout(GLANCE) {
            Ok(piece) => streams.take(piece, lines),
            Err(RecvTimeoutError::Timeout) => {}
            // Both streams are closed; it may go on without them.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(GLANCE),
        }
        if stop() {
            return Err(Error::cancelled());
        }
        if timeout.is_some_and(|timeout| started.elapsed() >= timeout) {
            let message = format!(
                "did not end within {timeout:?}",
                timeout = timeout.unwrap_or_default()
            );
            return Err(Error::new(ErrorKind::TimedOut, message).at_path(&found));
        }
        if group.has_ended() {
            break;
        }
    }
    // All that it wrote itself is in the pipes by now; what it left running may keep them open.
    let mut quiet_from = Instant::now();
    let mut echoed = 0usize;
    while quiet_from.elapsed() < ECHO && started.elapsed() < timeout.unwrap_or(Duration::MAX) {
        match received.recv_timeout(GLANCE) {
            Ok(piece) => {
                streams.take(piece, lines);
                echoed = echoed.saturating_add(1);
                if echoed > MOST_ECHOED || stop() {
                    break;
                }
                quiet_from = Instant::now();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    streams.finish(lines);
    group.reap().map_err(|error| error.at_path(&found))
}

/// The file of `program`: itself where it holds a `/`, else the first of that name in the `PATH` of `environment` that
/// can be run.
///
/// # Errors
/// There is none.
pub fn find(program: &OsStr, environment: &[(OsString, OsString)]) -> Result<PathBuf> {
    if Path::new(program).components().count() > 1 {
        return Ok(PathBuf::from(program));
    }
    let path = environment
        .iter()
        .rev()
        .find(|(name, _)| name == "PATH")
        .map(|(_, value)| value.as_os_str())
        .unwrap_or_default();
    let found = split_path(path)
        .map(|directory| directory.join(program))
        .find(|file| is_program(file));
    found.ok_or_else(|| {
        let name = program.to_string_lossy();
        Error::usage(format!("there is no program {name} on the PATH"))
    })
}

fn split_path(path: &OsStr) -> impl Iterator<Item = PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    path.as_bytes()
        .split(|byte| *byte == b':')
        .filter(|part| !part.is_empty())
        .map(|part| PathBuf::from(OsStr::from_bytes(part)))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Bytes of one stream; none at its end.
type Piece = (Stream, Vec<u8>);

/// Threads that write and read, so that neither side waits for the other. They end when their pipe does.
fn listen(child: &mut Child, input: Vec<u8>) -> Receiver<Piece> {
    let (sender, received) = sync_channel(WAITING);
    if let Some(pipe) = child.stdin.take() {
        std::thread::spawn(move || feed(pipe, &input));
    }
    if let Some(pipe) = child.stdout.take() {
        let sender = sender.clone();
        std::thread::spawn(move || read(pipe, Stream::Out, &sender));
    }
    if let Some(pipe) = child.stderr.take() {
        std::thread::spawn(move || read(pipe, Stream::Err, &sender));
    }
    received
}

fn feed(mut pipe: ChildStdin, input: &[u8]) {
    // A program need not read what it is given.
    let _ = pipe.write_all(input);
}

fn read(mut pipe: impl Read, stream: Stream, sender: &SyncSender<Piece>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                if sender.send((stream, bytes)).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Both streams, cut into lines.
#[derive(Default)]
struct Streams {
    out: Splitter,
    err: Splitter,
}

impl Streams {
    fn take(&mut self, (stream, bytes): Piece, lines: &mut Lines<'_>) {
        let splitter = match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        };
        splitter.push(&bytes, &mut |line| lines(stream, line));
    }

    fn finish(&mut self, lines: &mut Lines<'_>) {
        self.out.finish(&mut |line| lines(Stream::Out, line));
        self.err.finish(&mut |line| lines(Stream::Err, line));
    }
}

/// A process and all that it started in its group; dropped before it has ended, it is ended.
struct Group {
    child: Child,
    ended: bool,
}

impl Group {
    /// Whether the process has ended. It keeps its number until it is reaped.
    fn has_ended(&mut self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = self
            .number()
            .is_none_or(|pid| !matches!(waitid(WaitId::Pid(pid), options), Ok(None)));
        self.ended |= ended;
        self.ended
    }

    fn number(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.number() {
            let _ = kill_process_group(pid, signal);
        }
    }

    fn reap(mut self) -> Result<Ended> {
        self.ended = true;
        let status = self
            .child
            .wait()
            .map_err(|error| Error::io("learn how it ended", error))?;
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => Ended::Code(code),
            (None, signal) => Ended::Signal(signal.unwrap_or(0)),
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.ended {
            // Reaped already, or the number is still its own.
            let _ = self.child.try_wait();
            return;
        }
        self.signal(Signal::TERM);
        let asked = Instant::now();
        while !self.has_ended() && asked.elapsed() < GRACE {
            std::thread::sleep(GLANCE);
        }
        // Whoever of the group is left: its leader is not reaped, so the number is still theirs.
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests;
