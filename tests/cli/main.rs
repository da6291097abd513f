//! The program as a user meets it: words in, words and exit codes out.
//!
//! Where qemu-img has words for a result, qimg's are compared with those of
//! the real one.

mod check;
mod compare;
mod compress;
mod convert;
mod create;
mod destinations;
mod disk;
mod help;
mod info;
mod map;
mod measure;
mod output;
mod program;
mod signals;
mod sparsify;
