//! Going through the log: which blocks the committed transactions wrote last.
//!
//! The log ends at the first block that is not of the transaction that comes next. A transaction counts once its commit
//! block is there. Where a checksum of something committed is wrong nothing is guessed: all is refused.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::fields::Fields;
use crate::fs::Refusal;
use crate::fs::ext4::blocks::{Blocks, Copy, JOURNAL_MAGIC};
use crate::fs::ext4::checksum::crc32_be;

use super::area::Area;
use super::damaged;
use super::header::{Header, Sums};
use super::tags::{Tag, has_transaction_sum, is_sound_commit, is_sound_list, revoked, tags};

const TYPE_DESCRIPTOR: u32 = 1;
const TYPE_COMMIT: u32 = 2;
const TYPE_REVOKE: u32 = 5;

/// Different blocks that are kept track of at most, in less than 100 MiB, and bytes of the log that are passed.
const MOST_COPIES: usize = 1 << 21;
const MOST_BYTES: u64 = 8 << 30;
/// Bytes of the log that are read at once.
const READ_AT_ONCE: usize = 1 << 18;

/// The newest committed copy of every block that was not taken back later.
pub(super) fn newest_copies(
    blocks: &Blocks<'_, '_>,
    area: &Area,
    header: &Header,
) -> Result<BTreeMap<u64, Copy>, Refusal> {
    let mut log = Log {
        blocks,
        area,
        header,
        at: header.start,
        walked: 0,
        first_read: 0,
        read: Vec::new(),
    };
    let mut copies = Copies::default();
    if header.start != 0 {
        log.scan(&mut copies)?;
        log.take_back(&mut copies)?;
    }
    let newest = copies.newest.into_iter();
    Ok(newest.map(|(block, (_, copy))| (block, copy)).collect())
}

/// What was found so far.
#[derive(Default)]
struct Copies {
    /// The newest copy of each block and the number of its transaction.
    newest: BTreeMap<u64, (u32, Copy)>,
    /// Revocation blocks of committed transactions: where they lie in the log, and whose they are.
    revocations: Vec<(u64, u32)>,
}

/// What a transaction wrote that has no commit block yet.
struct Transaction {
    written: Vec<(u64, Copy)>,
    revocations: Vec<u64>,
    /// Everything that has a checksum had the right one.
    sound: bool,
    /// Version 1: the sum of all descriptor and data blocks.
    sum: u32,
}

impl Transaction {
    fn new() -> Self {
        Self {
            written: Vec::new(),
            revocations: Vec::new(),
            sound: true,
            sum: !0,
        }
    }
}

/// The log and a place in it.
struct Log<'l, 'a, 'v> {
    blocks: &'l Blocks<'a, 'v>,
    area: &'l Area,
    header: &'l Header,
    at: u64,
    /// Blocks passed since the start: never more than there are.
    walked: u64,
    /// Blocks that were read ahead, from the journal's block `first_read` on.
    first_read: u64,
    read: Vec<u8>,
}

