//! qimg: read, check, convert and compress VM disk images.

pub mod codec;
pub mod error;
pub mod store;
pub mod units;

pub use error::{Error, ErrorKind, Result};
