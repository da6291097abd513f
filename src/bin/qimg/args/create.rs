//! `qimg create`.

use std::path::PathBuf;

use clap::Args;
use qimg::image::Format;
use qimg::units::ByteSize;

use super::{OptionList, typed};

/// Create an empty image, or an overlay on another one
///
/// A file of that name is replaced when the new image is complete.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(crate) struct CreateArgs {
    /// The new image
    pub(crate) file: PathBuf,

    /// Virtual size: bytes, or a number with k, M, G, T, P or E; that of the backing file when not given
    #[arg(value_parser = typed::<ByteSize>)]
    pub(crate) size: Option<ByteSize>,

    /// Format of the new image
    #[arg(short, long, value_name = "FMT", default_value = "raw", value_parser = typed::<Format>)]
    pub(crate) format: Format,

    /// Options of the new image: key=value,key=value; -o help lists them
    #[arg(short, value_name = "OPTIONS", value_parser = typed::<OptionList>)]
    pub(crate) options: Vec<OptionList>,

    /// Backing file; a relative name starts at the new image's directory
    #[arg(short, long, value_name = "FILE", requires = "backing_format")]
    pub(crate) backing: Option<String>,

    /// Format of the backing file
    #[arg(short = 'F', long, value_name = "FMT", requires = "backing")]
    pub(crate) backing_format: Option<String>,

    /// Do not open the backing file
    #[arg(short = 'u', long)]
    pub(crate) unsafe_backing: bool,

    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Print nothing
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

const HELP: &str = "\
Examples:
  qimg create -f qcow2 disk.qcow2 100G
  qimg create -f qcow2 -o cluster_size=2M,preallocation=metadata disk.qcow2 1T
  qimg create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2

Exit codes:
  0    done
  1    failed, or used wrongly";
