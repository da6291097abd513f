//! A machine that is up already: the checks of a guest, and none of an image.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::request::{Evidence, GuestWork, Report};
use crate::communicator::Stop;
use crate::communicator::ssh::{Limits, Options, Ssh};
use crate::error::{Error, Result};
use crate::goss::outcome::judge;
use crate::goss::{self, Check, RunOptions, State};

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
    ssh.wait(&limits, &**stop, &mut |_| ()).map_err(|error| {
        let cause = std::error::Error::source(&error)
            .and_then(|cause| cause.downcast_ref::<crate::communicator::wait::Report>())
            .map(crate::communicator::wait::Report::cause);
        match cause {
            Some(cause) => Error::new(error.kind(), format!("{subject}: {error}: {cause}")),
            None => error,
        }
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
    let mut of_guest = done.outcomes.into_iter();
    let mut outcomes = Vec::new();
    let mut left_out = 0;
    for check in checks {
        if check.kind.is_of_image() {
            let mut skipped = judge(check, &mut |_| Err("this needs an image".to_owned()));
            for outcome in &mut skipped {
                outcome.state = State::Skipped;
                outcome.error = None;
            }
            left_out += 1;
            outcomes.extend(skipped);
        } else {
            outcomes.extend(of_guest.by_ref().take(check.properties.len()));
        }
    }
    if left_out > 0 {
        notes.push(format!("{left_out} checks need an image, and were skipped"));
    }
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
