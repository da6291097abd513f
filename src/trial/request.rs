//! What is to be tried and how, and what came of it: plain data.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::build::Surroundings;
use crate::communicator::{Communicator, Stop};
use crate::error::Result;
use crate::goss::{Check, Outcome, RunOptions};
use crate::image::Format;

/// Where the guest finds its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Datasource {
    /// A volume labelled `cidata`.
    #[default]
    NoCloud,
    /// The metadata and password services of Exoscale, at 169.254.169.254.
    Exoscale,
}

/// How the machine is made and asked.
#[derive(Debug, Clone)]
pub struct Options {
    /// UEFI instead of BIOS.
    pub uefi: bool,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Size of the disk in bytes; `None`: that of the image, or what `grow` asks for.
    pub disk: Option<u64>,
    /// Sizes in bytes of further, empty disks.
    pub disks: Vec<u64>,
    /// Models of further network cards.
    pub networks: Vec<String>,
    /// Who logs in; `None`: the user that the image's cloud-init makes by itself, else `qimg`.
    pub user: Option<String>,
    /// `auto`, `kvm` or `tcg`.
    pub accelerator: Option<String>,
    /// For the guest to answer; four times as long where it is emulated. `None`: five minutes.
    pub ssh_timeout: Option<Duration>,
    /// Where the guest finds its settings.
    pub datasource: Datasource,
    /// A further part of user-data.
    pub user_data: Option<Vec<u8>>,
    /// How the guest is asked.
    pub run: RunOptions,
}

/// A machine that is left running for somebody to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Where its SSH is.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// The private key.
    pub key_file: PathBuf,
}

/// Something to be done with a guest.
pub type GuestWork<'a> = dyn Fn(&dyn Communicator) -> Result<()> + Sync + 'a;

/// One image to be tried with one firmware.
#[derive(Clone)]
pub struct TrialRequest<'a> {
    /// The image.
    pub image: PathBuf,
    /// Its format; `None`: what its beginning says.
    pub format: Option<Format>,
    /// A name for its directory: no two trials of a run have the same.
    pub name: String,
    /// The checks.
    pub checks: &'a [Check],
    /// How.
    pub options: &'a Options,
    /// The host.
    pub surroundings: &'a Surroundings,
    /// Twelve random bytes at each call, for passwords.
    pub random: &'a (dyn Fn() -> [u8; 12] + Sync),
    /// Takes what is being done, in one line.
    pub tell: &'a (dyn Fn(&str) + Sync),
    /// Called with the guest as soon as it has booted.
    pub with_guest: Option<&'a GuestWork<'a>>,
    /// Called with the machine when all is done, where it is kept until that returns.
    pub keep: Option<&'a (dyn Fn(&Kept) + Sync)>,
    /// Whether to stop.
    pub stop: Arc<Stop>,
}

impl std::fmt::Debug for TrialRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrialRequest")
            .field("image", &self.image)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What there is to look at after a failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// All that the guest said on its console.
    pub console_log: Option<PathBuf>,
    /// The last picture of its screen.
    pub screenshot: Option<PathBuf>,
    /// The last lines of the console.
    pub console: Vec<String>,
}

/// What came of a trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The image, or the machine that was asked.
    pub subject: String,
    /// `bios` or `uefi`; `None`: a machine of which that is not known.
    pub firmware: Option<&'static str>,
    /// SHA-256 of the image, before as after.
    pub sha256: Option<String>,
    /// In the order of the files.
    pub outcomes: Vec<Outcome>,
    /// What somebody should know.
    pub notes: Vec<String>,
    /// What there is to look at; empty where nothing failed.
    pub evidence: Evidence,
    /// From beginning to end.
    pub took: Duration,
}

impl Report {
    /// How many failed.
    #[must_use]
    pub fn failures(&self) -> usize {
        self.outcomes
            .iter()
            .filter(|outcome| outcome.failed())
            .count()
    }
}
