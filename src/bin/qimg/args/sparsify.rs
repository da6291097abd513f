//! `qimg sparsify`.

use std::path::PathBuf;

use clap::Args;
use qimg::image::{BackingPolicy, Format, OpenOptions};
use qimg::store::Locking;

use super::{FreeSpaceArgs, ProgressArgs, ReportArgs, ThreadArgs, typed};

/// Drop free and zero clusters from an image, in place
///
/// Writes to IMAGE itself: clusters that the guest does not use, and clusters of zeros, lose their place in the file, whose
/// space goes back to the host. No second copy is made, and compressed clusters stay as they are. The image must not be
/// in use. Whatever ends the work at any moment, the image stays sound; running it again finishes what was begun.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(crate) struct SparsifyArgs {
    /// The image, which is written
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,

    /// Write nothing; say what would be dropped
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Keep every guest-visible byte: drop zeros alone, whatever the guest's filesystems say
    #[arg(long, conflicts_with_all = ["keep", "replay_journal"])]
    pub(crate) exact: bool,

    /// Drop free clusters alone, without reading the data to look for zeros
    #[arg(long, conflicts_with = "exact")]
    pub(crate) keep_zeros: bool,

    /// Return before the result is safe from a power failure; the image stays sound in any case
    #[arg(long)]
    pub(crate) no_sync: bool,

    #[command(flatten)]
    pub(crate) free_space: FreeSpaceArgs,

    /// Format of the image, raw or qcow2; taken from its first bytes when not given
    #[arg(short, long, value_name = "FMT", value_parser = typed::<Format>, help_heading = "Reading")]
    pub(crate) format: Option<Format>,

    /// Which files named inside the image may be opened: none (deny), those below the image's own directory (beside), or
    /// any; an external data file is written, too, a backing file never
    #[arg(long, value_name = "POLICY", default_value = "deny", value_parser = typed::<BackingPolicy>,
          help_heading = "Reading")]
    pub(crate) backing: BackingPolicy,

    #[command(flatten)]
    pub(crate) report: ReportArgs,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,

    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
}

impl SparsifyArgs {
    /// An image that is written is always held: there is no --force-share.
    pub(crate) fn open_options(&self) -> OpenOptions {
        OpenOptions {
            format: self.format,
            backing: self.backing,
            locking: Locking::Check,
        }
    }
}

const HELP: &str = "\
Examples:
  qimg sparsify disk.qcow2
  qimg sparsify --dry-run disk.qcow2
  qimg sparsify --exact -f raw disk.raw
  qimg sparsify --backing beside overlay.qcow2

Exit codes:
  0    done
  1    failed, or used wrongly; the image is sound, and what it was unless writing failed
  129, 130, 143   ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM; the image is sound";
