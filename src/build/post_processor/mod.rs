//! Artifacts made into others: chains of post-processors, each of which takes what the one before it made.
//!
//! Knows which job runs when, what it takes, and which files go in the end. Must not know builders, guests or templates'
//! spellings; what runs programs on the host is given to it.
//!
//! Nothing that a job took is removed before all chains have succeeded.

mod archive;
mod checksum;
mod chunked;
mod compress;
mod manifest;
mod packer;
mod publish;
mod removal;
mod vagrant;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::artifact::Artifact;
use crate::communicator::Stop;
use crate::error::{Error, ErrorKind, Result};
use crate::publish::Access;
use crate::store::{Kind, look, make_directory};
use crate::template::model::{Dialect, Job, PostProcessor, ShellLocal, Text};

/// Fills in a text with further values, by name: `("ChecksumType", "md5")` is `{{.ChecksumType}}`.
pub type Fill<'a> = dyn Fn(&Text, &[(&str, &str)]) -> Result<String> + Sync + 'a;

/// Everything that jobs know of the build.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Whose rules of keeping hold.
    pub dialect: Dialect,
    /// Name of the build.
    pub build_name: &'a str,
    /// Kind of its builder.
    pub builder_type: &'a str,
    /// Tells one run from another.
    pub run_uuid: &'a str,
    /// Seconds since 1970, whenever it is asked.
    pub clock: &'a (dyn Fn() -> u64 + Sync),
    /// What the template has the guest run by, where it says so.
    pub accelerator: Option<&'a str>,
    /// Files of earlier runs count for nothing.
    pub force: bool,
    /// What relative paths start from.
    pub directory: &'a Path,
    /// Worker threads, at least 1. No byte depends on them.
    pub threads: usize,
    /// What the host has for publishing; without, nothing is published.
    pub access: Option<&'a Access>,
    /// The template's language.
    pub fill: &'a Fill<'a>,
    /// Asked from time to time.
    pub stop: &'a Stop,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("dialect", &self.dialect)
            .field("build_name", &self.build_name)
            .field("builder_type", &self.builder_type)
            .field("run_uuid", &self.run_uuid)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Context<'_> {
    /// Where a path of the template, or of an artifact, leads.
    fn place(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }

    /// A path that a job writes to, filled in.
    fn output(&self, text: &Text, further: &[(&str, &str)]) -> Result<PathBuf> {
        let mut values = vec![
            ("BuildName", self.build_name),
            ("BuilderType", self.builder_type),
        ];
        values.extend_from_slice(further);
        let path = (self.fill)(text, &values)?;
        if path.is_empty() {
            return Err(Error::usage("the path of the output is empty"));
        }
        Ok(PathBuf::from(path))
    }

    /// Makes the directory that a job writes to.
    fn make_room(&self, output: &Path) -> Result<()> {
        match self.place(output).parent() {
            Some(directory) if !directory.as_os_str().is_empty() => make_directory(directory),
            _ => Ok(()),
        }
    }

    fn go_on(&self) -> Result<()> {
        if (self.stop)() {
            return Err(Error::cancelled());
        }
        Ok(())
    }
}

/// What runs programs of the host.
pub trait Runner {
    /// Runs scripts beside an artifact.
    ///
    /// # Errors
    /// A script failed.
    fn shell_local(
        &mut self,
        post_processor: &PostProcessor,
        job: &ShellLocal,
        artifact: &Artifact,
    ) -> Result<()>;

    /// Runs the program `qimg-post-processor-NAME`: what it made, and whether it wants what it took to be kept.
    ///
    /// # Errors
    /// There is no such program, or it failed.
    fn custom(
        &mut self,
        post_processor: &PostProcessor,
        name: &str,
        options: &str,
        artifact: &Artifact,
    ) -> Result<(Artifact, bool)>;
}

