//! What the wait says of each state, and that it loses no time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use qimg::ErrorKind;
use qimg::communicator::Exit;
use qimg::communicator::ssh::{Limits, Options, Ssh};
use qimg::communicator::wait::{Report, State};

use crate::broken::{offer, says, says_and_closes};
use crate::servers::{Listener, Sshd, connect, fail, never, output, within};

fn to(listener: &Listener) -> Ssh {
    let mut options = Options::new("127.0.0.1", listener.port, "tester");
    options.patience = Duration::from_millis(700);
    connect(options)
}

/// The cause after a wait of two seconds, which must not take longer.
fn seen(listener: &Listener) -> Report {
    let started = Instant::now();
    let (error, report) = fail(&to(listener), &within(2));
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(error.to_string(), "no login by SSH within 2 s");
    assert!(started.elapsed() < Duration::from_millis(2500));
    report
}

#[test]
fn each_state_is_told_by_its_name() {
    let silent = Listener::start(|mut stream| crate::broken::drain(&mut stream));
    let report = seen(&silent);
    assert_eq!(report.seen[0].state, State::Silent);
    assert_eq!(report.seen.len(), 1, "{report:?}");
    assert!(report.seen[0].times >= 2);
    assert!(report.cause().contains("no banner"), "{report}");

    let report = seen(&says_and_closes(""));
    assert_eq!(report.last(), Some(&State::Closed));
    assert!(report.seen[0].times >= 4, "{report:?}");

    let port = silent.port;
    drop(silent);
    let ssh = connect(Options::new("127.0.0.1", port, "tester"));
    let (_, report) = fail(&ssh, &within(1));
    assert_eq!(report.last(), Some(&State::NotListening));

    let report = seen(&says("HTTP/1.1 400 Bad Request\r\n\r\n".repeat(1000)));
    let Some(State::NotSsh { text }) = report.last() else {
        panic!("{report:?}");
    };
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");

    let report = seen(&says("SSH-1.5-old\r\n"));
    assert!(
        matches!(report.last(), Some(State::NotSsh { .. })),
        "{report:?}"
    );

    let report = seen(&says("SSH-2.0-stuck after its banner\r\n"));
    assert_eq!(report.last(), Some(&State::KeyExchangeStuck), "{report:?}");
    assert!(report.seen.iter().any(|seen| seen.state
        == State::Banner {
            text: "SSH-2.0-stuck after its banner".to_owned()
        }));

    let report = seen(&says_and_closes("SSH-2.0-gone\r\n"));
    assert!(
        matches!(report.last(), Some(State::KeyExchangeFailed { why }) if why.contains("ended")),
        "{report:?}"
    );

    let mut stuck = b"SSH-2.0-stuck in key exchange\r\n".to_vec();
    stuck.extend(offer("curve25519-sha256"));
    let report = seen(&says(stuck));
    assert_eq!(report.last(), Some(&State::KeyExchangeStuck), "{report:?}");

    let mut odd = b"SSH-2.0-odd\r\n".to_vec();
    odd.extend(offer("rot13"));
    let report = seen(&says(odd));
    assert!(report.cause().contains("rot13"), "{report}");

    let ssh = connect(Options::new("no-such-host.invalid", 22, "tester"));
    let (_, report) = fail(&ssh, &within(1));
    assert!(
        matches!(
            report.last(),
            Some(State::Unreachable { .. } | State::Silent)
        ),
        "{report:?}"
    );
}

#[test]
fn lines_before_the_banner_are_part_of_it() {
    let report = seen(&says("Welcome\r\nto this\r\nSSH-2.0-polite\r\n"));
    assert!(report.seen.iter().any(|seen| seen.state
        == State::Banner {
            text: "SSH-2.0-polite".to_owned()
        }));
}

