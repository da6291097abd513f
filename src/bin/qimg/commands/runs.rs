//! `qimg run`, `ssh`, `ps`, `kill` and `forget`.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use qimg::build::layers;
use qimg::build::register::{self, Entrance, Run};
use qimg::build::visit::{self, Told, Visit};
use qimg::communicator::Stop;
use qimg::communicator::keys::KeyPair;
use qimg::store::read_file;
use qimg::template::model::Firmware;
use qimg::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::{Failure, Status, surroundings};
use crate::args::{ForgetArgs, KillArgs, PsArgs, RunArgs, SshArgs};
use crate::askpass;
use crate::render::{Console, human, json};
use crate::signals::Interrupt;

/// Longest user-data or key.
const LONGEST: u64 = 16 << 20;
/// For a build to tidy up after itself.
const TIDYING: Duration = Duration::from_secs(120);

pub(super) fn run(args: &RunArgs, console: &mut Console<'_>) -> Status {
    if args.detach {
        return detach(args.json, console);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let host = surroundings::gather(&surroundings::cache(None)?, threads)?;
    let image = surroundings::directory()?.join(&args.image);
    let user_data = args.user_data.as_ref().map(|path| read_file(path, LONGEST));
    let keys: Result<Vec<String>> = args.ssh_key.iter().map(|path| public_line(path)).collect();
    let interrupt = Interrupt::watch()?;
    let flag = interrupt.shared();
    let stop: Arc<Stop> = Arc::new(move || flag.load(Ordering::Relaxed));
    let efi = args.uefi || args.secure_boot;
    let visit = Visit {
        image: &image,
        open: args.input.open_options(),
        write: args.write,
        memory_mib: (args.memory.0 >> 20).max(1),
        cpus: args.cpus.get(),
        firmware: match efi {
            false => Firmware::Default,
            true => Firmware::Efi {
                code: None,
                variables: None,
                secure: args.secure_boot,
                drop_variables: true,
            },
        },
        accelerator: args.accelerator.as_deref().filter(|name| *name != "auto"),
        qemu: &args.qemu,
        interface: &args.bus,
        user: &args.user,
        user_data: user_data.transpose()?,
        keys: keys?,
        wait: args.wait.map(Duration::from_secs),
        surroundings: &host,
        stop,
    };
    let result = told(&|tell| visit::visit(&visit, tell), &mut |told| {
        show(args.json, console, &told);
    });
    match result {
        // Ctrl-C is how it is meant to end.
        Err(error) if error.kind() == ErrorKind::Cancelled => Ok(0),
        result => ended(result, &interrupt),
    }
}

fn ended(result: Result<()>, interrupt: &Interrupt) -> Status {
    match result {
        Ok(()) => Ok(0),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::Guest | ErrorKind::Connection | ErrorKind::TimedOut
            ) =>
        {
            Err(Failure::new(error, 2))
        }
        Err(error) => Err(interrupt.failure(error)),
    }
}

/// Where a machine tells what happens to it.
type Teller<'a> = dyn FnMut(Told) + Send + 'a;

/// What a machine tells, taken from the thread that looks after it to this one.
fn told(
    work: &(dyn Fn(&mut Teller<'_>) -> Result<()> + Sync),
    take: &mut dyn FnMut(Told),
) -> Result<()> {
    let (tell, hear) = sync_channel(64);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            let result = work(&mut |told| drop(tell.send(told)));
            over.store(true, Ordering::Release);
            result
        });
        follow(&hear, &over, take);
        working
            .join()
            .unwrap_or_else(|_| Err(Error::usage("the machine's thread has ended")))
    })
}

fn follow(hear: &Receiver<Told>, over: &AtomicBool, take: &mut dyn FnMut(Told)) {
    loop {
        match hear.recv_timeout(Duration::from_millis(50)) {
            Ok(told) => take(told),
            Err(_) if over.load(Ordering::Acquire) => {
                hear.try_iter().for_each(take);
                return;
            }
            Err(_) => {}
        }
    }
}

fn show(as_json: bool, console: &mut Console<'_>, told: &Told) {
    // A reader that went away is no reason to end the machine.
    let _ = match told {
        Told::Note(text) => writeln!(console.err, "{text}"),
        Told::Started(run) => writeln!(
            console.err,
            "Started {}; its console: {}",
            run.run,
            run.console.display()
        ),
        Told::Waiting(text) => writeln!(console.err, "Waiting for SSH: {text}"),
        Told::Ready(run) => tell_details(as_json, console, run, true),
        Told::Closed(run, error) => {
            let _ = writeln!(
                console.err,
                "It does not let in, and stays all the same: {error}"
            );
            tell_details(as_json, console, run, false)
        }
    }
    .and_then(|()| console.out.flush());
}

