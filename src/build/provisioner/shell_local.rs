//! Scripts run on the host, as Packer's shell-local runs them.
//!
//! Knows how a script is written down, called and judged. Must not know the guest. Values of variables go through the
//! environment alone: what stands in the command's `.Vars` only refers to them.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::{Context, Watch, environment, shell};
use crate::build::local::{self, Ended, Program};
use crate::error::{Error, ErrorKind, Result};
use crate::template::model::{Scripts, ShellLocal, Text};

/// Runs all scripts of `local`; `source` is what their lines are said to come from.
///
/// # Errors
/// A script cannot be run, or ends otherwise than it may.
pub fn run(local: &ShellLocal, source: &str, context: &Context<'_>) -> Result<()> {
    run_watched(local, source, context, &Watch::new(context.stop, None))
}

pub(super) fn run_watched(
    local: &ShellLocal,
    source: &str,
    context: &Context<'_>,
    watch: &Watch<'_>,
) -> Result<()> {
    let system = &context.host.system;
    if !local.only_on.is_empty() && !local.only_on.contains(system) {
        let text = format!("Not run on {system}, only on {}", local.only_on.join(", "));
        context.reporter.step(&text);
        return Ok(());
    }
    match &local.scripts {
        Scripts::Inline(lines) => {
            let text = shell::inline(lines, &local.inline_shebang, context)?;
            let file = write_down(&text, &local.tempfile_extension, context)?;
            context.reporter.step("Running inline script on the host");
            one(local, source, &file, &text, context, watch)
        }
        Scripts::Files(files) => files.iter().try_for_each(|file| {
            watch.check()?;
            let path = PathBuf::from(context.texts.render(file, &[])?);
            if !path.is_file() {
                return Err(Error::usage("there is no such script").at_path(&path));
            }
            let text = format!("Running script {} on the host", path.display());
            context.reporter.step(&text);
            one(local, source, &path, "", context, watch)
        }),
    }
}

/// A file that is gone when the value is.
fn write_down(text: &str, extension: &str, context: &Context<'_>) -> Result<tempfile::TempPath> {
    let directory = &context.host.temporary;
    let failed = |error| Error::io("write down a script", error).at_path(directory);
    let mut file = tempfile::Builder::new()
        .prefix("packer-shell")
        .suffix(extension)
        .tempfile_in(directory)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    let mut permissions = file.as_file().metadata().map_err(failed)?.permissions();
    permissions.set_mode(0o700);
    file.as_file()
        .set_permissions(permissions)
        .map_err(failed)?;
    // Nobody runs a file that somebody has open for writing.
    Ok(file.into_temp_path())
}

fn one(
    local: &ShellLocal,
    source: &str,
    script: &std::path::Path,
    command: &str,
    context: &Context<'_>,
    watch: &Watch<'_>,
) -> Result<()> {
    let variables = environment::variables(&local.environment, context)?;
    let given = local
        .environment_format
        .as_deref()
        .filter(|given| !given.is_empty());
    let format = given.unwrap_or(environment::BEFORE_COMMAND);
    let vars = environment::referring(&variables, format);
    let script_path = absolute(script)?;
    let fields = [
        ("Vars", vars.as_str()),
        ("Script", script_path.as_str()),
        ("Command", command),
    ];
    let render = |text: &Text| context.texts.render(text, &fields);
    let rendered: Vec<String> = local
        .execute_command
        .iter()
        .map(render)
        .collect::<Result<_>>()?;
    let (program, arguments) = rendered
        .split_first()
        .ok_or_else(|| Error::usage("execute_command is empty"))?;
    let mut environment = context.host.environment.clone();
    environment.extend(
        variables
            .iter()
            .map(|(name, value)| (name.into(), value.into())),
    );
    let program = Program {
        program: program.into(),
        arguments: arguments.iter().map(Into::into).collect(),
        environment,
        directory: None,
        input: Vec::new(),
    };
    let mut output = context.reporter.output(source);
    let ended = local::run(&program, watch.left(), watch.stop(), &mut |stream, line| {
        output.line(stream, line);
    })?;
    drop(output);
    match ended {
        Ended::Code(code) if local.valid_exit_codes.contains(&code) => Ok(()),
        Ended::Code(0) if local.valid_exit_codes.is_empty() => Ok(()),
        Ended::Code(code) => {
            let codes: Vec<_> = local
                .valid_exit_codes
                .iter()
                .map(ToString::to_string)
                .collect();
            let message = format!(
                "the script on the host ended with exit code {code}; allowed are: {}",
                codes.join(", ")
            );
            Err(Error::new(ErrorKind::Io, message))
        }
        Ended::Signal(signal) => {
            let message = format!("the script on the host was ended by signal {signal}");
            Err(Error::new(ErrorKind::Io, message))
        }
    }
}

/// A name alone would be looked for on the PATH.
fn absolute(path: &std::path::Path) -> Result<String> {
    let text = path
        .to_str()
        .ok_or_else(|| Error::usage("its name is not in UTF-8").at_path(path))?;
    let names_directory = text.contains('/');
    Ok(if names_directory {
        text.to_owned()
    } else {
        format!("./{text}")
    })
}
