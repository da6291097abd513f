//! Commands: their ends, their output, their input, and what happens when the connection does not last.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use qimg::ErrorKind;
use qimg::communicator::ssh::{Notice, Ssh};
use qimg::communicator::{Communicator, Exit, Stream};

use crate::servers::{Dropbear, Sshd, connect, connect_noting, output, wait};

#[test]
fn a_command_ends_with_its_code_and_its_streams_told_apart() {
    let sshd = Sshd::start("");
    let ssh = sshd.ssh();
    let (exit, out, err) = output(&ssh, "echo out; echo err >&2; printf 'no end'; exit 7");
    assert_eq!(exit, Exit::Code(7));
    assert_eq!(out, ["out", "no end"]);
    assert_eq!(err, ["err"]);
    assert_eq!(output(&ssh, "true").0, Exit::Code(0));
    assert_eq!(output(&ssh, "exit 255").0, Exit::Code(255));
    assert_eq!(
        output(&ssh, "kill -TERM $$").0,
        Exit::Signal("TERM".to_owned())
    );
    assert_eq!(
        output(&ssh, "kill -USR2 $$").0,
        Exit::Signal("USR2".to_owned())
    );
    let (_, out, _) = output(&ssh, "printf '10%%\\r100%%\\r\\n\\303\\050\\n'");
    assert_eq!(out, ["100%", "\u{fffd}("]);
    // One connection for all.
    assert_eq!(sshd.listener.accepted(), 1);
}

#[test]
fn a_million_lines_come_whole_and_in_order() {
    let sshd = Sshd::start("");
    let ssh = sshd.ssh();
    let mut next = 1_u32;
    let exit = ssh
        .run("seq 1000000", None, &mut |stream, line| {
            assert_eq!((stream, line), (Stream::Out, next.to_string().as_str()));
            next += 1;
        })
        .unwrap();
    assert_eq!((exit, next), (Exit::Code(0), 1_000_001));
}

#[test]
fn a_slow_reader_holds_the_command_up_and_loses_nothing() {
    let sshd = Sshd::start("");
    let ssh = sshd.ssh();
    let mut bytes = 0;
    let mut lines = 0;
    let command = "head -c 30000000 /dev/zero | tr '\\0' x | fold -w 60000";
    let exit = ssh
        .run(command, None, &mut |_, line| {
            bytes += line.len();
            lines += 1;
            if lines % 100 == 0 {
                std::thread::sleep(Duration::from_millis(100));
            }
        })
        .unwrap();
    assert_eq!((exit, bytes, lines), (Exit::Code(0), 30_000_000, 500));
}

#[test]
fn a_line_without_an_end_comes_in_pieces() {
    let sshd = Sshd::start("");
    let ssh = sshd.ssh();
    let (exit, out, _) = output(&ssh, "head -c 1000000 /dev/zero | tr '\\0' x");
    assert_eq!(exit, Exit::Code(0));
    assert_eq!(out.concat().len(), 1_000_000);
    assert!(out.iter().all(|line| line.len() <= 64 * 1024));
}

#[test]
fn a_command_that_takes_too_long_is_left_and_told_to_end() {
    let sshd = Sshd::start("");
    let dropbear = Dropbear::start(&sshd);
    // OpenSSH passes no signals to what it runs as root.
    let takes_signals = !nix::unistd::geteuid().is_root();
    for (options, takes_signals) in [
        (sshd.options(), takes_signals),
        (dropbear.options(&sshd), true),
    ] {
        let ssh = connect(options);
        wait(&ssh);
        let marker = sshd.at("ended");
        let command = format!(
            "trap 'echo x > {}; exit' TERM; echo begun; for n in 0 1 2 3 4 5 6 7 8 9; do sleep 0.3; done",
            marker.display()
        );
        let mut said = Vec::new();
        let started = Instant::now();
        let error = ssh
            .run(&command, Some(Duration::from_secs(1)), &mut |_, line| {
                said.push(line.to_owned());
            })
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(started.elapsed() < Duration::from_secs(3));
        assert_eq!(said, ["begun"]);
        assert_eq!(output(&ssh, "true").0, Exit::Code(0));
        if takes_signals {
            std::thread::sleep(Duration::from_secs(1));
            assert!(marker.exists(), "the command goes on");
        }
    }
    assert_eq!(sshd.listener.accepted() + dropbear.listener.accepted(), 2);
}

#[test]
fn what_a_command_leaves_running_does_not_hold_it_up() {
    let sshd = Sshd::start("");
    let ssh = sshd.ssh();
    let started = Instant::now();
    let (exit, out, _) = output(&ssh, "sleep 60 & echo $!");
    assert_eq!(exit, Exit::Code(0));
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(output(&ssh, &format!("kill {}", out[0])).0, Exit::Code(0));
}

