//! What was typed: every command, option and line of help.
//!
//! Knows words and what each of them takes. Must not know what a command does:
//! `commands` turns what is here into the library's own requests.

mod build;
mod check;
mod cloud_localds;
mod compare;
mod compress;
mod convert;
mod create;
mod disk;
mod files;
mod free_space;
mod guest_path;
mod info;
mod input;
mod inspect;
mod map;
mod measure;
mod option_list;
mod output;
mod publish;
mod resize;
mod runs;
mod seed;
mod single_dash;
mod sparsify;
mod test;
mod write;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use build::{
    BuildArgs, BuildOutputArgs, CacheArgs, CacheCommand, ImagesArgs, OnError, TemplateCommand,
    TemplateCommandArgs, TemplateValues, ValidateArgs,
};
pub(crate) use check::CheckArgs;
pub(crate) use compare::CompareArgs;
pub(crate) use compress::{CompressArgs, Window};
pub(crate) use convert::{Codec, ConvertArgs, format_of_name};
pub(crate) use create::CreateArgs;
pub(crate) use disk::{
    DiskAddEspArgs, DiskArgs, DiskCommand, DiskCreateArgs, DiskGrowArgs, EspArgs,
};
pub(crate) use files::{CatArgs, CpArgs, LsArgs, StatArgs};
pub(crate) use free_space::FreeSpaceArgs;
pub(crate) use guest_path::{BrowseArgs, GuestPath, host_name};
pub(crate) use info::InfoArgs;
pub(crate) use input::InputArgs;
pub(crate) use inspect::InspectArgs;
pub(crate) use map::MapArgs;
pub(crate) use measure::MeasureArgs;
pub(crate) use option_list::OptionList;
pub(crate) use output::{ProgressArgs, ProgressMode, ReportArgs, ThreadArgs};
pub(crate) use publish::{PublishArgs, PublishForm, ReleaseArgs, WaitArgs};
pub(crate) use resize::ResizeArgs;
pub(crate) use runs::{ForgetArgs, KillArgs, PsArgs, RunArgs, SshArgs};
pub(crate) use seed::{
    ComposeArgs, SeedArgs, SeedCommand, SeedContentsArgs, SeedFormat, SeedMakeArgs, SeedServeArgs,
    SeedShowArgs,
};
pub(crate) use sparsify::SparsifyArgs;
pub(crate) use test::{BootWith, TestArgs, TestDatasource, TestFormat};
pub(crate) use write::WriteArgs;

/// Everything that was typed.
#[derive(Debug, Parser)]
#[command(
    name = "qimg",
    version,
    propagate_version = true,
    about = "Build, inspect, check, convert and compress VM disk images",
    after_help = "`qimg COMMAND --help` shows examples and exit codes.",
    after_long_help = HELP,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    /// How progress is shown on stderr [default: auto]
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "STYLE",
        help_heading = "Global options"
    )]
    pub(crate) progress: Option<ProgressMode>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const HELP: &str = "\
Examples:
  qimg info disk.qcow2                      what the image is
  qimg inspect disk.qcow2                   what is on it: partitions, filesystems, systems
  qimg cat disk.qcow2:/etc/os-release       a file on it; also ls, stat and cp
  qimg compress disk.qcow2 small.qcow2      a smaller image with the same files
  qimg sparsify disk.qcow2                  the same image without what its guest does not use
  qimg resize disk.qcow2 +10G               the same image with a larger disk
  qimg disk create --root root.img d.qcow2  a disk of parts: partitions, EFI files, filesystems
  qimg convert -O raw disk.qcow2 disk.raw   another format
  qimg compare disk.qcow2 small.qcow2       whether two images hold the same
  qimg seed user-data                       a seed for cloud-init
  qimg validate debian.toml                 what is wrong with a template, native or Packer's
  qimg build debian.toml                    an image booted, provisioned, sealed and compressed
  qimg run disk.qcow2                       an image booted to look around; also ssh, ps and kill
  qimg publish web.qcow2 --to s3://images/  an image where others take it from
  qimg test debian.qcow2 -s goss.yaml       whether an image is what it has to be, seen from inside

Also there:
  qimg completions SHELL                    completions for bash, elvish, fish, powershell or zsh
  qimg man [DIR]                            this manual: one page, or a page for each command in DIR

Exit codes:
  0    done
  1    failed, or used wrongly
  129, 130, 143   ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM
  build, check, compare, publish, run, seed, ssh and test have more of them; each command's --help says which.

Results go to stdout; progress, warnings and errors to stderr.
A file that an image names (a backing file, a data file) is not opened unless --backing says so.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Info(InfoArgs),
    Inspect(InspectArgs),
    Ls(LsArgs),
    Cat(CatArgs),
    Cp(CpArgs),
    Stat(StatArgs),
    Map(MapArgs),
    Check(CheckArgs),
    Compare(CompareArgs),
    Measure(MeasureArgs),
    Create(CreateArgs),
    Convert(ConvertArgs),
    Compress(CompressArgs),
    Sparsify(SparsifyArgs),
    Resize(ResizeArgs),
    Disk(DiskArgs),
    Seed(Box<SeedArgs>),
    Build(Box<BuildArgs>),
    Run(Box<RunArgs>),
    Ssh(SshArgs),
    Ps(PsArgs),
    Kill(KillArgs),
    Forget(ForgetArgs),
    Test(Box<TestArgs>),
    Validate(ValidateArgs),
    Template(TemplateCommandArgs),
    Cache(CacheArgs),
    Publish(Box<PublishArgs>),
    Release(ReleaseArgs),
    /// Print completions for a shell
    #[command(hide = true, after_long_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write a page for each command
    #[command(hide = true, after_long_help = MAN_HELP)]
    Man {
        /// Directory for the pages of all commands
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

const COMPLETIONS_HELP: &str = "\
Examples:
  qimg completions bash > /etc/bash_completion.d/qimg
  qimg completions zsh > ~/.zfunc/_qimg

Exit codes:
  0    done
  1    failed, or used wrongly";

const MAN_HELP: &str = "\
Examples:
  qimg man | man -l -
  qimg man /usr/local/share/man/man1

Exit codes:
  0    done
  1    failed, or used wrongly";

impl Cli {
    /// What was typed, under whatever name this program was called.
    pub(crate) fn typed() -> Result<Self, clap::Error> {
        let name = std::env::args_os().next().unwrap_or_default();
        if Path::new(&name).file_name() != Some(OsStr::new("cloud-localds")) {
            return Self::try_parse_from(single_dash::with_long_options(std::env::args_os()));
        }
        let localds = cloud_localds::CloudLocaldsArgs::try_parse()?;
        Ok(Self {
            progress: None,
            command: Command::Seed(Box::new(localds.into())),
        })
    }
}

/// A value that the library reads, with its remedy behind its complaint.
fn typed<T: std::str::FromStr<Err = qimg::Error>>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|error: qimg::Error| match error.remedy() {
            Some(remedy) => format!("{error}: {remedy}"),
            None => error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn no_two_options_clash() {
        Cli::command().debug_assert();
    }
}
