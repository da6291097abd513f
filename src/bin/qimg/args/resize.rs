//! `qimg resize`.

use std::path::PathBuf;

use clap::Args;
use qimg::resize::NewSize;

use super::{ReportArgs, ThreadArgs, WriteArgs, typed};

/// Give an image's disk another size, in place
///
/// What is added reads as zeros; partitions and filesystems stay as they are: `qimg disk grow` mends a GPT as well. What is
/// cut off is lost: that needs --shrink, and is refused when a partition, or a filesystem without a table, would be cut.
/// The image must not be in use, and is sound whenever the work ends.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(crate) struct ResizeArgs {
    /// The image, which is written
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,

    /// The size: bytes, or a number with k, M, G, T, P or E; with + so much more, with - so much less
    #[arg(value_name = "[+-]SIZE", allow_hyphen_values = true, value_parser = typed::<NewSize>)]
    pub(crate) size: NewSize,

    /// Let the disk become smaller
    #[arg(long)]
    pub(crate) shrink: bool,

    /// Space for what is added: off, the only kind that there is
    #[arg(long, value_name = "MODE", default_value = "off", value_parser = ["off"], hide_short_help = true)]
    preallocation: String,

    #[command(flatten)]
    pub(crate) write: WriteArgs,

    #[command(flatten)]
    pub(crate) report: ReportArgs,

    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
}

const HELP: &str = "\
Examples:
  qimg resize disk.qcow2 100G
  qimg resize disk.qcow2 +10G
  qimg resize --shrink disk.raw 8G

Exit codes:
  0    done
  1    failed, or used wrongly; the image is sound";
