use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::local_guest::LocalGuest;
use super::*;
use crate::build::event::tests::Kept;
use crate::build::late::tests::Fields;
use crate::build::secrets::Masks;
use crate::communicator::Exit;
use crate::template::model::{Scripts, Shell, ShellLocal, Text};

/// All that a provisioner needs, kept for looking at.
pub(super) struct World {
    pub(super) kept: Kept,
    pub(super) facts: Facts,
    pub(super) host: Host,
    pub(super) directory: tempfile::TempDir,
}

impl World {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            kept: Kept::default(),
            facts: Facts {
                name: "deb".to_owned(),
                kind: "qemu".to_owned(),
                http: Some(("10.0.2.2".to_owned(), 8123)),
                connection: None,
            },
            host: Host {
                environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
                temporary: directory.path().to_owned(),
                system: "linux".to_owned(),
            },
            directory,
        }
    }

    pub(super) fn guest(&self) -> LocalGuest {
        LocalGuest::new(self.directory.path())
    }

    pub(super) fn with<T>(
        &self,
        guest: Option<&LocalGuest>,
        work: impl FnOnce(&Context<'_>) -> T,
    ) -> T {
        let masks = Arc::new(Masks::new(["hidden-value"]).unwrap());
        let reporter = Reporter::new("deb", masks, &self.kept);
        let number = AtomicU64::new(7);
        work(&Context {
            facts: &self.facts,
            host: &self.host,
            communicator: guest.map(|guest| guest as _),
            reporter: &reporter,
            texts: &Fields,
            numbers: &|| number.fetch_add(1, Ordering::Relaxed),
            ask: None,
            patience: 1,
            stop: &|| false,
        })
    }

    pub(super) fn run(&self, guest: &LocalGuest, provisioner: &Provisioner) -> Result<()> {
        self.with(Some(guest), |context| run(provisioner, context))
    }
}

pub(super) fn provisioner(action: Action) -> Provisioner {
    Provisioner {
        kind: "shell".to_owned(),
        line: 12,
        pause_before: Duration::ZERO,
        max_retries: 0,
        timeout: None,
        cache: None,
        action,
    }
}

pub(super) fn texts(lines: &[&str]) -> Vec<Text> {
    lines.iter().map(|line| Text((*line).to_owned())).collect()
}

fn shell(world: &World, scripts: Scripts) -> Shell {
    Shell {
        scripts,
        inline_shebang: "/bin/sh -e".to_owned(),
        environment: Vec::new(),
        environment_format: None,
        environment_file: false,
        execute_command: Text("chmod +x {{.Path}}; {{.Vars}} {{.Path}}".to_owned()),
        remote_folder: world.directory.path().to_str().unwrap().to_owned(),
        remote_file: None,
        remote_path: None,
        binary: false,
        start_retry_timeout: Duration::from_secs(20),
        expect_disconnect: false,
        valid_exit_codes: vec![0],
        pause_after: Duration::ZERO,
        skip_clean: false,
    }
}

fn inline(world: &World, lines: &[&str]) -> Shell {
    shell(world, Scripts::Inline(texts(lines)))
}

#[test]
fn a_script_runs_with_its_environment_and_goes() {
    let world = World::new();
    let guest = world.guest();
    let mut shell = inline(
        &world,
        &[
            "env | grep -E '^(PACKER|A|B)' | sort",
            "echo $0; false || true",
        ],
    );
    shell.environment = vec![
        ("B".to_owned(), Text("it's $B".to_owned())),
        ("A".to_owned(), Text("hidden-value".to_owned())),
    ];
    world
        .run(&guest, &provisioner(Action::Shell(shell)))
        .unwrap();
    let path = world.directory.path().join("script_00000007.sh");
    assert_eq!(
        world.kept.texts()[1..],
        [
            "A=<sensitive>",
            "B=it's $B",
            "PACKER_BUILDER_TYPE=qemu",
            "PACKER_BUILD_NAME=deb",
            "PACKER_HTTP_ADDR=10.0.2.2:8123",
            "PACKER_HTTP_IP=10.0.2.2",
            "PACKER_HTTP_PORT=8123",
            path.to_str().unwrap(),
        ]
    );
    assert_eq!(
        guest.calls(),
        [
            format!("upload {} 755", path.display()),
            format!(
                "chmod +x {0}; A='hidden-value' B='it'\"'\"'s $B' PACKER_BUILDER_TYPE='qemu' \
                 PACKER_BUILD_NAME='deb' PACKER_HTTP_ADDR='10.0.2.2:8123' PACKER_HTTP_IP='10.0.2.2' \
                 PACKER_HTTP_PORT='8123'  {0}",
                path.display()
            ),
            format!("rm -f {}", path.display()),
        ]
    );
    assert!(!path.exists());
}

