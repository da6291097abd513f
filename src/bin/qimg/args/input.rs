//! Options of every command that reads an image.

use clap::Args;
use qimg::image::{BackingPolicy, Format, OpenOptions};
use qimg::store::Locking;

use super::typed;

/// How an image is opened.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reading")]
pub(crate) struct InputArgs {
    /// Format of the image, raw or qcow2; taken from its first bytes when not given
    #[arg(short, long, value_name = "FMT", value_parser = typed::<Format>)]
    pub(crate) format: Option<Format>,

    /// Read the image although another process may be writing to it
    #[arg(short = 'U', long)]
    pub(crate) force_share: bool,

    /// Which files named inside an image may be opened: none (deny), those below the image's own directory (beside), or
    /// any
    #[arg(long, value_name = "POLICY", default_value = "deny", value_parser = typed::<BackingPolicy>)]
    pub(crate) backing: BackingPolicy,
}

impl InputArgs {
    pub(crate) fn open_options(&self) -> OpenOptions {
        OpenOptions {
            format: self.format,
            backing: self.backing,
            locking: self.locking(),
        }
    }

    pub(crate) fn locking(&self) -> Locking {
        if self.force_share {
            Locking::Ignore
        } else {
            Locking::Check
        }
    }
}
