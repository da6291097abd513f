//! What runs the guest: KVM where guests really run in it, else TCG.
//!
//! Knows `/dev/kvm`, and how to find out by a small guest whether it works: there are machines where it opens, and
//! guests die in it while QEMU stays up. Must not know templates.

mod probe;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::communicator::Stop;
use crate::error::Result;

use super::launcher::Launcher;
pub use probe::{Outcome, probe};

/// What runs the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's processor, by Linux.
    Kvm,
    /// In software.
    Tcg,
    /// QEMU's own choice.
    None,
    /// Another one by QEMU's name: `hvf`, `xen`, ...
    Other(String),
}

impl Accelerator {
    /// By the name templates have for it; `None` for `auto`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "auto" | "" => None,
            "kvm" => Some(Self::Kvm),
            "tcg" => Some(Self::Tcg),
            "none" => Some(Self::None),
            other => Some(Self::Other(other.to_owned())),
        }
    }

    /// Value of `-accel`.
    pub fn argument(&self) -> Option<String> {
        match self {
            Self::Kvm => Some("kvm".to_owned()),
            Self::Tcg => Some("tcg,thread=multi".to_owned()),
            Self::None => None,
            Self::Other(name) => Some(name.clone()),
        }
    }

    /// Whether the host's own processor runs the guest, so that `-cpu host` can be had.
    pub fn is_hardware(&self) -> bool {
        !matches!(self, Self::Tcg | Self::None)
    }

    /// The best `-cpu` there is. QEMU's own default lacks what new systems ask for.
    pub fn default_cpu(&self) -> Option<&'static str> {
        match self {
            Self::Kvm => Some("host"),
            Self::Tcg => Some("max"),
            Self::Other(name) if name == "hvf" => Some("host"),
            Self::None | Self::Other(_) => None,
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
            Self::None => "none",
            Self::Other(name) => name,
        })
    }
}

/// Why it is what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The template says so.
    Asked,
    /// A guest ran in KVM.
    GuestsRun,
    /// There is no `/dev/kvm`.
    Missing,
    /// It may not be opened.
    NoPermission {
        /// Name or number of the group that may.
        group: String,
    },
    /// It cannot be opened: the host's words.
    CannotOpen(String),
    /// It opens, and guests die in it: QEMU's words.
    GuestsDie(String),
    /// It opens, and a guest does not get anywhere in it.
    GuestsHang(Duration),
    /// The guest's processor is not of the host's kind.
    OtherArchitecture,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("asked for"),
            Self::GuestsRun => f.write_str("a guest runs in KVM"),
            Self::Missing => f.write_str("there is no /dev/kvm"),
            Self::NoPermission { group } => {
                write!(f, "/dev/kvm may be opened by the group {group} only")
            }
            Self::CannotOpen(words) => write!(f, "/dev/kvm cannot be opened: {words}"),
            Self::GuestsDie(words) => write!(f, "/dev/kvm opens, but guests die in it: {words}"),
            Self::GuestsHang(time) => {
                write!(
                    f,
                    "/dev/kvm opens, but a guest got nowhere in it for {time:?}"
                )
            }
            Self::OtherArchitecture => f.write_str("the guest's processor is not the host's"),
        }
    }
}

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// It.
    pub accelerator: Accelerator,
    /// The reason.
    pub why: Why,
    /// Time that finding out took.
    pub took: Duration,
}

/// Where to look.
#[derive(Debug, Clone)]
pub struct Host {
    /// `/dev/kvm`.
    pub kvm: PathBuf,
    /// For finding out whether a guest runs.
    pub limit: Duration,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            kvm: PathBuf::from("/dev/kvm"),
            limit: Duration::from_secs(5),
        }
    }
}

/// The accelerator that `wanted` is (`None` or `auto`: the best that works), for guests of `qemu` with a processor of
/// model `cpu` (`None`: the best there is).
///
/// # Errors
///
/// When QEMU cannot be started at all, or `stop` says so.
pub fn choose(
    wanted: Option<&str>,
    cpu: Option<&str>,
    qemu: &Path,
    launcher: &Launcher,
    host: &Host,
    stop: &Stop,
) -> Result<Choice> {
    let started = Instant::now();
    let (accelerator, why) = match wanted.and_then(Accelerator::named) {
        Some(accelerator) => (accelerator, Why::Asked),
        None => match refusal(cpu.unwrap_or("host"), qemu, launcher, host, stop)? {
            None => (Accelerator::Kvm, Why::GuestsRun),
            Some(why) => (Accelerator::Tcg, why),
        },
    };
    let took = started.elapsed();
    Ok(Choice {
        accelerator,
        why,
        took,
    })
}

/// Why KVM cannot be taken, if it cannot.
fn refusal(
    cpu: &str,
    qemu: &Path,
    launcher: &Launcher,
    host: &Host,
    stop: &Stop,
) -> Result<Option<Why>> {
    if !is_of_this_architecture(qemu) {
        return Ok(Some(Why::OtherArchitecture));
    }
    match rustix::fs::open(&host.kvm, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => {}
        Err(Errno::NOENT) => return Ok(Some(Why::Missing)),
        Err(Errno::ACCESS | Errno::PERM) => {
            let group = group_of(&host.kvm);
            return Ok(Some(Why::NoPermission { group }));
        }
        Err(errno) => {
            let words = std::io::Error::from(errno).to_string();
            return Ok(Some(Why::CannotOpen(words)));
        }
    }
    // The small guest is one of a PC; elsewhere only the opening is known.
    if !cfg!(target_arch = "x86_64") {
        return Ok(None);
    }
    let outcome = probe(qemu, &Accelerator::Kvm, cpu, launcher, host.limit, stop)?;
    Ok(match outcome {
        Outcome::Runs => None,
        Outcome::Dies(words) => Some(Why::GuestsDie(words)),
        Outcome::Hangs(time) => Some(Why::GuestsHang(time)),
    })
}

fn is_of_this_architecture(qemu: &Path) -> bool {
    let name = qemu.file_name().and_then(|name| name.to_str());
    let Some(guest) = name.and_then(|name| name.strip_prefix("qemu-system-")) else {
        // `qemu-kvm` and the like are of the host's.
        return true;
    };
    match guest {
        "x86_64" | "i386" => cfg!(target_arch = "x86_64"),
        "aarch64" | "arm" => cfg!(target_arch = "aarch64"),
        "riscv64" => cfg!(target_arch = "riscv64"),
        "ppc64" => cfg!(target_arch = "powerpc64"),
        "s390x" => cfg!(target_arch = "s390x"),
        _ => false,
    }
}

/// The group that owns the file: its name where the host's table has it.
fn group_of(path: &Path) -> String {
    let Ok(stat) = rustix::fs::stat(path) else {
        return "?".to_owned();
    };
    let number = stat.st_gid.to_string();
    let table = crate::store::read_file(Path::new("/etc/group"), 1 << 20).unwrap_or_default();
    let table = String::from_utf8_lossy(&table);
    let of = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    };
    table.lines().find_map(of).unwrap_or(number)
}

#[cfg(test)]
mod tests;
