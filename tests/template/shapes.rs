//! Templates as people have them, unchanged.

use std::time::Duration;

use qimg::template::check::Severity;
use qimg::template::late::Late;
use qimg::template::load;
use qimg::template::model::{Action, Codec, Dialect, Scripts};

use super::{Bench, inline, text};

const CLOUD_IMAGE: &str = r#"{
    "variables": {
        "image_url": "https://cloud.example/debian-12-generic-amd64.qcow2",
        "image_checksum_url": "https://cloud.example/SHA256SUMS",
        "image_name": "debian",
        "ssh_key": "{{env `SSH_KEY`}}"
    },
    "builders": [{
        "type": "qemu",
        "vm_name": "{{user `image_name`}}.qcow2",
        "qemuargs": [
            ["-cpu", "host"],
            ["-drive", "file=output-qemu/{{user `image_name`}}.qcow2,if=virtio,cache=writeback,discard=ignore,format=qcow2"],
            ["-drive", "file=seed.img,if=virtio,format=raw"]
        ],
        "disk_image": true,
        "disk_size": 3000,
        "disk_compression": true,
        "iso_url": "{{user `image_url`}}",
        "iso_checksum_url": "{{user `image_checksum_url`}}",
        "iso_checksum_type": "sha256",
        "ssh_private_key_file": "{{user `ssh_key`}}",
        "ssh_username": "debian",
        "shutdown_command": "sudo shutdown -P now"
    }],
    "provisioners": [{
        "type": "shell",
        "execute_command": "chmod +x {{.Path}}; sudo {{.Path}}",
        "scripts": ["scripts/update.sh", "scripts/packages.sh", "{{user `image_name`}}/script.sh", "scripts/cleanup.sh"]
    }]
}"#;

#[test]
fn a_cloud_image_template_loads_as_it_is() {
    let bench = Bench::new();
    for name in [
        "scripts/update.sh",
        "scripts/packages.sh",
        "debian/script.sh",
        "scripts/cleanup.sh",
    ] {
        bench.file(name, "#!/bin/sh\n");
    }
    bench.file("key", "-----BEGIN OPENSSH PRIVATE KEY-----\n");
    bench.file("template.json", CLOUD_IMAGE);
    let mut request = bench.request("template.json");
    request
        .environment
        .insert("SSH_KEY".to_owned(), "key".to_owned());
    let loaded = load(&request).unwrap();
    assert_eq!(loaded.findings, [], "no trap in it");
    assert_eq!(loaded.template.dialect, Dialect::Packer);
    let build = &loaded.template.builds[0];
    assert_eq!(build.name, "qemu");
    assert_eq!(
        build.base.urls,
        ["https://cloud.example/debian-12-generic-amd64.qcow2"]
    );
    assert_eq!(build.base.checksum, "file:https://cloud.example/SHA256SUMS");
    assert!(build.base.is_disk);
    assert_eq!(build.disk.size, Some(3000 << 20));
    assert_eq!(
        (build.output.codec, build.output.compact),
        (Codec::Zlib, true)
    );
    assert_eq!(build.output.directory.to_str(), Some("output-qemu"));
    assert_eq!(build.output.name, "debian.qcow2");
    let arguments: Vec<String> = build
        .machine
        .qemu_args
        .iter()
        .map(|(switch, values)| format!("{} {}", text(switch), text(&values[0])))
        .collect();
    assert_eq!(
        arguments,
        [
            "-cpu host",
            "-drive file=output-qemu/debian.qcow2,if=virtio,cache=writeback,discard=ignore,format=qcow2",
            "-drive file=seed.img,if=virtio,format=raw"
        ]
    );
    assert_eq!(
        (
            build.machine.memory_mib,
            build.machine.cpus,
            build.machine.headless
        ),
        (512, 1, false)
    );
    assert_eq!(
        (build.disk.cache.as_str(), build.disk.discard.as_str()),
        ("unsafe", "ignore")
    );
    let ssh = build.communicator.as_ref().unwrap();
    assert_eq!(ssh.private_key.as_ref().unwrap().to_str(), Some("key"));
    assert_eq!(
        (ssh.timeout, ssh.attempts, ssh.forward_agent),
        (None, Some(10), false)
    );
    assert_eq!(ssh.keep_alive, Some(Duration::from_secs(5)));
    assert_eq!(text(&build.shutdown.command), "sudo shutdown -P now");
    assert_eq!(build.seal.steps, [""; 0]);
    let Action::Shell(shell) = &build.provisioners[0].action else {
        panic!("{:?}", build.provisioners[0])
    };
    assert_eq!(build.provisioners[0].line, 26);
    let Scripts::Files(files) = &shell.scripts else {
        panic!("{shell:?}")
    };
    let files: Vec<String> = files.iter().map(text).collect();
    assert_eq!(
        files,
        [
            "scripts/update.sh",
            "scripts/packages.sh",
            "debian/script.sh",
            "scripts/cleanup.sh"
        ]
    );
    let late = Late::of([
        ("Path", "/tmp/script_1.sh"),
        ("Vars", "A='b'"),
        ("EnvVarFile", ""),
    ]);
    assert_eq!(
        late.render(&shell.execute_command).unwrap(),
        "chmod +x /tmp/script_1.sh; sudo /tmp/script_1.sh"
    );
}

