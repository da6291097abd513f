//! What is wrong with a boot command, as far as its template tells.
//!
//! Must not know how keys are typed. What is filled in late is not known here: what stands between `{{` and `}}` is
//! passed over.

use crate::error::Error;
use crate::keyboard::command::names;
use crate::keyboard::{Layout, parse, strokes};

/// What is wrong with a boot command: what it is, and what can be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::template) struct BadKey {
    pub(in crate::template) message: String,
    pub(in crate::template) remedy: String,
    /// Packer refuses it, too; or nobody can type it.
    pub(in crate::template) refused: bool,
}

/// Whatever of `command` looks like a key and is none, waits for nothing, or cannot be typed with `layout`.
pub(in crate::template) fn boot_command(command: &str, layout: &Layout) -> Vec<BadKey> {
    let known = without_actions(command);
    let refused = |error: &Error| BadKey {
        message: error.to_string(),
        remedy: error.remedy().unwrap_or_default().to_owned(),
        refused: true,
    };
    let command = match parse(&known) {
        Ok(command) => command,
        Err(error) => return vec![refused(&error)],
    };
    let mut bad: Vec<BadKey> = Vec::new();
    for doubt in command.doubts {
        let found = doubted(&doubt.word);
        if !bad.contains(&found) {
            bad.push(found);
        }
    }
    for character in strokes::untypable(&command.parts, layout) {
        let mut found = refused(&strokes::untypable_error(character, layout));
        // Packer types a line end as no key at all.
        found.refused = !matches!(character, '\n' | '\r');
        bad.push(found);
    }
    bad
}

fn doubted(word: &str) -> BadKey {
    let remedy = if word.starts_with("waitfor") {
        "write <waitfor \"TEXT\" 60s>".to_owned()
    } else {
        let known = names().chain(["wait", "wait5", "wait10", "wait1s", "waitfor"]);
        match crate::template::near(&word.to_ascii_lowercase(), known) {
            Some(near) => format!("did you mean <{near}>?"),
            None => "keys are <enter>, <esc>, <tab>, <f1> to <f12>, <up>, <leftCtrlOn>, <wait5s> and the like".to_owned(),
        }
    };
    BadKey {
        message: format!("<{word}> is no key: it is typed letter by letter"),
        remedy,
        refused: false,
    }
}

/// `text` without what stands between `{{` and `}}`.
fn without_actions(text: &str) -> String {
    let mut known = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        known.push_str(before);
        match after.split_once("}}") {
            Some((_, behind)) => rest = behind,
            None => rest = "",
        }
    }
    known.push_str(rest);
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(command: &str) -> Vec<BadKey> {
        boot_command(command, Layout::us())
    }

    #[test]
    fn keys_are_known_and_slips_are_named() {
        let known = "<esc><wait><wait5><wait1m20s><Enter><leftCtrlOn>e<leftCtrlOff><aOn><aOff><F12><spacebar><waitfor \"a\" 5s>";
        assert_eq!(judged(known), []);
        assert_eq!(
            judged("a < b > c <a href=\"x\"> << <> {{ .HTTPIP }}é{{"),
            judged("é")
        );
        let bad = judged("<etner><Wait>");
        assert_eq!(bad[0].remedy, "did you mean <enter>?");
        assert_eq!(bad[1].remedy, "did you mean <wait>?");
        let bad = judged("<wait0s>");
        assert!(
            bad[0].message.contains("no time") && bad[0].refused,
            "{bad:?}"
        );
        let bad = judged("é\n");
        assert!(bad[0].refused && !bad[1].refused, "{bad:?}");
        assert_eq!(boot_command("é", Layout::named("fr").unwrap()), []);
    }
}
