//! Programs of others as provisioners and post-processors.
//!
//! A provisioner of the type `NAME` that qimg does not know is the program `qimg-provisioner-NAME` on the `PATH`, a
//! post-processor the program `qimg-post-processor-NAME`. It may be written in any language.
//!
//! On its standard input it finds one JSON document and then the end of the input:
//!
//! ```json
//! {
//!   "protocol": 1,
//!   "kind": "provisioner",
//!   "name": "NAME",
//!   "build": {"name": "debian", "type": "qemu"},
//!   "options": {"whatever": "the template says"},
//!   "connection": {
//!     "host": "127.0.0.1", "port": 40022, "user": "debian", "password": null,
//!     "private-key": "/run/key", "host-key": "ssh-ed25519 AAAA..."
//!   },
//!   "http": {"ip": "10.0.2.2", "port": 8080}
//! }
//! ```
//!
//! `connection` and `http` are null where there is none, and so is every part of a connection that is not known.
//! `private-key` names a file that lives as long as the build. Instead of a connection a post-processor finds the
//! artifact:
//!
//! ```json
//! {"artifact": {"id": "VM", "builder-id": "...", "files": ["/path/output/disk.qcow2"]}}
//! ```
//!
//! Lines on its standard output and standard error are shown as they come. With exit code 0 it has succeeded, with any
//! other it has failed; when the build is stopped it gets `SIGTERM`, and two seconds later `SIGKILL`. A post-processor that
//! makes an artifact of its own writes `{"files": ["..."], "id": "...", "keep-input": true}` to the file that the
//! environment variable `QIMG_RESULT` names; all but `files` may be left out. `QIMG_RESULT` of a provisioner is not set.
//! `PACKER_BUILD_NAME` and its kin are set as for scripts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Connection, Context, Watch, environment};
use crate::build::local::{self, Ended, Program};
use crate::error::{Error, ErrorKind, Result};
use crate::store::read_file;

/// The version of what is said on standard input.
pub const PROTOCOL: u32 = 1;

/// Longest result of a post-processor, in bytes.
const LONGEST_RESULT: u64 = 1 << 20;

/// What a post-processor is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Given {
    /// Id of the artifact.
    pub id: String,
    /// Who made it.
    pub builder_id: String,
    /// Its files.
    pub files: Vec<PathBuf>,
}

/// What a post-processor made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Made {
    /// Files of the new artifact.
    pub files: Vec<PathBuf>,
    /// Its id.
    #[serde(default)]
    pub id: Option<String>,
    /// Whether the artifact that it was given shall stay.
    #[serde(default)]
    pub keep_input: Option<bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Input<'a> {
    protocol: u32,
    kind: &'a str,
    name: &'a str,
    build: Build<'a>,
    options: serde_json::Value,
    connection: Option<Reached<'a>>,
    http: Option<Http<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact: Option<&'a Given>,
}

#[derive(Serialize)]
struct Build<'a> {
    name: &'a str,
    r#type: &'a str,
}

#[derive(Serialize)]
struct Http<'a> {
    ip: &'a str,
    port: u16,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Reached<'a> {
    host: &'a str,
    port: u16,
    user: &'a str,
    password: Option<&'a str>,
    private_key: Option<&'a Path>,
    host_key: Option<&'a str>,
}

impl<'a> From<&'a Connection> for Reached<'a> {
    fn from(connection: &'a Connection) -> Self {
        Self {
            host: &connection.host,
            port: connection.port,
            user: &connection.user,
            password: connection.password.as_deref(),
            private_key: connection.private_key.as_deref(),
            host_key: connection.host_key.as_deref(),
        }
    }
}

