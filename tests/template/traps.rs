//! What Packer takes without a word.

use super::{Bench, builder, load};

fn template(builder_options: &str, rest: &str) -> String {
    format!("{{\"builders\": [{}]{rest}}}", builder(builder_options))
}

#[test]
fn each_silent_trap_is_said_with_its_place_and_a_way_out() {
    let bench = Bench::new();
    for (options, rest, said) in [
        (
            "",
            r#", "variables": {"image_name": "x"}, "provisioners": [{"type": "shell", "inline": ["{{user `image_nam`}}"]}]"#,
            "there is no variable 'image_nam': it is taken as empty | did you mean 'image_name'?",
        ),
        (
            "",
            r#", "provisioners": [{"type": "shell", "inline": ["a"], "environment_vars": ["A=b"], "execute_command": "sudo {{.Path}}"}]"#,
            "never gets to its scripts",
        ),
        (
            r#""boot_command": ["<entr>"], "#,
            "",
            "<entr> is no key: it is typed letter by letter | did you mean <enter>?",
        ),
        (
            r#""boot_wait": "10s", "#,
            "",
            "there is no boot command to wait for",
        ),
        (
            "",
            r#", "post-processors": [{"type": "vagrant", "override": {"virtualbox": {"output": "x.box"}}}]"#,
            "override of 'virtualbox' is not used: the box is for libvirt",
        ),
        (
            "",
            r#", "post-processors": [{"type": "vagrant", "vagrantfile_template_generated": true}]"#,
            "vagrantfile_template_generated is not used",
        ),
        (
            "",
            r#", "provisioners": [{"type": "shell-local", "inline": "a", "use_linux_pathing": true}]"#,
            "use_linux_pathing is not used: it belongs to Windows",
        ),
        (
            r#""qemuargs": [["-drive", "file=seed.img"]], "#,
            "",
            "-drive takes the place of all that is given for it, and so drops the main disk | add [\"-drive\", \"file=output-qemu/packer-qemu,if=virtio,format=qcow2\"]",
        ),
        (
            r#""vm_name": "x{{ .Foo }}", "#,
            "",
            "nothing is known here that {{ .NAME }} could ask for",
        ),
        (r#""boot_wait": 10, "#, "", "is 10 nanoseconds"),
        (
            r#""qemu_img_args": {"convert": ["-o", "x"]}, "#,
            "",
            "qemu_img_args is not used",
        ),
        (
            r#""ssh_timeout": "5m", "ssh_wait_timeout": "6m", "#,
            "",
            "ssh_timeout counts, and ssh_wait_timeout does not",
        ),
        (
            "",
            r#", "provisioners": [{"type": "shell", "script": "nope.sh"}]"#,
            "there is no script 'nope.sh'",
        ),
        (
            "",
            r#", "provisioners": [{"type": "file", "source": "nope", "destination": "/x"}]"#,
            "there is no file 'nope'",
        ),
        (
            r#""shutdown_command": "", "#,
            "",
            "there is no shutdown_command",
        ),
    ] {
        let found = bench.findings("t.json", &template(options, rest));
        assert!(
            found.iter().any(|finding| finding.contains(said)),
            "{options}{rest}: {found:?}"
        );
        assert!(
            found.iter().all(|finding| !finding.starts_with("0:")),
            "{found:?}"
        );
    }
    let none = builder("").replace(&"0".repeat(64), "none");
    let found = bench.findings("t.json", &format!("{{\"builders\": [{none}]}}"));
    assert!(
        found
            .iter()
            .any(|finding| finding.contains("the checksum is none")),
        "{found:?}"
    );
}

#[test]
fn a_template_without_traps_has_no_findings() {
    let bench = Bench::new();
    let found = bench.findings(
        "t.json",
        &template(r#""shutdown_command": "poweroff", "#, ""),
    );
    assert_eq!(found, [""; 0]);
}

#[test]
fn what_is_not_there_is_refused_by_name_with_the_nearest_way() {
    let bench = Bench::new();
    let other = |kind: &str| format!("{{\"builders\": [{{\"type\": \"{kind}\"}}]}}");
    for (text, said) in [
        (
            other("virtualbox-iso"),
            ["'virtualbox-iso' is not there", "qemu"],
        ),
        (
            other("quemu"),
            ["no builder 'quemu'", "did you mean 'qemu'"],
        ),
        (
            template(r#""communicator": "winrm", "#, ""),
            ["WinRM", "SSH"],
        ),
        (
            template(r#""winrm_username": "x", "#, ""),
            ["winrm_username", "SSH"],
        ),
        (
            template(r#""ssh_proxy_host": "x", "#, ""),
            ["ssh_proxy_host", "ssh_bastion_host"],
        ),
        (
            template(
                "",
                r#", "provisioners": [{"type": "powershell", "inline": "x"}]"#,
            ),
            ["'powershell'", "SSH"],
        ),
        (
            template("", r#", "provisioners": [{"type": "chef-solo"}]"#),
            ["'chef-solo'", "shell"],
        ),
        (
            template("", r#", "post-processors": [[{"type": "amazon-import"}]]"#),
            ["'amazon-import'", "shell-local"],
        ),
        (
            template("", "").replace("base.qcow2", "git::https://example.com/x"),
            ["fetched by git", "clone"],
        ),
        (
            template("", "").replace("base.qcow2", "s3::https://s3.example.com/x"),
            ["fetched by s3", "https"],
        ),
        (
            template(
                "",
                r#", "variables": {"x": "{{vault `secret/data/x` `y`}}"}"#,
            ),
            ["Vault", "env `X`"],
        ),
        (
            template("", r#", "variables": {"x": "{{consul_key `a/b`}}"}"#),
            ["Consul", "env `B`"],
        ),
    ] {
        let error = bench.refused("t.json", &text);
        assert!(
            said.iter().all(|said| error.contains(said)),
            "{said:?}: {error}"
        );
        assert!(error.contains("line 1, column"), "{error}");
    }
    for name in ["t.pkr.hcl", "t.pkr.json"] {
        let error = bench.refused(name, "{}");
        assert!(error.contains("HCL2") && error.contains("TOML"), "{error}");
    }
}

#[test]
fn what_is_there_for_other_hypervisors_hinders_no_build_of_qemu() {
    let bench = Bench::new();
    let other = r#"{"type": "virtualbox-iso", "guest_os_type": "Debian_64", "iso_url": "{{user `nowhere`}}"}"#;
    let named = r#"{"type": "vmware-iso", "name": "ware"}"#;
    let rest = r#", "provisioners": [
        {"type": "powershell", "inline": "x", "only": ["ware"]},
        {"type": "shell", "inline": ["a"], "override": {"virtualbox-iso": {"execute_command": "x"}}},
        {"type": "chef-solo", "except": ["qemu"]}
    ], "post-processors": [[{"type": "docker-tag", "only": ["ware"]}, {"type": "checksum"}], [{"type": "vagrant-cloud"}]]"#;
    let text = format!(
        "{{\"builders\": [{other}, {}, {named}]{rest}}}",
        builder("")
    );
    bench.file("t.json", &text);
    let mut request = bench.request("t.json");
    request.except = vec!["vagrant-cloud".to_owned()];
    let loaded = load(&request).unwrap();
    loaded.usable().unwrap();
    assert_eq!(loaded.template.builds.len(), 1);
    let build = &loaded.template.builds[0];
    assert_eq!(build.provisioners.len(), 1);
    assert_eq!(build.post_processors.len(), 1);
    let left_out: Vec<&str> = { loaded.findings.iter() }
        .filter(|finding| finding.message.contains("is left out"))
        .map(|finding| finding.message.as_str())
        .collect();
    assert_eq!(left_out.len(), 2, "{left_out:?}");
    assert!(left_out[0].contains("'virtualbox-iso'") && left_out[1].contains("'ware'"));

    // Who says which builds are meant is told nothing, and what is asked for by name is refused.
    request.only = vec!["qemu".to_owned()];
    let findings = load(&request).unwrap().findings;
    assert!(
        !findings
            .iter()
            .any(|finding| finding.message.contains("left out"))
    );
    for only in [&["ware"][..], &["qemu", "ware"]] {
        request.only = only.iter().map(|name| (*name).to_owned()).collect();
        let error = load(&request).unwrap_err().to_string();
        assert!(error.contains("'vmware-iso' is not there"), "{error}");
    }
    request.only = vec!["qemu".to_owned()];
    request.except.clear();
    let error = load(&request).unwrap_err().to_string();
    assert!(error.contains("'vagrant-cloud' is not there"), "{error}");
    let error = qimg::template::convert::convert("t.json".as_ref(), request.bytes.as_ref());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("'vagrant-cloud' is not there"), "{error}");
}

#[test]
fn a_slip_is_named_with_line_and_column() {
    let bench = Bench::new();
    let text = "{\n  \"builders\": [{\n    \"type\": \"qemu\",\n    \"disk_sise\": 3\n  }]\n}";
    assert!(bench.refused("t.json", text).starts_with("t.json: line 4, column 5: builder 'qemu': there is no key 'disk_sise' | did you mean 'disk_size'?"));
    let text = "{\n  \"builder\": []\n}";
    assert!(bench.refused("t.json", text).contains(
        "line 2, column 3: there is no key 'builder' at the top | did you mean 'builders'?"
    ));
    let text = "{\n  \"variables\": {\"a\": \"1\",\n  \"a\": \"2\"}\n}";
    assert!(
        bench
            .refused("t.json", text)
            .contains("line 3, column 3: the key 'a' stands here again: the first is on line 2")
    );
    let text = "{\n  \"a\": 1 // x\n}";
    assert!(
        bench
            .refused("t.json", text)
            .contains("JSON has no comments")
    );
    let text =
        "name = \"a\"\n[machine]\nmemry = 5\n[base]\nimage = \"a\"\n[ssh]\nusername = \"a\"\n";
    assert!(bench.refused("t.toml", text).starts_with(
        "t.toml: line 3, column 1: machine: there is no key 'memry' | did you mean 'memory'?"
    ));
}

#[test]
fn no_template_takes_more_than_it_may() {
    let bench = Bench::new();
    let doubled = format!(
        "{{{{$x := `0123456789abcdef`}}}}{}",
        "{{$x = printf `%s%s` $x $x}}".repeat(40)
    );
    let endless = [
        doubled,
        "{{range 99999999999}}{{end}}".to_owned(),
        "{{define `a`}}{{template `a`}}{{end}}{{template `a`}}".to_owned(),
        "{{printf `%999999d` 1}}".repeat(100),
        format!("{{{{{}1{}}}}}", "(".repeat(100_000), ")".repeat(100_000)),
        format!(
            "{}{}",
            "{{if true}}".repeat(100_000),
            "{{end}}".repeat(100_000)
        ),
        format!(
            "{{{{ $x := `{}` }}}}{{{{replace_all `` $x $x}}}}",
            "x".repeat(60_000)
        ),
    ];
    for text in endless {
        let text = serde_json::to_string(&text).unwrap();
        let template = template(
            "",
            &format!(r#", "provisioners": [{{"type": "shell", "inline": {text}}}]"#),
        );
        let error = bench.refused("t.json", &template);
        assert!(error.len() < 1000, "{error}");
    }
    for text in ["[".repeat(100_000), "{\"a\":".repeat(100_000)] {
        bench.refused("t.json", &text);
    }
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("{}b = 1", "a.".repeat(100_000)),
        format!("[{}b]", "a.".repeat(100_000)),
    ] {
        bench.refused("t.toml", &text);
    }
}

#[test]
fn a_secret_is_in_no_error() {
    let bench = Bench::new();
    let text = template(
        r#""disk_size": "{{user `s`}}", "#,
        r#", "variables": {"s": null}, "sensitive-variables": ["s"]"#,
    );
    bench.file("t.json", text);
    let mut request = bench.request("t.json");
    request.variables = vec![("s".to_owned(), "hunter2hunter2".to_owned())];
    let error = load(&request).unwrap_err();
    assert!(
        !format!("{error:?}{:?}{request:?}", error.remedy()).contains("hunter2"),
        "{error}"
    );
}
