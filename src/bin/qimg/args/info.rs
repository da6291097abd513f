//! `qimg info`.

use std::path::PathBuf;

use clap::Args;

use super::{InputArgs, ReportArgs, ThreadArgs};

/// Show what an image is
///
/// Opens no other file and reads no guest data. --backing-chain opens the backing files too, if --backing allows it.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(crate) struct InfoArgs {
    /// The image
    pub(crate) file: PathBuf,

    /// Go on with the backing file, its backing file, and so on
    #[arg(long)]
    pub(crate) backing_chain: bool,

    /// Count the image's clusters by kind, which reads all its tables
    #[arg(long)]
    pub(crate) clusters: bool,

    #[command(flatten)]
    pub(crate) input: InputArgs,

    #[command(flatten)]
    pub(crate) report: ReportArgs,

    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
}

const HELP: &str = "\
Examples:
  qimg info disk.qcow2
  qimg info --json disk.qcow2
  qimg info --backing-chain --backing beside overlay.qcow2
  qimg info --clusters disk.qcow2

Exit codes:
  0    done
  1    failed, or used wrongly";