#[test]
fn a_guest_that_comes_up_is_let_in_at_once() {
    // As QEMU's user network: it accepts from the beginning, and what it accepted then stays silent for ever.
    let sshd = Sshd::start("");
    let port = sshd.listener.port;
    let up = Arc::new(AtomicBool::new(false));
    let booting = {
        let up = Arc::clone(&up);
        Listener::start(move |mut stream| {
            if !up.load(Ordering::Acquire) {
                crate::broken::drain(&mut stream);
                return;
            }
            let mut server = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (mut from, mut to) = (stream.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
            let _ = std::io::copy(&mut server, &mut stream);
            let _ = stream.shutdown(std::net::Shutdown::Both);
        })
    };
    let mut options = sshd.options();
    options.guest.port = booting.port;
    let ssh = connect(options);
    let mut told = Vec::new();
    let lost = std::thread::scope(|scope| {
        let up = Arc::clone(&up);
        let began = scope.spawn(move || {
            std::thread::sleep(Duration::from_secs(3));
            up.store(true, Ordering::Release);
            Instant::now()
        });
        let report = ssh
            .wait(&within(30), &|| false, &mut |seen| told.push(seen.clone()))
            .unwrap();
        let ready = Instant::now();
        assert_eq!(report.last(), Some(&State::Ready));
        ready - began.join().unwrap()
    });
    assert!(lost < Duration::from_millis(1500), "{lost:?} lost");
    let states: Vec<_> = told.iter().map(|seen| seen.state.to_string()).collect();
    assert_eq!(states.len(), 4, "{states:?}");
    assert_eq!(states[0], "the port accepts, no banner");
    assert!(
        states[1].starts_with("banner SSH-2.0-OpenSSH"),
        "{states:?}"
    );
    assert_eq!(states[2], "keys exchanged, logging in");
    assert_eq!(states[3], "ready");
    assert!(told.windows(2).all(|pair| pair[0].at <= pair[1].at));
    // The connection is kept for the first command.
    let accepted = booting.accepted();
    assert_eq!(output(&ssh, "true").0, Exit::Code(0));
    assert_eq!(booting.accepted(), accepted);
}

#[test]
fn a_slow_guest_is_not_overrun_with_connections() {
    let busy = says_and_closes("Exceeded MaxStartups\r\n");
    let report = seen(&busy);
    assert!(
        matches!(report.last(), Some(State::TurnedAway { .. })),
        "{report:?}"
    );
    assert!(report.cause().contains("very slow"), "{report}");
    assert!(busy.accepted() <= 3, "{}", busy.accepted());

    // One that has been closed to us speaks for itself; after that it is only slow.
    let first = AtomicBool::new(true);
    let slow = Listener::start(move |mut stream| {
        if !first.swap(false, Ordering::AcqRel) {
            crate::broken::drain(&mut stream);
        }
    });
    let (_, report) = fail(&to(&slow), &within(4));
    assert_eq!(report.last(), Some(&State::Silent));
    assert!(slow.accepted() <= 6, "{}", slow.accepted());
}

#[test]
fn a_guest_that_takes_seconds_for_its_banner_is_waited_for() {
    let sshd = Sshd::start("");
    let port = sshd.listener.port;
    let slow = Listener::start(move |mut stream| {
        std::thread::sleep(Duration::from_millis(2500));
        let mut server = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut from, mut to) = (stream.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
        let _ = std::io::copy(&mut server, &mut stream);
    });
    let mut options = sshd.options();
    options.guest.port = slow.port;
    let ssh = connect(options);
    ssh.wait(&within(30), &|| false, &mut |_| ()).unwrap();
}

#[test]
fn a_key_that_comes_late_is_waited_for() {
    let sshd = Sshd::start("");
    let authorized = std::fs::read(sshd.at("authorized")).unwrap();
    std::fs::write(sshd.at("authorized"), "").unwrap();
    let path = sshd.at("authorized");
    let ssh = sshd.ssh();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_secs(2));
            std::fs::write(path, authorized).unwrap();
        });
        let report = ssh.wait(&within(30), &|| false, &mut |_| ()).unwrap();
        assert!(report.refusals >= 1);
        assert!(report.took < Duration::from_secs(10));
    });
}

#[test]
fn a_wait_ends_when_it_is_told_to() {
    let silent = Listener::start(|mut stream| crate::broken::drain(&mut stream));
    let ssh = Ssh::new(
        Options::new("127.0.0.1", silent.port, "tester"),
        never(),
        None,
    )
    .unwrap();
    let started = Instant::now();
    let dead = move || started.elapsed() > Duration::from_millis(500);
    let error = ssh
        .wait(&Limits::default(), &dead, &mut |_| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(started.elapsed() < Duration::from_millis(700));
}
