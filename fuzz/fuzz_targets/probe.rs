//! Whatever a volume holds: asking what it is ends soon, and what is free lies inside of it, in order.
//!
//! Input: the volume's size in MiB (2 bytes), then runs of sectors: where (4 bytes, in sectors), how many (1), how (1:
//! bit 0 one byte for all of them, bit 1 crc32c of what follows byte 32 at its start), and their bytes.
#![no_main]

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use qimg::fs::FreeOptions;
use qimg::fs::probe::{examine, identify, open_tree};
use qimg::source::PlainBytes;
use qimg::volume::Volume;

const SECTOR: usize = 512;

fuzz_target!(|bytes: &[u8]| {
    let Some(disk) = Disk::parse(bytes) else {
        return;
    };
    let volume = Volume::whole(&disk);
    let found = identify(&volume).unwrap();
    let examined = examine(&volume, &FreeOptions::default());
    assert_eq!(found.first(), examined.identity.as_ref());
    if let Ok(space) = examined.space {
        assert!(found.len() == 1 && !examined.hibernated && !examined.verity);
        let mut last = 0;
        for range in space.free.ranges() {
            assert!(range.start < range.end && range.start >= last);
            last = range.end;
        }
        assert!(last <= disk.size);
    }
    if let Ok(Some(tree)) = open_tree(&volume) {
        let mut left = 100;
        let _ = tree.metadata(tree.root());
        let _ = tree.read_dir(tree.root(), &mut |entry| {
            let _ = tree.metadata(entry.node);
            left -= 1;
            if left == 0 {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
    }
});

/// A disk that is zeros but for some sectors.
struct Disk {
    size: u64,
    sectors: BTreeMap<u64, [u8; SECTOR]>,
}

impl Disk {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (size, mut rest) = bytes.split_first_chunk::<2>()?;
        let size = u64::from(u16::from_le_bytes(*size) % 1024 + 1) << 20;
        let mut sectors = BTreeMap::new();
        while let Some((head, after)) = rest.split_first_chunk::<6>() {
            let first = u64::from(u32::from_le_bytes([head[0], head[1], head[2], head[3]]));
            let length = usize::from(head[4]) * SECTOR;
            let filled = head[5] & 1 != 0;
            let stored = if filled { 1 } else { length }.min(after.len());
            let (data, after) = after.split_at(stored);
            rest = after;
            let mut run = vec![if filled { *data.first()? } else { 0 }; length];
            if !filled {
                run[..stored].copy_from_slice(data);
            }
            if head[5] & 2 != 0 && run.len() > 32 {
                let sum = crc32c::crc32c(&run[32..]);
                run[..4].copy_from_slice(&sum.to_le_bytes());
            }
            for (sector, at) in run.as_chunks::<SECTOR>().0.iter().zip(first..) {
                sectors.insert(at, *sector);
            }
        }
        Some(Self { size, sectors })
    }
}

impl PlainBytes for Disk {
    fn length(&self) -> u64 {
        self.size
    }

    fn fill(&self, guest: u64, buf: &mut [u8]) -> qimg::Result<()> {
        buf.fill(0);
        let size = SECTOR as u64;
        let end = guest + buf.len() as u64;
        for (number, sector) in self.sectors.range(guest / size..end.div_ceil(size)) {
            let start = number * size;
            let (from, to) = (guest.max(start), end.min(start + size));
            let place = |at: u64, base: u64| usize::try_from(at - base).unwrap();
            buf[place(from, guest)..place(to, guest)]
                .copy_from_slice(&sector[place(from, start)..place(to, start)]);
        }
        Ok(())
    }
}
