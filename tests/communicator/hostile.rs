//! Servers that mean harm: no panic, no endless wait, no endless memory.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use qimg::communicator::Communicator;
use qimg::communicator::ssh::{Options, Ssh};
use qimg::communicator::wait::State;

use crate::broken::{offer, packet, says, says_without_end};
use crate::servers::{Listener, connect, fail, noise, within};

fn to(listener: &Listener) -> Ssh {
    let mut options = Options::new("127.0.0.1", listener.port, "tester");
    options.patience = Duration::from_secs(1);
    connect(options)
}

/// A wait that ends in time, without growing.
fn survives(listener: &Listener) -> State {
    let before = resident();
    let started = Instant::now();
    let (_, report) = fail(&to(listener), &within(3));
    assert!(started.elapsed() < Duration::from_millis(3700));
    let grown = resident().saturating_sub(before);
    assert!(grown < 200 << 20, "{} MiB", grown >> 20);
    report.last().unwrap().clone()
}

/// Bytes of memory this process holds.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn endless_banners_are_left() {
    let state = survives(&says_without_end(b"", vec![b'x'; 4096]));
    assert!(matches!(state, State::NotSsh { .. }), "{state:?}");
    let state = survives(&says_without_end(b"", b"hello\r\n".to_vec()));
    assert!(matches!(state, State::NotSsh { .. }), "{state:?}");
    let state = survives(&says_without_end(b"SSH-2.0-", vec![b'x'; 4096]));
    assert!(matches!(state, State::NotSsh { .. }), "{state:?}");
    let state = survives(&says_without_end(
        b"SSH-2.0-x\r\n",
        b"SSH-2.0-x\r\n".to_vec(),
    ));
    assert!(
        matches!(state, State::KeyExchangeFailed { .. }),
        "{state:?}"
    );
}

#[test]
fn garbage_after_a_banner_is_left() {
    for length in [1, 4, 5, 100, 100_000] {
        let mut bytes = b"SSH-2.0-garbage\r\n".to_vec();
        bytes.extend(noise(length));
        survives(&says(bytes));
    }
    for first in [
        [0xff; 4],
        [0, 0, 0, 0],
        [0x7f, 0xff, 0xff, 0xff],
        [0, 1, 0, 0],
    ] {
        let mut bytes = b"SSH-2.0-garbage\r\n".to_vec();
        bytes.extend(first);
        bytes.extend(noise(1000));
        survives(&says(bytes));
    }
}

#[test]
fn endless_packets_before_the_login_are_left() {
    // Messages that are to be ignored, and messages for the log.
    for kind in [2, 4] {
        let mut payload = vec![kind];
        payload.extend(1000_u32.to_be_bytes());
        payload.extend([b'x'; 1004]);
        let state = survives(&says_without_end(b"SSH-2.0-chatty\r\n", packet(&payload)));
        assert!(
            matches!(state, State::KeyExchangeFailed { .. }),
            "{state:?}"
        );
    }
    let state = survives(&says_without_end(
        b"SSH-2.0-offers\r\n",
        offer("curve25519-sha256"),
    ));
    assert!(
        matches!(state, State::KeyExchangeFailed { .. }),
        "{state:?}"
    );
}

#[test]
fn mutated_key_exchanges_are_survived() {
    let good = [
        &b"SSH-2.0-mutant\r\n"[..],
        &offer("curve25519-sha256"),
        &packet(&[31, 0, 0, 0, 1, 0]),
    ]
    .concat();
    let random = noise(4 * 30);
    for piece in random.chunks(4) {
        let mut bytes = good.clone();
        let at = usize::from(u16::from_le_bytes([piece[0], piece[1]])) % bytes.len();
        bytes[at] = piece[2];
        let listener = Listener::start(move |mut stream| {
            let _ = stream.write_all(&bytes);
            let mut buffer = [0; 4096];
            stream
                .set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
        });
        let mut options = Options::new("127.0.0.1", listener.port, "tester");
        options.patience = Duration::from_millis(300);
        let (_, report) = fail(&connect(options), &within(1));
        assert!(!report.seen.is_empty());
    }
}

#[test]
fn a_call_to_a_server_that_hangs_ends_with_its_patience() {
    let listener = says("SSH-2.0-hangs\r\n");
    let ssh = to(&listener);
    let started = Instant::now();
    assert!(ssh.run("true", None, &mut |_, _| ()).is_err());
    assert!(ssh.upload(&mut &b"x"[..], 1, "/x", 0o600).is_err());
    assert!(ssh.download("/x", &mut Vec::new()).is_err());
    assert!(ssh.probe(Duration::from_secs(1)).is_err());
    assert!(started.elapsed() < Duration::from_secs(6));
}
