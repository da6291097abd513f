//! The disk of the machine, and the image that is made of it in the end.
//!
//! Knows overlays of a base, and the one pass that flattens, sparsifies and compresses. Must not know machines or templates'
//! dialects.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::alongside::alongside;
use crate::codec::{CompressionType, DeflateWindow, EncoderOptions};
use crate::communicator::Stop;
use crate::compress::{CompressRequest, Effort, compress};
use crate::convert::Reuse;
use crate::create::{CreateRequest, create};
use crate::error::{Error, Result};
use crate::image::options::Qcow2Options;
use crate::image::{BackingPolicy, Depth, Format, Image, OpenOptions, TargetOptions};
use crate::rewrite::{Bitmaps, RewriteRequest, rewrite};
use crate::store::{Locking, Sync};
use crate::survey::{SurveyRequest, survey};
use crate::template::model::{Codec, DiskFormat, Output};
use crate::units::ByteSize;
use crate::volume::Volume;

/// What a machine's disk starts from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The file; absolute.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// Its virtual size in bytes.
    pub virtual_size: u64,
}

/// Makes the machine's disk: an overlay of `origin`, or an empty one. Gives its virtual size in bytes.
///
/// # Errors
/// `size` is less than what the origin holds, or missing; the host's own.
pub fn make(path: &Path, origin: Option<&Origin>, size: Option<u64>) -> Result<u64> {
    if let (Some(origin), Some(size)) = (origin, size)
        && size < origin.virtual_size
    {
        return Err(Error::usage(format!(
            "the disk is to have {}, but what it starts from has {}",
            ByteSize(size),
            ByteSize(origin.virtual_size)
        ))
        .with_remedy("give a disk size that is no smaller, or none: a disk is not cut")
        .at_path(&origin.path));
    }
    let backing = origin
        .map(|origin| {
            let name = origin.path.to_str().ok_or_else(|| {
                Error::usage("has a name that is not UTF-8, which no overlay can record")
                    .at_path(&origin.path)
            })?;
            Ok::<_, Error>((name.to_owned(), origin.format.to_string()))
        })
        .transpose()?;
    let size = size.or(origin.map(|origin| origin.virtual_size));
    let request = CreateRequest {
        path: path.to_owned(),
        size,
        target: TargetOptions {
            format: Format::Qcow2,
            qcow2: Qcow2Options {
                backing,
                ..Qcow2Options::default()
            },
            existing: false,
            // It is of no use after a power loss.
            sync: Sync::None,
            locking: Locking::Check,
        },
        unchecked_backing: true,
    };
    Ok(create(&request)?.virtual_size)
}

/// What became of the machine's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Size of the disk in bytes.
    pub virtual_size: u64,
    /// Bytes of the image on the host.
    pub disk_size: u64,
    /// Bytes that were dropped because the guest's filesystems do not use them.
    pub dropped: u64,
}

