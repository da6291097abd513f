//! Feature bits of version 3, and the table that names them inside the image.

/// Incompatible: reference counts may be stale.
pub const DIRTY: u64 = 1 << 0;
/// Incompatible: metadata is known to be inconsistent.
pub const CORRUPT: u64 = 1 << 1;
/// Incompatible: guest data is in an external file.
pub const EXTERNAL_DATA: u64 = 1 << 2;
/// Incompatible: compressed clusters are not zlib.
pub const COMPRESSION_TYPE: u64 = 1 << 3;
/// Incompatible: L2 entries are two words.
pub const EXTENDED_L2: u64 = 1 << 4;
/// All incompatible bits that are understood here.
pub const KNOWN_INCOMPATIBLE: u64 =
    DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2;

/// Compatible: reference counts are written late.
pub const LAZY_REFCOUNTS: u64 = 1 << 0;

/// Autoclear: the bitmaps extension is up to date.
pub const BITMAPS_CONSISTENT: u64 = 1 << 0;
/// Autoclear: the external data file is a valid raw image by itself.
pub const RAW_EXTERNAL_DATA: u64 = 1 << 1;

/// One row of the feature name table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureName {
    /// 0 incompatible, 1 compatible, 2 autoclear.
    pub kind: u8,
    /// Bit number, 0 to 63.
    pub bit: u8,
    /// At most 46 bytes.
    pub name: String,
}

/// Bytes of one row on disk.
pub const FEATURE_NAME_SIZE: usize = 48;

/// The rows QEMU writes, so that older readers can name what they lack.
pub fn known_names() -> Vec<FeatureName> {
    [
        (0, 0, "dirty bit"),
        (0, 1, "corrupt bit"),
        (0, 2, "external data file"),
        (0, 3, "compression type"),
        (0, 4, "extended L2 entries"),
        (1, 0, "lazy refcounts"),
        (2, 0, "bitmaps"),
        (2, 1, "raw external data"),
    ]
    .into_iter()
    .map(|(kind, bit, name)| FeatureName {
        kind,
        bit,
        name: name.to_owned(),
    })
    .collect()
}

/// Names of the set bits of `mask` among the features of `kind`, as the image's own table has
/// them; a bit without a name is called by its number.
pub fn name_bits(mask: u64, kind: u8, names: &[FeatureName]) -> Vec<String> {
    (0..64u8)
        .filter(|bit| mask & (1 << bit) != 0)
        .map(|bit| {
            names
                .iter()
                .find(|row| row.kind == kind && row.bit == bit && !row.name.is_empty())
                .map_or_else(|| format!("bit {bit}"), |row| row.name.clone())
        })
        .collect()
}
