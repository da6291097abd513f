//! What people and machines are shown of builds.

use super::*;

fn event(what: What) -> Event {
    Event {
        build: "null".to_owned(),
        what,
    }
}

fn output(stream: Stream, line: &str) -> Event {
    event(What::Output {
        source: "shell".to_owned(),
        stream,
        line: line.to_owned(),
    })
}

fn step(text: &str) -> Event {
    event(What::Step {
        text: text.to_owned(),
    })
}

fn ended(outcome: Outcome) -> Event {
    event(What::BuildEnded {
        outcome,
        milliseconds: 123_456,
    })
}

fn failure() -> Event {
    event(What::Failure {
        message: "failed".to_owned(),
        causes: vec!["a".to_owned(), "b".to_owned()],
        remedy: Some("try".to_owned()),
    })
}

fn artifact() -> Event {
    event(What::Artifact {
        index: 0,
        builder_id: "x.qemu".to_owned(),
        id: "VM".to_owned(),
        text: "VM files in directory: out".to_owned(),
        files: vec!["out/a,b".to_owned()],
    })
}

/// As Packer 1.6.6 prints them.
#[test]
fn people_see_what_packer_shows() {
    let mut human = Human::new(&["null".to_owned()], Style::default());
    let mut all = String::new();
    for event in [
        step("one\ntwo"),
        output(Stream::Out, "out,put"),
        output(Stream::Err, "er"),
        ended(Outcome::Done),
    ] {
        all += &human.event(&event, "");
    }
    assert_eq!(
        all,
        "==> null: one\n==> null: two\n    null: out,put\n==> null: er\n\
         Build 'null' finished after 2 minutes 3 seconds.\n"
    );
    assert_eq!(
        human.end(""),
        "\n==> Builds finished but no artifacts were created.\n"
    );
    let style = Style {
        colours: true,
        timestamps: false,
    };
    let mut human = Human::new(&["other".to_owned(), "null".to_owned()], style);
    assert_eq!(
        human.event(&step("x"), ""),
        "\x1b[1;36m==> null: x\x1b[0m\n"
    );
    assert_eq!(
        human.event(&output(Stream::Out, "x"), ""),
        "\x1b[0;36m    null: x\x1b[0m\n"
    );
    assert_eq!(
        human.event(&output(Stream::Err, "x"), ""),
        "\x1b[1;31m==> null: x\x1b[0m\n"
    );
    let style = Style {
        colours: false,
        timestamps: true,
    };
    let mut human = Human::new(&["null".to_owned()], style);
    let now = "2026-11-28T06:21:19Z";
    assert_eq!(
        human.event(&step("x"), now),
        "2026-11-28T06:21:19Z: ==> null: x\n"
    );
}

#[test]
fn failures_name_cause_and_remedy_and_come_again_at_the_end() {
    let mut human = Human::new(&["null".to_owned()], Style::default());
    let stage = event(What::StageEnded {
        stage: "connect".to_owned(),
        outcome: Outcome::Failed,
        milliseconds: 1250,
    });
    human.event(&stage, "");
    assert_eq!(
        human.event(&failure(), ""),
        "==> null: failed\n    null: caused by: a\n    null: caused by: b\n    null: hint: try\n"
    );
    assert_eq!(
        human.event(&ended(Outcome::Failed), ""),
        "Build 'null' errored after 2 minutes 3 seconds. (connect 1.2 s)\n"
    );
    human.event(&artifact(), "");
    assert_eq!(
        human.end(""),
        "\n==> Some builds didn't complete successfully and had errors:\n--> null: failed: a: b\n\n\
         ==> Builds finished. The artifacts of successful builds are:\n--> null: VM files in directory: out\n"
    );
}

