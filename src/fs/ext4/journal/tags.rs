//! What blocks of the log list: the blocks that a transaction wrote, and those that it took back.
//!
//! Source: `journal_block_tag_t`, `journal_block_tag3_t` and `jbd2_journal_revoke_header_t` of `include/linux/jbd2.h`.

use crate::fields::Fields;
use crate::fs::ext4::checksum::{agree, crc32c};

use super::header::{Header, Sums};

/// Bytes that every block of the log begins with: magic, type, number of the transaction.
const HEADER: usize = 12;
/// The same with how many bytes of a revocation block are used.
const REVOKE_HEADER: usize = 16;
/// Bytes of a checksum at a block's end.
const TAIL: usize = 4;

const FLAG_ESCAPED: u32 = 1;
const FLAG_SAME_UUID: u32 = 2;
const FLAG_LAST: u32 = 8;

/// One block that a transaction wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    /// Where it belongs in the filesystem.
    pub(super) block: u64,
    pub(super) escaped: bool,
    /// Its checksum, or half of it, where there is one.
    sum: u32,
}

impl Tag {
    /// Whether `data`, as it lies in the log, is what transaction `sequence` wrote.
    pub(super) fn is_of(self, header: &Header, sequence: u32, data: &[u8]) -> bool {
        let Sums::Blocks { whole } = header.sums else {
            return true;
        };
        let sum = crc32c(crc32c(header.seed, &sequence.to_be_bytes()), data);
        agree(self.sum, if whole { sum } else { sum & 0xffff })
    }
}

/// The tags of a descriptor block.
pub(super) fn tags(header: &Header, block: &[u8]) -> Vec<Tag> {
    let fields = Fields(block);
    let version3 = header.sums == Sums::Blocks { whole: true };
    let size = match header.sums {
        Sums::Blocks { whole: true } => 16,
        Sums::Blocks { whole: false } => 10,
        _ => 8,
    } + if header.wide && !version3 { 4 } else { 0 };
    let end = entries_end(header, block);
    let mut list = Vec::new();
    let mut at = HEADER;
    while at + size <= end {
        let (flags, sum) = if version3 {
            (fields.be32(at + 4), fields.be32(at + 12))
        } else {
            let [sum, flags] = [at + 4, at + 6].map(|at| u32::from(fields.be16(at)));
            (flags, sum)
        };
        let high = if header.wide { fields.be32(at + 8) } else { 0 };
        list.push(Tag {
            block: u64::from(high) << 32 | u64::from(fields.be32(at)),
            escaped: flags & FLAG_ESCAPED != 0,
            sum,
        });
        at += size;
        if flags & FLAG_SAME_UUID == 0 {
            at += 16;
        }
        if flags & FLAG_LAST != 0 {
            break;
        }
    }
    list
}

/// The blocks of a revocation block; `None` when it claims to be longer than a block.
pub(super) fn revoked<'a>(
    header: &Header,
    block: &'a [u8],
) -> Option<impl Iterator<Item = u64> + use<'a>> {
    let fields = Fields(block);
    let used = usize::try_from(fields.be32(HEADER)).ok()?;
    if used > entries_end(header, block) {
        return None;
    }
    let size = if header.wide { 8 } else { 4 };
    let records = block.get(REVOKE_HEADER..used).unwrap_or_default();
    Some(records.chunks_exact(size).map(move |record| match size {
        8 => Fields(record).be64(0),
        _ => u64::from(Fields(record).be32(0)),
    }))
}

/// Whether a descriptor or revocation block is what was written.
pub(super) fn is_sound_list(header: &Header, block: &[u8]) -> bool {
    let end = entries_end(header, block);
    !header.sums_blocks() || {
        let fields = Fields(block);
        let sum = crc32c(crc32c(header.seed, fields.slice(0, end)), &[0; TAIL]);
        agree(fields.be32(end), sum)
    }
}

/// Whether a commit block is, as far as it has a checksum of itself.
pub(super) fn is_sound_commit(header: &Header, block: &[u8]) -> bool {
    !header.sums_blocks() || {
        let fields = Fields(block);
        let parts = [
            fields.slice(0, 16),
            &[0; 4],
            block.get(20..).unwrap_or_default(),
        ];
        let sum = parts.into_iter().fold(header.seed, crc32c);
        agree(fields.be32(16), sum)
    }
}

/// Whether a commit block of version 1 has this sum of its transaction, or none.
pub(super) fn has_transaction_sum(block: &[u8], sum: u32) -> bool {
    /// `JBD2_CRC32_CHKSUM` and its size.
    const CRC32: [u8; 2] = [1, 4];
    let fields = Fields(block);
    match fields.array(HEADER) {
        CRC32 => agree(fields.be32(16), sum),
        [0, 0] => fields.be32(16) == 0,
        _ => false,
    }
}

fn entries_end(header: &Header, block: &[u8]) -> usize {
    let tail = if header.sums_blocks() { TAIL } else { 0 };
    block.len().saturating_sub(tail)
}
