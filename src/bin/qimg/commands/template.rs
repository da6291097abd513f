//! `qimg validate` and `qimg template`; loading templates for `qimg build`.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use qimg::store::{Staged, Sync, WriteAt};
use qimg::template::check::{Finding, Severity};
use qimg::template::{Examined, GivenFile, LoadRequest, Loaded, convert, examine, syntax_only};
use qimg::{Error, Result};

use super::{Failure, Status, surroundings};
use crate::args::{TemplateCommand, TemplateCommandArgs, TemplateValues, ValidateArgs};
use crate::render::{Console, human, json};

/// Bytes of a template from standard input at most, and one more.
const LONGEST: u64 = (4 << 20) + 1;

/// Where a template is, and what is in it if that is known: `-` is read from standard input.
fn typed(path: &Path) -> Result<(PathBuf, Option<Vec<u8>>)> {
    if path != Path::new("-") {
        return Ok((path.to_owned(), None));
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin()
        .lock()
        .take(LONGEST)
        .read_to_end(&mut bytes);
    read.map_err(|error| Error::io("read standard input", error))?;
    // It has no name that could tell its language.
    let is_json = bytes.trim_ascii_start().first() == Some(&b'{');
    Ok((if is_json { "-" } else { "-.toml" }.into(), Some(bytes)))
}

fn examined(path: &Path, args: &TemplateValues) -> Result<Examined> {
    let mut variables = Vec::new();
    for typed in &args.variables {
        let (name, value) = typed.split_once('=').ok_or_else(|| {
            Error::usage(format!("-var {typed}: there is no value"))
                .with_remedy("write it as NAME=VALUE")
        })?;
        variables.push((name.to_owned(), value.to_owned()));
    }
    let (path, bytes) = typed(path)?;
    Ok(examine(&LoadRequest {
        path,
        bytes,
        var_files: args
            .variable_files
            .iter()
            .map(|path| GivenFile {
                path: path.clone(),
                bytes: None,
            })
            .collect(),
        variables,
        only: args.only.clone(),
        except: args.except.clone(),
        environment: surroundings::environment(),
        directory: surroundings::directory()?,
        started: surroundings::now(),
        random: &surroundings::random,
    }))
}

/// Loads what was typed; the findings are still to be told.
pub(super) fn loaded(path: &Path, args: &TemplateValues) -> Result<Loaded> {
    let Examined { template, findings } = examined(path, args)?;
    Ok(Loaded {
        template: template?,
        findings,
    })
}

/// Loads what was typed, and tells the findings.
pub(super) fn told(
    path: &Path,
    args: &TemplateValues,
    console: &mut Console<'_>,
) -> std::result::Result<Loaded, Failure> {
    let Examined { template, findings } = examined(path, args)?;
    // One mistake alone is the error that ends it all.
    if template.is_ok() || findings.len() > 1 {
        human::template::findings(console.err, &findings)?;
    }
    Ok(Loaded {
        template: template?,
        findings,
    })
}

pub(super) fn validate(args: &ValidateArgs, console: &mut Console<'_>) -> Status {
    if args.syntax_only {
        return syntax(args, console);
    }
    let Examined { template, findings } = examined(&args.template.template, &args.template.values)?;
    if args.json {
        json::print(&mut console.out, &findings)?;
    } else {
        match &template {
            // Without a place it is told as any other failure.
            Err(error) if error.place().is_none() && findings.len() == 1 => {}
            _ => human::template::findings(console.err, &findings)?,
        }
    }
    let template = match template {
        Ok(template) => template,
        Err(error) if error.place().is_none() && findings.len() == 1 && !args.json => {
            return Err(error.into());
        }
        Err(_) => return Ok(1),
    };
    let worst = findings.iter().map(|finding| finding.severity).max();
    let fails = match worst {
        Some(Severity::Error) => true,
        Some(Severity::Warning) => args.strict,
        _ => false,
    };
    if !fails && !args.json {
        writeln!(
            console.out,
            "The template is valid: {} build(s).",
            template.builds.len()
        )?;
    }
    Ok(u8::from(fails))
}

fn syntax(args: &ValidateArgs, console: &mut Console<'_>) -> Status {
    let (path, bytes) = typed(&args.template.template)?;
    match syntax_only(&path, bytes.as_ref()) {
        Ok(()) if args.json => json::print(&mut console.out, &[(); 0])?,
        Ok(()) => writeln!(
            console.out,
            "Syntax-only check passed. Everything looks okay."
        )?,
        Err(error) if args.json => {
            json::print(&mut console.out, &[Finding::from(&error)])?;
            return Ok(1);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(0)
}

pub(super) fn template(args: &TemplateCommandArgs, console: &mut Console<'_>) -> Status {
    let TemplateCommand::Convert { template, output } = &args.command;
    let (template, bytes) = typed(template)?;
    let converted = convert::convert(&template, bytes.as_ref())?;
    human::template::findings(console.err, &converted.findings)?;
    match output {
        None => console.out.write_all(converted.text.as_bytes())?,
        Some(path) => write(path, converted.text.as_bytes())?,
    }
    Ok(0)
}

fn write(path: &Path, bytes: &[u8]) -> std::result::Result<(), Failure> {
    let staged = Staged::create(path)?;
    staged.write_all_at(bytes, 0)?;
    staged.commit(Sync::Full)?;
    Ok(())
}
