//! qimg reads, checks, converts and compresses VM disk images, and looks into the
//! filesystems in them: a native qcow2 engine that uses all cores, readers of
//! partition tables and filesystems, and no need of qemu-img or a mount.
//!
//! # The data path
//!
//! ```text
//! store -> image (qcow2 | raw) -> Source -> extents -> zero scan -> codec workers -> ordered commit -> ImageWriter -> store
//! ```
//!
//! Metadata is parsed into plain data; workers take pieces of the guest's disk,
//! whoever is free; what they make of them is committed in guest order. So the
//! bytes of an image depend on its input and options, never on the number of
//! threads.
//!
//! ```
//! use std::sync::Arc;
//! use qimg::image::{Depth, Format, Image, OpenOptions};
//! use qimg::source::Source;
//! use qimg::store::{Memory, ReadAt};
//!
//! let store: Arc<dyn ReadAt> = Arc::new(Memory::from(b"guest".repeat(1000)));
//! let options = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
//! let image = Image::from_store(store, "disk.raw", &options)?;
//! let chain = image.chain(Depth::Chain, None)?;
//! let mut first = [0; 5];
//! chain.reader().read_at(0, &mut first)?;
//! assert_eq!((&first, chain.virtual_size()), (b"guest", 5120));
//! # Ok::<(), qimg::Error>(())
//! ```
//!
//! # Layers
//!
//! A module may name those below it, never one above.
//!
//! | layer | modules | knows |
//! |---|---|---|
//! | program | `src/bin/qimg` | arguments, words, colours, exit codes |
//! | trials | [`trial`], [`goss`] (feature `build`) | what an image has to be like; how a guest is asked, and judged |
//! | builds | [`mod@build`] (feature `build`) | what a template asks for: provisioning, sealing, masking, events |
//! | operations | [`publish`] (feature `build`), [`compress`], [`rewrite`], [`prune`], [`create`], [`compare`], [`sparsify`], [`resize`], [`extract`], [`inspect`], [`usage`], [`disk`], [`seed`] | what a user asks for |
//! | machine | [`machine`], [`communicator`], [`template`], [`fetch`], [`digest`] | a QEMU that is watched; ways into a guest; what a build is; files from elsewhere, compared with their checksums (feature `build`) |
//! | disk | [`survey`], [`browse`] | the rules that concern more than one part of a disk; which filesystem a path lies on |
//! | data path | [`convert`] | sources, writers and codecs; no format |
//! | formats | [`image`] | qcow2 and raw, what they are and whether they are sound; policies for files that an image names; no operation |
//! | guest | [`volume`], [`partition`], [`lvm`], [`fs`], [`free`] | partitions and filesystems inside the guest's disk, and what they do not use |
//! | makers | [`fat`], [`iso9660`] | new filesystems, written as a whole |
//! | keys | `keyboard` | boot commands, keyboard layouts (feature `build`) |
//! | contracts | [`source`], [`writer`], [`extent`], [`codec`], [`zero`] | guest bytes, extents, one cluster |
//! | guests' files | [`serve`] | a small HTTP server |
//! | host | [`store`] | files, locks, holes, staging |
//! | base | [`error`], [`units`], `fields` | failures that name file, place and remedy; sizes; numbers in records |
//!
//! # Never
//!
//! - A file that an image names is never opened without a [`image::BackingPolicy`]; the default opens none.
//! - An input is never written, but by [`sparsify`], [`resize`], [`disk::grow`] and [`disk::add_esp`], which leave it sound whenever they end; a destination never holds half an image: outputs are staged and renamed.
//! - No byte of an image can make the library panic, allocate without bound or loop without end.
//! - A free map only under-reports: on any doubt about a filesystem all of it is kept.
//! - "Unallocated" and "zero" are never merged before the writer decides: with a backing file they differ.
//! - The library never prints and never reads its environment: reports are plain data.
//!
//! The format is that of QEMU's `docs/interop/qcow2.rst`; where QEMU is stricter or more lenient than that, so is qimg.

pub mod browse;
#[cfg(feature = "build")]
pub mod build;
pub mod codec;
#[cfg(feature = "build")]
pub mod communicator;
pub mod compare;
pub mod compress;
pub mod convert;
pub mod create;
#[cfg(feature = "build")]
pub mod digest;
pub mod disk;
pub mod error;
pub mod extent;
pub mod extract;
pub mod fat;
#[cfg(feature = "build")]
pub mod fetch;
mod fields;
pub mod free;
pub mod fs;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "build")]
pub mod goss;
pub mod image;
pub mod inspect;
pub mod iso9660;
#[cfg(feature = "build")]
pub mod keyboard;
pub mod lvm;
#[cfg(feature = "build")]
pub mod machine;
pub mod partition;
pub mod prune;
#[cfg(feature = "build")]
pub mod publish;
pub mod resize;
pub mod rewrite;
pub mod seed;
pub mod serve;
pub mod source;
pub mod sparsify;
pub mod store;
pub mod survey;
#[cfg(feature = "build")]
pub mod template;
#[cfg(feature = "build")]
pub mod trial;
pub mod units;
pub mod usage;
pub mod volume;
pub mod writer;
pub mod zero;

pub use error::{Error, ErrorKind, Result};