#[test]
fn a_missing_key_is_said_with_its_place() {
    let bench = Bench::new();
    for name in [
        "scripts/update.sh",
        "scripts/packages.sh",
        "scripts/cleanup.sh",
    ] {
        bench.file(name, "#!/bin/sh\n");
    }
    bench.file("template.json", CLOUD_IMAGE);
    let mut request = bench.request("template.json");
    request
        .environment
        .insert("SSH_KEY".to_owned(), "nowhere".to_owned());
    let loaded = load(&request).unwrap();
    let said: Vec<String> = loaded
        .findings
        .iter()
        .map(|f| format!("{}:{} {}", f.line, f.column, f.message))
        .collect();
    assert_eq!(
        said,
        [
            "22:33 build 'qemu': ssh_private_key_file: there is no file 'nowhere'",
            "29:65 provisioner 1: there is no script 'debian/script.sh'"
        ]
    );
    assert!(
        loaded
            .findings
            .iter()
            .all(|finding| finding.severity == Severity::Error)
    );
    assert!(loaded.usable().unwrap_err().to_string().contains("line 22"));
}

#[test]
fn an_installer_that_asks_question_after_question_loads_as_it_is() {
    let bench = Bench::new();
    let template = r#"{
        "_comment": "an installation by questions and answers",
        "variables": {"ssh_password": "{{uuid}}", "version": "6.5"},
        "builders": [{
            "type": "qemu", "name": "openbsd-{{user `version`}}",
            "iso_url": "https://cdn.example/{{user `version`}}/amd64/install{{split (user `version`) \".\" 0}}{{split (user `version`) \".\" 1}}.iso",
            "iso_checksum_url": "https://cdn.example/{{user `version`}}/amd64/SHA256",
            "iso_checksum_type": "sha256",
            "vm_name": "openbsd.qcow2",
            "disk_size": 10240, "format": "qcow2", "headless": true, "use_default_display": true,
            "vnc_port_min": 5910, "vnc_port_max": 5910,
            "ssh_username": "root", "ssh_password": "{{user `ssh_password`}}", "ssh_wait_timeout": "20m",
            "boot_wait": "30s",
            "boot_command": ["i<enter><wait>", "us<enter><wait>", "{{user `ssh_password`}}<enter><wait>",
                "{{user `ssh_password`}}<enter><wait5>", "<leftCtrlOn>d<leftCtrlOff>", "http://{{ .HTTPIP }}:{{ .HTTPPort }}/x<enter>"],
            "qemuargs": [["-fda", "seed.img"]],
            "shutdown_command": "/sbin/halt -p"
        }]
    }"#;
    let build = bench.build("openbsd.json", template);
    let password = "6553f100-0707-0707-0707-070707070707";
    assert_eq!(build.name, "openbsd-6.5");
    assert_eq!(
        build.base.urls,
        ["https://cdn.example/6.5/amd64/install65.iso"]
    );
    assert!(!build.base.is_disk);
    assert_eq!(build.disk.size, Some(10240 << 20));
    assert_eq!(build.boot.wait, Some(Duration::from_secs(30)));
    assert_eq!(build.boot.steps.len(), 1);
    let late = Late::of([("HTTPIP", "10.0.2.2"), ("HTTPPort", "8100")]);
    assert_eq!(
        late.render(&build.boot.steps[0].0).unwrap(),
        format!(
            "i<enter><wait>us<enter><wait>{password}<enter><wait>{password}<enter><wait5><leftCtrlOn>d<leftCtrlOff>http://10.0.2.2:8100/x<enter>"
        )
    );
    assert_eq!(build.output.directory.to_str(), Some("output-openbsd-6.5"));
    let ssh = build.communicator.unwrap();
    assert_eq!(
        (ssh.timeout, ssh.attempts),
        (Some(Duration::from_secs(1200)), None)
    );
    assert_eq!(ssh.password.as_deref(), Some(password));
    assert_eq!(build.machine.vnc.unwrap().ports, (5910, 5910));
    let loaded = bench.load("openbsd.json", template).unwrap();
    assert_eq!(loaded.template.secrets, [password]);
    assert_eq!(loaded.findings, []);
}

