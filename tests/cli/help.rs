//! Help, versions, usage errors, completions and manual pages.

use crate::program::{qimg, scratch};

const COMMANDS: [&str; 28] = [
    "info", "map", "check", "compare", "measure", "create", "convert", "compress", "sparsify",
    "inspect", "ls", "cat", "cp", "stat", "resize", "disk", "seed", "build", "run", "ssh", "ps",
    "kill", "validate", "template", "cache", "publish", "release", "test",
];

#[test]
fn every_command_has_examples_and_exit_codes() {
    for command in COMMANDS.into_iter().chain(["completions", "man"]) {
        let long = qimg([command, "--help"]).well();
        assert!(
            long.contains(&format!("\nExamples:\n  qimg {command} ")),
            "{long}"
        );
        let (_, codes) = long.split_once("\nExit codes").expect(command);
        assert!(
            codes.contains("\n  0    ") && codes.contains("\n  1    "),
            "{codes}"
        );
        let short = qimg([command, "-h"]).well();
        assert!(!short.contains("Examples:"), "{short}");
    }
}

#[test]
fn the_program_lists_its_commands() {
    let text = qimg(["--help"]).well();
    for command in COMMANDS
        .into_iter()
        .chain(["qimg completions SHELL", "qimg man [DIR]"])
    {
        assert!(text.contains(&format!("\n  {command} ")), "{text}");
    }
    assert!(text.contains("\nExit codes:\n  0  "));
}

#[test]
fn check_and_compare_tell_all_their_exit_codes() {
    for (command, codes) in [
        ("check", &["2", "3", "63"][..]),
        ("compare", &["1", "2", "4"]),
    ] {
        let text = qimg([command, "--help"]).well();
        let (_, told) = text.split_once("\nExit codes").unwrap();
        for code in codes {
            assert!(told.contains(&format!("\n  {code:<5}")), "{told}");
        }
    }
}

#[test]
fn the_version_is_that_of_the_program_for_every_command() {
    let version = format!("qimg {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(qimg(["--version"]).well(), version);
    assert_eq!(qimg(["info", "--version"]).well(), version);
}

#[test]
fn usage_errors_exit_1() {
    let cases: [&[&str]; 16] = [
        &[],
        &["nonsense"],
        &["--nonsense"],
        &["info"],
        &["info", "--nonsense", "a"],
        &["info", "--output", "yaml", "a"],
        &["info", "-f", "vmdk", "a"],
        &["info", "--backing", "perhaps", "a"],
        &["check"],
        &["compare", "one"],
        &["measure"],
        &["measure", "--size", "1G", "a"],
        &["create"],
        &["convert", "one"],
        &["compress"],
        &["convert", "--threads", "0", "a", "b"],
    ];
    for arguments in cases {
        let text = qimg(arguments).failed(1);
        assert!(!text.contains("error:") && !text.is_empty(), "{text}");
        if !arguments.is_empty() {
            assert!(text.starts_with("qimg: "), "{arguments:?}: {text}");
        }
    }
}

#[test]
fn usage_errors_name_the_way_out() {
    let text = qimg(["info", "-f", "vmdk", "a"]).failed(1);
    assert!(
        text.contains("qimg reads and writes raw and qcow2"),
        "{text}"
    );
    let text = qimg(["compress", "sample.qcow2"]).failed(1);
    assert_eq!(
        text,
        "qimg: the destination is missing\n  hint: name it, or say --in-place or --dry-run\n"
    );
}

#[test]
fn completions_come_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let text = qimg(["completions", shell]).well();
        assert!(
            text.contains("compress") && text.contains("backing-chain"),
            "{shell}"
        );
    }
    assert!(
        qimg(["completions", "cmd.exe"])
            .failed(1)
            .starts_with("qimg: ")
    );
}

#[test]
fn manual_pages_come_from_the_same_words() {
    let page = qimg(["man"]).well();
    assert!(
        page.contains(".TH qimg 1") && page.contains("qimg\\-compress(1)"),
        "{page}"
    );
    let (_keep, directory) = scratch("man1");
    qimg(["man", &directory]).well();
    for command in COMMANDS {
        let page = std::fs::read_to_string(format!("{directory}/qimg-{command}.1")).unwrap();
        assert!(
            page.contains("Examples:") && page.contains("Exit codes"),
            "{page}"
        );
    }
    let text = qimg(["man", "/dev/null/man1"]).failed(1);
    assert!(
        text.starts_with("qimg: /dev/null/man1: cannot write the manual pages\n"),
        "{text}"
    );
}
