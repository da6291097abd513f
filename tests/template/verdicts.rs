//! What `packer validate` takes and refuses.

use super::{Bench, load};

/// Replaces `@` by a builder that is complete, `#` by a checksum.
fn template(text: &str) -> String {
    let builder = super::builder("");
    text.replace('@', &builder).replace('#', &"0".repeat(64))
}

/// Options of the builder, one a line; those that begin with `-` take the place of what stands there otherwise.
const OPTIONS: &str = r#"
"headless": 1
"headless": "true"
"headless": "yes"
"headless": ""
"headless": [true]
"memory": "512"
"memory": 512.5
"memory": "x"
"memory": "0x200"
"cpus": ""
"cpus": true
"cpus": null
"floppy_files": "a.sh"
"floppy_files": {}
"boot_command": "foo"
"boot_wait": "5"
"boot_wait": "5s"
"boot_wait": "-1s"
"boot_wait": ""
"boot_wait": 5000000000
"ssh_timeout": "1h30m"
"ssh_timeout": "abc"
"disk_size": 3000
"disk_size": "3000"
"disk_size": "3G"
"disk_size": "3g"
"disk_size": "3b"
"disk_size": "3GB"
"disk_size": 3000.5
"disk_size": "1.5G"
"disk_size": ""
"disk_size": "G"
"ISO_URL": "y.qcow2"
"Headless": true
"qemuargs": [["-m", 512]]
"qemuargs": [["-m", "512"], ["-nographic"]]
"qemuargs": [[]]
"qemuargs": ["-m"]
"qemuargs": "-m"
"qemuargs": {"a": "b"}
"accelerator": "foo"
"accelerator": "tcg"
"format": "vdi"
"format": "raw"
"disk_interface": "foo"
"disk_interface": "virtio-scsi"
"disk_cache": "x"
"disk_discard": "x"
"disk_detect_zeroes": "on"
"net_device": "e1000"
"vnc_port_min": 6000, "vnc_port_max": 5900
"host_port_min": 5, "host_port_max": 1
"http_port_min": 9, "http_port_max": 1
"communicator": "none"
"communicator": "x"
"ssh_port": "22"
"ssh_private_key_file": "nope"
"ssh_handshake_attempts": "20"
"ssh_keep_alive_interval": "-1s"
"ssh_agent_auth": true
"iso_urls": ["a"]
"iso_checksum": "abc"
"iso_checksum": "sha256:abc"
"iso_checksum": "sha256:#"
"iso_checksum": "foo:#"
"iso_checksum": ""
"iso_checksum": "none"
"use_backing_file": true
"use_backing_file": true, "disk_image": false
"use_backing_file": true, "format": "raw"
"skip_resize_disk": true
"skip_resize_disk": true, "disk_image": false
"disk_compression": "true"
"skip_compaction": true
"boot_key_interval": "10ms"
"boot_keygroup_interval": "1s"
"disk_additional_size": ["1G"]
"disk_additional_size": "1G"
"disk_additional_size": [1000]
"bogus": 1
"disk_sizee": 1
"name": "a b"
"boot_command": ["<wait0s>"]
"boot_command": ["<wait-1s>"]
"boot_command": ["<wait0>"]
"boot_command": ["<foo>"]
"boot_command": ["{{.Foo}}"]
"boot_command": ["{{nofn}}"]
"boot_command": ["{{"]
"disable_vnc": true, "boot_command": ["a"]
"disable_vnc": true
"shutdown_command": "{{user `zz`}}x"
"shutdown_timeout": "5m"
"vm_name": "{{nofn}}"
"vm_name": "{{env `HOME`}}"
"vm_name": "{{build `ID`}}"
"vm_name": "{{build_name}}-{{build_type}}-{{upper `a`}}"
"output_directory": "out-{{isotime `2006`}}"
"output_directory": "{{user `a`"
"iso_url": ""
"iso_url": [1]
"ssh_username": ""
"ssh_username": 5
"ssh_bastion_host": "b", "ssh_bastion_username": "u", "ssh_bastion_password": "p"
"ssh_file_transfer_method": "sftp"
"ssh_file_transfer_method": "ftp"
"ssh_pty": true
"ssh_clear_authorized_keys": true
"ssh_disable_agent_forwarding": true
"pause_before_connecting": "1m"
"http_directory": "."
"cd_label": "cidata"
"floppy_dirs": ["."]
"machine_type": "q35"
"cdrom_interface": "ide"
"qemu_binary": "qemu-system-x86_64"
"use_default_display": true
"display": "none"
"vnc_bind_address": "0.0.0.0"
"vnc_use_password": true
"qmp_enable": true
"net_bridge": "br0"
"skip_nat_mapping": true
"qemu_img_args": {"convert": ["-o", "x"]}
"ssh_host": "h"
"ssh_certificate_file": ""
"temporary_key_pair_name": "x"
"#;

