//! `qimg seed`, `seed show` and `seed serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use qimg::image::Format;
use qimg::seed::{Dsmode, LABEL, Layout};
use qimg::{Error, Result};

use super::{InputArgs, typed};

/// Make a NoCloud seed: the volume from which cloud-init configures a guest
///
/// USER-DATA is written as it is; without it the options of "Composing" make one. The output depends on the inputs alone.
#[derive(Debug, Args)]
#[command(after_long_help = HELP, args_conflicts_with_subcommands = true, subcommand_value_name = "show | serve")]
pub(crate) struct SeedArgs {
    #[command(subcommand)]
    pub(crate) command: Option<SeedCommand>,

    #[command(flatten)]
    pub(crate) make: SeedMakeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SeedCommand {
    Show(SeedShowArgs),
    Serve(Box<SeedServeArgs>),
}

/// Where a seed goes.
#[derive(Debug, Args)]
pub(crate) struct SeedMakeArgs {
    /// user-data; `-` is standard input
    #[arg(value_name = "USER-DATA")]
    pub(crate) user_data: Option<PathBuf>,

    /// The seed; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "seed.img")]
    pub(crate) output: PathBuf,

    /// Format of the output: raw, qcow2, or an archive: tar, tar-seed-local, tar-seed-net
    #[arg(short, long, value_name = "FMT", default_value = "raw", value_parser = typed::<SeedFormat>)]
    pub(crate) disk_format: SeedFormat,

    /// Filesystem: iso or vfat
    #[arg(short, long, value_name = "FS", default_value = "iso", value_parser = typed::<SeedFilesystem>)]
    pub(crate) filesystem: SeedFilesystem,

    /// Label of the filesystem; cloud-init looks for cidata
    #[arg(long, value_name = "LABEL", default_value = LABEL)]
    pub(crate) label: String,

    /// All timestamps, in seconds since 1970 [default: $SOURCE_DATE_EPOCH, or 0]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) time: Option<i64>,

    #[command(flatten)]
    pub(crate) contents: SeedContentsArgs,

    /// Write nothing: only check
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,

    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Print nothing but findings
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// The dead -i of cloud-localds was given.
    #[arg(skip)]
    pub(crate) interfaces: bool,
}

/// What is in a seed.
#[derive(Debug, Default, Args)]
pub(crate) struct SeedContentsArgs {
    /// More user-data; several parts become one MIME message
    #[arg(short = 'u', long = "user-data", value_name = "FILE")]
    pub(crate) parts: Vec<PathBuf>,

    /// meta-data as it is
    #[arg(long, value_name = "FILE", conflicts_with_all = ["hostname", "dsmode", "instance_id"])]
    pub(crate) meta_data: Option<PathBuf>,

    /// instance-id of the guest [default: qimg- and a digest of all inputs]
    #[arg(long, value_name = "ID")]
    pub(crate) instance_id: Option<String>,

    /// Host name of the guest
    #[arg(short = 'H', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,

    /// When the seed is applied: local (before the network is up) or net
    #[arg(short = 'm', long, value_name = "MODE", value_parser = typed::<Dsmode>)]
    pub(crate) dsmode: Option<Dsmode>,

    /// network-config, version 1 or 2
    #[arg(short = 'N', long, value_name = "FILE")]
    pub(crate) network_config: Option<PathBuf>,

    /// vendor-data
    #[arg(long, value_name = "FILE")]
    pub(crate) vendor_data: Option<PathBuf>,

    /// One more file: HOST-FILE, or NAME=HOST-FILE
    #[arg(long, value_name = "FILE", value_parser = typed::<ExtraFile>)]
    pub(crate) add: Vec<ExtraFile>,

    /// Compress user-data
    #[arg(long)]
    pub(crate) gzip: bool,

    /// Fail when anything is found that cloud-init refuses, ignores or probably takes for something else
    #[arg(long)]
    pub(crate) strict: bool,

    #[command(flatten)]
    pub(crate) compose: ComposeArgs,
}

/// A cloud-config out of options.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Composing")]
pub(crate) struct ComposeArgs {
    /// A user with sudo
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,

    /// A public key, or a file with public keys, for --user or for the image's own user
    #[arg(long, value_name = "KEY|FILE")]
    pub(crate) ssh_key: Vec<String>,

    /// Hash of the password of --user, as `openssl passwd -6` makes it
    #[arg(long, value_name = "HASH", requires = "user")]
    pub(crate) password_hash: Option<String>,

    /// A package to install
    #[arg(long, value_name = "NAME")]
    pub(crate) package: Vec<String>,

    /// A shell command to run at the first boot
    #[arg(long, value_name = "COMMAND")]
    pub(crate) run: Vec<String>,

    /// A file of this host to write in the guest
    #[arg(long, value_name = "FILE:GUEST-PATH[:MODE]", value_parser = typed::<FileToWrite>)]
    pub(crate) write_file: Vec<FileToWrite>,

    /// Time zone of the guest
    #[arg(long, value_name = "ZONE")]
    pub(crate) timezone: Option<String>,
}

/// Show what is in a seed
///
/// Also in one that cloud-localds, genisoimage, xorriso or mkfs.vfat made; in an image of any format that qimg reads, on a whole
/// disk or on a partition.
#[derive(Debug, Args)]
#[command(after_long_help = SHOW_HELP)]
pub(crate) struct SeedShowArgs {
    /// The seed
    pub(crate) image: PathBuf,

