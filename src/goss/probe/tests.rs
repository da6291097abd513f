//! The script as text, and answers of guests that mean no good.

use super::answer::{Answers, Collector, MOST_BYTES};
use super::{ScriptOptions, address, command, parameter, record, script, server};
use crate::goss::load::{Check, load_text};

fn of(text: &str) -> String {
    let suite = load_text(text).unwrap();
    let checks: Vec<&Check> = suite.checks.iter().collect();
    script(&checks, ScriptOptions { max_concurrent: 3 })
}

#[test]
fn a_script_that_arrives_in_part_does_nothing() {
    let text = of("command:\n  'touch /x; it''s': {exit-status: 0}\n");
    assert!(text.ends_with("}\nask_all </dev/null\n"));
    let before = text.rsplit_once("\nask_all").unwrap().0;
    // Nothing but definitions, and one directory for temporary files.
    assert!(before.contains("\nask_all() {\n"));
    assert!(text.contains("ask_command 0 10 4194305 'touch /x; it'\\''s'\n"));
    assert!(text.contains("most_jobs=3\n"));
}

#[test]
fn no_name_is_taken_for_an_option_or_for_words_of_the_shell() {
    let text = of(
        "file:\n  '-rf $(reboot)': {exists: true}\n  '~/a b': {exists: true}\npackage:\n  --version: {installed: true}\n\
                   service:\n  ../x: {running: true}\ninterface:\n  a/b: {exists: true}\n",
    );
    assert!(text.contains("ask_file 0 ./'-rf $(reboot)' "));
    assert!(text.contains("ask_file 1 ~/'a b' "));
    assert!(
        !text.contains("ask_package 2")
            && !text.contains("ask_service 3")
            && !text.contains("ask_interface 4")
    );
}

#[test]
fn only_what_is_compared_is_asked() {
    let text = of(
        "file:\n  /a: {exists: true, sha256: x}\n  /b: {exists: true, skip: true}\nprocess:\n  init: {running: true}\n",
    );
    assert!(text.contains("ask_file 0 /a 4194305 sha256\n"));
    assert!(!text.contains("ask_file 1"));
    assert!(text.contains("ask_globals processes\n"));
}

#[test]
fn secrets_of_a_request_are_no_arguments() {
    let text = of(
        "http:\n  http://a/: {status: 200, username: me, password: 's\"e\\c', request-headers: ['X: 1']}\n",
    );
    assert!(text.contains("user = \"me:s\\\"e\\\\c\""));
    assert!(text.contains("\naside 0 ask_url 0 5 4194305 http://a/ 0\n"));
    assert!(command(true).contains("sudo -n sh -s"));
}

#[test]
fn names_are_taken_apart() {
    assert_eq!(address("tcp://[::1]:80"), Some(("::1".to_owned(), 80)));
    assert_eq!(address("tcp://a.b:0"), None);
    assert_eq!(address("tcp://-x:1"), None);
    assert_eq!(address("tcp://a;b:1"), None);
    assert_eq!(record("PTR:8.8.8.8"), (Some("PTR"), "8.8.8.8"));
    assert_eq!(record("::1"), (None, "::1"));
    assert_eq!(server("8.8.8.8:5353"), ("8.8.8.8", 5353));
    assert_eq!(server("::1"), ("::1", 53));
    assert_eq!(
        parameter("net.ipv4.conf.eth0/1.forwarding"),
        "net/ipv4/conf/eth0.1/forwarding"
    );
    assert_eq!(parameter("net/ipv4/ip_forward"), "net/ipv4/ip_forward");
    assert_eq!(parameter("net/../../etc/passwd"), "net/etc/passwd");
}

#[test]
fn answers_are_read_in_each_encoding() {
    let answers = Answers::parse(
        b"g uid =0\n0 out b:aGkK\n0 err x:00ff\n1 exists =1\ng end =1\n",
        2,
    )
    .unwrap();
    assert_eq!(answers.text(0, "out").as_deref(), Some("hi\n"));
    assert_eq!(answers.bytes(0, "err"), Some(&[0, 255][..]));
    assert_eq!(answers.flag(1, "exists"), Some(true));
    assert_eq!(answers.flag(1, "other"), None);
}

#[test]
fn what_is_no_answer_is_told() {
    for (output, words) in [
        (&b""[..], "ends early"),
        (b"0 out b:aGkK\n", "ends early"),
        (
            b"Welcome!\n0 out =1\ng end =1\n",
            "a line that is none: \"Welcome!\"",
        ),
        (b"2 out =1\ng end =1\n", "a line that is none"),
        (b"0 Out =1\ng end =1\n", "a line that is none"),
        (b"0 out b:a!\ng end =1\n", "a line that is none"),
        (b"0 out x:0\ng end =1\n", "a line that is none"),
        (b"0 out =1\n0 out =2\ng end =1\n", "twice"),
        (b"g end =1\n0 out =1\n", "ends early"),
        (b"g lacks =place\n", "no place for temporary files"),
        (b"g lacks =encoder\n", "none of base64"),
        (b"\xff\xfe 1\n", "a line that is none"),
    ] {
        let error = Answers::parse(output, 2).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_guest_that_answers_without_an_end_is_cut_off() {
    use std::io::Write;
    let mut collector = Collector {
        bytes: vec![0; MOST_BYTES - 1],
    };
    collector.write_all(b"x").unwrap();
    collector.write_all(b"y").unwrap_err();
}
