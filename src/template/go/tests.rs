use super::*;

/// `up` and `n`; everything else is unknown.
struct Few;

impl Functions for Few {
    fn signature(&self, name: &str) -> Option<(&'static [Param], bool)> {
        match name {
            "up" | "user" => Some((&[Param::Text], false)),
            "later" => Some((&[Param::Text], false)),
            "n" => Some((&[Param::Int], false)),
            _ => None,
        }
    }

    fn names(&self) -> Vec<&'static str> {
        vec!["up", "n", "later"]
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Result<String, Refusal> {
        match name {
            "up" => Ok(arguments[0].as_text().unwrap().to_uppercase()),
            "user" => Ok(format!("<{}>", arguments[0].as_text().unwrap())),
            "n" => Ok("x".repeat(usize::try_from(arguments[0].as_int().unwrap()).unwrap())),
            _ => Err("not yet".into()),
        }
    }
}

fn dot(fields: &[(&str, &str)]) -> Value {
    let fields = fields.iter();
    let fields = fields.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Value::Fields(std::rc::Rc::new(fields.collect()))
}

#[test]
fn fields_are_those_that_there_are() {
    let dot = dot(&[("Path", "/p"), ("Vars", "")]);
    for (text, wanted) in [
        ("{{.Path}} {{ .Path }} {{$.Path}}", "/p /p /p"),
        ("{{if .Vars}}a{{else}}b{{end}}", "b"),
        ("{{with .Path}}{{.}}{{end}}", "/p"),
        ("{{.Path | up}}", "/P"),
        (
            "{{range 3}}{{.}}{{if eq . 1}}{{break}}{{end}},{{end}}",
            "0,1",
        ),
        ("{{range $i := 2}}{{$i}}{{end}}", "01"),
        ("{{n 3}}{{n 2.0}}", "xxxxx"),
    ] {
        assert_eq!(render(text, &Few, &dot).as_deref(), Ok(wanted), "{text}");
    }
    let fault = render("a\n{{.Paht}}", &Few, &dot).unwrap_err();
    assert_eq!(
        (fault.at, fault.message.as_str()),
        (4, "there is no .Paht here")
    );
    assert_eq!(fault.remedy.as_deref(), Some("there is .Path, .Vars"));
    let fault = render("{{upp `x`}}", &Few, &dot).unwrap_err();
    assert_eq!(fault.remedy.as_deref(), Some("did you mean 'up'?"));
}

#[test]
fn what_is_known_is_put_in_and_the_rest_is_left() {
    let none = |_: &str| None;
    for (text, wanted) in [
        ("a{{up `b`}}c", "aBc"),
        ("{{.Path}} {{up `b`}}", "{{.Path}} B"),
        ("{{later `x` | up}}", "{{later \"x\" | up}}"),
        ("{{up `x` | later}}", "{{\"X\" | later}}"),
        (
            "{{printf `%s-%s` (up `x`) .Path}}",
            "{{printf \"%s-%s\" \"X\" .Path}}",
        ),
        (
            "{{if eq (up `x`) `X`}}{{.A}}{{else}}{{up `c`}}{{end}}",
            "{{if true}}{{.A}}{{else}}C{{end}}",
        ),
        (
            "{{$x := up `x`}}{{$x}}{{.A}}",
            "{{$x := \"X\"}}{{$x}}{{.A}}",
        ),
        ("{{`{{`}}.A}}", "{{\"{{\"}}.A}}"),
        ("{{`{`}}{{.A}}", "{{\"{\"}}{{.A}}"),
        (
            "{{range 2}}{{.A}}{{break}}{{end}}",
            "{{range 2}}{{.A}}{{break}}{{end}}",
        ),
    ] {
        let folded = fold(text, &Few, &["later"], &none).unwrap();
        assert_eq!(folded, wanted, "{text}");
        assert_eq!(
            fold(&folded, &Few, &["later"], &none).unwrap(),
            wanted,
            "twice: {text}"
        );
    }
    let held = |name: &str| (name == "v").then(|| "a {{.B}}".to_owned());
    assert_eq!(
        fold("{{user `v`}}{{user `w`}}", &Few, &[], &held).unwrap(),
        "a {{.B}}<w>"
    );
}

#[test]
fn what_is_left_gives_the_same_as_the_whole() {
    let dot = dot(&[("A", "a{{"), ("B", "")]);
    for text in [
        "x{{.A}}y{{up `z`}}",
        "{{- .A -}} {{/* c */}} {{up .A}}{{.B}}",
        "{{with .B}}1{{else}}{{up `q`}}{{end}}{{define `t`}}{{.}}{{up `t`}}{{end}}{{template `t` .A}}",
        "{{$x := .A}}{{$x = printf `%q` $x}}{{$x}}{{(.A) | printf `%s%d` `p`}}",
        "{{if and .A (not .B)}}{{\"q\\\"\\n\"}}{{end}}{{`{{{`}}{{`}}`}}",
    ] {
        let whole = render(text, &Few, &dot).unwrap();
        let folded = fold(text, &Few, &[], &|_| None).unwrap();
        assert_eq!(
            render(&folded, &Few, &dot).unwrap(),
            whole,
            "{text}: {folded}"
        );
    }
}

#[test]
fn text_that_means_itself_does() {
    for text in ["", "{", "{{", "{{{", "{{ .A }}", "a{{b}}c{{", "}}", "{{/*"] {
        assert_eq!(
            render(&escape(text), &Few, &Value::Nil).as_deref(),
            Ok(text)
        );
    }
}

#[test]
fn every_template_ends() {
    for text in [
        "{{range 9223372036854775807}}{{end}}".to_owned(),
        format!("{{{{$x := n 1000}}}}{}", "{{$x = print $x $x}}".repeat(30)),
        "{{define `a`}}{{template `a`}}{{template `a`}}{{end}}{{template `a`}}".to_owned(),
        "{{range 1000}}{{range 1000}}{{range 1000}}{{end}}{{end}}{{end}}".to_owned(),
        "(".repeat(5000).replace('(', "{{(") + "1",
        format!("{{{{{}", "(".repeat(5000)),
        "{{with 1}}".repeat(5000),
        "{{if 1}}{{else ".repeat(3000),
        "{{if 1}}{{else if 1}}".to_owned() + &"{{else if 1}}".repeat(5000) + "{{end}}",
    ] {
        let fault = render(&text, &Few, &Value::Nil).unwrap_err();
        assert!(fault.at <= text.len() && !fault.message.is_empty());
    }
}

#[test]
fn a_point_in_time_is_taken_apart() {
    for (seconds, wanted) in [
        (0, "1970-01-01T00:00:00 Thu 001"),
        (951_782_400, "2000-02-29T00:00:00 Tue 060"),
        (951_868_800, "2000-03-01T00:00:00 Wed 061"),
        (1_709_251_199, "2024-02-29T23:59:59 Thu 060"),
        (1_735_689_599, "2024-12-31T23:59:59 Tue 366"),
        (4_107_542_400, "2100-03-01T00:00:00 Mon 060"),
    ] {
        let moment = Moment::new(std::time::Duration::from_secs(seconds));
        assert_eq!(layout(&moment, "2006-01-02T15:04:05 Mon 002"), wanted);
    }
    let moment = Moment::new(std::time::Duration::new(1, 120_000_000));
    assert_eq!(
        layout(&moment, "05.000 05.999999 05,00 .0001"),
        "01.120 01.12 01,12 .0001"
    );
    assert_eq!(strftime(&moment, "%S%L%"), "01.120%");
    let last = Moment::new(std::time::Duration::MAX);
    assert!(!layout(&last, "2006").is_empty());
}
