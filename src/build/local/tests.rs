use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn shell(script: &str) -> Program {
    Program {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
        ..Program::default()
    }
}

fn outcome(program: &Program, timeout: Option<Duration>) -> (Result<Ended>, Vec<String>) {
    let said = Mutex::new(Vec::new());
    let ended = run(program, timeout, &|| false, &mut |stream, line| {
        said.lock().unwrap().push(format!("{stream:?} {line}"));
    });
    (ended, said.into_inner().unwrap())
}

#[test]
fn lines_come_by_stream_and_the_code_last() {
    let (ended, said) = outcome(
        &shell("echo a; printf 'x\\ry\\nz'; echo e >&2; exit 3"),
        None,
    );
    assert_eq!(ended.unwrap(), Ended::Code(3));
    let out: Vec<_> = said.iter().filter(|line| line.starts_with("Out")).collect();
    assert_eq!(out, ["Out a", "Out y", "Out z"]);
    assert!(said.contains(&"Err e".to_owned()));
    let (ended, _) = outcome(&shell("kill -9 $$"), None);
    assert_eq!(ended.unwrap(), Ended::Signal(9));
}

#[test]
fn the_environment_is_what_was_given() {
    let mut program = shell("env | sort; cat");
    program.environment.push(("A".into(), "1".into()));
    program.environment.push(("A".into(), "2".into()));
    program.input = b"from stdin".to_vec();
    let (_, said) = outcome(&program, None);
    assert!(said.contains(&"Out A=2".to_owned()) && said.contains(&"Out from stdin".to_owned()));
    assert!(
        !said.iter().any(|line| line.starts_with("Out HOME")),
        "{said:?}"
    );
}

#[test]
fn nobody_waits_for_input_that_is_not_read() {
    let mut program = shell("exit 0");
    program.input = vec![b'x'; 1 << 20];
    assert_eq!(outcome(&program, None).0.unwrap(), Ended::Code(0));
}

#[test]
fn a_group_that_takes_too_long_is_ended_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let script = format!(
        "trap '' TERM; (trap '' TERM; sleep 1000) & echo $! >>{0}; echo $$ >>{0}; sleep 1000 & echo $! >>{0}; wait; wait",
        pids.display()
    );
    let started = Instant::now();
    let (ended, _) = outcome(&shell(&script), Some(Duration::from_millis(300)));
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(started.elapsed() < Duration::from_secs(20));
    std::thread::sleep(Duration::from_millis(50));
    for pid in std::fs::read_to_string(pids).unwrap().lines() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(
            status.is_empty() || status.contains(") Z"),
            "{pid} lives: {status}"
        );
    }
}

#[test]
fn stopping_is_noticed() {
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let asked = std::sync::Arc::clone(&stop);
    let ended = run(
        &shell("echo begun; sleep 1000"),
        None,
        &move || asked.load(Ordering::Relaxed),
        &mut |_, _| stop.store(true, Ordering::Relaxed),
    );
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn what_is_left_running_holds_nobody_up() {
    let started = Instant::now();
    let (ended, said) = outcome(&shell("sleep 5 & echo done"), None);
    assert_eq!(ended.unwrap(), Ended::Code(0));
    assert_eq!(said, ["Out done"]);
    assert!(started.elapsed() < Duration::from_secs(4));
}

#[test]
fn endless_lines_come_in_pieces() {
    let (ended, said) = outcome(&shell("head -c 300000 /dev/zero | tr '\\0' x"), None);
    assert_eq!(ended.unwrap(), Ended::Code(0));
    assert!(said.len() > 3);
    assert_eq!(
        said.iter().map(|line| line.len() - 4).sum::<usize>(),
        300_000
    );
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let mut program = shell("");
    program.program = "no-such-program".into();
    let error = outcome(&program, None).0.unwrap_err();
    assert!(error.to_string().contains("no-such-program"), "{error}");
    program.program = "/no/such".into();
    assert!(outcome(&program, None).0.is_err());
}
