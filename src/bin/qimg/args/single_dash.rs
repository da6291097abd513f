//! Flags with one dash, as Packer has them, read as the long options that they are.

use std::ffi::{OsStr, OsString};

/// Commands that take them.
const COMMANDS: &[&str] = &["build", "validate"];
/// All long options that may be typed with one dash.
const FLAGS: &[&str] = &[
    "color",
    "debug",
    "except",
    "force",
    "machine-readable",
    "on-error",
    "only",
    "parallel-builds",
    "syntax-only",
    "timestamp-ui",
    "var",
    "var-file",
    "warn-on-undeclared-var",
];

/// The arguments with a second dash where Packer's users leave it out. What follows `--`, other commands and all other words
/// stay as they are.
pub(super) fn with_long_options(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.collect();
    let command = args
        .iter()
        .skip(1)
        .find(|arg| !arg.to_string_lossy().starts_with('-'));
    if !command.is_some_and(|command| COMMANDS.iter().any(|name| OsStr::new(name) == command)) {
        return args;
    }
    for arg in args.iter_mut().skip(1).take_while(|arg| *arg != "--") {
        let Some(text) = arg.to_str() else { continue };
        let Some(flag) = text.strip_prefix('-') else {
            continue;
        };
        let name = flag.split_once('=').map_or(flag, |(name, _)| name);
        if FLAGS.contains(&name) {
            *arg = format!("-{text}").into();
        }
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(line: &str) -> String {
        let args = with_long_options(line.split(' ').map(OsString::from));
        let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        words.join(" ")
    }

    #[test]
    fn only_known_flags_of_template_commands_change() {
        for (typed, read) in [
            (
                "qimg build -var a=b -only=x t.json",
                "qimg build --var a=b --only=x t.json",
            ),
            ("qimg build -h -q -- -var", "qimg build -h -q -- -var"),
            (
                "qimg validate -syntax-only t",
                "qimg validate --syntax-only t",
            ),
            ("qimg build -variable t", "qimg build -variable t"),
            ("qimg compress -force a b", "qimg compress -force a b"),
            ("qimg", "qimg"),
        ] {
            assert_eq!(changed(typed), read);
        }
    }
}
