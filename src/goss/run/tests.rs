//! The script in real shells of this machine: dash, bash, and busybox with nothing but its own applets.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Run, RunOptions, run};
use crate::communicator::scripted::{Answer, Scripted};
use crate::communicator::{Communicator, Exit, Lines, Stream};
use crate::error::{Error, ErrorKind, Result};
use crate::goss::State;
use crate::goss::load::load_text;

const NEVER: &crate::communicator::Stop = &|| false;

/// A guest that is this machine, seen through one shell.
struct Shell {
    words: Vec<&'static str>,
    path: Option<String>,
}

impl Communicator for Shell {
    fn run(&self, _: &str, _: Option<Duration>, _: &mut Lines<'_>) -> Result<Exit> {
        Err(Error::unsupported("nobody runs anything"))
    }

    fn pipe(
        &self,
        _: &str,
        input: &mut (dyn Read + Send),
        output: &mut (dyn Write + Send),
        lines: &mut Lines<'_>,
    ) -> Result<Exit> {
        let mut script = Vec::new();
        input.read_to_end(&mut script).unwrap();
        let mut command = Command::new(self.words[0]);
        command
            .args(&self.words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(&script));
        let done = child.wait_with_output().unwrap();
        let _ = writer.join();
        for line in String::from_utf8_lossy(&done.stderr).lines() {
            lines(Stream::Err, line);
        }
        output
            .write_all(&done.stdout)
            .map_err(|error| Error::io("collect", error))?;
        Ok(done.status.code().map_or(Exit::Disconnected, Exit::Code))
    }

    fn upload(&self, _: &mut (dyn Read + Send), _: u64, _: &str, _: u32) -> Result<()> {
        unreachable!()
    }

    fn download(&self, _: &str, _: &mut (dyn Write + Send)) -> Result<()> {
        unreachable!()
    }

    fn disconnect(&self) {}

    fn probe(&self, _: Duration) -> Result<()> {
        Ok(())
    }
}

fn shells() -> Vec<(&'static str, Shell)> {
    let shell = |words: &[&'static str]| Shell {
        words: words.to_vec(),
        path: None,
    };
    vec![
        ("dash", shell(&["/bin/sh", "-s"])),
        ("bash", shell(&["/bin/bash", "--posix", "-s"])),
        ("busybox", shell(&["/usr/bin/busybox", "sh", "-s"])),
    ]
}

fn ask(text: &str, guest: &dyn Communicator) -> Run {
    let suite = load_text(text).unwrap();
    let options = RunOptions {
        max_concurrent: 4,
        ..RunOptions::default()
    };
    run(&suite.checks, guest, &options, NEVER, &mut |_, _| {}).unwrap()
}

/// Each property with how it went.
fn states(run: &Run) -> Vec<(String, State)> {
    { run.outcomes.iter() }
        .map(|outcome| {
            (
                format!("{}.{}", outcome.id, outcome.property),
                outcome.state,
            )
        })
        .collect()
}

