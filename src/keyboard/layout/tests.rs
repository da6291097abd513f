use super::*;

#[test]
fn every_layout_types_all_of_ascii() {
    for layout in &LAYOUTS {
        for character in ' '..='~' {
            assert!(
                layout.chord(character).is_some(),
                "{}: {character}",
                layout.name
            );
        }
        assert_eq!(layout.chord('\u{4e2d}'), None);
        for characters in [layout.plain, layout.shifted, layout.third] {
            assert!(characters.chars().count() <= KEYS.len(), "{}", layout.name);
        }
        assert_eq!(Layout::named(layout.name), Some(layout));
    }
    assert_eq!(Layout::named("UK").unwrap().name(), "gb");
    assert_eq!(Layout::named("klingon"), None);
}

#[test]
fn a_german_keyboard_is_not_an_american_one() {
    let us = Layout::us();
    let de = Layout::named("de").unwrap();
    let of = |layout: &Layout, character| {
        let chord = layout.chord(character).unwrap();
        (chord.key, chord.shift, chord.third, chord.dead)
    };
    assert_eq!(of(us, 'z'), ("z", false, false, false));
    assert_eq!(of(de, 'z'), ("y", false, false, false));
    assert_eq!(of(us, '/'), ("slash", false, false, false));
    assert_eq!(of(de, '/'), ("7", true, false, false));
    assert_eq!(of(de, '@'), ("q", false, true, false));
    assert_eq!(of(de, '^'), ("grave_accent", false, false, true));
    assert_eq!(of(de, '|'), ("less", false, true, false));
    assert_eq!(of(us, '|'), ("backslash", true, false, false));
    assert_eq!(us.chord('ü'), None);
}
