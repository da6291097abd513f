//! Media, HTTP and restarts: what an installer is given.

use std::process::Command;

use crate::shop::{Shop, append, cache, sha256, tool};

/// A template of Packer's, of the kind that has an installer fetch its answers: a boot menu is edited, the installer
/// writes a disk and restarts, and SSH lets in by the password that a CD told it.
#[test]
fn a_packer_template_with_a_kickstart_builds_as_it_is() {
    let shop = Shop::new();
    let iso = cache().join("questions/menu.iso");
    let raw = shop.path("http/system.raw");
    shop.write(
        "http/kickstart.cfg",
        "base=${ks%/*}\nimage=$base/system.raw.gz\n",
    );
    tool(
        Command::new("qemu-img")
            .args(["convert", "-O", "raw"])
            .arg(cache().join("small.qcow2"))
            .arg(&raw),
    );
    tool(Command::new("gzip").arg("-1").arg(&raw));
    let template = serde_json::json!({
        "variables": {"password": "{{uuid}}"},
        "builders": [{
            "type": "qemu",
            "name": "kickstart",
            "iso_url": iso,
            "iso_checksum": format!("sha256:{}", sha256(&iso)),
            "disk_size": "256M",
            "format": "qcow2",
            "headless": true,
            "accelerator": "none",
            "memory": 384,
            "http_directory": "http",
            "http_port_min": 8100,
            "http_port_max": 8999,
            "cd_content": {
                "user-data": "# small.password={{user `password`}}\n",
                "meta-data": "local-hostname: kicked\n",
                "sub/dir/file": "deep"
            },
            "cd_label": "cidata",
            "boot_wait": "5s",
            "boot_command": [
                "<waitfor \"Install\" 5m><wait2>e<wait2><down><down><leftCtrlOn>e<leftCtrlOff>",
                " inst.ks=http://{{ .HTTPIP }}:{{ .HTTPPort }}/kickstart.cfg",
                "<leftCtrlOn>x<leftCtrlOff>"
            ],
            "ssh_username": "root",
            "ssh_password": "{{user `password`}}",
            "ssh_timeout": "20m",
            "shutdown_command": "/sbin/halt -p",
            "shutdown_timeout": "5m",
            "output_directory": "output",
            "vm_name": "disk.qcow2"
        }],
        "provisioners": [{
            "type": "shell",
            "inline": [
                "echo \"$PACKER_HTTP_ADDR $PACKER_HTTP_IP $PACKER_HTTP_PORT\" > /root/http",
                "hostname > /root/name",
                "wget -q -O /root/again http://$PACKER_HTTP_ADDR/kickstart.cfg",
                "wget -q -O /dev/null http://$PACKER_HTTP_ADDR/kickstrat.cfg || true",
                "mkdir -p /mnt && mount -o ro /dev/sr1 /mnt && cat /mnt/sub/dir/file > /root/deep",
                // Which busybox's own does not know.
                "rm -f /sbin/halt && printf '#!/bin/sh\\n[ \"$1\" = -p ] && exec /bin/busybox poweroff\\n' > /sbin/halt && chmod 755 /sbin/halt"
            ]
        }]
    });
    let text = serde_json::to_string_pretty(&template).unwrap();
    shop.write("kickstart.json", &text);
    shop.qimg(&["validate", "kickstart.json"]).well();
    // It has to be the same for a second build to be one.
    let cached = ["--cache-steps", "-var", "password=as-it-was-before"];
    let ended = shop.build("kickstart.json", &text, &cached).well();
    ended
        .has("Kept the state after the guest was up")
        .has("HTTP: GET /kickstart.cfg HTTP/1.1: 200")
        .has("HTTP: GET /system.raw.gz HTTP/1.1: 200")
        .has("did you mean /kickstart.cfg?")
        .has("Connected by SSH");
    let cat = |path: &str| {
        shop.qimg(&["cat", &format!("output/disk.qcow2:{path}")])
            .well()
            .said
    };
    let http = cat("/root/http");
    let words: Vec<&str> = http.split_whitespace().collect();
    assert_eq!(words[1], "10.0.2.2");
    assert_eq!(words[0], format!("10.0.2.2:{}", words[2]));
    let port: u16 = words[2].parse().unwrap();
    assert!((8100..=8999).contains(&port), "{port}");
    assert_eq!(cat("/root/name"), "kicked\n");
    assert!(cat("/root/again").contains("system.raw.gz"));
    assert_eq!(cat("/root/deep"), "deep");

    // What is installed already is not installed again for a change in the steps after it, but for one in what it was given.
    let changed = text.replace("hostname > /root/name", "hostname > /root/again");
    let ended = shop
        .build(
            "kickstart.json",
            &changed,
            &["--force", cached[0], cached[1], cached[2]],
        )
        .well();
    ended
        .has("Going on from the state after the guest was up (disk and memory)")
        .has_not("HTTP: GET /system.raw.gz")
        .has_not("It is on the screen");
    assert_eq!(cat("/root/deep"), "deep");
    assert!(
        shop.qimg(&["ls", "output/disk.qcow2:/root"])
            .well()
            .said
            .contains("again")
    );
}

