//! Expressions, as `packer console` prints them.

use qimg::template::model::{Action, Scripts};

use super::{Bench, builder, load};

const VARIABLES: &str =
    r#""variables": {"a": "x", "b": "{{user `a`}}y", "empty": "", "e": "{{env `HOME`}}"}"#;

/// What an expression gives here; `None`: it is refused.
fn ours(bench: &Bench, expression: &str, started: u64) -> Option<String> {
    let line = serde_json::to_string(expression).unwrap();
    let text = format!(
        r#"{{{VARIABLES}, "builders": [{}], "provisioners": [{{"type": "shell", "inline": [{line}]}}]}}"#,
        builder("")
    );
    bench.file("t.json", text);
    let mut request = bench.request("t.json");
    request.started = std::time::Duration::from_secs(started);
    request
        .environment
        .insert("HOME".to_owned(), bench.path().display().to_string());
    let loaded = load(&request).ok()?;
    match &loaded.template.builds[0].provisioners[0].action {
        // What waits for a build has no value.
        Action::Shell(shell) => match &shell.scripts {
            Scripts::Inline(lines) => lines[0].as_literal(),
            Scripts::Files(_) => None,
        },
        other => panic!("{other:?}"),
    }
}

/// What Packer prints; `None`: it is an error.
fn theirs(bench: &Bench, expression: &str) -> Option<String> {
    bench.file(
        "v.json",
        format!(r#"{{{VARIABLES}, "builders": [{{"type": "qemu"}}]}}"#),
    );
    let output = bench.packer(&["console", "v.json"], &format!("{expression}\n"));
    let said = String::from_utf8(output.stdout).unwrap();
    let failed = said.contains("Interpolation error") || !output.status.success();
    (!failed).then(|| said.strip_suffix('\n').unwrap_or(&said).to_owned())
}

const EXPRESSIONS: &str = r#"
plain text
}}
{{user `a` }}{{user `b`}}
{{user "nope"}}|
{{user `e`}}
{{user}}
{{user "a" "b"}}
{{user 1}}
{{user `a` | upper}}
{{"a" | user}}
{{upper "abc"}}{{lower "ABC"}}
{{lower "ÄÖ"}}{{upper "ß"}}
{{upper 1}}
{{upper}}
{{upper "a" "b"}}
{{1|upper}}
{{ upper .Foo}}
{{upper .}}
{{split "a-b" "-" 0}}{{split "a-b" "-" 1}}
{{split "a-b" "-" 2}}
{{split "a-b" "-" -1}}
{{split "a-b" "" 1}}
{{split "a-b" "-" 1.0}}
{{split "a-b" "-" "1"}}
{{replace "a" "b" 2 "aaa"}}{{replace "a" "b" -1 "aaa"}}
{{replace "a" "b" "aaa" 2}}
{{replace "" "b" -1 "aaa"}}
{{replace_all "a" "b" "aaa"}}
{{replace_all "" "-" "abc"}}
{{sed "a" "b"}}
{{consul_key "a"}}
{{vault "a" "b"}}
{{aws_secretsmanager "a"}}
{{nope}}
{{pwd}}
{{pwd 1}}
{{template_dir}}
{{env `HOME`}}
{{env}}
{{build `ID`}}
{{timestamp 1}}
{{isotime "a" "b"}}
{{isotime 1}}
{{.}}
{{$}}
{{.Foo}}
{{.Foo.Bar}}
{{(.a).b}}
{{("a").b}}
{{ .Foo 1}}
{{ "x" | .Foo }}
{{nil}}
{{true}}
{{1}} {{-3}} {{+4}} {{1_000}} {{0x1F}} {{0b11}} {{0o17}} {{017}}
{{1.5}} {{1e3}} {{3.0}} {{1e100}} {{1e20}} {{1e21}} {{0.000001}} {{1e6}} {{123456789.0}} {{100000.0}} {{0.00001234}}
{{99999999999999999999}}
{{9223372036854775807}}
{{printf "%d" 18446744073709551615}}
{{'a'}} {{'\n'}} {{'\''}} {{'é'}}
{{'ab'}}
{{''}}
{{"\u00e9\x41\101\t\"\\"}}
{{`a\n`}}
{{"}}"}}
{{"{{"}}
{{"a}}
{{`a}}
{{"a"}
{{}}
{{ }}
{{
{{ "y
{{"a"}}{{"b"}}
{{ "a" "b" }}
{{ 1 2 }}
{{ 1 | 2 }}
{{"a" |}}
{{| "a"}}
{{"x" "y" | printf}}
{{upper("a")}}
{{ upper"a" }}
{{(upper "a")}}{{(upper "a") | lower}}
{{printf "%v" (eq 1 1)}}
{{"a" | upper | lower}}
{{lower "ABC" | upper | printf "%s-%s" "x"}}
{{(upper "a"}}
{{upper "a")}}
{{a.b}}
{{upper.b}}
{{"a".b}}
{{print nil}} {{print 1 2 "a" "b" 3}} {{print}}|
{{print 1 2}} {{print "a" 1 2 "b"}} {{print true false}}
{{printf}}
{{printf 1}}
{{printf "%d" "a"}} {{printf "%s" 1}} {{printf "%s" .}} {{printf "%v" nil}} {{printf "%d" .Foo}}
{{printf "%q %v %d" "a" 3.0 4}}
{{printf "%x %X %o %b %c %U %q" 255 255 8 5 65 65 65}}
{{printf "%e %g %f %.2f %5.1f %E %G" 1.5 1.5 1.5 1.555 2.25 12345.678 0.00000123}}
{{printf "%05d|%+d|%-5d|%5d|% d|%x|%#x|%#o" 42 7 3 3 5 -255 255 8}}
{{printf "%5s|%-5s|%.2s|%5.1s|%q|%x|%X|% x|%#q" "ab" "ab" "abc" "abc" "a\"b" "hi" "hi" "hi" "raw"}}
{{printf "%t %v" true false}} {{printf "%5t|" true}}
{{printf "%!"}} {{printf "%d"}} {{printf "%d" 1 2}} {{printf "%"}} {{printf "100%%"}}
{{printf "%[2]d %[1]d" 1 2}} {{printf "%*d" 5 1}} {{printf "%T %T %T %T" 1 "a" true 1.5}} {{printf "%z" 1}}
{{printf "%g %g %g %g" 100000.0 1000000.0 1e-4 1e-5}} {{printf "%.3g %.10g" 1234.5678 1234.5678}}
{{printf "%s %s" "a"}}
{{printf "%v %v %v" "a" 1 2.5}}
{{println "a" 1}}
{{html "<a href='x'>&\"</a>"}} {{html "a<b" 1}}
{{js "a'b\"<\n>=&"}}
{{urlquery "a/ é~-_." }}
{{len "abc"}} {{len "é"}}
{{len 3}}
{{index "abc" 1}}
{{index "abc" 9}}
{{index "abc" "x"}}
{{index .Foo 1}}
{{slice "abcdef" 1 3}}{{slice "abcdef" 2}}{{slice "abc"}}
{{slice "abc" 2 1}}
{{slice "abc" 1 2 3}}
{{slice "abc" 9}}
{{call upper "a"}}
{{eq 1 1}}{{eq "a" "b" "a"}}{{ne 1 2}}{{lt 1 2}}{{le 1.5 2.5}}{{gt "b" "a"}}{{ge 2 2}}{{eq true true}}
{{eq 1 1.0}}
{{eq "a" 1}}
{{lt "a" 1}}
{{lt true false}}
{{eq 1}}
{{eq nil nil}} {{eq .Foo .Foo}} {{eq .Foo "a"}} {{ne .Foo "a"}}
{{and 1 0}} {{and 1 2}} {{or 0 "x"}} {{or 0 ""}}| {{not 0}} {{not .Foo}} {{and .Foo 1}}
{{and}}
{{not}}
{{or 1 (index "a" 9)}}
{{and 0 (index "a" 9)}}
{{true | not}}
{{if .Foo}}a{{else if true}}b{{else}}c{{end}}
{{if eq (user `a`) "x"}}yes{{else}}no{{end}}
{{if 0}}a{{end}}{{if ""}}a{{end}}{{if 1.5}}b{{end}}{{if "x"}}c{{end}}{{if 0.0}}d{{end}}
{{if nil}}{{end}}
{{if}}x{{end}}
{{if true}}x
{{end}}
{{else}}
{{if true}}a{{else}}b{{else}}c{{end}}
{{with "x"}}{{.}}{{end}}{{with ""}}a{{else}}b{{end}}
{{with $x := 3}}{{$x}}{{end}}
{{with $x := 3}}{{$x}}{{end}}{{$x}}
{{range .Foo}}a{{else}}b{{end}}
{{range .}}a{{else}}b{{end}}
{{range "abc"}}a{{end}}
{{range $i, $c := .}}{{end}}x
{{range $i, $c, $d := .}}{{end}}
{{break}}
{{continue}}
{{range .}}{{break}}{{end}}x
{{$x := "a"}}{{$x}}
{{$x = "a"}}
{{$y}}
{{$x := 1}}{{$x = 2}}{{$x}}
{{$x := 1}}{{if true}}{{$x := 5}}{{end}}{{$x}}
{{$x := 1}}{{if true}}{{$x = 5}}{{end}}{{$x}}
{{$x, $y := 1}}
{{$x := "a" | upper}}{{$x}}{{$x | lower}}
{{/* c */}}x{{- /* d */ -}} y
{{/* c }}x
{{ /* c */ }}x
{{/* c */ "a"}}
a {{- "b" -}} c{{"d"}} {{- "e" }}
{{-"a"}}
{{"a"-}}
{{- 3}}{{- 4 -}} 5
{{define "t"}}x{{.}}{{end}}{{template "t" "y"}}{{template "t"}}
{{template "nope"}}
{{template nope}}
{{block "b" "z"}}[{{.}}]{{end}}
{{define "t"}}{{$x}}{{end}}
{{if true}}{{define "t"}}{{end}}{{end}}
{{define "a"}}{{end}}{{define "a"}}x{{end}}{{template "a"}}
{{#}}
{{a b}}
{{.5}} {{.a.b}} {{. }}
{{. .}}
{{$.a}}
{{"a" , "b"}}
{{upper "a" := 1}}
{{1i}}
{{0x}}
{{1a}}
{{08}}
{{"\q"}}
{{"\u00"}}
"#;

/// What differs, on purpose: the expression, what it gives here, and why.
const EXCEPTIONS: &[(&str, Option<&str>, &str)] = &[
    ("{{1i}}", None, "no template needs complex numbers"),
    (
        "{{\"{{\"}}",
        Some("{{"),
        "the console fills in what it has filled in",
    ),
    (
        "{{define \"a\"}}{{end}}{{define \"a\"}}x{{end}}{{template \"a\"}}",
        None,
        "a template that is defined twice is a slip, even where one of them is empty",
    ),
];

#[test]
fn an_expression_has_the_value_that_packer_prints() {
    let lines: Vec<&str> = EXPRESSIONS
        .lines()
        .filter(|line| !line.is_empty())
        .collect();
    let half = lines.len() / 2;
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let judge = |lines: &[&str]| {
            let bench = Bench::new();
            let mut wrong = Vec::new();
            for line in lines {
                let (ours, theirs) = (ours(&bench, line, 0), theirs(&bench, line));
                match EXCEPTIONS.iter().find(|(known, ..)| known == line) {
                    Some((_, wanted, why)) => {
                        assert_ne!(ours, theirs, "{line} is no exception: {why}");
                        assert_eq!(ours.as_deref(), *wanted, "{line}");
                    }
                    None if ours != theirs => {
                        wrong.push(format!("{line}: {ours:?}, Packer {theirs:?}"));
                    }
                    None => {}
                }
            }
            wrong
        };
        let first = &lines[..half];
        let thread = scope.spawn(move || judge(first));
        let mut wrong = judge(&lines[half..]);
        wrong.extend(thread.join().unwrap());
        wrong
    });
    assert!(lines.len() > 150);
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn times_are_written_as_packer_writes_them() {
    let bench = Bench::new();
    // %L shows a fraction of the second that the timestamp does not tell.
    let letters: String = ('a'..='z')
        .chain(('A'..='Z').filter(|c| *c != 'L'))
        .map(|c| format!("%{c} "))
        .collect();
    for layout in [
        "isotime".to_owned(),
        "isotime `Mon Monday Jan January 1 01 2 02 _2 15 3 03 4 04 5 05 06 2006 PM pm MST`".to_owned(),
        "isotime `-0700 -07:00 Z0700 Z07:00 -07 002 __2 _2006 20060102150405 2006-01-02T15:04:05Z07:00`".to_owned(),
        "isotime `Janet Monk 1st v2 0 6 7 8 9 __ _ -0 Z Z0 .a ,x`".to_owned(),
        format!("strftime `{letters} %% % é`"),
        "strftime `%Y-%m-%dT%H:%M:%SZ %`".to_owned(),
    ] {
        let expression = format!("{{{{timestamp}}}}|{{{{{layout}}}}}");
        let theirs = theirs(&bench, &expression).unwrap();
        let started = theirs.split('|').next().unwrap().parse().unwrap();
        let ours = ours(&bench, &expression, started);
        assert_eq!(ours.as_deref(), Some(theirs.as_str()), "{layout}");
    }
}
