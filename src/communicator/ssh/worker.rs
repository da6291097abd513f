//! The thread on which all connections of one guest live, and the way to wait for them from any other thread.

use std::future::Future;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};

/// How often a wait asks whether it is to end.
const GLANCE: Duration = Duration::from_millis(50);

/// A runtime on a thread of its own.
#[derive(Debug)]
pub(super) struct Worker {
    runtime: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(super) fn start() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::io("begin to wait for the network", error))?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("qimg-ssh".to_owned())
            .spawn(move || {
                // It ends either way: by word, or because the sender is gone.
                let _ = runtime.block_on(ended);
                // A name that is still being looked up is not waited for.
                runtime.shutdown_background();
            })
            .map_err(|error| Error::io("start a thread", error))?;
        Ok(Self {
            runtime: handle,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// Waits for `future` on this thread, while connections go on on theirs.
    pub(super) fn wait<T>(
        &self,
        stop: &(dyn Fn() -> bool + Send + Sync),
        future: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        if Handle::try_current().is_ok() {
            return Err(Error::new(
                ErrorKind::Usage,
                "a call into the guest was made from within another one",
            ));
        }
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = stopped(stop) => Err(Error::cancelled()),
                result = future => result,
            }
        })
    }
}

async fn stopped(stop: &(dyn Fn() -> bool + Send + Sync)) {
    while !stop() {
        tokio::time::sleep(GLANCE).await;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
        if let Some(thread) = self.thread.take() {
            // It has nothing left to do, and nothing to tell if it panicked.
            let _ = thread.join();
        }
    }
}
