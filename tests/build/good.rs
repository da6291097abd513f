//! Builds that go well.

use std::process::Command;

use crate::workshop::{Native, Workshop, base, boots};

fn check(workshop: &Workshop, image: &str) {
    let status = Command::new("qemu-img")
        .args(["check", "-q"])
        .arg(workshop.path(image))
        .status();
    assert!(status.unwrap().success(), "{image}");
}

#[test]
fn a_native_build_makes_a_sealed_image_with_the_work_in_it_and_the_key_out_of_it() {
    let workshop = Workshop::new();
    let template = Native {
        seal: true,
        ..Native::with(
            "[[provision]]\nshell = [\"echo done >/made\", \"cat /root/.ssh/authorized_keys >/keys-were\"]\nsudo = true\n",
        )
        .ssh("username = \"builder\"")
    };
    let ended = workshop.build(&template, &[]).well();
    ended
        .has("Waiting for SSH, for 1200 s at most")
        .has("Sealing the guest")
        .has("authorized-keys: removed 3")
        .has("injected-users: removed")
        .has("VM files in: output/disk.qcow2")
        .has_not("Remains: a key");
    assert_eq!(
        workshop.files().into_iter().collect::<Vec<_>>(),
        ["build.toml", "output/disk.qcow2"]
    );
    check(&workshop, "output/disk.qcow2");
    let cat = |path| workshop.cat("output/disk.qcow2", path);
    assert_eq!(cat("/made").as_deref(), Some("done\n"));
    let key = cat("/keys-were").unwrap();
    assert!(key.starts_with("ssh-ed25519 "), "{key}");
    assert_eq!(cat("/root/.ssh/authorized_keys"), None);
    assert_eq!(cat("/home/user/.ssh/authorized_keys"), None);
    assert!(!cat("/etc/passwd").unwrap().contains("builder"));
    assert_eq!(cat("/etc/machine-id").as_deref(), Some(""));
    workshop.assert_tidy();

    // Once more there, and the old one stays until the new one is done.
    let refused = workshop.build(&template, &[]);
    refused.failed(1, &["output: exists", "--force"]);
    assert!(workshop.path("output/disk.qcow2").exists());
    workshop.assert_tidy();
}

#[test]
fn a_packer_template_that_names_the_work_disk_marks_it_whole_by_a_manifest() {
    let workshop = Workshop::new();
    let arguments = boots("");
    let arguments: Vec<Vec<String>> = serde_json::from_str(&arguments).unwrap();
    let mut all = vec![
        vec!["-cpu".to_owned(), "max".to_owned()],
        vec![
            "-drive".to_owned(),
            "file=output-qemu/{{user `name`}}.qcow2,if=virtio,cache=writeback,discard=ignore,format=raw".to_owned(),
        ],
        vec![
            "-drive".to_owned(),
            "file={{ .OutputDir }}/{{ .Name }}-1,if=virtio".to_owned(),
        ],
        vec![
            "-drive".to_owned(),
            "file=seed.img,if=virtio,format=raw".to_owned(),
        ],
    ];
    all.extend(arguments);
    let template = serde_json::json!({
        "variables": {"key": "{{env `BUILD_KEY`}}", "name": "web", "base": base()},
        "builders": [{
            "type": "virtualbox-iso",
            "guest_os_type": "Debian_64",
            "guest_additions_mode": "disable"
        }, {
            "type": "qemu",
            "accelerator": "tcg",
            "iso_url": "{{user `base`}}",
            "iso_checksum_type": "none",
            "disk_image": true,
            "disk_size": 200,
            "disk_additional_size": ["32M"],
            "disk_compression": true,
            "headless": true,
            "memory": 256,
            "output_directory": "output-qemu",
            "vm_name": "{{user `name`}}.qcow2",
            "qemuargs": all,
            "ssh_private_key_file": "{{user `key`}}",
            "ssh_username": "builder",
            "ssh_wait_timeout": "20m",
            "shutdown_command": "sudo poweroff"
        }],
        "provisioners": [{
            "type": "shell",
            "execute_command": "chmod +x {{.Path}}; sudo {{.Path}}",
            "scripts": ["one.sh", "{{user `name`}}/script.sh"]
        }]
    });
    workshop.write("packer.json", &template.to_string());
    workshop.write("one.sh", "#!/bin/sh\nid -u >/one\n");
    workshop.write(
        "web/script.sh",
        "#!/bin/sh\necho $PACKER_BUILD_NAME. >/two\ncat /sys/block/vdb/size >/three\n",
    );
    let key = workshop.beside("home").join("key");
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f"])
        .arg(&key)
        .status();
    assert!(status.unwrap().success());
    let status = workshop
        .qimg(&[
            "seed",
            "-f",
            "iso",
            "-o",
            "seed.img",
            "--user",
            "builder",
            "--ssh-key",
        ])
        .arg(key.with_extension("pub"))
        .output();
    assert!(status.unwrap().status.success());
    let before = std::fs::read(workshop.path("seed.img")).unwrap();

    let run = |args: &[&str]| {
        let mut all = vec!["build"];
        all.extend(args);
        all.push("packer.json");
        let mut command = workshop.qimg(&all);
        command.env("BUILD_KEY", &key);
        crate::workshop::Building::of(command)
    };
    let mut building = run(&["-color=false"]);
    building.wait_for("Provisioning with shell");
    // While it is made, a mark says that it is not whole.
    assert!(workshop.path("output-qemu/web.qcow2").exists());
    assert!(workshop.path("output-qemu/.qimg-unfinished").exists());
    assert!(!workshop.path("output-qemu/qimg-manifest.json").exists());
    let ended = building.end().well();
    ended
        .has("Ended by the shutdown command")
        .has("the build 'virtualbox-iso' is left out")
        .has("format=raw becomes format=qcow2");
    check(&workshop, "output-qemu/web.qcow2");
    let manifest: serde_json::Value =
        serde_json::from_str(&workshop.read("output-qemu/qimg-manifest.json")).unwrap();
    assert_eq!(manifest["files"][0]["name"], "web.qcow2");
    let length = workshop
        .path("output-qemu/web.qcow2")
        .metadata()
        .unwrap()
        .len();
    assert_eq!(manifest["files"][0]["size"], length);
    let info = workshop
        .qimg(&["info", "--output=json", "output-qemu/web.qcow2"])
        .output()
        .unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!(info["virtual-size"], 200 << 20);
    assert!(info["backing-filename"].is_null());
    let cat = |path| workshop.cat("output-qemu/web.qcow2", path);
    assert_eq!(cat("/one").as_deref(), Some("0\n"));
    // As with Packer, sudo drops the environment.
    assert_eq!(cat("/two").as_deref(), Some(".\n"));
    assert_eq!(cat("/three").as_deref(), Some("65536\n"));
    // The template's own key stays, as with Packer.
    assert!(cat("/home/builder/.ssh/authorized_keys").is_some());
    assert_eq!(std::fs::read(workshop.path("seed.img")).unwrap(), before);
    workshop.assert_tidy();
}
