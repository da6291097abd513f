use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const GREETING: &str =
    r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}}, "capabilities": []}}"#;
const SHORT: Duration = Duration::from_millis(300);

/// A peer that greets, and answers each line with what `answer` gives.
fn peer(answer: impl Fn(usize, &str) -> Vec<u8> + Send + 'static) -> (Qmp, Arc<AtomicUsize>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let mut writing = theirs.try_clone().unwrap();
        if writing
            .write_all(format!("{GREETING}\r\n").as_bytes())
            .is_err()
        {
            return;
        }
        for (number, line) in BufReader::new(theirs)
            .lines()
            .map_while(Result::ok)
            .enumerate()
        {
            if writing.write_all(&answer(number, &line)).is_err() {
                return;
            }
        }
    });
    let events = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&events);
    let qmp = Qmp::over(ours, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    (qmp.unwrap(), events)
}

fn id(line: &str) -> u64 {
    serde_json::from_str::<Value>(line).unwrap()["id"]
        .as_u64()
        .unwrap()
}

fn well(_: usize, line: &str) -> Vec<u8> {
    format!("{{\"return\": {{}}, \"id\": {}}}\n", id(line)).into_bytes()
}

#[test]
fn answers_belong_to_their_commands_whatever_comes_between() {
    let (qmp, events) = peer(|number, line| {
        let noise = "{\"event\": \"STOP\"}\n{\"return\": {}, \"id\": 999}\n{\"return\": 1}\n\n";
        match number {
            0 => well(0, line),
            1 => format!("{noise}{{\"return\": {{\"status\": \"running\"}}, \"id\": {}}}\r\n", id(line)).into_bytes(),
            _ => format!("{{\"error\": {{\"class\": \"GenericError\", \"desc\": \"no such thing\"}}, \"id\": {}}}\n", id(line)).into_bytes(),
        }
    });
    assert_eq!(qmp.negotiate(SOON, &|| false).unwrap(), Some((10, 0)));
    assert_eq!(
        qmp.execute("query-status", &Value::Null, SOON).unwrap()["status"],
        "running"
    );
    assert_eq!(events.load(Ordering::Relaxed), 1);
    let error = qmp.execute("x", &Value::Null, SOON).unwrap_err();
    assert_eq!(error.to_string(), "QEMU refuses x: no such thing");
}

#[test]
fn a_peer_that_is_silent_ends_the_wait_at_its_limit() {
    let (qmp, _) = peer(|_, _| Vec::new());
    let started = Instant::now();
    let error = qmp.negotiate(SHORT, &|| false).unwrap_err();
    assert!(error.to_string().contains("qmp_capabilities"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    let error = qmp
        .execute_unless("quit", &Value::Null, SOON, &|| true)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(qmp.shared.lock().pending.is_empty());
}

#[test]
fn garbage_ends_the_conversation() {
    for garbage in [
        "hello\n",
        "[1]\n",
        "{}\n",
        "{\"event\": 7}\n",
        "\u{0}\n",
        "{\"return\": \n",
    ] {
        let (qmp, _) = peer(move |_, _| garbage.as_bytes().to_vec());
        let error = qmp.negotiate(SOON, &|| false).unwrap_err();
        assert!(
            error.to_string().contains("it sent a"),
            "{garbage:?}: {error}"
        );
        assert!(qmp.execute("quit", &Value::Null, SOON).is_err());
    }
    let deep = "[".repeat(100_000) + "\n";
    let (qmp, _) = peer(move |_, _| deep.as_bytes().to_vec());
    assert!(qmp.negotiate(SOON, &|| false).is_err());
}

#[test]
fn a_line_without_end_ends_the_conversation() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let endless = std::thread::spawn(move || {
        let piece = [b'x'; 64 << 10];
        let mut sent = 0;
        while theirs.write_all(&piece).is_ok() && sent < 64 << 20 {
            sent += piece.len();
        }
        sent
    });
    let qmp = Qmp::over(ours, |_| {}).unwrap();
    let error = qmp.negotiate(SOON, &|| false).unwrap_err();
    assert!(error.to_string().contains("a line without end"), "{error}");
    assert!(endless.join().unwrap() < 10 << 20);
}

#[test]
fn a_peer_that_ends_is_noticed_at_once() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let qmp = Qmp::over(ours, |_| {}).unwrap();
    drop(theirs);
    let started = Instant::now();
    let error = qmp.negotiate(SOON, &|| false).unwrap_err();
    assert!(error.to_string().contains("closed"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[test]
fn lines_are_whole_however_they_come() {
    let text = b"{\"a\": 1}\r\n\n{\"b\"";
    for size in 1..text.len() {
        let mut lines = Lines::new(100);
        let mut found: Vec<Vec<u8>> = Vec::new();
        for piece in text.chunks(size) {
            lines
                .push(piece, (), |line| {
                    found.push(line.to_vec());
                    Ok(())
                })
                .unwrap();
        }
        assert_eq!(found, [b"{\"a\": 1}".to_vec()]);
    }
    assert!(Lines::new(3).push(b"abcd", (), |_| Ok(())).is_err());
    assert!(Lines::new(3).push(b"abcd\n", (), |_| Ok(())).is_err());
    assert!(Lines::new(3).push(b"abc\nabc\n", (), |_| Ok(())).is_ok());
}

#[test]
fn nothing_is_asked_of_a_qemu_whose_guest_has_shut_down() {
    for leaves in [true, false] {
        let down = r#"{"event": "SHUTDOWN", "data": {"guest": true}}"#;
        let (qmp, _) = peer(move |number, line| {
            let event = if line.contains("system_powerdown") {
                down
            } else {
                ""
            };
            [well(number, line), format!("{event}\n").into_bytes()].concat()
        });
        if leaves {
            qmp.leaves_with_guest();
        }
        qmp.negotiate(SOON, &|| false).unwrap();
        qmp.execute("system_powerdown", &Value::Null, SOON).unwrap();
        let asked = Instant::now();
        while leaves && !qmp.is_leaving() && asked.elapsed() < SOON {
            std::thread::yield_now();
        }
        let answer = qmp.execute("query-status", &Value::Null, SOON);
        assert_eq!(answer.is_err(), leaves);
        // Nor of one that was told to leave.
        qmp.execute("quit", &Value::Null, SOON).ok();
        qmp.execute("query-status", &Value::Null, SOON).unwrap_err();
    }
}