#[test]
fn a_stopped_wait_ends_at_once() {
    let sshd = Sshd::start("");
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let ssh = Ssh::new(
        sshd.options(),
        Arc::new(move || asked.load(Ordering::Acquire)),
        None,
    )
    .unwrap();
    assert_eq!(output(&ssh, "true").0, Exit::Code(0));
    let ended = std::thread::scope(|scope| {
        let running = scope.spawn(|| ssh.run("sleep 30", None, &mut |_, _| ()));
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Release);
        let asked = Instant::now();
        let error = running.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        asked.elapsed()
    });
    assert!(ended < Duration::from_millis(200), "{ended:?}");
    assert_eq!(
        ssh.run("true", None, &mut |_, _| ()).unwrap_err().kind(),
        ErrorKind::Cancelled
    );
}

#[test]
fn a_lost_connection_is_no_exit_code_and_the_next_call_makes_a_new_one() {
    let sshd = Sshd::start("");
    let (ssh, notices) = connect_noting(sshd.options());
    // The server process of this connection.
    let (exit, out, _) = output(
        &ssh,
        "echo before; sleep 1; kill -KILL $PPID; sleep 5; echo after",
    );
    assert_eq!(exit, Exit::Disconnected);
    assert_eq!(out, ["before"]);
    let (exit, out, _) = output(&ssh, "echo again");
    assert_eq!((exit, out), (Exit::Code(0), vec!["again".to_owned()]));
    assert_eq!(sshd.listener.accepted(), 2);
    assert!(matches!(
        &notices.lock().unwrap()[..],
        [Notice::Reconnected { .. }]
    ));
}

#[test]
fn input_and_output_of_a_pipe_are_bytes() {
    let sshd = Sshd::start("");
    let ssh = sshd.ssh();
    let sent = crate::servers::noise(5_000_000);
    let mut got = Vec::new();
    let mut said = Vec::new();
    let exit = ssh
        .pipe(
            "cat; echo done >&2; exit 3",
            &mut &sent[..],
            &mut got,
            &mut |stream, line| said.push((stream, line.to_owned())),
        )
        .unwrap();
    assert_eq!(exit, Exit::Code(3));
    assert!(got == sent);
    assert_eq!(said, [(Stream::Err, "done".to_owned())]);

    // Input without end, for a command that does not care.
    let exit = ssh
        .pipe("head -c 3", &mut io::repeat(b'x'), &mut got, &mut |_, _| ())
        .unwrap();
    assert_eq!(exit, Exit::Code(0));
    let exit = ssh.pipe("false", &mut io::repeat(b'x'), &mut got, &mut |_, _| ());
    assert_eq!(exit.unwrap(), Exit::Code(1));
}

#[test]
fn several_commands_may_run_at_a_time() {
    let sshd = Sshd::start("");
    let ssh = sshd.ssh();
    wait(&ssh);
    let started = Instant::now();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..5)
            .map(|n| {
                let ssh = &ssh;
                scope.spawn(move || output(ssh, &format!("sleep 3; echo {n}")).1)
            })
            .collect();
        for (n, running) in running.into_iter().enumerate() {
            assert_eq!(running.join().unwrap(), [n.to_string()]);
        }
    });
    assert!(started.elapsed() < Duration::from_secs(12));
    assert_eq!(sshd.listener.accepted(), 1);
}

#[test]
fn a_call_from_within_a_call_is_an_error_and_no_panic() {
    let sshd = Sshd::start("");
    let ssh = sshd.ssh();
    let mut inner = None;
    ssh.run("echo x", None, &mut |_, _| {
        inner = Some(ssh.run("true", None, &mut |_, _| ()));
    })
    .unwrap();
    assert_eq!(inner.unwrap().unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
fn with_a_terminal_both_streams_are_one() {
    let sshd = Sshd::start("");
    let mut options = sshd.options();
    options.pty = true;
    let ssh = connect(options);
    let (exit, out, err) = output(&ssh, "test -t 0 && echo $TERM; echo err >&2; exit 4");
    assert_eq!(exit, Exit::Code(4));
    assert_eq!(out, ["xterm", "err"]);
    assert!(err.is_empty());
}

#[test]
fn dropbear_runs_commands_too() {
    let sshd = Sshd::start("");
    let dropbear = Dropbear::start(&sshd);
    let ssh = connect(dropbear.options(&sshd));
    let (exit, out, err) = output(&ssh, "echo out; echo err >&2; exit 9");
    assert_eq!(
        (exit, out, err),
        (Exit::Code(9), vec!["out".into()], vec!["err".into()])
    );
    assert_eq!(
        output(&ssh, "kill -KILL $$").0,
        Exit::Signal("KILL".to_owned())
    );
    let (_, out, _) = output(&ssh, "seq 100000");
    assert_eq!(out.len(), 100_000);
    assert_eq!(
        output(&ssh, "kill -KILL $PPID; sleep 5").0,
        Exit::Disconnected
    );
    assert_eq!(output(&ssh, "true").0, Exit::Code(0));
}

#[test]
fn a_probe_is_a_connection_of_its_own() {
    let sshd = Sshd::start("");
    let ssh = sshd.ssh();
    wait(&ssh);
    ssh.probe(Duration::from_secs(20)).unwrap();
    assert_eq!(sshd.listener.accepted(), 2);
    assert_eq!(output(&ssh, "true").0, Exit::Code(0));
    assert_eq!(sshd.listener.accepted(), 2);
}