/// Whole templates, one a line.
const TEMPLATES: &str = r##"
{"builders": [@]}
{"builders": [@], "bogus": 1}
{"builders": [@], "_c": "x"}
{"builders": [@], "description": "x"}
{"builders": [@], "description": 5}
{"builders": [@], "min_packer_version": "1.0"}
{"builders": [@], "min_packer_version": "x"}
{"builders": [@], "variables": []}
{"builders": [@], "variables": {"a": "b"}}
{"builders": [@], "variables": {"a": 1}}
{"builders": [@], "variables": {"a": true}}
{"builders": [@], "variables": {"a": null}}
{"builders": [@], "variables": {"a": ["x"]}}
{"builders": [@], "variables": {"a": "{{user `a`}}"}}
{"builders": [@], "variables": {"a": "{{user `b`}}", "b": "{{user `a`}}"}}
{"builders": [@], "variables": {"a": "{{user `b`}}", "b": "{{user `c`}}", "c": "x"}}
{"builders": [@], "variables": {"a": "{{user `b`}}"}}
{"builders": [@], "variables": {"a": "{{env `NOPE`}}{{uuid}}{{timestamp}}{{pwd}}{{template_dir}}"}}
{"builders": [@], "variables": {"a": "{{build_name}}"}}
{"builders": [@], "variables": {"a": "{{nofn}}"}}
{"builders": [@], "variables": {"a": "{{"}}
{"builders": [@], "variables": {"a": "{{ .Vars }} x"}}
{"builders": [@], "sensitive-variables": ["a"]}
{"builders": [@], "sensitive-variables": "a"}
{"Builders": [@]}
{}
{"builders": []}
[]
{
{"builders": [@]} x
{"builders": [@], "builders": [@]}
{"builders": [{"type": "qemu", "type": "qemu"}]}
{"builders": [@] /* x */}
{"builders": [@],}
{"builders": @}
{"builders": [{"a": 1}]}
{"builders": [@, @]}
{"builders": [{"type": "nope"}]}
{"builders": ["a"]}
{"builders": [@], "provisioners": {"type": "sleep"}}
{"builders": [@], "provisioners": ["a"]}
{"builders": [@], "provisioners": [{}]}
{"builders": [@], "provisioners": [{"type": "shell"}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "script": "s.sh"}]}
{"builders": [@], "provisioners": [{"type": "shell", "script": "s.sh", "scripts": ["s.sh"]}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": "a"}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": []}]}
{"builders": [@], "provisioners": [{"type": "shell", "script": "nope.sh"}]}
{"builders": [@], "provisioners": [{"type": "shell", "script": ""}]}
{"builders": [@], "provisioners": [{"type": "shell", "scripts": "s.sh"}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "environment_vars": "A=b"}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "environment_vars": ["A"]}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "environment_vars": ["=b"]}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "environment_vars": ["A="]}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "bogus": 1}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "execute_command": "{{.Foo}}"}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "execute_command": "{{nofn}}"}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "pause_before": "5s"}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "pause_before": "5"}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "timeout": "x"}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "max_retries": "3"}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "max_retries": -1}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "only": ["nope"]}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "only": "qemu"}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "except": ["nope"]}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "only": ["qemu"], "except": ["qemu"]}]}
{"builders": [@], "provisioners": [{"type": "shell", "override": {"qemu": {"inline": ["a"]}}}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "override": {"nope": {"inline": ["a"]}}}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "override": {"qemu": {"script": "s.sh"}}}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "override": {"qemu": 3}}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "valid_exit_codes": [0, "1"]}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "valid_exit_codes": 3}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "expect_disconnect": "true"}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["a"], "start_retry_timeout": "1m"}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["{{build `ID`}}"]}]}
{"builders": [@], "provisioners": [{"type": "shell", "inline": ["{{build_name}} {{user `x`}}"]}]}
{"builders": [@], "provisioners": [{"type": "file"}]}
{"builders": [@], "provisioners": [{"type": "file", "source": "s.sh"}]}
{"builders": [@], "provisioners": [{"type": "file", "source": "s.sh", "destination": "/a"}]}
{"builders": [@], "provisioners": [{"type": "file", "source": "nope", "destination": "/a"}]}
{"builders": [@], "provisioners": [{"type": "file", "source": "nope", "destination": "/a", "generated": true}]}
{"builders": [@], "provisioners": [{"type": "file", "source": "nope", "destination": "/a", "direction": "download"}]}
{"builders": [@], "provisioners": [{"type": "file", "source": "s.sh", "destination": "/a", "direction": "x"}]}
{"builders": [@], "provisioners": [{"type": "file", "sources": ["s.sh"], "source": "s.sh", "destination": "/a"}]}
{"builders": [@], "provisioners": [{"type": "sleep", "duration": "1s"}]}
{"builders": [@], "provisioners": [{"type": "sleep"}]}
{"builders": [@], "provisioners": [{"type": "breakpoint"}]}
{"builders": [@], "provisioners": [{"type": "breakpoint", "note": "x", "disable": true}]}
{"builders": [@], "provisioners": [{"type": "shell-local"}]}
{"builders": [@], "provisioners": [{"type": "shell-local", "command": "a"}]}
{"builders": [@], "provisioners": [{"type": "shell-local", "inline": ["a"], "command": "b"}]}
{"builders": [@], "provisioners": [{"type": "shell-local", "inline": ["a"], "execute_command": ["a", "{{.Script}}"]}]}
{"builders": [@], "provisioners": [{"type": "shell-local", "inline": ["a"], "only_on": ["linux"]}]}
{"builders": [@], "provisioners": [{"type": "shell-local", "inline": ["a"], "only_on": ["nope"]}]}
{"builders": [@], "error-cleanup-provisioner": {"type": "shell", "inline": ["a"]}}
{"builders": [@], "error-cleanup-provisioner": {"type": "shell"}}
{"builders": [@], "post-processors": ["compress"]}
{"builders": [@], "post-processors": "compress"}
{"builders": [@], "post-processors": [["compress", {"type": "checksum"}]]}
{"builders": [@], "post-processors": [[[]]]}
{"builders": [@], "post-processors": [3]}
{"builders": [@], "post-processors": [{"type": "checksum", "checksum_types": ["nope"]}]}
{"builders": [@], "post-processors": [{"type": "checksum", "checksum_types": "md5"}]}
{"builders": [@], "post-processors": [{"type": "compress", "output": "{{.Foo}}"}]}
{"builders": [@], "post-processors": [{"type": "vagrant", "output": "{{.Provider}}-{{.ArtifactId}}-{{.BuildName}}"}]}
{"builders": [@], "post-processors": [{"type": "vagrant", "override": {"libvirt": {"compression_level": 1}, "virtualbox": {"compression_level": 0}}}]}
{"builders": [@], "post-processors": ["vagrant"]}
{"builders": [@], "post-processors": [{"type": "vagrant", "override": 3}]}
{"builders": [@], "post-processors": [{"type": "vagrant", "provider_override": "libvirt"}]}
{"builders": [@], "post-processors": [{"type": "vagrant", "vagrantfile_template_generated": true}]}
{"builders": [@], "provisioners": [{"type": "shell-local", "inline": ["a"], "use_linux_pathing": false}]}
{"builders": [@], "post-processors": [{"type": "manifest", "custom_data": {"a": 1}}]}
{"builders": [@], "post-processors": [{"type": "manifest", "bogus": 1}]}
{"builders": [@], "post-processors": [{"type": "artifice"}]}
{"builders": [@], "post-processors": [{"type": "artifice", "files": ["a"]}]}
{"builders": [@], "post-processors": [{"type": "shell-local", "inline": ["a"]}]}
{"builders": [@], "post-processors": [{"type": "compress", "keep_input_artifact": "true"}]}
{"builders": [@], "post-processors": [{"type": "compress", "only": ["nope"]}]}
{"builders": [@], "post-processors": [{"type": "compress", "name": "x"}, {"type": "compress", "name": "x"}]}
"##;

