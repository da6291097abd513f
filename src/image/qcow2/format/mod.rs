//! The qcow2 format as bytes and types: parsing and encoding, nothing else.
//!
//! Knows `docs/interop/qcow2.rst` and the limits QEMU puts on top of it. Must
//! not know stores, files, policies or allocation: every function here takes
//! slices and returns values, so that all of it is tested and fuzzed on bytes.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions)
)]

pub mod addr;
pub mod bitmap;
pub mod compressed;
pub mod corruption;
pub mod entry;
pub mod features;
pub mod header;
pub mod layout;
pub mod refcount;
pub mod snapshot;

pub use addr::{ClusterBits, HostOffset};
pub use compressed::CompressedDescriptor;
pub use corruption::Corruption;
pub use entry::Geometry;
pub use header::Header;
pub use refcount::RefcountOrder;
