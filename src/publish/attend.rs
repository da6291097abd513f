//! Work on threads that somebody attends: who started it hears of it, and can end it.
//!
//! Knows a flag, a count of bytes and words. Must not know what the work is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::communicator::Stop;
use crate::error::{Error, Result};

/// How often the caller is asked, and told.
const LOOK: Duration = Duration::from_millis(50);

/// What happens meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something begins: "upload s3://bucket/key".
    Doing(String),
    /// So much of it is done, in bytes; less than before when a part has to be sent again.
    Progress {
        /// In bytes.
        done: u64,
        /// In bytes.
        total: u64,
    },
    /// Something that the user may want to know.
    Note(String),
}

/// What the work tells.
#[derive(Debug)]
pub(super) struct Work {
    /// Set: everything ends.
    pub stopped: Arc<AtomicBool>,
    done: AtomicU64,
    total: AtomicU64,
    tell: Sender<Event>,
}

impl Work {
    /// Begins something of `total` bytes.
    pub fn begin(&self, what: String, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.say(Event::Doing(what));
    }

    pub fn note(&self, text: String) {
        self.say(Event::Note(text));
    }

    fn say(&self, event: Event) {
        // Nobody is left to be told when that fails.
        let _ = self.tell.send(event);
    }

    pub fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that count for nothing after all.
    pub fn retreat(&self, bytes: u64) {
        self.done.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub fn go_on(&self) -> Result<()> {
        if self.is_stopped() {
            return Err(Error::cancelled());
        }
        Ok(())
    }

    /// Waits, unless all is to end.
    pub fn pause(&self, time: Duration) -> Result<()> {
        let mut left = time;
        while !left.is_zero() {
            self.go_on()?;
            let step = left.min(LOOK);
            std::thread::sleep(step);
            left -= step;
        }
        self.go_on()
    }
}

/// Runs `work` on a thread of its own; `stop` and `tell` are called on this one.
pub(super) fn attended<T: Send>(
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
    work: impl FnOnce(&Work) -> Result<T> + Send,
) -> Result<T> {
    let (sender, events) = channel();
    let state = Work {
        stopped: Arc::new(AtomicBool::new(stop())),
        done: AtomicU64::new(0),
        total: AtomicU64::new(0),
        tell: sender,
    };
    std::thread::scope(|scope| {
        let state = &state;
        let working = scope.spawn(move || work(state));
        follow(stop, tell, state, &events, &|| working.is_finished());
        working
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn follow(
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
    state: &Work,
    events: &Receiver<Event>,
    over: &dyn Fn() -> bool,
) {
    let mut told = (0, 0);
    loop {
        let last = over();
        match events.recv_timeout(if last { Duration::ZERO } else { LOOK }) {
            Ok(event) => {
                tell(event);
                continue;
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        let now = (
            state.done.load(Ordering::Relaxed),
            state.total.load(Ordering::Relaxed),
        );
        if now != told && now.1 > 0 {
            told = now;
            tell(Event::Progress {
                done: now.0.min(now.1),
                total: now.1,
            });
        }
        if last {
            return;
        }
        if stop() {
            state.stopped.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn who_attends_hears_all_and_can_end_it() {
        let mut heard = Vec::new();
        let done = attended(&|| false, &mut |event| heard.push(event), |work| {
            work.begin("count".to_owned(), 10);
            work.advance(10);
            work.note("done".to_owned());
            Ok(7)
        });
        assert_eq!(done.unwrap(), 7);
        assert_eq!(heard.first(), Some(&Event::Doing("count".to_owned())));
        assert!(heard.contains(&Event::Note("done".to_owned())));
        assert_eq!(
            heard.last(),
            Some(&Event::Progress {
                done: 10,
                total: 10
            })
        );
        let asked = std::sync::atomic::AtomicU32::new(0);
        let stop = move || asked.fetch_add(1, Ordering::Relaxed) > 1;
        let ended = attended(&stop, &mut |_| {}, |work| -> Result<()> {
            loop {
                work.pause(Duration::from_secs(60))?;
            }
        });
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Cancelled);
    }
}
