//! Scripts run in the guest, as Packer's shell provisioner runs them.
//!
//! Knows how a script gets there, is run, judged and removed. Must not know how the guest is reached.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::time::{Duration, Instant};

use super::file::HostReader;
use super::{Context, Watch, environment, in_words, with_cause};
use crate::communicator::{Communicator, Exit, quote};
use crate::error::{Error, ErrorKind, Result};
use crate::store::read_file;
use crate::template::model::{Scripts, Shell};

/// Longest script whose line ends are looked at; one of `binary` may be longer.
const LONGEST: u64 = 256 << 20;

/// Between two tries to begin.
const BETWEEN_TRIES: Duration = Duration::from_secs(2);

/// Packer's exit code of a command whose end was not seen.
const DISCONNECTED: i32 = 2_300_218;

/// The exit code that Packer takes the end by this signal for, one of those that SSH has names for (RFC 4254, 6.10).
fn code_of_signal(name: &str) -> Option<i32> {
    let number = match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "ABRT" => 6,
        "FPE" => 8,
        "KILL" => 9,
        "SEGV" => 11,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        _ => return None,
    };
    Some(128 + number)
}

/// A script on its way into the guest.
enum Script {
    Text(Vec<u8>),
    File(std::path::PathBuf),
}

/// Runs all scripts of `shell`.
pub(super) fn run(shell: &Shell, context: &Context<'_>, watch: &Watch<'_>) -> Result<()> {
    let guest = context.guest()?;
    let variables = environment::variables(&shell.environment, context)?;
    match &shell.scripts {
        Scripts::Inline(lines) => {
            let script = inline(lines, &shell.inline_shebang, context)?;
            context.reporter.step("Running inline script");
            let script = Script::Text(with_unix_lines(script.into_bytes(), shell.binary));
            Work::new(shell, context, watch, guest, &variables)?.script(&script)?;
        }
        Scripts::Files(files) => {
            for file in files {
                watch.check()?;
                let path = std::path::PathBuf::from(context.texts.render(file, &[])?);
                context
                    .reporter
                    .step(&format!("Running script {}", path.display()));
                let script = if shell.binary {
                    Script::File(path)
                } else {
                    Script::Text(with_unix_lines(read_file(&path, LONGEST)?, false))
                };
                Work::new(shell, context, watch, guest, &variables)?.script(&script)?;
            }
        }
    }
    if !shell.pause_after.is_zero() {
        let text = format!("Pausing {} after the script", in_words(shell.pause_after));
        context.reporter.step(&text);
        // The time limit is for the work.
        Watch::new(watch.stop(), None).sleep(shell.pause_after)?;
    }
    Ok(())
}

/// The lines of an inline script, with the line that names its interpreter, unless they bring one.
pub(super) fn inline(
    lines: &[crate::template::model::Text],
    shebang: &str,
    context: &Context<'_>,
) -> Result<String> {
    let mut script = String::new();
    for line in lines {
        let line = context.texts.render(line, &[])?;
        if script.is_empty() && !line.starts_with("#!") && !shebang.is_empty() {
            script = format!("#!{shebang}\n");
        }
        script.push_str(&line);
        script.push('\n');
    }
    Ok(script)
}

fn with_unix_lines(script: Vec<u8>, binary: bool) -> Vec<u8> {
    if binary || !script.contains(&b'\r') {
        return script;
    }
    let mut out = Vec::with_capacity(script.len());
    let mut bytes = script.into_iter().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\r' || bytes.peek() != Some(&b'\n') {
            out.push(byte);
        }
    }
    out
}

/// One script in the guest.
struct Work<'a> {
    shell: &'a Shell,
    context: &'a Context<'a>,
    watch: &'a Watch<'a>,
    guest: &'a dyn Communicator,
    /// Where the script is.
    path: String,
    /// Path and text of the file with its variables, where they go through one.
    file: Option<(String, String)>,
    command: String,
}

impl<'a> Work<'a> {
    fn new(
        shell: &'a Shell,
        context: &'a Context<'a>,
        watch: &'a Watch<'a>,
        guest: &'a dyn Communicator,
        variables: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let numbered = |kind: &str| format!("{kind}_{:08x}.sh", (context.numbers)() & 0xffff_ffff);
        let folder = shell.remote_folder.trim_end_matches('/');
        let path = match (&shell.remote_path, &shell.remote_file) {
            (Some(path), _) if !path.is_empty() => path.clone(),
            (_, Some(name)) if !name.is_empty() => format!("{folder}/{name}"),
            _ => format!("{folder}/{}", numbered("script")),
        };
        let given = shell
            .environment_format
            .as_deref()
            .filter(|given| !given.is_empty());
        let format = given.unwrap_or(if shell.environment_file {
            environment::IN_FILE
        } else {
            environment::BEFORE_COMMAND
        });
        let flattened = environment::flattened(variables, format);
        let (vars, file) = if shell.environment_file {
            let path = format!("{folder}/{}", numbered("varfile"));
            (String::new(), Some((path, flattened)))
        } else {
            (flattened, None)
        };
        let file_path = file.as_ref().map_or("", |(path, _)| path.as_str());
        let fields = [
            ("Path", path.as_str()),
            ("Vars", vars.as_str()),
            ("EnvVarFile", file_path),
        ];
        let command = context.texts.render(&shell.execute_command, &fields)?;
        Ok(Self {
            shell,
            context,
            watch,
            guest,
            path,
            file,
            command,
        })
    }

