//! The qcow2 driver. Private to `image`: the rest of the crate sees
//! [`Source`](crate::source::Source) and [`ImageWriter`](crate::writer::ImageWriter).

mod allocator;
pub(crate) mod bitmaps;
mod census;
pub(crate) mod check;
pub(crate) mod edit;
pub(crate) mod format;
mod gather;
mod info;
mod l2_cache;
mod luks;
mod open;
mod preallocation;
pub(crate) mod punch;
mod reader;
mod writer;

pub use census::{Census, DeflateWindow, Subclusters};
pub(crate) use open::Qcow2File;
pub(crate) use reader::{Layer, LayerReader};
pub(crate) use writer::{Writer, write_zero_bytes};
