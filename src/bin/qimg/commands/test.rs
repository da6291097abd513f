//! `qimg test`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use qimg::communicator::ssh::{Key, Options as SshOptions};
use qimg::communicator::{Communicator, Stop};
use qimg::goss::generate::{KINDS, generate};
use qimg::goss::{Kind, LoadRequest, RunOptions, Suite, load};
use qimg::store::{read_file, write_file};
use qimg::trial::{self, CloudRequest, Datasource, Kept, Options, Report, TrialRequest, Up};
use qimg::units::ByteSize;
use qimg::{Error, ErrorKind, Result};

use super::{Status, surroundings};
use crate::args::{BootWith, TestArgs, TestDatasource, TestFormat};
use crate::render::{Console, human, trial::written};
use crate::signals::Interrupt;

/// Bytes of user-data at most.
const LARGEST: u64 = 16 << 20;
/// What a QEMU needs beside its guest's memory, in MiB.
const OVERHEAD: u64 = 256;

pub(super) fn run(args: &TestArgs, console: &mut Console<'_>) -> Status {
    let suite = load(&LoadRequest {
        files: args.specs.clone(),
        variables: args.vars.clone(),
        inline: args.vars_inline.clone(),
        environment: surroundings::environment(),
    })?;
    let interrupt = Interrupt::watch()?;
    let flag = interrupt.shared();
    let stop: Arc<Stop> = Arc::new(move || flag.load(Ordering::Relaxed));
    let kinds = kinds(args)?;
    let made = Mutex::new(String::new());
    let make = |guest: &dyn Communicator| -> Result<()> {
        let text = generate(guest, &kinds, !args.asking.no_sudo)?;
        made.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_str(&text);
        Ok(())
    };
    let with_guest: Option<&trial::GuestWork<'_>> = args.generate.is_some().then_some(&make);
    let told = Told {
        lines: Mutex::new(&mut *console.err),
        quiet: args.output.quiet,
    };
    let reports = match &args.host {
        Some(host) => up(args, host, &suite, with_guest, &told, &stop).map(|report| vec![report]),
        None => images_and_templates(args, &suite, with_guest, &told, &stop),
    };
    let reports = reports.map_err(|error| match error.kind() {
        ErrorKind::Cancelled => interrupt.failure(error),
        _ => error.into(),
    })?;
    if args.generate.is_some() {
        let text = made.into_inner().unwrap_or_else(PoisonError::into_inner);
        console.out.write_all(text.as_bytes())?;
        if args.specs.is_empty() {
            return Ok(0);
        }
    }
    let now = i64::try_from(surroundings::now().as_secs()).unwrap_or(0);
    let stamp = human::date::seconds(now).replace(' ', "T");
    for (format, path) in &args.output.report {
        write_file(path, written(*format, &reports, &stamp).as_bytes())?;
    }
    let text = written(args.output.format, &reports, &stamp);
    console.out.write_all(text.as_bytes())?;
    let failed = reports.iter().any(|report| report.failures() > 0);
    Ok(match (failed, args.output.format) {
        (false, _) => 0,
        (true, TestFormat::Nagios) => 2,
        (true, _) => 1,
    })
}

/// Types to be written down.
fn kinds(args: &TestArgs) -> Result<Vec<Kind>> {
    let names: Vec<&String> = { args.generate.iter().flatten() }
        .filter(|name| !name.is_empty())
        .collect();
    if names.is_empty() {
        // Packages are hundreds.
        return Ok(KINDS
            .into_iter()
            .filter(|kind| *kind != Kind::Package)
            .collect());
    }
    let known = || KINDS.map(Kind::name).join(", ");
    names
        .into_iter()
        .map(|name| {
            let kind = Kind::named(name).filter(|kind| KINDS.contains(kind));
            kind.ok_or_else(|| {
                Error::usage(format!("nothing is written down of type '{name}'"))
                    .with_remedy(format!("there are {}", known()))
            })
        })
        .collect()
}

