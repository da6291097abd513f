//! Results back into order, and how far ahead of it work may run.

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// Lets items with numbers up to some ahead of the last committed one be worked on.
#[derive(Debug)]
pub(crate) struct Window {
    ahead: u64,
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Items committed so far, which is the number of the next.
    next: u64,
    closed: bool,
}

impl Window {
    pub(crate) fn new(ahead: usize) -> Self {
        Self {
            ahead: ahead as u64,
            state: Mutex::default(),
            moved: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until item `number` may be worked on; false when no more work is wanted.
    pub(crate) fn wait_for(&self, number: u64) -> bool {
        let mut state = self.state();
        while !state.closed && number >= state.next + self.ahead {
            state = self
                .moved
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        !state.closed
    }

    fn close(&self) {
        self.state().closed = true;
        self.moved.notify_all();
    }

    /// Wakes every waiting worker when the current thread unwinds.
    pub(crate) fn close_on_panic(&self) -> impl Drop + '_ {
        struct Guard<'a>(&'a Window);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.close();
                }
            }
        }
        Guard(self)
    }

    /// Hands the results to `commit` in the order of their numbers, until all senders are gone.
    ///
    /// # Errors
    /// The failure with the lowest number, from a worker or from `commit`; later results are dropped.
    pub(crate) fn in_order<T>(
        &self,
        receiver: &Receiver<(u64, Result<T>)>,
        mut commit: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        let mut early = BTreeMap::new();
        let mut next = 0;
        let mut outcome = Ok(());
        for (number, result) in receiver {
            early.insert(number, result);
            while let Some(result) = early.remove(&next) {
                if outcome.is_ok() {
                    outcome = result.and_then(&mut commit);
                    if outcome.is_err() {
                        self.close();
                    }
                }
                next += 1;
                self.state().next = next;
                self.moved.notify_all();
            }
        }
        if outcome.is_ok() && !early.is_empty() {
            // A worker was lost with its item; what follows it must not pass for the whole.
            outcome = early.into_values().find_map(Result::err).map_or_else(
                || {
                    Err(Error::io(
                        "finish",
                        std::io::Error::other("a worker thread was lost"),
                    ))
                },
                Err,
            );
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn the_lowest_failure_is_the_one_reported() {
        let window = Window::new(8);
        let (sender, receiver) = mpsc::channel();
        sender.send((2, Err(Error::usage("second")))).unwrap();
        sender.send((1, Err(Error::usage("first")))).unwrap();
        sender.send((0, Ok(0))).unwrap();
        drop(sender);
        let mut seen = Vec::new();
        let error = window
            .in_order(&receiver, |n| {
                seen.push(n);
                Ok(())
            })
            .unwrap_err();
        assert_eq!(error.to_string(), "first");
        assert_eq!(seen, [0]);
        assert!(!window.wait_for(3));
    }

    #[test]
    fn a_lost_item_is_a_failure() {
        let window = Window::new(8);
        let (sender, receiver) = mpsc::channel();
        sender.send((1, Ok(1))).unwrap();
        drop(sender);
        assert!(window.in_order(&receiver, |_| Ok(())).is_err());
    }
}
