//! The answer to an `ssh` that asks for a guest's password.
//!
//! `ssh` takes a password by no option: it asks the program that `SSH_ASKPASS` names. That is this one, told by a variable
//! in which file the password is, so that it is on no command line and in no environment.

use std::ffi::OsString;
use std::io::{Write, stdout};
use std::path::Path;
use std::process::{Command, ExitCode};

use qimg::store::read_file;
use qimg::{Error, Result};

/// Names the file with the password.
const FILE: &str = "QIMG_ASKPASS_FILE";
/// Longest password, in bytes.
const LONGEST: u64 = 64 << 10;

/// Lets `ssh` log in by the password in `file`, with no question to anybody; `alone`: there is no key.
pub(crate) fn answer(ssh: &mut Command, file: &Path, alone: bool) -> Result<()> {
    let program = std::env::current_exe().map_err(|error| Error::io("find this program", error))?;
    ssh.env("SSH_ASKPASS", program)
        .env("SSH_ASKPASS_REQUIRE", "force")
        .env(FILE, file);
    if alone {
        // Keys of the user's own could use up all tries.
        ssh.args(["-o", "PubkeyAuthentication=no"]);
    }
    ssh.args([
        "-o",
        "PasswordAuthentication=yes",
        "-o",
        "KbdInteractiveAuthentication=yes",
        "-o",
        "NumberOfPasswordPrompts=1",
        "-o",
        "BatchMode=no",
    ]);
    Ok(())
}

/// Answers, where this program was started by an `ssh` that asks: with the words of its question, and nothing else.
pub(crate) fn asked() -> Option<ExitCode> {
    let file = std::env::var_os(FILE)?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).take(2).collect();
    if arguments.len() != 1 {
        return None;
    }
    // It wants a yes, or only tells something.
    if std::env::var_os("SSH_ASKPASS_PROMPT").is_some() {
        return Some(ExitCode::FAILURE);
    }
    let answered = read_file(Path::new(&file), LONGEST).is_ok_and(|password| {
        let mut out = stdout().lock();
        out.write_all(&password)
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush())
            .is_ok()
    });
    Some(if answered {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
