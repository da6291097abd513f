//! What follows from one property for the others, and what is said.

use serde_json::json;

use super::{State, judge};
use crate::goss::load::load_text;
use crate::goss::matcher::Actual;

fn states(text: &str, facts: &[(&str, Result<Actual, String>)]) -> Vec<(String, State)> {
    let suite = load_text(text).unwrap();
    let found = judge(&suite.checks[0], &mut |property| {
        let fact = facts.iter().find(|(name, _)| *name == property);
        fact.unwrap_or_else(|| panic!("{property} was asked for"))
            .1
            .clone()
    });
    found
        .into_iter()
        .map(|outcome| (outcome.property, outcome.state))
        .collect()
}

fn value(value: serde_json::Value) -> Result<Actual, String> {
    Ok(Actual::Value(value))
}

#[test]
fn what_is_not_there_has_no_other_properties() {
    let file = "file:\n  /a: {mode: '0644', exists: true}\n";
    let both = |a, b| vec![("exists".to_owned(), a), ("mode".to_owned(), b)];
    assert_eq!(
        states(file, &[("exists", value(json!(false)))]),
        both(State::Failed, State::Skipped)
    );
    assert_eq!(
        states(
            file,
            &[
                ("exists", value(json!(true))),
                ("mode", value(json!("0600")))
            ]
        ),
        both(State::Passed, State::Failed)
    );
    let absent = "file:\n  /a: {mode: '0644', exists: false}\n";
    assert_eq!(
        states(absent, &[("exists", value(json!(false)))]),
        both(State::Passed, State::Skipped)
    );
    let skipped = "file:\n  /a: {mode: '0644', exists: true, skip: true}\n";
    assert_eq!(states(skipped, &[]), both(State::Skipped, State::Skipped));
    // A command's output is looked at whatever its exit code.
    let command = "command:\n  x: {exit-status: 0, stdout: [a]}\n";
    let found = states(
        command,
        &[
            ("exit-status", value(json!(1))),
            ("stdout", Ok(Actual::Text("a\n".into()))),
        ],
    );
    assert_eq!(found[1].1, State::Passed);
}

#[test]
fn a_failure_explains_itself() {
    let suite = load_text("kernel-param:\n  net.core.somaxconn: {value: {gt: 200}}\n").unwrap();
    let found = judge(&suite.checks[0], &mut |_| value(json!("128")));
    assert_eq!(
        found[0].summary(),
        "KernelParam: net.core.somaxconn: value: doesn't match, expect: to be > 200, found: 128"
    );
    assert_eq!(
        found[0].explanation(),
        "Expected\n    128\nto be >\n    200\nthe transform chain was\n    [\"to-numeric\"]\nthe raw value was\n    \"128\""
    );
    let failed = judge(&suite.checks[0], &mut |_| Err("there is none".to_owned()));
    assert_eq!(
        failed[0].summary(),
        "KernelParam: net.core.somaxconn: value: Error: there is none"
    );
}
