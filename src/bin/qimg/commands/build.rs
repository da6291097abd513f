//! `qimg build`.

use std::io::{BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use qimg::build::event::{Event, Sink};
use qimg::build::provisioner::Ask;
use qimg::build::{self, At, BuildRequest, Failed, Options};
use qimg::communicator::Stop;
use qimg::template::model::Build;
use qimg::{Error, ErrorKind, Result};

use super::{Status, images, surroundings, template};
use crate::args::{BuildArgs, BuildOutputArgs, OnError};
use crate::render::build::{Human, Machine, Style};
use crate::render::{Console, human, json, wants_colours};
use crate::signals::Interrupt;

pub(super) fn run(args: &BuildArgs, console: &mut Console<'_>) -> Status {
    match (&args.template, &args.images.all) {
        (_, Some(directory)) => images::run(args, directory, console),
        (Some(template), None) => one(args, template, "", console),
        (None, None) => Err(Error::usage("there is no template").into()),
    }
}

/// Builds one template; `run` tells its run from others of this process.
pub(super) fn one(args: &BuildArgs, path: &Path, run: &str, console: &mut Console<'_>) -> Status {
    let loaded = template::told(path, &args.values, console)?;
    loaded.usable()?;
    let threads = args
        .threads
        .or_else(|| std::thread::available_parallelism().ok())
        .map_or(1, usize::from);
    let mut surroundings =
        surroundings::gather(&surroundings::cache(args.cache.as_deref())?, threads)?;
    surroundings.run.push_str(run);
    let interrupt = Interrupt::watch()?;
    let flag = interrupt.shared();
    let stop: Arc<Stop> = Arc::new(move || flag.load(Ordering::Relaxed));
    let numbers = Numbers::default();
    let next = || numbers.next();
    let terminal = Terminal::default();
    let names: Vec<String> = loaded
        .template
        .builds
        .iter()
        .map(|build| build.name.clone())
        .collect();
    let mut shown = Shown::new(&args.output, console, &names);
    let (tell, events) = sync_channel(1024);
    let sink = Told(tell);
    let request = |build| BuildRequest {
        template: &loaded.template,
        build,
        surroundings: &surroundings,
        options: Options {
            force: args.force,
            on_error: match args.on_error {
                OnError::Cleanup => build::OnError::Cleanup,
                OnError::Abort => build::OnError::Abort,
                OnError::Ask => build::OnError::Ask,
                OnError::RunCleanupProvisioner => build::OnError::RunCleanupProvisioner,
            },
            debug: args.debug,
            keep: args.keep,
            cache: match (args.no_cache, args.cache_steps) {
                (true, _) => Some(false),
                (false, true) => Some(true),
                (false, false) => None,
            },
        },
        ask: (args.debug || args.on_error == OnError::Ask || asks(build))
            .then_some(&terminal as &dyn Ask),
        sink: &sink,
        numbers: &next,
        stop: Arc::clone(&stop),
    };
    if args.plan {
        let plans: Result<Vec<_>> = loaded
            .template
            .builds
            .iter()
            .map(|build| build::plan(&request(build)))
            .collect();
        let plans = plans?;
        let out = &mut shown.console.out;
        if args.output.json {
            json::print(out, &plans)?;
        } else {
            human::plan::plans(out, &plans)?;
        }
        return Ok(0);
    }
    let at_once = match (args.debug, args.parallel_builds) {
        (true, _) => 1,
        (false, 0) => loaded.template.builds.len().max(1),
        (false, most) => most,
    };
    let over = AtomicBool::new(false);
    let results = std::thread::scope(|scope| {
        let builds = scope.spawn(|| {
            let results = all(&loaded.template.builds, at_once, &|build| {
                build::build(&request(build)).map(drop)
            });
            over.store(true, Ordering::Release);
            results
        });
        shown.follow(&events, &over);
        builds.join().unwrap_or_else(|fault| vec![Err(fault)])
    });
    shown.end()?;
    if results.iter().any(std::result::Result::is_err) {
        return Err(fault().into());
    }
    let worst = results
        .into_iter()
        .flatten()
        .filter_map(std::result::Result::err)
        .max_by_key(severity);
    match worst {
        None => Ok(0),
        Some(failed) if failed.error.kind() == ErrorKind::Cancelled => {
            Err(interrupt.failure(failed.error))
        }
        Some(failed) => {
            let code = match failed.at {
                At::Host => 1,
                At::Guest => 2,
                At::Provision => 3,
                At::PostProcess => 4,
            };
            // It was told when it happened, and again among the results.
            Ok(code)
        }
    }
}

/// A build that panicked; what it was about stands on standard error.
fn fault() -> Error {
    Error::new(ErrorKind::Io, "a build ended by a fault of qimg itself")
        .with_remedy("please report it, with the message above")
}

fn severity(failed: &Failed) -> u8 {
    match (failed.error.kind(), failed.at) {
        (ErrorKind::Cancelled, _) => 4,
        (_, At::Host) => 3,
        (_, At::Guest) => 2,
        (_, At::Provision) => 1,
        (_, At::PostProcess) => 0,
    }
}

/// Whether a provisioner asks.
fn asks(build: &Build) -> bool {
    use qimg::template::model::Action;
    build.provisioners.iter().any(|step| {
        matches!(
            step.action,
            Action::Breakpoint {
                disabled: false,
                ..
            }
        )
    })
}

/// Runs all builds, so many at once.
fn all<'t, B: Sync, T: Send>(
    builds: &'t [B],
    at_once: usize,
    work: &(dyn Fn(&'t B) -> T + Sync),
) -> Vec<std::thread::Result<T>> {
    let (free, freed) = (Mutex::new(at_once), Condvar::new());
    std::thread::scope(|scope| {
        let running: Vec<_> = builds
            .iter()
            .map(|build| {
                let (free, freed) = (&free, &freed);
                scope.spawn(move || {
                    let guard = free.lock().unwrap_or_else(PoisonError::into_inner);
                    let mut guard = freed
                        .wait_while(guard, |free| *free == 0)
                        .unwrap_or_else(PoisonError::into_inner);
                    *guard -= 1;
                    drop(guard);
                    // Else the others would wait for ever for its place.
                    let result = catch_unwind(AssertUnwindSafe(|| work(build)));
                    *free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                    freed.notify_one();
                    result
                })
            })
            .collect();
        running
            .into_iter()
            .map(|build| build.join().and_then(|result| result))
            .collect()
    })
}

/// Numbers for names of temporary files: no two of this run are the same, and another run has others.
#[derive(Debug)]
struct Numbers(AtomicU64);

impl Default for Numbers {
    fn default() -> Self {
        let random = surroundings::random();
        let start = random
            .iter()
            .take(4)
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Self(AtomicU64::new(start))
    }
}

impl Numbers {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Takes events from builds to whoever shows them.
struct Told(SyncSender<Event>);

impl Sink for Told {
    fn take(&self, event: &Event) {
        // Nobody is left to be told when that fails.
        let _ = self.0.send(event.clone());
    }
}

/// Shows events, whichever build they come from.
struct Shown<'a, 'b> {
    console: &'a mut Console<'b>,
    form: Form,
}

enum Form {
    Human(Human),
    Machine(Machine),
    Json,
}

impl<'a, 'b> Shown<'a, 'b> {
    fn new(args: &BuildOutputArgs, console: &'a mut Console<'b>, builds: &[String]) -> Self {
        let form = match (args.json, args.machine_readable) {
            (true, _) => Form::Json,
            (false, true) => Form::Machine(Machine::default()),
            (false, false) => Form::Human(Human::new(
                builds,
                Style {
                    colours: args.color.unwrap_or(console.colours && wants_colours()),
                    timestamps: args.timestamp_ui,
                },
            )),
        };
        Self { console, form }
    }

    /// Shows what is told until all is `over`.
    fn follow(&mut self, events: &Receiver<Event>, over: &AtomicBool) {
        loop {
            match events.recv_timeout(Duration::from_millis(50)) {
                Ok(event) => self.show(&event),
                Err(_) if over.load(Ordering::Acquire) => {
                    events.try_iter().for_each(|event| self.show(&event));
                    return;
                }
                Err(_) => {}
            }
        }
    }

    fn show(&mut self, event: &Event) {
        let text = match &mut self.form {
            Form::Human(human) => human.event(event, &stamp()),
            Form::Machine(machine) => machine.event(event, surroundings::now().as_secs()),
            Form::Json => {
                serde_json::to_string(event).map_or_else(|_| String::new(), |text| text + "\n")
            }
        };
        if !text.is_empty() {
            // A reader that went away is no reason to stop a build; the end will tell.
            let _ = self.print(&text);
        }
    }

    fn print(&mut self, text: &str) -> std::io::Result<()> {
        self.console.out.write_all(text.as_bytes())?;
        self.console.out.flush()
    }

    fn end(&mut self) -> std::io::Result<()> {
        let text = match &self.form {
            Form::Human(human) => human.end(&stamp()),
            Form::Machine(machine) => machine.end(surroundings::now().as_secs()),
            Form::Json => String::new(),
        };
        self.print(&text)
    }
}

/// The time as it is shown.
fn stamp() -> String {
    let now = i64::try_from(surroundings::now().as_secs()).unwrap_or(0);
    human::date::seconds(now).replace(' ', "T") + "Z"
}

/// Whoever sits at standard input.
#[derive(Debug, Default)]
struct Terminal {
    lines: Mutex<Option<Receiver<String>>>,
}

impl Ask for Terminal {
    fn ask(&self, question: &str, stop: &Stop) -> Result<Option<String>> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stderr = std::io::stderr();
        write!(stderr, "{question} ")
            .and_then(|()| stderr.flush())
            .map_err(|error| Error::io("ask", error))?;
        let lines = lines.get_or_insert_with(|| {
            let (tell, hear) = sync_channel(16);
            // It ends with the program: there is no way to take a thread off its standard input.
            std::thread::spawn(move || {
                for line in std::io::stdin()
                    .lock()
                    .lines()
                    .map_while(std::io::Result::ok)
                {
                    if tell.send(line).is_err() {
                        break;
                    }
                }
            });
            hear
        });
        loop {
            if stop() {
                return Err(Error::cancelled());
            }
            match lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => return Ok(Some(line)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_panics_takes_no_other_one_along() {
        let results = all(&["one", "two", "three"], 1, &|name| {
            assert_ne!(*name, "two", "a fault");
            *name
        });
        let done: Vec<_> = results.into_iter().map(std::result::Result::ok).collect();
        assert_eq!(done, [Some("one"), None, Some("three")]);
    }
}
