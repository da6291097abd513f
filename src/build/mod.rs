//! Builds: a machine is booted, provisioned, sealed and turned into files.
//!
//! Knows what a template asks for and which operations do it. Must not know a disk format or any dialect.
//!
//! ```text
//! template -> Prepared -> Connected -> (provision, seal, shut down) -> image -> post-processors -> artifacts
//! ```
//!
//! Each stage takes the one before it, and cleans up when it is dropped, the last one first: whatever ends a build, no QEMU
//! and no half a file is left.

pub(crate) mod access;
pub(crate) mod accounts;
pub(crate) mod alongside;
pub mod artifact;
mod boot_command;
mod bridge;
mod chain;
pub(crate) mod disk;
pub mod event;
mod failure;
mod firmware_choice;
mod from_disk;
mod guest;
mod http;
mod image;
pub mod late;
pub mod layers;
mod leave;
pub mod local;
mod media;
pub mod output;
mod parts;
mod password;
mod plan;
pub mod post_processor;
mod prepared;
pub mod provisioner;
pub mod register;
mod request;
pub(crate) mod runs;
pub mod seal;
pub mod secrets;
pub mod steps;
mod texts;
pub mod visit;
mod work;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use artifact::Artifact;
use event::{Outcome, Reporter};
use guest::Connected;
use late::RenderText;
use prepared::Prepared;
use provisioner::{Context, Facts};
use runs::RunDirectory;
use secrets::Masks;
use texts::Texts;

use crate::error::{Error, ErrorKind, Result};
use crate::template::model::{Job, Text};

pub use failure::{At, Failed};
pub use plan::{Plan, plan};
pub use request::{BuildRequest, OnError, Options, Surroundings};

