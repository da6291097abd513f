//! The data path: guest contents out of a [`Source`], through the codecs, into
//! an [`ImageWriter`], on all cores.
//!
//! ```text
//! plan (in guest order) -> workers: read, look for zeros, encode -> reorder -> commit (in guest order) -> writer
//! ```
//!
//! Workers take items of some clusters each, whoever is free; their results are
//! committed in guest order by the calling thread, so that the bytes written
//! never depend on the number of threads. A window bounds how far workers run
//! ahead, and with it the memory.
//!
//! Knows no format and no file: only the two traits and the codecs.

mod plan;
pub(crate) mod reorder;
mod stats;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};

pub use stats::{Progress, Stats};

use crate::codec::{CompressionType, Decoder, EncoderOptions};
use crate::error::{Error, Result};
use crate::source::Source;
use crate::writer::{ImageWriter, Origin};
use plan::Plan;
use reorder::Window;
use worker::{Output, Part, Worker};

/// What happens to a compressed cluster of the codec and size that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reuse {
    /// Its stream is copied as it is.
    #[default]
    Copy,
    /// It is encoded again, and the shorter stream kept.
    KeepSmaller,
}

/// How guest contents are carried over.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// The encoding of compressed clusters; plain clusters without.
    pub encoding: Option<EncoderOptions>,
    /// What happens to streams that could stay.
    pub reuse: Reuse,
    /// Leave to the backing file what the top layer leaves to it.
    pub overlay: bool,
    /// Aligned runs of so many zero bytes are left out of plain data; 0 writes everything.
    pub sparse: usize,
    /// Let the host share the blocks of plain data between source and target.
    pub share: bool,
    /// Set by another thread to stop.
    pub cancel: &'a AtomicBool,
}

/// Carries all guest contents from `source` to `writer`, without finishing the image.
///
/// `progress` is called from time to time on the calling thread.
///
/// # Errors
/// The first failure in guest order of reading, decoding or writing; [`Cancelled`](crate::ErrorKind::Cancelled).
pub fn convert(
    source: &dyn Source,
    writer: &mut dyn ImageWriter,
    options: &Options<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Stats> {
    let threads = options.threads.max(1);
    let plan = Mutex::new(Plan::new(source, writer.cluster_size(), options));
    let target = worker::Target {
        cluster_size: writer.cluster_size(),
        skips_zeros: writer.skips_zeros(),
    };
    let window = Window::new(threads * 2 + 2);
    let spare = Mutex::new(Vec::new());
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|number| format!("qimg-worker-{number}"))
        .build()
        .map_err(|error| Error::io("start worker threads", std::io::Error::other(error)))?;
    pool.in_place_scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..threads {
            let sender = sender.clone();
            let (plan, window, spare) = (&plan, &window, &spare);
            scope.spawn(move |_| {
                let _guard = window.close_on_panic();
                work(source, options, target, plan, window, spare, &sender);
            });
        }
        drop(sender);
        let mut stats = Stats::default();
        let mut verifier = Verifier::new(target.cluster_size, options.encoding);
        let result = window.in_order(&receiver, |output: Output| {
            if options.cancel.load(Ordering::Relaxed) {
                return Err(Error::cancelled());
            }
            commit(source, writer, &output, &mut verifier)?;
            stats.add(&output.stats);
            progress(Progress {
                guest: output.end,
                stats,
            });
            recycle(&spare, output);
            Ok(())
        });
        result.map(|()| stats)
    })
}

type Numbered = (u64, Result<Output>);

fn work(
    source: &dyn Source,
    options: &Options<'_>,
    target: worker::Target,
    plan: &Mutex<Plan<'_>>,
    window: &Window,
    spare: &Mutex<Vec<Vec<u8>>>,
    sender: &mpsc::Sender<Numbered>,
) {
    let mut worker = match Worker::new(source, options, target) {
        Ok(worker) => worker,
        Err(error) => {
            // Takes a number of its own, so that the failure is seen in its turn.
            if let Ok(mut plan) = plan.lock() {
                let _ = sender.send((plan.take_number(), Err(error)));
            }
            return;
        }
    };
    loop {
        let (number, item) = {
            let Ok(mut plan) = plan.lock() else { return };
            match plan.next() {
                None => return,
                Some(numbered) => numbered,
            }
        };
        if !window.wait_for(number) || options.cancel.load(Ordering::Relaxed) {
            let _ = sender.send((number, Err(Error::cancelled())));
            return;
        }
        let buffer = spare
            .lock()
            .ok()
            .and_then(|mut spare| spare.pop())
            .unwrap_or_default();
        let output = item.and_then(|item| worker.run(&item, buffer));
        let failed = output.is_err();
        if sender.send((number, output)).is_err() || failed {
            return;
        }
    }
}

fn commit(
    source: &dyn Source,
    writer: &mut dyn ImageWriter,
    output: &Output,
    verifier: &mut Verifier,
) -> Result<()> {
    for part in &output.parts {
        match part {
            Part::Zero(range) => writer.write_zeros(range.clone())?,
            Part::Data {
                guest,
                bytes,
                origin,
            } => {
                let origin = origin.and_then(|(depth, host)| {
                    source.data_store(depth).map(|store| Origin { store, host })
                });
                writer.write_data(*guest, &output.bytes[bytes.clone()], origin)?;
            }
            Part::Compressed(clusters) => {
                let clusters = &output.clusters[clusters.clone()];
                writer.write_compressed(clusters, &output.bytes, &mut |stream| {
                    verifier.is_whole(stream)
                })?;
            }
        }
    }
    Ok(())
}

/// Decodes streams that were copied unseen, where the writer must know that they are complete.
struct Verifier {
    decoder: Decoder,
    codec: CompressionType,
    cluster: Vec<u8>,
}

impl Verifier {
    fn new(cluster_size: u64, encoding: Option<EncoderOptions>) -> Self {
        Self {
            decoder: Decoder::new(),
            codec: encoding.map_or(CompressionType::Zlib, |encoding| encoding.codec),
            cluster: vec![0; usize::try_from(cluster_size).unwrap_or(0)],
        }
    }

    fn is_whole(&mut self, stream: &[u8]) -> bool {
        self.decoder
            .decode_terminated(self.codec, stream, &mut self.cluster)
    }
}

fn recycle(spare: &Mutex<Vec<Vec<u8>>>, output: Output) {
    if let Ok(mut spare) = spare.lock() {
        spare.push(output.bytes);
    }
}

/// Bytes of `source` that are stored in some way: what there is to carry over.
///
/// # Errors
/// Metadata that cannot be read; [`Cancelled`](crate::ErrorKind::Cancelled).
pub fn stored_bytes(source: &dyn Source, cancel: &AtomicBool) -> Result<u64> {
    plan::stored_bytes(source, cancel)
}
