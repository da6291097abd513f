//! What becomes of a build that fails, and what is said of builds, by which flag.

use std::collections::BTreeSet;

use crate::workshop::{Ended, Native, Workshop};

const FAILS: &str = "[[provision]]\nlocal = \"echo step; exit 7\"\n\n[cleanup]\nlocal = \"echo cleaned >>cleanup\"\n";

fn left(workshop: &Workshop) -> Vec<String> {
    let others = ["build.toml", "quick.qcow2"];
    let files = workshop.files().into_iter();
    files
        .filter(|name| !others.contains(&name.as_str()))
        .collect()
}

fn fails(workshop: &Workshop, args: &[&str]) -> Ended {
    workshop.build(&Native::quick(FAILS), args).failed(
        3,
        &["provisioner shell-local (line", "ended with exit code 7"],
    )
}

#[test]
fn a_failed_step_ends_as_the_user_wants_it() {
    let workshop = Workshop::new();
    fails(&workshop, &[]);
    assert_eq!(left(&workshop), ["cleanup"]);
    workshop.assert_tidy();

    fails(&workshop, &["-on-error=abort"]).has("its files stay in");
    assert!(left(&workshop).contains(&".output.qimg-work/disk.qcow2".to_owned()));
    assert_eq!(workshop.read("cleanup"), "cleaned\n");
    assert_eq!(workshop.processes(), Vec::<String>::new());

    // What was left on purpose goes only when somebody says so.
    workshop
        .build(&Native::quick(""), &[])
        .failed(1, &["was told to leave", "--force"]);
    fails(&workshop, &["-on-error=run-cleanup-provisioner", "-force"])
        .has("Running the cleanup provisioner");
    assert!(left(&workshop).contains(&".output.qimg-work/disk.qcow2".to_owned()));
    assert_eq!(workshop.read("cleanup"), "cleaned\ncleaned\n");
    assert_eq!(workshop.processes(), Vec::<String>::new());

    // Nobody is there to be asked: as if nothing had been said.
    fails(&workshop, &["-on-error=ask", "-force"]).has("[c]lean up");
    assert_eq!(left(&workshop), ["cleanup"]);
    workshop.assert_tidy();

    let wrong = workshop.build(&Native::quick(""), &["-on-error=explode"]);
    wrong.failed(1, &["explode"]);
}

#[test]
fn a_cleanup_that_fails_does_not_hide_why_it_ran() {
    let workshop = Workshop::new();
    let template =
        Native::quick("[[provision]]\nlocal = \"exit 7\"\n\n[cleanup]\nlocal = \"exit 8\"\n");
    let ended = workshop.build(&template, &[]);
    ended.failed(3, &["The cleanup provisioner failed", "exit code 7"]);
    workshop.assert_tidy();
}

#[test]
fn answers_are_taken_from_standard_input() {
    use std::io::Write;
    use std::process::Stdio;
    let workshop = Workshop::new();
    workshop.make_quick();
    let answered = |answers: &str, args: &[&str], rest: &str| {
        workshop.write("build.toml", &Native::quick(rest).text());
        let mut all = vec!["build", "-force"];
        all.extend(args);
        all.push("build.toml");
        let mut command = workshop.qimg(&all);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(answers.as_bytes()).unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(said).unwrap(),
        )
    };
    let again = "[[provision]]\nlocal = \"[ -e again ] || { touch again; exit 7; }\"\n";
    let (code, said) = answered("r\n", &["-on-error=ask"], again);
    assert_eq!(code, 0, "{said}");
    let (code, said) = answered(
        "a\n",
        &["-on-error=ask"],
        "[[provision]]\nlocal = \"exit 7\"\n",
    );
    assert_eq!(code, 3, "{said}");
    assert!(workshop.path(".output.qimg-work").exists());
    let steps = "[[provision]]\nlocal = \"echo first\"\n[[provision]]\nbreakpoint = \"look\"\n";
    let (code, said) = answered("\n\n\n\n", &["-debug"], steps);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("Next: shell-local. Press enter to continue."),
        "{said}"
    );
    assert!(said.contains("Pausing at breakpoint \"look\""), "{said}");
    // Nobody there: -debug goes on, a breakpoint does not.
    let (code, said) = answered("", &["-debug"], "[[provision]]\nlocal = \"echo first\"\n");
    assert_eq!(code, 0, "{said}");
    let (code, said) = answered("", &[], steps);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("nobody is there to answer"), "{said}");
    workshop.assert_tidy();
}

