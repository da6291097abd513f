//! The output of a guest cut into lines: where its bytes are cut makes no difference, nothing is too long, and
//! whole lines are what a simple reader of them sees.
//!
//! Now and then the bytes come many times over: no input of the fuzzer's own is as long as a line may be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qimg::communicator::lines::{LONGEST, Splitter};

fn cut<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut splitter = Splitter::default();
    for piece in pieces {
        splitter.push(piece, &mut |line| lines.push(line.to_owned()));
    }
    splitter.finish(&mut |line| lines.push(line.to_owned()));
    lines
}

/// Lines by their definition, where none is long.
fn simple(bytes: &[u8]) -> Vec<String> {
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let last = lines.pop().unwrap_or_default();
    let visible = |line: &[u8]| {
        let mut line = line;
        while let Some(rest) = line.strip_suffix(b"\r") {
            line = rest;
        }
        let start = line.iter().rposition(|byte| *byte == b'\r');
        String::from_utf8_lossy(&line[start.map_or(0, |at| at + 1)..]).into_owned()
    };
    let mut text: Vec<String> = lines.into_iter().map(visible).collect();
    let last = visible(last);
    if !last.is_empty() {
        text.push(last);
    }
    text
}

fuzz_target!(|input: (u16, u8, &[u8])| {
    let (size, times, bytes) = input;
    let most = (3 * LONGEST).div_ceil(bytes.len().max(1));
    let bytes = bytes.repeat(most.min(1 << times.saturating_sub(0xf0)));
    let bytes = bytes.as_slice();
    let whole = cut([bytes]);
    // Not so many pieces that they take all of the time.
    assert_eq!(cut(bytes.chunks(usize::from(size).max(1 + bytes.len() / 4096))), whole);
    assert!(whole.iter().all(|line| line.len() <= 3 * LONGEST));
    if bytes.len() < LONGEST {
        assert_eq!(whole, simple(bytes));
    }
});
