//! What the fuzz targets see beyond the public API: the qcow2 format, and what guests say, as bytes and types.
//!
//! There only when cargo-fuzz builds the crate; no part of its API.

#[cfg(feature = "build")]
pub use crate::communicator::transfer::{scp, sftp};
pub use crate::image::qcow2_format::{
    addr, bitmap, compressed, corruption, entry, features, header, layout, refcount, snapshot,
};
#[cfg(feature = "build")]
pub use crate::publish::{api_answer, store_answer};
