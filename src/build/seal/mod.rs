//! Removing from the guest what it must not take along into the image.
//!
//! Knows what a machine keeps of itself, and how it is removed by one script of a POSIX shell that runs as root: directly,
//! or by `sudo` or `doas`. Must not know how the guest is reached or shut down. Nothing fails because a tool is missing; what
//! could not be removed, and what is left, is in the report.
//!
//! After [`seal`] and [`uninject`] there may be no way in any more: neither keys nor host keys. So the command that shuts
//! the guest down goes along and runs in the same session.

mod report;
mod script;
mod steps;

use std::io::{self, Cursor, Write};
use std::time::Duration;

use serde::Serialize;

use super::event::Reporter;
use super::provisioner::Guard;
use crate::communicator::lines::Splitter;
use crate::communicator::{Communicator, Exit, Stop};
use crate::error::{Error, ErrorKind, Result};

pub use report::{
    AuthorizedKey, HostKey, MachineId, PasswordLogin, PasswordUser, Remains, SealReport,
    StepReport, StepState,
};
pub use steps::Step;

use script::Order;

/// For the question who we are.
const QUESTION: Duration = Duration::from_secs(30);

/// Bytes of the script's answer that are read.
const LONGEST_ANSWER: usize = 4 << 20;

/// What the build itself brought into the guest.
#[derive(Clone, Default)]
pub struct Own {
    /// Public keys as in `authorized_keys`, which let the build in: their lines go.
    pub keys: Vec<String>,
    /// Users whose passwords the build set or used: they are locked.
    pub password_users: Vec<String>,
    /// Public host keys that the build gave the guest. [`uninject`] removes them.
    pub host_keys: Vec<String>,
    /// Id of the instance that cloud-init took the build's own seed for. [`uninject`] removes its data.
    pub instance_id: Option<String>,
    /// Users that the build's own seed made: they go.
    pub created_users: Vec<String>,
    /// Password of the user who is logged in, for a `sudo` that asks for it.
    pub sudo_password: Option<String>,
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own")
            .field("keys", &self.keys)
            .field("password_users", &self.password_users)
            .field("instance_id", &self.instance_id)
            .field("created_users", &self.created_users)
            .finish_non_exhaustive()
    }
}

/// How the script became root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Root {
    /// It was logged in as root.
    Login,
    /// By `sudo` without a password.
    Sudo,
    /// By `sudo` with the user's password.
    SudoWithPassword,
    /// By `doas`.
    Doas,
    /// Not at all.
    No,
}

/// What it takes to work in the guest.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    /// The way in.
    pub guest: &'a dyn Communicator,
    /// For all of it.
    pub timeout: Duration,
    /// Run in the guest as root when all else is done; `None`: the guest goes on.
    pub shutdown: Option<&'a str>,
    /// Takes what there is to say.
    pub reporter: &'a Reporter<'a>,
    /// Whether to stop.
    pub stop: &'a Stop,
}

impl std::fmt::Debug for Way<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Way")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Does the steps, in the order of [`Step::ALL`] whatever theirs is.
///
/// # Errors
/// Nobody lets us be root; the way into the guest failed before the script had come to its end; it took too long. What
/// could not be removed is no error.
pub fn seal(steps: &[Step], own: &Own, way: &Way<'_>) -> Result<SealReport> {
    let order = Order {
        steps,
        uninject: false,
        own,
        shutdown: way.shutdown,
        root: "",
    };
    let script = order.compose()?;
    let root = root(own, way)?;
    if root == Root::No {
        return Err(Error::new(
            ErrorKind::Guest,
            "the guest cannot be sealed: the user who is logged in may not become root",
        )
        .with_remedy("let the user run sudo or doas without a password, or switch sealing off"));
    }
    run(&script, root, own, way)
}

