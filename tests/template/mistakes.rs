//! Mistakes of templates: all are told at once, each at its place, and before anything boots.

use std::process::{Command, Output, Stdio};

use qimg::template::{Examined, examine};

use super::{Bench, builder};

/// The program in the bench's directory; `input` comes from standard input.
fn qimg(bench: &Bench, arguments: &[&str], input: &str) -> Output {
    use std::io::Write;
    let mut child = Command::new(env!("CARGO_BIN_EXE_qimg"))
        .args(arguments)
        .current_dir(bench.path())
        .env("PATH", bench.path().join("bin"))
        .env("QIMG_CACHE", bench.path().join("cache"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // It need not read what it has no use for.
    let _ = pipe.write_all(input.as_bytes());
    drop(pipe);
    child.wait_with_output().unwrap()
}

/// All errors of a template, as `line:column message | remedy`.
fn errors(bench: &Bench, name: &str, text: &str) -> Vec<String> {
    bench.file(name, text);
    let Examined { template, findings } = examine(&bench.request(name));
    assert!(
        template.is_err() || findings.iter().all(|found| found.line > 0),
        "{findings:?}"
    );
    let errors = findings
        .into_iter()
        .filter(|found| found.severity == qimg::template::check::Severity::Error);
    errors
        .map(|found| {
            format!(
                "{}:{} {} | {}",
                found.line, found.column, found.message, found.remedy
            )
        })
        .collect()
}

/// Each of `said` is in the error at its place, and there are no others.
#[track_caller]
fn told(bench: &Bench, name: &str, text: &str, said: &[&str]) {
    let errors = errors(bench, name, text);
    assert_eq!(errors.len(), said.len(), "{errors:#?}");
    for (error, said) in errors.iter().zip(said) {
        assert!(error.contains(said), "{said}: {errors:#?}");
    }
}

fn packer(steps: &str) -> String {
    format!("{{\"builders\": [{}],\n{steps}}}", builder(""))
}

#[test]
fn a_misspelt_type_is_told_before_anything_boots() {
    let bench = Bench::new();
    let text = packer(
        r#""provisioners": [{"type": "shel", "inline": "a"}],
"post-processors": [{"type": "compres"}, {"type": "unlike-any-other"}]"#,
    );
    let said = [
        "2:27 provisioner 1: there is no provisioner 'shel' | did you mean 'shell'?",
        "3:30 post-processor 1: there is no post-processor 'compres' | did you mean 'compress'?",
        "'unlike-any-other' | there is compress, checksum",
    ];
    told(&bench, "t.json", &text, &said);
    for arguments in [&["build", "--plan", "t.json"][..], &["build", "t.json"]] {
        let output = qimg(&bench, arguments, "");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("there is no provisioner 'shel'"), "{said}");
    }
    assert!(!bench.path().join("cache").exists());
    // Who has the program may use it.
    for name in ["qimg-provisioner-shel", "qimg-post-processor-compres"] {
        use std::os::unix::fs::PermissionsExt;
        let program = bench.file(&format!("bin/{name}"), "#!/bin/sh\n");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let output = qimg(&bench, &["validate", "t.json"], "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !said.contains("'shel'") && said.contains("'unlike-any-other'"),
        "{said}"
    );
}

#[test]
fn a_misspelt_type_of_a_step_that_is_left_out_hinders_nobody() {
    let bench = Bench::new();
    let text = format!(
        r#"{{"builders": [{}, {}], "provisioners": [{{"type": "shel", "only": ["b"]}}],
        "post-processors": [[{{"type": "manifest"}}, {{"type": "compres"}}]]}}"#,
        builder(r#""name": "a","#),
        builder(r#""name": "b","#)
    );
    bench.file("t.json", text);
    let mut request = bench.request("t.json");
    request.only = vec!["a".to_owned()];
    request.except = vec!["compres".to_owned()];
    let found = examine(&request);
    found.template.unwrap();
    let errors = { found.findings.iter() }.filter(|found| found.message.contains("there is no p"));
    assert_eq!(errors.count(), 0, "{:?}", found.findings);
}

#[test]
fn all_mistakes_are_told_in_one_run() {
    let bench = Bench::new();
    let text = r#"{"builders": [{"type": "qemu",
"iso_urll": "x",
"iso_checksum": "none",
"disk_sise": "1G",
"format": "qcow3",
"cpus": "two",
"headless": [],
"boot_wait": "soon",
"ssh_username": "root"}],
"provisioners": [
{"type": "shel"},
{"type": "shell"},
{"type": "shell", "script": "nothere.sh", "bogus": 1},
{"inline": "x"}, 5,
{"type": "file", "source": "t.json", "destination": {}}],
"post-processors": [
{"type": "checksum", "checksum_types": ["md6"], "outputt": 1},
{"type": "compress", "compression_level": "x"}]}"#;
    let said = [
        "2:1 builder 'qemu': there is no key 'iso_urll' | did you mean 'iso_url'?",
        "4:1 builder 'qemu': there is no key 'disk_sise' | did you mean 'disk_size'?",
        "5:11 build 'qemu': format: there is no 'qcow3' | did you mean 'qcow2'?",
        "6:9 build 'qemu': cpus: 'two' is no whole number",
        "7:13 builder 'qemu': headless: expected true or false, found a list",
        "8:14 build 'qemu': boot_wait: 'soon' is no length of time",
        "11:10 provisioner 1: there is no provisioner 'shel' | did you mean 'shell'?",
        "12:1 provisioner 2: either inline, script or scripts must be given",
        "13:29 provisioner 3: there is no script 'nothere.sh'",
        "13:43 provisioner 3 (shell): there is no key 'bogus'",
        "14:1 provisioner 4: there is no type",
        "14:18 provisioner 5: expected an object, found a number",
        "15:53 provisioner 6 (file): destination: expected a string, found an object",
        "17:41 post-processor 1: checksum_types: there is no checksum of the kind 'md6'",
        "17:49 post-processor 1.1 (checksum): there is no key 'outputt' | did you mean 'output'?",
        "18:43 post-processor 2: compression_level: 'x' is no whole number",
    ];
    told(&bench, "t.json", text, &said);
    let text = "[base]\nimage = \"b\"\nchecksum = \"none\"\n[machine]\nmemorey = 1\ncpus = []\n[ssh]\nuser = \"x\"\n\
        [[provision]]\nshell = 5\nsudoo = true\n[[provision]]\nsleep = \"1\"\n[oops]\n";
    let said = [
        "5:1 machine: there is no key 'memorey' | did you mean 'memory'?",
        "6:8 machine: cpus: expected a whole number",
        "8:1 ssh: there is no key 'user'",
        "10:9 provision 1: shell: expected a list of strings",
        "11:1 provision 1: there is no key 'sudoo' | did you mean 'sudo'?",
        "13:9 provision 2: sleep: '1' is no length of time",
        "14:2 there is no key 'oops'",
    ];
    told(&bench, "t.toml", text, &said);
    let output = qimg(&bench, &["validate", "t.toml"], "");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("t.toml:5:1: error: machine: there is no key 'memorey'\n  hint: did"),
        "{said}"
    );
    assert!(
        said.contains("t.toml:14:2: error: there is no key 'oops'"),
        "{said}"
    );
}