#[test]
fn a_machine_is_looked_at_through_any_shell() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(at("a file"), "one\ntwo words\n").unwrap();
    std::fs::write(at("empty"), "").unwrap();
    std::os::unix::fs::symlink("a file", at("link")).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(at("a file"), std::fs::Permissions::from_mode(0o4640)).unwrap();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let place = directory.path().display();
    let text = format!(
        r#"
file:
  "{place}/a file":
    exists: true
    mode: "4640"
    size: 14
    uid: {{ge: 0}}
    filetype: file
    contents: [one, "/^two w/", "!three"]
    md5: 407f5ce89e72c8570ccf5c07f4805c85
    sha256: {{have-len: 64}}
    sha512: {{have-len: 128}}
  {place}/empty: {{exists: true, size: 0, contents: ""}}
  {place}/link: {{exists: true, filetype: symlink, linked-to: a file, contents: [one]}}
  {place}: {{exists: true, filetype: directory}}
  /dev/null: {{exists: true, filetype: character-device}}
  {place}/absent: {{exists: false}}
user:
  root: {{exists: true, uid: 0, gid: 0, groups: [root], home: /root}}
  nobody-of-that-name: {{exists: false}}
group:
  root: {{exists: true, gid: 0}}
port:
  tcp:{port}: {{listening: true, ip: {{consist-of: [127.0.0.1]}}}}
  tcp:1: {{listening: false}}
mount:
  /proc: {{exists: true, filesystem: proc, source: proc}}
  /: {{exists: true, usage: {{le: 100}}}}
kernel-param:
  kernel.ostype: {{value: Linux}}
interface:
  lo: {{exists: true, mtu: {{ge: 1500}}, addrs: [127.0.0.1/8]}}
  no-such0: {{exists: false}}
process:
  no-such-process: {{running: false}}
service:
  no-such-service: {{enabled: false, running: false}}
package:
  no-such-package: {{installed: false}}
command:
  "printf 'a\\nb\\n'; echo c >&2; exit 3":
    exit-status: 3
    stdout: "a\nb\n"
    stderr: [c]
  silence: {{exec: "true", exit-status: 0, stdout: "", stderr: ""}}
  input: {{exec: "cat; echo end", exit-status: 0, stdout: "end\n"}}
  binary: {{exec: "printf '\\000\\377'", exit-status: 0, stdout: {{have-len: {{ge: 2}}}}}}
  quotes: {{exec: "echo \"$HOME\" 'it'\\''s' `echo x`", exit-status: 0, stdout: ["it's x"]}}
addr:
  tcp://127.0.0.1:{port}: {{reachable: true, timeout: 5000}}
  tcp://127.0.0.1:1: {{reachable: false, timeout: 1000}}
dns:
  localhost: {{resolvable: true, addrs: {{contain-element: {{match-regexp: "^(127.0.0.1|::1)$"}}}}, timeout: 5000}}
"#
    );
    for (name, shell) in shells() {
        let run = ask(&text, &shell);
        for outcome in &run.outcomes {
            assert_eq!(
                outcome.state,
                State::Passed,
                "{name}: {}",
                outcome.summary()
            );
        }
        assert!(run.outcomes.len() > 60, "{name}: {}", run.outcomes.len());
        assert_eq!(run.rounds, 1);
    }
}

#[test]
fn what_differs_fails_and_what_is_absent_is_skipped() {
    let text = "file:\n  /etc/passwd: {exists: false}\n  /no/such/file: {exists: true, mode: '0644', contents: [x]}\n\
                command:\n  exit 4: {exit-status: 0}\nkernel-param:\n  kernel.no_such: {value: x}\n";
    for (name, shell) in shells() {
        let run = ask(text, &shell);
        use State::{Failed, Skipped};
        let wanted = [
            ("/etc/passwd.exists", Failed),
            ("/no/such/file.exists", Failed),
            ("/no/such/file.mode", Skipped),
            ("/no/such/file.contents", Skipped),
            ("exit 4.exit-status", Failed),
            ("kernel.no_such.value", Failed),
        ];
        let wanted: Vec<_> = wanted.map(|(id, state)| (id.to_owned(), state)).to_vec();
        assert_eq!(states(&run), wanted, "{name}");
    }
}

#[test]
fn a_command_without_an_end_is_ended() {
    let text = "command:\n  echo started; sleep 600: {exit-status: 0, timeout: 1000}\n  sleep 0: {exit-status: 0}\n";
    for (name, shell) in shells() {
        let started = std::time::Instant::now();
        let run = ask(text, &shell);
        assert!(started.elapsed() < Duration::from_secs(120), "{name}");
        assert_eq!(
            run.outcomes[0].error.as_deref(),
            Some("the command took longer than 1000 ms"),
            "{name}"
        );
        assert_eq!(run.outcomes[1].state, State::Passed, "{name}");
    }
}

