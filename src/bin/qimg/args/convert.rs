//! `qimg convert`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use qimg::codec::CompressionType;
use qimg::image::Format;
use qimg::units::ByteSize;

use super::output::thread_count;
use super::{FreeSpaceArgs, InputArgs, OptionList, ProgressArgs, typed};

/// Convert an image to another format, with other options
///
/// The destination appears under its name when it is complete. Internal snapshots stay behind.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(crate) struct ConvertArgs {
    /// The image to read
    #[arg(value_name = "SRC")]
    pub(crate) source: PathBuf,

    /// The image to write
    #[arg(value_name = "DST")]
    pub(crate) destination: PathBuf,

    /// Format of the new image, raw or qcow2 [default: as DST's extension says; raw if that says nothing]
    #[arg(short = 'O', value_name = "FMT", value_parser = typed::<Format>)]
    target_format: Option<Format>,

    /// Options of the new image: key=value,key=value
    #[arg(short = 'o', value_name = "OPTIONS", value_parser = typed::<OptionList>)]
    pub(crate) options: Vec<OptionList>,

    /// Compress, with the codec that the options name
    #[arg(short = 'c')]
    pub(crate) compress: bool,

    /// Compress with this codec (zlib, zstd), or not at all (none)
    #[arg(long, value_name = "CODEC", value_parser = codec)]
    pub(crate) codec: Option<Codec>,

    /// Effort of compression: zlib 1 to 12, zstd 1 to 22
    #[arg(long, value_name = "N")]
    pub(crate) level: Option<u8>,

    /// Internal snapshot to read, by id or name
    #[arg(short = 'l', long, value_name = "SNAPSHOT")]
    pub(crate) snapshot: Option<String>,

    /// Write an overlay on this backing file: what SRC leaves to its own backing file is left to it
    #[arg(short = 'B', value_name = "FILE", requires = "backing_format")]
    pub(crate) target_backing: Option<String>,

    /// Format of the backing file
    #[arg(short = 'F', value_name = "FMT", requires = "target_backing")]
    pub(crate) backing_format: Option<String>,

    /// Write into the image or block device that is there
    #[arg(short = 'n')]
    pub(crate) existing: bool,

    /// Carry over persistent bitmaps
    #[arg(long)]
    pub(crate) bitmaps: bool,

    /// With --bitmaps: leave out bitmaps that are inconsistent
    #[arg(long, requires = "bitmaps")]
    pub(crate) skip_broken_bitmaps: bool,

    /// Runs of so many zero bytes become holes; 0 writes everything
    #[arg(short = 'S', value_name = "SIZE", default_value = "4k", value_parser = typed::<ByteSize>)]
    pub(crate) sparse: ByteSize,

    /// Drop what the guest's filesystems do not use: it reads as zeros in DST
    #[arg(long, conflicts_with = "bitmaps")]
    pub(crate) sparsify: bool,

    #[command(flatten)]
    pub(crate) free_space: FreeSpaceArgs,

    /// Return before the new image is safe from a power failure
    #[arg(long)]
    pub(crate) no_sync: bool,

    #[command(flatten)]
    pub(crate) input: InputArgs,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,

    /// Print no progress
    #[arg(short, long, help_heading = "Output")]
    pub(crate) quiet: bool,

    /// Worker threads [default: one for each core]
    #[arg(
        long,
        visible_short_alias = 'm',
        value_name = "N",
        help_heading = "Work"
    )]
    threads: Option<NonZeroUsize>,

    /// Accepted and without effect: qimg is always parallel, and what it writes is always the same
    #[arg(short = 'W', help_heading = "Work")]
    out_of_order: bool,
}

impl ConvertArgs {
    /// The format that was asked for, or that the destination's name stands for.
    pub(crate) fn target_format(&self) -> qimg::Result<Format> {
        if let Some(format) = self.target_format {
            return Ok(format);
        }
        format_of_name(&self.destination)
    }

    pub(crate) fn thread_count(&self) -> usize {
        thread_count(self.threads)
    }
}

/// The format that a file's name stands for.
pub(crate) fn format_of_name(path: &Path) -> qimg::Result<Format> {
    let extension = path.extension().and_then(|text| text.to_str());
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("qcow2" | "qcow") => Ok(Format::Qcow2),
        Some(other @ ("vmdk" | "vhd" | "vhdx" | "vpc" | "vdi" | "qed")) => {
            Err(qimg::Error::unsupported(format!(
                "'.{other}' stands for a format that qimg does not write"
            ))
            .with_remedy("write -O qcow2 or -O raw"))
        }
        _ => Ok(Format::Raw),
    }
}

/// A codec, or the word that there shall be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    None,
    Use(CompressionType),
}

fn codec(text: &str) -> Result<Codec, String> {
    match text {
        "none" => Ok(Codec::None),
        _ => typed(text).map(Codec::Use),
    }
}

const HELP: &str = "\
Examples:
  qimg convert disk.qcow2 disk.raw
  qimg convert -c --codec zstd --level 9 disk.raw disk.qcow2
  qimg convert -l before-upgrade disk.qcow2 old.qcow2
  qimg convert -B base.qcow2 -F qcow2 overlay.qcow2 copy.qcow2
  qimg convert --sparsify --keep 2 disk.qcow2 disk.raw
  qimg convert -n -O raw disk.qcow2 /dev/vg/volume

Exit codes:
  0    done
  1    failed, or used wrongly; the destination is what it was (but not with -n)
  129, 130, 143   ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM";