#[test]
fn a_kickstart_installer_loads_as_it_is() {
    let bench = Bench::new();
    bench.file("http/kickstart.cfg", "");
    let template = r#"{
        "builders": [{
            "type": "qemu", "iso_url": "file:///srv/install.iso", "iso_checksum": "md5:0123456789abcdef0123456789abcdef",
            "http_directory": "http", "http_port_min": 8100, "boot_wait": "5s",
            "boot_command": ["<leftCtrlOn>e<leftCtrlOff>", "<down><down><end> inst.ks=http://{{ .HTTPIP }}:{{ .HTTPPort }}/kickstart.cfg", "<leftCtrlOn>x<leftCtrlOff>"],
            "qemuargs": [
                ["-drive", "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE.fd"],
                ["-drive", "if=pflash,format=raw,unit=1,file=/usr/share/OVMF/OVMF_VARS.fd"],
                ["-drive", "file={{ .OutputDir }}/{{ .Name }},if=virtio,format=qcow2"],
                ["-cdrom", "install.iso"]
            ],
            "ssh_username": "root", "ssh_password": "kickstart", "communicator": "ssh", "shutdown_command": "poweroff"
        }],
        "provisioners": [{"type": "shell", "inline": ["echo {{build_name}} {{build_type}} {{isotime `2006`}} {{build `PackerRunUUID`}}"]}]
    }"#;
    let loaded = bench.load("ks.json", template).unwrap();
    assert_eq!(loaded.findings, []);
    let build = &loaded.template.builds[0];
    assert_eq!(build.media.http_ports, Some((8100, 9000)));
    let late = Late::of([("OutputDir", "output-qemu"), ("Name", "packer-qemu")]);
    assert_eq!(
        late.render(&build.machine.qemu_args[2].1[0]).unwrap(),
        "file=output-qemu/packer-qemu,if=virtio,format=qcow2"
    );
    let Action::Shell(shell) = &build.provisioners[0].action else {
        panic!()
    };
    let Scripts::Inline(lines) = &shell.scripts else {
        panic!()
    };
    assert_eq!(
        lines[0].0,
        "echo qemu qemu 2023 {{build \"PackerRunUUID\"}}"
    );
    let mut late = Late::default();
    assert!(
        late.render(&lines[0])
            .unwrap_err()
            .to_string()
            .contains("PackerRunUUID")
    );
    late.build
        .insert("PackerRunUUID".to_owned(), "1-2-3".to_owned());
    assert_eq!(late.render(&lines[0]).unwrap(), "echo qemu qemu 2023 1-2-3");
}

