//! What a build is given beside its template.
//!
//! Plain data, and the few things only the program knows: the host's environment, whom to ask, when to stop.

use std::path::PathBuf;
use std::sync::Arc;

use super::event::Sink;
use super::provisioner::{Ask, Host};
use crate::communicator::Stop;
use crate::fetch;
use crate::machine::{Launcher, accelerator, firmware};
use crate::template::model::{self, Template};

/// What happens to the files of a build that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// They go. The console's log and the last picture of the screen stay in the run's directory.
    #[default]
    Cleanup,
    /// They stay. QEMU never does.
    Abort,
    /// Somebody is asked.
    Ask,
    /// The template's own provisioner for that runs, and they stay.
    RunCleanupProvisioner,
}

/// What the host is, as far as builds need to know.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// What relative paths of the template start from; absolute.
    pub directory: PathBuf,
    /// Where each run has a directory of its own for its log, pictures and key.
    pub runs: PathBuf,
    /// Name of this run, unique on this host.
    pub run: String,
    /// What tells one run from another in Packer's manifest.
    pub run_uuid: String,
    /// Seconds since 1970.
    pub time: u64,
    /// The same moment, for what is to be told later.
    pub started: std::time::Instant,
    /// What programs and scripts of the host get.
    pub host: Host,
    /// How QEMU is started.
    pub launcher: Launcher,
    /// Socket of the user's SSH agent.
    pub agent: Option<PathBuf>,
    /// There is a display for windows.
    pub has_display: bool,
    /// How base images are got.
    pub fetch: fetch::Options,
    /// What publishing needs; without, nothing is published.
    pub publish: Option<Arc<crate::publish::Access>>,
    /// Where KVM is.
    pub kvm: accelerator::Host,
    /// Where firmware is.
    pub firmware: firmware::Places,
    /// Worker threads for the disk, at least 1.
    pub threads: usize,
}

/// How the user wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Replace the output of an earlier build.
    pub force: bool,
    /// What happens to the files of a build that failed.
    pub on_error: OnError,
    /// Ask before each step.
    pub debug: bool,
    /// The machine of a build that failed stays, so that it can be started once more.
    pub keep: bool,
    /// Keep states of the machine and go on from them; `None`: as the template says.
    pub cache: Option<bool>,
}

/// One build of a template, and all that it takes.
#[derive(Clone)]
pub struct BuildRequest<'a> {
    /// The template.
    pub template: &'a Template,
    /// Which of its builds.
    pub build: &'a model::Build,
    /// The host.
    pub surroundings: &'a Surroundings,
    /// The user's wishes.
    pub options: Options,
    /// Whom to ask; `None`: nobody is there.
    pub ask: Option<&'a dyn Ask>,
    /// Takes what there is to say.
    pub sink: &'a dyn Sink,
    /// Another number at each call, for names of temporary files in the guest.
    pub numbers: &'a (dyn Fn() -> u64 + Send + Sync),
    /// Whether to stop.
    pub stop: Arc<Stop>,
}

impl std::fmt::Debug for BuildRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildRequest")
            .field("build", &self.build.name)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
