//! The cases of Goss's own documentation of matchers, and what lies at their edges.

use serde_json::{Value, json};

use super::{Actual, Matcher};
use crate::seed::yaml::{Schema, load_as};

fn matcher(text: &str) -> Matcher {
    Matcher::parse(&load_as(text, Schema::Core).unwrap().root).unwrap()
}

fn holds(text: &str, actual: &Actual) -> Result<bool, String> {
    matcher(text).compare(actual).map(|verdict| verdict.passed)
}

fn value(value: Value) -> Actual {
    Actual::Value(value)
}

#[test]
fn the_documented_cases_hold() {
    let semver = "semver-constraint: '>1.0.0 <2.0.0 !=1.5.0'";
    let json = r#"{"foo": "bar", "moo": {"nested": "cow"}, "count": "15"}"#;
    #[rustfmt::skip]
    let table: &[(&str, Value, bool)] = &[
        ("foo", json!("foo"), true),
        ("65534", json!(65534), true),
        ("'65534'", json!(65534), true),
        ("[group1, group2]", json!(["group1", "group2", "group3"]), true),
        ("[group1, group2, group2]", json!(["group1", "group2", "group3"]), false),
        ("'128'", json!("128"), true),
        ("{gt: 200}", json!("128"), false),
        ("and: ['42', {have-prefix: '4'}, {have-suffix: '2'}, {match-regexp: '\\d{2}'}, {contain-substring: '2'}]", json!(42), true),
        ("and: [42, 42.0, {gt: 40}, {lt: 45}]", json!("42"), true),
        ("and: [{contain-elements: [foo, bar]}, [foo, bar], {equal: [foo, bar, moo]}, \
           {consist-of: [foo, {have-prefix: m}, bar]}, {contain-element: {have-prefix: b}}]", json!(["foo", "bar", "moo"]), true),
        ("equal: [bar, foo, moo]", json!(["foo", "bar", "moo"]), false),
        ("consist-of: [foo, bar]", json!(["foo", "bar", "moo"]), false),
        ("match-regexp: some str", json!("some string"), true),
        ("contain-element: 2", json!([2]), true),
        ("and: [{have-key: baz}]", json!({"foo": "bar", "baz": "bing"}), true),
        ("{gt: 0}", json!(14), true),
        ("0", json!(3), false),
        ("[{not: FAIL}]", json!("FAIL"), false),
        (semver, json!(["1.0.1", "1.9.9"]), true),
        (semver, json!(["1.0.1", "1.5.0", "1.9.9"]), false),
        ("not: {semver-constraint: '>1.0.0 <2.0.0 !=1.5.0'}", json!(["1.0.1", "1.5.0", "1.9.9"]), true),
        ("semver-constraint: '>5.0.0 || < 1.5.0'", json!("1.0.1"), true),
        ("semver-constraint: '>= 4.0.0'", json!(["4.0.0-rc1"]), false),
        ("semver-constraint: '< 4.0.0'", json!(["4.0.0-rc1"]), true),
        ("semver-constraint: '> 4.0.0'", json!(["4.1.0+build"]), true),
        ("semver-constraint: '1.x'", json!("1.7.2"), true),
        ("gjson: {moo.nested: cow, foo: {have-prefix: b}, count: {le: 25}, '@this': {have-key: foo}, \
           moo: {and: [{have-key: nested}, {not: {have-key: nested2}}]}}", json!(json), true),
        ("gjson: {count: {and: [{le: 20}, 15, {equal: '15'}, {not: {equal: 15}}]}}", json!(json), true),
        ("have-len: 3", json!(["a", "b", "c"]), true),
        ("have-len: 3", json!("abc"), true),
        ("have-len: {gt: 3}", json!({"a": 1}), false),
        ("or: [{have-prefix: x}, foo]", json!("foo"), true),
        ("or: [{have-prefix: x}, bar]", json!("foo"), false),
        ("true", json!(true), true),
        ("true", json!("true"), false),
        ("have-patterns: ['/^f/', '!bar']", json!("foo"), true),
    ];
    for (text, actual, wanted) in table {
        let found = holds(text, &value(actual.clone()));
        assert_eq!(found, Ok(*wanted), "{text} of {actual}");
    }
}

