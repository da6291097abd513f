//! L1 and L2 table entries, and what an L2 entry says about its cluster.
//!
//! | bits | L1 entry | L2 entry (standard) |
//! |---|---|---|
//! | 0 | reserved | reads as zeros (version 3, not with extended L2) |
//! | 9..55 | host offset of the L2 table | host offset of the cluster |
//! | 62 | reserved | compressed cluster descriptor in bits 0..61 |
//! | 63 | copied flag | copied flag |
//!
//! With extended L2 a second word follows: bits 0..31 say which of the 32
//! subclusters are allocated, bits 32..63 which read as zeros.

#![cfg_attr(
    not(test),
    expect(
        clippy::arithmetic_side_effects,
        reason = "divisors are powers of two, at least 1"
    )
)]

use super::{ClusterBits, CompressedDescriptor, Corruption, HostOffset};

/// Copied flag: the reference count is exactly one.
pub const COPIED: u64 = 1 << 63;
/// The entry is a compressed cluster descriptor.
pub const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeros.
pub const ZERO: u64 = 1;
/// Host offset field of L1 and standard L2 entries.
pub const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// Bits of an L1 entry that must be 0.
pub const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
/// Bits of a standard L2 entry that must be 0.
pub const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
/// Subclusters in a cluster with extended L2.
pub const SUBCLUSTERS: u32 = 32;

/// What the header says that is needed to understand an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Cluster size.
    pub cluster_bits: ClusterBits,
    /// Format version, 2 or 3.
    pub version: u32,
    /// Entries are two words, clusters have 32 subclusters.
    pub extended_l2: bool,
    /// Guest data lives in an external data file, at its guest offset.
    pub external_data: bool,
}

impl Geometry {
    /// Bytes of one L2 entry: 8, or 16 with extended L2.
    pub fn l2_entry_size(self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }

    /// Entries of one L2 table (one cluster).
    pub fn l2_entries(self) -> u64 {
        self.cluster_bits.size() / self.l2_entry_size()
    }

    /// Guest bytes mapped by one L2 table.
    pub fn l2_span(self) -> u64 {
        self.l2_entries() << self.cluster_bits.bits()
    }

    /// L1 entries needed for `virtual_size` bytes.
    pub fn l1_entries(self, virtual_size: u64) -> u64 {
        virtual_size.div_ceil(self.l2_span())
    }

    /// Bytes of one subcluster; the cluster size without extended L2.
    pub fn subcluster_size(self) -> u64 {
        if self.extended_l2 {
            self.cluster_bits.size() / u64::from(SUBCLUSTERS)
        } else {
            self.cluster_bits.size()
        }
    }
}

/// An L1 entry as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct L1Entry(pub u64);

impl L1Entry {
    /// The entry that points to an L2 table owned by this L1 table alone.
    pub fn to_table(host: HostOffset) -> Self {
        Self(host.0 | COPIED)
    }

    /// Where the L2 table is; `None` when there is none.
    ///
    /// # Errors
    /// The offset is not on a cluster boundary.
    pub fn table(self, cluster_bits: ClusterBits) -> Result<Option<HostOffset>, Corruption> {
        let host = self.0 & OFFSET_MASK;
        if !cluster_bits.is_aligned(host) {
            return Err(Corruption::Unaligned {
                what: "L1 entry",
                entry: self.0,
            });
        }
        Ok((host != 0).then_some(HostOffset(host)))
    }
}

/// An L2 entry as stored; `bitmap` is 0 without extended L2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct L2Entry {
    /// First word.
    pub word: u64,
    /// Subcluster bitmap.
    pub bitmap: u64,
}

/// What an L2 entry says about its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L2Mapping {
    /// Nothing in this layer: the backing file shows through.
    Unallocated,
    /// Reads as zeros and hides the backing file; `host` is space kept for later writes.
    Zero {
        /// Preallocated cluster, if any.
        host: Option<HostOffset>,
    },
    /// All bytes are at `host`.
    Data {
        /// First byte of the cluster.
        host: HostOffset,
    },
    /// All bytes come out of one compressed stream.
    Compressed(CompressedDescriptor),
    /// Extended L2 with subclusters of different kinds.
    Subclusters {
        /// First byte of the cluster, if any subcluster is allocated.
        host: Option<HostOffset>,
        /// Bit n: subcluster n has its bytes at `host`.
        allocated: u32,
        /// Bit n: subcluster n reads as zeros.
        zero: u32,
    },
}

