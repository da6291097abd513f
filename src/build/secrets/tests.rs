use super::*;

const VALUE: &str = "p\u{e4}ss 'w\"or$d`\\&/+<x>";

fn masked_by(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program)
        .args(arguments)
        .env("VALUE", VALUE)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    let text = String::from_utf8(output.stdout).unwrap();
    Masks::new([VALUE]).unwrap().mask(&text).into_owned()
}

#[test]
fn what_programs_print_is_found() {
    let python = |code: &str| {
        let code = format!(
            "import os, json, base64, shlex, html, urllib.parse as u; v = os.environ['VALUE']; {code}"
        );
        masked_by("python3", &["-c", &code])
    };
    for code in [
        "print(v)",
        "print(shlex.quote(v))",
        "print(json.dumps({'a': v}))",
        "print(json.dumps(v, ensure_ascii=False))",
        "print(u.quote(v))",
        "print(u.quote(v, safe=''))",
        "print(u.quote_plus(v))",
        "print(u.urlencode({'a': v}))",
        "print(html.escape(v))",
        "print(html.escape(v).replace('x27', '39'))",
        "print(base64.b64encode(v.encode()).decode())",
        "print(base64.urlsafe_b64encode(v.encode()).decode())",
    ] {
        let shown = python(code);
        assert!(
            shown.contains(MASK) && !shown.contains("w") || code.contains("shlex"),
            "{code}: {shown}"
        );
        assert!(!shown.contains("or$d"), "{code}: {shown}");
    }
    // However much stands around it, of its digits only those at the edges are seen.
    for before in 0..4 {
        for after in 0..4 {
            let shown = python(&format!(
                "print(base64.b64encode(b'u:'*{before} + b':'*{before} + v.encode() + b'.'*{after}).decode())"
            ));
            assert!(shown.contains(MASK), "{before} {after}: {shown}");
        }
    }
    for shell in ["printf '%q\\n' \"$VALUE\"", "set -x; : \"$VALUE\" 2>&1"] {
        let shown = masked_by("bash", &["-c", &format!("exec 2>&1; {shell}")]);
        assert!(!shown.contains("or"), "{shell}: {shown}");
    }
    let shown = masked_by("dash", &["-c", "exec 2>&1; set -x; : \"$VALUE\""]);
    assert!(!shown.contains("or"), "{shown}");
}

#[test]
fn the_longest_value_wins() {
    let masks = Masks::new(["secret", "secret-and-more", ""]).unwrap();
    assert_eq!(
        masks.mask("a secret-and-more b secretsecret"),
        format!("a {MASK} b {MASK}{MASK}")
    );
    assert!(matches!(masks.mask("nothing"), Cow::Borrowed(_)));
}

#[test]
fn short_values_are_masked_where_they_stand_alone() {
    let masks = Masks::new(["abc", "long-one"]).unwrap();
    assert_eq!(
        masks.mask("abc abcd xabc (abc) long-one abc"),
        format!("{MASK} abcd xabc ({MASK}) {MASK} {MASK}")
    );
}

#[test]
fn each_line_of_a_value_is_masked() {
    let masks = Masks::new(["-----BEGIN KEY-----\nAAAABBBBCCCC\n}\n-----END KEY-----\n"]).unwrap();
    assert_eq!(masks.mask("x AAAABBBBCCCC }"), format!("x {MASK} }}"));
    assert_eq!(masks.mask("-----END KEY-----"), MASK);
}

#[test]
fn long_base64_in_lines_is_masked() {
    let value: String = (0..200).map(|n| char::from(b'!' + n % 90)).collect();
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            "printf %s \"$V\" | base64; printf %s \"$V\" | base64 -w 64",
        ])
        .env("V", &value)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let masks = Masks::new([&value]).unwrap();
    for line in text.lines() {
        assert!(!masks.mask(line).contains("J"), "{line}");
    }
}

#[test]
fn a_value_is_found_wherever_the_text_is_cut() {
    let masks = Masks::new(["s\u{e9}cret-value", "value-cut", "abcd"]).unwrap();
    let text = "x s\u{e9}cret-value-cut y s\u{e9}cret-valu abc abcd s\u{e9}";
    let whole = masks.mask(text).into_owned();
    let chars: Vec<char> = text.chars().collect();
    for size in 1..chars.len() {
        let mut stream = masks.stream();
        let mut shown = String::new();
        for piece in chars.chunks(size) {
            shown.push_str(&stream.push(&piece.iter().collect::<String>()));
        }
        shown.push_str(&stream.finish());
        assert_eq!(shown, whole, "pieces of {size}");
    }
}

#[test]
fn words_that_are_no_values_stay() {
    let masks = Masks::new(["password1"]).unwrap();
    for text in ["password", "passwort1", "cGFzc3dv", "\u{1b}[0m \u{0}"] {
        assert_eq!(masks.mask(text), text);
    }
    assert!(format!("{masks:?}").len() < 60);
}

#[test]
fn a_short_value_is_found_wherever_the_text_is_cut() {
    let masks = Masks::new(["abc", "x"]).unwrap();
    let text = "-abc-abcd-x-\u{e9}abc x";
    for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
        let mut stream = masks.stream();
        let shown = stream.push(&text[..at]) + &stream.push(&text[at..]) + &stream.finish();
        assert!(
            !shown.contains("-abc-") && !shown.contains("-x-"),
            "{shown}"
        );
    }
}

#[test]
fn a_short_value_that_begins_in_a_long_one_does_not_cut_it() {
    let masks = Masks::new(["token42", "42\n"]).unwrap();
    let text = "token42\nfo";
    for at in 0..=text.len() {
        let mut stream = masks.stream();
        let shown = stream.push(&text[..at]) + &stream.push(&text[at..]) + &stream.finish();
        assert_eq!(shown, "<sensitive>\nfo", "cut at {at}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]

    #[test]
    fn no_value_is_shown_and_pieces_show_what_the_whole_does(
        values in proptest::collection::vec("[ab'+\u{e9}]{4,7}", 1..4),
        text in "[ab'+\u{e9} ]{0,40}",
        size in 1usize..9,
    ) {
        let masks = Masks::new(&values).unwrap();
        let whole = masks.mask(&text).into_owned();
        for part in whole.split(MASK) {
            proptest::prop_assert!(values.iter().all(|value| !part.contains(value.as_str())), "{whole}");
        }
        let chars: Vec<char> = text.chars().collect();
        let mut stream = masks.stream();
        let mut shown = String::new();
        for piece in chars.chunks(size) {
            shown.push_str(&stream.push(&piece.iter().collect::<String>()));
        }
        shown.push_str(&stream.finish());
        proptest::prop_assert_eq!(shown, whole);
    }
}
