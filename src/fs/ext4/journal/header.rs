//! The journal's own superblock.

use crate::fields::Fields;
use crate::fs::Refusal;
use crate::fs::ext4::blocks::{Blocks, JOURNAL_MAGIC};
use crate::fs::ext4::checksum::{START, agree, crc32c};

use super::area::Area;
use super::damaged;

/// `JBD2_SUPERBLOCK_V1` and `JBD2_SUPERBLOCK_V2`.
const TYPE_V1: u32 = 3;
const TYPE_V2: u32 = 4;

const COMPAT_CHECKSUM: u32 = 1;
const INCOMPAT_64BIT: u32 = 0x2;
const INCOMPAT_CSUM_V2: u32 = 0x8;
const INCOMPAT_CSUM_V3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;
/// Revocation, 64bit, asynchronous commits, checksums of versions 2 and 3, fast commits.
const KNOWN_INCOMPAT: u32 = 0x3f;

/// `JBD2_CRC32C_CHKSUM`.
const CHECKSUM_CRC32C: u8 = 4;
/// Bytes of the journal's superblock.
const LENGTH: usize = 1024;

/// Which checksums transactions have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sums {
    None,
    /// Version 1: one in the commit block, of all that the transaction wrote.
    Transaction,
    /// Versions 2 and 3, of every block; half of the data's sum is kept, or all of it.
    Blocks {
        whole: bool,
    },
}

/// What the journal says of itself.
#[derive(Debug, Clone)]
pub(super) struct Header {
    /// The first block of the log, and the one behind its last.
    pub(super) first: u64,
    pub(super) end: u64,
    /// The first block to replay, 0 when there is none, and the number of its transaction.
    pub(super) start: u64,
    pub(super) sequence: u32,
    /// Block numbers have 64 bits.
    pub(super) wide: bool,
    pub(super) sums: Sums,
    /// What checksums of blocks begin with.
    pub(super) seed: u32,
    incompat: u32,
}

impl Header {
    pub(super) fn read(blocks: &Blocks<'_, '_>, area: &Area) -> Result<Self, Refusal> {
        let (at, _) = area.block(0).ok_or_else(|| damaged("is empty"))?;
        let block = blocks.read(at, 1)?;
        let fields = Fields(Fields(&block).slice(0, LENGTH));
        let version = fields.be32(4);
        if fields.array(0) != JOURNAL_MAGIC || !matches!(version, TYPE_V1 | TYPE_V2) {
            return Err(damaged("has no superblock"));
        }
        let word = |at| {
            if version == TYPE_V2 {
                fields.be32(at)
            } else {
                0
            }
        };
        let (compat, incompat, ro_compat) = (word(0x24), word(0x28), word(0x2c));
        if compat & !COMPAT_CHECKSUM != 0 || incompat & !KNOWN_INCOMPAT != 0 || ro_compat != 0 {
            return Err(Refusal::unsupported(format!(
                "ext4 journal has unknown features ({compat:#x}, {incompat:#x}, {ro_compat:#x})"
            )));
        }
        let of_transactions = compat & COMPAT_CHECKSUM != 0;
        let of_blocks = incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3);
        let sums = match of_blocks {
            0 if of_transactions => Sums::Transaction,
            0 => Sums::None,
            INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3 if !of_transactions => Sums::Blocks {
                whole: of_blocks == INCOMPAT_CSUM_V3,
            },
            _ => return Err(damaged("says that it has more than one kind of checksum")),
        };
        if matches!(sums, Sums::Blocks { .. }) {
            let parts = [fields.slice(0, 0xfc), &[0; 4], fields.slice(0x100, LENGTH)];
            let sum = parts.into_iter().fold(START, crc32c);
            if fields.u8(0x50) != CHECKSUM_CRC32C || !agree(fields.be32(0xfc), sum) {
                return Err(damaged("its superblock fails its checksum"));
            }
        }
        let header = Self {
            first: u64::from(fields.be32(0x14)),
            end: u64::from(fields.be32(0x10)),
            start: u64::from(fields.be32(0x1c)),
            sequence: fields.be32(0x18),
            wide: incompat & INCOMPAT_64BIT != 0,
            sums,
            seed: crc32c(START, fields.slice(0x30, 16)),
            incompat,
        };
        let inside = |block| (header.first..header.end).contains(&block);
        let sound = u64::from(fields.be32(0xc)) == blocks.block_length() as u64
            && header.end <= area.blocks()
            && header.first > 0
            && header.first < header.end
            && (header.start == 0 || inside(header.start));
        if !sound {
            return Err(damaged("its superblock cannot be right"));
        }
        if fields.be32(0x20) != 0 {
            return Err(damaged("it was given up after an error").with_remedy("run e2fsck on it"));
        }
        Ok(header)
    }

    /// Whether changes may lie in it that are not whole blocks.
    pub(super) fn fast_commit(&self) -> bool {
        self.incompat & INCOMPAT_FAST_COMMIT != 0
    }

    /// Whether the last four bytes of a descriptor or revocation block, a commit's ninth word too, are a checksum.
    pub(super) fn sums_blocks(&self) -> bool {
        matches!(self.sums, Sums::Blocks { .. })
    }
}
