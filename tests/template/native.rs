//! qimg's own language.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use qimg::template::check::Severity;
use qimg::template::late::Late;
use qimg::template::load;
use qimg::template::model::{Action, Codec, Direction, Firmware, Job};
use qimg::template::native::SEAL_STEPS;

use super::{Bench, inline, text};

const SMALL: &str =
    "[base]\nimage = \"base.qcow2\"\nchecksum = \"none\"\n[ssh]\nusername = \"debian\"\n";

#[test]
fn a_template_says_little_and_has_good_defaults() {
    let bench = Bench::new();
    let build = bench.build("web.toml", SMALL);
    assert_eq!(build.name, "web");
    assert_eq!(build.disk.size, None);
    assert_eq!(build.seal.steps, SEAL_STEPS);
    assert_eq!(
        (build.output.directory.to_str(), build.output.name.as_str()),
        (Some("output-web"), "web.qcow2")
    );
    assert_eq!(
        (
            build.output.codec,
            build.output.compact,
            build.output.sparsify
        ),
        (Codec::Zlib, true, true)
    );
    assert!(build.machine.headless && build.base.is_disk);
    assert_eq!((build.machine.memory_mib, build.machine.cpus), (1024, 2));
    assert_eq!(build.machine.firmware, Firmware::Default);
}

