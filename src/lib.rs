//! qimg: read, check, convert and compress VM disk images.

pub mod codec;
pub mod error;
pub mod extent;
pub mod image;
pub mod source;
pub mod store;
pub mod units;

pub use error::{Error, ErrorKind, Result};
