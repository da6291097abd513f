//! A real Debian guest, started by UEFI in each of the ways that a template may ask for it.

use std::path::{Path, PathBuf};

use crate::shop::{Shop, sha256};

fn debian() -> PathBuf {
    let image = crate::shop::cache().join("debian-12.qcow2");
    assert!(
        image.is_file(),
        "{image:?} is missing; tests/guest/debian-image makes it"
    );
    image
}

/// The host's own firmware, and what it was.
fn firmware() -> Vec<(PathBuf, String)> {
    let files = ["OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"];
    files
        .iter()
        .map(|name| Path::new("/usr/share/OVMF").join(name))
        .map(|path| (path.clone(), sha256(&path)))
        .collect()
}

/// The template of one build, with these lines of its builder.
fn packer(lines: &serde_json::Value) -> String {
    let mut builder = serde_json::json!({
        "type": "qemu",
        "iso_url": debian(),
        "iso_checksum": "none",
        "disk_image": true,
        "disk_size": "4G",
        "format": "qcow2",
        "headless": true,
        "accelerator": "none",
        "memory": 1024,
        "ssh_username": "debian",
        "ssh_timeout": "30m",
        "shutdown_command": "sudo shutdown -P now",
        "shutdown_timeout": "10m",
        "use_backing_file": true,
        "skip_compaction": true,
        "output_directory": "output",
        "vm_name": "disk.qcow2"
    });
    for (key, value) in lines.as_object().unwrap() {
        builder[key] = value.clone();
    }
    serde_json::to_string_pretty(&serde_json::json!({
        "builders": [builder],
        "provisioners": [{
            "type": "shell",
            "inline": ["test -d /sys/firmware/efi/efivars", "echo efi=$(ls /sys/firmware/efi | tr '\\n' ' ')"]
        }]
    }))
    .unwrap()
}

fn builds(name: &str, text: &str) -> (Shop, crate::shop::Ended) {
    let before = firmware();
    let shop = Shop::new();
    shop.write(name, text);
    shop.qimg(&["validate", name]).well();
    let ended = shop.build(name, text, &[]).well();
    assert_eq!(firmware(), before);
    (shop, ended)
}

/// Real guests take minutes to boot: what the third spelling shows nearly as well is for the night.
fn nightly() -> bool {
    std::env::var_os("QIMG_NIGHTLY").is_some()
}

#[test]
fn flash_drives_in_qemuargs_write_a_copy() {
    if !nightly() {
        return;
    }
    let text = packer(&serde_json::json!({
        "qemuargs": [
            ["-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"],
            ["-drive", "if=pflash,format=raw,file=/usr/share/OVMF/OVMF_VARS_4M.fd"],
            ["-drive", "file=output/disk.qcow2,if=virtio,format=qcow2"]
        ]
    }));
    let (shop, ended) = builds("flash.json", &text);
    ended
        .has("efi=")
        .has("would have the guest write /usr/share/OVMF/OVMF_VARS_4M.fd: it writes a copy");
    assert!(shop.path("output/OVMF_VARS_4M.fd").exists());
}

#[test]
fn efi_boot_keeps_or_drops_its_variables() {
    if !nightly() {
        return;
    }
    // The way to have both efi_boot and drives of one's own.
    let own = serde_json::json!({
        "efi_boot": true,
        "qemuargs": [
            ["-drive", "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"],
            ["-drive", "if=pflash,unit=1,format=raw,file={{ .OutputDir }}/efivars.fd"],
            ["-drive", "file={{ .OutputDir }}/{{ .Name }},if=virtio,format=qcow2"]
        ]
    });
    let (shop, ended) = builds("efi.json", &packer(&own));
    ended.has("efi=").has_not("writes a copy");
    assert!(shop.path("output/efivars.fd").exists());
    let named = serde_json::json!({
        "efi_firmware_code": "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "efi_firmware_vars": "/usr/share/OVMF/OVMF_VARS_4M.fd",
        "efi_drop_efivars": true
    });
    let (shop, ended) = builds("named.json", &packer(&named));
    ended.has("efi=");
    assert!(!shop.path("output/efivars.fd").exists());
}

#[test]
fn boot_uefi_is_q35_with_the_hosts_firmware_and_a_tpm() {
    let text = format!(
        "name = \"uefi\"\n[base]\nimage = {:?}\nchecksum = \"none\"\n[machine]\nboot = \"uefi\"\ntpm = true\n\
         accelerator = \"tcg\"\nmemory = \"1G\"\n[ssh]\nusername = \"debian\"\ntimeout = \"30m\"\n\
         [seal]\nenabled = false\n[output]\ndirectory = \"output\"\ncompression = \"none\"\n\
         [[provision]]\nshell = [\"test -d /sys/firmware/efi/efivars\", \"echo efi=$(ls /sys/firmware/efi | tr '\\\\n' ' ')\", \
         \"ls /sys/class/tpm/tpm0\", \"cat /sys/class/dmi/id/product_name\"]\n",
        debian()
    );
    let (shop, ended) = builds("uefi.toml", &text);
    ended.has("efi=").has("Q35");
    assert!(shop.path("output/efivars.fd").exists());
}
