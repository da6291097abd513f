//! Completions and manual pages, out of the same words that are parsed.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use qimg::Error;

use crate::args::Cli;

/// Completions for `shell`.
pub(crate) fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "qimg", &mut text);
    text
}

/// The manual page of the program.
pub(crate) fn page() -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut text)
        .map_err(|error| Error::io("write the manual page", error))?;
    Ok(text)
}

/// A page for each command in `directory`, which is made if it is not there.
pub(crate) fn pages(directory: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
        .map_err(|error| Error::io("write the manual pages", error).at_path(directory))
}