/// What differs, on purpose: a part of the line, what is said here (nothing: it is taken), and why.
const EXCEPTIONS: &[(&str, Option<&str>, &str)] = &[
    ("\"nope\"}]}", None, "an unknown builder"),
    (
        "\"net_bridge\": \"br0\"",
        None,
        "whether a bridge is there is seen when the machine starts",
    ),
    ("\"_c\": 1", None, "a comment may be anything"),
    (
        "\"output\": \"{{.Foo}}\"",
        Some("there is no .Foo here"),
        "Packer fails by it when the image is made",
    ),
];

fn judge(bench: &Bench, text: &str) -> (bool, bool, String) {
    bench.file("t.json", text);
    let said = load(&bench.request("t.json")).and_then(|loaded| loaded.usable());
    let output = bench.packer(&["validate", "t.json"], "");
    let packer = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let ours = said
        .as_ref()
        .err()
        .map_or("taken".to_owned(), ToString::to_string);
    (
        said.is_ok(),
        output.status.success(),
        format!("{ours}\n    Packer: {}", packer.trim().replace('\n', " ")),
    )
}

fn compare(lines: &[String]) {
    let half = lines.len() / 2;
    let judge_all = |lines: &[String]| -> Vec<String> {
        let bench = Bench::new();
        for name in ["s.sh", "a.sh", "base.qcow2"] {
            bench.file(name, "#!/bin/sh\n");
        }
        let mut wrong = Vec::new();
        for line in lines {
            let (ours, theirs, said) = judge(&bench, line);
            let known = EXCEPTIONS.iter().find(|(part, ..)| line.contains(part));
            if ours != theirs && known.is_none() {
                wrong.push(format!("{line}\n    {said}"));
            }
        }
        wrong
    };
    let wrong = std::thread::scope(|scope| {
        let thread = scope.spawn(|| judge_all(&lines[..half]));
        let mut wrong = judge_all(&lines[half..]);
        wrong.extend(thread.join().unwrap());
        wrong
    });
    assert!(
        wrong.is_empty(),
        "{} verdicts differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn options_of_the_builder_are_judged_as_packer_judges_them() {
    let lines = OPTIONS.lines().filter(|line| !line.is_empty());
    let templates: Vec<String> = lines
        .map(|line| {
            // An option that the complete builder has takes its place.
            let object: serde_json::Value =
                serde_json::from_str(&format!("{{{}}}", template(line))).unwrap();
            let mut builder: serde_json::Value = serde_json::from_str(&super::builder("")).unwrap();
            for (key, value) in object.as_object().unwrap() {
                builder[key] = value.clone();
            }
            format!("{{\"builders\": [{builder}]}}")
        })
        .collect();
    assert!(templates.len() > 100);
    compare(&templates);
}

#[test]
fn whole_templates_are_judged_as_packer_judges_them() {
    let lines = TEMPLATES.lines().filter(|line| !line.is_empty());
    compare(&lines.map(template).collect::<Vec<_>>());
}

#[test]
fn variables_from_outside_are_judged_as_packer_judges_them() {
    let bench = Bench::new();
    bench.file("base.qcow2", "");
    let text = template(
        r#"{"variables": {"a": null, "b": "{{user `a`}}!"}, "builders": [@], "provisioners": [{"type": "shell", "inline": "{{user `b`}}"}]}"#,
    );
    bench.file("t.json", &text);
    for (files, variables) in [
        (vec![], vec![]),
        (vec![], vec!["a=1"]),
        (vec![], vec!["a="]),
        (vec![], vec!["a=1", "zz=2"]),
        (vec![r#"{"a": "1"}"#], vec![]),
        (vec![r#"{"a": 1}"#], vec![]),
        (vec![r#"{"a": null}"#], vec![]),
        (vec![r#"["a"]"#], vec![]),
        (vec!["{"], vec![]),
        (vec![r#"{"b": "1"}"#], vec![]),
        (vec![], vec!["a={{nofn}}"]),
        (vec![], vec!["a={{upper `x`}}"]),
    ] {
        let mut arguments = vec!["validate".to_owned()];
        let mut request = bench.request("t.json");
        for (number, file) in files.iter().enumerate() {
            let name = format!("v{number}.json");
            bench.file(&name, file);
            arguments.push(format!("-var-file={name}"));
            request.var_files.push(super::var_file(&name, file));
        }
        for variable in &variables {
            arguments.extend(["-var".to_owned(), (*variable).to_owned()]);
            let (name, value) = variable.split_once('=').unwrap();
            request.variables.push((name.to_owned(), value.to_owned()));
        }
        arguments.push("t.json".to_owned());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let theirs = bench.packer(&arguments, "").status.success();
        let ours = load(&request).and_then(|loaded| loaded.usable());
        assert_eq!(ours.is_ok(), theirs, "{files:?} {variables:?}: {ours:?}");
    }
}
