//! What the fuzz targets see beyond the public API: the qcow2 format as bytes and types.
//!
//! There only when cargo-fuzz builds the crate; no part of its API.

pub use crate::image::qcow2_format::{
    addr, bitmap, compressed, corruption, entry, features, header, layout, refcount, snapshot,
};
