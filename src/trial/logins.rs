//! Ways to log in: by key, by a password that the seed sets, and by another one that it sets later.
//!
//! Passwords get a machine of their own: what lets them in changes the system that is looked at.

use std::collections::BTreeMap;

use serde_json::Value;

use super::bench::{Bench, Machine};
use super::journey::shut_down;
use super::origin::Origin;
use super::request::TrialRequest;
use super::seed::Password;
use crate::communicator::Communicator;
use crate::communicator::ssh::Limits;
use crate::error::{ErrorKind, Result};
use crate::goss::facts::Fact;
use crate::goss::matcher::Actual;

use std::time::Duration;

/// What is known of each user's logins.
#[derive(Debug, Default)]
pub(super) struct Logins {
    known: BTreeMap<(String, &'static str), Result<bool, String>>,
}

impl Logins {
    pub(super) fn note(&mut self, user: &str, what: &'static str, result: Result<bool, String>) {
        self.known.insert((user.to_owned(), what), result);
    }

    pub(super) fn fact(&self, user: &str, property: &str) -> Fact {
        let found = { self.known.iter() }.find(|((of, what), _)| of == user && *what == property);
        match found {
            Some((_, Ok(value))) => Ok(Actual::Value(Value::Bool(*value))),
            Some((_, Err(why))) => Err(why.clone()),
            None => Err("it was not tried".to_owned()),
        }
    }
}

/// Whether `user` gets in.
pub(super) fn gets_in(
    bench: &Bench<'_>,
    machine: &Machine,
    user: &str,
    password: Option<&Password>,
    limit: Duration,
) -> Result<Result<bool, String>> {
    let ssh = bench.way_in(machine, user, password)?;
    let stop = &*bench.request.stop;
    let limits = Limits {
        timeout: Some(limit),
        attempts: Some(1),
    };
    let waited = machine.watched(stop, || ssh.wait(&limits, stop, &mut |_| ()));
    ssh.disconnect();
    match waited {
        Ok(_) => Ok(Ok(true)),
        Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
        // The one attempt that it had.
        Err(error)
            if error.kind() == ErrorKind::Connection && machine.running.death().is_none() =>
        {
            Ok(Ok(false))
        }
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// Passwords: the one that the first seed sets, and the one that the second seed sets instead.
pub(super) fn passwords(
    request: &TrialRequest<'_>,
    origin: &Origin,
    directory: &std::path::Path,
    users: &[String],
    change: bool,
    logins: &mut Logins,
) -> Result<()> {
    let (first, second) = (password(request), password(request));
    let mut bench = Bench::new(
        request,
        origin,
        directory,
        users.to_vec(),
        Some(&first),
        None,
    )?;
    let result = try_passwords(&mut bench, users, change, [&first, &second], logins);
    bench.clear();
    result
}

fn try_passwords(
    bench: &mut Bench<'_>,
    users: &[String],
    change: bool,
    [first, second]: [&Password; 2],
    logins: &mut Logins,
) -> Result<()> {
    let request = bench.request;
    let accelerator = bench.choice.accelerator.clone();
    (request.tell)("logins by password, on a machine of their own");
    for (start, password) in [("first", first), ("second", second)] {
        let is_change = start == "second";
        if is_change && !change {
            break;
        }
        if is_change {
            bench.tell_guest("qimg-test-2", Some(second))?;
        }
        let mut machine = bench.start(&format!("password-{start}"), &accelerator, &[])?;
        let limit = bench.patience(&machine);
        // The key tells when the guest is there at all, and its cloud-init done.
        let user = users.first().map_or("root", String::as_str);
        let ssh = bench.way_in(&machine, user, None)?;
        machine.wait(&ssh, limit, &*request.stop, request.tell)?;
        machine.watched(&*request.stop, || {
            super::inside::cloud_init(&ssh, limit, &*request.stop)
        })?;
        let each = Duration::from_secs(60) * machine.patience;
        for user in users {
            let new = gets_in(bench, &machine, user, Some(password), each)?;
            if is_change {
                let old = gets_in(bench, &machine, user, Some(first), each)?;
                let changed = new.and_then(|new| old.map(|old| new && !old));
                logins.note(user, "password-change", changed);
            } else {
                logins.note(user, "password", new);
            }
        }
        // What it has written counts only if it is started once more.
        if change && !is_change {
            let limit = Duration::from_secs(60) * machine.patience;
            shut_down(&mut machine, limit, &*request.stop)?;
        }
    }
    Ok(())
}

fn password(request: &TrialRequest<'_>) -> Password {
    let random = (request.random)();
    let hex: Vec<String> = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Password(hex.concat())
}