/// Whoever is told what is being done, from any thread.
struct Told<'a> {
    lines: Mutex<&'a mut (dyn Write + Send)>,
    quiet: bool,
}

impl Told<'_> {
    fn line(&self, about: &str, text: &str) {
        if self.quiet {
            return;
        }
        self.always(&format!("{about}: {text}"));
    }

    fn always(&self, text: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let text = qimg::error::Escaped(text);
        // A reader that went away is no reason to stop.
        let _ = writeln!(lines, "{text}").and_then(|()| lines.flush());
    }
}

fn run_options(args: &TestArgs) -> RunOptions {
    RunOptions {
        retry_timeout: args.asking.retry_timeout,
        sleep: args.asking.sleep,
        max_concurrent: args.asking.max_concurrent.max(1),
        sudo: !args.asking.no_sudo,
        // A machine that turns out to be emulated is given more.
        patience: 1,
    }
}

/// Checks a machine that is up.
fn up(
    args: &TestArgs,
    host: &str,
    suite: &Suite,
    with_guest: Option<&trial::GuestWork<'_>>,
    told: &Told<'_>,
    stop: &Arc<Stop>,
) -> Result<Report> {
    let wrong = || Error::usage(format!("'{host}' is not USER@HOST or USER@HOST:PORT"));
    let (user, place) = host.rsplit_once('@').ok_or_else(wrong)?;
    let (address, port) = match place
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((address, rest)) => (address, rest.strip_prefix(':')),
        None => match place.split_once(':') {
            Some((address, port)) if !port.contains(':') => (address, Some(port)),
            _ => (place, None),
        },
    };
    let port = port.map_or(Ok(22), |port| port.parse().map_err(|_| wrong()))?;
    if user.is_empty() || address.is_empty() {
        return Err(wrong());
    }
    let mut ssh = SshOptions::new(address, port, user);
    match &args.identity {
        Some(path) => ssh.guest.credentials.keys.push(Key::read(path, None)?),
        None => {
            let agent = std::env::var_os("SSH_AUTH_SOCK").filter(|value| !value.is_empty());
            let agent = agent.ok_or_else(|| {
                Error::usage("there is no key to log in with")
                    .with_remedy("name one with -i, or start an SSH agent")
            })?;
            ssh.guest.credentials.agent = Some(agent.into());
        }
    }
    ssh.host_keys.extend(args.host_key.clone());
    let run = run_options(args);
    trial::up(&Up {
        ssh,
        timeout: args.machine.ssh_timeout.unwrap_or(Duration::from_secs(30)),
        checks: &suite.checks,
        run: &run,
        with_guest,
        tell: &|text| told.line(host, text),
        stop: Arc::clone(stop),
    })
}

/// What names a template of the cloud.
const CLOUD: &str = "exoscale:";

/// The images, and after them the templates of the cloud.
fn images_and_templates(
    args: &TestArgs,
    suite: &Suite,
    with_guest: Option<&trial::GuestWork<'_>>,
    told: &Told<'_>,
    stop: &Arc<Stop>,
) -> Result<Vec<Report>> {
    let template = |path: &&PathBuf| Some(path.to_str()?.strip_prefix(CLOUD)?.to_owned());
    let templates: Vec<String> = args
        .images
        .iter()
        .filter_map(|path| template(&path))
        .collect();
    let files: Vec<&Path> = { args.images.iter() }
        .filter(|path| template(path).is_none())
        .map(PathBuf::as_path)
        .collect();
    if (args.keep || args.generate.is_some()) && args.images.len() > 1 {
        return Err(Error::usage(
            "--keep and --generate take one image with one firmware",
        ));
    }
    let mut reports = match files.is_empty() {
        true => Vec::new(),
        false => images(args, &files, suite, with_guest, told, stop)?,
    };
    for template in templates {
        reports.push(cloud(args, &template, suite, with_guest, told, stop)?);
    }
    Ok(reports)
}

