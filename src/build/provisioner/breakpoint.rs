//! Asking before a build goes on.

use crate::build::event::Reporter;
use crate::communicator::Stop;
use crate::error::{Error, Result};

/// Somebody who can be asked.
pub trait Ask: Send + Sync {
    /// Shows `question` and waits for an answer: one line, without its end; `None` where nobody is there to answer.
    ///
    /// # Errors
    /// [`Cancelled`](crate::ErrorKind::Cancelled) soon after `stop` says so; the terminal failed.
    fn ask(&self, question: &str, stop: &Stop) -> Result<Option<String>>;
}

/// Waits for a word. Where nobody is there to say it, that is an error, as it is Packer's.
pub(super) fn run(
    note: &str,
    disabled: bool,
    ask: Option<&dyn Ask>,
    reporter: &Reporter<'_>,
    stop: &Stop,
) -> Result<()> {
    let note = match note {
        "" => String::new(),
        note => format!(" \"{note}\""),
    };
    if disabled {
        reporter.step(&format!("Breakpoint{note} is disabled, going on"));
        return Ok(());
    }
    reporter.step(&format!("Pausing at breakpoint{note}"));
    let answer = match ask {
        Some(ask) => ask.ask("Press enter to continue.", stop)?,
        None => None,
    };
    match answer {
        Some(_) => Ok(()),
        None => Err(
            Error::usage("nobody is there to answer at the breakpoint").with_remedy(
                "run the build in a terminal, or disable the breakpoint: \"disable\": true",
            ),
        ),
    }
}