/// What is on the media is what other tools read there.
#[test]
fn media_are_made_of_files_directories_and_contents() {
    let shop = Shop::new();
    shop.write("files/kept/one.txt", "1");
    shop.write("files/kept/deep/two.txt", "2");
    shop.write("files/flat/Three Words.TXT", "3");
    shop.write("files/flat/sub/four", "4");
    shop.write("files/big", vec![7; 3 << 20]);
    let at = cache();
    let text = format!(
        "name = \"media\"\n[boot]\nkernel = {:?}\ninitrd = {:?}\nappend = \"{} small.ssh=off\"\n\
         [cd]\nfiles = [\"files/kept\", \"files/flat/*\", \"files/big\"]\nlabel = \"AUTOINSTALL_CONFIG1\"\n\
         content = {{ \"/big\" = \"content wins\", \"x/y\" = \"z\" }}\n\
         [floppy]\nfiles = [\"files/kept\", \"files/flat/T*\"]\ndirectories = [\"files/kept\", \"files/flat/\"]\nlabel = \"FLOP\"\n\
         content = {{ \"autounattend.xml\" = \"<a/>\" }}\n\
         [disk]\nsize = \"16M\"\n[machine]\naccelerator = \"tcg\"\nmemory = \"256M\"\n\
         [ssh]\ncommunicator = \"none\"\n[shutdown]\ntimeout = \"1s\"\n[output]\ndirectory = \"output\"\n",
        at.join("small/vmlinux"),
        at.join("small/initrd"),
        append(),
    );
    let plan = {
        shop.write("media.toml", &text);
        shop.qimg(&["build", "--plan", "media.toml"]).well()
    };
    plan.has("make a CD of the template's files")
        .has("make a floppy disk of the template's files");
    // It does not power off, so all its files stay.
    let ended = shop.build("media.toml", &text, &["-on-error=abort"]);
    assert_eq!(ended.code, 2, "{}", ended.said);
    let work = shop.path(".output.qimg-work");
    let iso = work.join("files.iso");
    let list = |options: &[&str]| {
        tool(
            Command::new("isoinfo")
                .args(options)
                .arg("-f")
                .arg("-i")
                .arg(&iso),
        )
    };
    for options in [&["-R"][..], &["-J"]] {
        let mut names: Vec<String> = list(options).lines().map(str::to_owned).collect();
        names.sort();
        assert_eq!(
            names,
            [
                "/Three Words.TXT",
                "/big",
                "/kept",
                "/kept/deep",
                "/kept/deep/two.txt",
                "/kept/one.txt",
                "/sub",
                "/sub/four",
                "/x",
                "/x/y"
            ],
            "{options:?}"
        );
    }
    let file = |name: &str| {
        tool(
            Command::new("isoinfo")
                .args(["-R", "-x", name, "-i"])
                .arg(&iso),
        )
    };
    assert_eq!(file("/kept/deep/two.txt"), "2");
    assert_eq!(file("/big"), "content wins");
    assert!(
        tool(Command::new("isoinfo").args(["-d", "-i"]).arg(&iso))
            .contains("Volume id: AUTOINSTALL_CONFIG1")
    );
    // As udev finds it.
    let label = tool(
        Command::new("blkid")
            .args(["-p", "-s", "LABEL", "-o", "value"])
            .arg(&iso),
    );
    assert_eq!(label, "AUTOINSTALL_CONFIG1\n");
    // xorriso complains of what is not as it should be.
    let said = Command::new("xorriso")
        .args(["-abort_on", "WARNING", "-indev"])
        .arg(&iso)
        .args(["-find", "/", "-exec", "lsdl"])
        .output()
        .unwrap();
    assert!(
        said.status.success(),
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );

    let floppy = work.join("floppy.img");
    assert_eq!(std::fs::metadata(&floppy).unwrap().len(), 1_474_560);
    let dir = tool(
        Command::new("mdir")
            .args(["-b", "-/", "-i"])
            .arg(&floppy)
            .arg("::"),
    );
    let mut names: Vec<&str> = dir
        .lines()
        .map(|line| line.trim_start_matches("::/"))
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "Three Words.TXT",
            "autounattend.xml",
            "kept/",
            "kept/deep/",
            "kept/deep/two.txt",
            "kept/one.txt",
            "one.txt",
            "sub/",
            "sub/four"
        ]
    );
    let text = |name: &str| tool(Command::new("mtype").arg("-i").arg(&floppy).arg(name));
    assert_eq!(text("::kept/deep/two.txt"), "2");
    assert_eq!(text("::autounattend.xml"), "<a/>");
    let checked = tool(Command::new("fsck.fat").args(["-n", "-v"]).arg(&floppy));
    assert!(
        checked.contains("FAT12") || checked.contains("12 bit"),
        "{checked}"
    );
    assert!(
        checked.contains("0xf0") || checked.contains("Media byte 0xf0"),
        "{checked}"
    );
}

