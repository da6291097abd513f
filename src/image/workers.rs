//! Threads for work on one image.

use crate::error::{Error, Result};

/// A pool of `threads` worker threads, at least one.
pub(super) fn worker_pool(threads: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(|number| format!("qimg-worker-{number}"))
        .build()
        .map_err(|error| Error::io("start worker threads", std::io::Error::other(error)))
}
