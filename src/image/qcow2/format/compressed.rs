//! The compressed cluster descriptor: where a compressed cluster's bytes are.
//!
//! Bits of the 64-bit L2 entry with bit 62 set, `x = 62 - (cluster_bits - 8)`:
//!
//! | bits | meaning |
//! |---|---|
//! | 0 .. x-1 | host offset in bytes, not aligned |
//! | x .. 61 | additional 512-byte sectors behind the one that holds the offset |

#![cfg_attr(
    not(test),
    expect(
        clippy::arithmetic_side_effects,
        reason = "cluster bits are 9 to 21, so every shift and sum here stays within 63 bits"
    )
)]

use super::{ClusterBits, HostOffset};

const SECTOR: u64 = 512;

/// Where a compressed cluster lies: an exact start and an upper bound of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressedDescriptor {
    /// First byte of the stream; any alignment.
    pub host: HostOffset,
    /// Upper bound of the stream's length in bytes: up to the end of its last sector.
    pub length: u64,
}

impl CompressedDescriptor {
    /// Bits of the host offset field.
    fn offset_bits(cluster_bits: ClusterBits) -> u32 {
        62 - (cluster_bits.bits() - 8)
    }

    /// First host offset that a descriptor cannot express.
    pub fn host_limit(cluster_bits: ClusterBits) -> u64 {
        // Offsets beyond 56 bits are outside qcow2's host address space.
        1 << Self::offset_bits(cluster_bits).min(56)
    }

    /// Takes the descriptor out of an L2 entry; flag bits 62 and 63 are ignored.
    pub fn decode(entry: u64, cluster_bits: ClusterBits) -> Self {
        let x = Self::offset_bits(cluster_bits);
        let host = entry & ((1 << x) - 1);
        let sectors = ((entry >> x) & ((1 << (cluster_bits.bits() - 8)) - 1)) + 1;
        Self {
            host: HostOffset(host),
            length: sectors * SECTOR - (host & (SECTOR - 1)),
        }
    }

    /// The L2 entry (bit 62 included) for a stream of exactly `length` bytes at `host`.
    ///
    /// `None` when the entry cannot express it: too far into the file, or too long.
    pub fn encode(host: HostOffset, length: u64, cluster_bits: ClusterBits) -> Option<u64> {
        let x = Self::offset_bits(cluster_bits);
        let last = host.0.checked_add(length.checked_sub(1)?)?;
        let additional = last / SECTOR - host.0 / SECTOR;
        let fits =
            last < Self::host_limit(cluster_bits) && additional < (1 << (cluster_bits.bits() - 8));
        fits.then_some(super::entry::COMPRESSED | (additional << x) | host.0)
    }

    /// One past the last byte that may belong to the stream.
    pub fn end(self) -> u64 {
        self.host.0 + self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_stops_at_the_sector_behind_the_stream() {
        for bits in 9..=21 {
            let bits = ClusterBits::new(bits).unwrap();
            for host in [0u64, 1, 511, 512, 0x12345, (1 << 40) + 7] {
                for length in [1u64, 2, 511, 512, bits.size() - 1] {
                    let entry =
                        CompressedDescriptor::encode(HostOffset(host), length, bits).unwrap();
                    let back = CompressedDescriptor::decode(entry, bits);
                    assert_eq!(back.host.0, host);
                    assert!(back.length >= length && back.length < length + 512);
                    assert_eq!(back.end() % 512, 0);
                }
            }
        }
    }

    #[test]
    fn an_offset_that_does_not_fit_is_no_entry() {
        let bits = ClusterBits::new(21).unwrap();
        assert_eq!(
            CompressedDescriptor::encode(HostOffset(1 << 49), 10, bits),
            None
        );
        assert_eq!(CompressedDescriptor::encode(HostOffset(0), 0, bits), None);
    }
}
