//! Work that somebody watches over.
//!
//! Knows that the watch ends with the work, however that ends: also when it panics. Must not know what is watched for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

/// Does `work`. Meanwhile another thread calls `look` again and again, until that says that it has seen enough.
pub(crate) fn alongside<T>(mut look: impl FnMut() -> bool + Send, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !over.load(Ordering::Acquire) && !look() {
                std::thread::park_timeout(POLL);
            }
        });
        let _ended = Ended {
            over: &over,
            watcher: watcher.thread(),
        };
        work()
    })
}

/// Ends the watch when it is dropped: a scope waits for its threads, whatever else happens.
struct Ended<'a> {
    over: &'a AtomicBool,
    watcher: &'a Thread,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.watcher.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watch_ends_with_the_work() {
        assert_eq!(alongside(|| false, || 5), 5);
        let seen = AtomicBool::new(false);
        let look = || {
            seen.store(true, Ordering::Relaxed);
            true
        };
        alongside(look, || {
            while !seen.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
        });
    }

    #[test]
    fn work_that_panics_does_not_wait_for_its_watch() {
        let caught = std::panic::catch_unwind(|| alongside(|| false, || panic!("a fault")));
        assert!(caught.is_err());
    }
}
