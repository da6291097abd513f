//! `qimg check`.

use std::path::PathBuf;

use clap::Args;

use super::{InputArgs, ProgressArgs, ReportArgs, ThreadArgs};

/// Check an image's metadata
///
/// Counts the references to every cluster and compares them with the reference counts in the image. Guest data is not
/// read; the image is not changed. Findings go to stderr, the result to stdout.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(crate) struct CheckArgs {
    /// The image
    pub(crate) file: PathBuf,

    #[command(flatten)]
    pub(crate) input: InputArgs,

    #[command(flatten)]
    pub(crate) report: ReportArgs,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,

    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
}

const HELP: &str = "\
Examples:
  qimg check disk.qcow2
  qimg check --json disk.qcow2

Exit codes (as in qemu-img):
  0    no errors
  1    the check could not be done, or qimg was used wrongly
  2    corruptions: data may be damaged
  3    leaked clusters: a waste of space, no harm to data
  63   the format has nothing to check";
