//! The second look: are these bytes all zero?
//!
//! Knows bytes alone.

use std::ops::Range;

/// Bytes looked at between two chances to stop; a size that compiles to wide registers.
const STRIDE: usize = 256;

/// Whether all of `bytes` are zero. Stops early at the first that are not.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (strides, rest) = bytes.as_chunks::<STRIDE>();
    strides
        .iter()
        .all(|stride| stride.iter().fold(0, |all, &byte| all | byte) == 0)
        && rest.iter().all(|&byte| byte == 0)
}

/// The parts of `bytes` left when aligned blocks of `block` zeros are taken out, in order.
///
/// `block` is not 0. Parts start and end at multiples of it, but for the last.
pub fn nonzero_runs(bytes: &[u8], block: usize) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let next = |from: usize| (from + block).min(bytes.len());
        while at < bytes.len() && is_zero(&bytes[at..next(at)]) {
            at = next(at);
        }
        let start = at;
        while at < bytes.len() && !is_zero(&bytes[at..next(at)]) {
            at = next(at);
        }
        (start < at).then_some(start..at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_set_bit_anywhere_is_seen() {
        for length in [1usize, 15, 255, 256, 257, 1024, 4096] {
            let mut bytes = vec![0u8; length];
            assert!(is_zero(&bytes));
            for at in (0..length).step_by(7).chain([length - 1]) {
                bytes[at] = 0x80;
                assert!(!is_zero(&bytes), "{at} of {length}");
                bytes[at] = 0;
            }
        }
        assert!(is_zero(&[]));
    }

    #[test]
    fn runs_leave_out_whole_zero_blocks_only() {
        let mut bytes = vec![0u8; 40];
        bytes[9] = 1;
        bytes[10] = 1;
        bytes[39] = 1;
        let runs: Vec<_> = nonzero_runs(&bytes, 8).collect();
        assert_eq!(runs, [8..16, 32..40]);
        assert_eq!(nonzero_runs(&[0; 20], 8).count(), 0);
        assert!(nonzero_runs(&[1; 20], 8).eq(std::iter::once(0..20)));
    }
}
