//! Failures in words: what, why, and what to do about it.

use std::error::Error as StdError;
use std::io::{self, Write};

use clap::error::ErrorKind;
use qimg::error::Escaped;

use super::Console;
use crate::commands::Status;

/// A failure of the library: its message, its causes, its remedy.
pub(crate) fn failure(err: &mut dyn Write, error: &qimg::Error) -> io::Result<()> {
    writeln!(err, "qimg: {error}")?;
    let mut cause = error.source();
    while let Some(error) = cause {
        writeln!(err, "  caused by: {}", Escaped(&error.to_string()))?;
        cause = error.source();
    }
    if let Some(remedy) = error.remedy() {
        writeln!(err, "  hint: {}", Escaped(remedy))?;
    }
    Ok(())
}

/// Words that make no command, or that ask for help.
pub(crate) fn usage(console: &mut Console<'_>, words: &clap::Error) -> Status {
    let text = words.render().to_string();
    match words.kind() {
        ErrorKind::DisplayHelp => {
            write!(console.out, "{text}")?;
            Ok(0)
        }
        ErrorKind::DisplayVersion => {
            // The same for every command; clap would say `qimg-info`.
            writeln!(console.out, "qimg {}", env!("CARGO_PKG_VERSION"))?;
            Ok(0)
        }
        _ => {
            let text = text
                .strip_prefix("error: ")
                .map_or(text.clone(), |text| format!("qimg: {text}"));
            // As in qemu-img; clap would say 2, which `check` and `compare` need for something else.
            let _ = write!(console.err, "{text}");
            Ok(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_and_remedy_follow_on_lines_of_their_own() {
        let error = qimg::Error::corrupt("the L1 table is damaged", "bad \x1b[2Jname")
            .at_path("a.qcow2")
            .with_remedy("run `qimg check`");
        let mut text = Vec::new();
        failure(&mut text, &error).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "qimg: a.qcow2: the L1 table is damaged\n  caused by: bad \\u{1b}[2Jname\n  hint: run `qimg check`\n"
        );
    }
}
