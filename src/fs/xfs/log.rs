//! The log: whether everything in it was written back.
//!
//! It is when the last record is the one that unmounting writes. Where the log's head is, the cycle numbers say: every
//! 512-byte sector of the log begins with the number of the round in which it was written (a record's first sector
//! has it behind its magic). So going through the log there is one place where the number falls, and that is the head.
//!
//! At most eight buffers of 256 KiB are on their way to the disk at a time, so a crash can leave disorder only within
//! 2 MiB around the head. Hence the head is found by bisecting, as the kernel does: whichever step between two numbers
//! it ends at lies in or next to the disorder. Then twice that span is read on either side of it, and any disorder
//! there means that the last writes never came to their end.
//!
//! Source: `struct xlog_rec_header` and `struct xlog_op_header` of the kernel's `fs/xfs/libxfs/xfs_log_format.h`, and
//! `xlog_find_head` and `xlog_check_unmount_rec` of `fs/xfs/xfs_log_recover.c` for what the kernel takes for clean.

use crc32c::crc32c_append;

use super::superblock::Superblock;
use crate::fields::Fields;
use crate::fs::Refusal;
use crate::volume::Volume;

/// `BBSIZE`: what the log counts in.
const SECTOR: usize = 512;
/// `XLOG_HEADER_MAGIC_NUM`.
const MAGIC: u32 = 0xfeed_babe;
/// `XLOG_HEADER_CYCLE_SIZE`: bytes of a record that one header sector holds the overwritten words of.
const HEADER_SPAN: u32 = 32 << 10;
/// Sectors on either side of the head that are looked at: twice eight buffers of 256 KiB.
const WINDOW: u64 = 2 * 8 * (256 << 10) / 512;
/// `XLOG_MAX_RECORD_BSIZE` in sectors.
const LONGEST_RECORD: u64 = (256 << 10) / 512;
/// Sectors read at a time.
const PIECE: u64 = 2048;
/// `XLOG_UNMOUNT_TRANS` and `XFS_LOG`.
const UNMOUNT_FLAG: u8 = 0x20;
const LOG_CLIENT: u8 = 0xaa;

/// The internal log.
#[derive(Debug)]
pub(super) struct Log<'a, 'v> {
    volume: &'a Volume<'v>,
    superblock: &'a Superblock,
    /// Its first byte in the volume, and its length in sectors.
    start: u64,
    sectors: u64,
}

/// Where the log goes on, and the numbers of the rounds before and behind that place.
#[derive(Debug, Clone, Copy)]
struct Head {
    sector: u64,
    newest: u32,
    oldest: u32,
    /// Nothing was written from the head up to this sector.
    gap_end: u64,
}

impl Head {
    fn cycle_at(self, sector: u64) -> u32 {
        match sector {
            sector if sector < self.sector => self.newest,
            sector if sector < self.gap_end => 0,
            _ => self.oldest,
        }
    }
}

fn dirty() -> Refusal {
    Refusal::dirty("xfs log holds changes that were not written back")
        .with_remedy("mount it and unmount it, or shut the guest down cleanly")
}

impl<'a, 'v> Log<'a, 'v> {
    /// The log that the superblock tells of.
    pub(super) fn new(volume: &'a Volume<'v>, superblock: &'a Superblock) -> Result<Self, Refusal> {
        let (ag, block) = superblock.split(superblock.log_start);
        let length = superblock.ag_length(ag);
        let fits = superblock.log_blocks > 0
            && block
                .checked_add(superblock.log_blocks)
                .is_some_and(|end| end <= length);
        let start = superblock.byte_of(ag, block).filter(|_| fits);
        Ok(Self {
            volume,
            superblock,
            start: start
                .ok_or_else(|| Refusal::damaged("xfs log lies outside its allocation group"))?,
            sectors: superblock.log_blocks.saturating_mul(superblock.block_size) / SECTOR as u64,
        })
    }

    /// The bytes of the volume that it takes.
    pub(super) fn bytes(&self) -> std::ops::Range<u64> {
        self.start..self.start + self.sectors * SECTOR as u64
    }

