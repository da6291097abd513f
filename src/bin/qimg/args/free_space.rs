//! Options of every command that drops what a guest does not use.

use clap::Args;
use qimg::survey::Selector;

use super::typed;

/// What counts as free.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Free space")]
pub(crate) struct FreeSpaceArgs {
    /// Keep this part whole: a number (3), a device (sda3), a logical volume (vg/lv), LABEL=, UUID=, PARTLABEL=, PARTUUID=,
    /// or disk; may be repeated
    #[arg(long, value_name = "PART", value_parser = typed::<Selector>)]
    pub(crate) keep: Vec<Selector>,

    /// Empty this part, named as for --keep: all of it reads as zeros in the result; may be repeated
    #[arg(long, value_name = "PART", value_parser = typed::<Selector>)]
    pub(crate) zero: Vec<Selector>,

    /// Use the journal of an ext4 filesystem that was not unmounted, in memory, to learn what is free; without this all
    /// of such a filesystem is kept
    #[arg(long)]
    pub(crate) replay_journal: bool,
}
