//! Sparsify and recompress: an image into a smaller one with the same contents.
//!
//! Knows what may be lost on the way and asks for the user's word before:
//! snapshots, bitmaps, a backing chain. Joins [`rewrite`](crate::rewrite) with
//! the choices that suit a published image.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use crate::codec::{CompressionType, DeflateWindow, EncoderOptions};
use crate::convert::Reuse;
use crate::error::{Error, Result};
use crate::free::FreeMap;
use crate::image::options::Qcow2Options;
use crate::image::{Format, Image, TargetOptions};
use crate::rewrite::{Bitmaps, OnProgress, RewriteRequest, Rewritten, estimate, rewrite};
use crate::store::{Locking, Sync};

/// How hard to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effort {
    /// Level 6 of zlib, 4 of zstd, 6 of zstd for clusters of 1 MiB and more; streams that fit are copied.
    #[default]
    Default,
    /// This level; streams that fit are encoded again and the shorter one kept.
    Level(u8),
    /// The codec's highest level.
    Best,
}

/// What `compress` shall do.
#[derive(Debug, Clone)]
pub struct CompressRequest<'a> {
    /// Where from.
    pub source: &'a Image,
    /// Guest ranges to drop, because nothing in the guest uses them.
    pub free: Option<&'a FreeMap>,
    /// Where to; `None` replaces the source itself.
    pub destination: Option<&'a Path>,
    /// How clusters are encoded.
    pub codec: CompressionType,
    /// How hard to try.
    pub effort: Effort,
    /// How far back-references of deflate may reach; `None` takes 32 KiB and leaves streams that fit alone.
    pub window: Option<DeflateWindow>,
    /// Bytes of a cluster; the source's own, or 64 KiB from raw, when absent.
    pub cluster_size: Option<u64>,
    /// Merge an overlay with its backing chain.
    pub flatten: bool,
    /// Lose internal snapshots.
    pub drop_snapshots: bool,
    /// Lose persistent bitmaps.
    pub drop_bitmaps: bool,
    /// Write into the image or block device that is there.
    pub existing: bool,
    /// Worker threads.
    pub threads: usize,
    /// What must have happened before the result is called done.
    pub sync: Sync,
}

/// What `compress` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Compressed {
    /// Sizes and counts.
    #[serde(flatten)]
    pub rewritten: Rewritten,
    /// The codec's name.
    pub codec: String,
    /// Bytes of a cluster of the new image.
    pub cluster_size: u64,
    /// Internal snapshots that were dropped.
    pub dropped_snapshots: usize,
    /// Persistent bitmaps that were dropped.
    pub dropped_bitmaps: u32,
    /// The backing file that the new image needs.
    pub backing_file: Option<String>,
}

/// Compresses an image.
///
/// # Errors
/// Something would be lost without the user's word; whatever [`rewrite`] may fail with.
pub fn compress(
    request: &CompressRequest<'_>,
    cancel: &AtomicBool,
    progress: &mut OnProgress<'_>,
) -> Result<Compressed> {
    let source = request.source;
    if request.destination.is_none() && source.format() == Format::Raw {
        return Err(Error::refused(
            "is a raw image; compressing it in place would change its format",
            "name a destination for the qcow2 image",
        )
        .at_path(source.path()));
    }
    if request.destination.is_none() {
        source.refuse_replacement(request.threads, cancel)?;
    }
    run(request, cancel, progress, rewrite)
}

/// What [`compress`] would do, without writing a byte.
///
/// # Errors
/// As [`compress`].
pub fn dry_run(
    request: &CompressRequest<'_>,
    cancel: &AtomicBool,
    progress: &mut OnProgress<'_>,
) -> Result<Compressed> {
    run(request, cancel, progress, estimate)
}

type Run = fn(&RewriteRequest<'_>, &AtomicBool, &mut OnProgress<'_>) -> Result<Rewritten>;

