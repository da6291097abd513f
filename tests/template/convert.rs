//! Packer templates as TOML: the same builds.

use qimg::template::convert::convert;
use qimg::template::model::{Dialect, Template};
use qimg::template::{LoadRequest, load};

use super::{Bench, builder};

/// Without what tells where a template was read from.
pub(super) fn plain(mut template: Template) -> Template {
    template.path = "t".into();
    template.dialect = Dialect::Packer;
    for build in &mut template.builds {
        let steps = build.provisioners.iter_mut().chain(&mut build.cleanup);
        steps.for_each(|step| step.line = 0);
        build
            .post_processors
            .iter_mut()
            .flatten()
            .for_each(|post| post.line = 0);
    }
    template
}

#[track_caller]
fn same(bench: &Bench, text: &str, change: impl Fn(&mut LoadRequest<'_>)) {
    bench.file("t.json", text);
    let mut request = bench.request("t.json");
    change(&mut request);
    let packer = load(&request).unwrap_or_else(|error| panic!("{error}: {text}"));
    let converted = convert("t.json".as_ref(), request.bytes.as_ref()).unwrap();
    bench.file("t.toml", &converted.text);
    let mut request = bench.request("t.toml");
    change(&mut request);
    let native = load(&request).unwrap_or_else(|error| panic!("{error}:\n{}", converted.text));
    assert_eq!(
        plain(packer.template),
        plain(native.template),
        "{}",
        converted.text
    );
}

#[test]
fn a_converted_template_gives_the_same_builds() {
    let bench = Bench::new();
    for name in ["s.sh", "base.qcow2", "key"] {
        bench.file(name, "x");
    }
    for options in [
        "",
        r#""disk_size": 3000, "disk_compression": true, "vm_name": "a\"b'c.qcow2","#,
        r#""name": "a.b c", "headless": "{{user `flag`}}", "memory": "{{user `number`}}", "cpus": 2.0, "ssh_wait_timeout": "10m","#,
        r#""qemuargs": [["-drive", "file={{.OutputDir}}/{{.Name}},if=virtio"], ["-m", 512], ["-nographic"], "-x"],"#,
        r#""boot_wait": "5s", "boot_command": ["<enter>", "{{ .HTTPIP }}:{{user `number`}}\n\\x"], "http_directory": ".", "http_port_max": 8100,"#,
        r#""boot_steps": [["a<enter>", "first"], ["b"]], "boot_key_interval": 10000000,"#,
        r#""vnc_bind_address": "0.0.0.0", "vnc_port_min": 5901, "vnc_use_password": true, "qmp_enable": true, "host_port_min": 2300,"#,
        r#""efi_boot": true, "efi_firmware_code": "c.fd", "efi_firmware_vars": "v.fd", "efi_drop_efivars": true, "vtpm": true, "use_tpm1": true,"#,
        r#""firmware": "x.fd", "use_pflash": true, "machine_type": "q35", "cpu_model": "max", "sockets": 1, "cores": 2, "threads": 1, "vga": "std", "display": "none","#,
        r#""ssh_bastion_host": "b", "ssh_bastion_username": "u", "ssh_private_key_file": "key", "ssh_handshake_attempts": 3, "ssh_disable_agent_forwarding": false,"#,
        r#""communicator": "none", "shutdown_timeout": "1h", "use_backing_file": true,"#,
        r#""format": "raw", "skip_resize_disk": true, "disk_additional_size": [100, "2G"], "cd_files": ["a/*"], "cd_content": {"x/y": "z{{build_name}}"}, "cd_label": "cidata","#,
        r#""floppy_files": "a", "floppy_content": {"a": "b"}, "floppy_label": "l", "disk_cache": "none", "disk_discard": "unmap", "disk_detect_zeroes": "unmap", "iso_target_path": "t","#,
        r#""temporary_key_pair_type": "ed25519", "ssh_ciphers": ["aes256-ctr"], "ssh_keep_alive_interval": "-1s", "pause_before_connecting": "1m10s", "ssh_file_transfer_method": "sftp","#,
        r#""accelerator": "tcg", "net_bridge": "br0", "net_device": "e1000", "skip_nat_mapping": true, "disable_vnc": true, "shutdown_command": "echo 'p' | sudo -S poweroff","#,
    ] {
        let text = format!(
            r#"{{"_c": "x", "description": "a\nb", "min_packer_version": "1.6.0",
            "variables": {{"flag": "true", "number": "700", "need": null, "e": "{{{{env `E`}}}}", "weird key.": "{{{{user `e`}}}}"}},
            "sensitive-variables": ["e"], "builders": [{}],
            "provisioners": [
                {{"type": "shell", "inline": ["a {{{{user `need`}}}}", "b {{{{build `ID`}}}} '\"\\"], "environment_vars": ["A=b", "C={{{{user `e`}}}}"], "env": {{"X": "y", "B": 1}}, "execute_command": "{{{{.Vars}}}} {{{{.Path}}}}"}},
                {{"type": "shell", "script": "s.sh", "pause_before": "90s", "max_retries": "2", "timeout": "1h1s", "valid_exit_codes": [0, 3], "use_env_var_file": true, "expect_disconnect": true}},
                {{"type": "file", "source": "s.sh", "sources": ["key"], "destination": "/x"}},
                {{"type": "file", "source": "/x", "destination": "y", "direction": "download"}},
                {{"type": "shell-local", "command": "date", "only_on": "linux", "execute_command": ["/bin/bash", "{{{{.Script}}}}"]}},
                {{"type": "sleep", "duration": "3s"}}, {{"type": "breakpoint", "note": "n"}}, {{"type": "reboot", "command": "x"}},
                {{"type": "own", "a": {{"b": [1, 2.5, null, true, {{"c": "{{{{user `number`}}}}"}}], "d": []}}}}],
            "error-cleanup-provisioner": {{"type": "shell", "inline": "c"}},
            "post-processors": ["compress", {{"type": "checksum", "checksum_types": ["sha1"]}},
                [{{"type": "artifice", "files": ["a", "b"]}}, {{"type": "manifest", "custom_data": {{"k": "v{{{{build_name}}}}"}}, "keep_input_artifact": false}}, {{"type": "mine", "o": 1}}],
                {{"type": "shell-local", "inline": ["a", "b"], "name": "last"}}]}}"#,
            builder(options)
        );
        same(&bench, &text, |request| {
            request.variables = vec![("need".to_owned(), "given".to_owned())];
            request
                .environment
                .insert("E".to_owned(), "secret".to_owned());
        });
    }
}

