//! Where things are: cluster sizes and host offsets.

use std::fmt;

/// log2 of the cluster size: 9 (512 B) to 21 (2 MiB), as QEMU limits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterBits(u32);

impl ClusterBits {
    /// The smallest cluster: 512 bytes.
    pub const MIN: u32 = 9;
    /// The largest cluster: 2 MiB.
    pub const MAX: u32 = 21;

    /// `None` outside 9..=21.
    pub fn new(bits: u32) -> Option<Self> {
        (Self::MIN..=Self::MAX)
            .contains(&bits)
            .then_some(Self(bits))
    }

    /// From a cluster size in bytes; `None` unless it is a power of two in range.
    pub fn from_size(size: u64) -> Option<Self> {
        if size.is_power_of_two() {
            Self::new(size.trailing_zeros())
        } else {
            None
        }
    }

    /// log2 of the cluster size.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Bytes in a cluster.
    pub fn size(self) -> u64 {
        1 << self.0
    }

    /// Bytes in a cluster, for slices.
    pub fn len(self) -> usize {
        1 << self.0
    }

    /// Position of `offset` within its cluster, in bytes.
    pub fn offset_in(self, offset: u64) -> u64 {
        offset & self.size().wrapping_sub(1)
    }

    /// Whether `offset` is a multiple of the cluster size.
    pub fn is_aligned(self, offset: u64) -> bool {
        self.offset_in(offset) == 0
    }

    /// Clusters needed to hold `bytes`.
    pub fn clusters_for(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.size())
    }
}

/// A position in the image file, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HostOffset(pub u64);

impl fmt::Debug for HostOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {:#x}", self.0)
    }
}

impl fmt::LowerHex for HostOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}
