//! From a machine's description to a QEMU that runs, is watched, and ends with qimg.
//!
//! | module | knows |
//! |---|---|
//! | [`mod@command_line`] | arguments of QEMU: defaults, `qemuargs`, what survives them; pure |
//! | [`accelerator`] | whether guests run in KVM here |
//! | [`firmware`] | UEFI firmware of the host |
//! | [`launcher`] | processes that end with this one, whatever ends it |
//! | [`tpm`] | a TPM in software |
//! | [`running`] | a QEMU that runs, and why it does not any more |
//! | [`shutdown`] | the ways to end one, from gentle to certain |
//! | [`ports`] | ports of the host that lead to the guest |
//! | [`qmp`] | QEMU's control channel |
//! | [`console`] | the guest's serial console |
//! | [`screen`] | the guest's screen, as PNG and as text |
//!
//! Must not know templates beyond [`crate::template::model`], nor what is done in the guest. Nothing here has a name in
//! the file system that somebody else could use: QEMU's control channel and console are socket pairs.

pub mod accelerator;
pub mod command_line;
pub mod console;
mod death;
pub mod firmware;
pub mod launcher;
mod log;
pub mod ports;
pub mod qmp;
pub mod running;
pub mod screen;
pub mod shutdown;
pub mod tpm;

pub use accelerator::{Accelerator, Choice, Why};
pub use command_line::{CommandLine, Spec, command_line};
pub use launcher::{Ended, Launcher};
pub use running::{Death, Report, Running, Start};
pub use shutdown::{Ladder, Rung, Shutdown};
