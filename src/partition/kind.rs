//! What a partition is said to be for.

use std::borrow::Cow;
use std::fmt;

use uuid::Uuid;

use super::{guids, type_bytes};

/// The type of a partition, as its table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionKind {
    /// The type byte of an MBR.
    Mbr(u8),
    /// The type GUID of a GPT, as the number that its text spells.
    Gpt(u128),
}

impl PartitionKind {
    /// What people call it; its number where nobody does.
    pub fn name(&self) -> Cow<'static, str> {
        self.known_name().unwrap_or_else(|| self.number().into())
    }

    /// What people call it.
    pub fn known_name(&self) -> Option<Cow<'static, str>> {
        match *self {
            Self::Mbr(byte) => type_bytes::NAMES
                .iter()
                .find(|(other, _)| *other == byte)
                .map(|(_, name)| Cow::Borrowed(*name)),
            Self::Gpt(guid) => guids::NAMES
                .iter()
                .find(|(other, _)| *other == guid)
                .map(|(_, name)| Cow::Borrowed(*name))
                .or_else(|| {
                    let (architecture, role, _) = self.discoverable()?;
                    Some(format!("Linux {role} ({architecture})").into())
                }),
        }
    }

    /// The type of a GPT that `text` means: a GUID, a name as [`PartitionKind::name`] has it, or one of the short names
    /// that systemd-repart uses, such as `esp`, `linux-generic` and `root-x86-64`. Case and signs count for nothing.
    pub fn from_name(text: &str) -> Option<Self> {
        if let Ok(guid) = Uuid::parse_str(text) {
            return Some(Self::Gpt(guid.as_u128()));
        }
        let text = folded(text);
        let named = |name: &str| folded(name) == text;
        let known = guids::NAMES.iter().find(|(_, name)| named(name));
        let short = || {
            let find = |name: &str| guids::NAMES.iter().find(|(_, other)| *other == name);
            let (_, name) = SHORT_NAMES.iter().find(|(short, _)| named(short))?;
            find(name)
        };
        let discoverable = || {
            guids::ARCHITECTURES
                .iter()
                .flat_map(|(architecture, types)| {
                    let roles = guids::ROLES.iter().zip(types);
                    roles.map(move |((role, _), guid)| (*architecture, *role, *guid))
                })
                .find_map(|(architecture, role, guid)| {
                    let (place, rest) = role.split_once(' ').unwrap_or((role, ""));
                    let names = [
                        format!("{place} {architecture} {rest}"),
                        format!("Linux {role} ({architecture})"),
                    ];
                    names.iter().any(|name| named(name)).then_some(guid)
                })
        };
        let guid = known
            .or_else(short)
            .map(|(guid, _)| *guid)
            .or_else(discoverable)?;
        Some(Self::Gpt(guid))
    }

    /// As the table has it: `0x83`, or a GUID in lower case.
    pub fn number(&self) -> String {
        match *self {
            Self::Mbr(byte) => format!("{byte:#04x}"),
            Self::Gpt(guid) => Uuid::from_u128(guid).to_string(),
        }
    }

    /// Whether UEFI firmware looks for programs there.
    pub fn is_esp(&self) -> bool {
        matches!(
            *self,
            Self::Mbr(type_bytes::EFI_SYSTEM) | Self::Gpt(guids::EFI_SYSTEM)
        )
    }

    /// Whether it holds GRUB's core image for a BIOS.
    pub fn is_bios_boot(&self) -> bool {
        *self == Self::Gpt(guids::BIOS_BOOT)
    }

    /// Whether it holds a hash tree over another partition, or the signature of one.
    pub fn is_verity(&self) -> bool {
        self.discoverable().is_some_and(|(_, _, verity)| verity)
    }

    /// Whether every block of it is hashed without a header or a partition that says so: the images of Flatcar and
    /// ChromeOS.
    pub fn is_sealed_usr(&self) -> bool {
        matches!(*self, Self::Gpt(guids::FLATCAR_USR | guids::CHROMEOS_ROOT))
    }

    /// Whether it belongs to Windows' Logical Disk Manager: what it seems to hold may go on elsewhere.
    pub fn is_dynamic(&self) -> bool {
        matches!(
            *self,
            Self::Mbr(0x42) | Self::Gpt(guids::LDM_METADATA | guids::LDM_DATA)
        )
    }

    /// Architecture, role, and whether that is to hold hashes.
    fn discoverable(&self) -> Option<(&'static str, &'static str, bool)> {
        let Self::Gpt(guid) = *self else { return None };
        guids::ARCHITECTURES
            .iter()
            .find_map(|(architecture, types)| {
                let mut roles = guids::ROLES.iter().zip(types);
                let ((role, verity), _) = roles.find(|(_, other)| **other == guid)?;
                Some((*architecture, *role, *verity))
            })
    }
}

