//! The course of a trial: which checks need what, in which order they are made, and how they are joined to results.
//!
//! What cannot be found out is a failure of the checks that ask for it, with the reason; only what concerns the host or the
//! image itself ends a trial.

use std::time::{Duration, Instant};

use super::bench::{Bench, Machine};
use super::inside;
use super::journey;
use super::known::{Known, Wanted, joined, kept, unreachable};
use super::logins::passwords;
use super::origin::Origin;
use super::request::{Evidence, Kept, Report, TrialRequest};
use super::sealed;
use crate::build::accounts::default_user_of;
use crate::build::runs::RunDirectory;
use crate::communicator::Communicator;
use crate::communicator::ssh::Ssh;
use crate::error::{Error, ErrorKind, Result};
use crate::goss::matcher::Actual;
use crate::goss::outcome::judge;
use crate::goss::{self, Check, Kind, Outcome, RunOptions, State};
use crate::machine::{Accelerator, Death};
use crate::store::remove_tree;
use crate::units::ByteSize;

/// Between two looks at the console.
const POLL: Duration = Duration::from_millis(200);

/// Tries one image.
///
/// # Errors
/// The image cannot be read, names other files, or was changed meanwhile; the host has no QEMU, or no firmware; cancelled.
pub fn trial(request: &TrialRequest<'_>) -> Result<Report> {
    let started = Instant::now();
    let host = request.surroundings;
    let stop = &*request.stop;
    let origin = Origin::open(&request.image, request.format, &host.directory, stop)?;
    let _run = RunDirectory::make(&host.runs, &host.run, &request.name, stop)?;
    let place = host.runs.join(&host.run).join(&request.name);
    let apart = host
        .runs
        .join(&host.run)
        .join(format!("{}-passwords", request.name));
    let wanted = Wanted(request.checks);
    let mut known = Known::default();
    let mut guest_outcomes = Vec::new();
    let mut evidence = Evidence::default();
    let mut notes = Vec::new();
    if wanted.any(Kind::Sealed) {
        known.sealed = Some(kept(sealed::look(&origin))?);
    }
    let users = wanted.users(&["password", "password-change"]);
    if !users.is_empty() {
        let change = !wanted.users(&["password-change"]).is_empty();
        let result = passwords(request, &origin, &apart, &users, change, &mut known.logins);
        if let Err(why) = kept(result)? {
            for user in &users {
                for what in ["password", "password-change"] {
                    known.logins.note(user, what, Err(why.clone()));
                }
            }
        }
    }
    let asked = request.keep.is_some() || request.with_guest.is_some();
    if wanted.machine() || asked {
        let user = { request.options.user.clone() }
            .or_else(|| default_user_of(&origin.disk))
            .unwrap_or_else(|| "qimg".to_owned());
        let mut users = vec![user];
        users.extend(wanted.users(&["key"]));
        let mut seen = std::collections::BTreeSet::new();
        users.retain(|user| seen.insert(user.clone()));
        let size = disk_size(request, &wanted, &origin)?;
        let bench = Bench::new(request, &origin, &place, users, None, size)?;
        (request.tell)(&format!(
            "{} ({})",
            bench.choice.accelerator, bench.choice.why
        ));
        let result = on_machine(
            &bench,
            &wanted,
            &mut known,
            &mut guest_outcomes,
            &mut evidence,
            &mut notes,
        );
        bench.clear();
        result?;
    } else {
        guest_outcomes = goss::run(
            request.checks,
            &Nobody,
            &request.options.run,
            stop,
            &mut |_, _| {},
        )?
        .outcomes;
    }
    // Whoever kept the machine has asked to stop: what was found is told all the same.
    origin.verify(if request.keep.is_some() {
        &|| false
    } else {
        stop
    })?;
    let outcomes = joined(request.checks, guest_outcomes, &known);
    let failed = outcomes.iter().any(Outcome::failed);
    if !failed {
        evidence = Evidence::default();
        // There is nothing to look at.
        let _ = remove_tree(&place);
        let _ = remove_tree(&apart);
    }
    Ok(Report {
        subject: request.image.display().to_string(),
        firmware: Some(if request.options.uefi { "uefi" } else { "bios" }),
        sha256: Some(origin.sha256),
        outcomes,
        notes,
        evidence,
        took: started.elapsed(),
    })
}

