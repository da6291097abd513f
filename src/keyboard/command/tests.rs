use proptest::prelude::*;

use super::*;

fn parts(command: &str) -> Vec<Part> {
    parse(command).unwrap().parts
}

fn typed(text: &str) -> Vec<Part> {
    let press = |c| Part::Press(Symbol::Character(c));
    text.chars().map(press).collect()
}

fn key(name: &'static str) -> Part {
    Part::Press(Symbol::Key(name))
}

fn wait(text: &str) -> Part {
    Part::Wait(Duration::from_nanos(
        duration::parse(text).unwrap().unsigned_abs(),
    ))
}

/// What Packer 1.6.6 and its plugin's grammar make of it.
#[test]
fn it_is_read_as_packer_reads_it() {
    for (command, wanted) in [
        ("<enter>", vec![key("ret")]),
        ("<return>", vec![key("ret")]),
        ("<EnTeR>", vec![key("ret")]),
        ("<f1><f10><f12>", vec![key("f1"), key("f10"), key("f12")]),
        ("<menu>", vec![key("compose")]),
        ("<wait>", vec![wait("1s")]),
        ("<wait5>", vec![wait("5s")]),
        ("<wait0>", vec![wait("0")]),
        ("<wait1m20s>", vec![wait("1m20s")]),
        ("<wait300ms>", vec![wait("300ms")]),
        ("<wait1.5h>", vec![wait("1h30m")]),
        ("<wait5us><wait7ns>", vec![wait("5us"), wait("7ns")]),
        // The case of `wait` counts.
        ("<Wait>", typed("<Wait>")),
        ("<wait05>", typed("<wait05>")),
        ("<wait1.5>", typed("<wait1.5>")),
        ("<wait 5>", typed("<wait 5>")),
        ("<wait.5s>", typed("<wait.5s>")),
        (
            "<leftCtrlOn>e<leftCtrlOff>",
            vec![
                Part::Hold(Symbol::Key("ctrl")),
                Part::Press(Symbol::Character('e')),
                Part::Release(Symbol::Key("ctrl")),
            ],
        ),
        (
            "<LEFTALTON><f2><leftaltoff>",
            vec![
                Part::Hold(Symbol::Key("alt")),
                key("f2"),
                Part::Release(Symbol::Key("alt")),
            ],
        ),
        (
            "<aOn><aOFF>",
            vec![
                Part::Hold(Symbol::Character('a')),
                Part::Release(Symbol::Character('a')),
            ],
        ),
        (
            "<<On><>off>",
            vec![
                Part::Hold(Symbol::Character('<')),
                Part::Release(Symbol::Character('>')),
            ],
        ),
        ("<ßon>", vec![Part::Hold(Symbol::Character('ß'))]),
        ("<<enter>", [typed("<"), vec![key("ret")]].concat()),
        ("<foo>", typed("<foo>")),
        ("<enter", typed("<enter")),
        ("<>", typed("<>")),
        ("a < b", typed("a < b")),
        ("", vec![]),
        (
            "<leftCommandOn><rightOptionOff>",
            vec![
                Part::Hold(Symbol::Key("alt")),
                Part::Release(Symbol::Key("meta_r")),
            ],
        ),
    ] {
        assert_eq!(parts(command), wanted, "{command}");
    }
    for (name, _) in NAMES {
        assert_eq!(parts(&format!("<{name}>")).len(), 1, "{name}");
        assert_eq!(parts(&format!("<{name}On><{name}Off>")).len(), 2, "{name}");
    }
}

#[test]
fn waits_for_no_time_are_errors() {
    for command in [
        "<wait0s>",
        "<wait-1s>",
        "<wait1s-2s>",
        "<wait99999999999>",
        "<wait9999999999h>",
    ] {
        assert!(parse(command).is_err(), "{command}");
    }
}

