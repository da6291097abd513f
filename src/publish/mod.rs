//! Artifacts brought to where others take them from: object stores, a cloud's templates, directories, any server.
//!
//! Knows how a file gets somewhere else unchanged: digests on the way, tries again, goes on where an earlier run was
//! interrupted, and publishes nothing twice. Must not know templates or builds, and never reads the environment: secrets
//! and directories are handed in.
//!
//! What is published is only read. However a publish ends, the artifact is as it was, and the same call goes on.
//!
//! | module | where to |
//! |---|---|
//! | [`s3`] | an object store that speaks S3 |
//! | [`exoscale`] | a template of Exoscale's, by way of its object store |
//! | [`directory`] | a directory with a stream of versions |
//! | [`put`] | a server that takes HTTP PUT |
//! | [`packed`] | no place: `disk.raw` in a tar.gz, as some clouds want it |

mod attend;
mod courier;
pub mod directory;
pub mod original;
pub mod packed;
pub mod put;
pub mod s3;

pub use attend::Event;
pub use original::Original;