/// The size of the disk: as asked for, or larger where it is to be seen whether the root grows.
fn disk_size(
    request: &TrialRequest<'_>,
    wanted: &Wanted<'_>,
    origin: &Origin,
) -> Result<Option<u64>> {
    let Some(grow) = wanted.of(Kind::Grow) else {
        return Ok(request.options.disk);
    };
    let has = origin.disk.virtual_size;
    let given = match (request.options.disk, grow.text("disk")) {
        (Some(size), _) => Some(size),
        (None, Some(text)) => {
            let size: ByteSize = text.parse().map_err(|error: Error| {
                Error::usage(format!("line {}: {error}", grow.line)).at_path(&grow.file)
            })?;
            Some(size.0)
        }
        (None, None) => None,
    };
    let least = has.saturating_add((has / 2).max(2 << 30));
    match given {
        Some(size) if size <= has => Err(Error::usage(format!(
            "line {}: the disk has {}, on {} nothing can grow",
            grow.line,
            ByteSize(has),
            ByteSize(size)
        ))
        .with_remedy("give a larger disk, or none: half as much again is taken then")
        .at_path(&grow.file)),
        Some(size) => Ok(Some(size)),
        None => Ok(Some(least.next_multiple_of(1 << 20))),
    }
}

/// All that needs the machine.
fn on_machine(
    bench: &Bench<'_>,
    wanted: &Wanted<'_>,
    known: &mut Known,
    guest_outcomes: &mut Vec<Outcome>,
    evidence: &mut Evidence,
    notes: &mut Vec<String>,
) -> Result<()> {
    let request = bench.request;
    let stop = &*request.stop;
    let mut accelerator = bench.choice.accelerator.clone();
    let user = bench
        .access
        .users
        .first()
        .map_or("root", String::as_str)
        .to_owned();
    let (mut machine, ssh) = loop {
        (request.tell)("starting the machine");
        let machine = bench.start("first", &accelerator, &[])?;
        if !wanted.ssh() && request.keep.is_none() && request.with_guest.is_none() {
            break (machine, None);
        }
        let ssh = bench.way_in(&machine, &user, None)?;
        (request.tell)("waiting for SSH");
        let waited = kept(machine.wait(&ssh, bench.patience(&machine), stop, request.tell))?;
        let dies_in_kvm = machine.running.death() == Some(Death::KvmInternalError);
        if waited.is_err()
            && dies_in_kvm
            && request.options.accelerator.is_none()
            && accelerator == Accelerator::Kvm
        {
            accelerator = Accelerator::Tcg;
            drop(machine);
            bench.renew_disk()?;
            notes.push("KVM cannot run this guest: it is emulated by TCG".to_owned());
            continue;
        }
        break (machine, Some(waited.map(|after| (ssh, after))));
    };
    let console_log = machine.running.report().console_log;
    let result = match ssh {
        None => without_ssh(wanted, known, &mut machine, stop),
        Some(Err(why)) if request.with_guest.is_some() => {
            Err(Error::new(ErrorKind::Connection, why))
        }
        Some(Err(why)) => {
            *guest_outcomes = unreachable(request.checks, &why);
            known.unknown(wanted, &why);
            look_at_console(wanted, known, &machine, stop)
        }
        Some(Ok((ssh, after))) => with_ssh(
            bench,
            wanted,
            known,
            guest_outcomes,
            notes,
            &mut machine,
            ssh,
            after,
            &accelerator,
        ),
    };
    *evidence = machine.evidence();
    // A guest that has moved said most of it on its first console.
    if evidence.console_log.as_ref() != Some(&console_log) {
        if let Ok(text) = journey::console(&console_log) {
            let lines: Vec<&str> = { text.lines() }
                .filter(|line| !line.trim().is_empty())
                .collect();
            let from = lines.len().saturating_sub(40);
            evidence.console = lines
                .iter()
                .skip(from)
                .map(|line| (*line).to_owned())
                .collect();
        }
        evidence.console_log = Some(console_log);
    }
    result
}