#[test]
fn a_floppy_disk_that_is_too_small_is_told() {
    let shop = Shop::new();
    shop.write("big", vec![1; 2 << 20]);
    let text = "name = \"full\"\n[base]\niso = \"big\"\nchecksum = \"none\"\n[floppy]\nfiles = [\"big\"]\n[disk]\nsize = \"16M\"\n\
                [ssh]\ncommunicator = \"none\"\n";
    let ended = shop.build("full.toml", text, &[]);
    assert_eq!(ended.code, 1, "{}", ended.said);
    ended.has("the floppy disk cannot be made").has("cd_files");
}

/// A seed over HTTP reaches a guest that is told its address by SMBIOS.
#[test]
fn a_seed_is_served_where_the_smbios_says() {
    let shop = Shop::new();
    let at = cache();
    let text = format!(
        "name = \"served\"\n[seed]\nhttp = true\nuser-data = \"#cloud-config\\nhostname: served\\n\"\n\
         [boot]\nkernel = {:?}\ninitrd = {:?}\nappend = \"{} small.ssh=off\"\n[disk]\nsize = \"16M\"\n\
         [machine]\naccelerator = \"tcg\"\nmemory = \"256M\"\n\
         [ssh]\ncommunicator = \"none\"\n[shutdown]\ntimeout = \"1s\"\n[output]\ndirectory = \"output\"\n",
        at.join("small/vmlinux"),
        at.join("small/initrd"),
        append(),
    );
    shop.write("served.toml", &text);
    shop.qimg(&["validate", "served.toml"]).well();
    let ended = shop.build("served.toml", &text, &[]);
    assert_eq!(ended.code, 2, "{}", ended.said);
}
