//! qimg: read, check, convert and compress VM disk images.

pub mod codec;
pub mod compress;
pub mod convert;
pub mod create;
pub mod error;
pub mod extent;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod image;
pub mod rewrite;
pub mod source;
pub mod store;
pub mod units;
pub mod writer;
pub mod zero;

pub use error::{Error, ErrorKind, Result};
