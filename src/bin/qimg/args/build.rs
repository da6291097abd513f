//! `qimg build`, `validate`, `template` and `cache`.

use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand, ValueEnum};

/// Which parts of a template, with which values; as Packer has them, also with one dash.
#[derive(Debug, Args)]
#[command(next_help_heading = "Template")]
pub(crate) struct TemplateArgs {
    /// The template: Packer's legacy JSON, or TOML; - is standard input
    #[arg(value_name = "TEMPLATE")]
    pub(crate) template: PathBuf,

    #[command(flatten)]
    pub(crate) values: TemplateValues,
}

/// What a template is given.
#[derive(Debug, Args)]
#[command(next_help_heading = "Template")]
pub(crate) struct TemplateValues {
    /// Set a variable; before all files
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub(crate) variables: Vec<String>,

    /// Set the variables of a JSON or TOML file; the last file wins
    #[arg(long = "var-file", value_name = "FILE")]
    pub(crate) variable_files: Vec<PathBuf>,

    /// Only these builds
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) only: Vec<String>,

    /// Not these builds and post-processors
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) except: Vec<String>,
}

/// What to do when a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum OnError {
    /// Remove what was made
    #[default]
    Cleanup,
    /// Stop QEMU and keep all files
    Abort,
    /// Ask
    Ask,
    /// Run the template's error-cleanup-provisioner, then as abort
    RunCleanupProvisioner,
}

/// Build images from a template: boot, provision, seal, compress
///
/// A template is Packer's legacy JSON as it is, or qimg's own TOML. The base image is fetched and checked, started in QEMU on an
/// overlay, reached by SSH, provisioned, sealed, shut down, and written as a sparsified, compressed image. The artifact
/// appears when it is complete.
#[derive(Debug, Args)]
#[command(after_long_help = BUILD_HELP)]
pub(crate) struct BuildArgs {
    /// The template: Packer's legacy JSON, or TOML
    #[arg(
        value_name = "TEMPLATE",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub(crate) template: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) values: TemplateValues,

    #[command(flatten)]
    pub(crate) images: ImagesArgs,

    /// Print what would run, and run nothing: accelerator and why, QEMU's command line, steps
    #[arg(long)]
    pub(crate) plan: bool,

    /// Replace the output of an earlier build, which is set aside until this one is done
    #[arg(long)]
    pub(crate) force: bool,

    /// What to do when a step fails
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    pub(crate) on_error: OnError,

    /// Stop after each step and wait for Enter; one build at a time
    #[arg(long)]
    pub(crate) debug: bool,

    /// Builds at the same time; 0: all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) parallel_builds: usize,

    /// Keep the machine of a build that fails: `qimg ssh` starts it again from its disk and enters it
    #[arg(long)]
    pub(crate) keep: bool,

    /// Run every step: keep no state of the machine, and go on from none
    #[arg(long, conflicts_with = "cache_steps")]
    pub(crate) no_cache: bool,

    /// Keep states of the machine and go on from the last unchanged one; TOML templates do so anyway
    #[arg(long)]
    pub(crate) cache_steps: bool,

    /// Where downloads and states of machines are kept [default: $QIMG_CACHE, else qimg in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,

    /// Worker threads for the disk [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<std::num::NonZeroUsize>,

    #[command(flatten)]
    pub(crate) output: BuildOutputArgs,
}

/// A directory with many images.
#[derive(Debug, Args)]
#[command(next_help_heading = "Many images")]
pub(crate) struct ImagesArgs {
    /// Build every image below DIR: each folder with an image.toml or a template.json is one, in the order of their names
    #[arg(long, value_name = "DIR")]
    pub(crate) all: Option<PathBuf>,

    /// Only images whose files have changed in Git since they left REF, or whose base has another digest than at the last build
    #[arg(long, value_name = "REF", requires = "all")]
    pub(crate) changed_since: Option<String>,

    /// Where the digests of bases are kept between builds [default: bases.json in DIR]
    #[arg(long, value_name = "FILE", requires = "all")]
    pub(crate) bases: Option<PathBuf>,

    /// Only these images
    #[arg(
        long = "image",
        value_name = "NAME",
        value_delimiter = ',',
        requires = "all"
    )]
    pub(crate) chosen: Vec<String>,

    /// Only the image at this place among all, from 0: one for each pod of an indexed job
    #[arg(long, value_name = "N", requires = "all")]
    pub(crate) index: Option<usize>,

    /// Print the images that would be built, and build none
    #[arg(long, requires = "all", conflicts_with = "plan")]
    pub(crate) list: bool,
}

