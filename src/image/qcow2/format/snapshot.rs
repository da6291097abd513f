//! The snapshot table: internal snapshots, each with its own L1 table.

use bytes::Buf;

use super::Corruption;
use super::header::MAX_L1_BYTES;

/// Longest snapshot table in bytes.
pub const MAX_TABLE_BYTES: u64 = 64 << 20;
/// Most extra data of one snapshot in bytes.
pub const MAX_EXTRA_BYTES: u32 = 1024;

/// One internal snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Unique id, decimal in images made by QEMU.
    pub id: String,
    /// Name given by the user.
    pub name: String,
    /// Host offset of its L1 table in bytes.
    pub l1_table_offset: u64,
    /// Entries of its L1 table.
    pub l1_size: u32,
    /// When it was taken, seconds since 1970.
    pub date_sec: u32,
    /// Nanosecond part.
    pub date_nsec: u32,
    /// How long the guest had run, in nanoseconds.
    pub vm_clock_nsec: u64,
    /// Bytes of VM state behind the virtual disk.
    pub vm_state_size: u64,
    /// Virtual size at that time in bytes; the current one when not recorded.
    pub disk_size: u64,
    /// Instruction count, when recorded.
    pub icount: Option<u64>,
}

/// Parses `count` entries from the snapshot table's bytes, and returns the table's length in bytes beside them.
///
/// `table` may be longer than the table. `current_size` stands in for a size that old entries do not record.
///
/// # Errors
/// A table that ends early or an entry beyond QEMU's limits.
pub fn parse_table(
    table: &[u8],
    count: u32,
    current_size: u64,
) -> Result<(Vec<Snapshot>, u64), Corruption> {
    let truncated = |_| Corruption::Truncated {
        what: "snapshot table",
    };
    let mut rest = table;
    let mut snapshots = Vec::new();
    for _ in 0..count {
        let l1_table_offset = rest.try_get_u64().map_err(truncated)?;
        let l1_size = rest.try_get_u32().map_err(truncated)?;
        let id_length = rest.try_get_u16().map_err(truncated)?;
        let name_length = rest.try_get_u16().map_err(truncated)?;
        let date_sec = rest.try_get_u32().map_err(truncated)?;
        let date_nsec = rest.try_get_u32().map_err(truncated)?;
        let vm_clock_nsec = rest.try_get_u64().map_err(truncated)?;
        let vm_state_32 = rest.try_get_u32().map_err(truncated)?;
        let extra_length = rest.try_get_u32().map_err(truncated)?;
        if extra_length > MAX_EXTRA_BYTES {
            return Err(Corruption::TooLarge {
                what: "snapshot extra data, bytes",
                value: extra_length.into(),
                limit: MAX_EXTRA_BYTES.into(),
            });
        }
        if u64::from(l1_size) * 8 > MAX_L1_BYTES {
            return Err(Corruption::TooLarge {
                what: "snapshot L1 table, bytes",
                value: u64::from(l1_size) * 8,
                limit: MAX_L1_BYTES,
            });
        }
        let mut extra = take(
            &mut rest,
            usize::try_from(extra_length).unwrap_or(usize::MAX),
        )?;
        let vm_state_64 = extra.try_get_u64().ok();
        let disk_size = extra.try_get_u64().ok();
        let icount = extra
            .try_get_u64()
            .ok()
            .filter(|&icount| icount != u64::MAX);
        let id = String::from_utf8_lossy(take(&mut rest, id_length.into())?).into_owned();
        let name = String::from_utf8_lossy(take(&mut rest, name_length.into())?).into_owned();
        snapshots.push(Snapshot {
            id,
            name,
            l1_table_offset,
            l1_size,
            date_sec,
            date_nsec,
            vm_clock_nsec,
            vm_state_size: vm_state_64.unwrap_or(vm_state_32.into()),
            disk_size: disk_size.unwrap_or(current_size) & !511,
            icount,
        });
        let used = table.len().saturating_sub(rest.len());
        let padding = used.next_multiple_of(8).saturating_sub(used);
        rest.advance(padding.min(rest.len()));
    }
    let length = u64::try_from(table.len().saturating_sub(rest.len())).unwrap_or(u64::MAX);
    if length > MAX_TABLE_BYTES {
        return Err(Corruption::TooLarge {
            what: "snapshot table, bytes",
            value: length,
            limit: MAX_TABLE_BYTES,
        });
    }
    Ok((snapshots, length))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Corruption> {
    let (head, tail) = rest.split_at_checked(length).ok_or(Corruption::Truncated {
        what: "snapshot table",
    })?;
    *rest = tail;
    Ok(head)
}