#[test]
fn a_file_of_variables_keeps_them_out_of_the_command() {
    let world = World::new();
    let guest = world.guest();
    let mut shell = inline(&world, &["#!/bin/bash", "echo $A ${BASH_VERSION:+bash}"]);
    shell.environment = vec![("A".to_owned(), Text("hidden-value".to_owned()))];
    shell.environment_file = true;
    shell.execute_command = Text("chmod +x {{.Path}}; . {{.EnvVarFile}} && {{.Path}}".to_owned());
    world
        .run(&guest, &provisioner(Action::Shell(shell)))
        .unwrap();
    assert_eq!(world.kept.texts()[1], "<sensitive> bash");
    let calls = guest.calls();
    assert!(calls[0].ends_with("varfile_00000008.sh 600"), "{calls:?}");
    assert!(!calls.concat().contains("hidden-value"));
    assert!(
        calls[3].starts_with("rm -f ") && calls[3].contains("varfile"),
        "{calls:?}"
    );
    assert_eq!(
        std::fs::read_dir(world.directory.path()).unwrap().count(),
        0
    );
}

#[test]
fn scripts_of_files_have_unix_lines_unless_binary() {
    let world = World::new();
    let scripts = tempfile::tempdir().unwrap();
    let script = scripts.path().join("dos.sh");
    std::fs::write(&script, "#!/bin/sh\r\nprintf 'a\\rb' | wc -c\r\n").unwrap();
    let names = texts(&[script.to_str().unwrap()]);
    let mut shell = shell(&world, Scripts::Files(names));
    world
        .run(&world.guest(), &provisioner(Action::Shell(shell.clone())))
        .unwrap();
    assert_eq!(world.kept.texts()[1], "3");
    shell.binary = true;
    // The interpreter's name ends in a carriage return.
    let error = world
        .run(&world.guest(), &provisioner(Action::Shell(shell.clone())))
        .unwrap_err();
    assert!(with_cause(&error).contains("exit code 127"), "{error:?}");
    shell.scripts = Scripts::Files(texts(&["/no/such/script"]));
    let error = world
        .run(&world.guest(), &provisioner(Action::Shell(shell)))
        .unwrap_err();
    assert!(with_cause(&error).contains("/no/such/script"), "{error:?}");
}

#[test]
fn exit_codes_are_judged() {
    let world = World::new();
    let mut shell = inline(&world, &["exit 3"]);
    let error = world
        .run(&world.guest(), &provisioner(Action::Shell(shell.clone())))
        .unwrap_err();
    assert_eq!(error.to_string(), "provisioner shell (line 12) failed");
    assert!(
        with_cause(&error).ends_with("exit code 3; allowed are: 0"),
        "{error:?}"
    );
    shell.valid_exit_codes = vec![0, 3];
    world
        .run(&world.guest(), &provisioner(Action::Shell(shell)))
        .unwrap();
}

#[test]
fn a_lost_connection_is_what_it_is_expected_to_be() {
    let world = World::new();
    let mut shell = inline(&world, &["reboot"]);
    let lost = || world.guest().answer("chmod", Ok(Exit::Disconnected));
    let error = world
        .run(&lost(), &provisioner(Action::Shell(shell.clone())))
        .unwrap_err();
    assert!(error.remedy().unwrap().contains("expect_disconnect"));
    shell.expect_disconnect = true;
    // The guest goes down while the script is to be removed, and is gone for a while.
    let gone = || Err(Error::new(ErrorKind::Connection, "no way"));
    let guest = lost()
        .answer("rm -f", Ok(Exit::Disconnected))
        .answer("rm -f", gone());
    let started = Instant::now();
    world
        .run(&guest, &provisioner(Action::Shell(shell.clone())))
        .unwrap();
    assert!(started.elapsed() >= Duration::from_secs(4));
    assert_eq!(
        guest
            .calls()
            .iter()
            .filter(|call| call.starts_with("rm"))
            .count(),
        3
    );
    // Packer's code for it.
    shell.expect_disconnect = false;
    shell.valid_exit_codes = vec![0, 2_300_218];
    shell.skip_clean = true;
    let guest = lost();
    world
        .run(&guest, &provisioner(Action::Shell(shell)))
        .unwrap();
    assert!(!guest.calls().iter().any(|call| call.starts_with("rm")));
}

