//! The names of what is removed, and the order in which it is.

use crate::error::{Error, Result};

/// One thing that is removed from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// What cloud-init keeps of the machine it ran on: the next start is the first one again.
    CloudInit,
    /// Lists and archives of package managers.
    PackageCaches,
    /// What was typed.
    ShellHistory,
    /// Leases of addresses, and network settings that cloud-init writes anew.
    Leases,
    /// Seeds of random numbers.
    RandomSeed,
    /// The machine's id.
    MachineId,
    /// SSH host keys, where something will make new ones.
    SshHostKeys,
    /// Passwords of the build.
    Passwords,
    /// Temporary files.
    TemporaryFiles,
    /// Logs and the journal.
    Logs,
    /// Free space, given back to the disk.
    Fstrim,
    /// Keys of the build, by which it is logged in.
    AuthorizedKeys,
}

impl Step {
    /// All of them, in the order in which they are done: what is written by one is removed by a later one, and the way
    /// in is closed last.
    pub const ALL: [Self; 12] = [
        Self::CloudInit,
        Self::PackageCaches,
        Self::ShellHistory,
        Self::Leases,
        Self::RandomSeed,
        Self::MachineId,
        Self::SshHostKeys,
        Self::Passwords,
        Self::TemporaryFiles,
        Self::Logs,
        Self::Fstrim,
        Self::AuthorizedKeys,
    ];

    /// As in templates and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::CloudInit => "cloud-init",
            Self::PackageCaches => "package-caches",
            Self::ShellHistory => "shell-history",
            Self::Leases => "leases",
            Self::RandomSeed => "random-seed",
            Self::MachineId => "machine-id",
            Self::SshHostKeys => "ssh-host-keys",
            Self::Passwords => "passwords",
            Self::TemporaryFiles => "temporary-files",
            Self::Logs => "logs",
            Self::Fstrim => "fstrim",
            Self::AuthorizedKeys => "authorized-keys",
        }
    }

    /// The step of this name.
    ///
    /// # Errors
    /// There is none; the remedy names all.
    pub fn named(name: &str) -> Result<Self> {
        let step = Self::ALL.into_iter().find(|step| step.name() == name);
        step.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|step| step.name()).collect();
            Error::usage(format!("there is no step \"{name}\" to seal a guest"))
                .with_remedy(format!("the steps are {}", names.join(", ")))
        })
    }

    pub(super) fn script(self) -> &'static str {
        match self {
            Self::CloudInit => include_str!("steps/cloud-init.sh"),
            Self::PackageCaches => include_str!("steps/package-caches.sh"),
            Self::ShellHistory => include_str!("steps/shell-history.sh"),
            Self::Leases => include_str!("steps/leases.sh"),
            Self::RandomSeed => include_str!("steps/random-seed.sh"),
            Self::MachineId => include_str!("steps/machine-id.sh"),
            Self::SshHostKeys => include_str!("steps/ssh-host-keys.sh"),
            Self::Passwords => include_str!("steps/passwords.sh"),
            Self::TemporaryFiles => include_str!("steps/temporary-files.sh"),
            Self::Logs => include_str!("steps/logs.sh"),
            Self::Fstrim => include_str!("steps/fstrim.sh"),
            Self::AuthorizedKeys => include_str!("steps/authorized-keys.sh"),
        }
    }
}
