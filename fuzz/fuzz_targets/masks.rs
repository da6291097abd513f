//! Masks: no value is shown, wherever and in whatever pieces it comes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qimg::build::secrets::{MASK, Masks};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Values up to an empty line, a line each; then the text.
    let (values, text) = text.split_once("\n\n").unwrap_or(("", text));
    let values: Vec<&str> = values.lines().take(8).collect();
    let Ok(masks) = Masks::new(&values) else { return };
    let shown = masks.mask(text);
    for part in shown.split(MASK) {
        for value in values.iter().filter(|value| value.len() >= 4) {
            assert!(!part.contains(value));
        }
    }
    let mut stream = masks.stream();
    let mut pieces = String::new();
    let mut rest = text;
    let mut size = 1 + text.len() % 7;
    while !rest.is_empty() {
        let mut at = size.min(rest.len());
        while !rest.is_char_boundary(at) {
            at += 1;
        }
        pieces.push_str(&stream.push(&rest[..at]));
        rest = &rest[at..];
        size = 1 + size * 5 % 11;
    }
    pieces.push_str(&stream.finish());
    // Whether a short value stands alone is known of a whole text only; of long ones no more is shown for it.
    let is_short = |value: &&str| value.trim_end_matches('\r').len() < 4;
    if values.iter().all(|value| value.is_empty() || !is_short(value)) {
        assert_eq!(pieces, shown);
    } else if !text.contains(MASK) {
        let long = Masks::new(values.iter().filter(|value| !is_short(value))).unwrap();
        let shown = long.mask(text);
        for part in pieces.split(MASK) {
            assert!(shown.split(MASK).any(|whole| whole.contains(part)));
        }
    }
});
