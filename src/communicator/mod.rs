//! Into the guest: commands run there, files sent and fetched.
//!
//! [`Communicator`] is the whole contract; provisioners know no more. Must not know templates, machines or builds.

pub mod keys;
pub mod lines;
pub mod quote;
pub mod scripted;
pub mod ssh;
pub(crate) mod transfer;
pub mod tree;
pub mod wait;

use std::io::{Read, Write};
use std::time::Duration;

use crate::error::Result;

/// Which stream of a command a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(String),
    /// The connection ended before the command was known to have ended.
    Disconnected,
}

/// Takes the lines of a command as they come, without their line ends; what stands before the last carriage return
/// of a line is dropped, as on a terminal.
pub type Lines<'a> = dyn FnMut(Stream, &str) + Send + 'a;

/// A way into the guest. All calls block; all may be interrupted by the caller's [`Stop`].
pub trait Communicator: Send + Sync {
    /// Runs `command` by the login shell of the guest. It ends when its output does, or a few seconds after the
    /// command where something that it left running holds its output open.
    ///
    /// # Errors
    ///
    /// When the command could not be started, or `timeout` has passed ([`crate::ErrorKind::TimedOut`]; the command is
    /// told to end, and may go on all the same); a command that fails is no error. Here and below
    /// [`crate::ErrorKind::Connection`] says that there is no way into the guest, [`crate::ErrorKind::Guest`] that it
    /// was asked and refused.
    fn run(&self, command: &str, timeout: Option<Duration>, lines: &mut Lines<'_>) -> Result<Exit>;

    /// Runs `command` with `input` on its standard input; standard output goes to `output`, standard error to `lines`.
    /// Never with a terminal. `input` must not wait for what `output` gets: both are served by this thread.
    ///
    /// # Errors
    ///
    /// As [`Communicator::run`]; also when `input` or `output` fail.
    fn pipe(
        &self,
        command: &str,
        input: &mut (dyn Read + Send),
        output: &mut (dyn Write + Send),
        lines: &mut Lines<'_>,
    ) -> Result<Exit>;

    /// Makes the file `to` in the guest, of `length` bytes and mode `mode`, by the first way the guest has. Its
    /// directory must be there ([`tree::make_directory`]); `~/` and `~name/` at the beginning are homes. What is
    /// there is replaced; a directory is not.
    ///
    /// # Errors
    ///
    /// When the guest refuses, with its words; or `from` ends early.
    fn upload(&self, from: &mut (dyn Read + Send), length: u64, to: &str, mode: u32) -> Result<()>;

    /// Copies the file `from` out of the guest. Directories and patterns are [`tree`]'s.
    ///
    /// # Errors
    ///
    /// When the guest refuses, with its words; or `into` fails.
    fn download(&self, from: &str, into: &mut (dyn Write + Send)) -> Result<()>;

    /// Ends the connection; the next call makes a new one.
    fn disconnect(&self);

    /// Whether the guest answers: a new connection, a login, and the end of it, within `timeout`.
    ///
    /// # Errors
    ///
    /// When it does not, with what was seen last.
    fn probe(&self, timeout: Duration) -> Result<()>;
}

/// Asked by everything that waits: `true` ends the wait with [`crate::ErrorKind::Cancelled`].
pub type Stop = dyn Fn() -> bool + Send + Sync;