/// What a build made.
#[derive(Debug)]
pub struct Report {
    /// All artifacts that there are now.
    pub artifacts: Vec<Artifact>,
    /// How long each stage took, in order.
    pub stages: Vec<(&'static str, Duration)>,
}

/// Makes one build of a template.
///
/// # Errors
/// What failed, and how far the build had come; all that was seen of it was told before.
pub fn build(request: &BuildRequest<'_>) -> Result<Report, Failed> {
    let started = Instant::now();
    let masks = masks(request).map_err(Failed::at(At::Host))?;
    let reporter = Reporter::new(&request.build.name, Arc::new(masks), request.sink);
    let host = request.surroundings;
    // To the very end: scripts of post-processors lie in it, too.
    let kept = RunDirectory::make(&host.runs, &host.run, &request.build.name, &*request.stop);
    let result = kept.map_err(Failed::at(At::Host)).and_then(|kept| {
        let result = run(request, &reporter);
        drop(kept);
        result
    });
    let outcome = match &result {
        Ok(_) => Outcome::Done,
        Err(failed) if failed.error.kind() == ErrorKind::Cancelled => Outcome::Cancelled,
        Err(failed) => {
            reporter.failure(&failed.error);
            Outcome::Failed
        }
    };
    reporter.build_ended(outcome, started.elapsed());
    result
}

fn run(request: &BuildRequest<'_>, reporter: &Reporter<'_>) -> Result<Report, Failed> {
    let texts = Texts::default();
    let mut stages = Stages {
        reporter,
        took: Vec::new(),
    };
    let prepared = stages.run("prepare", At::Host, || {
        Prepared::new(request, reporter, &texts)
    })?;
    let serving = prepared.serving.clone();
    std::thread::scope(|scope| {
        // Whatever ends the build, the server ends with it.
        let _end = serving.as_deref().map(http::EndWith);
        if let Some(serving) = &serving {
            scope.spawn(|| serving.run(reporter));
        }
        run_machine(request, reporter, &texts, stages, prepared)
    })
}

/// From a machine that could be started to artifacts.
fn run_machine(
    request: &BuildRequest<'_>,
    reporter: &Reporter<'_>,
    texts: &Texts,
    mut stages: Stages<'_>,
    prepared: Prepared<'_>,
) -> Result<Report, Failed> {
    let connected = stages.run("boot", At::Guest, || Connected::boot(prepared))?;
    let connected = stages.run("cloud-init", At::Guest, || {
        connected.or_left(Connected::wait_for_cloud_init)
    })?;
    let facts = connected.facts.clone();
    let connected = stages.run("provision", At::Provision, || {
        connected.or_left(Connected::provision)
    })?;
    // Without a way in nothing is removed from a guest that could fail.
    let at = match &request.build.communicator {
        Some(_) => At::Provision,
        None => At::Guest,
    };
    let stopped = stages.run("shut down", at, || connected.shut_down())?;
    let built = stages.run("image", At::Host, || image::make(stopped))?;
    let artifacts = stages.run("post-process", At::PostProcess, || {
        post_process(request, reporter, texts, &facts, &built)
    })?;
    for (index, artifact) in artifacts.iter().enumerate() {
        let (text, files) = in_words(artifact);
        reporter.artifact(index, &artifact.builder_id, &artifact.id, &text, &files);
    }
    Ok(Report {
        artifacts,
        stages: stages.took,
    })
}

/// Stages with their times.
struct Stages<'a> {
    reporter: &'a Reporter<'a>,
    took: Vec<(&'static str, Duration)>,
}

impl Stages<'_> {
    fn run<T>(
        &mut self,
        name: &'static str,
        at: At,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T, Failed> {
        let started = Instant::now();
        self.reporter.stage_begun(name);
        let result = work();
        let took = started.elapsed();
        let outcome = match &result {
            Ok(_) => Outcome::Done,
            Err(error) if error.kind() == ErrorKind::Cancelled => Outcome::Cancelled,
            Err(_) => Outcome::Failed,
        };
        self.reporter.stage_ended(name, outcome, took);
        self.took.push((name, took));
        result.map_err(Failed::at(at))
    }
}

/// All values that nobody may see.
fn masks(request: &BuildRequest<'_>) -> Result<Masks> {
    use crate::template::model::is_secret;
    let mut values = request.template.secrets.clone();
    if let Some(ssh) = &request.build.communicator {
        let bastion = ssh.bastion.as_ref();
        let passwords = [
            &ssh.password,
            bastion.map_or(&None, |bastion| &bastion.password),
        ];
        values.extend(
            passwords
                .into_iter()
                .flatten()
                .filter(|password| is_secret(password))
                .cloned(),
        );
    }
    for job in request.build.post_processors.iter().flatten() {
        let keys = match &job.job {
            Job::S3(job) => &job.keys,
            Job::Exoscale(job) => &job.keys,
            _ => continue,
        };
        values.extend(keys.secrets().filter_map(Text::as_literal));
    }
    let vnc = request.build.machine.vnc.as_ref();
    values.extend(vnc.and_then(|vnc| vnc.password.clone()));
    Masks::new(values)
}

fn post_process(
    request: &BuildRequest<'_>,
    reporter: &Reporter<'_>,
    texts: &Texts,
    facts: &Facts,
    built: &Artifact,
) -> Result<Vec<Artifact>> {
    let (build, host) = (request.build, request.surroundings);
    let mut facts = facts.clone();
    facts.connection = None;
    let context = Context {
        facts: &facts,
        host: &host.host,
        communicator: None,
        reporter,
        texts,
        numbers: request.numbers,
        ask: request.ask,
        patience: 1,
        stop: &*request.stop,
    };
    let fill = |text: &Text, values: &[(&str, &str)]| texts.render(text, values);
    let mut failures = 0;
    let report = post_processor::run(
        &build.post_processors,
        built,
        &post_processor::Context {
            dialect: request.template.dialect,
            build_name: &build.name,
            builder_type: &build.kind,
            run_uuid: &host.run_uuid,
            clock: &|| host.time + host.started.elapsed().as_secs(),
            accelerator: build.machine.accelerator.as_deref(),
            force: request.options.force,
            directory: &host.directory,
            threads: host.threads,
            access: host.publish.as_deref(),
            fill: &fill,
            stop: &*request.stop,
        },
        &mut chain::OnHost { context: &context },
        &mut |event| match event {
            post_processor::Event::Started(job) => {
                reporter.step(&format!("Running post-processor: {}", job.name));
            }
            post_processor::Event::Progress { done, total } => {
                reporter.progress("post-process", done, Some(total), event::Unit::Bytes);
            }
            post_processor::Event::Note(text) => reporter.note(text),
            post_processor::Event::Failed(failed) => {
                failures += 1;
                // The first is what the build fails by, and is told as that.
                if failures > 1 {
                    let why = provisioner::with_cause(&failed.error);
                    reporter.warn(&format!("post-processor {} failed: {why}", failed.name));
                }
            }
            post_processor::Event::Removed(path) => {
                reporter.note(&format!("Removed {}", path.display()));
            }
        },
    )?;
    let Some(first) = report.failed.into_iter().next() else {
        return Ok(report.artifacts);
    };
    let mut told: Vec<&[PathBuf]> = Vec::new();
    for artifact in &report.artifacts {
        // A chain that failed at once has made nothing of its own.
        if !told.contains(&artifact.files.as_slice()) {
            let (text, files) = in_words(artifact);
            reporter.kept(&text, &files);
            told.push(&artifact.files);
        }
    }
    let own = first.error.remedy().map(|remedy| format!("{remedy}; "));
    let remedy = format!(
        "{}the artifact is there: mend the cause and process it by hand, or build again",
        own.unwrap_or_default()
    );
    let text = format!("post-processor {} (line {}) failed", first.kind, first.line);
    Err(Error::new(first.error.kind(), text)
        .with_remedy(remedy)
        .with_source(first.error))
}

/// What an artifact is called among the results, and its files.
fn in_words(artifact: &Artifact) -> (String, Vec<String>) {
    let files: Vec<String> = { artifact.files.iter() }
        .map(|file| file.display().to_string())
        .collect();
    (format!("VM files in: {}", files.join(", ")), files)
}
