//! Goss files and what guests answer: a file gives checks or an error with a place in it; an answer gives facts, or reasons why
//! there are none, and nothing that was not asked for.
//!
//! The input is a file, a line of `===`, and an answer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qimg::goss::facts::fact;
use qimg::goss::load::load_text;
use qimg::goss::outcome::judge;
use qimg::goss::probe::{Answers, ScriptOptions, script};
use qimg::goss::{Check, State};

fuzz_target!(|bytes: &[u8]| {
    let mark = b"\n===\n";
    let split = bytes.windows(mark.len()).position(|window| window == mark);
    let (file, answer) = match split {
        Some(at) => (&bytes[..at], &bytes[at + mark.len()..]),
        None => (bytes, &b""[..]),
    };
    let Ok(text) = std::str::from_utf8(file) else { return };
    let suite = match load_text(text) {
        Ok(suite) => suite,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let checks: Vec<&Check> = suite.checks.iter().collect();
    for check in &checks {
        assert!(!check.properties.is_empty() && check.line > 0);
    }
    let script = script(&checks, ScriptOptions { max_concurrent: 1 });
    assert!(script.ends_with("\nask_all </dev/null\n"));
    let answers = Answers::parse(answer, checks.len()).unwrap_or_default();
    for (number, check) in checks.iter().enumerate() {
        let outcomes = judge(check, &mut |property| fact(check, number, property, &answers));
        assert_eq!(outcomes.len(), check.properties.len());
        for outcome in outcomes {
            assert!(!outcome.summary().is_empty());
            assert_eq!(outcome.state == State::Failed, outcome.failed());
        }
    }
});
