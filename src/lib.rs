//! qimg: read, check, convert and compress VM disk images.

pub mod codec;
pub mod compare;
pub mod convert;
pub mod error;
pub mod extent;
pub mod image;
pub mod source;
pub mod store;
pub mod units;
pub mod writer;
pub mod zero;

pub use error::{Error, ErrorKind, Result};