#[test]
fn a_failed_post_processor_keeps_the_artifact_and_the_others_run() {
    let workshop = Workshop::new();
    let template = Native::quick(
        "[[post]]\nlocal = \"exit 5\"\n[[post]]\nchecksum = [\"sha256\"]\nto = \"sums\"\n",
    );
    let ended = workshop.build(&template, &[]).failed(
        4,
        &[
            "post-processor shell-local",
            "exit code 5",
            "the artifact is there",
            "==> What stays of builds whose post-processors failed:\n",
            ": VM files in: output/disk.qcow2\n",
        ],
    );
    ended
        .has_not("no artifacts were created")
        .has_not("Warning: post-processor");
    let told = ended.said.matches("VM files in: output/disk.qcow2\n");
    assert_eq!(told.count(), 1, "{}", ended.said);
    assert_eq!(left(&workshop), ["output/disk.qcow2", "sums"]);
    workshop.assert_tidy();
}

#[test]
fn a_manifest_has_the_time_when_it_was_written() {
    let workshop = Workshop::new();
    let template = Native::quick(
        "[[provision]]\nlocal = \"sleep 3; date +%s > then\"\n[[post]]\nmanifest = \"m.json\"\n",
    );
    workshop.build(&template, &[]).well();
    let read = |name: &str| std::fs::read_to_string(workshop.path(name)).unwrap();
    let then: u64 = read("then").trim().parse().unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&read("m.json")).unwrap();
    let time = manifest["builds"][0]["build_time"].as_u64().unwrap();
    // Both clocks count whole seconds.
    assert!(time + 1 >= then, "{time} {then}");
}

/// Two builds: one that is good, one whose step fails.
const TWO: &str = r#"
[base]
image = "quick.qcow2"
[machine]
accelerator = "tcg"
memory = "64M"
[ssh]
communicator = "none"
[shutdown]
timeout = "100ms"
[build.good.output]
directory = "good"
[build.bad.output]
directory = "bad"
[[provision]]
local = "echo of-$PACKER_BUILD_NAME"
[[provision]]
only = ["bad"]
local = "exit 7"
[[post]]
name = "sums"
checksum = ["sha256"]
to = "{{.BuildName}}.sums"
"#;

#[test]
fn builds_are_chosen_run_side_by_side_and_do_not_disturb_each_other() {
    let workshop = Workshop::new();
    workshop.make_quick();
    workshop.write("two.toml", TWO);
    for parallel in ["0", "1"] {
        let flag = format!("-parallel-builds={parallel}");
        let ended = workshop.start_file("two.toml", &["-force", &flag]).end();
        ended.failed(
            3,
            &[
                "    good: of-good",
                "    bad: of-bad",
                "--> bad: provisioner",
                "--> good: VM files in: good/good",
            ],
        );
        assert!(workshop.path("good.sums").exists() && !workshop.path("bad").exists());
        workshop.assert_tidy();
    }
    let ended = workshop
        .start_file("two.toml", &["-force", "-only=good"])
        .end()
        .well();
    ended.has_not("bad");
    std::fs::remove_file(workshop.path("good.sums")).unwrap();
    let ended = workshop
        .start_file("two.toml", &["-force", "-except=bad,sums"])
        .end()
        .well();
    ended.has_not("of-bad");
    assert!(!workshop.path("good.sums").exists());
    let ended = workshop.start_file("two.toml", &["-only=none"]).end();
    assert_eq!(ended.code, 1, "{}", ended.said);
    ended.has("none");
    workshop.assert_tidy();
}

