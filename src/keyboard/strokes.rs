//! From the parts of a command to keys that go down and up, on a keyboard of a given layout.
//!
//! Pure. Must not know how long anything takes.

use std::time::Duration;

use super::command::{Part, Symbol};
use super::layout::{Chord, Layout};
use crate::error::{Error, Result};

/// A key that goes down or up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyEvent {
    /// QEMU's name of it.
    pub key: &'static str,
    /// Down.
    pub down: bool,
}

/// What is done at once, or waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Keys of one stroke: no guest sees one of them held for long, so none repeats.
    Keys(Vec<KeyEvent>),
    /// Nothing, for so long.
    Wait(Duration),
    /// Until the guest shows a text.
    WaitFor {
        /// The text, within one line.
        text: String,
        /// For it to appear; `None`: not given.
        timeout: Option<Duration>,
    },
}

/// What is to be done for `parts`, in order.
///
/// # Errors
/// A character is not on this keyboard.
pub fn acts(parts: &[Part], layout: &Layout) -> Result<Vec<Act>> {
    let mut acts = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            Part::Press(symbol) => {
                let (chord, after) = chord(*symbol, layout)?;
                let mut keys = down(&chord);
                keys.extend(up(&chord));
                acts.push(Act::Keys(keys));
                acts.extend(after);
            }
            Part::Hold(symbol) => acts.push(Act::Keys(down(&chord(*symbol, layout)?.0))),
            Part::Release(symbol) => acts.push(Act::Keys(up(&chord(*symbol, layout)?.0))),
            Part::Wait(time) => acts.push(Act::Wait(*time)),
            Part::WaitFor { text, timeout } => acts.push(Act::WaitFor {
                text: text.clone(),
                timeout: *timeout,
            }),
        }
    }
    Ok(acts)
}

/// The characters of `parts` that `layout` has no key for, each once.
pub fn untypable(parts: &[Part], layout: &Layout) -> Vec<char> {
    let mut missing = Vec::new();
    for part in parts {
        if let Part::Press(symbol) | Part::Hold(symbol) | Part::Release(symbol) = part
            && let Symbol::Character(character) = symbol
            && layout.chord(*character).is_none()
            && !missing.contains(character)
        {
            missing.push(*character);
        }
    }
    missing
}

/// How a symbol is made, and what follows it.
fn chord(symbol: Symbol, layout: &Layout) -> Result<(Chord, Option<Act>)> {
    let plain = |key| Chord {
        key,
        shift: false,
        third: false,
        dead: false,
    };
    let character = match symbol {
        Symbol::Key(key) => return Ok((plain(key), None)),
        Symbol::Character(character) => character,
    };
    let Some(chord) = layout.chord(character) else {
        return Err(untypable_error(character, layout));
    };
    let space = chord.dead.then(|| {
        let space = plain("spc");
        let mut keys = down(&space);
        keys.extend(up(&space));
        Act::Keys(keys)
    });
    Ok((chord, space))
}

/// For messages, which may show the character: it is one of many.
pub fn untypable_error(character: char, layout: &Layout) -> Error {
    let shown = if character.is_control() {
        format!("U+{:04X}", u32::from(character))
    } else {
        format!("'{character}'")
    };
    let remedy = match character {
        '\n' | '\r' => "write <enter> for the end of a line".to_owned(),
        '\t' => "write <tab>".to_owned(),
        _ => format!(
            "name the guest's keyboard, if it is another one: keyboard = \"de\" in [boot] (there is {})",
            Layout::names().collect::<Vec<_>>().join(", ")
        ),
    };
    Error::usage(format!(
        "{shown} cannot be typed on a keyboard of the layout '{}'",
        layout.name()
    ))
    .with_remedy(remedy)
}

fn down(chord: &Chord) -> Vec<KeyEvent> {
    let mut keys = Vec::new();
    let mut add = |key| keys.push(KeyEvent { key, down: true });
    if chord.shift {
        add("shift");
    }
    if chord.third {
        add("alt_r");
    }
    add(chord.key);
    keys
}

fn up(chord: &Chord) -> Vec<KeyEvent> {
    let mut keys = down(chord);
    keys.reverse();
    for event in &mut keys {
        event.down = false;
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::super::command::parse;
    use super::*;

    fn shown(command: &str, layout: &str) -> String {
        let parts = parse(command).unwrap().parts;
        let acts = acts(&parts, Layout::named(layout).unwrap()).unwrap();
        let shown = acts.iter().map(|act| match act {
            Act::Keys(keys) => keys
                .iter()
                .map(|event| format!("{}{}", if event.down { "+" } else { "-" }, event.key))
                .collect::<String>(),
            Act::Wait(time) => format!("{time:?}"),
            Act::WaitFor { text, timeout } => format!("{text:?} {timeout:?}"),
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn keys_go_down_and_up_with_what_they_need() {
        assert_eq!(
            shown("aA<enter><wait5>", "us"),
            "+a-a +shift+a-a-shift +ret-ret 5s"
        );
        assert_eq!(
            shown("<leftCtrlOn>e<leftCtrlOff>", "us"),
            "+ctrl +e-e -ctrl"
        );
        assert_eq!(shown("<AOn><AOff>", "us"), "+shift+a -a-shift");
        assert_eq!(
            shown("@^", "de"),
            "+alt_r+q-q-alt_r +grave_accent-grave_accent +spc-spc"
        );
    }

    #[test]
    fn what_is_not_on_the_keyboard_is_an_error() {
        let parts = parse("aüü\n").unwrap().parts;
        assert_eq!(untypable(&parts, Layout::us()), ['ü', '\n']);
        let error = acts(&parts, Layout::us()).unwrap_err();
        assert!(error.to_string().contains("'ü'") && error.remedy().unwrap().contains("de"));
        assert!(acts(&parts[..2], Layout::named("de").unwrap()).is_ok());
    }
}