    /// Refuses a log whose last record is not that of an unmount.
    pub(super) fn require_clean(&self) -> Result<(), Refusal> {
        let head = self.find_head()?;
        let around = self.around(head)?;
        // The sectors before the head, the nearest last.
        let before = around.before.len() / SECTOR;
        let last = (0..before)
            .rev()
            .find(|&n| Fields(&around.before).be32(n * SECTOR) == MAGIC);
        let Some(last) = last else {
            return Err(dirty());
        };
        let record = Fields(around.before.get(last * SECTOR..).unwrap_or_default());
        let distance = u64::try_from(before - last).unwrap_or(u64::MAX);
        let at = (head.sector % self.sectors + self.sectors)
            .checked_sub(distance)
            .map(|at| at % self.sectors)
            .ok_or_else(dirty)?;
        self.require_unmount(record, at, head)
    }

    /// Bisects for the sector at which the cycle number falls; the end of the log when it falls nowhere.
    fn find_head(&self) -> Result<Head, Refusal> {
        let newest = self.cycle_at(0)?;
        let oldest = self.cycle_at(self.sectors - 1)?;
        if newest == 0 {
            return Err(Refusal::dirty(
                "xfs log is empty: no record says that it was unmounted",
            ));
        }
        if newest == oldest {
            return Ok(Head {
                sector: self.sectors,
                newest,
                oldest,
                gap_end: 0,
            });
        }
        // Nothing was written yet behind the head of the first round.
        if oldest != newest - 1 {
            return Err(dirty());
        }
        let (gap_start, gap_end) = self.gap()?;
        if oldest != 0 && gap_start < gap_end {
            return Ok(Head {
                sector: gap_start,
                newest,
                oldest,
                gap_end,
            });
        }
        let (mut low, mut high) = (0, self.sectors - 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.cycle_at(middle)? {
                cycle if cycle == newest => low = middle,
                cycle if cycle == oldest => high = middle,
                _ => return Err(dirty()),
            }
        }
        Ok(Head {
            sector: high,
            newest,
            oldest,
            gap_end: 0,
        })
    }

    /// The empty sectors behind the first record, when a tool wrote it.
    ///
    /// `xfs_repair` and `xfs_admin -U` write a log anew (`libxfs_log_clear`): an unmount in a new round, then, from
    /// the next multiple of 256 KiB on, records of the round before. The kernel goes on at sector 0 and writes over
    /// all of the gap first (`xlog_clear_stale_blocks`), so while it is there nothing was written since.
    fn gap(&self) -> Result<(u64, u64), Refusal> {
        let end = LONGEST_RECORD.min(self.sectors);
        let bytes = usize::try_from(end).unwrap_or(0) * SECTOR;
        let first = self.volume.read_vec(self.start, bytes)?;
        let record = Fields(&first);
        let by_tool = record.be32(0) == MAGIC && record.be32(32) == 0;
        let empty = first.iter().rev().take_while(|&&byte| byte == 0).count();
        // What lies in an unmount's last sector is followed by zeros: the record tells where it ends.
        let length = u64::from(record.be32(12)).div_ceil(SECTOR as u64) + 1;
        let is_gap = by_tool && length < end && (end - length) * SECTOR as u64 <= empty as u64;
        Ok(if is_gap { (length, end) } else { (0, 0) })
    }

    fn cycle_at(&self, sector: u64) -> Result<u32, Refusal> {
        let bytes = self
            .volume
            .read_array::<8>(self.start + sector * SECTOR as u64)?;
        Ok(cycle(Fields(&bytes)))
    }

