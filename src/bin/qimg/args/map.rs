//! `qimg map`.

use std::path::PathBuf;

use clap::Args;
use qimg::units::ByteSize;

use super::{InputArgs, ReportArgs, typed};

/// Show where guest data is stored
///
/// Lists the ranges of the virtual disk that hold data, with the file and the offset they are read from. --json lists
/// all ranges, also those that read as zeros. Without --backing, what is left to a backing file is not followed.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(crate) struct MapArgs {
    /// The image
    pub(crate) file: PathBuf,

    /// A picture of the disk instead: data, compressed, free, zero, by part
    #[arg(long, conflicts_with_all = ["start_offset", "max_length"])]
    pub(crate) usage: bool,

    /// First guest offset to show
    #[arg(short, long, value_name = "OFFSET", value_parser = typed::<ByteSize>)]
    pub(crate) start_offset: Option<ByteSize>,

    /// Length of the range to show
    #[arg(short = 'l', long, value_name = "LENGTH", value_parser = typed::<ByteSize>)]
    pub(crate) max_length: Option<ByteSize>,

    #[command(flatten)]
    pub(crate) input: InputArgs,

    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

const HELP: &str = "\
Examples:
  qimg map disk.qcow2
  qimg map --json --start-offset 1G --max-length 64M disk.qcow2
  qimg map --backing beside overlay.qcow2
  qimg map --usage disk.qcow2

Exit codes:
  0    done
  1    failed, or used wrongly

qemu-img gives up at the first compressed cluster; qimg says \"compressed\" in place of the host offset.";
