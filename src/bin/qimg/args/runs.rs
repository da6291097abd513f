//! `qimg run`, `ssh`, `ps` and `kill`.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Args;
use qimg::units::ByteSize;

use super::{InputArgs, typed};

/// Boot an image to look around in it; nothing of it is changed
///
/// The image is started on an overlay that goes with the machine, with a seed that lets qimg in by a key made for it. The
/// machine stays until Ctrl-C, `qimg kill`, or until its guest powers off.
#[derive(Debug, Args)]
#[command(after_long_help = RUN_HELP)]
pub(crate) struct RunArgs {
    /// The image
    pub(crate) image: PathBuf,

    /// Memory of the machine
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = typed::<ByteSize>)]
    pub(crate) memory: ByteSize,

    /// Its processors
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) cpus: NonZeroU32,

    /// Boot by UEFI
    #[arg(long)]
    pub(crate) uefi: bool,

    /// Boot by UEFI with secure boot
    #[arg(long)]
    pub(crate) secure_boot: bool,

    /// Bus of the disk
    #[arg(long, value_name = "BUS", default_value = "virtio", value_parser = ["virtio", "virtio-scsi", "ide", "sata"])]
    pub(crate) bus: String,

    /// kvm or tcg [default: the best that works]
    #[arg(long, value_name = "NAME", value_parser = ["auto", "kvm", "tcg", "hvf"])]
    pub(crate) accelerator: Option<String>,

    /// The QEMU
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    pub(crate) qemu: String,

    /// Let the guest write to the image itself
    #[arg(long)]
    pub(crate) write: bool,

    /// User-data for the guest's cloud-init
    #[arg(long, value_name = "FILE")]
    pub(crate) user_data: Option<PathBuf>,

    /// Who logs in
    #[arg(long, value_name = "NAME", default_value = "root")]
    pub(crate) user: String,

    /// A key of yours that lets in as well: the public file of a pair, or the private one; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) ssh_key: Vec<PathBuf>,

    /// For the guest to answer; it stays also if it does not [default: 300, and 1200 where it is emulated]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) wait: Option<u64>,

    /// Print how to get in as one line of JSON, once that is known
    #[arg(long)]
    pub(crate) json: bool,

    /// Go on in the background once the guest lets in
    #[arg(long)]
    pub(crate) detach: bool,

    #[command(flatten)]
    pub(crate) input: InputArgs,
}

const RUN_HELP: &str = "\
Examples:
  qimg run debian.qcow2                         Ctrl-C ends it
  qimg run --user debian --ssh-key ~/.ssh/id_ed25519.pub debian.qcow2
  qimg run --detach --json disk.qcow2 > run.json; ssh -p $(jq .port run.json) ...; qimg kill
  qimg run --uefi --memory 4G --cpus 2 --user-data user-data disk.qcow2

JSON: run, pid, qemu-pid, host, port, user, key, known-hosts, console (the log of all that the guest says there), ready
(whether it lets in). The key and the overlay go with the machine.

Exit codes:
  0    the guest has ended, or was ended
  1    failed, or used wrongly
  2    the guest died";

/// Enter a machine: one that runs, or that of a build that failed and was kept
///
/// A machine of a failed build (`qimg build --keep`) is started again from the disk it had, never by its installer, and
/// shut down afterwards; what is changed there is there the next time. The user's `ssh` is run, with the build's key or
/// password.
#[derive(Debug, Args)]
#[command(after_long_help = SSH_HELP)]
pub(crate) struct SshArgs {
    /// The machine, or the beginning of its name, as `qimg ps` shows it; nothing: the only one
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,

    /// A command for the guest, instead of a shell
    #[arg(value_name = "COMMAND", last = true)]
    pub(crate) command: Vec<String>,
}

const SSH_HELP: &str = "\
Examples:
  qimg ssh                                      the only machine there is
  qimg ssh 1764320400-4711
  qimg ssh web -- journalctl -b                 the machine of the build `web`

Exit codes:
  0    the shell or the command ended well
  1    failed, or used wrongly
  2    the guest does not answer
  *    the command's own code";

/// List machines: those that run, and with --all those of failed builds that were kept
#[derive(Debug, Args)]
#[command(after_long_help = PS_HELP)]
pub(crate) struct PsArgs {
    /// Those of builds that failed, too
    #[arg(short, long)]
    pub(crate) all: bool,

    /// Print them as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const PS_HELP: &str = "\
Examples:
  qimg ps --all                                 also what failed builds left
  qimg ps --json

Exit codes:
  0    done
  1    failed, or used wrongly";

/// End a build or a machine as Ctrl-C does
#[derive(Debug, Args)]
#[command(after_long_help = KILL_HELP)]
pub(crate) struct KillArgs {
    /// The machine, or the beginning of its name, as `qimg ps` shows it; nothing: the only one
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,

    /// At once: nothing is tidied up, but no QEMU is left
    #[arg(long)]
    pub(crate) force: bool,
}

const KILL_HELP: &str = "\
Examples:
  qimg kill                                     the only machine there is
  qimg kill 1764320400-4711

The process is ended that holds the machine's lock; a number alone is not believed.

`qimg forget` removes the machine of a failed build, which was kept.

Exit codes:
  0    it has ended
  1    there is none, or it does not end; or used wrongly";

/// Remove machines of failed builds that were kept: their disks, logs and keys
#[derive(Debug, Args)]
#[command(after_long_help = FORGET_HELP)]
pub(crate) struct ForgetArgs {
    /// The machines, or the beginnings of their names, as `qimg ps --all` shows them
    #[arg(
        value_name = "RUN",
        required_unless_present = "all",
        conflicts_with = "all",
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    pub(crate) runs: Vec<String>,

    /// All that do not run
    #[arg(short, long)]
    pub(crate) all: bool,
}

const FORGET_HELP: &str = "\
Examples:
  qimg forget 1764320400-4711                   the machine of one build
  qimg forget --all

What such a machine rests on in the cache, its base and states, stays there until it is forgotten.

Exit codes:
  0    done
  1    there is none, or it runs; or used wrongly";
