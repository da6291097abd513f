//! Checksums of version 5.

use crc32c::{crc32c, crc32c_append};

use crate::fields::Fields;

/// Whether the crc32c at `at` (little endian, unlike all else) is that of the block with zeros in its place.
pub(super) fn is_sound(block: Fields<'_>, at: usize) -> bool {
    let (Some(before), Some(after)) = (block.0.get(..at), block.0.get(at.saturating_add(4)..))
    else {
        return false;
    };
    let crc = crc32c_append(crc32c_append(crc32c(before), &[0; 4]), after);
    crc == u32::from_le_bytes(block.array(at))
}