/// Whether there is a program for a provisioner (or else a post-processor) of this name, and where.
///
/// # Errors
/// The name cannot be one, or there is none; the error says how the program would have to be called.
pub fn find(name: &str, is_provisioner: bool, context: &Context<'_>) -> Result<PathBuf> {
    let kind = if is_provisioner {
        "provisioner"
    } else {
        "post-processor"
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(fits) {
        return Err(Error::usage(format!("\"{name}\" is the name of no {kind}")));
    }
    let program = format!("qimg-{kind}-{name}");
    local::find(program.as_ref(), &context.host.environment).map_err(|error| {
        error.with_remedy(format!(
            "{kind} {name} is none of qimg's own: install a program {program}"
        ))
    })
}

pub(super) fn provision(
    name: &str,
    options: &str,
    context: &Context<'_>,
    watch: &Watch<'_>,
) -> Result<()> {
    let program = find(name, true, context)?;
    context
        .reporter
        .step(&format!("Running {}", program.display()));
    run(name, options, &program, None, None, context, watch)
}

/// Runs the post-processor `name` on an artifact; `None`: it made none of its own.
///
/// # Errors
/// There is no such program, it failed, or its result is none.
pub fn post_process(
    name: &str,
    options: &str,
    given: &Given,
    context: &Context<'_>,
) -> Result<Option<Made>> {
    let program = find(name, false, context)?;
    let directory = &context.host.temporary;
    let result = tempfile::Builder::new()
        .prefix("qimg-result")
        .tempfile_in(directory)
        .map_err(|error| Error::io("make a file for the result", error).at_path(directory))?
        .into_temp_path();
    context
        .reporter
        .step(&format!("Running {}", program.display()));
    let watch = Watch::new(context.stop, None::<Duration>);
    run(
        name,
        options,
        &program,
        Some(given),
        Some(&result),
        context,
        &watch,
    )?;
    let text = read_file(&result, LONGEST_RESULT)?;
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let made: Made = serde_json::from_slice(&text).map_err(|error| {
        let message = format!("post-processor {name} wrote a result that is none");
        Error::usage(message).with_source(error)
    })?;
    for file in &made.files {
        if !file.exists() {
            let message = format!("post-processor {name} names a file that is not there");
            return Err(Error::usage(message).at_path(file));
        }
    }
    Ok(Some(made))
}

fn run(
    name: &str,
    options: &str,
    program: &Path,
    artifact: Option<&Given>,
    result: Option<&Path>,
    context: &Context<'_>,
    watch: &Watch<'_>,
) -> Result<()> {
    let facts = context.facts;
    let options = if options.trim().is_empty() {
        "{}"
    } else {
        options
    };
    let input = Input {
        protocol: PROTOCOL,
        kind: if artifact.is_some() {
            "post-processor"
        } else {
            "provisioner"
        },
        name,
        build: Build {
            name: &facts.name,
            r#type: &facts.kind,
        },
        options: serde_json::from_str(options).map_err(|error| {
            Error::usage(format!("the options of {name} are no JSON")).with_source(error)
        })?,
        connection: match artifact {
            Some(_) => None,
            None => facts.connection.as_ref().map(Reached::from),
        },
        http: facts
            .http
            .as_ref()
            .map(|(ip, port)| Http { ip, port: *port }),
        artifact,
    };
    let mut text = serde_json::to_vec(&input).map_err(|error| {
        Error::usage(format!("the options of {name} are no JSON")).with_source(error)
    })?;
    text.push(b'\n');
    let mut environment = context.host.environment.clone();
    let variables = environment::variables(&[], context)?;
    environment.extend(
        variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into())),
    );
    if let Some(result) = result {
        environment.push(("QIMG_RESULT".into(), result.into()));
    }
    let called = Program {
        program: program.into(),
        environment,
        input: text,
        ..Program::default()
    };
    let mut output = context.reporter.output(name);
    let ended = local::run(&called, watch.left(), watch.stop(), &mut |stream, line| {
        output.line(stream, line);
    })?;
    let how = match ended {
        Ended::Code(0) => return Ok(()),
        Ended::Code(code) => format!("ended with exit code {code}"),
        Ended::Signal(signal) => format!("was ended by signal {signal}"),
    };
    Err(Error::new(ErrorKind::Io, how).at_path(program))
}