    #[command(flatten)]
    pub(crate) input: InputArgs,

    /// Fail when cloud-init would not take it as it is
    #[arg(long)]
    pub(crate) strict: bool,

    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Serve a seed over HTTP
///
/// Prints what to put into the guest's kernel command line, or into QEMU's, and serves until Ctrl-C; requests are told on stderr.
#[derive(Debug, Args)]
#[command(after_long_help = SERVE_HELP)]
pub(crate) struct SeedServeArgs {
    /// A directory with user-data and meta-data, or user-data alone; `-` is standard input
    #[arg(value_name = "DIR|USER-DATA")]
    pub(crate) source: Option<PathBuf>,

    /// Where to listen; a guest under QEMU's user networking reaches its host's loopback
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,

    /// End when a guest has got user-data
    #[arg(long)]
    pub(crate) once: bool,

    #[command(flatten)]
    pub(crate) contents: SeedContentsArgs,

    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SeedFormat {
    Image(Format),
    Archive(Layout),
}

impl FromStr for SeedFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "tar" => Self::Archive(Layout::Tar),
            "tar-seed-local" => Self::Archive(Layout::TarLocal),
            "tar-seed-net" => Self::Archive(Layout::TarNet),
            format => Self::Image(format.parse()?),
        })
    }
}

impl std::fmt::Display for SeedFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Image(format) => format.fmt(f),
            Self::Archive(_) => f.write_str("tar"),
        }
    }
}

/// Which volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeedFilesystem(pub(crate) Layout);

impl FromStr for SeedFilesystem {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "iso" | "iso9660" => Ok(Self(Layout::Iso)),
            "vfat" | "fat" => Ok(Self(Layout::Vfat)),
            _ => Err(Error::usage(format!("a seed has no filesystem '{text}'"))
                .with_remedy("iso or vfat")),
        }
    }
}

/// A further file, and its name in the seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExtraFile {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl FromStr for ExtraFile {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, path) = match text.split_once('=') {
            Some((name, path)) => (name.to_owned(), path),
            None => (text.rsplit('/').next().unwrap_or_default().to_owned(), text),
        };
        if name.is_empty() || path.is_empty() {
            return Err(Error::usage(format!("'{text}' names no file")));
        }
        Ok(Self {
            name,
            path: PathBuf::from(path),
        })
    }
}

/// A file of the host, where it goes in the guest, and its mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileToWrite {
    pub(crate) host: PathBuf,
    pub(crate) guest: String,
    pub(crate) mode: Option<String>,
}

impl FromStr for FileToWrite {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // The guest's path begins with a slash, which no mode does: a host's name may hold colons.
        let wrong = || {
            Error::usage(format!("'{text}' does not say where the file goes"))
                .with_remedy("write FILE:/path/in/the/guest")
        };
        let (rest, mode) = match text.rsplit_once(':') {
            Some((rest, mode))
                if !mode.is_empty() && mode.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) =>
            {
                (rest, Some(format!("{mode:0>4}")))
            }
            _ => (text, None),
        };
        let at = rest.rfind(":/").ok_or_else(wrong)?;
        let (host, guest) = rest.split_at(at);
        let guest = guest.strip_prefix(':').unwrap_or(guest).to_owned();
        if host.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            host: PathBuf::from(host),
            guest,
            mode,
        })
    }
}

const HELP: &str = "\
Examples:
  qimg seed user-data                                      seed.img, an ISO9660 volume labelled cidata
  qimg seed user-data -H web1 -N network.yaml -o web1.img
  qimg seed --user me --ssh-key ~/.ssh/id_ed25519.pub --package nginx --run 'systemctl start nginx'
  qimg seed -u base.yaml -u setup.sh --gzip -o seed.qcow2 -d qcow2
  qimg seed user-data -f vfat -o - > seed.img
  qimg seed --strict -n user-data                          only check
  qimg seed show seed.img                                  what is in a seed, whoever made it
  qimg seed serve user-data                                over HTTP, for ds=nocloud

cloud-init takes a seed once for each instance-id. By default another seed has another one, and the same seed the same.
Called under the name cloud-localds, this program takes the command line of cloud-localds.

Exit codes:
  0    done, with or without findings
  1    failed, or used wrongly
  2    --strict, and something was found: nothing was written";

const SHOW_HELP: &str = "\
Examples:
  qimg seed show seed.img
  qimg seed show --json disk.qcow2
  qimg cat seed.img:/user-data                             a file of it

Exit codes:
  0    a seed, with or without findings
  1    failed, used wrongly, or no seed
  2    --strict, and something was found";

const SERVE_HELP: &str = "\
Examples:
  qimg seed serve user-data
  qimg seed serve --listen 127.0.0.1:8000 --once seed-directory
  qimg seed serve --user me --ssh-key ~/.ssh/id_ed25519.pub

Exit codes:
  0    ended by Ctrl-C or SIGTERM, or by --once
  1    failed, or used wrongly
  2    --strict, and something was found";
