//! Results in words for people: qemu-img's, to the byte where it has them.

pub(crate) mod cache;
pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod compress;
pub(crate) mod copy;
pub(crate) mod create;
pub(crate) mod date;
pub(crate) mod disk;
pub(crate) mod files;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod map;
pub(crate) mod measure;
pub(crate) mod parts;
pub(crate) mod plan;
pub(crate) mod publish;
pub(crate) mod runs;
pub(crate) mod seed;
pub(crate) mod sparsify;
pub(crate) mod template;
pub(crate) mod usage;
