//! Disks in few bytes: how many sectors, then numbers of sectors and what is in them; all others are zeros.

use std::sync::Arc;

use qimg::image::{Chain, Depth, Format, Image, OpenOptions};
use qimg::store::Memory;

const SECTOR: usize = 512;
/// 4 MiB.
const MOST_SECTORS: usize = 8192;

/// The disk that `bytes` stands for.
pub fn unfold(bytes: &[u8]) -> Option<Vec<u8>> {
    let number = |bytes: &[u8]| usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    let (count, records) = bytes.split_at_checked(2)?;
    let count = number(count);
    if count > MOST_SECTORS {
        return None;
    }
    let mut disk = vec![0; count * SECTOR];
    for record in records.chunks(2 + SECTOR) {
        let Some((at, data)) = record.split_at_checked(2) else {
            break;
        };
        let at = number(at) * SECTOR;
        if let Some(sector) = disk.get_mut(at..at + data.len()) {
            sector.copy_from_slice(data);
        }
    }
    Some(disk)
}

/// It as an image; none when it is of a size that no disk has.
pub fn open(disk: Vec<u8>) -> Option<Chain> {
    let options = OpenOptions {
        format: Some(Format::Raw),
        ..OpenOptions::default()
    };
    let image = Image::from_store(Arc::new(Memory::from(disk)), "disk", &options).ok()?;
    image.chain(Depth::Top, None).ok()
}