#[test]
fn what_a_failed_post_processor_leaves_is_said_to_be_there() {
    let kept = event(What::Kept {
        text: "VM files in: out/a".to_owned(),
        files: vec!["out/a".to_owned()],
    });
    let mut human = Human::new(&["null".to_owned()], Style::default());
    for event in [&failure(), &kept, &ended(Outcome::Failed)] {
        human.event(event, "");
    }
    let end = human.end("");
    assert!(
        end.ends_with(
            "\n==> What stays of builds whose post-processors failed:\n--> null: VM files in: out/a\n"
        ),
        "{end}"
    );
    assert!(!end.contains("no artifacts"), "{end}");
    human.event(&artifact(), "");
    let end = human.end("");
    assert!(
        end.contains("--> null: VM files in: out/a\n\n==> Builds finished. The artifacts of"),
        "{end}"
    );
    let mut machine = Machine::default();
    machine.event(&kept, 17);
    assert_eq!(
        machine.end(18),
        "18,,ui,say,\\n==> What stays of builds whose post-processors failed:\n\
         18,,ui,say,--> null: VM files in: out/a\n"
    );
}

#[test]
fn a_wait_is_said_again_only_when_something_is_new() {
    let mut human = Human::new(&["null".to_owned()], Style::default());
    let mut wait = |state: &str| {
        let what = What::Waiting {
            task: "SSH".to_owned(),
            state: state.to_owned(),
            milliseconds: 1500,
        };
        human.event(&event(what), "")
    };
    assert_eq!(
        wait("no banner"),
        "    null: Waiting for SSH: no banner (1.5 s)\n"
    );
    assert_eq!(wait("no banner"), "");
    assert_ne!(wait("banner"), "");
}

#[test]
fn guests_colour_their_lines_and_do_no_more() {
    let text = "a\x1b[31mred\x1b[0m\tb\x1b[2J\x1b]0;title\x07\x1b[1;999999999";
    let plain = shown(text, false);
    assert_eq!(
        plain,
        "ared\tb\\u{1b}[2J\\u{1b}]0;title\\u{7}\\u{1b}[1;999999999"
    );
    assert!(shown(text, true).starts_with("a\x1b[31mred\x1b[0m\tb\\u{1b}[2J"));
    assert_eq!(shown("\x1b", true), "\\u{1b}");
    assert_eq!(shown("\u{e9}\x1b[m\u{e9}", true), "\u{e9}\x1b[m\u{e9}");
}

/// As Packer 1.6.6 prints them.
#[test]
fn machines_read_lines_of_packer() {
    let mut machine = Machine::default();
    let mut all = String::new();
    for event in [
        step("a\nb"),
        output(Stream::Out, "out,put"),
        output(Stream::Err, "er"),
        failure(),
        ended(Outcome::Failed),
        artifact(),
    ] {
        all += &machine.event(&event, 17);
    }
    all += &machine.end(18);
    let lines: Vec<_> = all.lines().collect();
    assert_eq!(
        lines,
        [
            "17,,ui,say,==> null: a\\n==> null: b",
            "17,,ui,message,    null: out%!(PACKER_COMMA)put",
            "17,,ui,error,==> null: er",
            "17,,ui,error,==> null: failed",
            "17,,ui,error,Build 'null' errored after 2 minutes 3 seconds: failed: a: b",
            "18,,error-count,1",
            "18,,ui,error,\\n==> Some builds didn't complete successfully and had errors:",
            "18,null,error,failed: a: b",
            "18,,ui,error,--> null: failed: a: b",
            "18,,ui,say,\\n==> Builds finished. The artifacts of successful builds are:",
            "18,null,artifact-count,1",
            "18,null,artifact,0,builder-id,x.qemu",
            "18,null,artifact,0,id,VM",
            "18,null,artifact,0,string,VM files in directory: out",
            "18,null,artifact,0,files-count,1",
            "18,null,artifact,0,file,0,out/a%!(PACKER_COMMA)b",
            "18,null,artifact,0,end",
            "18,,ui,say,--> null: VM files in directory: out",
        ]
    );
}
