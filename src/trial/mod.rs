//! Trials of images: one is booted from a throwaway overlay, looked at from inside and outside, and left as it was.
//!
//! ```text
//! image -> (read offline) -> overlay + seed -> machine -> SSH -> checks -> reboot, migration, shutdown -> outcomes
//! ```
//!
//! | module | knows |
//! |---|---|
//! | [`request`] | what is to be tried, and how |
//! | [`origin`] | the image: that it stands alone, and that nothing changes it |
//! | `seed` | who may log in, and the datasource that tells the guest |
//! | [`bench`] | a machine made of it, and the ways in |
//! | `course` | the order in which checks are made, and what depends on what |
//! | `inside`, `sealed`, `journey`, `logins` | the checks that only an image has |
//! | `known` | what was found out that way, and the results of it |
//! | `up`, `cloud` | machines that are up already, and instances of a cloud's template |
//!
//! Must not know how results are written.

mod bench;
mod cloud;
mod course;
mod exoscale;
mod inside;
mod journey;
mod known;
mod logins;
pub mod origin;
pub mod request;
mod sealed;
mod seed;
mod up;

pub use cloud::{CloudRequest, cloud};
pub use course::trial;
pub use request::{Datasource, Evidence, GuestWork, Kept, Options, Report, TrialRequest};
pub use up::{Up, up};
