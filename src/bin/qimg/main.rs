//! The `qimg` program: words in, library calls, words out.
//!
//! | module | job |
//! |---|---|
//! | `args` | what was typed |
//! | `commands` | typed options into the library's requests, and their results into exit codes |
//! | `render` | everything that is printed |
//! | `signals` | an end that was asked for |
//! | `generate` | completions and manual pages out of `args` |
//! | `askpass` | the answer to an `ssh` that asks for a guest's password |

mod args;
mod askpass;
mod commands;
mod generate;
mod render;
mod signals;

use std::io::Write;
use std::io::{self, BufWriter, IsTerminal};
use std::process::ExitCode;

fn main() -> ExitCode {
    // What builds start is started by this program itself, which becomes it: before anything else happens.
    if let Err(words) = qimg::machine::launcher::entered(std::env::args_os()) {
        let _ = writeln!(io::stderr(), "qimg: {words}");
        return ExitCode::from(127);
    }
    if let Some(code) = askpass::asked() {
        return code;
    }
    let colours = io::stdout().is_terminal() && render::wants_colours();
    let mut stdout = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut stderr = io::stderr();
    let terminal = stderr.is_terminal();
    let mut console = render::Console::new(&mut stdout, &mut stderr, terminal, colours);
    let result = match args::Cli::typed() {
        Ok(cli) => commands::run(&cli, &mut console),
        Err(words) => render::error::usage(&mut console, &words),
    };
    console.end(result)
}
