//! One image into another: what `convert` and `compress` have in common.
//!
//! Joins images, the data path and the target. Knows no format's insides.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::codec::EncoderOptions;
use crate::convert::{self, Options, Progress, Reuse, Stats};
use crate::error::{Error, Result};
use crate::free::FreeMap;
use crate::image::options::Preallocation;
use crate::image::{Chain, Depth, Format, Image, Target, TargetOptions};
use crate::prune::Pruned;
use crate::source::Source;

/// What becomes of persistent bitmaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bitmaps {
    /// They stay behind.
    #[default]
    Leave,
    /// All are carried over; an inconsistent one is an error.
    Copy,
    /// All consistent ones are carried over.
    SkipBroken,
}

/// How an image is carried into another.
#[derive(Debug, Clone)]
pub struct RewriteRequest<'a> {
    /// Where from.
    pub source: &'a Image,
    /// Internal snapshot to read instead of the active disk, by id or name.
    pub snapshot: Option<&'a str>,
    /// Where to.
    pub destination: &'a Path,
    /// What to write there.
    pub target: TargetOptions,
    /// Guest ranges that are to read as zeros, because nothing in the guest uses them.
    pub free: Option<&'a FreeMap>,
    /// Leave to the target's backing file what the source's top layer leaves to its own.
    pub overlay: bool,
    /// The encoding of compressed clusters; none are written without.
    pub encoding: Option<EncoderOptions>,
    /// What happens to streams that could stay.
    pub reuse: Reuse,
    /// What happens to bitmaps.
    pub bitmaps: Bitmaps,
    /// Aligned runs of so many zero bytes become holes; 0 writes everything out.
    pub sparse: usize,
    /// The source is its own destination, and will be replaced as a whole.
    pub in_place: bool,
    /// Worker threads.
    pub threads: usize,
}

/// What a rewrite did. Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rewritten {
    /// Size of the virtual disk.
    pub virtual_size: u64,
    /// Bytes the source's file holds on the host.
    pub source_disk_size: u64,
    /// Bytes the new file holds on the host.
    pub disk_size: u64,
    /// Length of the new file.
    pub file_length: u64,
    /// Compressed clusters that share the stream of another one.
    pub shared_clusters: u64,
    /// What happened to the contents.
    pub contents: Stats,
}

/// Progress beside the number of stored bytes that there are.
pub type OnProgress<'a> = dyn FnMut(Progress, u64) + 'a;

/// Carries the contents of one image into a new one.
///
/// # Errors
/// Whatever opening, reading, decoding, encoding and writing may fail with; the destination is then what it was.
pub fn rewrite(
    request: &RewriteRequest<'_>,
    cancel: &AtomicBool,
    progress: &mut OnProgress<'_>,
) -> Result<Rewritten> {
    let chain = open_chain(request)?;
    check(request)?;
    if !request.in_place {
        chain.refuse_destination(request.destination)?;
    }
    if let Some(name) = &request.target.qcow2.data_file {
        let directory = request.destination.parent().unwrap_or(Path::new(""));
        chain.refuse_destination(&directory.join(name))?;
    }
    let compresses = request.encoding.is_some();
    let size = chain.virtual_size();
    let target = Target::create(request.destination, size, &target_of(request), compresses)?;
    carry(request, &chain, target, cancel, progress)
}

/// What [`rewrite`] would do, without writing a byte.
///
/// Streams that seem the same by their checksums are taken for the same here.
///
/// # Errors
/// As [`rewrite`], but for writing.
pub fn estimate(
    request: &RewriteRequest<'_>,
    cancel: &AtomicBool,
    progress: &mut OnProgress<'_>,
) -> Result<Rewritten> {
    let chain = open_chain(request)?;
    check(request)?;
    let target = Target::imagine(chain.virtual_size(), &target_of(request))?;
    carry(request, &chain, target, cancel, progress)
}

/// What is written, for the codec with which it is.
fn target_of(request: &RewriteRequest<'_>) -> TargetOptions {
    let mut target = request.target.clone();
    if let Some(encoding) = request.encoding {
        target.qcow2.compression_type = encoding.codec;
    }
    target
}

fn carry(
    request: &RewriteRequest<'_>,
    chain: &Chain,
    mut target: Target,
    cancel: &AtomicBool,
    progress: &mut OnProgress<'_>,
) -> Result<Rewritten> {
    // What a source without a backing file leaves out reads as zeros, whatever is below the target.
    let overlay = request.overlay && request.source.backing_file().is_some();
    let options = Options {
        threads: request.threads,
        encoding: request.encoding,
        reuse: request.reuse,
        overlay,
        sparse: request.sparse,
        share: request.encoding.is_none() && chain.all_shared_with(&target)?,
        cancel,
    };
    let nothing = FreeMap::default();
    let pruned = Pruned::new(chain, request.free.unwrap_or(&nothing), overlay);
    let source: &dyn Source = if request.free.is_some() {
        &pruned
    } else {
        chain
    };
    let total = convert::stored_bytes(source, cancel)?;
    let contents = convert::convert(source, target.writer(), &options, &mut |step| {
        progress(step, total);
    })?;
    if let (Some(source), true) = (request.source.qcow2(), request.bitmaps != Bitmaps::Leave) {
        target.add_bitmaps(source, request.bitmaps == Bitmaps::SkipBroken)?;
    }
    if cancel.load(Ordering::Relaxed) {
        return Err(Error::cancelled());
    }
    let (written, disk_size) = target.finish()?;
    Ok(Rewritten {
        virtual_size: chain.virtual_size(),
        source_disk_size: request.source.store().allocated_bytes()?,
        disk_size,
        file_length: written.file_length,
        shared_clusters: written.shared_clusters,
        contents,
    })
}

/// The source's view: an overlay whose backing file may not be opened is read as far as it goes.
fn open_chain(request: &RewriteRequest<'_>) -> Result<Chain> {
    let denied = request.source.backing_policy() == crate::image::BackingPolicy::Deny;
    let depth = if request.overlay && denied {
        Depth::Top
    } else {
        Depth::Chain
    };
    let chain = request.source.chain(depth, request.snapshot)?;
    chain.refuse_encrypted()?;
    Ok(chain)
}

fn check(request: &RewriteRequest<'_>) -> Result<()> {
    let options = &request.target.qcow2;
    let raw = request.target.format == Format::Raw;
    if request.encoding.is_some() {
        if raw {
            return Err(Error::usage("a raw image cannot be compressed")
                .with_remedy("write qcow2 with -O qcow2"));
        }
        if options.data_file.is_some() {
            return Err(Error::usage(
                "an image with an external data file cannot be compressed",
            ));
        }
        if options.preallocation != Preallocation::Off {
            return Err(Error::usage(
                "compression and preallocation exclude each other",
            ));
        }
    }
    if request.overlay && raw {
        return Err(Error::usage("a raw image has no backing file"));
    }
    if request.bitmaps != Bitmaps::Leave && request.free.is_some() {
        return Err(Error::usage(
            "a bitmap would not tell of the free blocks that are dropped",
        ));
    }
    if request.bitmaps != Bitmaps::Leave && raw {
        return Err(Error::usage("a raw image holds no bitmaps"));
    }
    Ok(())
}
