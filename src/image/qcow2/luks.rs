//! The LUKS version 1 header, as far as it can be read without a key.
//!
//! Knows the header's bytes. Must not know secrets: nothing here derives,
//! checks or decrypts anything.

use bytes::Buf;

use super::format::Corruption;
use crate::image::info::{LuksInfo, LuksSlotInfo};

/// Bytes of the header, without key material.
pub(super) const HEADER_BYTES: u64 = 592;

const MAGIC: &[u8; 6] = b"LUKS\xba\xbe";
const SECTOR: u64 = 512;
const SLOTS: usize = 8;
const SLOT_ACTIVE: u32 = 0x00ac_71f3;
const SLOT_INACTIVE: u32 = 0x0000_dead;

/// Parses the first [`HEADER_BYTES`] bytes of a LUKS volume.
///
/// # Errors
/// The bytes end early or are no LUKS version 1 header.
pub(super) fn parse(bytes: &[u8]) -> Result<LuksInfo, Corruption> {
    let wrong = |why, entry: u64| Corruption::Entry { why, entry };
    let truncated = |_| Corruption::Truncated {
        what: "LUKS header",
    };
    let mut rest = bytes;
    let mut magic = [0; MAGIC.len()];
    rest.try_copy_to_slice(&mut magic).map_err(truncated)?;
    if magic != *MAGIC {
        return Err(wrong("LUKS header without its magic number", 0));
    }
    let version = rest.try_get_u16().map_err(truncated)?;
    if version != 1 {
        return Err(wrong("LUKS header of another version", version.into()));
    }
    let cipher = text::<32>(&mut rest)?;
    let mode = text::<32>(&mut rest)?;
    let hash_alg = text::<32>(&mut rest)?;
    let payload_sector = rest.try_get_u32().map_err(truncated)?;
    let key_bytes = rest.try_get_u32().map_err(truncated)?;
    // The master key's digest and salt.
    rest.try_copy_to_slice(&mut [0; 20 + 32])
        .map_err(truncated)?;
    let master_key_iters = rest.try_get_u32().map_err(truncated)?;
    let uuid = text::<40>(&mut rest)?;
    let mut slots = Vec::with_capacity(SLOTS);
    for _ in 0..SLOTS {
        let state = rest.try_get_u32().map_err(truncated)?;
        let iters = rest.try_get_u32().map_err(truncated)?;
        rest.try_copy_to_slice(&mut [0; 32]).map_err(truncated)?;
        let key_sector = rest.try_get_u32().map_err(truncated)?;
        let stripes = rest.try_get_u32().map_err(truncated)?;
        let active = match state {
            SLOT_ACTIVE => true,
            SLOT_INACTIVE => false,
            other => {
                return Err(wrong(
                    "LUKS key slot neither active nor inactive",
                    other.into(),
                ));
            }
        };
        slots.push(LuksSlotInfo {
            active,
            iters: active.then_some(iters.into()),
            stripes: active.then_some(stripes.into()),
            key_offset: u64::from(key_sector) * SECTOR,
        });
    }
    // "xts-plain64", "cbc-essiv:sha256": mode, generator and its hash.
    let (cipher_mode, generator) = mode.split_once('-').unwrap_or((&mode, ""));
    let (ivgen_alg, ivgen_hash) = match generator.split_once(':') {
        Some((generator, hash)) => (generator, Some(hash)),
        None => (generator, None),
    };
    // XTS has two keys of the cipher's width.
    let keys = if cipher_mode == "xts" { 2 } else { 1 };
    Ok(LuksInfo {
        cipher_alg: format!("{cipher}-{}", u64::from(key_bytes) * 8 / keys),
        cipher_mode: cipher_mode.to_owned(),
        ivgen_alg: ivgen_alg.to_owned(),
        ivgen_hash_alg: ivgen_hash.map(ToOwned::to_owned),
        hash_alg,
        detached_header: false,
        payload_offset: u64::from(payload_sector) * SECTOR,
        master_key_iters: master_key_iters.into(),
        uuid,
        slots,
    })
}

/// A field of `N` bytes that holds a C string.
fn text<const N: usize>(rest: &mut &[u8]) -> Result<String, Corruption> {
    let mut field = [0; N];
    rest.try_copy_to_slice(&mut field)
        .map_err(|_| Corruption::Truncated {
            what: "LUKS header",
        })?;
    let text = field.split(|&byte| byte == 0).next().unwrap_or(&[]);
    Ok(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_end_early_are_no_header() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[0, 1]);
        bytes.resize(592, 0);
        for slot in 0..SLOTS {
            let at = 208 + slot * 48;
            bytes[at..at + 4].copy_from_slice(&SLOT_INACTIVE.to_be_bytes());
        }
        assert!(parse(&bytes).is_ok());
        for length in 0..bytes.len() {
            assert!(parse(&bytes[..length]).is_err(), "{length}");
        }
    }
}
