//! Why a machine is lost.
//!
//! Knows the reasons and their words. Must not know how they are noticed.

use super::launcher::Ended;

/// Why a machine is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Death {
    /// The guest was shut down, from inside or by request, and QEMU ended well.
    PoweredOff,
    /// QEMU ended by itself.
    Ended(Ended),
    /// KVM cannot run the guest; another start with TCG may.
    KvmInternalError,
    /// The guest's kernel panicked.
    GuestPanicked,
    /// The host cannot write or read a disk of the machine, which QEMU has stopped for that.
    DiskFailed {
        /// No room is left for what the guest writes.
        full: bool,
        /// In the host's words.
        why: String,
    },
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PoweredOff => f.write_str("the guest has powered off"),
            Self::Ended(Ended::Code(code)) => write!(f, "QEMU ended with code {code}"),
            Self::Ended(Ended::Signal(signal)) => write!(f, "QEMU was ended by signal {signal}"),
            Self::KvmInternalError => f.write_str("KVM cannot run the guest (KVM internal error)"),
            Self::GuestPanicked => f.write_str("the guest's kernel panicked"),
            Self::DiskFailed { full: true, .. } => {
                f.write_str("the guest was stopped: the host has no space left for what it writes")
            }
            Self::DiskFailed { why, .. } => {
                write!(
                    f,
                    "the guest was stopped: the host cannot use a disk of it ({why})"
                )
            }
        }
    }
}
