//! Boot commands: whatever the text, it is understood or refused; no character is lost, and what can be typed becomes keys
//! that all go up again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qimg::keyboard::strokes::untypable;
use qimg::keyboard::{Act, Layout, Part, acts, parse};

fuzz_target!(|text: &str| {
    let Ok(command) = parse(text) else { return };
    assert!(command.parts.len() <= text.chars().count());
    for doubt in &command.doubts {
        assert!(text[doubt.at..].starts_with('<'));
    }
    for name in Layout::names() {
        let layout = Layout::named(name).unwrap();
        let missing = untypable(&command.parts, layout);
        let Ok(acts) = acts(&command.parts, layout) else {
            assert!(!missing.is_empty());
            continue;
        };
        assert!(missing.is_empty() && acts.len() >= command.parts.len());
        let holds = command.parts.iter().any(|part| matches!(part, Part::Hold(_) | Part::Release(_)));
        for act in &acts {
            if let Act::Keys(keys) = act {
                let down = keys.iter().filter(|event| event.down).count();
                assert!(holds || down * 2 == keys.len());
                assert!(keys.len() <= 6);
            }
        }
    }
});
