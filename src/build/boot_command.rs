//! The boot command of a build: what is typed while the guest comes up.
//!
//! Knows when what is typed, and what is said of it. Must not know the grammar, keyboards, or how a key gets into the
//! machine. What is typed is never told: passwords are among it.

use std::time::Duration;

use super::event::Unit;
use super::late::RenderText;
use super::prepared::Prepared;
use super::request::BuildRequest;
use super::texts::Texts;
use crate::error::{Error, Result};
use crate::keyboard::{Act, Layout, Part, Symbol, acts, parse};
use crate::machine::Running;
use crate::machine::lookout::{Lookout, Place};
use crate::machine::typing::Taken;
use crate::store::{read_file, write_file};
use crate::template::model::{Dialect, Firmware, Text};

/// Before the first key, where the template does not say.
const WAIT: Duration = Duration::from_secs(10);
/// After a stroke, where the template does not say. The guest has taken it then; what reads its keyboard may still be
/// busy with it.
const INTERVAL: Duration = Duration::from_millis(20);
/// The same where UEFI's own drivers read the keyboard: they keep few keys, and do not tell how many.
const INTERVAL_OF_UEFI: Duration = Duration::from_millis(100);
/// For a text to appear, where the command does not say.
const APPEARS: Duration = Duration::from_secs(120);
/// Bytes of a picture at most.
const PICTURE: u64 = 256 << 20;

/// A part of the boot command, ready to be typed.
#[derive(Debug)]
pub(super) struct Step {
    acts: Vec<Act>,
    /// What it is for.
    note: Option<String>,
}

/// Fills in and understands the boot command of a build.
///
/// # Errors
/// A text asks for what there is not; it waits for nothing; a character is not on the guest's keyboard.
pub(super) fn prepare(request: &BuildRequest<'_>, texts: &Texts) -> Result<Vec<Step>> {
    let boot = &request.build.boot;
    let layout = Layout::named(&boot.keyboard).unwrap_or(Layout::us());
    let is_packer = request.template.dialect == Dialect::Packer;
    let step = |(text, note): &(Text, Option<String>)| {
        let mut parts = parse(&texts.render(text, &[])?)?.parts;
        if is_packer {
            // As Packer: no key makes them.
            parts.retain(|part| !matches!(part, Part::Press(Symbol::Character('\n' | '\r'))));
        }
        Ok(Step {
            acts: acts(&parts, layout)?,
            note: note.clone(),
        })
    };
    let steps: Result<Vec<Step>> = boot.steps.iter().map(step).collect();
    steps.map_err(|error: Error| error.at_path(&request.template.path))
}

/// How long the guest is given before the first key.
pub(super) fn wait_of(request: &BuildRequest<'_>) -> Duration {
    request.build.boot.wait.unwrap_or(WAIT)
}

/// After each stroke: the template's; Packer's own variable; qimg's.
fn interval_of(request: &BuildRequest<'_>) -> Duration {
    let of_environment = || {
        let environment = &request.surroundings.host.environment;
        let (_, value) = environment
            .iter()
            .find(|(name, _)| name == "PACKER_KEY_INTERVAL")?;
        let nanoseconds = crate::units::duration::parse(value.to_str()?)?;
        u64::try_from(nanoseconds).ok().map(Duration::from_nanos)
    };
    let boot = &request.build.boot;
    boot.key_interval
        .filter(|interval| !interval.is_zero())
        .or_else(of_environment)
        .unwrap_or(match &request.build.machine.firmware {
            Firmware::Default => INTERVAL,
            Firmware::Efi { .. } | Firmware::File { .. } => INTERVAL_OF_UEFI,
        })
}

/// Types the boot command.
///
/// # Errors
/// A text did not appear; the machine is lost; cancelled.
pub(super) fn type_in(prepared: &Prepared<'_>, running: &Running, patience: u32) -> Result<()> {
    let (request, reporter) = (prepared.request, prepared.reporter);
    let stop = &*request.stop;
    let steps = &prepared.boot_command;
    if steps.is_empty() {
        return Ok(());
    }
    let wait = wait_of(request);
    if !wait.is_zero() {
        reporter.step(&format!(
            "Waiting {} s for the machine to boot",
            wait.as_secs_f64()
        ));
        running.pass(wait, stop)?;
    }
    let mut typist = Typist {
        prepared,
        running,
        interval: interval_of(request),
        lookout: Lookout::default(),
        patience,
        total: steps.iter().map(|step| step.acts.len()).sum(),
        done: 0,
        deaf: false,
    };
    reporter.step("Typing the boot command");
    for (number, step) in steps.iter().enumerate() {
        if number > 0
            && let Some(interval) = request.build.boot.group_interval
        {
            running.pass(interval, stop)?;
        }
        if let Some(note) = &step.note {
            reporter.note(&format!("Boot step {}: {note}", number + 1));
        }
        typist.step(step)?;
        typist.pause_for_debug(number + 1, step)?;
    }
    Ok(())
}

struct Typist<'a> {
    prepared: &'a Prepared<'a>,
    running: &'a Running,
    interval: Duration,
    lookout: Lookout,
    patience: u32,
    total: usize,
    done: usize,
    /// The guest was seen not to take keys, which was told.
    deaf: bool,
}

impl Typist<'_> {
    fn step(&mut self, step: &Step) -> Result<()> {
        let (request, reporter) = (self.prepared.request, self.prepared.reporter);
        let stop = &*request.stop;
        for act in &step.acts {
            match act {
                Act::Keys(keys) => {
                    let taken = self.running.strike(keys, stop)?;
                    if taken == Taken::No && !std::mem::replace(&mut self.deaf, true) {
                        reporter.warn("The guest does not read its keyboard: what is typed now may be lost; wait longer before it (boot_wait, <wait10s>, <waitfor \"text\">)");
                    }
                    self.running.pass(self.interval, stop)?;
                }
                Act::Wait(time) => self.running.pass(*time, stop)?,
                Act::WaitFor { text, timeout } => {
                    let timeout = timeout.unwrap_or(APPEARS * self.patience);
                    reporter.note(&format!("Waiting for the guest to show '{text}'"));
                    let place = self.lookout.wait_for(self.running, text, timeout, stop)?;
                    reporter.note(match place {
                        Place::Console => "It is on the console",
                        Place::Screen => "It is on the screen",
                    });
                }
            }
            self.done += 1;
            reporter.progress(
                "boot command",
                self.done as u64,
                Some(self.total as u64),
                Unit::Pieces,
            );
        }
        Ok(())
    }

    /// With a picture of what the step led to.
    fn pause_for_debug(&self, number: usize, step: &Step) -> Result<()> {
        let (request, reporter) = (self.prepared.request, self.prepared.reporter);
        if !request.options.debug {
            return Ok(());
        }
        if let Some(picture) = self.running.screenshot() {
            let kept = picture.with_file_name(format!("boot-step-{number}.png"));
            write_file(&kept, &read_file(&picture, PICTURE)?)?;
            reporter.note(&format!("The screen: {}", kept.display()));
        }
        let Some(ask) = request.ask else {
            return Ok(());
        };
        let note = step
            .note
            .as_deref()
            .map_or_else(String::new, |note| format!(" ({note})"));
        let question = reporter.masked(&format!(
            "Boot step {number}{note} is typed. Press enter to continue."
        ));
        ask.ask(&question, &*request.stop).map(drop)
    }
}
