//! `qimg measure`.

use std::path::PathBuf;

use clap::Args;
use qimg::image::Format;
use qimg::units::ByteSize;

use super::{InputArgs, OptionList, ReportArgs, typed};

/// Calculate how large a converted image becomes, at most
///
/// Of an image, or of a new one of a given size. Compression is not part of the calculation: for that, see
/// `qimg compress --dry-run`.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(crate) struct MeasureArgs {
    /// The image
    #[arg(conflicts_with = "size")]
    pub(crate) file: Option<PathBuf>,

    /// Format of the converted image
    #[arg(short = 'O', value_name = "FMT", default_value = "raw", value_parser = typed::<Format>)]
    pub(crate) target_format: Format,

    /// Options of the converted image: key=value,key=value
    #[arg(short = 'o', value_name = "OPTIONS", value_parser = typed::<OptionList>)]
    pub(crate) options: Vec<OptionList>,

    /// Virtual size of a new image, instead of an image
    #[arg(long, value_name = "SIZE", value_parser = typed::<ByteSize>)]
    pub(crate) size: Option<ByteSize>,

    /// Internal snapshot to convert, by id or name
    #[arg(short = 'l', long, value_name = "SNAPSHOT", requires = "file")]
    pub(crate) snapshot: Option<String>,

    #[command(flatten)]
    pub(crate) input: InputArgs,

    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

const HELP: &str = "\
Examples:
  qimg measure -O qcow2 disk.raw
  qimg measure -O qcow2 -o cluster_size=2M --size 100G
  qimg measure --json -O raw -l before-upgrade disk.qcow2

Exit codes:
  0    done
  1    failed, or used wrongly";