impl L2Entry {
    /// A plain cluster with reference count one.
    pub fn data(host: HostOffset) -> Self {
        Self {
            word: host.0 | COPIED,
            bitmap: 0,
        }
    }

    /// Decodes the entry of the cluster at guest offset `guest`.
    ///
    /// # Errors
    /// Entries that QEMU refuses to follow: unaligned, impossible for the version, contradictory subclusters,
    /// or not where an external data file has its bytes.
    pub fn decode(self, geometry: Geometry, guest: u64) -> Result<L2Mapping, Corruption> {
        let entry = self.word;
        if entry & COMPRESSED != 0 {
            if geometry.external_data {
                return Err(Corruption::Entry {
                    why: "compressed cluster in an image with an external data file",
                    entry,
                });
            }
            if geometry.extended_l2 && self.bitmap != 0 {
                return Err(Corruption::Entry {
                    why: "compressed cluster with a subcluster bitmap",
                    entry,
                });
            }
            return Ok(L2Mapping::Compressed(CompressedDescriptor::decode(
                entry,
                geometry.cluster_bits,
            )));
        }
        let host = entry & OFFSET_MASK;
        if !geometry.cluster_bits.is_aligned(host) {
            return Err(Corruption::Unaligned {
                what: "L2 entry",
                entry,
            });
        }
        // With a data file, host offset 0 is a place like any other: only the copied flag tells.
        let allocated = host != 0 || (geometry.external_data && entry & COPIED != 0);
        if allocated && geometry.external_data && host != guest {
            return Err(Corruption::Entry {
                why: "data file offset is not the guest offset",
                entry,
            });
        }
        let host = allocated.then_some(HostOffset(host));
        if geometry.extended_l2 {
            return self.decode_subclusters(host);
        }
        match (entry & ZERO != 0, host) {
            (true, _) if geometry.version < 3 => Err(Corruption::Entry {
                why: "zero cluster in a version 2 image",
                entry,
            }),
            (true, host) => Ok(L2Mapping::Zero { host }),
            (false, Some(host)) => Ok(L2Mapping::Data { host }),
            (false, None) => Ok(L2Mapping::Unallocated),
        }
    }

    /// The entry without a host cluster that reads as this one does when all stored bytes are zeros.
    ///
    /// `overlay` says that a backing file must stay hidden: subclusters that let it show through still do. `None` when
    /// the version has no entry for that, as version 2 has none for zeros.
    pub fn emptied(self, geometry: Geometry, overlay: bool) -> Option<Self> {
        if !overlay {
            return Some(Self::default());
        }
        if geometry.version < 3 {
            return None;
        }
        if !geometry.extended_l2 {
            return Some(Self {
                word: ZERO,
                bitmap: 0,
            });
        }
        let (allocated, zero) = if self.word & COMPRESSED != 0 {
            (u32::MAX, 0)
        } else {
            split_bitmap(self.bitmap)
        };
        Some(Self {
            word: 0,
            bitmap: join_bitmap(0, allocated | zero),
        })
    }

    fn decode_subclusters(self, host: Option<HostOffset>) -> Result<L2Mapping, Corruption> {
        let (allocated, zero) = split_bitmap(self.bitmap);
        if allocated & zero != 0 {
            return Err(Corruption::Entry {
                why: "subclusters that are both allocated and zero",
                entry: self.bitmap,
            });
        }
        match (host, allocated, zero) {
            (None, 1.., _) => Err(Corruption::Entry {
                why: "allocated subclusters without a host cluster",
                entry: self.bitmap,
            }),
            (Some(host), u32::MAX, _) => Ok(L2Mapping::Data { host }),
            (host, 0, u32::MAX) => Ok(L2Mapping::Zero { host }),
            (None, 0, 0) => Ok(L2Mapping::Unallocated),
            (host, allocated, zero) => Ok(L2Mapping::Subclusters {
                host,
                allocated,
                zero,
            }),
        }
    }
}

/// Splits an extended entry's second word into (allocated, zero).
pub fn split_bitmap(bitmap: u64) -> (u32, u32) {
    let low = |word: u64| u32::try_from(word & 0xffff_ffff).unwrap_or(u32::MAX);
    (low(bitmap), low(bitmap >> 32))
}

