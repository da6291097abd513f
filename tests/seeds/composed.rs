//! Seeds made of options, of several parts, and those that are refused.

use crate::Bench;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE1vZGVsS2V5TW9kZWxLZXlNb2RlbEtleU1vZGVsS2V5 me@home";

/// user-data of a seed, as it is.
fn user_data(bench: &Bench, image: &str) -> String {
    bench.qimg(&["cat", &format!("{image}:/user-data")]).well()
}

/// What Python's YAML, which is cloud-init's, reads `text` as.
fn as_json(bench: &Bench, text: &str) -> serde_json::Value {
    bench.file("text.yaml", text);
    let script = "import yaml, json, sys; print(json.dumps(yaml.safe_load(open(sys.argv[1], encoding='utf-8'))))";
    serde_json::from_str(&bench.tool("/usr/bin/python3", &["-c", script, "text.yaml"])).unwrap()
}

#[test]
fn options_become_a_cloud_config_that_cloud_init_reads() {
    let bench = Bench::new();
    bench.file("id.pub", format!("{KEY}\n# a comment\n\n{KEY}2\n"));
    let awkward = "#!/bin/sh\n\techo \"ünïcode: yes\" # 'quoted'\n\n  done\n";
    bench.file("script", awkward);
    bench.file("binary", [0u8, 1, 255, 10]);
    let hash = "$6$salt$hash/with.dots";
    let said = bench.qimg(&[
        "seed",
        "-q",
        "--user",
        "me",
        "--ssh-key",
        "id.pub",
        "--ssh-key",
        KEY,
        "--password-hash",
        hash,
        "--hostname",
        "web1",
        "--package",
        "nginx",
        "--package",
        "no",
        "--run",
        "echo a: b | tee /x",
        "--run",
        "true",
        "--write-file",
        "script:/usr/local/bin/a b:755",
        "--write-file",
        "binary:/etc/binary",
        "--timezone",
        "Europe/Berlin",
        "--strict",
    ]);
    said.well();
    let text = user_data(&bench, "seed.img");
    let json = as_json(&bench, &text);
    let user = &json["users"][0];
    assert_eq!(
        (&user["name"], &user["passwd"], &user["lock_passwd"]),
        (&"me".into(), &hash.into(), &false.into())
    );
    assert_eq!(
        user["ssh_authorized_keys"].as_array().map(Vec::len),
        Some(3),
        "{text}"
    );
    assert_eq!(json["packages"], serde_json::json!(["nginx", "no"]));
    assert_eq!(
        json["runcmd"],
        serde_json::json!(["echo a: b | tee /x", "true"])
    );
    let files = &json["write_files"];
    assert_eq!(
        (&files[0]["path"], &files[0]["content"]),
        (&"/usr/local/bin/a b".into(), &awkward.into())
    );
    assert_eq!(files[0]["permissions"], "0755");
    assert_eq!(
        (&files[1]["encoding"], &files[1]["content"]),
        (&"b64".into(), &"AAH/Cg==".into())
    );
    bench.file("made", &text);
    bench.tool("cloud-init", &["schema", "-c", "made"]);
}

#[test]
fn awkward_values_of_meta_data_come_through() {
    let bench = Bench::new();
    for id in [
        "plain",
        "with: colon",
        "\"quoted\"",
        "yes",
        "0123",
        "a\\b",
        "ünï",
        "2020-01-01",
        "- x",
    ] {
        bench
            .qimg(&["seed", "-q", "user-data", &format!("--instance-id={id}")])
            .well();
        let text = bench.qimg(&["cat", "seed.img:/meta-data"]).well();
        assert_eq!(as_json(&bench, &text)["instance-id"], id, "{text}");
    }
}

#[test]
fn several_parts_come_apart_again_as_they_were() {
    let bench = Bench::new();
    bench.file("b.sh", "#!/bin/sh\necho ünïcode\nno end of line");
    bench.file(
        "c.yaml",
        format!("#cloud-config\nfinal_message: {}\n", "long ".repeat(300)),
    );
    bench.file("d.txt", "#include\nhttp://example.com/x\n");
    bench.file(
        "e.jinja",
        "## template: jinja\n#cloud-config\nhostname: {{ v1.local_hostname }}\n",
    );
    let script = r#"
import email, json, sys
message = email.message_from_bytes(open(sys.argv[1], 'rb').read())
parts = [p for p in message.walk() if p.get_content_maintype() != 'multipart']
print(json.dumps([[p.get_content_type(), p.get_filename(), list(p.get_payload(decode=True))] for p in parts]))
"#;
    let files = ["user-data", "b.sh", "c.yaml", "d.txt", "e.jinja"];
    for gzip in [false, true] {
        let mut arguments = vec![
            "seed",
            "-q",
            "user-data",
            "-u",
            "b.sh",
            "-u",
            "c.yaml",
            "-u",
            "d.txt",
            "-u",
            "e.jinja",
        ];
        arguments.extend(gzip.then_some("--gzip"));
        bench.qimg(&arguments).well();
        let shown = bench.qimg(&["seed", "show", "--json", "seed.img"]).json();
        let types = serde_json::json!([
            "text/cloud-config",
            "text/x-shellscript",
            "text/cloud-config",
            "text/x-include-url",
            "text/jinja2"
        ]);
        assert_eq!(shown["user-data"]["parts"], types, "{shown}");
        let raw = bench
            .run("isoinfo", &["-R", "-i", "seed.img", "-x", "/user-data"])
            .stdout;
        bench.file("message", raw);
        if gzip {
            bench.tool("sh", &["-c", "gzip -dc message >plain && mv plain message"]);
        }
        let parts: serde_json::Value =
            serde_json::from_str(&bench.tool("python3", &["-c", script, "message"])).unwrap();
        for ((part, file), kind) in parts
            .as_array()
            .unwrap()
            .iter()
            .zip(files)
            .zip(types.as_array().unwrap())
        {
            assert_eq!((&part[0], &part[1]), (kind, &file.into()));
            assert_eq!(part[2], serde_json::json!(bench.read(file)), "{file}");
        }
    }
}

