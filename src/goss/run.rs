//! Rounds of questions to a guest: once, or again until all is as expected or the time is up.

use std::time::{Duration, Instant};

use super::facts::fact;
use super::load::Check;
use super::outcome::{Outcome, judge};
use super::probe::answer::{Answers, Collector};
use super::probe::{ScriptOptions, command, script};
use super::shape::Kind;
use crate::communicator::{Communicator, Exit, Stop, Stream};
use crate::error::{Error, ErrorKind, Result};

/// How the guest is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunOptions {
    /// Ask again until so much time has passed; zero: once.
    pub retry_timeout: Duration,
    /// Between two rounds.
    pub sleep: Duration,
    /// Commands and requests in the guest at the same time.
    pub max_concurrent: usize,
    /// Ask as root, where the user may become that without a password.
    pub sudo: bool,
    /// How many times as long as it says each check may take: 1, and more for a guest that is emulated.
    pub patience: u32,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            retry_timeout: Duration::ZERO,
            sleep: Duration::from_secs(1),
            max_concurrent: 50,
            sudo: true,
            patience: 1,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// In the order of the checks.
    pub outcomes: Vec<Outcome>,
    /// How often the guest was asked.
    pub rounds: usize,
    /// From the first question to the last answer.
    pub took: Duration,
    /// The guest was asked as root; `None`: not at all.
    pub as_root: Option<bool>,
}

/// Asks `guest` about `checks`, of which those of images and machines are left out. `tell` hears of each round after which
/// others follow, with the number of failures.
///
/// # Errors
/// The guest cannot be asked, or does not answer in the form that was asked for; cancelled.
pub fn run(
    checks: &[Check],
    guest: &dyn Communicator,
    options: &RunOptions,
    stop: &Stop,
    tell: &mut dyn FnMut(usize, usize),
) -> Result<Run> {
    let started = Instant::now();
    let checks: Vec<Check> = { checks.iter() }
        .filter(|check| !check.kind.is_of_image())
        .map(|check| check.with_patience(options.patience))
        .collect();
    let checks: Vec<&Check> = checks.iter().collect();
    let mut rounds = 0;
    loop {
        rounds += 1;
        let result = round(&checks, guest, options);
        let took = started.elapsed();
        let goes_on = took < options.retry_timeout;
        let failures = match result {
            Ok((outcomes, as_root)) => {
                let failures = outcomes.iter().filter(|outcome| outcome.failed()).count();
                if failures == 0 || !goes_on {
                    return Ok(Run {
                        outcomes,
                        rounds,
                        took,
                        as_root,
                    });
                }
                failures
            }
            Err(error) if !goes_on || error.kind() == ErrorKind::Cancelled => return Err(error),
            // The guest may be on its way up, or down.
            Err(_) => checks.len(),
        };
        tell(rounds, failures);
        rest(options.sleep, stop)?;
    }
}

fn rest(time: Duration, stop: &Stop) -> Result<()> {
    let started = Instant::now();
    loop {
        if stop() {
            return Err(Error::cancelled());
        }
        let left = time.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}

/// All questions once.
fn round(
    checks: &[&Check],
    guest: &dyn Communicator,
    options: &RunOptions,
) -> Result<(Vec<Outcome>, Option<bool>)> {
    let needs_guest = { checks.iter() }.any(|check| check.kind != Kind::Matching && !check.skip);
    let answers = if needs_guest {
        let options_of_script = ScriptOptions {
            max_concurrent: options.max_concurrent,
        };
        ask(
            guest,
            &script(checks, options_of_script),
            options.sudo,
            checks.len(),
        )?
    } else {
        Answers::default()
    };
    let mut outcomes = Vec::new();
    for (number, check) in checks.iter().enumerate() {
        let took = answers
            .text(number, "took")
            .and_then(|took| took.parse().ok());
        let mut of_check = judge(check, &mut |property| {
            fact(check, number, property, &answers)
        });
        if let Some(first) = of_check.first_mut() {
            first.took = Duration::from_secs(took.unwrap_or(0));
        }
        outcomes.extend(of_check);
    }
    let as_root = answers.global_text("uid").map(|uid| uid == "0");
    Ok((outcomes, as_root))
}

/// Runs a script in the guest and reads its answers to `checks` checks.
pub(super) fn ask(
    guest: &dyn Communicator,
    script: &str,
    sudo: bool,
    checks: usize,
) -> Result<Answers> {
    let mut output = Collector::default();
    let mut words = String::new();
    let exit = guest.pipe(
        command(sudo),
        &mut script.as_bytes(),
        &mut output,
        &mut |stream, line| {
            if stream == Stream::Err && !line.trim().is_empty() {
                words = line.chars().take(200).collect();
            }
        },
    )?;
    if exit == Exit::Disconnected {
        return Err(Error::new(
            ErrorKind::Connection,
            "the connection ended before the guest had answered",
        ));
    }
    Answers::parse(&output.bytes, checks).map_err(|error| {
        if words.is_empty() {
            return error;
        }
        let message = format!("{error}; its shell said: {words}");
        let remedy = error.remedy().unwrap_or_default().to_owned();
        Error::new(error.kind(), message).with_remedy(remedy)
    })
}

/// What a command of ours said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// Its exit code.
    pub(crate) code: Option<i64>,
    /// Its output.
    pub(crate) out: String,
}

/// Runs shell commands in the guest, each for so long at most, in one round trip and by the means of checks.
pub(crate) fn commands(
    guest: &dyn Communicator,
    commands: &[(&str, Duration)],
    sudo: bool,
) -> Result<Vec<Said>> {
    let checks: Vec<Check> = { commands.iter() }
        .map(|(command, limit)| Check::of_command(command, *limit))
        .collect();
    let references: Vec<&Check> = checks.iter().collect();
    let script = script(&references, ScriptOptions { max_concurrent: 8 });
    let answers = ask(guest, &script, sudo, checks.len())?;
    Ok((0..checks.len())
        .map(|number| Said {
            code: answers
                .text(number, "exit")
                .and_then(|code| code.parse().ok()),
            out: answers.text(number, "out").unwrap_or_default(),
        })
        .collect())
}

#[cfg(test)]
mod tests;
