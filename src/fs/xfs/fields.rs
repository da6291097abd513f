//! Big-endian fields of a block that has been read.

use crc32c::{crc32c, crc32c_append};

/// A block, or a part of one. Callers read from blocks whose length they chose; past its end every field is zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn array<const N: usize>(self, at: usize) -> [u8; N] {
        let field = self.0.get(at..).and_then(|rest| rest.first_chunk());
        field.copied().unwrap_or([0; N])
    }

    pub(super) fn u8(self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    pub(super) fn be16(self, at: usize) -> u16 {
        u16::from_be_bytes(self.array(at))
    }

    pub(super) fn be32(self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at))
    }

    pub(super) fn be64(self, at: usize) -> u64 {
        u64::from_be_bytes(self.array(at))
    }

    /// What is there of `length` bytes from `at` on.
    pub(super) fn slice(self, at: usize, length: usize) -> &'a [u8] {
        let rest = self.0.get(at..).unwrap_or_default();
        rest.get(..length).unwrap_or(rest)
    }

    /// Whether the crc32c at `at` (little endian, unlike all else) is that of the block with zeros in its place.
    pub(super) fn is_sound(self, at: usize) -> bool {
        let (Some(before), Some(after)) = (self.0.get(..at), self.0.get(at.saturating_add(4)..))
        else {
            return false;
        };
        let crc = crc32c_append(crc32c_append(crc32c(before), &[0; 4]), after);
        crc == u32::from_le_bytes(self.array(at))
    }
}
