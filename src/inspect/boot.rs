//! How an image boots: code for a BIOS, files for UEFI.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use serde::Serialize;

use crate::fs::path::{LastLink, resolve};
use crate::fs::tree::{FileKind, Node, Tree};
use crate::partition::{self, TableKind};
use crate::survey::{Layout, Place};

/// Directories below /EFI that are looked into, and names in each.
const MOST: usize = 256;

/// Attribute of a GPT partition: a BIOS may start it (UEFI 2.10, 5.3.3, "Legacy BIOS Bootable").
const LEGACY_BOOTABLE: u64 = 1 << 2;

/// What firmware finds on a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Boot {
    /// Whether a BIOS finds something to start.
    pub bios: bool,
    /// What it finds, or lacks.
    pub bios_detail: String,
    /// Whether UEFI firmware finds something to start without variables of its own: `\EFI\BOOT\BOOT*.EFI`.
    pub uefi: bool,
    /// Programs for UEFI firmware.
    pub efi_files: Vec<BootFile>,
}

/// A program for UEFI firmware.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BootFile {
    /// The part that holds it.
    pub part: String,
    /// Its path there.
    pub path: String,
}

impl Boot {
    /// In a word: `BIOS`, `UEFI`, both or `none`.
    pub fn mode(&self) -> &'static str {
        match (self.bios, self.uefi) {
            (true, true) => "BIOS and UEFI",
            (true, false) => "BIOS",
            (false, true) => "UEFI",
            (false, false) => "none",
        }
    }
}

/// Looks for both.
pub(super) fn find(layout: &Layout<'_>, trees: &[(&Place<'_>, Box<dyn Tree + '_>)]) -> Boot {
    let (bios, bios_detail) = bios(layout);
    let mut efi_files = BTreeSet::new();
    for (place, tree) in trees {
        let is_esp = place
            .partition()
            .is_none_or(|partition| partition.kind.is_esp());
        if is_esp && tree.format() == "vfat" {
            efi_programs(&**tree, &place.name(), &mut efi_files);
        }
    }
    let uefi = efi_files.iter().any(|file| {
        let path = file.path.to_ascii_uppercase();
        path.starts_with("/EFI/BOOT/BOOT") && path.ends_with(".EFI")
    });
    Boot {
        bios,
        bios_detail,
        uefi,
        efi_files: efi_files.into_iter().collect(),
    }
}

/// Whether a BIOS that starts the first sector gets anywhere.
fn bios(layout: &Layout<'_>) -> (bool, String) {
    let none = |why: &str| (false, why.to_owned());
    let Ok(Some(code)) = partition::boot_code(&layout.disk) else {
        return none("no boot code in the first sector");
    };
    let partitions = &layout.table.partitions;
    if !code.starts_active {
        let loader = code.loader.unwrap_or("a filesystem's boot code");
        let gpt = matches!(layout.table.kind, TableKind::Gpt | TableKind::Hybrid);
        let embedded = partitions.iter().any(|part| part.kind.is_bios_boot());
        return if gpt && loader == "GRUB" && !embedded {
            (true, "GRUB, without a BIOS boot partition".to_owned())
        } else {
            (true, loader.to_owned())
        };
    }
    let loader = code.loader.unwrap_or("boot code");
    let active = partitions
        .iter()
        .find(|part| part.bootable || part.attributes & LEGACY_BOOTABLE != 0);
    match (layout.table.kind, active) {
        (TableKind::None, _) => (true, format!("{loader} in the first sector")),
        (_, Some(part)) => (
            true,
            format!("{loader} that starts partition {}", part.number),
        ),
        (_, None) => none(&format!("{loader} that finds no active partition")),
    }
}

fn efi_programs(tree: &dyn Tree, part: &str, files: &mut BTreeSet<BootFile>) {
    let Ok(Some(efi)) = resolve(tree, b"/EFI", LastLink::Follow) else {
        return;
    };
    for (vendor, node, kind) in entries(tree, efi.node) {
        if kind != Some(FileKind::Directory) {
            continue;
        }
        for (name, _, kind) in entries(tree, node) {
            if kind != Some(FileKind::Directory) && name.to_ascii_lowercase().ends_with(".efi") {
                files.insert(BootFile {
                    part: part.to_owned(),
                    path: format!("/EFI/{vendor}/{name}"),
                });
            }
        }
    }
}

fn entries(tree: &dyn Tree, directory: Node) -> Vec<(String, Node, Option<FileKind>)> {
    let mut entries = Vec::new();
    // What was read before an error stands.
    let _ = tree.read_dir(directory, &mut |entry| {
        let name = String::from_utf8_lossy(entry.name).into_owned();
        entries.push((name, entry.node, entry.kind));
        if entries.len() < MOST {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    for (_, node, kind) in &mut entries {
        if kind.is_none() {
            *kind = tree.metadata(*node).ok().map(|metadata| metadata.kind);
        }
    }
    entries
}