/// Checks an instance of a template.
fn cloud(
    args: &TestArgs,
    template: &str,
    suite: &Suite,
    with_guest: Option<&trial::GuestWork<'_>>,
    told: &Told<'_>,
    stop: &Arc<Stop>,
) -> Result<Report> {
    const GIB: u64 = 1 << 30;
    let (typed, machine) = (&args.cloud, &args.machine);
    let access = surroundings::access()?;
    let account = super::publish::account(
        &access,
        &typed.environment,
        "EXOSCALE_API_KEY",
        "EXOSCALE_API_SECRET",
    )?;
    let zone = typed.zone.clone().ok_or_else(|| {
        Error::usage("a template is tested in a zone").with_remedy("name one: --zone ch-gva-2")
    })?;
    let disk = { machine.disk_size.as_deref() }
        .map(|text| ByteSize::parse(text).map(|size| size.0.div_ceil(GIB)))
        .transpose()?;
    let user_data = { machine.user_data.as_ref() }
        .map(|path| read_file(path, LARGEST))
        .transpose()?;
    let host = surroundings::gather(&surroundings::cache(None)?, 1)?;
    let keep = |kept: &Kept| wait_for_end(kept, told, stop);
    let run = run_options(args);
    let about = format!("{CLOUD}{template}");
    trial::cloud(&CloudRequest {
        account,
        zone,
        template: template.to_owned(),
        instance_type: typed.instance_type.clone(),
        disk_gib: disk,
        security_groups: typed.security_groups.clone(),
        user: machine.user.clone(),
        port: typed.port,
        ssh_timeout: machine.ssh_timeout,
        user_data,
        polling: super::publish::polling(&typed.wait)?,
        http: &access.http,
        clock: access.clock,
        checks: &suite.checks,
        run: &run,
        surroundings: &host,
        random: &surroundings::random,
        tell: &|text| told.line(&about, text),
        with_guest,
        keep: if args.keep { Some(&keep) } else { None },
        stop: Arc::clone(stop),
    })
}

/// Says how to log in, and waits until somebody wants it to end.
fn wait_for_end(kept: &Kept, told: &Told<'_>, stop: &Arc<Stop>) {
    told.always(&format!(
        "the machine runs until Ctrl-C: ssh -i {} -p {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null {}@{}",
        kept.key_file.display(),
        kept.port,
        kept.user,
        kept.host
    ));
    while !(stop)() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One image with one firmware.
struct Job<'a> {
    image: &'a Path,
    uefi: bool,
    name: String,
}