#[test]
fn another_seed_is_another_instance_and_the_same_one_is_not() {
    let bench = Bench::new();
    let id = |arguments: &[&str]| {
        let said = bench
            .qimg(&[&["seed", "--json", "-n", "user-data"][..], arguments].concat())
            .json();
        said["instance-id"].as_str().unwrap().to_owned()
    };
    bench.file("network", "version: 2\n");
    let plain = id(&[]);
    assert!(plain.len() == 17 && plain.starts_with("qimg-"), "{plain}");
    assert_eq!(plain, id(&["-f", "vfat", "-d", "qcow2"]));
    let all = [
        plain,
        id(&["-H", "a"]),
        id(&["-H", "b"]),
        id(&["-N", "network"]),
        id(&["-m", "net"]),
    ];
    assert_eq!(std::collections::BTreeSet::from(all).len(), 5);
    assert_eq!(id(&["--instance-id", "mine"]), "mine");
}

#[test]
fn findings_warn_and_strict_fails() {
    let bench = Bench::new();
    bench.file(
        "bad",
        "#cloud-config\nrumcmd: [a]\nruncmd:\n  - echo a: b\n\tx\n",
    );
    bench.file(
        "worse",
        "#cloud-config\nrumcmd: [a]\nruncmd:\n  - echo a: b\nruncmd: [b]\n",
    );
    let said = bench.qimg(&["seed", "worse", "-o", "seed.img"]);
    assert_eq!(said.code, Some(0));
    for line in [
        "qimg: worse:2:1: warning: no module of cloud-init reads the key 'rumcmd'\n  hint: did you mean 'runcmd'?\n",
        "qimg: worse:4:5: warning: 'runcmd.0' takes a list, a text or nothing, and this is a map\n",
        "qimg: worse:5:1: warning: the key 'runcmd' is there twice",
    ] {
        assert!(said.err.contains(line), "{}", said.err);
    }
    std::fs::remove_file(bench.path().join("seed.img")).unwrap();
    let said = bench.qimg(&["seed", "--strict", "worse"]);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
    assert!(
        said.err.ends_with("qimg: --strict: something was found\n"),
        "{}",
        said.err
    );
    assert!(!bench.path().join("seed.img").exists());
    let said = bench.qimg(&["seed", "bad"]);
    assert!(
        said.err.contains("bad:5:1: warning: is not valid YAML") && said.err.contains("no tabs"),
        "{}",
        said.err
    );
    let said = bench.qimg(&["seed", "-n", "--strict", "user-data"]).well();
    assert!(
        said.starts_with("seed.img: would be an iso9660 volume"),
        "{said}"
    );
}

#[test]
fn impossible_wishes_are_refused_and_inputs_stay() {
    let bench = Bench::new();
    bench.file("key", "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n");
    bench.file("plain", "just text\n");
    for (arguments, reason) in [
        (&["seed"][..], "there is nothing to put into a seed"),
        (&["seed", "nowhere"], "cannot open it"),
        (&["seed", "user-data", "-o", "user-data"], "is an input"),
        (&["seed", "user-data", "-o", "./user-data"], "is an input"),
        (&["seed", "--user", "me", "--ssh-key", "key"], "private key"),
        (&["seed", "--ssh-key", "ssh-rsa AAAA"], "no public key"),
        (
            &["seed", "--user", "me", "--password-hash", "secret"],
            "no hash",
        ),
        (&["seed", "--password-hash", "$6$a$b"], "--user"),
        (&["seed", "--user", "a b"], "no name for a user"),
        (
            &["seed", "user-data", "-u", "plain"],
            "kind as one of several parts",
        ),
        (
            &[
                "seed",
                "user-data",
                "--label",
                "a label that is much too long for it",
            ],
            "label",
        ),
        (
            &["seed", "user-data", "--add", "user-data=plain"],
            "is there twice",
        ),
        (&["seed", "user-data", "--add", "a:b=plain"], "not a name"),
        (
            &["seed", "--write-file", "plain", "user-data"],
            "where the file goes",
        ),
        (&["seed", "user-data", "-d", "vmdk"], "raw and qcow2"),
        (
            &["seed", "user-data", "--meta-data", "plain", "-H", "x"],
            "cannot be used with",
        ),
        (&["seed", "-", "-u", "-"], "standard input is named twice"),
    ] {
        let said = bench.qimg(arguments);
        assert!(
            said.code == Some(1) && said.err.contains(reason),
            "{arguments:?}: {}",
            said.err
        );
    }
    assert!(bench.read("user-data").starts_with(b"#cloud-config"));
    assert!(!bench.path().join("seed.img").exists());
}

#[test]
fn user_data_comes_from_standard_input() {
    use std::io::Write;
    let bench = Bench::new();
    let mut command = crate::program::command();
    command
        .current_dir(bench.path())
        .args(["seed", "-q", "-", "-o", "a.img"]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&bench.read("user-data"))
        .unwrap();
    assert!(child.wait().unwrap().success());
    bench
        .qimg(&["seed", "-q", "user-data", "-o", "b.img"])
        .well();
    assert!(bench.read("a.img") == bench.read("b.img"));
}