#[test]
fn json_of_a_wrong_template_holds_its_mistakes() {
    let bench = Bench::new();
    bench.file(
        "t.toml",
        "[base]\nimag = \"x\"\n[ssh]\nusername = \"x\"\nprot = 5\n",
    );
    bench.file("u.toml", "[base\n");
    for (arguments, lines) in [
        (&["validate", "--json", "t.toml"][..], &[2, 5][..]),
        (&["validate", "--json", "u.toml"], &[1]),
        (&["validate", "--json", "--syntax-only", "u.toml"], &[1]),
        (&["validate", "--json", "absent.toml"], &[0]),
    ] {
        let output = qimg(&bench, arguments, "");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = found.as_array().unwrap();
        let mistakes = found.iter().filter(|found| found["severity"] == "error");
        let said: Vec<_> = mistakes
            .map(|found| found["line"].as_u64().unwrap())
            .collect();
        assert_eq!(said, lines, "{found:?}");
        for found in found {
            assert!(!found["message"].as_str().unwrap().is_empty(), "{found}");
            assert!(
                found["column"].is_u64() && found["remedy"].is_string(),
                "{found}"
            );
        }
    }
}

#[test]
fn a_misspelt_key_of_toml_is_told_before_what_it_leaves_out() {
    let bench = Bench::new();
    let ssh = "[ssh]\nusername = \"x\"\n";
    let base = "[base]\nimage = \"x\"\nchecksum = \"none\"\n";
    for (text, said) in [
        (
            format!("{ssh}[base]\nimag = \"x\"\n"),
            "4:1 base: there is no key 'imag' | did you mean 'image'?",
        ),
        (
            format!("{base}{ssh}[[provision]]\nshel = \"x\"\n"),
            "7:1 provision 1: there is no key 'shel' | did you mean 'shell'?",
        ),
        (
            format!("{base}{ssh}[[post]]\nchecksm = \"md5\"\n"),
            "7:1 post 1: there is no key 'checksm' | did you mean 'checksum'?",
        ),
        (
            format!("{ssh}[base]\nchecksum = \"none\"\n"),
            "there is nothing to start from | add image = ",
        ),
        (
            format!("{base}image = \"y\"\n"),
            "4:1 the key 'image' is there twice",
        ),
    ] {
        told(&bench, "t.toml", &text, &[said]);
        assert!(!errors(&bench, "t.toml", &text)[0].contains("iso_url"));
    }
}

