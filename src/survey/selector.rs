//! How a user names a part of a disk.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A part of a disk, as a user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The disk as a whole, where it has no partitions: `disk`.
    Disk,
    /// A partition by its number: `3`, `sda3`, `/dev/nvme0n1p3`.
    Number(u32),
    /// A logical volume: `vg/lv`, `/dev/vg/lv`, `/dev/mapper/vg-lv`.
    Logical {
        /// Its volume group.
        group: String,
        /// Its own name.
        name: String,
    },
    /// A filesystem's label: `LABEL=root`.
    Label(String),
    /// A filesystem's UUID: `UUID=...`.
    Uuid(String),
    /// A GPT partition's name: `PARTLABEL=root`.
    PartLabel(String),
    /// A partition's UUID: `PARTUUID=...`.
    PartUuid(String),
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let owned = |value: &str| value.trim_matches('"').to_owned();
        if let Some((key, value)) = text.split_once('=') {
            return match key.to_ascii_uppercase().as_str() {
                "LABEL" => Ok(Self::Label(owned(value))),
                "UUID" => Ok(Self::Uuid(owned(value))),
                "PARTLABEL" => Ok(Self::PartLabel(owned(value))),
                "PARTUUID" => Ok(Self::PartUuid(owned(value))),
                _ => Err(unknown(text)),
            };
        }
        if text == "disk" {
            return Ok(Self::Disk);
        }
        let path = text.strip_prefix("/dev/").unwrap_or(text);
        if let Some(mapped) = path.strip_prefix("mapper/") {
            return mapped_name(mapped).ok_or_else(|| unknown(text));
        }
        for (directory, make) in [
            ("disk/by-label/", Self::Label as fn(String) -> Self),
            ("disk/by-uuid/", Self::Uuid),
            ("disk/by-partlabel/", Self::PartLabel),
            ("disk/by-partuuid/", Self::PartUuid),
        ] {
            if let Some(value) = path.strip_prefix(directory) {
                return Ok(make(value.to_owned()));
            }
        }
        if let Some((group, name)) = path.split_once('/') {
            if group.is_empty() || name.is_empty() || name.contains('/') {
                return Err(unknown(text));
            }
            return Ok(Self::Logical {
                group: group.to_owned(),
                name: name.to_owned(),
            });
        }
        partition_number(path)
            .map(Self::Number)
            .ok_or_else(|| unknown(text))
    }
}

fn unknown(text: &str) -> Error {
    Error::usage(format!("'{text}' names no part of a disk")).with_remedy(
        "write a number (3), a device (sda3), a logical volume (vg/lv), LABEL=, UUID=, PARTLABEL=, PARTUUID= or disk",
    )
}

/// The number of `3`, `sda3`, `vda15`, `xvda1`, `hda2`, `nvme0n1p3`, `mmcblk0p1` or `loop0p1`.
fn partition_number(name: &str) -> Option<u32> {
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (device, number) = name.split_at(name.len() - digits);
    let is_device = match device.strip_suffix('p') {
        // A disk whose own name ends in a digit has a `p` before the number.
        Some(disk) if disk.ends_with(|c: char| c.is_ascii_digit()) => true,
        _ => ["sd", "vd", "xvd", "hd"].iter().any(|prefix| {
            device.strip_prefix(prefix).is_some_and(|letters| {
                !letters.is_empty() && letters.bytes().all(|b| b.is_ascii_lowercase())
            })
        }),
    };
    (device.is_empty() || is_device)
        .then(|| number.parse().ok())
        .flatten()
        .filter(|&number| number > 0)
}

/// The device mapper's names join group and volume by a hyphen, and double those inside.
fn mapped_name(mapped: &str) -> Option<Selector> {
    let bytes = mapped.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes.get(at) == Some(&b'-') {
            if bytes.get(at + 1) != Some(&b'-') {
                let (group, name) = (mapped.get(..at)?, mapped.get(at + 1..)?);
                let single = |text: &str| text.replace("--", "-");
                return (!group.is_empty() && !name.is_empty()).then(|| Selector::Logical {
                    group: single(group),
                    name: single(name),
                });
            }
            at += 1;
        }
        at += 1;
    }
    None
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk => f.write_str("disk"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Logical { group, name } => write!(f, "{group}/{name}"),
            Self::Label(value) => write!(f, "LABEL={value}"),
            Self::Uuid(value) => write!(f, "UUID={value}"),
            Self::PartLabel(value) => write!(f, "PARTLABEL={value}"),
            Self::PartUuid(value) => write!(f, "PARTUUID={value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<String> {
        let selector = text.parse::<Selector>().ok()?;
        assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector);
        Some(format!("{selector}"))
    }

    #[test]
    fn parts_are_named_as_users_name_them() {
        for (text, same) in [
            ("3", "3"),
            ("sda3", "3"),
            ("/dev/vda15", "15"),
            ("/dev/nvme0n1p2", "2"),
            ("mmcblk0p1", "1"),
            ("disk", "disk"),
            ("vg/root", "vg/root"),
            ("/dev/vg/root", "vg/root"),
            ("/dev/mapper/my--vg-root", "my-vg/root"),
            ("LABEL=cloudimg-rootfs", "LABEL=cloudimg-rootfs"),
            ("uuid=AB12-CD34", "UUID=AB12-CD34"),
            ("/dev/disk/by-partlabel/esp", "PARTLABEL=esp"),
            ("PARTUUID=4f68bce3-01", "PARTUUID=4f68bce3-01"),
        ] {
            assert_eq!(parse(text).as_deref(), Some(same), "{text}");
        }
        for text in [
            "",
            "0",
            "sda",
            "vg/",
            "/dev/mapper/vg",
            "a/b/c",
            "root",
            "FOO=1",
            "nvme0n1",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
