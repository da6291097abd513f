//! Every way in which qcow2 metadata can be wrong, with the numbers.

use std::fmt;

/// A contradiction between an image and the format.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Corruption {
    /// A header field holds a value outside its range.
    HeaderField {
        /// The field's name in the specification.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What it may hold.
        allowed: &'static str,
    },
    /// A table or string lies outside what can hold it.
    Region {
        /// What lies there.
        what: &'static str,
        /// Host offset in bytes.
        offset: u64,
        /// Length in bytes.
        length: u64,
        /// Why it cannot be.
        why: &'static str,
    },
    /// A header extension does not have the length or content of its kind.
    Extension {
        /// The extension's magic number.
        magic: u32,
        /// What is wrong.
        why: &'static str,
    },
    /// An L1, L2 or refcount table entry points to no cluster boundary.
    Unaligned {
        /// Which entry.
        what: &'static str,
        /// The entry as stored.
        entry: u64,
    },
    /// An entry that its image may not hold.
    Entry {
        /// Why not.
        why: &'static str,
        /// The entry as stored.
        entry: u64,
    },
    /// A table ends before its last record.
    Truncated {
        /// Which table.
        what: &'static str,
    },
    /// A number that exceeds what qimg and QEMU accept.
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        value: u64,
        /// How many there may be.
        limit: u64,
    },
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeaderField {
                field,
                value,
                allowed,
            } => {
                write!(
                    f,
                    "header field {field} is {value} ({value:#x}), allowed: {allowed}"
                )
            }
            Self::Region {
                what,
                offset,
                length,
                why,
            } => {
                write!(f, "{what} at host {offset:#x}, {length} bytes: {why}")
            }
            Self::Extension { magic, why } => write!(f, "header extension {magic:#010x}: {why}"),
            Self::Unaligned { what, entry } => {
                write!(f, "{what} {entry:#018x} is not aligned to a cluster")
            }
            Self::Entry { why, entry } => write!(f, "{why} (entry {entry:#018x})"),
            Self::Truncated { what } => write!(f, "{what} ends early"),
            Self::TooLarge { what, value, limit } => {
                write!(f, "{what}: {value}, the limit is {limit}")
            }
        }
    }
}

impl std::error::Error for Corruption {}