#[test]
fn only_the_way_into_the_guest_is_tried_again() {
    let world = World::new();
    let mut shell = inline(&world, &["true"]);
    let gone = || Err(Error::new(ErrorKind::Connection, "no way"));
    let guest = world
        .guest()
        .answer("upload", gone())
        .answer("chmod", gone());
    world
        .run(&guest, &provisioner(Action::Shell(shell.clone())))
        .unwrap();
    assert_eq!(
        guest
            .calls()
            .iter()
            .filter(|call| call.starts_with("upload"))
            .count(),
        3
    );
    let refused = Err(Error::new(ErrorKind::Guest, "read-only"));
    let guest = world.guest().answer("upload", refused);
    world
        .run(&guest, &provisioner(Action::Shell(shell.clone())))
        .unwrap_err();
    assert_eq!(guest.calls().len(), 1);
    shell.start_retry_timeout = Duration::ZERO;
    let guest = world.guest().answer("upload", gone());
    world
        .run(&guest, &provisioner(Action::Shell(shell)))
        .unwrap_err();
}

#[test]
fn a_failure_is_tried_again_as_often_as_asked() {
    let world = World::new();
    let mut provisioner = provisioner(Action::Shell(inline(
        &world,
        &[&format!(
            "cd {}; echo x >>tries; test $(wc -l <tries) -gt 2",
            world.directory.path().display()
        )],
    )));
    provisioner.max_retries = 1;
    let error = world.run(&world.guest(), &provisioner).unwrap_err();
    assert!(error.to_string().ends_with("failed, 2 times"), "{error}");
    provisioner.max_retries = 3;
    world.run(&world.guest(), &provisioner).unwrap();
}

