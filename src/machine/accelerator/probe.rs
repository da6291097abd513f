//! A guest of one sector that says whether guests run at all.
//!
//! The machine's own firmware starts it; it goes from real through protected to long mode and says a letter or two in
//! each, by QEMU's debug console: all that a kernel does first. Whoever hears `qimg` knows that guests run.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;

use super::Accelerator;
use crate::communicator::Stop;
use crate::error::{Error, Result};
use crate::machine::console::last_lines;
use crate::machine::launcher::{Ended, Launcher, Streams};

/// What the sector says in the end.
const SAID: &[u8] = b"qimg";

/// Bytes of standard error that are looked at.
const MOST_WORDS: u64 = 64 << 10;

/// What `probe.s` beside this file assembles to; behind it come zeros up to the mark of a boot sector.
pub(super) const CODE: [u8; 182] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xb0, 0x71, 0xe6, 0xe9,
    0xbf, 0x00, 0x10, 0x31, 0xc0, 0xb9, 0x00, 0x18, 0xfc, 0xf3, 0xab, 0xc7, 0x06, 0x00, 0x10, 0x03,
    0x20, 0xc7, 0x06, 0x00, 0x20, 0x03, 0x30, 0xc7, 0x06, 0x00, 0x30, 0x83, 0x00, 0x66, 0x0f, 0x01,
    0x16, 0xb0, 0x7c, 0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, 0x66, 0xea, 0x43, 0x7c, 0x00,
    0x00, 0x08, 0x00, 0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xb0, 0x69, 0xe6,
    0xe9, 0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0, 0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f,
    0x22, 0xd8, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f, 0x30,
    0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0, 0xea, 0x82, 0x7c, 0x00, 0x00,
    0x18, 0x00, 0xb0, 0x6d, 0xe6, 0xe9, 0xb0, 0x67, 0xe6, 0xe9, 0xf4, 0xeb, 0xfd, 0x0f, 0x1f, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x9a, 0xcf, 0x00,
    0xff, 0xff, 0x00, 0x00, 0x00, 0x92, 0xcf, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x9a, 0xaf, 0x00,
    0x1f, 0x00, 0x90, 0x7c, 0x00, 0x00,
];

/// How the small guest fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It ran.
    Runs,
    /// It, or QEMU, died: QEMU's words.
    Dies(String),
    /// It got nowhere in this time.
    Hangs(Duration),
}

/// Runs the small guest for at most `limit`, with a processor of model `cpu`.
///
/// # Errors
///
/// When the host refuses what QEMU needs to be started, or `stop` says so.
pub fn probe(
    qemu: &Path,
    accelerator: &Accelerator,
    cpu: &str,
    launcher: &Launcher,
    limit: Duration,
    stop: &Stop,
) -> Result<Outcome> {
    let refused = |cause| Error::io("try a guest", cause);
    let disk = sector().map_err(refused)?;
    let (said, says) = UnixStream::pair().map_err(refused)?;
    let (mut errors, complains) = std::io::pipe().map_err(refused)?;
    let number = disk.as_raw_fd();
    let me = rustix::process::getpid();
    let accelerator = accelerator.argument().unwrap_or_else(|| "tcg".to_owned());
    let arguments = [
        "-accel",
        &accelerator,
        "-cpu",
        cpu,
        "-m",
        "16",
        "-nodefaults",
        "-display",
        "none",
        "-no-user-config",
        // Nothing of the probe lies in a directory: QEMU reads the sector out of this process.
        "-drive",
        &format!("file=/proc/{me}/fd/{number},format=raw,if=ide,readonly=off,file.locking=off"),
        "-chardev",
        "socket,id=said,fd=1",
        "-device",
        "isa-debugcon,iobase=0xe9,chardev=said",
    ]
    .map(Into::into);
    let streams = Streams {
        input: Stdio::null(),
        output: Stdio::from(OwnedFd::from(says)),
        errors: Stdio::from(complains),
        directory: None,
    };
    let started = Instant::now();
    let mut process = launcher.start(qemu, &arguments, streams)?;
    let (tell, hear) = mpsc::sync_channel(16);
    let told = tell.clone();
    let mut said = said;
    let listener = std::thread::spawn(move || {
        let mut heard = [0; SAID.len()];
        let whole = said.read_exact(&mut heard).is_ok() && heard == *SAID;
        if whole {
            let _ = told.send(None);
        }
    });
    let complaints = std::thread::spawn(move || {
        let mut words = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = errors.read(&mut piece) {
            if (words.len() as u64) < MOST_WORDS {
                words.extend_from_slice(&piece[..length]);
            }
            // QEMU stays up, with its guest stopped.
            if words
                .windows(18)
                .any(|window| window == b"KVM internal error")
            {
                let _ = tell.try_send(Some(words.clone()));
            }
        }
        words
    });
    let outcome = loop {
        match hear.recv_timeout(Duration::from_millis(20)) {
            Ok(None) => break Some(Outcome::Runs),
            Ok(Some(words)) => break Some(Outcome::Dies(first_words(&words, None))),
            // Both readers have ended: so has QEMU.
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if stop() {
            return Err(Error::cancelled());
        }
        if process.ended().is_some() {
            break None;
        }
        if started.elapsed() >= limit {
            break Some(Outcome::Hangs(limit));
        }
    };
    let ended = process.ended();
    process.kill();
    let _ = listener.join();
    let words = complaints.join().unwrap_or_default();
    drop(disk);
    Ok(outcome.unwrap_or_else(|| Outcome::Dies(first_words(&words, ended))))
}

fn first_words(words: &[u8], ended: Option<Ended>) -> String {
    let mut lines = last_lines([words], 20);
    lines.retain(|line| !line.contains("warning:"));
    let found = lines
        .iter()
        .find(|line| line.contains("KVM internal error") || line.contains("error:"))
        .or(lines.first());
    match (found, ended) {
        (Some(line), _) => {
            // Its own name says nothing.
            let line = line.split_once(": ").map_or(line.as_str(), |(name, rest)| {
                if name.contains("qemu") { rest } else { line }
            });
            line.trim_start_matches("error: ").to_owned()
        }
        (None, Some(Ended::Signal(signal))) => format!("QEMU ended by signal {signal}"),
        (None, Some(Ended::Code(code))) => format!("QEMU ended with code {code}"),
        (None, None) => "QEMU ended".to_owned(),
    }
}

/// The sector as a file without a name.
fn sector() -> std::io::Result<OwnedFd> {
    let mut sector = [0; 512];
    sector[..CODE.len()].copy_from_slice(&CODE);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let file = rustix::fs::memfd_create("qimg-probe", MemfdFlags::CLOEXEC)?;
    #[expect(clippy::disallowed_types, reason = "a sector of our own in memory")]
    let mut file = std::fs::File::from(file);
    file.write_all(&sector)?;
    Ok(file.into())
}