#[test]
fn a_text_is_waited_for() {
    let of = |text: &str, timeout: Option<u64>| Part::WaitFor {
        text: text.to_owned(),
        timeout: timeout.map(Duration::from_secs),
    };
    for (command, wanted) in [
        ("<waitfor \"login:\">", of("login:", None)),
        ("<waitfor \"login:\" 60s>", of("login:", Some(60))),
        (
            "<waitfor \"a > b \\\" \\\\ \\n\" 5>",
            of("a > b \" \\ \\n", Some(5)),
        ),
        ("<waitfor  \"x\"  1m  >", of("x", Some(60))),
    ] {
        assert_eq!(parts(command), [wanted], "{command}");
    }
    for command in [
        "<waitfor login:>",
        "<waitfor \"x\" soon>",
        "<waitfor \"x",
        "<waitfor \"x\" 5s",
    ] {
        let command = parse(command).unwrap();
        assert!(command.doubts[0].word.starts_with("waitfor"), "{command:?}");
    }
    assert!(parse("<waitfor \"\">").is_err());
    assert!(parse("<waitfor \"a\nb\">").is_err());
    assert!(parse("<waitfor \"a\" 0s>").is_err());
}

#[test]
fn what_looks_like_a_key_is_doubted() {
    let doubts = |command: &str| -> Vec<String> {
        let doubts = parse(command).unwrap().doubts;
        doubts.into_iter().map(|doubt| doubt.word).collect()
    };
    assert_eq!(
        doubts("x<etner> <Wait><wait05>"),
        ["etner", "Wait", "wait05"]
    );
    assert_eq!(doubts("a < b > c <a href=\"x\"> << <> <esc>"), [""; 0]);
    assert_eq!(
        doubts("<wait 5><WaitFor \"x\" 5s><leftCtrl+c><LeftCtrlOn >"),
        ["wait 5", "WaitFor \"x\" 5s", "leftCtrl+c", "LeftCtrlOn "]
    );
    assert_eq!(doubts("<tab stop=\"1\"><my wait 5>"), [""; 0]);
    assert_eq!(parse("ab<etner>").unwrap().doubts[0].at, 2);
}

/// A command as it is written.
fn written(part: &Part) -> String {
    let name = |symbol: &Symbol| match symbol {
        Symbol::Character(c) => c.to_string(),
        Symbol::Key(key) => NAMES
            .iter()
            .find(|(_, other)| other == key)
            .unwrap()
            .0
            .to_owned(),
    };
    match part {
        Part::Press(Symbol::Character(c)) => c.to_string(),
        Part::Press(symbol) => format!("<{}>", name(symbol)),
        Part::Hold(symbol) => format!("<{}On>", name(symbol)),
        Part::Release(symbol) => format!("<{}Off>", name(symbol)),
        Part::Wait(time) => format!("<wait{}ns>", time.as_nanos()),
        Part::WaitFor { text, timeout } => {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"");
            let time = timeout.map_or(String::new(), |time| format!(" {}ns", time.as_nanos()));
            format!("<waitfor \"{text}\"{time}>")
        }
    }
}

fn part() -> impl Strategy<Value = Part> {
    let key = proptest::sample::select(NAMES.to_vec()).prop_map(|(_, key)| Symbol::Key(key));
    let symbol = prop_oneof![key, any::<char>().prop_map(Symbol::Character)];
    prop_oneof![
        symbol.clone().prop_map(Part::Press),
        symbol.clone().prop_map(Part::Hold),
        symbol.prop_map(Part::Release),
        (1u64..1 << 50).prop_map(|time| Part::Wait(Duration::from_nanos(time))),
        ("[ -~]{0,20}[a-z]", proptest::option::of(1u64..1 << 40)).prop_map(|(text, timeout)| {
            Part::WaitFor {
                text,
                timeout: timeout.map(Duration::from_nanos),
            }
        }),
    ]
}

proptest! {
    #[test]
    fn any_text_is_understood_or_refused(text in "\\PC{0,40}|[<>a-zA-Z0-9\" -]{0,40}|(<(wait|waitfor|on|f1)[a-z0-9\" .-]{0,8}>?){0,6}") {
        if let Ok(command) = parse(&text) {
            // A part takes at least one character of the text, and none is lost.
            prop_assert!(command.parts.len() <= text.chars().count());
            prop_assert!(command.doubts.iter().all(|doubt| text[doubt.at..].starts_with('<')));
        }
    }

    #[test]
    fn what_is_written_is_read(list in proptest::collection::vec(part(), 0..20)) {
        // A `<` as it is would begin something with what follows it.
        prop_assume!(!list.contains(&Part::Press(Symbol::Character('<'))));
        let text: String = list.iter().map(written).collect();
        prop_assert_eq!(parse(&text).unwrap().parts, list, "{}", text);
    }
}
