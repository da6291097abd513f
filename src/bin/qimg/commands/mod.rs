//! One file a command: typed options into the library's requests, results into
//! words and an exit code.
//!
//! Knows both vocabularies. Must not print but through `render`, and must not
//! know any format's insides.

mod build;
mod cache;
mod check;
mod compare;
mod compress;
mod convert;
mod copy;
mod create;
mod disk;
mod files;
mod free_space;
mod images;
mod info;
mod inspect;
mod map;
mod measure;
mod publish;
mod resize;
mod runs;
mod seed;
mod sparsify;
mod surroundings;
mod template;
mod test;

use std::io::{self, Write};

use qimg::codec::CompressionType;
use qimg::image::options::Qcow2Options;
use qimg::store::Sync;
use qimg::{Error, Result};

use crate::args::{Cli, Command, OptionList, ProgressArgs, ProgressMode};
use crate::generate;
use crate::render::Console;

/// An exit code, or the failure that has one.
pub(crate) type Status = Result<u8, Failure>;

/// What went wrong, and how a script learns of it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) code: u8,
}

impl Failure {
    pub(crate) fn new(error: Error, code: u8) -> Self {
        Self { error, code }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error, 1)
    }
}

impl From<io::Error> for Failure {
    /// Nothing but printing fails in this way.
    fn from(error: io::Error) -> Self {
        Error::io("write to standard output", error).into()
    }
}

/// Does what was typed.
pub(crate) fn run(cli: &Cli, console: &mut Console<'_>) -> Status {
    let progress = cli.progress;
    match &cli.command {
        Command::Info(args) => info::run(args, console),
        Command::Inspect(args) => inspect::run(args, console),
        Command::Ls(args) => files::ls(args, console),
        Command::Cat(args) => files::cat(args, console),
        Command::Cp(args) => copy::run(args, progress, console),
        Command::Stat(args) => files::stat(args, console),
        Command::Map(args) => map::run(args, console),
        Command::Check(args) => check::run(args, progress, console),
        Command::Compare(args) => compare::run(args, progress, console),
        Command::Measure(args) => measure::run(args, console),
        Command::Create(args) => create::run(args, console),
        Command::Convert(args) => convert::run(args, progress, console),
        Command::Compress(args) => compress::run(args, progress, console),
        Command::Sparsify(args) => sparsify::run(args, progress, console),
        Command::Resize(args) => resize::run(args, console),
        Command::Disk(args) => disk::run(args, progress, console),
        Command::Seed(args) => seed::run(args, console),
        Command::Build(args) => build::run(args, console),
        Command::Run(args) => runs::run(args, console),
        Command::Ssh(args) => runs::ssh(args, console),
        Command::Ps(args) => runs::ps(args, console),
        Command::Kill(args) => runs::kill(args, console),
        Command::Forget(args) => runs::forget(args, console),
        Command::Test(args) => test::run(args, console),
        Command::Validate(args) => template::validate(args, console),
        Command::Template(args) => template::template(args, console),
        Command::Cache(args) => cache::run(args, console),
        Command::Publish(args) => publish::run(args, progress, console),
        Command::Release(args) => publish::release(args, console),
        Command::Completions { shell } => {
            console.out.write_all(&generate::completions(*shell))?;
            Ok(0)
        }
        Command::Man { directory: None } => {
            console.out.write_all(&generate::page()?)?;
            Ok(0)
        }
        Command::Man {
            directory: Some(directory),
        } => {
            generate::pages(directory)?;
            Ok(0)
        }
    }
}

/// All that decides how progress looks, but for the terminal.
fn progress_wish(
    mode: Option<ProgressMode>,
    args: ProgressArgs,
    quiet: bool,
) -> (Option<ProgressMode>, bool, bool) {
    (mode, args.asked, quiet)
}

fn sync(no_sync: bool) -> Sync {
    if no_sync { Sync::None } else { Sync::Full }
}

/// Makes a new image record `codec`, unless -o said another.
fn record_codec(
    options: &mut Qcow2Options,
    codec: CompressionType,
    typed: Option<&str>,
) -> Result<()> {
    match typed {
        Some(other) if other != codec.to_string() => Err(Error::usage(format!(
            "--codec {codec} and -o compression_type={other} contradict each other"
        ))),
        _ => {
            options.compression_type = codec;
            Ok(())
        }
    }
}

/// Options that a raw image does not have, as qemu-img refuses them.
fn refuse_qcow2_options(list: &OptionList) -> Result<()> {
    match list
        .keys()
        .find(|key| !matches!(*key, "size" | "preallocation"))
    {
        None => Ok(()),
        Some(key) => Err(
            Error::usage(format!("-o {key}: there is no such option for raw"))
                .with_remedy("options: size preallocation"),
        ),
    }
}