#[test]
fn pauses_do_not_eat_the_time_limit() {
    let world = World::new();
    let mut provisioner = provisioner(Action::Shell(inline(&world, &["true"])));
    provisioner.pause_before = Duration::from_millis(1500);
    provisioner.timeout = Some(Duration::from_secs(1));
    world.run(&world.guest(), &provisioner).unwrap();
    let shell = inline(&world, &["echo begun; sleep 600"]);
    let mut provisioner = self::provisioner(Action::Shell(shell));
    provisioner.timeout = Some(Duration::from_millis(600));
    let started = Instant::now();
    let error = world.run(&world.guest(), &provisioner).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(
        with_cause(&error).contains("time limit of 600 ms"),
        "{error:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(world.kept.texts().contains(&"begun".to_owned()));
    provisioner.action = Action::Sleep(Duration::from_secs(600));
    assert_eq!(
        world.run(&world.guest(), &provisioner).unwrap_err().kind(),
        ErrorKind::TimedOut
    );
}

#[test]
fn what_waits_for_the_guest_is_cut_off() {
    struct Stuck(
        std::sync::mpsc::Sender<()>,
        std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
    );
    impl Communicator for Stuck {
        fn run(
            &self,
            _: &str,
            _: Option<Duration>,
            _: &mut crate::communicator::Lines<'_>,
        ) -> Result<Exit> {
            unreachable!()
        }
        fn pipe(
            &self,
            _: &str,
            _: &mut (dyn std::io::Read + Send),
            _: &mut (dyn std::io::Write + Send),
            _: &mut crate::communicator::Lines<'_>,
        ) -> Result<Exit> {
            unreachable!()
        }
        fn upload(
            &self,
            _: &mut (dyn std::io::Read + Send),
            _: u64,
            _: &str,
            _: u32,
        ) -> Result<()> {
            self.1.lock().unwrap().recv().unwrap();
            Err(Error::new(ErrorKind::Connection, "cut"))
        }
        fn download(&self, _: &str, _: &mut (dyn std::io::Write + Send)) -> Result<()> {
            unreachable!()
        }
        fn disconnect(&self) {
            self.0.send(()).unwrap();
        }
        fn probe(&self, _: Duration) -> Result<()> {
            unreachable!()
        }
    }
    let world = World::new();
    let (sender, receiver) = std::sync::mpsc::channel();
    let stuck = Stuck(sender, std::sync::Mutex::new(receiver));
    let mut provisioner = provisioner(Action::Shell(inline(&world, &["true"])));
    provisioner.timeout = Some(Duration::from_millis(200));
    let error = world.with(None, |context| {
        let context = Context {
            communicator: Some(&stuck),
            ..*context
        };
        run(&provisioner, &context).unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn stopping_ends_any_wait_and_nothing_is_tried_again() {
    let world = World::new();
    let mut provisioner = provisioner(Action::Sleep(Duration::from_secs(600)));
    provisioner.max_retries = 5;
    let started = Instant::now();
    let error = world.with(None, |context| {
        let stop = move || started.elapsed() > Duration::from_millis(200);
        let context = Context {
            stop: &stop,
            ..*context
        };
        run(&provisioner, &context).unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(started.elapsed() < Duration::from_secs(2));
}

fn shell_local(scripts: Scripts) -> ShellLocal {
    ShellLocal {
        scripts,
        inline_shebang: "/bin/sh -e".to_owned(),
        environment: vec![("A".to_owned(), Text("hidden-value isn't".to_owned()))],
        environment_format: None,
        execute_command: texts(&["/bin/sh", "-c", "{{.Vars}} {{.Script}}"]),
        only_on: Vec::new(),
        tempfile_extension: ".sh".to_owned(),
        valid_exit_codes: vec![0],
    }
}

#[test]
fn scripts_on_the_host_see_values_that_no_command_line_shows() {
    let world = World::new();
    let lines = texts(&[
        "echo \"$A|$PACKER_BUILD_NAME\"",
        "tr '\\0' ' ' </proc/$PPID/cmdline",
        "echo; exit 4",
    ]);
    let mut local = shell_local(Scripts::Inline(lines));
    local.execute_command = texts(&["/bin/sh", "-c", "{{.Vars}} {{.Script}}; exit $?"]);
    let run = |local: &ShellLocal| {
        let provisioner = provisioner(Action::ShellLocal(local.clone()));
        world.with(None, |context| run(&provisioner, context))
    };
    let error = run(&local).unwrap_err();
    assert!(with_cause(&error).contains("exit code 4"), "{error:?}");
    let texts_said = world.kept.texts();
    assert_eq!(texts_said[1], "<sensitive> isn't|deb");
    assert!(
        texts_said[2].contains("A=\"$A\" ") && !texts_said[2].contains("sensitive"),
        "{texts_said:?}"
    );
    assert_eq!(
        std::fs::read_dir(world.directory.path()).unwrap().count(),
        0
    );
    local.valid_exit_codes = vec![4];
    run(&local).unwrap();
    local.only_on = vec!["windows".to_owned()];
    local.valid_exit_codes = vec![0];
    run(&local).unwrap();
}

#[test]
fn a_breakpoint_needs_somebody_to_answer() {
    struct Enter(std::sync::Mutex<u32>);
    impl Ask for Enter {
        fn ask(&self, _: &str, _: &Stop) -> Result<Option<String>> {
            *self.0.lock().unwrap() += 1;
            Ok(Some(String::new()))
        }
    }
    let world = World::new();
    let at = |disabled| {
        provisioner(Action::Breakpoint {
            note: "look".to_owned(),
            disabled,
        })
    };
    world.with(None, |context| {
        assert_eq!(
            run(&at(false), context).unwrap_err().kind(),
            ErrorKind::Usage
        );
        run(&at(true), context).unwrap();
        let enter = Enter(std::sync::Mutex::new(0));
        let context = Context {
            ask: Some(&enter),
            ..*context
        };
        run(&at(false), &context).unwrap();
        run(&at(true), &context).unwrap();
        assert_eq!(*enter.0.lock().unwrap(), 1);
    });
}

#[test]
fn without_a_way_into_the_guest_only_the_host_works() {
    let world = World::new();
    let shell = inline(&world, &["true"]);
    let error = world.with(None, |context| {
        run(&provisioner(Action::Shell(shell)), context)
    });
    assert!(with_cause(&error.unwrap_err()).contains("no way into the guest"));
}

pub(crate) mod local_guest;
mod others;