/// Removes only what the build itself brought: lines of keys, passwords, host keys, the instance and the users of its own
/// seed. Where nobody lets us be root, what can be removed is.
///
/// What cloud-init did because of any first start stays: network settings, the machine's id, the host's name.
///
/// # Errors
/// As for [`seal`], but for the lack of root.
pub fn uninject(own: &Own, way: &Way<'_>) -> Result<SealReport> {
    let order = Order {
        steps: &[],
        uninject: true,
        own,
        shutdown: way.shutdown,
        root: "",
    };
    let script = order.compose()?;
    let root = root(own, way)?;
    if root == Root::No {
        way.reporter
            .warn("The user who is logged in may not become root: only what is the user's own can be removed");
    }
    run(&script, root, own, way)
}

/// Who the script can be run as.
fn root(own: &Own, way: &Way<'_>) -> Result<Root> {
    const ASK: &str = "exec sh -c 'if [ \"$(id -u)\" = 0 ]; then echo login; \
elif sudo -n true; then echo sudo; elif doas -n true; then echo doas; \
elif command -v sudo >&2; then echo locked; else echo no; fi' 2>/dev/null";
    let mut answer = String::new();
    let exit = way
        .guest
        .run(ASK, Some(QUESTION.min(way.timeout)), &mut |_, line| {
            if answer.is_empty() {
                answer = line.trim().chars().take(20).collect();
            }
        })?;
    if exit == Exit::Disconnected {
        let message = "the connection was lost while it was asked who may be root in the guest";
        return Err(Error::new(ErrorKind::Connection, message));
    }
    Ok(match (answer.as_str(), &own.sudo_password) {
        ("login", _) => Root::Login,
        ("sudo", _) => Root::Sudo,
        ("doas", _) => Root::Doas,
        ("locked", Some(_)) => Root::SudoWithPassword,
        _ => Root::No,
    })
}

fn run(script: &str, root: Root, own: &Own, way: &Way<'_>) -> Result<SealReport> {
    let mut input = Vec::new();
    let command = match (root, &own.sudo_password) {
        (Root::Sudo, _) => "exec sudo -n sh -s",
        (Root::Doas, _) => "exec doas -n sh -s",
        (Root::SudoWithPassword, Some(password)) => {
            input.extend_from_slice(password.as_bytes());
            input.push(b'\n');
            "exec sudo -S -k -p '' sh -s"
        }
        _ => "exec sh -s",
    };
    input.extend_from_slice(script.as_bytes());
    let mut answer = Answer::default();
    let mut output = way.reporter.output("seal");
    let guard = Guard {
        timeout: Some(way.timeout),
        stop: way.stop,
        communicator: Some(way.guest),
    };
    let mut ended = Ok(Exit::Disconnected);
    let watched = guard.watch(|watch| {
        watch.check()?;
        ended = way.guest.pipe(
            command,
            &mut Cursor::new(&input),
            &mut answer,
            &mut |stream, line| output.line(stream, line),
        );
        Ok(())
    });
    let report = answer.finish();
    // A guest that shuts down ends the connection: what came before counts.
    if report.complete {
        return match watched {
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            _ => Ok(report),
        };
    }
    watched?;
    let how = match ended? {
        Exit::Disconnected => {
            let message = "the connection was lost while the guest was cleaned";
            return Err(Error::new(ErrorKind::Connection, message));
        }
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
    };
    Err(Error::new(
        ErrorKind::Guest,
        format!("the script that cleans the guest did not come to its end ({how})"),
    ))
}

/// The script's standard output.
#[derive(Default)]
struct Answer {
    splitter: Splitter,
    report: SealReport,
    taken: usize,
}

impl Answer {
    fn finish(mut self) -> SealReport {
        let report = &mut self.report;
        self.splitter.finish(&mut |line| report.take(line));
        self.report
    }
}

impl Write for Answer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.taken = self.taken.saturating_add(bytes.len());
        if self.taken > LONGEST_ANSWER {
            return Err(io::Error::other("the guest talks without end"));
        }
        let report = &mut self.report;
        self.splitter.push(bytes, &mut |line| report.take(line));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
