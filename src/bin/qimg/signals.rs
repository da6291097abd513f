//! Ctrl-C and its kin: asks the library to stop, and remembers who asked.
//!
//! The library then fails with `Cancelled` at its next look, and temporary
//! files go away as its values are dropped. A second signal ends the program at
//! once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use qimg::{Error, ErrorKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::commands::Failure;

/// What the library polls during long work.
#[derive(Debug)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Begins to watch. Until then, and for commands that never do, a signal ends the program as usual.
    pub(crate) fn watch() -> Result<Self, Error> {
        let asked = Arc::new(AtomicBool::new(false));
        let signal = Arc::new(AtomicUsize::new(0));
        let ignored = ignored_signals();
        for (number, value) in [(SIGHUP, 1), (SIGINT, 2), (SIGTERM, 15)] {
            if ignored & (1 << (value - 1)) != 0 {
                continue;
            }
            // In this order: the first signal finds the flag unset, raises it and returns; the second one ends.
            flag::register_conditional_default(number, Arc::clone(&asked))
                .and_then(|_| flag::register_usize(number, Arc::clone(&signal), value))
                .and_then(|_| flag::register(number, Arc::clone(&asked)))
                .map_err(|error| Error::io("watch for signals", error))?;
        }
        Ok(Self { asked, signal })
    }

    /// The flag that is raised.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.asked
    }

    /// The flag, for threads that outlive whoever began to watch.
    pub(crate) fn shared(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.asked)
    }

    /// A failure with the exit code that a shell expects after a signal, where one is the reason.
    pub(crate) fn failure(&self, error: Error) -> Failure {
        match (error.kind(), self.signal.load(Ordering::Relaxed)) {
            (ErrorKind::Cancelled, signal @ 1..) => {
                Failure::new(error, 128 + u8::try_from(signal).unwrap_or(0))
            }
            _ => Failure::from(error),
        }
    }
}

/// The signals this process was started to ignore, as by nohup: they stay ignored.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
