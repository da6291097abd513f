//! Reference counts: blocks of counters 1 to 64 bits wide.
//!
//! Widths below 8 bits are packed from the least significant bit of each
//! byte; wider counters are big-endian.

#![cfg_attr(
    not(test),
    expect(
        clippy::arithmetic_side_effects,
        reason = "orders are 0 to 6 and cluster bits 9 to 21: no shift or product here leaves its type"
    )
)]

use byteorder::{BigEndian, ByteOrder};

use super::ClusterBits;

/// log2 of the width of a reference count in bits: 0 to 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefcountOrder(u32);

impl RefcountOrder {
    /// 16 bits, the only width of version 2 and the default of version 3.
    pub const DEFAULT: Self = Self(4);

    /// `None` above 6 (64 bits).
    pub fn new(order: u32) -> Option<Self> {
        (order <= 6).then_some(Self(order))
    }

    /// From a width in bits: 1, 2, 4, 8, 16, 32 or 64.
    pub fn from_bits(bits: u64) -> Option<Self> {
        if bits.is_power_of_two() {
            Self::new(bits.trailing_zeros())
        } else {
            None
        }
    }

    /// log2 of the width.
    pub fn order(self) -> u32 {
        self.0
    }

    /// Width of a counter in bits.
    pub fn bits(self) -> u64 {
        1 << self.0
    }

    /// The greatest count that fits.
    pub fn max(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// Counters in one refcount block (one cluster).
    pub fn entries_per_block(self, cluster_bits: ClusterBits) -> u64 {
        (cluster_bits.size() * 8) >> self.0
    }

    /// The counter at `index`; `None` past the end of `block`.
    pub fn load(self, block: &[u8], index: usize) -> Option<u64> {
        match self.0 {
            0..=2 => {
                let per_byte = 8usize >> self.0;
                let byte = *block.get(index / per_byte)?;
                let shift = (index % per_byte) << self.0;
                Some(u64::from(byte >> shift) & self.max())
            }
            order => {
                let width = 1usize << (order - 3);
                let start = index.checked_mul(width)?;
                let field = block.get(start..start.checked_add(width)?)?;
                Some(BigEndian::read_uint(field, width))
            }
        }
    }

    /// Stores a counter; `None` when `index` is past the end or `count` does not fit.
    pub fn store(self, block: &mut [u8], index: usize, count: u64) -> Option<()> {
        if count > self.max() {
            return None;
        }
        match self.0 {
            0..=2 => {
                let per_byte = 8usize >> self.0;
                let byte = block.get_mut(index / per_byte)?;
                let shift = (index % per_byte) << self.0;
                let mask = u8::try_from(self.max()).ok()? << shift;
                *byte = (*byte & !mask) | (u8::try_from(count).ok()? << shift);
            }
            order => {
                let width = 1usize << (order - 3);
                let start = index.checked_mul(width)?;
                let field = block.get_mut(start..start.checked_add(width)?)?;
                BigEndian::write_uint(field, count, width);
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_gives_back_what_was_stored() {
        for order in 0..=6 {
            let order = RefcountOrder::new(order).unwrap();
            let mut block = vec![0u8; 512];
            let entries = usize::try_from(512 * 8 / order.bits()).unwrap();
            for index in 0..entries {
                order
                    .store(&mut block, index, index as u64 & order.max())
                    .unwrap();
            }
            for index in 0..entries {
                assert_eq!(order.load(&block, index), Some(index as u64 & order.max()));
            }
            assert_eq!(order.load(&block, entries), None);
            assert_eq!(order.store(&mut block, entries, 0), None);
        }
    }

    #[test]
    fn narrow_counters_start_at_the_low_bits() {
        let mut block = [0u8; 1];
        RefcountOrder::new(2)
            .unwrap()
            .store(&mut block, 0, 0xa)
            .unwrap();
        assert_eq!(block, [0x0a]);
        RefcountOrder::new(0)
            .unwrap()
            .store(&mut block, 7, 1)
            .unwrap();
        assert_eq!(block, [0x8a]);
    }
}
