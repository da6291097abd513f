//! The ways to end a machine, from gentle to certain.
//!
//! Knows the order of them and how long each is given. Must not know what command was run in the guest.

use std::time::{Duration, Instant};

use crate::communicator::Stop;
use crate::error::Result;

use super::launcher::Ended;
use super::running::Running;

/// One way to end a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// The command that was run in the guest has its effect.
    Command,
    /// The power button.
    PowerButton,
    /// QEMU writes out its disks and ends.
    Quit,
    /// QEMU is killed: what it had not written is lost.
    Kill,
}

/// How long each way is waited for; those without a time are left out, killing never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ladder {
    /// A command was run in the guest.
    pub command: Option<Duration>,
    /// The power button.
    pub power_button: Option<Duration>,
    /// QEMU's own end.
    pub quit: Option<Duration>,
}

/// One step that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub rung: Rung,
    /// How long it was waited for.
    pub waited: Duration,
    /// QEMU ended by it.
    pub ended: bool,
    /// Why it could not be taken.
    pub failure: Option<String>,
}

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// In order; the last one ended it. Empty: it had ended before.
    pub steps: Vec<Step>,
    /// How QEMU ended.
    pub ended: Ended,
}

impl Shutdown {
    /// The guest itself went down, its filesystems written.
    pub fn is_clean(&self) -> bool {
        let last = self.steps.last().map(|step| step.rung);
        let by_guest = matches!(last, None | Some(Rung::Command | Rung::PowerButton));
        by_guest && self.ended == Ended::Code(0)
    }
}

impl Running {
    /// Ends the machine by the first way that works.
    ///
    /// # Errors
    ///
    /// When `stop` says so: then the machine still runs.
    pub fn shut_down(&mut self, ladder: &Ladder, stop: &Stop) -> Result<Shutdown> {
        let mut steps = Vec::new();
        let rungs = [
            (Rung::Command, ladder.command),
            (Rung::PowerButton, ladder.power_button),
            (Rung::Quit, ladder.quit),
        ];
        for (rung, timeout) in rungs {
            let Some(timeout) = timeout else { continue };
            if self.ended().is_some() {
                break;
            }
            // A guest that is lost does not go down by itself.
            if self.death().is_some() && rung != Rung::Quit {
                continue;
            }
            let started = Instant::now();
            let asked = match rung {
                Rung::PowerButton => self.press_power_button(),
                Rung::Quit => self.quit(),
                Rung::Command | Rung::Kill => Ok(()),
            };
            let failure = asked.err().map(|error| error.to_string());
            if failure.is_none() {
                match rung {
                    Rung::Quit | Rung::Kill => drop(self.wait_for_end(timeout, stop)?),
                    Rung::Command | Rung::PowerButton => drop(self.wait(timeout, stop)?),
                }
            }
            let ended = self.ended().is_some();
            steps.push(Step {
                rung,
                waited: started.elapsed(),
                ended,
                failure,
            });
        }
        let ended = match self.ended() {
            Some(ended) => ended,
            None => {
                let started = Instant::now();
                self.kill();
                steps.push(Step {
                    rung: Rung::Kill,
                    waited: started.elapsed(),
                    ended: true,
                    failure: None,
                });
                self.ended().unwrap_or(Ended::Signal(9))
            }
        };
        self.settle();
        Ok(Shutdown { steps, ended })
    }
}
