//! Functions of templates by what they give.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use super::GossFunctions;
use crate::template::go::{Value, render};

fn fill(text: &str) -> Result<String, String> {
    let environment = BTreeMap::from([("OS".to_owned(), "debian".to_owned())]);
    let functions = GossFunctions {
        environment: &environment,
        directory: Path::new("/nowhere"),
        read: Cell::new(0),
    };
    render(text, &functions, &Value::Nil).map_err(|fault| fault.message)
}

#[test]
fn functions_give_what_they_do_elsewhere() {
    for (text, wanted) in [
        (
            r#"{{ getEnv "OS" }}{{ getEnv "X" "y" }}{{ env "X" }}"#,
            "debiany",
        ),
        (r#"{{ default "a" "" }}{{ "b" | default "a" }}"#, "ab"),
        (
            r#"{{ ternary "yes" "no" true }}{{ coalesce "" 0 "c" }}{{ empty "" }}"#,
            "yesctrue",
        ),
        (
            r#"{{ list 1 2 "x" }} {{ dict "a" 1 "b" (list 2) }}"#,
            "[1 2 x] map[a:1 b:[2]]",
        ),
        (
            r#"{{ join "," (list 1 2) }} {{ splitList "." "a.b" }} {{ (split "." "a.b")._1 }}"#,
            "1,2 [a b] b",
        ),
        (
            r#"{{ range $i, $x := list "a" "b" }}{{ $i }}{{ $x }}{{ end }}"#,
            "0a1b",
        ),
        (r#"{{ range list }}x{{ else }}none{{ end }}"#, "none"),
        (
            r#"{{ range $k, $v := dict "b" 2 "a" 1 }}{{ $k }}={{ $v }};{{ end }}"#,
            "a=1;b=2;",
        ),
        (
            r#"{{ first (list 1 2) }}{{ last (list 1 2) }}{{ rest (list 1 2) }}{{ initial (list 1 2) }}"#,
            "12[2][1]",
        ),
        (
            r#"{{ append (list 1) 2 }}{{ prepend (list 1) 0 }}{{ concat (list 1) (list 2) }}"#,
            "[1 2][0 1][1 2]",
        ),
        (
            r#"{{ uniq (list 1 1 2) }}{{ sortAlpha (list "b" "a") }}{{ has 1 (list 1) }}{{ without (list 1 2) 1 }}"#,
            "[1 2][a b]true[2]",
        ),
        (
            r#"{{ keys (dict "b" 1 "a" 2) }}{{ hasKey (dict "a" 1) "a" }}{{ get (dict "a" 1) "b" }}"#,
            "[a b]true",
        ),
        (
            r#"{{ until 3 }}{{ untilStep 0 6 2 }}{{ seq 3 }}"#,
            "[0 1 2][0 2 4]1 2 3",
        ),
        (
            r#"{{ add 1 2 3 }} {{ sub 5 2 }} {{ mul 2 3 }} {{ div 7 2 }} {{ mod 7 2 }} {{ max 1 9 }} {{ add1 "4" }}"#,
            "6 3 6 3 1 9 5",
        ),
        (
            r#"{{ "a b" | title }} {{ trim " x " }} {{ trimSuffix ".x" "a.x" }} {{ trimAll "-" "-a-" }}"#,
            "A B x a a",
        ),
        (
            r#"{{ replace "a" "b" "aa" }} {{ contains "b" "abc" }} {{ hasPrefix "a" "ab" }}"#,
            "bb true true",
        ),
        (
            r#"{{ quote "a\"b" 1 }} {{ squote "x" }} {{ cat "a" 1 }}"#,
            r#""a\"b" "1" 'x' a 1"#,
        ),
        (r#"{{ indent 2 "a\nb" }}"#, "  a\n  b"),
        (
            r#"{{ trunc 2 "abc" }} {{ trunc -2 "abc" }} {{ substr 1 3 "abcd" }}"#,
            "ab bc bc",
        ),
        (r#"{{ b64enc "hi" }} {{ b64dec "aGk=" }}"#, "aGk= hi"),
        (r#"{{ sha256sum "" | trunc 8 }}"#, "e3b0c442"),
        (
            r#"{{ regexFind "[0-9]+" "a12" }} {{ regexReplaceAll "a(.)" "abac" "$1" }} {{ regexFindAll "a." "abac" -1 }}"#,
            "12 bc [ab ac]",
        ),
        (
            r#"{{ (fromJson "{\"a\": [1, 2]}").a }} {{ toJson (dict "a" (list 1)) }}"#,
            r#"[1 2] {"a":[1]}"#,
        ),
        (
            r#"{{ base "/a/b" }} {{ dir "/a/b" }} {{ kindOf (list) }} {{ kindIs "string" "x" }}"#,
            "b /a slice true",
        ),
        (r#"{{ get ("ab" | findStringSubmatch "(a)(b)") "2" }}"#, "b"),
        (
            r#"{{ index (list "a" "b") 1 }}{{ len (list 1 2) }}{{ index (dict "k" "v") "k" }}"#,
            "b2v",
        ),
        (r#"{{ int "42" | printf "%03d" }}"#, "042"),
    ] {
        assert_eq!(fill(text), Ok(wanted.to_owned()), "{text}");
    }
}

#[test]
fn what_a_function_cannot_do_it_says() {
    for (text, words) in [
        (r#"{{ fail "no way" }}"#, "no way"),
        (r#"{{ readFile "absent" }}"#, "readFile"),
        (r#"{{ until 1000000 }}"#, "more than"),
        (r#"{{ div 1 0 }}"#, "no such number"),
        (r#"{{ regexMatch "(" "x" }}"#, "no regular expression"),
        (r#"{{ first "x" }}"#, "expected a list"),
        (r#"{{ index (list 1) 5 }}"#, "out of range"),
        (r#"{{ fromJson "{" }}"#, "fromJson"),
    ] {
        let message = fill(text).unwrap_err();
        assert!(message.contains(words), "{text}: {message}");
    }
}