/// Makes the image `to` of the machine's disk `from`, in one pass: flattened, without what the guest does not use,
/// compressed. `tell` takes bytes done and bytes in all.
///
/// # Errors
/// The disk cannot be read, the image cannot be written; cancelled.
pub fn finish(
    from: &Path,
    to: &Path,
    format: DiskFormat,
    output: &Output,
    threads: usize,
    stop: &Stop,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<Finished> {
    let options = OpenOptions {
        format: Some(Format::Qcow2),
        // The only name in it is the one that was put there for this build; a guest cannot change it.
        backing: BackingPolicy::Any,
        ..OpenOptions::default()
    };
    let source = Image::open(from, &options)?;
    let chain = source.chain(Depth::Chain, None)?;
    let free = if output.sparsify {
        let request = SurveyRequest {
            exact: false,
            replay_journal: false,
            keep: &[],
            zero: &[],
            vm_state: source.has_vm_state(),
        };
        Some(survey(&Volume::whole(&chain), &request).map_err(|error| error.at_path(from))?)
    } else {
        None
    };
    let free = free.as_ref().map(|survey| &survey.free);
    let dropped = free.map_or(0, |free| free.total());
    let codec = match output.codec {
        Codec::None => None,
        Codec::Zlib => Some(CompressionType::Zlib),
        Codec::Zstd => Some(CompressionType::Zstd),
    };
    let level = output
        .level
        .map(|level| {
            u8::try_from(level).map_err(|_| Error::usage(format!("there is no level {level}")))
        })
        .transpose()?;
    interruptible(stop, |cancel| {
        let mut progress =
            |step: crate::convert::Progress, total| tell(step.stats.stored_bytes, total);
        let rewritten = match (format, codec) {
            (DiskFormat::Qcow2, Some(codec)) => {
                let request = CompressRequest {
                    source: &source,
                    free,
                    destination: Some(to),
                    codec,
                    effort: level.map_or(Effort::Default, Effort::Level),
                    // Published images are compressed with a small window: what comes from the base is not left so.
                    window: (codec == CompressionType::Zlib).then_some(DeflateWindow::Full),
                    cluster_size: None,
                    flatten: true,
                    drop_snapshots: true,
                    drop_bitmaps: true,
                    existing: false,
                    threads,
                    sync: Sync::Full,
                };
                compress(&request, cancel, &mut progress)?.rewritten
            }
            (format, _) => {
                let request = RewriteRequest {
                    source: &source,
                    snapshot: None,
                    destination: to,
                    target: TargetOptions {
                        format: match format {
                            DiskFormat::Qcow2 => Format::Qcow2,
                            DiskFormat::Raw => Format::Raw,
                        },
                        qcow2: Qcow2Options::default(),
                        existing: false,
                        sync: Sync::Full,
                        locking: Locking::Check,
                    },
                    free,
                    overlay: false,
                    encoding: None::<EncoderOptions>,
                    reuse: Reuse::Copy,
                    bitmaps: Bitmaps::Leave,
                    sparse: 4096,
                    in_place: false,
                    threads,
                };
                rewrite(&request, cancel, &mut progress)?
            }
        };
        Ok(Finished {
            virtual_size: rewritten.virtual_size,
            disk_size: rewritten.disk_size,
            dropped,
        })
    })
}

/// Runs `work` with a flag that is raised when `stop` says so.
fn interruptible<T>(stop: &Stop, work: impl FnOnce(&AtomicBool) -> Result<T>) -> Result<T> {
    let cancel = AtomicBool::new(false);
    let look = || {
        let asked = stop();
        if asked {
            cancel.store(true, Ordering::Relaxed);
        }
        asked
    };
    alongside(look, || work(&cancel))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What shrinks somewhat by itself, and repeats itself at a distance of 24 KB.
    fn contents() -> Vec<u8> {
        let block: Vec<u8> = (0_u32..3000)
            .flat_map(|number| u64::from(number.wrapping_mul(2_654_435_761)).to_le_bytes())
            .collect();
        block.repeat(128)
    }

    #[test]
    fn a_base_compressed_with_a_small_window_is_compressed_better() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("raw"), contents()).unwrap();
        let options = OpenOptions {
            format: Some(Format::Raw),
            ..OpenOptions::default()
        };
        let raw = Image::open(at("raw"), &options).unwrap();
        let request = CompressRequest {
            source: &raw,
            free: None,
            destination: Some(&at("base")),
            codec: CompressionType::Zlib,
            effort: Effort::Default,
            window: Some(DeflateWindow::FourKiB),
            cluster_size: None,
            flatten: true,
            drop_snapshots: true,
            drop_bitmaps: true,
            existing: false,
            threads: 1,
            sync: Sync::None,
        };
        let base = compress(&request, &AtomicBool::new(false), &mut |_, _| ()).unwrap();
        let origin = Origin {
            path: at("base"),
            format: Format::Qcow2,
            virtual_size: base.rewritten.virtual_size,
        };
        make(&at("work"), Some(&origin), None).unwrap();
        let output = Output {
            directory: directory.path().to_owned(),
            name: "made".to_owned(),
            codec: Codec::Zlib,
            level: None,
            compact: true,
            sparsify: false,
        };
        let made = finish(
            &at("work"),
            &at("made"),
            DiskFormat::Qcow2,
            &output,
            1,
            &|| false,
            &mut |_, _| (),
        )
        .unwrap();
        assert_eq!(made.virtual_size, base.rewritten.virtual_size);
        assert!(made.disk_size * 4 < base.rewritten.disk_size * 3);
    }
}