/// How a build tells what it does.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct BuildOutputArgs {
    /// Colours [default: on a terminal]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub(crate) color: Option<bool>,

    /// The time before each line
    #[arg(long)]
    pub(crate) timestamp_ui: bool,

    /// Packer's lines for machines
    #[arg(long, conflicts_with = "json")]
    pub(crate) machine_readable: bool,

    /// Events as JSON, one a line
    #[arg(long)]
    pub(crate) json: bool,
}

const BUILD_HELP: &str = "\
Examples:
  qimg build debian.toml
  qimg build -var image_name=web -only=qemu packer.json
  qimg build --plan debian.toml                 what would run, and why
  qimg build -on-error=abort packer.json        keep the files of a failed build
  qimg build --keep debian.toml                 keep its machine; then: qimg ssh
  qimg build --no-cache debian.toml             run every step
  qimg build --all images                       every image below a directory
  qimg build --all images --changed-since origin/main
  qimg build --all images --list --json         their names, and why each would be built

Flags may have one dash, as Packer's. A template's `{{env}}` reads this environment; `QIMG_CACHE` is where downloads are kept;
`SSH_AUTH_SOCK` is used if the template asks for the agent; `http_proxy`, `https_proxy` and `no_proxy` are obeyed.

Exit codes:
  0    all builds are done
  1    used wrongly, the template is wrong, or the build could not start
  2    the guest did not answer, or died
  3    a provisioner failed
  4    a post-processor failed; the artifact is kept
       of many images, all are tried, and the code is that of the first that failed
  129, 130, 143   ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM; no QEMU is left, and no file but logs of the run";

/// Check a template, without network or boot
///
/// All mistakes are told with file, line and column, and what would be silently lost in Packer as warnings.
#[derive(Debug, Args)]
#[command(after_long_help = VALIDATE_HELP)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    pub(crate) template: TemplateArgs,

    /// Check that it can be read at all
    #[arg(long)]
    pub(crate) syntax_only: bool,

    /// Warnings are errors
    #[arg(long)]
    pub(crate) strict: bool,

    /// Print the findings as JSON: a list, empty where nothing is wrong, of objects with severity (note, warning or
    /// error), file, line and column (0: no place), message and remedy
    #[arg(long)]
    pub(crate) json: bool,
}

const VALIDATE_HELP: &str = "\
Examples:
  qimg validate debian.toml
  qimg validate -syntax-only -var-file=ci.json packer.json

Exit codes:
  0    the template is right
  1    it is not, or there are warnings and --strict; or used wrongly";

/// Change templates
#[derive(Debug, Args)]
#[command(after_long_help = CONVERT_HELP)]
pub(crate) struct TemplateCommandArgs {
    #[command(subcommand)]
    pub(crate) command: TemplateCommand,
}

/// What to do with a template.
#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// Write a Packer JSON template as TOML
    #[command(after_long_help = CONVERT_HELP)]
    Convert {
        /// The template
        #[arg(value_name = "PACKER.json")]
        template: PathBuf,
        /// Where to [default: stdout]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

const CONVERT_HELP: &str = "\
Examples:
  qimg template convert packer.json > build.toml

Exit codes:
  0    done
  1    failed, or used wrongly";

/// Look into the cache of downloads and of machines' states, or make it smaller
#[derive(Debug, Args)]
#[command(after_long_help = CACHE_HELP)]
pub(crate) struct CacheArgs {
    /// The directory [default: $QIMG_CACHE, else qimg in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) cache: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

/// What to do with the cache.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// List what is in it
    #[command(after_long_help = CACHE_HELP)]
    List {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove what was not used for longest, states of machines first; nothing that is in use, nor what a kept
    /// machine rests on
    #[command(after_long_help = CACHE_HELP)]
    Prune {
        /// Until it is no larger than this; 0 or nothing: all
        #[arg(long, value_name = "SIZE")]
        size: Option<String>,
        /// What was not used for so many days
        #[arg(long, value_name = "DAYS")]
        days: Option<u32>,
    },
}

const CACHE_HELP: &str = "\
Examples:
  qimg cache list
  qimg cache prune --size 10G

Exit codes:
  0    done
  1    failed, or used wrongly";
