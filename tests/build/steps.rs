//! Provisioners, each with what it takes, in one guest.

use crate::workshop::{Native, Workshop, base, boots};

#[test]
fn every_step_of_a_native_template_does_what_it_says() {
    let workshop = Workshop::new();
    workshop.write(
        "one.sh",
        "#!/bin/sh\necho \"one $WHO $PACKER_BUILDER_TYPE\" >>/tmp/log\n",
    );
    workshop.write("two.sh", "#!/bin/sh\r\necho two >>/tmp/log\r\n");
    workshop.write("site/index.html", "index\n");
    workshop.write("site/deep/page.html", "page\n");
    workshop.write("a.conf", "a\n");
    workshop.write("b.conf", "b\n");
    workshop.program(
        "qimg-provisioner-look",
        "#!/bin/sh\ncat >given.json\necho looked; echo complained >&2\n",
    );
    let steps = r#"
[[provision]]
shell = ["echo \"inline $WHO\" >>/tmp/log", "echo to-stderr >&2", "id -un >/tmp/who"]
env = { WHO = "it's me" }

[[provision]]
scripts = ["one.sh", "two.sh"]
environment = ["WHO=you"]
pause-before = "100ms"

[[provision]]
shell = "id -u >>/log"
sudo = true

[[provision]]
shell = "cat /tmp/log >>/log"
execute-command = "chmod +x {{.Path}}; sudo env {{.Vars}} {{.Path}}"
remote-folder = "/home/builder"

[[provision]]
shell = "exit 9"
valid-exit-codes = [0, 9]

[[provision]]
shell = "[ -e /tmp/again ] || { touch /tmp/again; exit 1; }"
max-retries = 2
timeout = "200s"

[[provision]]
upload = "site"
to = "/home/builder/whole"

[[provision]]
upload = "site/"
to = "/home/builder/inside"

[[provision]]
upload = "*.conf"
to = "/home/builder/"

[[provision]]
content = "made of {{build `ID`}}\n"
to = "/home/builder/content"

[[provision]]
shell = "cat /proc/sys/kernel/random/boot_id >boot-1"

[[provision]]
reboot = true

[[provision]]
shell = "cat /proc/sys/kernel/random/boot_id >boot-2; mkdir -p out/deep; echo x >out/deep/x"

[[provision]]
shell = "sudo reboot; sleep 1000"
expect-disconnect = true
pause-after = "3s"

[[provision]]
shell = ["cat /proc/sys/kernel/random/boot_id >boot-3", "sudo sh -c 'cat boot-1 boot-2 boot-3 content a.conf b.conf inside/index.html inside/deep/page.html >>/log'", "find . -name page.html | sort >found", "sudo cp found /found"]

[[provision]]
download = "boot-*"
to = "down/"

[[provision]]
download = "out/"
to = "got"

[[provision]]
local = "echo \"$PACKER_BUILD_NAME $WHERE\" >local"
env = { WHERE = "here" }

[[provision]]
sleep = "10ms"

[[provision]]
custom = "look"
options = { depth = 3, name = "{{build_name}}" }

[[provision]]
breakpoint = "not here"
disabled = true
"#;
    let template = Native::with(steps).ssh("username = \"builder\"");
    let ended = workshop.build(&template, &["-color=false"]).well();
    ended
        .has("==> build: to-stderr")
        .has("failed and is tried again (1 of 2)")
        .has("The guest is back after")
        .has("The script ended the connection, as expected")
        .has("    build: looked")
        .has("==> build: complained")
        .has("Breakpoint \"not here\" is disabled")
        .has("Removing what the build brought into the guest")
        .has("injected-users: removed 2");
    let cat = |path| workshop.cat("output/disk.qcow2", path);
    let log = cat("/log").unwrap();
    let lines: Vec<&str> = log.lines().collect();
    // What the guest said of itself, in order.
    assert_eq!(lines[..4], ["0", "inline it's me", "one you qemu", "two"]);
    assert_eq!(lines.len(), 4 + 8, "{log}");
    assert_ne!(lines[4], lines[5]);
    assert_ne!(lines[5], lines[6]);
    assert_eq!(lines[7..], ["made of VM", "a", "b", "index", "page"]);
    assert_eq!(
        cat("/found").as_deref(),
        Some("./inside/deep/page.html\n./whole/deep/page.html\n")
    );
    let boots: Vec<String> = (1..=3)
        .map(|number| workshop.read(&format!("down/boot-{number}")))
        .collect();
    assert_eq!(boots[0].trim(), lines[4]);
    assert_eq!(boots[2].trim(), lines[6]);
    assert_eq!(workshop.read("got/deep/x"), "x\n");
    assert_eq!(workshop.read("local"), "build here\n");
    let given: serde_json::Value = serde_json::from_str(&workshop.read("given.json")).unwrap();
    assert_eq!(
        given["options"],
        serde_json::json!({"depth": 3, "name": "build"})
    );
    assert_eq!(given["connection"]["user"], "builder");
    assert!(given["connection"]["port"].as_u64().unwrap() > 1000);
    // The user was the build's own; the one that the distribution makes is there.
    let users = cat("/etc/passwd").unwrap();
    assert!(
        !users.contains("builder") && users.contains("user:"),
        "{users}"
    );
    assert_eq!(cat("/home/builder/.ssh/authorized_keys"), None);
    assert_eq!(cat("/root/.ssh/authorized_keys"), None);
    workshop.assert_tidy();
}

