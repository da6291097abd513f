//! Time and the wish to stop, looked at by everything that waits.
//!
//! Knows deadlines. Must not know what is done in the meantime.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::in_words;
use crate::communicator::{Communicator, Stop};
use crate::error::{Error, ErrorKind, Result};

/// How often it is looked whether to stop.
const GLANCE: Duration = Duration::from_millis(50);

/// After the deadline, for calls that know it to end by themselves: then the connection is cut under the others.
const GRACE: Duration = Duration::from_millis(700);

/// Until when something may go on.
#[derive(Clone, Copy)]
pub(crate) struct Watch<'a> {
    stop: &'a Stop,
    deadline: Option<(Instant, Duration)>,
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl<'a> Watch<'a> {
    /// From now on, for `timeout`.
    pub(crate) fn new(stop: &'a Stop, timeout: Option<Duration>) -> Self {
        let deadline =
            timeout.and_then(|timeout| Some((Instant::now().checked_add(timeout)?, timeout)));
        Self { stop, deadline }
    }

    /// As this one, but for `timeout` at most.
    pub(crate) fn within(&self, timeout: Duration) -> Self {
        let shorter = Self::new(self.stop, Some(timeout));
        match (self.deadline, shorter.deadline) {
            (Some((own, _)), Some((new, _))) if own <= new => *self,
            _ => shorter,
        }
    }

    /// Whether to stop.
    pub(crate) fn stop(&self) -> &'a Stop {
        self.stop
    }

    /// The time that is left, if it is limited.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.deadline
            .map(|(deadline, _)| deadline.saturating_duration_since(Instant::now()))
    }

    /// `most`, or the time that is left.
    pub(crate) fn at_most(&self, most: Duration) -> Duration {
        self.left().map_or(most, |left| left.min(most))
    }

    /// Nothing, as long as it may go on.
    pub(crate) fn check(&self) -> Result<()> {
        if (self.stop)() {
            return Err(Error::cancelled());
        }
        match self.deadline {
            Some((deadline, timeout)) if Instant::now() >= deadline => Err(timed_out(timeout)),
            _ => Ok(()),
        }
    }

    /// Waits.
    pub(crate) fn sleep(&self, time: Duration) -> Result<()> {
        let started = Instant::now();
        loop {
            self.check()?;
            let left = time.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(self.at_most(left.min(GLANCE)));
        }
    }
}

fn timed_out(timeout: Duration) -> Error {
    let message = format!("took longer than its time limit of {}", in_words(timeout));
    Error::new(ErrorKind::TimedOut, message)
}

/// Reads until it is to stop.
#[derive(Debug)]
pub(crate) struct WatchedReader<'a, R> {
    pub(crate) inner: R,
    pub(crate) watch: Watch<'a>,
}

impl<R: Read> Read for WatchedReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.watch.check().map_err(io::Error::other)?;
        self.inner.read(buffer)
    }
}

/// One try with its time limit.
pub(crate) struct Guard<'a> {
    pub(crate) timeout: Option<Duration>,
    pub(crate) stop: &'a Stop,
    pub(crate) communicator: Option<&'a dyn Communicator>,
}

impl Guard<'_> {
    /// Does `work`. When its time is over and it has not noticed, the connection is cut, which ends whatever waits for
    /// the guest.
    pub(crate) fn watch(&self, work: impl FnOnce(&Watch<'_>) -> Result<()>) -> Result<()> {
        let watch = Watch::new(self.stop, self.timeout);
        let (Some(timeout), Some(communicator)) = (self.timeout, self.communicator) else {
            return work(&watch);
        };
        let done = (Mutex::new(false), Condvar::new());
        let cut = AtomicBool::new(false);
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                let limit = timeout.saturating_add(GRACE);
                let done_at_last = done.0.lock().unwrap_or_else(PoisonError::into_inner);
                let waited = done
                    .1
                    .wait_timeout_while(done_at_last, limit, |done| !*done)
                    .unwrap_or_else(PoisonError::into_inner);
                if !*waited.0 {
                    cut.store(true, Ordering::SeqCst);
                    drop(waited);
                    communicator.disconnect();
                }
            });
            // Also when the work panics: else the scope waits for the thread.
            let told = Told(&done);
            let result = work(&watch);
            drop(told);
            result
        });
        match result {
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            // What the cut looks like to those who waited does not matter; a lost connection may even be what they want.
            _ if cut.load(Ordering::SeqCst) => Err(timed_out(timeout)),
            Err(error) if error.kind() == ErrorKind::TimedOut && watch.check().is_err() => {
                Err(timed_out(timeout))
            }
            result => result,
        }
    }
}

/// Tells the watching thread that all is done.
struct Told<'a>(&'a (Mutex<bool>, Condvar));

impl Drop for Told<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}