#[test]
fn machines_are_told_in_packers_lines_or_in_json() {
    let workshop = Workshop::new();
    workshop.make_quick();
    workshop.write("two.toml", TWO);
    let ended = workshop
        .start_file("two.toml", &["-machine-readable"])
        .end();
    assert_eq!(ended.code, 3);
    let lines: Vec<Vec<&str>> = ended
        .said
        .lines()
        .filter(|line| line.starts_with(|first: char| first.is_ascii_digit()))
        .map(|line| line.split(',').collect())
        .collect();
    let has = |wanted: &[&str]| lines.iter().any(|line| line[1..].starts_with(wanted));
    assert!(
        has(&["", "ui", "say", "==> good: Provisioning with shell-local"]),
        "{}",
        ended.said
    );
    assert!(
        has(&["", "ui", "message", "    good: of-good"]),
        "{}",
        ended.said
    );
    assert!(has(&["", "error-count", "1"]), "{}", ended.said);
    assert!(has(&["bad", "error"]), "{}", ended.said);
    assert!(
        has(&["good", "artifact", "0", "files-count", "1"]),
        "{}",
        ended.said
    );

    let output = workshop
        .qimg(&["build", "-force", "--json", "two.toml"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let events: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let kinds: BTreeSet<&str> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    for kind in [
        "stage-begun",
        "stage-ended",
        "step",
        "note",
        "output",
        "artifact",
        "failure",
        "build-ended",
    ] {
        assert!(kinds.contains(kind), "{kind}: {text}");
    }
    let of_bad: Vec<_> = events
        .iter()
        .filter(|event| event["build"] == "bad")
        .collect();
    assert_eq!(of_bad.last().unwrap()["outcome"], "failed");
    workshop.assert_tidy();
}

#[test]
fn a_plan_hides_secrets_and_a_short_password_hides_no_paths() {
    let workshop = Workshop::new();
    let builder = serde_json::json!({
        "type": "qemu",
        "iso_url": crate::workshop::base(),
        "iso_checksum": "none",
        "disk_image": true,
        "ssh_username": "root",
        "ssh_password": "{{user `password`}}",
        "output_directory": "output",
        "qemuargs": [["-append", "auto password={{user `password`}} token={{user `token`}}"]]
    });
    let template = serde_json::json!({
        "variables": {"password": "output", "token": "x9"},
        "sensitive-variables": ["token"],
        "builders": [builder]
    });
    workshop.write("plan.json", &template.to_string());
    let plan = |password: &str| {
        let variable = format!("password={password}");
        let planned = workshop
            .qimg(&["build", "--plan", "-var", &variable, "plan.json"])
            .output()
            .unwrap();
        assert!(planned.status.success(), "{planned:?}");
        String::from_utf8(planned.stdout).unwrap()
    };
    let planned = plan("correct horse");
    assert!(
        planned.contains("password=<sensitive> token=<sensitive>"),
        "{planned}"
    );
    assert!(
        !planned.contains("correct") && !planned.contains("x9"),
        "{planned}"
    );
    let planned = plan("hunter2");
    assert!(!planned.contains("hunter2"), "{planned}");
    // Half of all templates have such a word for a password.
    let planned = plan("output");
    assert!(planned.contains("/output/"), "{planned}");
}

#[test]
fn a_plan_shows_the_copies_of_firmware_that_the_build_would_write() {
    let workshop = Workshop::new();
    workshop.write("code.fd", "");
    workshop.write("vars.fd", "");
    let template = serde_json::json!({
        "builders": [{
            "type": "qemu",
            "iso_url": crate::workshop::base(),
            "iso_checksum": "none",
            "disk_image": true,
            "ssh_username": "root",
            "output_directory": "output",
            "qemuargs": [
                ["-drive", "if=pflash,format=raw,readonly=on,file=code.fd"],
                ["-drive", "if=pflash,format=raw,file=vars.fd"],
                ["-drive", "file=output/packer-qemu,if=virtio,format=qcow2"]
            ]
        }]
    });
    workshop.write("plan.json", &template.to_string());
    let planned = workshop
        .qimg(&["build", "--plan", "plan.json"])
        .output()
        .unwrap();
    let said = String::from_utf8(planned.stdout).unwrap();
    assert!(said.contains("readonly=on,file=code.fd"), "{said}");
    assert!(
        said.contains("/output/vars.fd") && !said.contains("file=vars.fd"),
        "{said}"
    );
}

#[test]
fn secrets_are_shown_in_no_form_by_no_output() {
    let workshop = Workshop::new();
    workshop.make_quick();
    let secret = "s3cret/+ it's \u{e9}";
    let template = Native {
        top: "[variables]\ntoken = { required = true, sensitive = true }\n".to_owned(),
        ..Native::quick(
            r#"
[[provision]]
local = ["echo plain $TOKEN", "printf %s \"$TOKEN\" | base64 -w0; echo", "printf %s \"x$TOKEN\" | base64 -w0; echo", "printf %s \"$TOKEN\" | python3 -c 'import sys, urllib.parse; print(urllib.parse.quote(sys.stdin.read()), urllib.parse.quote_plus(sys.argv[0]))'", "echo \"quoted: '$(printf %s \"$TOKEN\" | sed \"s/'/'\\\\\\\\''/g\")'\" >&2", "printf %s \"$TOKEN\" >seen", "exit 7"]
env = { TOKEN = "{{user `token`}}" }
"#,
        )
    };
    workshop.write("build.toml", &template.text());
    let variable = format!("token={secret}");
    for form in ["-color=false", "-machine-readable", "--json"] {
        let ended = workshop
            .start_file("build.toml", &[form, "-var", &variable])
            .end();
        assert_eq!(workshop.read("seen"), secret);
        for shown in ["s3cret", "czNjcmV0", "M2NyZXQ", "zY3Jld", "it's", "%20it"] {
            ended.has_not(shown);
        }
        ended.failed(3, &["<sensitive>", "plain "]);
    }
    workshop.assert_tidy();
}