    fn script(&self, script: &Script) -> Result<()> {
        let exit = self.begin_again_while_unreachable(|| {
            if let Some((path, text)) = &self.file {
                let mut bytes = Cursor::new(text.as_bytes());
                self.guest
                    .upload(&mut bytes, text.len() as u64, path, 0o600)?;
            }
            match script {
                Script::Text(bytes) => {
                    let length = bytes.len() as u64;
                    self.guest
                        .upload(&mut Cursor::new(bytes), length, &self.path, 0o755)?;
                }
                Script::File(file) => {
                    let mut file = HostReader::open(file, self.context, *self.watch)?;
                    let length = file.length();
                    self.guest.upload(&mut file, length, &self.path, 0o755)?;
                }
            }
            self.watch.check()?;
            let mut output = self.context.reporter.output("shell");
            self.guest
                .run(&self.command, self.watch.left(), &mut |stream, line| {
                    output.line(stream, line);
                })
        })?;
        self.judge(&exit)?;
        if self.shell.skip_clean {
            return Ok(());
        }
        self.clean()
    }

    /// Whether the script may end like that.
    fn judge(&self, exit: &Exit) -> Result<()> {
        let valid = &self.shell.valid_exit_codes;
        let shown = || {
            let codes: Vec<_> = valid.iter().map(ToString::to_string).collect();
            codes.join(", ")
        };
        match exit {
            Exit::Code(code) if valid.contains(code) => Ok(()),
            Exit::Code(code) => Err(Error::new(
                ErrorKind::Guest,
                format!(
                    "the script ended with exit code {code}; allowed are: {}",
                    shown()
                ),
            )),
            Exit::Signal(signal)
                if code_of_signal(signal).is_some_and(|code| valid.contains(&code)) =>
            {
                Ok(())
            }
            // A guest that restarts ends its sessions before the network.
            Exit::Signal(signal)
                if self.shell.expect_disconnect
                    && ["TERM", "HUP", "KILL"].contains(&signal.as_str()) =>
            {
                self.context
                    .reporter
                    .note("The script was ended with its session, as expected");
                self.guest.disconnect();
                Ok(())
            }
            Exit::Signal(signal) => Err(Error::new(
                ErrorKind::Guest,
                format!("the script was ended by signal {signal}"),
            )),
            Exit::Disconnected if self.shell.expect_disconnect || valid.contains(&DISCONNECTED) => {
                self.context
                    .reporter
                    .note("The script ended the connection, as expected");
                self.guest.disconnect();
                Ok(())
            }
            Exit::Disconnected => Err(Error::new(
                ErrorKind::Connection,
                "the connection was lost while the script ran",
            )
            .with_remedy("set expect_disconnect to true, if the script restarts the guest")),
        }
    }

    /// Removes the script; a guest that is just restarting is waited for.
    fn clean(&self) -> Result<()> {
        let mut command = format!("rm -f {}", quote::path(&self.path));
        if let Some((path, _)) = &self.file {
            command.push(' ');
            command.push_str(&quote::path(path));
        }
        let exit = self.begin_again_while_unreachable(|| {
            match self
                .guest
                .run(&command, self.watch.left(), &mut |_, _| ())?
            {
                Exit::Disconnected => Err(Error::new(
                    ErrorKind::Connection,
                    "the connection was lost while the script was removed",
                )),
                exit => Ok(exit),
            }
        })?;
        if exit != Exit::Code(0) {
            let text = format!(
                "The script {} stays in the guest: it cannot be removed",
                self.path
            );
            self.context.reporter.warn(&text);
        }
        Ok(())
    }

    /// For a guest that is just restarting; what is emulated takes longer than a template's author, or Packer, thinks.
    fn begins_within(&self) -> Duration {
        let limit = self.shell.start_retry_timeout;
        limit.saturating_mul(self.context.patience.max(1))
    }

    /// Only where the way into the guest failed it is tried again: what was begun is not.
    fn begin_again_while_unreachable(&self, begin: impl Fn() -> Result<Exit>) -> Result<Exit> {
        let started = Instant::now();
        loop {
            let error = match begin() {
                Err(error) if error.kind() == ErrorKind::Connection => error,
                result => return result,
            };
            let limit = self.begins_within();
            if started.elapsed() >= limit {
                return Err(error);
            }
            let text = format!(
                "The guest is not reached, trying again: {}",
                with_cause(&error)
            );
            self.context.reporter.note(&text);
            self.watch
                .sleep(BETWEEN_TRIES.min(limit.saturating_sub(started.elapsed())))?;
        }
    }
}