#[test]
fn a_converted_template_gives_the_same_builds_when_there_are_several() {
    let bench = Bench::new();
    let text = format!(
        r#"{{"variables": {{"v": "x"}}, "builders": [{}, {}],
        "provisioners": [{{"type": "shell", "inline": "a", "override": {{"{{{{user `v`}}}}": {{}}, "b": {{"inline": "c"}}}}}}],
        "post-processors": [{{"type": "compress", "only": ["b"]}}]}}"#,
        builder(r#""name": "x-{{user `v`}}","#),
        builder(r#""name": "b","#),
    );
    // An override of a build that there is not is refused by both.
    bench.file("t.json", &text);
    assert!(load(&bench.request("t.json")).is_err());
    same(
        &bench,
        &text.replace("{{user `v`}}\": {}", "x-x\": {}"),
        |_| {},
    );
}

#[test]
fn builds_for_other_hypervisors_are_left_out_of_a_converted_template() {
    let bench = Bench::new();
    let text = format!(
        r#"{{"builders": [{}, {{"type": "virtualbox-iso", "vboxmanage": []}}, {{"type": "vmware-iso", "name": "vm"}}],
        "provisioners": [{{"type": "shell", "inline": "a", "override": {{"vm": {{"inline": "b"}}}}}},
            {{"type": "shell", "inline": "a", "only": ["vm", "qemu"]}},
            {{"type": "shell", "inline": "a", "except": ["vm"]}},
            {{"type": "converge", "only": ["vm"]}}, {{"type": "inspec", "except": ["qemu"]}}],
        "post-processors": [[{{"type": "compress", "only": ["vm"]}}, {{"type": "checksum"}}, {{"type": "manifest", "only": "virtualbox-iso"}}],
            {{"type": "vsphere", "only": ["vm"]}}]}}"#,
        builder(""),
    );
    same(&bench, &text, |_| {});
    let converted = convert("t.json".as_ref(), Some(&text.clone().into_bytes())).unwrap();
    let said: Vec<&str> = { converted.findings.iter() }
        .map(|finding| finding.message.as_str())
        .collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with("the build 'virtualbox-iso' is left out"),
        "{said:?}"
    );
    // Where there is none of ours, nothing is.
    let text = r#"{"builders": [{"type": "virtualbox-iso"}]}"#;
    let error = convert("t.json".as_ref(), Some(&text.into())).unwrap_err();
    assert!(error.to_string().contains("is not there"), "{error}");
}

#[test]
fn what_is_no_packer_template_is_not_converted() {
    let error = convert("t.toml".as_ref(), Some(&b"a = 1".to_vec())).unwrap_err();
    assert!(error.to_string().contains("TOML already"), "{error}");
}
