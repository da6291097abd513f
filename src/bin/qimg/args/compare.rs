//! `qimg compare`.

use std::path::PathBuf;

use clap::Args;
use qimg::image::{BackingPolicy, Format};

use super::{ProgressArgs, ThreadArgs, typed};

/// Compare what a guest sees of two images
///
/// Formats, cluster sizes, compression and backing files make no difference. Where one image is longer, the rest must
/// read as zeros.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(crate) struct CompareArgs {
    /// One image
    #[arg(value_name = "A")]
    pub(crate) first: PathBuf,

    /// The other image
    #[arg(value_name = "B")]
    pub(crate) second: PathBuf,

    /// Format of A, raw or qcow2; taken from its first bytes when not given
    #[arg(short = 'f', long, value_name = "FMT", value_parser = typed::<Format>, help_heading = "Reading")]
    pub(crate) format: Option<Format>,

    /// Format of B
    #[arg(short = 'F', value_name = "FMT", value_parser = typed::<Format>, help_heading = "Reading")]
    pub(crate) second_format: Option<Format>,

    /// Read the images although another process may be writing to them
    #[arg(short = 'U', long, help_heading = "Reading")]
    pub(crate) force_share: bool,

    /// Which files named inside an image may be opened: deny, beside (below the image's own directory) or any
    #[arg(long, value_name = "POLICY", default_value = "deny", value_parser = typed::<BackingPolicy>,
          help_heading = "Reading")]
    pub(crate) backing: BackingPolicy,

    /// Sizes and allocation must be equal, too
    #[arg(short = 's', long)]
    pub(crate) strict: bool,

    /// List all ranges that differ, instead of ending at the first
    #[arg(long)]
    pub(crate) all: bool,

    /// Print the result as JSON
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,

    /// Print no result for people, and no progress
    #[arg(short, long, help_heading = "Output")]
    pub(crate) quiet: bool,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,

    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
}

const HELP: &str = "\
Examples:
  qimg compare disk.qcow2 disk.raw
  qimg compare -f raw -F qcow2 disk.raw disk.qcow2
  qimg compare --all old.qcow2 new.qcow2

Exit codes (as in qemu-img):
  0    the images are identical
  1    they differ; also: qimg was used wrongly
  2    an image could not be opened
  3    where an image holds data could not be found out
  4    data could not be read";