fn run(
    request: &CompressRequest<'_>,
    cancel: &AtomicBool,
    progress: &mut OnProgress<'_>,
    run: Run,
) -> Result<Compressed> {
    let source = request.source;
    refuse_losses(request)?;
    let destination = request.destination.unwrap_or(source.path());
    let backing = kept_backing(request, destination)?;
    let source_options = source.qcow2_options();
    let cluster_size = request
        .cluster_size
        .or(source_options.as_ref().map(|options| options.cluster_size))
        .unwrap_or(1 << 16);
    let encoding = encoding(request, cluster_size);
    let qcow2 = Qcow2Options {
        cluster_size,
        compression_type: request.codec,
        lazy_refcounts: source_options.is_some_and(|options| options.lazy_refcounts),
        backing: backing.clone(),
        ..Qcow2Options::default()
    };
    let rewrite = RewriteRequest {
        source,
        snapshot: None,
        free: request.free,
        destination,
        overlay: backing.is_some(),
        encoding: Some(encoding),
        reuse: if request.effort == Effort::Default && request.window.is_none() {
            Reuse::Copy
        } else {
            Reuse::KeepSmaller
        },
        bitmaps: Bitmaps::Leave,
        sparse: 4096,
        threads: request.threads,
        in_place: request.destination.is_none(),
        target: TargetOptions {
            format: Format::Qcow2,
            qcow2,
            existing: request.existing,
            sync: request.sync,
            // In place, the lock on the source is the lock on the destination.
            locking: if request.destination.is_none() {
                Locking::Ignore
            } else {
                Locking::Check
            },
        },
    };
    let rewritten = run(&rewrite, cancel, progress)?;
    Ok(Compressed {
        rewritten,
        codec: request.codec.to_string(),
        cluster_size: rewrite.target.qcow2.cluster_size,
        dropped_snapshots: source.snapshot_count(),
        dropped_bitmaps: source.bitmap_count(),
        backing_file: backing.map(|(name, _)| name),
    })
}

fn refuse_losses(request: &CompressRequest<'_>) -> Result<()> {
    let source = request.source;
    let snapshots = source.snapshot_count();
    if snapshots > 0 && !request.drop_snapshots {
        return Err(Error::refused(
            format!("has {snapshots} internal snapshot(s), which the new image would not have"),
            "drop them with --drop-snapshots, or take one out with `qimg convert -l SNAPSHOT`",
        )
        .at_path(source.path()));
    }
    let bitmaps = source.bitmap_count();
    if bitmaps > 0 && !request.drop_bitmaps {
        return Err(Error::refused(
            format!("has {bitmaps} persistent bitmap(s), which the new image would not have"),
            "drop them with --drop-bitmaps, or keep them with `qimg convert -c --bitmaps`",
        )
        .at_path(source.path()));
    }
    if request.window.is_some() && request.codec != CompressionType::Zlib {
        return Err(Error::usage("--window concerns zlib only"));
    }
    Ok(())
}

fn encoding(request: &CompressRequest<'_>, cluster_size: u64) -> EncoderOptions {
    let window = request.window.unwrap_or_default();
    let level = match request.effort {
        // A window of a megabyte or more pays for a closer search.
        Effort::Default if request.codec == CompressionType::Zstd && cluster_size >= 1 << 20 => {
            Some(6)
        }
        Effort::Default => None,
        Effort::Level(level) => Some(level),
        Effort::Best => Some(match (request.codec, window) {
            (CompressionType::Zlib, DeflateWindow::Full) => 12,
            (CompressionType::Zlib, DeflateWindow::FourKiB) => 9,
            (CompressionType::Zstd, _) => 22,
        }),
    };
    EncoderOptions {
        codec: request.codec,
        level,
        window,
    }
}

/// The backing file that the new image names, if it stays an overlay.
fn kept_backing(
    request: &CompressRequest<'_>,
    destination: &Path,
) -> Result<Option<(String, String)>> {
    let source = request.source;
    let Some((name, format)) = source.backing_file() else {
        return Ok(None);
    };
    if request.flatten {
        return Ok(None);
    }
    let format = format.ok_or_else(|| {
        Error::refused(
            format!("the format of its backing file '{name}' is not recorded"),
            "record it with `qemu-img rebase -u -F FORMAT -b NAME`, or merge both with --flatten",
        )
        .at_path(source.path())
    })?;
    Ok(Some((
        relocated(name, source.path(), destination),
        format.to_owned(),
    )))
}

/// A relative backing file name refers to the directory of the image that holds it: in another directory the same file
/// has another name.
fn relocated(name: &str, from: &Path, to: &Path) -> String {
    let directory = |path: &Path| -> Option<PathBuf> {
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        parent.unwrap_or(Path::new(".")).canonicalize().ok()
    };
    let (Some(old), Some(new)) = (directory(from), directory(to)) else {
        return name.to_owned();
    };
    if old == new || Path::new(name).is_absolute() || crate::image::is_protocol(name) {
        return name.to_owned();
    }
    old.join(name).to_string_lossy().into_owned()
}
