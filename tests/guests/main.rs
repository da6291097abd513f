//! Disks with real filesystems in them, made, filled and checked by their own tools and the kernel: nothing in use is lost,
//! what was deleted is gone, and whatever is doubtful is kept with a reason.
//!
//! Mounting takes root: without it `sudo -n` is asked.

#![expect(clippy::disallowed_types, reason = "tests make their disks themselves")]

mod disks;
mod files;
#[expect(dead_code, reason = "the program's own tests need all of it")]
#[path = "../cli/program.rs"]
mod program;
mod refusals;
mod sparsified;
mod tools;
