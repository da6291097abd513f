//! Everything that is printed: results to stdout, the rest to stderr.
//!
//! Knows words, columns and widths. Must not open an image or decide an exit
//! code. Names that come out of images are escaped before people see them.

pub(crate) mod build;
pub(crate) mod error;
pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod progress;
pub(crate) mod svg;
pub(crate) mod trial;

use std::io::{self, Write};
use std::process::ExitCode;

use crate::commands::{Failure, Status};

/// Where the program writes to.
pub(crate) struct Console<'a> {
    pub(crate) out: Output<'a>,
    pub(crate) err: &'a mut (dyn Write + Send),
    /// Whether stderr is a terminal.
    pub(crate) terminal: bool,
    /// Whether results may be coloured.
    pub(crate) colours: bool,
}

impl<'a> Console<'a> {
    pub(crate) fn new(
        out: &'a mut dyn Write,
        err: &'a mut (dyn Write + Send),
        terminal: bool,
        colours: bool,
    ) -> Self {
        let out = Output {
            inner: out,
            closed: false,
        };
        Self {
            out,
            err,
            terminal,
            colours,
        }
    }

    /// Prints what went wrong, and turns the result into an exit code.
    pub(crate) fn end(mut self, result: Status) -> ExitCode {
        let flushed = self.out.flush();
        let result = result.and_then(|code| flushed.map(|()| code).map_err(Failure::from));
        match result {
            Ok(code) => ExitCode::from(code),
            Err(failure) => {
                // There is nobody left to tell when stderr fails, too.
                let _ = error::failure(self.err, &failure.error);
                ExitCode::from(failure.code)
            }
        }
    }
}

/// Whether the user's environment allows colours: NO_COLOR (no-color.org), and a terminal that knows them.
pub(crate) fn wants_colours() -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_some_and(|term| term != "dumb")
}

/// Standard output. A reader that goes away, as `head` does, is no failure: the rest is dropped.
pub(crate) struct Output<'a> {
    inner: &'a mut dyn Write,
    closed: bool,
}

impl Output<'_> {
    /// Whether nobody reads any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    fn forgive<T>(&mut self, result: io::Result<T>, instead: T) -> io::Result<T> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(instead)
            }
            result => result,
        }
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Ok(bytes.len());
        }
        let written = self.inner.write(bytes);
        self.forgive(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let flushed = self.inner.flush();
        self.forgive(flushed, ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn a_reader_that_goes_away_is_no_failure() {
        let mut closed = Closed;
        let mut out = Output {
            inner: &mut closed,
            closed: false,
        };
        assert!(!out.is_closed());
        out.write_all(b"result").unwrap();
        assert!(out.is_closed());
        out.flush().unwrap();
    }
}