fn tell_details(
    as_json: bool,
    console: &mut Console<'_>,
    run: &Run,
    ready: bool,
) -> std::io::Result<()> {
    if as_json {
        return writeln!(console.out, "{}", details(run, ready));
    }
    human::runs::entrance(&mut console.out, run, ready)
}

fn details(run: &Run, ready: bool) -> Value {
    let entrance = run.entrance.as_ref();
    let path = |path: Option<&std::path::PathBuf>| path.map(|path| path.display().to_string());
    json!({
        "run": run.run,
        "pid": run.process,
        "qemu-pid": run.qemu,
        "host": entrance.map(|entrance| &entrance.host),
        "port": entrance.map(|entrance| entrance.port),
        "user": entrance.map(|entrance| &entrance.user),
        "key": path(entrance.and_then(|entrance| entrance.key.as_ref())),
        "known-hosts": path(entrance.and_then(|entrance| entrance.known_hosts.as_ref())),
        "console": run.console.display().to_string(),
        "ready": ready,
    })
}

/// The public line of a key file, whichever half it is.
fn public_line(path: &Path) -> Result<String> {
    let text = String::from_utf8(read_file(path, LONGEST)?)
        .map_err(|_| Error::usage("is no key of SSH").at_path(path))?;
    if text.contains("PRIVATE KEY") {
        return KeyPair::from_private_text(&text)
            .map(|key| key.public_line())
            .map_err(|error| {
                error
                    .at_path(path)
                    .with_remedy("give the public file of the pair, which ends in .pub")
            });
    }
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    match line {
        Some(line) if line.split_whitespace().count() >= 2 => Ok(line.to_owned()),
        _ => Err(Error::usage("is no key of SSH").at_path(path)),
    }
}

/// The same once more, in the background; this process ends when that one has told how to get in.
fn detach(as_json: bool, console: &mut Console<'_>) -> Status {
    let program = std::env::current_exe().map_err(|error| Error::io("find this program", error))?;
    let mut arguments: Vec<_> = std::env::args_os()
        .skip(1)
        .filter(|argument| argument != "--detach" && argument != "--json")
        .collect();
    arguments.insert(1.min(arguments.len()), "--json".into());
    let failed = |error| Error::io("start in the background", error);
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // The terminal's signals are for this process.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line).map_err(failed)?;
    }
    let Ok(details) = serde_json::from_str::<Value>(&line) else {
        // It has ended, and said why.
        if let Some(mut words) = child.stderr.take() {
            let mut text = String::new();
            let _ = words.read_to_string(&mut text);
            write!(console.err, "{text}")?;
        }
        let status = child.wait().map_err(failed)?;
        return Ok(status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1));
    };
    if as_json {
        write!(console.out, "{line}")?;
    } else {
        human::runs::detached(&mut console.out, &details)?;
    }
    Ok(0)
}

pub(super) fn ps(args: &PsArgs, console: &mut Console<'_>) -> Status {
    let mut all = register::list(&surroundings::runs())?;
    all.retain(|listed| listed.alive || args.all);
    if args.json {
        let all: Vec<Value> = all
            .iter()
            .map(|listed| {
                let mut value = details(&listed.run, listed.alive);
                if let Some(fields) = value.as_object_mut() {
                    fields.remove("ready");
                    fields.insert("alive".to_owned(), json!(listed.alive));
                    fields.insert("purpose".to_owned(), json!(listed.run.purpose));
                    fields.insert("of".to_owned(), json!(listed.run.of));
                    fields.insert("started".to_owned(), json!(listed.run.started));
                    let why = listed.run.left.as_ref().map(|left| &left.why);
                    fields.insert("failure".to_owned(), json!(why));
                    let lost = layers::lost(&listed.run).map(|lost| lost.to_string());
                    fields.insert("lost".to_owned(), json!(lost));
                }
                value
            })
            .collect();
        json::print(&mut console.out, &all)?;
    } else {
        human::runs::list(&mut console.out, &all)?;
    }
    Ok(0)
}

pub(super) fn kill(args: &KillArgs, console: &mut Console<'_>) -> Status {
    let runs = surroundings::runs();
    let name = args.run.as_deref().unwrap_or_default();
    let found = match (register::find(&runs, name, true), name) {
        (Err(error), "") => return Err(error.into()),
        (Err(error), name) => return Err(kept_only(&runs, name).unwrap_or(error).into()),
        (Ok(found), _) => found,
    };
    let interrupt = Interrupt::watch()?;
    let flag = interrupt.shared();
    let stop = move || flag.load(Ordering::Relaxed);
    register::end(&found.run, args.force, TIDYING, &stop)
        .map_err(|error| interrupt.failure(error))?;
    writeln!(console.out, "{} has ended", found.run.run)?;
    Ok(0)
}