#[test]
fn every_step_of_a_packer_template_does_what_packer_says() {
    let workshop = Workshop::new();
    let arguments: serde_json::Value = serde_json::from_str(&boots("")).unwrap();
    workshop.write("script.sh", "#!/bin/sh\necho \"script $A\" >>/log\n");
    workshop.write("file", "file\n");
    let template = serde_json::json!({
        "variables": {"word": "from-variable"},
        "builders": [{
            "name": "vm", "type": "qemu", "accelerator": "tcg", "iso_url": base(), "iso_checksum": "none",
            "disk_image": true, "headless": true, "memory": 256, "qemuargs": arguments, "ssh_username": "root",
            "output_directory": "output", "vm_name": "disk.qcow2",
            "shutdown_command": "poweroff", "shutdown_timeout": "4m"
        }],
        "provisioners": [
            {"type": "shell", "inline": ["echo \"inline $A $B\" >>/log"],
             "environment_vars": ["A=a b", "B={{user `word`}}"], "pause_before": "10ms"},
            {"type": "shell", "script": "script.sh", "environment_vars": ["A={{build_name}}"]},
            {"type": "shell", "inline": ["echo overridden >>/log"],
             "override": {"vm": {"inline": ["echo over >>/log"]}}, "only": ["vm"]},
            {"type": "shell", "inline": ["exit 4"], "except": ["vm"]},
            {"type": "shell", "inline": ["exit 4"], "valid_exit_codes": [4]},
            {"type": "shell", "inline": ["reboot; sleep 1000"], "expect_disconnect": true, "pause_after": "3s"},
            {"type": "shell", "inline": ["[ -e /again ] || { touch /again; exit 1; }"], "max_retries": "1"},
            {"type": "file", "source": "file", "destination": "/sent"},
            {"type": "file", "direction": "download", "source": "/log", "destination": "log"},
            {"type": "shell-local", "command": "echo local >local"},
            {"type": "breakpoint", "disable": true, "note": "no"}
        ],
        "error-cleanup-provisioner": {"type": "shell-local", "inline": ["echo cleanup >cleanup"]},
        "post-processors": [
            [{"type": "checksum", "checksum_types": ["sha256"], "output": "sums", "keep_input_artifact": true}],
            {"type": "manifest", "output": "manifest.json"},
            {"type": "shell-local", "inline": ["echo post $PACKER_BUILD_NAME >post"]}
        ]
    });
    workshop.write("packer.json", &template.to_string());
    let ended = workshop.start_file("packer.json", &[]).end().well();
    ended
        .has("Waiting for SSH, for 1200 s at most")
        .has("tried again (1 of 1)")
        .has("Ended by the shutdown command");
    assert_eq!(
        workshop.read("log"),
        "inline a b from-variable\nscript vm\nover\n"
    );
    let cat = |path| workshop.cat("output/disk.qcow2", path);
    assert_eq!(cat("/sent").as_deref(), Some("file\n"));
    assert_eq!(workshop.read("local"), "local\n");
    assert_eq!(workshop.read("post"), "post vm\n");
    assert!(workshop.read("sums").contains("disk.qcow2"));
    assert!(workshop.read("manifest.json").contains("\"vm\""));
    assert!(!workshop.path("cleanup").exists());
    // Nothing is sealed, but what let the build in is gone.
    assert_eq!(cat("/root/.ssh/authorized_keys"), None);
    workshop.assert_tidy();
}
