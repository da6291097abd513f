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
    let foreign = FOREIGN
        .iter()
        .find(|(magic, at, _)| head[*at..].starts_with(magic));
    match foreign {
        None => Ok(Format::Raw),
        Some((_, _, name)) => {
            let error = Error::unsupported(format!("this looks like a {name} image")).with_remedy(
                "use -f raw to take its bytes as they are, or convert it with qemu-img",
            );
            Err(match store.path() {
                Some(path) => error.at_path(path),
                None => error,
            })
        }
    }
}
