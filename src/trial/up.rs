//! A machine that is up already: the checks of a guest, and none of an image.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bench::explained;
use super::inside;
use super::known::{Known, Wanted, joined_in_part, kept, left_out_of};
use super::request::{Evidence, GuestWork, Report};
use crate::communicator::Stop;
use crate::communicator::ssh::{Limits, Options, Ssh};
use crate::error::{Error, ErrorKind, Result};
use crate::goss::{self, Check, Kind, RunOptions};

/// A machine that is up, and what is asked of it.
pub struct Up<'a> {
    /// The way there.
    pub ssh: Options,
    /// For it to let us in.
    pub timeout: Duration,
    /// The checks.
    pub checks: &'a [Check],
    /// How it is asked.
    pub run: &'a RunOptions,
    /// Called with it first.
    pub with_guest: Option<&'a GuestWork<'a>>,
    /// Takes what is being done.
    pub tell: &'a (dyn Fn(&str) + Sync),
    /// Whether to stop.
    pub stop: Arc<Stop>,
}

impl std::fmt::Debug for Up<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Up")
            .field("ssh", &self.ssh)
            .finish_non_exhaustive()
    }
}

/// Asks a machine.
///
/// # Errors
/// It does not let us in, or does not answer as it was asked; cancelled.
pub fn up(asked: &Up<'_>) -> Result<Report> {
    let (checks, stop) = (asked.checks, &asked.stop);
    let started = Instant::now();
    let guest = &asked.ssh.guest;
    let subject = format!("{}@{}:{}", guest.username, guest.host, guest.port);
    let ssh = Ssh::new(asked.ssh.clone(), Arc::clone(stop), None)?;
    let limits = Limits {
        timeout: Some(asked.timeout),
        attempts: Some(1),
    };
    wait(&ssh, &limits, &**stop).map_err(|error| match error.kind() {
        ErrorKind::Cancelled => error,
        kind => Error::new(kind, format!("{subject}: {error}")),
    })?;
    if let Some(work) = asked.with_guest {
        work(&ssh)?;
    }
    let done = goss::run(checks, &ssh, asked.run, &**stop, &mut |round, failures| {
        (asked.tell)(&format!("round {round}: {failures} failed"));
    })?;
    let mut notes = Vec::new();
    if done.as_root == Some(false) {
        notes.push("the user is not root, and cannot become it without a password".to_owned());
    }
    let mut known = Known::default();
    if let Some(check) = Wanted(checks).of(Kind::CloudInit) {
        let limit = check.timeout();
        known.cloud_init = Some(kept(inside::cloud_init(&ssh, limit, &**stop))?);
    }
    let tells = |kind, _: &str| kind == Kind::CloudInit;
    let (outcomes, left_out) = joined_in_part(checks, done.outcomes, &known, &tells);
    notes.extend(left_out_of(left_out));
    Ok(Report {
        subject,
        firmware: None,
        sha256: None,
        outcomes,
        notes,
        evidence: Evidence::default(),
        took: started.elapsed(),
    })
}

/// Waits until a guest lets us in; an error says the likely cause.
pub(super) fn wait(ssh: &Ssh, limits: &Limits, stop: &Stop) -> Result<()> {
    ssh.wait(limits, stop, &mut |_| ())
        .map(drop)
        .map_err(explained)
}
