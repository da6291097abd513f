//! What may lie behind a filesystem in its own partition, and hashes it.
//!
//! `veritysetup format --hash-offset` puts a dm-verity superblock there (cryptsetup, `lib/verity/verity.c`), Android a
//! footer at the very end (AVB, `avb_footer.h`).

use crate::fs::{Identity, Refusal, RefusalKind};
use crate::volume::Volume;

const VERITY: &[u8; 8] = b"verity\0\0";
const AVB: &[u8; 4] = b"AVBf";
const AVB_FOOTER: u64 = 64;
/// How far behind the filesystem a superblock is looked for: hash areas start where it ends, or soon after.
const REACH: u64 = 1 << 20;

/// Why the filesystem `identity` in `volume` must stay as it is.
pub(super) fn protects(volume: &Volume<'_>, identity: &Identity) -> Option<Refusal> {
    let end = identity.size?;
    let rest = volume.size().checked_sub(end)?;
    let hashed = || Refusal::new(RefusalKind::Protected, "a hash tree follows the filesystem");
    let length = usize::try_from(rest.min(REACH)).ok()?;
    let tail = match volume.read_vec(end, length) {
        Ok(tail) => tail,
        Err(error) => return Some(error.into()),
    };
    if tail.chunks(512).any(|sector| sector.starts_with(VERITY)) {
        return Some(hashed());
    }
    let footer = volume.size().checked_sub(AVB_FOOTER)?;
    match volume.read_array::<4>(footer) {
        Ok(bytes) if &bytes == AVB => Some(hashed()),
        Ok(_) => None,
        Err(error) => Some(error.into()),
    }
}
