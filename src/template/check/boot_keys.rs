//! Words in angle brackets that a boot command may hold.
//!
//! Only recognises them; how keys are typed is no concern of a template.

use super::super::duration;

/// Names of keys, in lower case.
const KEYS: [&str; 46] = [
    "bs",
    "del",
    "enter",
    "return",
    "esc",
    "tab",
    "spacebar",
    "f1",
    "f2",
    "f3",
    "f4",
    "f5",
    "f6",
    "f7",
    "f8",
    "f9",
    "f10",
    "f11",
    "f12",
    "up",
    "down",
    "left",
    "right",
    "insert",
    "home",
    "end",
    "pageup",
    "pagedown",
    "menu",
    "leftshift",
    "rightshift",
    "leftctrl",
    "rightctrl",
    "leftalt",
    "rightalt",
    "leftsuper",
    "rightsuper",
    "leftcommand",
    "rightcommand",
    "leftoption",
    "rightoption",
    "wait",
    "wait5",
    "wait10",
    "waitfor",
    "wait1s",
];

/// What is wrong with a word of a boot command: what it is, and what can be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::template) struct BadKey {
    pub(in crate::template) message: String,
    pub(in crate::template) remedy: String,
    /// Packer refuses it, too.
    pub(in crate::template) refused: bool,
}

/// Whatever of `command` looks like a key and is none.
pub(in crate::template) fn boot_command(command: &str) -> Vec<BadKey> {
    let mut bad: Vec<BadKey> = Vec::new();
    let mut rest = command;
    while let Some(open) = rest.find('<') {
        rest = &rest[open..];
        let Some(close) = rest.find('>') else { break };
        // `<<` begins anew; `<>>` is the key `>`... of none.
        let word = &rest[1..close];
        if let Some(inner) = word.rfind('<').filter(|_| !toggle(word)) {
            rest = &rest[1 + inner..];
            continue;
        }
        rest = &rest[close + 1..];
        if let Some(found) = judge(word)
            && !bad.contains(&found)
        {
            bad.push(found);
        }
    }
    bad
}

/// `XOn`, `XOff` for any one character.
fn toggle(word: &str) -> bool {
    let mut chars = word.chars();
    chars.next();
    let rest = chars.as_str();
    rest.eq_ignore_ascii_case("on") || rest.eq_ignore_ascii_case("off")
}

fn judge(word: &str) -> Option<BadKey> {
    if toggle(word) || word.starts_with("waitfor ") {
        return None;
    }
    if let Some(time) = word.strip_prefix("wait") {
        let digits = !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit());
        let parsed = duration::parse(time);
        if time.is_empty() || digits {
            return None;
        }
        match parsed {
            Some(span) if span > 0 => return None,
            Some(_) => {
                return Some(BadKey {
                    message: format!("<{word}> waits for no time at all"),
                    remedy: "write a time above zero, such as <wait5s>".to_owned(),
                    refused: true,
                });
            }
            None => {}
        }
    }
    let lower = word.to_ascii_lowercase();
    let name = lower
        .strip_suffix("off")
        .or_else(|| lower.strip_suffix("on"))
        .unwrap_or(&lower);
    if KEYS[..41].contains(&lower.as_str()) || KEYS[..41].contains(&name) {
        return None;
    }
    // What cannot be meant as a key is text: a tag, a comparison, an address.
    let looks = !word.is_empty()
        && word.len() <= 20
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !looks {
        return None;
    }
    let remedy = match crate::template::near(&lower, KEYS) {
        Some(near) => format!("did you mean <{near}>?"),
        None => "keys are <enter>, <esc>, <tab>, <f1> to <f12>, <up>, <leftCtrlOn>, <wait5s> and the like".to_owned(),
    };
    Some(BadKey {
        message: format!("<{word}> is no key: it is typed letter by letter"),
        remedy,
        refused: false,
    })
}

#[cfg(test)]
mod tests {
    use super::boot_command;

    #[test]
    fn keys_are_known_and_slips_are_named() {
        let known = "<esc><wait><wait5><wait1m20s><Enter><leftCtrlOn>e<leftCtrlOff><aOn><aOff><F12><spacebar><waitfor \"a\" 5s>";
        assert_eq!(boot_command(known), []);
        assert_eq!(boot_command("a < b > c <a href=\"x\"> << <>"), []);
        let bad = boot_command("<etner><wait0s><Wait>");
        let said: Vec<&str> = bad.iter().map(|bad| bad.message.as_str()).collect();
        assert_eq!(bad[0].remedy, "did you mean <enter>?");
        assert!(said[1].contains("no time") && bad[1].refused, "{said:?}");
        assert_eq!(bad[2].remedy, "did you mean <wait>?");
    }
}