/// Joins (allocated, zero) into an extended entry's second word.
pub fn join_bitmap(allocated: u32, zero: u32) -> u64 {
    u64::from(allocated) | (u64::from(zero) << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(extended_l2: bool, external_data: bool, version: u32) -> Geometry {
        let cluster_bits = ClusterBits::new(16).unwrap();
        Geometry {
            cluster_bits,
            version,
            extended_l2,
            external_data,
        }
    }

    #[test]
    fn zero_and_unallocated_stay_apart() {
        let plain = geometry(false, false, 3);
        let at = |word| L2Entry { word, bitmap: 0 }.decode(plain, 0).unwrap();
        assert_eq!(at(0), L2Mapping::Unallocated);
        assert_eq!(at(1), L2Mapping::Zero { host: None });
        assert_eq!(
            at(0x5_0001),
            L2Mapping::Zero {
                host: Some(HostOffset(0x5_0000))
            }
        );
        assert_eq!(
            at(COPIED | 0x5_0000),
            L2Mapping::Data {
                host: HostOffset(0x5_0000)
            }
        );
        assert!(
            L2Entry { word: 1, bitmap: 0 }
                .decode(geometry(false, false, 2), 0)
                .is_err()
        );
        assert!(
            L2Entry {
                word: 0x5_0200,
                bitmap: 0
            }
            .decode(plain, 0)
            .is_err()
        );
    }

    #[test]
    fn compressed_wins_over_the_zero_bit() {
        let entry = L2Entry {
            word: COMPRESSED | 0x5_0001,
            bitmap: 0,
        };
        let mapping = entry.decode(geometry(false, false, 3), 0).unwrap();
        assert!(matches!(mapping, L2Mapping::Compressed(d) if d.host.0 == 0x5_0001));
    }

    #[test]
    fn host_zero_is_allocated_in_a_data_file_when_copied() {
        let with_file = geometry(false, true, 3);
        let at = |word, guest| L2Entry { word, bitmap: 0 }.decode(with_file, guest);
        assert_eq!(
            at(COPIED, 0),
            Ok(L2Mapping::Data {
                host: HostOffset(0)
            })
        );
        assert_eq!(at(0, 0), Ok(L2Mapping::Unallocated));
        assert!(at(COPIED | 0x1_0000, 0x2_0000).is_err());
        assert!(at(COMPRESSED, 0).is_err());
    }

    #[test]
    fn an_emptied_entry_hides_what_it_hid() {
        let host = COPIED | 0x5_0000;
        let plain = L2Entry {
            word: host,
            bitmap: 0,
        };
        let emptied = |entry: L2Entry, extended, version, overlay| {
            let geometry = geometry(extended, false, version);
            let emptied = entry.emptied(geometry, overlay)?;
            Some(emptied.decode(geometry, 0).unwrap())
        };
        let zero = L2Mapping::Zero { host: None };
        assert_eq!(
            emptied(plain, false, 3, false),
            Some(L2Mapping::Unallocated)
        );
        assert_eq!(
            emptied(plain, false, 2, false),
            Some(L2Mapping::Unallocated)
        );
        assert_eq!(emptied(plain, false, 3, true), Some(zero));
        assert_eq!(emptied(plain, false, 2, true), None);
        let stream = L2Entry {
            word: COMPRESSED | 0x5_0000,
            bitmap: 0,
        };
        assert_eq!(emptied(stream, true, 3, true), Some(zero));
        let mixed = L2Entry {
            word: host,
            bitmap: join_bitmap(0b01, 0b10),
        };
        let still = L2Mapping::Subclusters {
            host: None,
            allocated: 0,
            zero: 0b11,
        };
        assert_eq!(emptied(mixed, true, 3, true), Some(still));
        let kept = L2Entry {
            word: host,
            bitmap: 0,
        };
        assert_eq!(emptied(kept, true, 3, true), Some(L2Mapping::Unallocated));
    }

    #[test]
    fn subclusters_fold_into_whole_clusters() {
        let extended = geometry(true, false, 3);
        let at = |word, allocated, zero| {
            L2Entry {
                word,
                bitmap: join_bitmap(allocated, zero),
            }
            .decode(extended, 0)
        };
        let place = HostOffset(0x5_0000);
        let host = Some(place);
        assert_eq!(
            at(0x5_0000, u32::MAX, 0),
            Ok(L2Mapping::Data { host: place })
        );
        assert_eq!(at(0x5_0000, 0, u32::MAX), Ok(L2Mapping::Zero { host }));
        assert_eq!(
            at(0x5_0000, 0, 0),
            Ok(L2Mapping::Subclusters {
                host,
                allocated: 0,
                zero: 0
            })
        );
        assert_eq!(at(0, 0, 0), Ok(L2Mapping::Unallocated));
        assert!(at(0, 1, 0).is_err());
        assert!(at(0x5_0000, 1, 1).is_err());
    }
}
