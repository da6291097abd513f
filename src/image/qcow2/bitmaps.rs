//! Persistent bitmaps: read from one image, written into another.
//!
//! A bitmap is carried as its bits, one per granule of the guest, so that the
//! two images may have different cluster sizes.

use byteorder::{BigEndian, ByteOrder};

use super::Qcow2File;
use super::format::bitmap::{self, AUTO, BitmapEntry, IN_USE, TABLE_ALL_ONES, TABLE_OFFSET_MASK};
use super::format::{ClusterBits, Corruption};
use crate::error::{Error, Result};
use crate::store::WriteAt;

/// Most bytes of bits that are held in memory, as QEMU limits one bitmap.
pub(crate) const MAX_BITS_BYTES: u64 = 512 << 20;

/// A bitmap for a new image.
#[derive(Debug, Clone)]
pub(crate) struct NewBitmap {
    pub(crate) name: String,
    pub(crate) granularity_bits: u8,
    /// Records writes while a program has the image open.
    pub(crate) auto: bool,
    /// Bit n of byte n / 8, from the least significant: granule n is dirty.
    pub(crate) bits: Vec<u8>,
}

impl NewBitmap {
    /// Writes bits and table; the directory entry that names them. `allocate` gives host clusters in a row.
    pub(super) fn write(
        self,
        store: &dyn WriteAt,
        cluster_bits: ClusterBits,
        mut allocate: impl FnMut(u64) -> u64,
    ) -> Result<(BitmapEntry, u64)> {
        let mut table = Vec::new();
        for chunk in self.bits.chunks(cluster_bits.len()) {
            if chunk.iter().all(|&byte| byte == 0) {
                table.push(0u64);
            } else {
                let host = allocate(1);
                store.write_all_at(chunk, host)?;
                table.push(host);
            }
        }
        let mut bytes = vec![0; table.len() * 8];
        BigEndian::write_u64_into(&table, &mut bytes);
        let clusters = cluster_bits.clusters_for(bytes.len() as u64);
        let table_offset = allocate(clusters);
        store.write_all_at(&bytes, table_offset)?;
        let entry = BitmapEntry {
            table_offset,
            table_size: u32::try_from(table.len()).unwrap_or(u32::MAX),
            flags: if self.auto { AUTO } else { 0 },
            granularity_bits: self.granularity_bits,
            name: self.name,
        };
        Ok((entry, clusters))
    }
}

impl Qcow2File {
    /// The bitmap directory; empty without bitmaps.
    ///
    /// # Errors
    /// A directory outside the file or against its format.
    pub(crate) fn bitmap_directory(&self) -> Result<Vec<BitmapEntry>> {
        let Some(extension) = self.header.bitmaps else {
            return Ok(Vec::new());
        };
        let at = extension.directory_offset;
        if at.saturating_add(extension.directory_size) > self.file_length {
            return Err(self
                .corrupt(Corruption::Truncated {
                    what: "bitmap directory",
                })
                .at_host(at));
        }
        let bytes = self.read_region(at, extension.directory_size)?;
        bitmap::parse_directory(&bytes, extension.nb_bitmaps)
            .map_err(|corruption| self.corrupt(corruption).at_host(at))
    }

    /// Reads the bits of `entry`.
    ///
    /// # Errors
    /// The bitmap was in use when its writer ended; a table against its format.
    pub(crate) fn read_bitmap(&self, entry: &BitmapEntry) -> Result<NewBitmap> {
        if entry.flags & IN_USE != 0 {
            return Err(Error::refused(
                format!(
                    "bitmap '{}' is inconsistent: its writer did not end cleanly",
                    entry.name
                ),
                "remove it with `qemu-img bitmap --remove`, or leave it out with --skip-broken-bitmaps",
            ));
        }
        let granules = self.header.virtual_size().div_ceil(entry.granularity());
        let length = granules.div_ceil(8);
        let bits = self.header.cluster_bits;
        let wrong = |corruption| self.corrupt(corruption).at_host(entry.table_offset);
        if length > MAX_BITS_BYTES {
            let what = "bitmap, bytes";
            return Err(wrong(Corruption::TooLarge {
                what,
                value: length,
                limit: MAX_BITS_BYTES,
            }));
        }
        let clusters = bits.clusters_for(length);
        if clusters != u64::from(entry.table_size) || !bits.is_aligned(entry.table_offset) {
            let why = "bitmap table does not fit the virtual size";
            return Err(wrong(Corruption::Entry {
                why,
                entry: entry.table_size.into(),
            }));
        }
        if entry.table_offset.saturating_add(clusters * 8) > self.file_length {
            return Err(wrong(Corruption::Truncated {
                what: "bitmap table",
            }));
        }
        let raw = self.read_region(entry.table_offset, clusters * 8)?;
        let mut table = vec![0u64; raw.len() / 8];
        BigEndian::read_u64_into(&raw, &mut table);
        let mut bytes = vec![0u8; usize::try_from(length).unwrap_or(0)];
        for (chunk, &word) in bytes.chunks_mut(bits.len()).zip(&table) {
            let host = word & TABLE_OFFSET_MASK;
            if !bits.is_aligned(host) || word & !(TABLE_OFFSET_MASK | TABLE_ALL_ONES) != 0 {
                return Err(wrong(Corruption::Unaligned {
                    what: "bitmap table entry",
                    entry: word,
                }));
            }
            match (host, word & TABLE_ALL_ONES) {
                (0, 0) => {}
                (0, _) => chunk.fill(0xff),
                (host, 0) => self.store.read_zero_filled(chunk, host)?,
                _ => {
                    let why = "bitmap table entry with both an offset and all ones";
                    return Err(wrong(Corruption::Entry { why, entry: word }));
                }
            }
        }
        Ok(NewBitmap {
            name: entry.name.clone(),
            granularity_bits: entry.granularity_bits,
            auto: entry.flags & AUTO != 0,
            bits: bytes,
        })
    }
}
