//! What the other end of scp says: where its bytes are cut makes no difference, and nothing is kept without bound.
//!
//! Now and then the bytes come many times over: few inputs of the fuzzer's own are as long as a line may be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qimg::fuzzing::scp::{LONGEST_LINE, Message, Reader};

fn all<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Message> {
    let mut reader = Reader::default();
    let mut messages = Vec::new();
    for mut piece in pieces {
        while !piece.is_empty() {
            let (taken, message) = reader.push(piece);
            assert!(taken > 0 && taken <= piece.len());
            messages.extend(message);
            piece = &piece[taken..];
            assert!(reader.rest().len() <= 3 * LONGEST_LINE);
        }
    }
    messages
}

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (size, times, bytes) = input;
    let most = (3 * LONGEST_LINE).div_ceil(bytes.len().max(1));
    let bytes = bytes.repeat(most.min(1 << times.saturating_sub(0xf4)));
    let bytes = bytes.as_slice();
    let whole = all([bytes]);
    if bytes.len() < LONGEST_LINE {
        assert_eq!(all(bytes.chunks(usize::from(size).max(1))), whole);
    }
    for message in whole {
        if let Message::File { mode, .. } = message {
            assert!(mode <= 0o7777);
        }
    }
});