#[test]
fn lines_are_looked_through_by_patterns() {
    let text = || Actual::Text("foo one\nGoss here\n!bang\n".to_owned());
    #[rustfmt::skip]
    let table: &[(&str, bool)] = &[
        ("[foo, '!bar', '/[Gg]oss/']", true),
        ("['!foo']", false),
        ("['\\!bang']", true),
        ("['!/^G.*e$/']", false),
        ("['/^foo one$/']", true),
        ("[absent]", false),
        ("and: [{contain-element: 'foo one'}, {not: {contain-element: bar}}, {contain-element: {match-regexp: '[Gg]oss'}}]", true),
        ("\"foo one\\nGoss here\\n!bang\\n\"", true),
        ("foo one", false),
        ("have-len: 24", true),
    ];
    for (pattern, wanted) in table {
        assert_eq!(holds(pattern, &text()), Ok(*wanted), "{pattern}");
    }
    assert_eq!(holds("''", &Actual::Text(String::new())), Ok(true));
    assert_eq!(holds("''", &text()), Ok(false));
    assert_eq!(holds("{lt: 5}", &Actual::Text("3\n".to_owned())), Ok(true));
    assert_eq!(holds("3", &Actual::Text("3\n".to_owned())), Ok(true));
}

#[test]
fn what_cannot_be_compared_is_an_error_and_no_verdict() {
    for (text, actual) in [
        ("5", json!("five")),
        ("{gt: 1}", json!(true)),
        ("semver-constraint: '> 4.0.0'", json!(["4.4.019-1"])),
        ("not: {semver-constraint: '> 4.0.0'}", json!("x")),
        ("gjson: {a: 1}", json!("no json")),
        ("gjson: {a: 1}", json!("{}")),
        ("have-key: x", json!([1])),
    ] {
        assert!(holds(text, &value(actual)).is_err(), "{text}");
    }
}

#[test]
fn what_asserts_nothing_or_is_misspelt_is_refused_with_its_place() {
    for (text, line, words, remedy) in [
        ("[]", 1, "asserts nothing", "leave it out"),
        ("", 1, "asserts nothing", "say what"),
        ("and: []", 1, "asserts nothing", "leave it out"),
        ("{}", 1, "asserts nothing", "leave it out"),
        ("['']", 1, "asserts nothing", ""),
        (
            "\nhave-prefx: x",
            2,
            "there is no matcher 'have-prefx'",
            "did you mean have-prefix?",
        ),
        ("gt: 1\nlt: 3", 2, "a second matcher, lt", "`and`"),
        ("match-regexp: '('", 1, "is no regular expression", ""),
        ("gt: x", 1, "a number belongs here", ""),
        (
            "semver-constraint: nonsense",
            1,
            "is no bound of a version",
            "",
        ),
        ("gjson: {'a.@ugly': 1}", 1, "there is no modifier @ugly", ""),
        ("xml: {}", 1, "not there", "have-patterns"),
    ] {
        let root = load_as(text, Schema::Core).unwrap().root;
        let wrong = Matcher::parse(&root).unwrap_err();
        assert_eq!(wrong.line, line, "{text}");
        assert!(wrong.message.contains(words), "{}", wrong.message);
        let told = wrong.remedy.unwrap_or_default();
        assert!(told.contains(remedy), "{told}");
    }
}

#[test]
fn a_failure_says_what_is_missing_and_how_the_value_was_changed() {
    let verdict = matcher("consist-of: [a, {have-prefix: b}]")
        .compare(&value(json!(["a", "c"])))
        .unwrap();
    assert_eq!(verdict.missing_elements, [json!({"have-prefix": "b"})]);
    assert_eq!(verdict.extra_elements, [json!("c")]);
    let verdict = matcher("{gt: 200}").compare(&value(json!("128"))).unwrap();
    assert_eq!(verdict.transform_chain, ["to-numeric"]);
    assert_eq!(verdict.raw, Some(json!("128")));
    assert_eq!(
        (verdict.actual, verdict.message.as_str()),
        (json!(128), "to be >")
    );
    let verdict = matcher("not: {equal: x}")
        .compare(&value(json!("x")))
        .unwrap();
    assert_eq!(verdict.message, "not to equal");
}

#[test]
fn paths_lead_through_lists() {
    let json = json!({"a": [{"n": 1, "k": "x"}, {"n": 2, "k": "y"}], "with.dot": 3});
    for (path, wanted) in [
        ("a.#", json!(2)),
        ("a.1.n", json!(2)),
        ("a.#.k", json!(["x", "y"])),
        ("a.#(k==\"y\").n", json!(2)),
        ("a.#(n>0)#.k", json!(["x", "y"])),
        ("with\\.dot", json!(3)),
        ("w*t", json!(3)),
        ("a|@reverse|0.n", json!(2)),
    ] {
        let path = super::gjson::Path::parse(path).unwrap();
        assert_eq!(path.find(&json), Some(wanted), "{path:?}");
    }
}