fn without_ssh(
    wanted: &Wanted<'_>,
    known: &mut Known,
    machine: &mut Machine,
    stop: &crate::communicator::Stop,
) -> Result<()> {
    look_at_console(wanted, known, machine, stop)?;
    end(wanted, known, machine, stop)
}

/// Waits until all that is expected was said.
fn look_at_console(
    wanted: &Wanted<'_>,
    known: &mut Known,
    machine: &Machine,
    stop: &crate::communicator::Stop,
) -> Result<()> {
    let serial: Vec<&Check> = { wanted.0.iter() }
        .filter(|check| check.kind == Kind::Serial && !check.skip)
        .collect();
    let Some(limit) = serial.iter().map(|check| check.timeout()).max() else {
        return Ok(());
    };
    let log = machine.running.report().console_log;
    loop {
        let text = journey::console(&log)?;
        let fits = serial.iter().all(|check| {
            let outcomes = judge(check, &mut |_| Ok(Actual::Text(text.clone())));
            outcomes
                .iter()
                .all(|outcome| outcome.state == State::Passed)
        });
        if fits
            || machine.running.age() > limit * machine.patience
            || machine.running.death().is_some()
        {
            known.console = Some(Ok(text));
            return Ok(());
        }
        if stop() {
            return Err(Error::cancelled());
        }
        std::thread::sleep(POLL);
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one trial, none of which belongs to another"
)]
fn with_ssh(
    bench: &Bench<'_>,
    wanted: &Wanted<'_>,
    known: &mut Known,
    guest_outcomes: &mut Vec<Outcome>,
    notes: &mut Vec<String>,
    machine: &mut Machine,
    mut ssh: Ssh,
    after: Duration,
    accelerator: &Accelerator,
) -> Result<()> {
    let request = bench.request;
    let stop = &*request.stop;
    let tell = request.tell;
    let user = bench.access.users.first().cloned().unwrap_or_default();
    tell(&format!(
        "logged in as {user} after {:.1} s",
        after.as_secs_f64()
    ));
    // Checks are made of a guest that has done what it does at its first boot.
    let limit = wanted
        .of(Kind::CloudInit)
        .map_or(bench.patience(machine), |check| {
            check.timeout() * machine.patience
        });
    let cloud_init = kept(machine.watched(stop, || inside::cloud_init(&ssh, limit, stop)))?;
    if let Err(why) = &cloud_init {
        notes.push(why.clone());
    }
    known.cloud_init = Some(cloud_init);
    if let Some(work) = request.with_guest {
        machine.watched(stop, || work(&ssh))?;
    }
    if wanted.any(Kind::Boot) {
        let patience = machine.patience;
        known.boot = Some(kept(
            machine.watched(stop, || inside::boot(&ssh, after, patience)),
        )?);
    }
    if wanted.guest() {
        tell("asking the guest");
        // Times in files are those of a real machine.
        let options = RunOptions {
            patience: machine.patience,
            ..request.options.run
        };
        let ask = || {
            goss::run(
                request.checks,
                &ssh,
                &options,
                stop,
                &mut |round, failures| {
                    tell(&format!("round {round}: {failures} failed"));
                },
            )
        };
        *guest_outcomes = match kept(machine.watched(stop, ask))? {
            Ok(run) => {
                if run.as_root == Some(false) {
                    notes.push(format!("{user} is not root, and cannot become it without a password: the guest was asked as {user}"));
                }
                run.outcomes
            }
            Err(why) => unreachable(request.checks, &why),
        };
    } else {
        *guest_outcomes = goss::run(
            request.checks,
            &ssh,
            &request.options.run,
            stop,
            &mut |_, _| {},
        )?
        .outcomes;
    }
    look_at_console(wanted, known, machine, stop)?;
    if wanted.any(Kind::Grow) {
        let root = kept(machine.watched(stop, || inside::root_size(&ssh)))?;
        let of_image = bench.origin.disk.virtual_size;
        known.grow = Some(root.and_then(|root| {
            let root = root.ok_or("the guest does not tell the size of its root")?;
            Ok((root, of_image, bench.size))
        }));
    }
    for user in wanted.users(&["key"]) {
        let limit = Duration::from_secs(60) * machine.patience;
        let result = super::logins::gets_in(bench, machine, &user, None, limit)?;
        known.logins.note(&user, "key", result);
    }
    if let Some(check) = wanted.of(Kind::Reboot) {
        tell("rebooting");
        let limit = check.timeout() * machine.patience;
        known.reboot = Some(kept(journey::reboot_of(machine, &ssh, limit, stop))?);
    }
    if let Some(check) = wanted.of(Kind::Migrate) {
        tell("moving the guest to another QEMU");
        let limit = check.timeout() * machine.patience;
        let moved = kept(journey::migrate(bench, machine, &ssh, accelerator, limit))?;
        known.migration = Some(moved.map(|(migration, way)| {
            ssh = way;
            migration
        }));
    }
    if let Some(keep) = request.keep {
        let port = machine.running.forwarded_port(22)?.unwrap_or(0);
        keep(&Kept {
            host: "127.0.0.1".to_owned(),
            port,
            user,
            key_file: bench.access.key_file.clone(),
        });
    }
    ssh.disconnect();
    // Whoever kept the machine may have asked to stop: what was found is told all the same.
    let after_keep: &crate::communicator::Stop = if request.keep.is_some() {
        &|| false
    } else {
        stop
    };
    end(wanted, known, machine, after_keep)
}