/// Without timeout(1) and base64(1) the script has its own ways.
#[test]
fn a_poor_userland_is_enough() {
    let bin = tempfile::tempdir().unwrap();
    for tool in [
        "sh", "mktemp", "rm", "od", "tr", "head", "cat", "id", "date", "sleep", "grep", "ls",
        "readlink", "awk",
    ] {
        let path = ["/usr/bin", "/bin"].map(|directory| Path::new(directory).join(tool));
        let path = path.iter().find(|path| path.exists()).unwrap();
        std::os::unix::fs::symlink(path, bin.path().join(tool)).unwrap();
    }
    let suite = load_text(
        "file:\n  /etc/passwd: {exists: true, mode: '0644', uid: 0, filetype: file, contents: ['/^root:/']}\n\
         command:\n  echo hi: {exit-status: 0, stdout: [hi]}\n  slow: {exec: sleep 300, exit-status: 0, timeout: 1000}\n",
    )
    .unwrap();
    let checks: Vec<_> = suite.checks.iter().collect();
    let options = super::ScriptOptions { max_concurrent: 1 };
    // The script looks in the usual places, too: here there are none.
    let script = super::script(&checks, options).replace(
        ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "",
    );
    assert!(script.starts_with("# Looks"));
    let shell = Shell {
        words: vec!["/bin/sh", "-s"],
        path: Some(bin.path().display().to_string()),
    };
    let answers = super::ask(&shell, &script, false, checks.len()).unwrap();
    let states: Vec<_> = { checks.iter().enumerate() }
        .flat_map(|(number, check)| {
            super::judge(check, &mut |name| {
                super::fact(check, number, name, &answers)
            })
        })
        .map(|outcome| (outcome.property.clone(), outcome.state, outcome.error))
        .collect();
    let (last, others) = states.split_last().unwrap();
    for (property, state, error) in others {
        assert_eq!(*state, State::Passed, "{property}: {error:?}");
    }
    assert!(
        last.2.as_deref().unwrap().contains("took longer"),
        "{last:?}"
    );
}

#[test]
fn a_guest_is_asked_again_until_all_is_well() {
    let text = "command:\n  x: {exit-status: 0}\n";
    let suite = load_text(text).unwrap();
    let said = |code: &str| {
        Answer::default()
            .bytes(format!("g uid =0\n0 exit ={code}\n0 took =0\ng end =1\n").as_bytes())
    };
    let guest = Scripted::new()
        .on("sh -s", said("1"))
        .on(
            "sh -s",
            Answer::failed(ErrorKind::Connection, "it went away"),
        )
        .on("sh -s", said("0"));
    let options = RunOptions {
        retry_timeout: Duration::from_secs(60),
        sleep: Duration::from_millis(1),
        ..RunOptions::default()
    };
    let mut told = Vec::new();
    let done = run(
        &suite.checks,
        &guest,
        &options,
        NEVER,
        &mut |round, failures| {
            told.push((round, failures));
        },
    )
    .unwrap();
    assert_eq!((done.rounds, told.as_slice()), (3, &[(1, 1), (2, 1)][..]));
    assert_eq!(done.as_root, Some(true));
    let error = run(&suite.checks, &guest, &options, &|| true, &mut |_, _| {});
    // All was well: there was nothing to wait for.
    assert!(error.is_ok());
}

#[test]
fn a_guest_that_babbles_is_told_apart_from_one_that_fails() {
    let suite = load_text("command:\n  x: {exit-status: 0}\n").unwrap();
    for (answer, words) in [
        (
            Answer::default().bytes(b"Welcome to this machine\n"),
            "a line that is none",
        ),
        (
            Answer::default().err("sh: not found"),
            "its shell said: sh: not found",
        ),
        (Answer::disconnected(), "the connection ended"),
    ] {
        let guest = Scripted::new().on("sh -s", answer);
        let error = run(
            &suite.checks,
            &guest,
            &RunOptions::default(),
            NEVER,
            &mut |_, _| {},
        )
        .unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn what_is_written_down_of_a_machine_it_passes() {
    let (_, shell) = shells().remove(0);
    let kinds = [
        crate::goss::Kind::User,
        crate::goss::Kind::Mount,
        crate::goss::Kind::Interface,
        crate::goss::Kind::File,
        crate::goss::Kind::KernelParam,
    ];
    let text = crate::goss::generate::generate(&shell, &kinds, false).unwrap();
    assert!(
        text.contains("user:\n  \"root\":\n    exists: true\n    uid: 0\n"),
        "{text}"
    );
    let run = ask(&text, &shell);
    for outcome in &run.outcomes {
        assert_eq!(outcome.state, State::Passed, "{}", outcome.summary());
    }
}

#[test]
fn an_emulated_guest_has_more_time_for_each_command() {
    let suite = load_text(
        "command:\n  own: {exec: 'true', exit-status: 0, timeout: 2000}\n  usual: {exec: 'true', exit-status: 0}\n",
    )
    .unwrap();
    let seconds = |patience| -> Vec<u64> {
        { suite.checks.iter() }
            .map(|check| check.with_patience(patience).timeout().as_secs())
            .collect()
    };
    assert_eq!(seconds(1), [2, 10]);
    assert_eq!(seconds(4), [8, 40]);
}
