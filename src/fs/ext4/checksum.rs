//! The checksums of ext4 and of its journal.
//!
//! Source: `fs/ext4/super.c` (`ext4_superblock_csum`, `ext4_group_desc_csum`), `lib/crc/` and `fs/jbd2/` of the kernel.

/// What a sum over nothing is, for those that begin anew.
pub(super) const START: u32 = !0;

/// CRC-32C as the kernel has it: without the inversions at either end, so that it can go on from any sum.
pub(super) fn crc32c(from: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!from, bytes)
}

/// CRC-16 of descriptors before `metadata_csum`: polynomial 0x8005, reflected.
pub(super) fn crc16(from: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(from, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte), |crc, _| {
            (crc >> 1) ^ (if crc & 1 != 0 { 0xa001 } else { 0 })
        })
    })
}

/// CRC-32 of a whole transaction in journals before `metadata_csum`: the IEEE polynomial, the highest bit first.
pub(super) fn crc32_be(from: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(from, |crc, &byte| {
        let [first, ..] = crc.to_be_bytes();
        let step = TABLE_BE.get(usize::from(first ^ byte)).copied();
        (crc << 8) ^ step.unwrap_or(0)
    })
}

const TABLE_BE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc << 1) ^ (if crc >> 31 != 0 { 0x04c1_1db7 } else { 0 });
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// Whether a stored sum is the right one. While fuzzing all are: what lies behind them is what is looked for.
pub(super) fn agree(stored: u32, computed: u32) -> bool {
    cfg!(fuzzing) || stored == computed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_their_catalogue() {
        let bytes = b"123456789";
        // CRC-32C, CRC-16/MODBUS and CRC-32/MPEG-2, whose check values are well known.
        assert_eq!(!crc32c(START, bytes), 0xe306_9283);
        assert_eq!(crc16(!0, bytes), 0x4b37);
        assert_eq!(crc32_be(!0, bytes), 0x0376_e6e7);
        let (head, tail) = bytes.split_at(4);
        assert_eq!(
            crc32c(crc32c(START, head), tail),
            crc32c(START, bytes),
            "a sum goes on"
        );
    }
}