/// Tries all images, as many at once as the host has room for.
fn images(
    args: &TestArgs,
    files: &[&Path],
    suite: &Suite,
    with_guest: Option<&trial::GuestWork<'_>>,
    told: &Told<'_>,
    stop: &Arc<Stop>,
) -> Result<Vec<Report>> {
    let machine = &args.machine;
    let size = |text: &str| ByteSize::parse(text).map(|size| size.0);
    let memory_mib = size(&machine.memory)? >> 20;
    if memory_mib < 64 {
        return Err(
            Error::usage("a machine with less than 64 MiB of memory boots nothing")
                .with_remedy("give --memory in bytes or with a unit, as 1G"),
        );
    }
    let disks: Result<Vec<u64>> = machine.disk.iter().map(|text| size(text)).collect();
    let user_data = machine
        .user_data
        .as_ref()
        .map(|path| read_file(path, LARGEST));
    let model = Options {
        uefi: false,
        cpus: machine.cpus,
        memory_mib,
        disk: machine.disk_size.as_deref().map(size).transpose()?,
        disks: disks?,
        networks: machine.net.clone(),
        user: machine.user.clone(),
        accelerator: machine.accel.clone(),
        ssh_timeout: machine.ssh_timeout,
        datasource: match machine.datasource {
            TestDatasource::Nocloud => Datasource::NoCloud,
            TestDatasource::Exoscale => Datasource::Exoscale,
        },
        user_data: user_data.transpose()?,
        run: run_options(args),
    };
    let firmwares: &[bool] = match machine.boot {
        BootWith::Bios => &[false],
        BootWith::Uefi => &[true],
        BootWith::Both => &[false, true],
    };
    let mut jobs = Vec::new();
    for (number, &image) in files.iter().enumerate() {
        for &uefi in firmwares {
            let firmware = if uefi { "uefi" } else { "bios" };
            let name = format!("test-{}-{firmware}", number + 1);
            jobs.push(Job { image, uefi, name });
        }
    }
    if (args.keep || args.generate.is_some()) && jobs.len() > 1 {
        return Err(Error::usage(
            "--keep and --generate take one image with one firmware",
        ));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let host = surroundings::gather(&surroundings::cache(None)?, threads)?;
    let at_once = match machine.parallel {
        Some(count) => count.get(),
        None => room(threads, machine.cpus, memory_mib),
    };
    let keep = |kept: &Kept| wait_for_end(kept, told, stop);
    let work = |job: &Job<'_>| {
        let about = format!(
            "{} ({})",
            job.image.display(),
            if job.uefi { "uefi" } else { "bios" }
        );
        let options = Options {
            uefi: job.uefi,
            ..model.clone()
        };
        trial::trial(&TrialRequest {
            image: job.image.to_owned(),
            format: machine.image_format,
            name: job.name.clone(),
            checks: &suite.checks,
            options: &options,
            surroundings: &host,
            random: &surroundings::random,
            tell: &|text| told.line(&about, text),
            with_guest,
            keep: if args.keep { Some(&keep) } else { None },
            stop: Arc::clone(stop),
        })
    };
    all(&jobs, at_once.max(1), &work)
}

/// How many machines the host has processors and free memory for.
fn room(threads: usize, cpus: u32, memory_mib: u64) -> usize {
    let by_processors = threads / usize::try_from(cpus.max(1)).unwrap_or(1);
    let text = read_file("/proc/meminfo", 1 << 20).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let free_kib = text.lines().find_map(|line| {
        let rest = line.strip_prefix("MemAvailable:")?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    });
    let by_memory = free_kib.map_or(1, |free| free / 1024 / (memory_mib + OVERHEAD));
    by_processors
        .min(usize::try_from(by_memory).unwrap_or(usize::MAX))
        .max(1)
}

/// Does all jobs, so many at once; the reports in their order. After a failure no further one is begun.
fn all<'j>(
    jobs: &'j [Job<'j>],
    at_once: usize,
    work: &(dyn Fn(&'j Job<'j>) -> Result<Report> + Sync),
) -> Result<Vec<Report>> {
    let (free, freed) = (Mutex::new((at_once, false)), Condvar::new());
    let results: Vec<Result<Option<Report>>> = std::thread::scope(|scope| {
        let running: Vec<_> = { jobs.iter() }
            .map(|job| {
                let (free, freed) = (&free, &freed);
                scope.spawn(move || {
                    let guard = free.lock().unwrap_or_else(PoisonError::into_inner);
                    let mut guard = freed
                        .wait_while(guard, |(free, _)| *free == 0)
                        .unwrap_or_else(PoisonError::into_inner);
                    if guard.1 {
                        return Ok(None);
                    }
                    guard.0 -= 1;
                    drop(guard);
                    let result = work(job);
                    let mut guard = free.lock().unwrap_or_else(PoisonError::into_inner);
                    guard.0 += 1;
                    guard.1 |= result.is_err();
                    drop(guard);
                    freed.notify_all();
                    result.map(Some)
                })
            })
            .collect();
        running
            .into_iter()
            .map(|job| {
                job.join()
                    .unwrap_or_else(|_| Err(Error::usage("a test ended by a fault of qimg's own")))
            })
            .collect()
    });
    let mut reports = Vec::new();
    for result in results {
        reports.extend(result?);
    }
    Ok(reports)
}
