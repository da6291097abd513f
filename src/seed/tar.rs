//! The files of a seed as a tar archive, for the directory in a guest where cloud-init looks for a seed.
//!
//! Knows the header of POSIX.1-1988 (ustar).

use super::File;
use crate::error::{Error, Result};

const BLOCK: usize = 512;
/// Archives are multiples of twenty blocks, as tar(1) writes them.
const RECORD: usize = 20 * BLOCK;

/// `files` below `directory` (empty, or ending with a slash), owned by root; each directory on the way is there, too.
pub(super) fn write(directory: &str, files: &[File], time: i64) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    for (at, _) in directory.match_indices('/') {
        let path = directory.get(..=at).unwrap_or_default();
        archive.extend(header(path, 0o755, 0, b'5', time)?);
    }
    for file in files {
        let path = format!("{directory}{}", file.name);
        archive.extend(header(&path, 0o644, file.bytes.len(), b'0', time)?);
        archive.extend_from_slice(&file.bytes);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize((archive.len() + 2 * BLOCK).next_multiple_of(RECORD), 0);
    Ok(archive)
}

fn header(path: &str, mode: u32, size: usize, kind: u8, time: i64) -> Result<[u8; BLOCK]> {
    let mut header = [0; BLOCK];
    if path.len() > 100 || size >= 1 << 33 {
        return Err(Error::unsupported(format!(
            "'{path}' does not fit into a tar archive"
        )));
    }
    let time = time.clamp(0, (1 << 33) - 1);
    let mut put = |at: usize, field: &[u8]| {
        if let Some(place) = header.get_mut(at..at + field.len()) {
            place.copy_from_slice(field);
        }
    };
    put(0, path.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{time:011o}").as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    put(265, b"root");
    put(297, b"root");
    put(329, b"0000000");
    put(337, b"0000000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    if let Some(place) = header.get_mut(148..156) {
        place.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    Ok(header)
}