#[test]
fn several_builds_share_steps_but_for_what_they_override() {
    let bench = Bench::new();
    let template = format!(
        r#"{{"builders": [{}, {}],
        "provisioners": [
            {{"type": "shell", "inline": ["echo {{{{build_name}}}}"], "override": {{"b": {{"inline": "echo other", "pause_before": "3s"}}}}}},
            {{"type": "shell", "inline": "only a", "only": ["a"]}},
            {{"type": "sleep", "duration": "2s", "except": "a"}},
            {{"type": "my-own", "x": [1, {{"y": "{{{{user `z`}}}}-{{{{build_name}}}}"}}]}}],
        "variables": {{"z": "zz"}},
        "error-cleanup-provisioner": {{"type": "shell-local", "command": "collect"}},
        "post-processors": ["checksum", [{{"type": "compress", "output": "{{{{.BuildName}}}}.gz", "keep_input_artifact": true}}, {{"type": "manifest", "name": "list"}}]]}}"#,
        super::builder(r#""name": "a","#),
        super::builder(r#""name": "b", "disk_size": "4g", "#),
    );
    let loaded = bench.load("two.json", &template).unwrap();
    let [a, b] = loaded.template.builds.as_slice() else {
        panic!()
    };
    let lines =
        |build: &qimg::template::model::Build, at: usize| match &build.provisioners[at].action {
            Action::Shell(shell) => inline(&shell.scripts),
            other => panic!("{other:?}"),
        };
    assert_eq!((a.provisioners.len(), b.provisioners.len()), (3, 3));
    assert_eq!(
        (lines(a, 0), lines(b, 0)),
        (vec!["echo a".to_owned()], vec!["echo other".to_owned()])
    );
    assert_eq!(b.provisioners[0].pause_before, Duration::from_secs(3));
    assert_eq!(lines(a, 1), ["only a"]);
    assert_eq!(
        b.provisioners[1].action,
        Action::Sleep(Duration::from_secs(2))
    );
    assert_eq!(
        a.provisioners[2].action,
        Action::Custom {
            name: "my-own".to_owned(),
            options: r#"{"x":[1,{"y":"zz-a"}]}"#.to_owned()
        }
    );
    assert_eq!(b.disk.size, Some(4 << 30));
    assert!(matches!(
        &a.cleanup.as_ref().unwrap().action,
        Action::ShellLocal(_)
    ));
    let names: Vec<Vec<&str>> = a
        .post_processors
        .iter()
        .map(|chain| chain.iter().map(|post| post.name.as_str()).collect())
        .collect();
    assert_eq!(names, [vec!["checksum"], vec!["compress", "list"]]);
    assert_eq!(a.post_processors[1][0].keep_input, Some(true));

    let mut request = bench.request("two.json");
    request.only = vec!["b".to_owned()];
    request.except = vec!["compress".to_owned()];
    let loaded = load(&request).unwrap();
    assert_eq!(loaded.template.builds.len(), 1);
    assert_eq!(
        loaded.template.builds[0].post_processors.len(),
        1,
        "what is left out takes the rest of its chain along"
    );
    request.only = vec!["c".to_owned()];
    let error = load(&request).unwrap_err();
    assert!(error.to_string().contains("-only names 'c'"), "{error}");
    request.only.clear();
    request.except = vec!["compres".to_owned()];
    let error = load(&request).unwrap_err();
    assert!(error.remedy().unwrap().contains("'compress'"), "{error}");
}

#[test]
fn the_examples_load() {
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for (directory, name) in [("debian", "debian.toml"), ("packer", "template.json")] {
        let bench = Bench::new();
        bench.file("key", "-----BEGIN OPENSSH PRIVATE KEY-----\n");
        let mut request = super::LoadRequest {
            path: top.join(directory).join(name),
            bytes: None,
            directory: top.join(directory),
            ..{
                bench.file("t", "");
                bench.request("t")
            }
        };
        let key = bench.path().join("key").display().to_string();
        request.environment.insert("SSH_KEY".to_owned(), key);
        let loaded = load(&request).unwrap_or_else(|error| panic!("{error} {:?}", error.remedy()));
        assert_eq!(loaded.findings, [], "{name}");
        assert_eq!(loaded.template.builds.len(), 1);
    }
}