#[test]
fn everything_can_be_said() {
    let bench = Bench::new();
    for name in ["t/user-data", "t/site/index", "t/a.sh"] {
        bench.file(name, "#cloud-config\nruncmd: [a]\n");
    }
    bench.file("t/key", "-----BEGIN OPENSSH PRIVATE KEY-----\n");
    let template = r#"
        name = "web-{{user `release`}}"
        sensitive = ["other"]
        [variables]
        release = "12"
        token = { required = true, sensitive = true, description = "for the registry" }
        other = "visible"
        [base]
        image = ["mirror/base.qcow2", "https://cloud.example/base.qcow2"]
        checksum = "file:SHA256SUMS"
        signature-key = "key"
        [disk]
        size = "10G"
        additional = ["1G", "512M"]
        [machine]
        memory = "2G"
        cpus = "{{user `release`}}"
        boot = "uefi"
        secure = true
        host-ports = [2222, 2230]
        qemu-args = [["-cpu", "max"]]
        [seed]
        user-data-file = "user-data"
        meta-data = "instance-id: i-{{user `release`}}"
        [ssh]
        username = "debian"
        private-key = "key"
        timeout = "10m"
        [ssh.bastion]
        host = "b"
        username = "u"
        [[provision]]
        shell = ["echo {{user `token`}}", "true"]
        sudo = true
        env = { A = "{{build `ID`}}", B = "x" }
        [[provision]]
        scripts = "a.sh"
        pause-before = "5s"
        max-retries = 2
        [[provision]]
        upload = "site/"
        to = "/tmp/site"
        [[provision]]
        download = "/etc/hostname"
        to = "out/hostname"
        [[provision]]
        content = "hello"
        to = "/etc/motd"
        [[provision]]
        reboot = true
        reboot-timeout = "3m"
        [[provision]]
        sleep = "1s"
        [[provision]]
        breakpoint = "look"
        [[provision]]
        local = "date"
        [[provision]]
        custom = "mine"
        options = { a = [1, 2.5, true, "{{user `release`}}"] }
        [cleanup]
        shell = "journalctl"
        [seal]
        disable = ["logs"]
        [shutdown]
        command = "poweroff"
        timeout = "1m"
        [output]
        compression = "zstd"
        level = 19
        [[post]]
        compress = "{{.BuildName}}.tar.zst"
        then = [{ checksum = ["sha256", "md5"], to = "SUMS" }]
        [[post]]
        manifest = "m.json"
        custom-data = { id = "{{build `ID`}}" }
    "#;
    bench.file("t/web.toml", template);
    let program = bench.file("bin/qimg-provisioner-mine", "#!/bin/sh\n");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut request = bench.request("t/web.toml");
    let programs = bench.path().join("bin").display().to_string();
    request.environment.insert("PATH".to_owned(), programs);
    request.variables = vec![("token".to_owned(), "hunter2".to_owned())];
    let loaded = load(&request).unwrap_or_else(|error| panic!("{error} {:?}", error.remedy()));
    assert_eq!(loaded.findings, []);
    assert_eq!(loaded.template.secrets, ["hunter2", "visible"]);
    let build = &loaded.template.builds[0];
    assert_eq!(build.name, "web-12");
    // Inputs lie beside the template, results where one stands.
    assert_eq!(
        build.base.urls,
        ["t/mirror/base.qcow2", "https://cloud.example/base.qcow2"]
    );
    assert_eq!(build.base.checksum, "file:t/SHA256SUMS");
    assert_eq!(build.output.directory.to_str(), Some("output-web-12"));
    assert_eq!(build.additional_disks, [1 << 30, 512 << 20]);
    assert_eq!((build.machine.memory_mib, build.machine.cpus), (2048, 12));
    assert_eq!(build.machine.host_ports, Some((2222, 2230)));
    assert!(matches!(
        build.machine.firmware,
        Firmware::Efi { secure: true, .. }
    ));
    let seed = build.seed.as_ref().unwrap();
    assert_eq!(
        seed.user_data.as_deref(),
        Some(b"#cloud-config\nruncmd: [a]\n".as_slice())
    );
    assert_eq!(
        seed.meta_data.as_deref(),
        Some(b"instance-id: i-12".as_slice())
    );
    assert!(!build.seal.steps.contains(&"logs".to_owned()) && build.seal.steps.len() == 11);
    assert_eq!(
        (build.output.codec, build.output.level),
        (Codec::Zstd, Some(19))
    );
    let ssh = build.communicator.as_ref().unwrap();
    assert_eq!(
        (ssh.timeout, ssh.private_key.as_ref().unwrap().to_str()),
        (Some(Duration::from_secs(600)), Some("t/key"))
    );
    let actions: Vec<&Action> = build.provisioners.iter().map(|step| &step.action).collect();
    let Action::Shell(shell) = actions[0] else {
        panic!()
    };
    assert_eq!(inline(&shell.scripts), ["echo hunter2", "true"]);
    assert_eq!(shell.environment[0].1.0, "{{build \"ID\"}}");
    let late = Late::of([("Path", "/p"), ("Vars", "A='1'")]);
    assert_eq!(
        late.render(&shell.execute_command).unwrap(),
        "chmod +x /p; sudo env A='1' /p"
    );
    let kinds: Vec<&str> = build
        .provisioners
        .iter()
        .map(|step| step.kind.as_str())
        .collect();
    assert_eq!(
        kinds,
        [
            "shell",
            "shell",
            "file",
            "file",
            "file",
            "reboot",
            "sleep",
            "breakpoint",
            "shell-local",
            "mine"
        ]
    );
    let Action::File(upload) = actions[2] else {
        panic!()
    };
    assert_eq!(
        (text(&upload.sources[0]), upload.direction),
        ("t/site/".to_owned(), Direction::Upload)
    );
    let Action::File(download) = actions[3] else {
        panic!()
    };
    assert_eq!(
        (text(&download.sources[0]), text(&download.destination)),
        ("/etc/hostname".to_owned(), "out/hostname".to_owned())
    );
    let Action::Custom { options, .. } = actions[9] else {
        panic!()
    };
    assert_eq!(options, r#"{"a":[1,2.5,true,"12"]}"#);
    assert_eq!(
        build
            .post_processors
            .iter()
            .map(Vec::len)
            .collect::<Vec<_>>(),
        [2, 1]
    );
    let Job::Checksum {
        kinds, coreutils, ..
    } = &build.post_processors[0][1].job
    else {
        panic!()
    };
    assert_eq!((kinds.len(), *coreutils), (2, true));
}

#[test]
fn builds_of_a_name_share_what_stands_at_the_top() {
    let bench = Bench::new();
    let template = format!(
        "{SMALL}[machine]\nmemory = 2048\ncpus = 4\n[build.a]\n[build.b.machine]\ncpus = 1\n[build.b.base]\nimage = \"other.qcow2\"\n[[provision]]\nshell = \"x\"\nonly = [\"b\"]\n"
    );
    let loaded = bench.load("two.toml", &template).unwrap();
    let [a, b] = loaded.template.builds.as_slice() else {
        panic!()
    };
    assert_eq!((a.machine.memory_mib, a.machine.cpus), (2048, 4));
    assert_eq!((b.machine.memory_mib, b.machine.cpus), (2048, 1));
    assert_eq!(
        (a.base.urls[0].as_str(), b.base.urls[0].as_str()),
        ("base.qcow2", "other.qcow2")
    );
    assert_eq!((a.provisioners.len(), b.provisioners.len()), (0, 1));
    assert_eq!((a.name.as_str(), b.output.name.as_str()), ("a", "b.qcow2"));
}

#[test]
fn a_slip_is_an_error_where_packer_is_silent() {
    let bench = Bench::new();
    for (more, said) in [
        (
            "[[provision]]\nshell = \"{{user `nope`}}\"\n",
            "there is no variable 'nope'",
        ),
        ("[boot]\ncommand = \"<entr>\"\n", "<entr> is no key"),
        ("[output]\nname = \"{{.Foo}}\"\n", "nothing is known here"),
        (
            "[[provision]]\nshel = \"x\"\n",
            "there is no key 'shel' | did you mean 'shell'?",
        ),
        ("[[provision]]\nonly = []\n", "there is nothing to be done"),
        (
            "[[provision]]\nshell = \"x\"\nsudoo = true\n",
            "there is no key 'sudoo' | did you mean 'sudo'?",
        ),
        (
            "[seal]\ndisable = [\"log\"]\n",
            "there is no step 'log' | did you mean 'logs'?",
        ),
        (
            "[machine]\nheadless = \"perhaps\"\n",
            "neither true nor false",
        ),
        (
            "[machine]\nmemory = true\n",
            "expected a string, found true or false",
        ),
        ("[shutdown]\ntimeout = 5\n", "a length of time"),
        ("[disk]\nsize = \"3.5X\"\n", "'3.5X' is no size of a disk"),
        ("[machine]\nhost-ports = [5, 1]\n", "above the last"),
        ("[machine]\naccelerator = \"kmv\"\n", "did you mean 'kvm'?"),
        (
            "[[provision]]\nshell = \"x\"\nonly = [\"y\"]\n",
            "only names the build 'y', which there is not | there is t",
        ),
        ("[variables]\na = 1\n", "values of variables are strings"),
        (
            "[variables]\na = { requird = true }\n",
            "did you mean 'required'?",
        ),
        (
            "[[provision]]\nupload = \"base.qcow2\"\n",
            "there is no destination",
        ),
        (
            "[[provision]]\nlocal = \"x\"\nshell = \"y\"\n",
            "there is no key 'local'",
        ),
        (
            "[cd]\ncontent = { \"a\" = \"b\" }\nlabel = \"a label that is longer than it may be\"\n",
            "a label has 1 to 32 printable ASCII characters",
        ),
        (
            "[floppy]\ncontent = { \"a\" = \"b\" }\nlabel = \"AUTOUNATTEND\"\n",
            "'AUTOUNATTEND' is no name for a FAT volume | write 1 to 11",
        ),
        (
            "[[post]]\ncompress = \"{{.BuildNam}}.gz\"\n",
            "there is no .BuildNam here | did you mean .BuildName?",
        ),
        (
            "[[post]]\nchecksum = \"md5\"\nto = \"{{if .BuildName}}{{.Kind}}{{end}}\"\n",
            "there is no .Kind here | there is .BuildName, .BuilderType, .ChecksumType",
        ),
        (
            "[[post]]\nvagrant = \"{{$.Artifact}}.box\"\n",
            "there is no .Artifact here",
        ),
        ("when = 1979-05-27\n", "a date where none is taken"),
    ] {
        let text = match more.starts_with("when") {
            true => format!("{more}{SMALL}"),
            false => format!("{SMALL}{more}"),
        };
        let error = bench.refused("t.toml", &text);
        assert!(error.contains(said), "{more}: {error}");
        assert!(error.contains("line "), "{error}");
    }
    bench.file("t.toml", SMALL);
    let mut request = bench.request("t.toml");
    request.variables = vec![("x".to_owned(), "1".to_owned())];
    let loaded = load(&request).unwrap();
    assert!(
        loaded
            .findings
            .iter()
            .any(|finding| finding.severity == Severity::Error
                && finding.message.contains("no variable 'x'"))
    );
}

#[test]
fn a_label_that_a_medium_holds_is_taken() {
    let bench = Bench::new();
    for label in [
        "cidata",
        "OEMDRV",
        "config-2",
        "my cd",
        "AUTOINSTALL_CONFIG1",
    ] {
        let text = format!("{SMALL}[cd]\ncontent = {{ \"a\" = \"b\" }}\nlabel = \"{label}\"\n");
        let build = bench.build("t.toml", &text);
        assert_eq!(build.media.cd_label.as_deref(), Some(label));
    }
    // Of no medium that is made, and so of none.
    let long = "l".repeat(40);
    bench.build("t.toml", &format!("{SMALL}[cd]\nlabel = \"{long}\"\n"));
}

#[test]
fn a_seed_is_judged_as_cloud_init_would() {
    let bench = Bench::new();
    let text = format!("{SMALL}[seed]\nuser-data = \"\"\"#cloud-config\nrun_cmd: [a]\n\"\"\"\n");
    let found = bench.findings("t.toml", &text);
    assert!(
        found.iter().any(|said| said.starts_with("7:13 ")
            && said.contains("user-data, line 2:")
            && said.contains("runcmd")),
        "{found:?}"
    );
    let error = bench.refused(
        "t.toml",
        &format!("{SMALL}[seed]\nuser-data-file = \"nope\"\n"),
    );
    assert!(
        error.contains("line 7, column 18") && error.contains("nope"),
        "{error}"
    );
}

#[test]
fn what_the_environment_has_not_is_said() {
    let bench = Bench::new();
    let text = format!("[variables]\nkey = \"{{{{env `NO_SUCH_KEY`}}}}\"\n{SMALL}");
    let found = bench.findings("t.toml", &text);
    assert!(
        found
            .iter()
            .any(|said| said.starts_with("2:7 Note: the environment has no NO_SUCH_KEY")),
        "{found:?}"
    );
}

#[test]
fn sources_of_variables_beat_one_another_in_order() {
    let bench = Bench::new();
    let template = format!(
        "[variables]\na = \"default\"\n{SMALL}[[provision]]\nshell = \"{{{{user `a`}}}}\"\n"
    );
    bench.file("t.toml", template);
    let mut request = bench.request("t.toml");
    let said = |request: &qimg::template::LoadRequest<'_>| {
        let loaded = load(request).unwrap();
        match &loaded.template.builds[0].provisioners[0].action {
            Action::Shell(shell) => inline(&shell.scripts).remove(0),
            _ => panic!(),
        }
    };
    assert_eq!(said(&request), "default");
    request
        .var_files
        .push(super::var_file("1.json", r#"{"a": "first"}"#));
    assert_eq!(said(&request), "first");
    request
        .var_files
        .push(super::var_file("2.toml", "a = \"second\""));
    assert_eq!(said(&request), "second");
    request.variables.push(("a".to_owned(), "third".to_owned()));
    request.variables.push(("a".to_owned(), "last".to_owned()));
    assert_eq!(said(&request), "last");
}

#[test]
fn a_variable_that_waits_for_fields_is_filled_in_where_they_are_known() {
    let bench = Bench::new();
    let template = format!(
        r#"{{"variables": {{"run": "env {{{{.Vars}}}} {{{{user `shell`}}}} {{{{ .Path }}}}", "shell": "sh"}}, "builders": [{}],
        "provisioners": [{{"type": "shell", "inline": "x", "execute_command": "{{{{user `run`}}}} {{{{user `shell` | upper}}}}"}}]}}"#,
        super::builder("")
    );
    let build = bench.build("t.json", &template);
    let Action::Shell(shell) = &build.provisioners[0].action else {
        panic!()
    };
    let late = Late::of([("Path", "/p"), ("Vars", "{{x}}")]);
    assert_eq!(
        late.render(&shell.execute_command).unwrap(),
        "env {{x}} sh /p SH"
    );
}