    /// Reads what lies around the head and checks that all of it was written in order.
    fn around(&self, head: Head) -> Result<Around, Refusal> {
        let before = WINDOW.min(self.sectors);
        let behind = WINDOW.min(self.sectors - before);
        let mut around = Around::default();
        for (first, count, keep) in [
            (head.sector + self.sectors - before, before, true),
            (head.sector, behind, false),
        ] {
            let (mut sector, end) = (first, first + count);
            while sector < end {
                let place = sector % self.sectors;
                let length = PIECE.min(end - sector).min(self.sectors - place);
                let bytes = usize::try_from(length).unwrap_or(0) * SECTOR;
                let piece = self
                    .volume
                    .read_vec(self.start + place * SECTOR as u64, bytes)?;
                for (n, bytes) in (place..).zip(piece.chunks_exact(SECTOR)) {
                    if cycle(Fields(bytes)) != head.cycle_at(n) {
                        return Err(dirty());
                    }
                }
                if keep {
                    around.before.extend_from_slice(&piece);
                }
                sector += length;
            }
        }
        Ok(around)
    }

    /// Checks that the record at sector `at` is an unmount's, ends at the head, and belongs here.
    fn require_unmount(&self, record: Fields<'_>, at: u64, head: Head) -> Result<(), Refusal> {
        let damaged = |what: &str| Refusal::damaged(format!("xfs log: its last record {what}"));
        let version = record.be32(8);
        if !matches!(version, 1 | 2) || version == 2 && !self.superblock.log_v2 {
            return Err(damaged("is of an unknown version"));
        }
        let size = record.be32(320);
        let headers = if version == 2 && size > HEADER_SPAN {
            usize::try_from(size.div_ceil(HEADER_SPAN)).unwrap_or(usize::MAX)
        } else {
            1
        };
        let length = usize::try_from(record.be32(12)).unwrap_or(usize::MAX);
        // Also true when either is nonsense: then it cannot end where the buffer does.
        let ends_at_head = headers
            .checked_add(length.div_ceil(SECTOR))
            .is_some_and(|sectors| sectors == record.0.len() / SECTOR);
        if !ends_at_head || record.be32(40) != 1 {
            return Err(dirty());
        }
        let lsn = u64::from(record.be32(4)) << 32 | at;
        if record.be32(4) != head.cycle_at(at) || record.be64(16) != lsn {
            return Err(damaged("belongs elsewhere"));
        }
        if record.array(304) != self.superblock.uuid {
            return Err(damaged("belongs to another filesystem"));
        }
        // Linux of either byte order: all that is read here is big endian in both.
        if !matches!(record.be32(300), 1 | 2) {
            return Err(damaged("was written by another system"));
        }
        let data = Fields(record.slice(headers.saturating_mul(SECTOR), length));
        let (operation_length, client, flags) = (data.be32(4), data.u8(8), data.u8(9));
        if flags & UNMOUNT_FLAG == 0 || client != LOG_CLIENT {
            return Err(dirty());
        }
        // Kernels from 5.19 on leave the length of what follows at 0.
        if ![0, 8].contains(&operation_length) {
            return Err(damaged("is no whole record of an unmount"));
        }
        // The tools that make and repair write none.
        let crc = u32::from_le_bytes(record.array(32));
        if crc != 0 && !checksums(record, data).contains(&crc) {
            return Err(damaged("fails its checksum"));
        }
        Ok(())
    }
}

/// Bytes around the head.
#[derive(Debug, Default)]
struct Around {
    before: Vec<u8>,
}

/// The round in which a sector was written.
fn cycle(sector: Fields<'_>) -> u32 {
    match sector.be32(0) {
        MAGIC => sector.be32(4),
        cycle => cycle,
    }
}

/// The checksums that a record may carry: hosts differ in whether four bytes of padding are part of its header.
fn checksums(record: Fields<'_>, data: Fields<'_>) -> [u32; 2] {
    // Of the header sectors those that the data needs, not those that there is room for.
    let headers = data.0.len().div_ceil(32 << 10);
    [328, 324].map(|length| {
        let mut crc = crc32c_append(0, record.slice(0, 32));
        crc = crc32c_append(crc, &[0; 4]);
        crc = crc32c_append(crc, record.slice(36, length - 36));
        for n in 1..headers {
            crc = crc32c_append(crc, record.slice(n * SECTOR, 260));
        }
        crc32c_append(crc, data.0)
    })
}

#[cfg(test)]
mod tests;
