//! Options on what is printed and how work is done.

use std::num::NonZeroUsize;

use clap::{Args, ValueEnum};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// A bar when stderr is a terminal, otherwise nothing
    Auto,
    /// A line every second
    Plain,
    /// A JSON object every second: done, total, rate (bytes), eta (seconds)
    Json,
    /// Nothing
    None,
}

/// Form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputForm {
    Human,
    Json,
}

/// How a result is printed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct ReportArgs {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,

    /// Form of the result: human or json; qemu-img's spelling of --json
    #[arg(long, value_enum, value_name = "FORM", hide_short_help = true)]
    output: Option<OutputForm>,

    /// Print no result for people, and no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

impl ReportArgs {
    pub(crate) fn json(&self) -> bool {
        self.json || self.output == Some(OutputForm::Json)
    }
}

/// Whether progress is asked for.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct ProgressArgs {
    /// Show progress even when stderr is no terminal
    #[arg(short = 'p')]
    pub(crate) asked: bool,
}

/// How many threads work.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Work")]
pub(crate) struct ThreadArgs {
    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl ThreadArgs {
    pub(crate) fn count(self) -> usize {
        thread_count(self.threads)
    }
}

pub(super) fn thread_count(asked: Option<NonZeroUsize>) -> usize {
    let cores = || std::thread::available_parallelism().ok();
    asked.or_else(cores).map_or(1, NonZeroUsize::get)
}