#[test]
fn winrm_is_said_to_be_unsupported_where_it_is_chosen() {
    let bench = Bench::new();
    let text = packer("").replace(",\n}", "}").replace(
        r#""type": "qemu""#,
        "\"type\": \"qemu\",\n\"communicator\": \"winrm\", \"winrm_username\": \"x\", \"winrm_password\": \"y\"",
    );
    told(
        &bench,
        "t.json",
        &text,
        &["2:17 builder 'qemu': communicator: WinRM is not supported"],
    );
}

#[test]
fn variables_that_refer_to_each_other_are_named() {
    let bench = Bench::new();
    for (variables, said) in [
        (
            r#""a": "{{user `b`}}", "b": "{{user `a`}}""#,
            "the variables 'a', 'b' refer to each other",
        ),
        (
            r#""a": "{{user `c`}}", "c": "{{user `c`}}""#,
            "the variable 'c' refers to itself",
        ),
        (
            r#""a": "{{user `b`}}", "b": "{{user `c`}}""#,
            "the variable 'b': the variable 'c' is not set",
        ),
    ] {
        let text = packer(&format!(r#""variables": {{{variables}}}"#));
        told(&bench, "t.json", &text, &[said]);
    }
}

#[test]
fn what_no_build_can_do_is_refused_by_validate() {
    let bench = Bench::new();
    bench.file("garbage", "no key\n");
    bench.file("key", "-----BEGIN OPENSSH PRIVATE KEY-----\n");
    bench.file("base.qcow2", "");
    let long = format!(r#""vm_name": "{}","#, "x".repeat(256));
    for (more, said) in [
        (
            r#""ssh_private_key_file": "garbage","#,
            "'garbage' is no private key that SSH can use",
        ),
        (r#""ssh_private_key_file": ".","#, "'.' cannot be read"),
        (r#""vm_name": "a\u0000b","#, "is no name of a file"),
        (r#""vm_name": "/","#, "'/' is no name of a file"),
        (long.as_str(), "a name of 256 bytes is too long for a file"),
        (
            r#""output_directory": ".","#,
            "'.' can be no directory of a build's own | name one",
        ),
        (
            r#""output_directory": "..","#,
            "'..' can be no directory of a build's own",
        ),
        (
            r#""output_directory": "/","#,
            "'/' can be no directory of a build's own",
        ),
    ] {
        let text = format!("{{\"builders\": [{}]}}", builder(more));
        told(&bench, "t.json", &text, &[said]);
    }
    let text = format!(
        "{{\"builders\": [{}]}}",
        builder(r#""ssh_private_key_file": "key","#)
    );
    told(&bench, "t.json", &text, &[]);
    for sum in ["file:", "file://"] {
        let text = text.replace(&"0".repeat(64), sum);
        told(&bench, "t.json", &text, &["names no file of checksums"]);
    }
}

#[test]
fn a_template_may_come_from_standard_input() {
    let bench = Bench::new();
    bench.file("one.sh", "true\n");
    bench.file("base.qcow2", "");
    let json = packer(r#""provisioners": [{"type": "shell", "script": "one.sh"}]"#);
    let output = qimg(&bench, &["validate", "-"], &json);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let toml = "[base]\nimage = \"base.qcow2\"\nchecksum = \"none\"\n[ssh]\nusername = \"x\"\n[[provision]]\nscripts = [\"one.sh\"]\n";
    let output = qimg(&bench, &["validate", "-"], toml);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = qimg(
        &bench,
        &["validate", "-"],
        &toml.replace("scripts", "scirpts"),
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("there is no key 'scirpts'"), "{said}");
}

#[test]
fn a_box_for_vagrant_needs_no_name() {
    let bench = Bench::new();
    bench.file("base.qcow2", "");
    let text = packer(r#""post-processors": ["vagrant", {"type": "vagrant", "include": []}]"#);
    told(&bench, "t.json", &text, &[]);
}
