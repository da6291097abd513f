//! `$LogFile`: whether all that was promised in it was done.
//!
//! Source: `RESTART_PAGE_HEADER` and `RESTART_AREA` of the kernel's `fs/ntfs/logfile.h`. Two pages at its start say
//! where to begin; the newer one counts.

use super::Table;
use super::record::restore;
use super::runs::Stream;
use crate::fields::Fields;
use crate::fs::Refusal;

/// `LOGFILE_NO_CLIENT`.
const NOBODY: u16 = 0xffff;
/// `RESTART_VOLUME_IS_CLEAN`.
const CLEAN: u16 = 2;

const LEAST_PAGE: usize = 512;
/// What is looked at of a log that was never used, and is all ones.
const EMPTY: usize = 64 << 10;

struct Restart {
    number: u64,
    clean: bool,
}

pub(super) fn require_clean(log: &Stream, table: &Table<'_, '_>) -> Result<(), Refusal> {
    let length = usize::try_from(log.initialized()).unwrap_or(usize::MAX);
    let mut start = vec![0; length.min(EMPTY)];
    log.read_at(table.volume, table.boot, 0, &mut start)?;
    if start.len() == EMPTY && start.iter().all(|&byte| byte == 0xff) {
        return Ok(());
    }
    let size = usize::try_from(Fields(&start).le32(16)).unwrap_or(0);
    if !size.is_power_of_two() || !(LEAST_PAGE..=EMPTY / 2).contains(&size) {
        return Err(Refusal::dirty("ntfs $LogFile does not say where it begins"));
    }
    let mut newest: Option<Restart> = None;
    for page in start.chunks_exact_mut(size).take(2) {
        let restart = restart(page)?;
        if let Some(restart) = restart
            && newest
                .as_ref()
                .is_none_or(|newest| newest.number <= restart.number)
        {
            newest = Some(restart);
        }
    }
    match newest {
        Some(Restart { clean: true, .. }) => Ok(()),
        _ => Err(Refusal::dirty("ntfs $LogFile was not played back")
            .with_remedy("start Windows and shut it down")),
    }
}

/// What a page says; `None` when it is none, or torn.
fn restart(page: &mut [u8]) -> Result<Option<Restart>, Refusal> {
    let magic = page.starts_with(b"RSTR") || page.starts_with(b"CHKD");
    if !magic || !restore(page) {
        return Ok(None);
    }
    let fields = Fields(page);
    let area = usize::from(fields.le16(24));
    // Version 2 is written by a Windows that keeps metadata in its hibernated kernel.
    let version = fields.le16(28);
    if version != 1 {
        return Err(Refusal::dirty(format!(
            "ntfs $LogFile is of version {version}, as Windows leaves it for a fast start"
        )));
    }
    Ok(Some(Restart {
        number: fields.le64(area),
        clean: fields.le16(area + 12) == NOBODY || fields.le16(area + 14) & CLEAN != 0,
    }))
}
