//! Which format a file has, from its first bytes.
//!
//! Anything that is not recognised is raw. A guest can write any header to
//! the start of a raw disk, so a caller that knows the format should say so.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::store::ReadAt;

/// A disk image format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Guest bytes as they are.
    Raw,
    /// QEMU copy-on-write, versions 2 and 3.
    Qcow2,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        })
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            // A block device is raw bytes under another name in QEMU.
            "raw" | "host_device" | "file" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            _ => Err(
                Error::unsupported(format!("the format '{name}' is not supported")).with_remedy(
                    "qimg reads and writes raw and qcow2; convert others with qemu-img",
                ),
            ),
        }
    }
}

/// Formats that are told apart from raw only to be refused by name: magic, offset, name.
const FOREIGN: &[(&[u8], usize, &str)] = &[
    (b"KDMV", 0, "vmdk"),
    (b"COWD", 0, "vmdk"),
    (b"# Disk DescriptorFile", 0, "vmdk"),
    (b"vhdxfile", 0, "vhdx"),
    (b"conectix", 0, "vpc"),
    (b"\x7f\x10\xda\xbe", 0x40, "vdi"),
    (b"WithoutFreeSpace", 0, "parallels"),
    (b"WithouFreSpacExt", 0, "parallels"),
    (b"QED\0", 0, "qed"),
    (b"LUKS\xba\xbe", 0, "luks"),
];

/// What an image is often packed in: magic, offset, name. No boot code begins like this.
const PACKED: &[(&[u8], usize, &str)] = &[
    (b"\x1f\x8b\x08", 0, "gzip stream"),
    (b"\xfd7zXZ\0", 0, "xz stream"),
    (b"\x28\xb5\x2f\xfd", 0, "zstd stream"),
    (b"\x31\x41\x59\x26\x53\x59", 4, "bzip2 stream"),
    (b"PK\x03\x04", 0, "zip archive"),
    (b"7z\xbc\xaf\x27\x1c", 0, "7z archive"),
    (b"Rar!", 0, "rar archive"),
    (b"ustar", 257, "tar archive"),
];

/// The format of the image in `store`.
///
/// # Errors
/// A format that is recognised but not supported.
pub(crate) fn probe(store: &dyn ReadAt) -> Result<Format> {
    let mut head = [0; 512];
    store.read_zero_filled(&mut head, 0)?;
    if head.starts_with(b"QFI\xfb") {
        return Ok(Format::Qcow2);
    }
    let among = |list: &[(&[u8], usize, &'static str)]| {
        let found = list
            .iter()
            .find(|(magic, at, _)| head[*at..].starts_with(magic));
        found.map(|(_, _, name)| *name)
    };
    let error = if let Some(name) = among(FOREIGN) {
        Error::unsupported(format!("this looks like a {name} image"))
            .with_remedy("use -f raw to take its bytes as they are, or convert it with qemu-img")
    } else if let Some(name) = among(PACKED) {
        Error::unsupported(format!("is a {name}, not an image")).with_remedy(
            "unpack it beforehand, and name the image in it; -f raw takes its bytes as they are",
        )
    } else {
        return Ok(Format::Raw);
    };
    Err(match store.path() {
        Some(path) => error.at_path(path),
        None => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Memory, WriteAt};

    fn probed(head: &[u8]) -> Result<Format> {
        let store = Memory::new();
        store.write_all_at(head, 0).unwrap();
        probe(&store)
    }

    #[test]
    fn what_an_image_is_packed_in_is_no_image() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        for (head, name) in [
            (&b"\x1f\x8b\x08\0"[..], "gzip stream"),
            (b"\xfd7zXZ\0\0\x04", "xz stream"),
            (b"\x28\xb5\x2f\xfd\x04", "zstd stream"),
            (b"BZh91AY&SY", "bzip2 stream"),
            (b"PK\x03\x04", "zip archive"),
            (&tar, "tar archive"),
        ] {
            let error = probed(head).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            assert!(error.remedy().unwrap().contains("-f raw"), "{error}");
        }
        assert_eq!(probed(b"\xfa\x33\xc0").unwrap(), Format::Raw);
        assert_eq!(probed(b"BZh9").unwrap(), Format::Raw);
        assert_eq!(probed(b"QFI\xfb").unwrap(), Format::Qcow2);
    }
}