fn end(
    wanted: &Wanted<'_>,
    known: &mut Known,
    machine: &mut Machine,
    stop: &crate::communicator::Stop,
) -> Result<()> {
    let Some(check) = wanted.of(Kind::Shutdown) else {
        return Ok(());
    };
    // Afterwards there is nothing to be seen.
    let _ = machine.running.screenshot();
    let limit = check.timeout() * machine.patience;
    known.end = Some(kept(journey::shut_down(machine, limit, stop))?);
    Ok(())
}

/// The guest of checks that need none.
struct Nobody;

impl Communicator for Nobody {
    fn run(
        &self,
        _: &str,
        _: Option<Duration>,
        _: &mut crate::communicator::Lines<'_>,
    ) -> Result<crate::communicator::Exit> {
        Err(Error::unsupported("there is no guest"))
    }

    fn pipe(
        &self,
        _: &str,
        _: &mut (dyn std::io::Read + Send),
        _: &mut (dyn std::io::Write + Send),
        _: &mut crate::communicator::Lines<'_>,
    ) -> Result<crate::communicator::Exit> {
        Err(Error::unsupported("there is no guest"))
    }

    fn upload(&self, _: &mut (dyn std::io::Read + Send), _: u64, _: &str, _: u32) -> Result<()> {
        Err(Error::unsupported("there is no guest"))
    }

    fn download(&self, _: &str, _: &mut (dyn std::io::Write + Send)) -> Result<()> {
        Err(Error::unsupported("there is no guest"))
    }

    fn disconnect(&self) {}

    fn probe(&self, _: Duration) -> Result<()> {
        Err(Error::unsupported("there is no guest"))
    }
}