/// Short names, and what each stands for.
const SHORT_NAMES: &[(&str, &str)] = &[
    ("esp", "EFI system"),
    ("efi", "EFI system"),
    ("bios", "BIOS boot"),
    ("xbootldr", "Linux extended boot"),
    ("linux", "Linux filesystem"),
    ("linux-generic", "Linux filesystem"),
    ("swap", "Linux swap"),
    ("home", "Linux home"),
    ("srv", "Linux server data"),
    ("var", "Linux variable data"),
    ("tmp", "Linux temporary data"),
    ("user-home", "Linux home of a user"),
    ("lvm", "Linux LVM"),
    ("raid", "Linux RAID"),
    ("luks", "Linux LUKS"),
    ("data", "Microsoft basic data"),
];

/// Letters and digits alone.
fn folded(text: &str) -> String {
    text.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

impl fmt::Display for PartitionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::process::Command;

    use super::*;

    /// What `sfdisk` calls the types of one kind of table, by their number in lower case.
    fn listed(label: &str) -> HashMap<String, String> {
        let output = Command::new("sfdisk")
            .args(["--list-types", "-X", label])
            .output()
            .expect("sfdisk must be installed");
        let text = String::from_utf8(output.stdout).unwrap();
        let types: HashMap<_, _> = text
            .lines()
            .skip(2)
            .filter_map(|line| line.trim().split_once("  "))
            .map(|(number, name)| (number.to_ascii_lowercase(), name.trim().to_owned()))
            .collect();
        assert!(types.len() > 90);
        types
    }

    #[test]
    fn every_type_that_sfdisk_knows_has_a_name() {
        for (number, name) in listed("gpt") {
            let kind = PartitionKind::Gpt(Uuid::parse_str(&number).unwrap().as_u128());
            let own = kind
                .known_name()
                .unwrap_or_else(|| panic!("{number} {name}"));
            assert_eq!(kind.is_verity(), name.contains("verity"), "{name}");
            if let Some((_, role)) = name.split_once("Linux root (") {
                let letters = |text: &str| -> String {
                    let text = text.replace("PowerPC", "PPC").to_ascii_lowercase();
                    text.chars().filter(|c| c.is_ascii_alphanumeric()).collect()
                };
                let own = own.strip_prefix("Linux root (").unwrap();
                let (own, role) = (letters(own), letters(role));
                // MIPS-32 and MIPS are the same.
                assert_eq!(own, role.replace("mips32", "mips"));
            }
        }
        for (number, name) in listed("dos") {
            let kind = PartitionKind::Mbr(u8::from_str_radix(&number, 16).unwrap());
            assert!(kind.known_name().is_some(), "{number} {name}");
        }
    }

    #[test]
    fn no_type_stands_twice() {
        let mut guids: Vec<u128> = guids::NAMES.iter().map(|(guid, _)| *guid).collect();
        guids.extend(guids::ARCHITECTURES.iter().flat_map(|(_, types)| types));
        let count = guids.len();
        guids.sort_unstable();
        guids.dedup();
        assert_eq!(guids.len(), count);
        assert!(type_bytes::NAMES.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn every_name_leads_back_to_its_type() {
        let guids = guids::NAMES.iter().map(|(guid, _)| *guid);
        let others = guids::ARCHITECTURES.iter().flat_map(|(_, types)| *types);
        for kind in guids.chain(others).map(PartitionKind::Gpt) {
            assert_eq!(PartitionKind::from_name(&kind.name()), Some(kind), "{kind}");
            assert_eq!(PartitionKind::from_name(&kind.number()), Some(kind));
        }
        for (short, _) in SHORT_NAMES {
            assert!(PartitionKind::from_name(short).is_some(), "{short}");
        }
        for (text, guid) in [
            ("esp", guids::EFI_SYSTEM),
            ("BIOS-boot", guids::BIOS_BOOT),
            ("root-x86-64", 0x4f68bce3_e8cd_4db1_96e7_fbcaf984b709),
            ("usr-arm64-verity", 0x6e11a4e7_fbca_4ded_b9e9_e1a512bb664e),
        ] {
            let kind = PartitionKind::from_name(text);
            assert_eq!(kind, Some(PartitionKind::Gpt(guid)), "{text}");
        }
        assert_eq!(PartitionKind::from_name("nothing"), None);
        assert_eq!(PartitionKind::from_name(""), None);
    }

    #[test]
    fn types_say_what_they_are() {
        let kind = PartitionKind::Gpt(0x2c7357ed_ebd2_46d9_aec1_23d437ec2bf5);
        assert!(kind.is_verity() && !kind.is_esp());
        assert_eq!(kind.name(), "Linux root verity (x86-64)");
        let unknown = PartitionKind::Gpt(0x1234);
        assert_eq!(unknown.name(), "00000000-0000-0000-0000-000000001234");
        assert_eq!(unknown.known_name(), None);
        assert_eq!(PartitionKind::Mbr(0x2f).to_string(), "0x2f");
        assert!(PartitionKind::Mbr(0xef).is_esp());
        assert!(PartitionKind::Gpt(guids::FLATCAR_USR).is_sealed_usr());
    }
}
