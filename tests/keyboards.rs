//! Keyboard layouts beside QEMU's own tables of keys.

use std::collections::BTreeMap;
use std::path::Path;

use qimg::keyboard::Layout;

/// Scan codes of QEMU's names of keys, and those names.
const KEYS: [(&str, &str); 48] = [
    ("29", "grave_accent"),
    ("2", "1"),
    ("3", "2"),
    ("4", "3"),
    ("5", "4"),
    ("6", "5"),
    ("7", "6"),
    ("8", "7"),
    ("9", "8"),
    ("a", "9"),
    ("b", "0"),
    ("c", "minus"),
    ("d", "equal"),
    ("10", "q"),
    ("11", "w"),
    ("12", "e"),
    ("13", "r"),
    ("14", "t"),
    ("15", "y"),
    ("16", "u"),
    ("17", "i"),
    ("18", "o"),
    ("19", "p"),
    ("1a", "bracket_left"),
    ("1b", "bracket_right"),
    ("1e", "a"),
    ("1f", "s"),
    ("20", "d"),
    ("21", "f"),
    ("22", "g"),
    ("23", "h"),
    ("24", "j"),
    ("25", "k"),
    ("26", "l"),
    ("27", "semicolon"),
    ("28", "apostrophe"),
    ("2b", "backslash"),
    ("56", "less"),
    ("2c", "z"),
    ("2d", "x"),
    ("2e", "c"),
    ("2f", "v"),
    ("30", "b"),
    ("31", "n"),
    ("32", "m"),
    ("33", "comma"),
    ("34", "dot"),
    ("35", "slash"),
];

/// ASCII as X calls it.
const NAMES: [(&str, char); 32] = [
    ("exclam", '!'),
    ("quotedbl", '"'),
    ("numbersign", '#'),
    ("dollar", '$'),
    ("percent", '%'),
    ("ampersand", '&'),
    ("apostrophe", '\''),
    ("parenleft", '('),
    ("parenright", ')'),
    ("asterisk", '*'),
    ("plus", '+'),
    ("comma", ','),
    ("minus", '-'),
    ("period", '.'),
    ("slash", '/'),
    ("colon", ':'),
    ("semicolon", ';'),
    ("less", '<'),
    ("equal", '='),
    ("greater", '>'),
    ("question", '?'),
    ("at", '@'),
    ("bracketleft", '['),
    ("backslash", '\\'),
    ("bracketright", ']'),
    ("asciicircum", '^'),
    ("underscore", '_'),
    ("grave", '`'),
    ("braceleft", '{'),
    ("bar", '|'),
    ("braceright", '}'),
    ("asciitilde", '~'),
];

/// What QEMU's table says: the characters of each key with shift and with the right alt key.
fn table(name: &str) -> BTreeMap<(String, bool, bool), char> {
    let path = Path::new("/usr/share/qemu/keymaps").join(name);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{path:?}: {error}; Debian has it in qemu-system-data"));
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [symbol, code, rest @ ..] = words.as_slice() else {
            continue;
        };
        let Some(code) = code.strip_prefix("0x") else {
            continue;
        };
        let code = code.trim_start_matches('0');
        let Some((_, key)) = KEYS.iter().find(|(number, _)| *number == code) else {
            continue;
        };
        let plain = symbol
            .strip_prefix("dead_")
            .map_or(*symbol, |accent| match accent {
                "circumflex" => "asciicircum",
                "tilde" => "asciitilde",
                "grave" => "grave",
                _ => "",
            });
        let one = symbol
            .chars()
            .next()
            .filter(|_| symbol.chars().count() == 1);
        let character = one.or_else(|| {
            NAMES
                .iter()
                .find(|(name, _)| *name == plain)
                .map(|(_, c)| *c)
        });
        if let Some(character) = character {
            let shift = rest.contains(&"shift");
            found.insert(
                ((*key).to_owned(), shift, rest.contains(&"altgr")),
                character,
            );
        }
    }
    found
}

#[test]
fn ascii_is_where_qemu_has_it() {
    for (name, file) in [
        ("us", "en-us"),
        ("gb", "en-gb"),
        ("de", "de"),
        ("de-nodeadkeys", "de"),
        ("ch", "de-ch"),
        ("fr", "fr"),
        ("es", "es"),
        ("it", "it"),
        ("se", "sv"),
        ("dk", "da"),
        ("no", "no"),
        ("fi", "fi"),
        ("pt", "pt"),
        ("pl", "pl"),
    ] {
        let layout = Layout::named(name).unwrap();
        let table = table(file);
        let mut compared = 0;
        for character in '!'..='~' {
            let chord = layout.chord(character).unwrap();
            let key = (chord.key.to_owned(), chord.shift, chord.third);
            // Its letters with shift go without saying in some tables.
            let said = match table.get(&key) {
                Some(said) => Some(*said),
                None if chord.shift => table
                    .get(&(key.0, false, false))
                    .map(|letter| letter.to_ascii_uppercase()),
                None => None,
            };
            assert_eq!(said, Some(character), "{name}: {chord:?}");
            compared += 1;
        }
        assert_eq!(compared, 94);
    }
}
