//! Options of commands that write to the image that they read.

use clap::Args;
use qimg::image::{BackingPolicy, Format, OpenOptions};
use qimg::store::Locking;

use super::typed;

/// How an image is opened that will be written.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reading")]
pub(crate) struct WriteArgs {
    /// Format of the image, raw or qcow2; taken from its first bytes when not given
    #[arg(short, long, value_name = "FMT", value_parser = typed::<Format>)]
    format: Option<Format>,

    /// Which files named inside the image may be opened: none (deny), those below the image's own directory (beside), or
    /// any
    #[arg(long, value_name = "POLICY", default_value = "deny", value_parser = typed::<BackingPolicy>)]
    backing: BackingPolicy,
}

impl WriteArgs {
    pub(crate) fn open_options(&self) -> OpenOptions {
        OpenOptions {
            format: self.format,
            backing: self.backing,
            locking: Locking::Check,
        }
    }
}
