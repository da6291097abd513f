//! `qimg inspect`.

use std::path::PathBuf;

use clap::Args;

use super::{InputArgs, ReportArgs};

/// Show what is on the disk: partitions, filesystems, systems, and how it boots
///
/// Reads partition tables, LVM2, filesystems and the files that tell which system is installed. Nothing is mounted and
/// nothing is written.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(crate) struct InspectArgs {
    /// The image
    pub(crate) image: PathBuf,

    /// Write a picture of the disk to FILE, as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    /// Use the journal of an ext4 filesystem that was not unmounted, in memory
    #[arg(long)]
    pub(crate) replay_journal: bool,

    /// Internal snapshot to read, by id or name
    #[arg(short = 'l', long, value_name = "SNAPSHOT")]
    pub(crate) snapshot: Option<String>,

    #[command(flatten)]
    pub(crate) input: InputArgs,

    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

const HELP: &str = "\
Examples:
  qimg inspect disk.qcow2
  qimg inspect --json disk.qcow2
  qimg inspect --svg disk.svg disk.qcow2
  qimg inspect --backing beside overlay.qcow2

Exit codes:
  0    done
  1    failed, or used wrongly";
