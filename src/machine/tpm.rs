//! A TPM in software, by swtpm.
//!
//! Knows how swtpm is started and where its socket is. Must not know QEMU.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::communicator::Stop;
use crate::error::{Error, ErrorKind, Result};

use super::console::last_lines;
use super::launcher::{Launcher, Process, Streams};
use super::log::absolute;

/// Longest path of a socket, in bytes.
const LONGEST_SOCKET: usize = 107;

/// For swtpm to open its socket.
const OPENING: Duration = Duration::from_secs(10);

/// A running swtpm. Dropped, it is killed; its state stays in its directory.
#[derive(Debug)]
pub struct TpmProcess {
    process: Process,
    socket: PathBuf,
}

impl TpmProcess {
    /// Starts `swtpm` with its state in `directory`, which exists.
    ///
    /// # Errors
    ///
    /// When it cannot be started, ends at once, or the path of its socket is too long for the system.
    pub fn start(
        launcher: &Launcher,
        swtpm: &Path,
        directory: &Path,
        version_1: bool,
        stop: &Stop,
    ) -> Result<Self> {
        let socket = Self::socket_in(directory);
        if socket.as_os_str().len() > LONGEST_SOCKET {
            let message = format!("the path of a socket has at most {LONGEST_SOCKET} bytes");
            return Err(Error::unsupported(message)
                .at_path(&socket)
                .with_remedy("set XDG_STATE_HOME to a directory with a shorter name"));
        }
        // Relative to the directory: commas and the like in its name mean nothing then.
        let mut arguments = [
            "socket",
            "--tpmstate",
            "dir=.",
            "--ctrl",
            "type=unixio,path=tpm.sock",
            "--terminate",
        ]
        .map(OsString::from)
        .to_vec();
        if !version_1 {
            arguments.push(OsString::from("--tpm2"));
        }
        let (mut errors, complains) =
            std::io::pipe().map_err(|cause| Error::io("start swtpm", cause))?;
        let streams = Streams {
            input: Stdio::null(),
            output: Stdio::null(),
            errors: Stdio::from(complains),
            directory: Some(directory.to_owned()),
        };
        let process = launcher.start(swtpm, &arguments, streams)?;
        let complaints = std::thread::spawn(move || {
            let mut words = Vec::new();
            let _ = errors.by_ref().take(64 << 10).read_to_end(&mut words);
            let _ = std::io::copy(&mut errors, &mut std::io::sink());
            words
        });
        let started = Instant::now();
        while rustix::fs::stat(&socket).is_err() {
            if let Some(ended) = process.wait(Duration::from_millis(20), stop)? {
                let words = complaints.join().unwrap_or_default();
                let words = last_lines([words.as_slice()], 5).join("; ");
                return Err(Error::new(
                    ErrorKind::Io,
                    format!("swtpm does not start ({ended:?}): {words}"),
                )
                .with_remedy("see that swtpm is installed and works"));
            }
            if started.elapsed() > OPENING {
                return Err(
                    Error::new(ErrorKind::Io, "swtpm does not open its socket").at_path(&socket)
                );
            }
        }
        Ok(Self { process, socket })
    }

    /// Where the socket of one is whose state is in `directory`.
    pub fn socket_in(directory: &Path) -> PathBuf {
        absolute(directory, "tpm.sock")
    }

    /// For the command line of QEMU.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.process.ended().is_none()
    }
}

impl Drop for TpmProcess {
    fn drop(&mut self) {
        self.process.kill();
        let _ = rustix::fs::unlink(&self.socket);
    }
}