/// What there is of that name does not run.
fn kept_only(runs: &Path, name: &str) -> Option<Error> {
    let run = register::find(runs, name, false).ok()?.run.run;
    let message =
        format!("{run} does not run: it is the machine of a failed build, which was kept");
    let remedy = format!("`qimg forget {run}` removes it, `qimg ssh {run}` starts it");
    Some(Error::usage(message).with_remedy(remedy))
}

pub(super) fn forget(args: &ForgetArgs, console: &mut Console<'_>) -> Status {
    let runs = surroundings::runs();
    let all: Vec<Run> = if args.all {
        let all = register::list(&runs)?.into_iter();
        let kept = all.filter(|listed| !listed.alive && listed.run.left.is_some());
        kept.map(|listed| listed.run).collect()
    } else {
        let found = args
            .runs
            .iter()
            .map(|name| register::find(&runs, name, false));
        let found: Result<Vec<_>> = found.collect();
        found?.into_iter().map(|listed| listed.run).collect()
    };
    for run in &all {
        register::forget(run)?;
        writeln!(console.out, "removed {}", run.run)?;
    }
    Ok(0)
}

pub(super) fn ssh(args: &SshArgs, console: &mut Console<'_>) -> Status {
    let runs = surroundings::runs();
    let name = args.run.as_deref().unwrap_or_default();
    // What runs comes before what is left.
    let found =
        register::find(&runs, name, true).or_else(|_| register::find(&runs, name, false))?;
    let interrupt = Interrupt::watch()?;
    if found.alive {
        let entrance = found.run.entrance.as_ref().ok_or_else(|| {
            Error::usage(format!(
                "it is not known yet how {} is entered",
                found.run.run
            ))
            .with_remedy("wait until its guest is up")
        })?;
        let flag = interrupt.shared();
        return enter(entrance, &args.command, &|| flag.load(Ordering::Relaxed));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let host = surroundings::gather(&surroundings::cache(None)?, threads)?;
    let flag = interrupt.shared();
    let stop: Arc<Stop> = Arc::new(move || flag.load(Ordering::Relaxed));
    let code = std::sync::Mutex::new(Ok(0));
    let result = told(
        &|tell| {
            visit::revisit(&found.run, &host, &stop, tell, &mut |run| {
                let entered = match &run.entrance {
                    Some(entrance) => enter(entrance, &args.command, &*stop),
                    None => Ok(1),
                };
                *code
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner) = entered;
                Ok(())
            })
        },
        &mut |told| {
            if !matches!(told, Told::Ready(_)) {
                show(false, console, &told);
            }
        },
    );
    match result {
        Ok(()) => code
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
        Err(error) => ended(Err(error), &interrupt),
    }
}

/// Runs the user's `ssh`, with nothing of the user's own settings that could lead elsewhere.
fn enter(entrance: &Entrance, command: &[String], stop: &dyn Fn() -> bool) -> Status {
    let mut ssh = Command::new("ssh");
    ssh.arg("-p").arg(entrance.port.to_string());
    if let Some(key) = &entrance.key {
        ssh.arg("-i").arg(key).args(["-o", "IdentitiesOnly=yes"]);
    }
    if let Some(file) = &entrance.password {
        askpass::answer(&mut ssh, file, entrance.key.is_none())?;
    }
    match &entrance.known_hosts {
        Some(file) => {
            let file = file.display();
            ssh.arg("-o")
                .arg(format!("UserKnownHostsFile=\"{file}\""))
                .args(["-o", "StrictHostKeyChecking=yes"]);
        }
        // Nothing was known of it before: it is a machine of this host, made just now.
        None => {
            ssh.args([
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-o",
                "StrictHostKeyChecking=no",
            ]);
        }
    }
    ssh.args([
        "-o",
        "LogLevel=ERROR",
        "-o",
        "GlobalKnownHostsFile=/dev/null",
    ]);
    ssh.arg(format!("{}@{}", entrance.user, entrance.host));
    let failed = |error| Error::io("run ssh", error).with_remedy("install OpenSSH's client");
    let mut child = ssh.args(command).spawn().map_err(failed)?;
    let mut told = false;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if stop() && !told {
            // It puts the terminal back.
            told = true;
            register::ask_to_end(child.id());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    match status.code() {
        // ssh's own word for a connection that failed.
        Some(255) => Ok(2),
        code => Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
    }
}
