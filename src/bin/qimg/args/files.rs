//! `qimg ls`, `cat`, `cp` and `stat`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::ReportArgs;
use super::guest_path::{BrowseArgs, GuestPath};

/// List a directory inside an image
#[derive(Debug, Args)]
#[command(after_long_help = LS_HELP)]
pub(crate) struct LsArgs {
    /// The image, and a path in its guest's files: IMAGE:/path, IMAGE:PART:/path, or IMAGE for its root
    #[arg(value_name = "IMAGE:PATH", value_parser = guest_path())]
    pub(crate) path: GuestPath,

    /// One line for each name: mode, links, owner, group, size, time
    #[arg(short, long)]
    pub(crate) long: bool,

    /// Directories below it, too
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,

    #[command(flatten)]
    pub(crate) browse: BrowseArgs,

    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

/// Print a file inside an image
#[derive(Debug, Args)]
#[command(after_long_help = CAT_HELP)]
pub(crate) struct CatArgs {
    /// The image, and a path in its guest's files: IMAGE:/path or IMAGE:PART:/path
    #[arg(value_name = "IMAGE:PATH", value_parser = guest_path())]
    pub(crate) path: GuestPath,

    #[command(flatten)]
    pub(crate) browse: BrowseArgs,
}

/// Show what a filesystem inside an image says of a file
#[derive(Debug, Args)]
#[command(after_long_help = STAT_HELP)]
pub(crate) struct StatArgs {
    /// The image, and a path in its guest's files: IMAGE:/path or IMAGE:PART:/path
    #[arg(value_name = "IMAGE:PATH", value_parser = guest_path())]
    pub(crate) path: GuestPath,

    /// What a symlink points at, instead of the link
    #[arg(long, visible_short_alias = 'L')]
    pub(crate) dereference: bool,

    #[command(flatten)]
    pub(crate) browse: BrowseArgs,

    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

/// Copy files out of an image
///
/// A file becomes DST, or a file in the directory DST. A directory comes with all that is in it: names, times, modes, symlinks,
/// hard links and holes. Owners are not kept, nor are set-user-id bits, and device nodes are left out. Nothing is ever written outside
/// of DST, whatever names and links the guest holds.
#[derive(Debug, Args)]
#[command(after_long_help = CP_HELP)]
pub(crate) struct CpArgs {
    /// The image, and a path in its guest's files: IMAGE:/path or IMAGE:PART:/path
    #[arg(value_name = "IMAGE:PATH", value_parser = guest_path())]
    pub(crate) path: GuestPath,

    /// Where to
    #[arg(value_name = "DST")]
    pub(crate) destination: PathBuf,

    /// Copy a directory with all that is in it
    #[arg(short = 'r', long, visible_short_alias = 'a')]
    pub(crate) recursive: bool,

    /// Replace a file that is there
    #[arg(long)]
    pub(crate) force: bool,

    #[command(flatten)]
    pub(crate) browse: BrowseArgs,

    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

fn guest_path() -> impl clap::builder::TypedValueParser<Value = GuestPath> {
    use clap::builder::TypedValueParser as _;
    clap::builder::OsStringValueParser::new().map(|text: OsString| GuestPath::from(text))
}

const LS_HELP: &str = "\
Examples:
  qimg ls disk.qcow2:/etc
  qimg ls -l disk.qcow2:1:/boot
  qimg ls -R --partition LABEL=UEFI disk.qcow2

Exit codes:
  0    done
  1    failed, or used wrongly";

const CAT_HELP: &str = "\
Examples:
  qimg cat disk.qcow2:/etc/os-release
  qimg cat disk.qcow2:/var/log/cloud-init.log | less

Exit codes:
  0    done
  1    failed, or used wrongly";

const STAT_HELP: &str = "\
Examples:
  qimg stat disk.qcow2:/etc/shadow
  qimg stat --json disk.qcow2:/vmlinuz

Exit codes:
  0    done
  1    failed, or used wrongly";

const CP_HELP: &str = "\
Examples:
  qimg cp disk.qcow2:/etc/fstab .
  qimg cp -r disk.qcow2:/var/log logs
  qimg cp --partition 15 -r disk.qcow2:/EFI efi

Exit codes:
  0    done
  1    failed, used wrongly, or something could not be copied: it is named on stderr, and the rest is there; a single file
       is whole or absent, and so is a directory, which is never merged into one that is there
  129, 130, 143   ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM";