impl Log<'_, '_, '_> {
    /// Goes from the start to where the log ends.
    fn scan(&mut self, copies: &mut Copies) -> Result<(), Refusal> {
        let mut sequence = self.header.sequence;
        let mut open = Transaction::new();
        loop {
            let place = self.at;
            let block = self.block(place)?;
            let fields = Fields(&block);
            if fields.array(0) != JOURNAL_MAGIC || fields.be32(8) != sequence {
                return Ok(());
            }
            self.pass(1)?;
            match fields.be32(4) {
                TYPE_DESCRIPTOR => {
                    open.sound &= is_sound_list(self.header, &block);
                    if self.header.sums == Sums::Transaction {
                        open.sum = crc32_be(open.sum, &block);
                    }
                    for tag in tags(self.header, &block) {
                        self.data(tag, sequence, &mut open)?;
                    }
                }
                TYPE_REVOKE => {
                    open.sound &= is_sound_list(self.header, &block);
                    open.revocations.push(place);
                }
                TYPE_COMMIT => {
                    open.sound &= is_sound_commit(self.header, &block);
                    if self.header.sums == Sums::Transaction {
                        open.sound &= has_transaction_sum(&block, open.sum);
                    }
                    if !open.sound {
                        return Err(damaged("a committed transaction fails its checksum")
                            .with_remedy("run e2fsck on it"));
                    }
                    copies.commit(open, sequence)?;
                    open = Transaction::new();
                    sequence = sequence.wrapping_add(1);
                }
                _ => return Ok(()),
            }
        }
    }

    /// The block of data that `tag` stands for.
    fn data(&mut self, tag: Tag, sequence: u32, open: &mut Transaction) -> Result<(), Refusal> {
        let place = self.at;
        if self.header.sums != Sums::None {
            let data = self.block(place)?;
            open.sound &= tag.is_of(self.header, sequence, &data);
            if self.header.sums == Sums::Transaction {
                open.sum = crc32_be(open.sum, &data);
            }
        }
        let (physical, _) = self.area.block(place).ok_or_else(outside)?;
        let copy = Copy {
            // Blocks of the journal lie in the filesystem.
            at: physical * self.blocks.block_length() as u64,
            escaped: tag.escaped,
        };
        open.written.push((tag.block, copy));
        self.pass(1)
    }

    /// Forgets what was taken back by the transaction that wrote it or by a later one.
    fn take_back(&mut self, copies: &mut Copies) -> Result<(), Refusal> {
        for (place, sequence) in std::mem::take(&mut copies.revocations) {
            let block = self.block(place)?;
            let list = revoked(self.header, &block)
                .ok_or_else(|| damaged("a revocation is longer than its block"))?;
            for block in list {
                if let Entry::Occupied(entry) = copies.newest.entry(block)
                    && !is_later(entry.get().0, sequence)
                {
                    entry.remove();
                }
            }
        }
        Ok(())
    }

    /// Goes on by `count` blocks, from the end to the beginning.
    fn pass(&mut self, count: u64) -> Result<(), Refusal> {
        self.walked += count;
        if self.walked > self.header.end - self.header.first {
            return Err(damaged("it runs into itself"));
        }
        if self.walked * self.blocks.block_length() as u64 > MOST_BYTES {
            return Err(too_much());
        }
        self.at += count;
        if self.at >= self.header.end {
            self.at -= self.header.end - self.header.first;
        }
        Ok(())
    }

    /// The journal's block `place`.
    fn block(&mut self, place: u64) -> Result<Vec<u8>, Refusal> {
        let size = self.blocks.block_length().max(1);
        let skipped = place.checked_sub(self.first_read);
        let skipped = skipped.and_then(|skipped| usize::try_from(skipped).ok());
        if let Some(skipped) = skipped
            && let Some(block) = self.read.chunks_exact(size).nth(skipped)
        {
            return Ok(block.to_vec());
        }
        let (physical, follow) = self.area.block(place).ok_or_else(outside)?;
        let count = usize::try_from(follow.min(self.header.end - place)).unwrap_or(1);
        self.read = self
            .blocks
            .read(physical, count.min(READ_AT_ONCE / size).max(1))?;
        self.first_read = place;
        Ok(self.read.get(..size).unwrap_or_default().to_vec())
    }
}

impl Copies {
    fn commit(&mut self, transaction: Transaction, sequence: u32) -> Result<(), Refusal> {
        for (block, copy) in transaction.written {
            self.newest.insert(block, (sequence, copy));
        }
        if self.newest.len() > MOST_COPIES {
            return Err(too_much());
        }
        let places = transaction.revocations.into_iter();
        self.revocations
            .extend(places.map(|place| (place, sequence)));
        Ok(())
    }
}

fn too_much() -> Refusal {
    Refusal::unsupported("ext4 journal holds more blocks than are replayed here")
}

fn outside() -> Refusal {
    damaged("its inode does not say where all of it lies")
}

/// Whether transaction `a` came after `b`: the numbers wrap around.
fn is_later(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}
