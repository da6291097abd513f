//! What changes the guest: scripts, files, restarts, other people's programs.
//!
//! Knows the order of pauses, tries and time limits, and what each provisioner does through a [`Communicator`]. Must
//! not know machines, how the guest is reached, or the language of templates; never prints.

mod ansible;
mod ansible_local;
pub mod breakpoint;
pub mod cloud_init;
pub(crate) mod contents;
pub mod custom;
mod environment;
mod file;
mod reboot;
mod shell;
pub mod shell_local;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;

use super::event::Reporter;
use super::late::RenderText;
use crate::communicator::{Communicator, Stop};
use crate::error::{Error, ErrorKind, Result};
use crate::template::model::{Action, Provisioner};

pub use breakpoint::Ask;
pub(crate) use file::uploaded;
pub(crate) use watch::{Guard, Watch};

/// What the program knows of the host, for what runs there.
#[derive(Clone, Default)]
pub struct Host {
    /// The environment that programs get.
    pub environment: Vec<(OsString, OsString)>,
    /// Where temporary files go.
    pub temporary: PathBuf,
    /// The system's name as Packer has it: `linux`, `darwin`, `freebsd`.
    pub system: String,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The environment holds secrets.
        f.debug_struct("Host")
            .field("temporary", &self.temporary)
            .field("system", &self.system)
            .finish_non_exhaustive()
    }
}

/// How programs of others reach the guest.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Login name.
    pub user: String,
    /// Password, where there is one.
    pub password: Option<String>,
    /// File with the private key, where there is one.
    pub private_key: Option<PathBuf>,
    /// The host's public key as in `known_hosts`: type and base64; `None` where it is not known.
    pub host_key: Option<String>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}:{}", self.user, self.host, self.port)
    }
}

/// What is known of a build while it runs, for those who work for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Packer's word for its kind: `qemu`.
    pub kind: String,
    /// Address and port of the HTTP server as the guest sees them, where there is one.
    pub http: Option<(String, u16)>,
    /// How the guest is reached.
    pub connection: Option<Connection>,
}

/// All that a provisioner works with.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The build.
    pub facts: &'a Facts,
    /// The host.
    pub host: &'a Host,
    /// The way into the guest; `None`: there is none.
    pub communicator: Option<&'a dyn Communicator>,
    /// Takes what there is to say.
    pub reporter: &'a Reporter<'a>,
    /// Fills in texts.
    pub texts: &'a dyn RenderText,
    /// Numbers for names of temporary files in the guest: each call another one.
    pub numbers: &'a (dyn Fn() -> u64 + Send + Sync),
    /// Whom to ask; `None`: nobody is there.
    pub ask: Option<&'a dyn Ask>,
    /// How many times as long as usual the guest takes: 1, and more where it is emulated. Only limits that no
    /// template gives are stretched.
    pub patience: u32,
    /// Whether to stop.
    pub stop: &'a Stop,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

impl<'a> Context<'a> {
    fn guest(&self) -> Result<&'a dyn Communicator> {
        self.communicator.ok_or_else(|| {
            Error::usage("there is no way into the guest")
                .with_remedy("give the build a communicator, or leave this provisioner out")
        })
    }
}

/// Runs one provisioner: waits as long as it wants to be waited for, tries as often as it says, and gives each try its
/// time, in which pauses do not count.
///
/// # Errors
/// The last try failed: an error that names the provisioner, with the reason as its source. Cancelled: at once.
pub fn run(provisioner: &Provisioner, context: &Context<'_>) -> Result<()> {
    let mut tried = 0;
    loop {
        tried += 1;
        let pause = provisioner.pause_before;
        if !pause.is_zero() {
            let text = format!("Pausing {} before {}", in_words(pause), title(provisioner));
            context.reporter.step(&text);
            Watch::new(context.stop, None).sleep(pause)?;
        }
        let error = match once(provisioner, context) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => error,
        };
        if tried > provisioner.max_retries {
            return Err(explained(provisioner, tried, error));
        }
        context.reporter.warn(&format!(
            "{} failed and is tried again ({tried} of {}): {}",
            title(provisioner),
            provisioner.max_retries,
            with_cause(&error)
        ));
    }
}

fn once(provisioner: &Provisioner, context: &Context<'_>) -> Result<()> {
    let guard = Guard {
        timeout: provisioner.timeout,
        stop: context.stop,
        communicator: context.communicator,
    };
    guard.watch(|watch| match &provisioner.action {
        Action::Shell(shell) => shell::run(shell, context, watch),
        Action::File(transfer) => file::run(transfer, context, watch),
        Action::ShellLocal(local) => {
            shell_local::run_watched(local, &provisioner.kind, context, watch)
        }
        Action::Ansible(job) => ansible::run(job, context, watch),
        Action::AnsibleLocal(job) => ansible_local::run(job, context, watch),
        Action::Sleep(time) => {
            let text = format!("Sleeping for {}", in_words(*time));
            context.reporter.step(&text);
            watch.sleep(*time)
        }
        Action::Reboot { command, timeout } => reboot::run(command, *timeout, context, watch),
        Action::Breakpoint { note, disabled } => {
            breakpoint::run(note, *disabled, context.ask, context.reporter, context.stop)
        }
        Action::Custom { name, options } => custom::provision(name, options, context, watch),
    })
}

/// `shell (line 12)`.
fn title(provisioner: &Provisioner) -> String {
    match provisioner.line {
        0 => format!("provisioner {}", provisioner.kind),
        line => format!("provisioner {} (line {line})", provisioner.kind),
    }
}

fn explained(provisioner: &Provisioner, tried: u32, error: Error) -> Error {
    let times = match tried {
        1 => String::new(),
        tried => format!(", {tried} times"),
    };
    let remedy = error.remedy().map(ToOwned::to_owned);
    let outer = Error::new(
        error.kind(),
        format!("{} failed{times}", title(provisioner)),
    );
    let outer = outer.with_source(error);
    match remedy {
        Some(remedy) => outer.with_remedy(remedy),
        None => outer,
    }
}

/// The error and what it comes from, on one line.
pub(crate) fn with_cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// `1 m 30 s`, `2.5 s`, `300 ms`.
pub(crate) fn in_words(time: std::time::Duration) -> String {
    let (seconds, milliseconds) = (time.as_secs(), time.subsec_millis());
    match (seconds / 60, seconds % 60) {
        (0, 0) => format!("{milliseconds} ms"),
        (0, seconds) if milliseconds == 0 => format!("{seconds} s"),
        (0, seconds) => format!("{seconds}.{} s", milliseconds / 100),
        (minutes, 0) => format!("{minutes} m"),
        (minutes, seconds) => format!("{minutes} m {seconds} s"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
