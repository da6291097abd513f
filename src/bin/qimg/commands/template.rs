//! `qimg validate` and `qimg template`; loading templates for `qimg build`.

use std::io::Write;
use std::path::Path;

use qimg::store::{Staged, Sync, WriteAt};
use qimg::template::check::Severity;
use qimg::template::{GivenFile, LoadRequest, Loaded, convert, load, syntax_only};
use qimg::{Error, Result};

use super::{Failure, Status, surroundings};
use crate::args::{TemplateCommand, TemplateCommandArgs, TemplateValues, ValidateArgs};
use crate::render::{Console, human, json};

/// Loads what was typed; the findings are still to be told.
pub(super) fn loaded(path: &Path, args: &TemplateValues) -> Result<Loaded> {
    let mut variables = Vec::new();
    for typed in &args.variables {
        let (name, value) = typed.split_once('=').ok_or_else(|| {
            Error::usage(format!("-var {typed}: there is no value"))
                .with_remedy("write it as NAME=VALUE")
        })?;
        variables.push((name.to_owned(), value.to_owned()));
    }
    load(&LoadRequest {
        path: path.to_owned(),
        bytes: None,
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
    })
}

pub(super) fn validate(args: &ValidateArgs, console: &mut Console<'_>) -> Status {
    if args.syntax_only {
        syntax_only(&args.template.template, None)?;
        if !args.json {
            writeln!(
                console.out,
                "Syntax-only check passed. Everything looks okay."
            )?;
        }
        return Ok(0);
    }
    let loaded = loaded(&args.template.template, &args.template.values)?;
    let findings = &loaded.findings;
    if args.json {
        json::print(&mut console.out, findings)?;
    } else {
        human::template::findings(console.err, findings)?;
    }
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
            loaded.template.builds.len()
        )?;
    }
    Ok(u8::from(fails))
}

pub(super) fn template(args: &TemplateCommandArgs, console: &mut Console<'_>) -> Status {
    let TemplateCommand::Convert { template, output } = &args.command;
    let converted = convert::convert(template, None)?;
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
