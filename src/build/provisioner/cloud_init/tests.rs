use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::build::provisioner::tests::World;

const SHELLS: [&[&str]; 3] = [&["dash"], &["bash"], &["busybox", "sh"]];

const STATUS: &str = r#"{
 "v1": {
  "datasource": "DataSourceNoCloud [seed=/dev/sr0]",
  "init": {"errors": [], "finished": 1.5, "start": 1.1, "recoverable_errors": {}},
  "modules-final": {
   "errors": ["('runcmd', ProcessExecutionError())"],
   "recoverable_errors": {"DEPRECATED": ["old key"], "WARNING": ["bad key", "bad key"]},
   "finished": 2.0, "start": 1.9
  },
  "stage": null
 }
}"#;

fn result(lines: &str) -> CloudInit {
    let mut answer = Answer::default();
    for line in lines.lines() {
        answer.take(line);
    }
    answer.result()
}

#[test]
fn errors_are_found_in_what_all_versions_leave() {
    let text = |name: &str, text: &str| {
        let lines: Vec<_> = text.lines().map(|line| format!("|{line}")).collect();
        format!(
            "qimg-cloud-init file {name}\n{}\n\nqimg-cloud-init end\n",
            lines.join("\n")
        )
    };
    let found = result(&text("status.json", STATUS));
    assert_eq!(
        found.datasource.as_deref(),
        Some("DataSourceNoCloud [seed=/dev/sr0]")
    );
    assert_eq!(found.errors, ["('runcmd', ProcessExecutionError())"]);
    assert_eq!(found.complaints, ["WARNING: bad key"]);
    // Both files tell the same error.
    let both = text("status.json", STATUS)
        + &text(
            "result.json",
            r#"{"v1": {"datasource": "x", "errors": ["('runcmd', ProcessExecutionError())", "second"]}}"#,
        );
    assert_eq!(
        result(&both).errors,
        ["('runcmd', ProcessExecutionError())", "second"]
    );
    let old =
        "status: error\ntime: Tue, 01 Jan 2019 00:00:00 +0000\ndetail:\n('ssh',\n KeyError('x'))\n";
    assert_eq!(
        result(&text("status.txt", old)).errors,
        ["('ssh', KeyError('x'))"]
    );
    assert!(
        result(&text("status.txt", "status: done\ndetail:\nx\n"))
            .errors
            .is_empty()
    );
    for broken in [
        "",
        "{",
        "null",
        r#"{"v1": 3}"#,
        r#"{"v1": {"a": {"errors": {"b": 1}}, "errors": [[[]]]}}"#,
    ] {
        result(&text("status.json", broken));
    }
}

/// The script below a root of its own: paths in it are rewritten.
struct Fake(World);

impl Fake {
    fn new() -> Self {
        let fake = Self(World::new());
        for directory in [
            "run/cloud-init",
            "var/lib/cloud/instance",
            "etc/cloud",
            "bin",
        ] {
            std::fs::create_dir_all(fake.0.directory.path().join(directory)).unwrap();
        }
        fake.program(
            "cloud-init",
            "echo 'status: error'; echo 'detail:'; echo broken",
        );
        fake
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.0.directory.path().join("bin").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn write(&self, path: &str, text: &str) {
        std::fs::write(self.0.directory.path().join(path), text).unwrap();
    }

    fn wait(&self, shell: &[&'static str], seconds: u64) -> Result<CloudInit> {
        self.wait_for("cloud-init", shell, seconds)
    }

    /// With a cloud-init of another name: the host of the test may have one.
    fn wait_for(&self, name: &str, shell: &[&'static str], seconds: u64) -> Result<CloudInit> {
        let root = self.0.directory.path().to_str().unwrap().to_owned();
        let mut guest = self.0.guest().with_shell(shell);
        guest.path = format!("{root}/bin:/usr/bin:/bin");
        guest.rewrite = [" /etc/cloud", "=/run/cloud", "=/var/lib", " /run/systemd"]
            .map(|from| {
                (
                    from.to_owned(),
                    format!("{}{root}{}", &from[..1], &from[1..]),
                )
            })
            .to_vec();
        guest
            .rewrite
            .push(("-v cloud-init".to_owned(), format!("-v {name}")));
        self.0.with(None, |context| {
            wait(
                &guest,
                Duration::from_secs(seconds),
                context.reporter,
                &|| false,
            )
        })
    }
}

#[test]
fn cloud_init_is_waited_for_by_every_shell() {
    for shell in SHELLS {
        let fake = Fake::new();
        fake.write(
            "run/cloud-init/status.json",
            r#"{"v1": {"stage": "modules-config"}}"#,
        );
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(700));
                fake.write("run/cloud-init/status.json", STATUS);
                fake.write("run/cloud-init/result.json", r#"{"v1": {"errors": []}}"#);
            });
            let started = Instant::now();
            let found = fake.wait(shell, 60).unwrap();
            assert_eq!(
                (found.state, found.errors.len()),
                (State::Done, 1),
                "{shell:?}"
            );
            assert!(started.elapsed() < Duration::from_secs(5));
        });
        let waits = fake.0.kept.0.lock().unwrap();
        let stage = waits
            .iter()
            .any(|event| format!("{event:?}").contains("modules-config"));
        assert!(stage, "{shell:?}: {waits:?}");
    }
}

#[test]
fn no_cloud_init_is_none() {
    let fake = Fake::new();
    let found = fake
        .wait_for("no-cloud-init", &["busybox", "sh"], 5)
        .unwrap();
    assert_eq!(found.state, State::Absent);
    let fake = Fake::new();
    fake.write("etc/cloud/cloud-init.disabled", "");
    assert_eq!(fake.wait(&["dash"], 5).unwrap().state, State::Disabled);
    let fake = Fake::new();
    fake.write("run/cloud-init/disabled", "");
    assert_eq!(fake.wait(&["dash"], 5).unwrap().state, State::Disabled);
}

#[test]
fn an_old_one_is_asked_for_its_status() {
    let fake = Fake::new();
    std::fs::remove_dir(fake.0.directory.path().join("run/cloud-init")).unwrap();
    fake.write("var/lib/cloud/instance/boot-finished", "");
    assert_eq!(fake.wait(&["dash"], 5).unwrap().errors, ["broken"]);
}

#[test]
fn one_that_never_ends_is_given_up_with_its_stage() {
    let fake = Fake::new();
    fake.write("run/cloud-init/status.json", r#"{"v1": {"stage": "init"}}"#);
    let error = fake.wait(&["dash"], 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("stage init"), "{error}");
}