/// What happens meanwhile.
#[derive(Debug)]
pub enum Event<'a> {
    /// A job begins.
    Started(&'a PostProcessor),
    /// So much of it is done.
    Progress {
        /// In bytes.
        done: u64,
        /// In bytes.
        total: u64,
    },
    /// Something that the user may want to know.
    Note(&'a str),
    /// A job failed; others go on.
    Failed(&'a Failed),
    /// A file went, for the template does not keep it.
    Removed(&'a Path),
}

/// A job that failed.
#[derive(Debug)]
pub struct Failed {
    /// Type of the post-processor.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Line in the template, from 1; 0: unknown.
    pub line: usize,
    /// Why.
    pub error: Error,
}

/// What became of an artifact.
#[derive(Debug, Default)]
pub struct Report {
    /// What there is now: the builder's if it was kept, and what the chains made.
    pub artifacts: Vec<Artifact>,
    /// Files that went.
    pub removed: Vec<PathBuf>,
    /// Jobs that failed. If there are any, nothing was removed.
    pub failed: Vec<Failed>,
}

/// Runs all chains on `built`. One that fails ends there, and the others run all the same.
///
/// # Errors
/// [`Cancelled`](ErrorKind::Cancelled) when the caller asked to stop; the host refused to remove a file at the end. That
/// a job failed is told in the report.
pub fn run(
    chains: &[Vec<PostProcessor>],
    built: &Artifact,
    context: &Context<'_>,
    runner: &mut dyn Runner,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Report> {
    let mut running = Running {
        context,
        runner,
        tell,
        written: BTreeSet::new(),
    };
    let mut keep_built = chains.iter().all(Vec::is_empty);
    let mut report = Report::default();
    let mut unkept = Vec::new();
    for chain in chains {
        let mut current = built.clone();
        for (at, post_processor) in chain.iter().enumerate() {
            context.go_on()?;
            (running.tell)(Event::Started(post_processor));
            let (made, keep) = match running.job(post_processor, &current) {
                Ok(made) => made,
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(error) => {
                    let failed = Failed {
                        kind: post_processor.kind.clone(),
                        name: post_processor.name.clone(),
                        line: post_processor.line,
                        error,
                    };
                    (running.tell)(Event::Failed(&failed));
                    report.failed.push(failed);
                    break;
                }
            };
            let taken = std::mem::replace(&mut current, made);
            match (at, keep) {
                (0, keep) => keep_built |= keep,
                (_, true) => report.artifacts.push(taken),
                (_, false) => unkept.push(taken),
            }
        }
        if !chain.is_empty() {
            report.artifacts.push(current);
        }
    }
    // A chain that failed may have left what it took unread.
    if keep_built || !report.failed.is_empty() {
        report.artifacts.insert(0, built.clone());
    } else {
        unkept.push(built.clone());
    }
    if report.failed.is_empty() {
        report.removed = removal::remove(&unkept, &report.artifacts, &running.written, context)?;
        for path in &report.removed {
            (running.tell)(Event::Removed(path));
        }
    }
    Ok(report)
}

struct Running<'a> {
    context: &'a Context<'a>,
    runner: &'a mut dyn Runner,
    tell: &'a mut dyn FnMut(Event<'_>),
    /// What jobs have written in this run.
    written: BTreeSet<PathBuf>,
}

impl Running<'_> {
    /// What a job makes of `artifact`, and whether that is kept.
    fn job(
        &mut self,
        post_processor: &PostProcessor,
        artifact: &Artifact,
    ) -> Result<(Artifact, bool)> {
        let context = self.context;
        let native = context.dialect == Dialect::Native;
        // What only adds to an artifact would be left without it.
        let always = |artifact| (artifact, true);
        let unless_told =
            |artifact, default: bool| (artifact, post_processor.keep_input.unwrap_or(default));
        Ok(match &post_processor.job {
            Job::Compress {
                output,
                format,
                level,
            } => {
                let output = context.output(output, &[])?;
                self.claim(&output, artifact)?;
                context.make_room(&output)?;
                let order = compress::Order {
                    output: &output,
                    format: format.as_deref(),
                    level: *level,
                };
                let made = compress::compress(&order, artifact, context, self.tell)?;
                unless_told(made, native)
            }
            Job::Checksum {
                kinds,
                output,
                coreutils,
            } => {
                let (made, written) =
                    checksum::checksum(kinds, output, *coreutils, artifact, context, self.tell)?;
                self.written.extend(written);
                always(made)
            }
            Job::Manifest {
                output,
                strip_path,
                strip_time,
                custom_data,
            } => {
                let output = context.output(output, &[])?;
                let order = manifest::Order {
                    output: &output,
                    strip_path: *strip_path,
                    strip_time: *strip_time,
                    custom_data,
                };
                context.make_room(&output)?;
                manifest::add(&order, artifact, context)?;
                self.written.insert(output);
                always(artifact.clone())
            }
            Job::Vagrant {
                output,
                level,
                include,
                vagrantfile,
            } => {
                let further = [("Provider", "libvirt"), ("ArtifactId", &artifact.id)];
                let output = context.output(output, &further)?;
                self.claim(&output, artifact)?;
                context.make_room(&output)?;
                let order = vagrant::Box {
                    output: &output,
                    level: *level,
                    include,
                    vagrantfile: vagrantfile.as_ref(),
                };
                let made = vagrant::pack(&order, artifact, context, self.tell)?;
                unless_told(made, native)
            }
            Job::ShellLocal(job) => {
                self.runner.shell_local(post_processor, job, artifact)?;
                always(artifact.clone())
            }
            Job::Artifice { files } => always(artifice(files, context)?),
            Job::S3(job) => always(publish::s3(job, artifact, context, self.tell)?),
            Job::Exoscale(job) => {
                let made = publish::exoscale(job, artifact, context, self.tell)?;
                unless_told(made, native)
            }
            Job::Custom { name, options } => {
                let (made, keep) = self
                    .runner
                    .custom(post_processor, name, options, artifact)?;
                unless_told(made, keep || native)
            }
        })
    }

    /// Makes sure that a job does not write over what it takes, or what another one made.
    fn claim(&mut self, output: &Path, artifact: &Artifact) -> Result<()> {
        let place = self.context.place(output);
        let there = look(&place)?;
        for file in &artifact.files {
            let taken = self.context.place(file);
            let same = there.is_some_and(
                |there| matches!(look(&taken), Ok(Some(seen)) if seen.identity == there.identity),
            );
            if same || taken == place {
                return Err(Error::usage(
                    "is what the post-processor takes, and cannot be what it makes",
                )
                .with_remedy("give its output another name")
                .at_path(output));
            }
        }
        if !self.written.insert(output.to_owned()) {
            return Err(
                Error::usage("another post-processor has written it already")
                    .with_remedy("give their outputs different names")
                    .at_path(output),
            );
        }
        Ok(())
    }
}

/// Other files in the place of an artifact.
fn artifice(files: &[Text], context: &Context<'_>) -> Result<Artifact> {
    let mut found = Vec::new();
    for file in files {
        let path = context.output(file, &[])?;
        match look(context.place(&path))? {
            Some(seen) if seen.kind == Kind::File => found.push(path),
            Some(_) => return Err(Error::usage("is no regular file").at_path(path)),
            None => {
                return Err(Error::usage("is to be part of the artifact, and is not there")
                    .with_remedy("the files must have been made by the build, or by the post-processor before")
                    .at_path(path));
            }
        }
    }
    if found.is_empty() {
        return Err(Error::usage("the artifact would have no files"));
    }
    Ok(Artifact::of_post_processor("artifice", found))
}
