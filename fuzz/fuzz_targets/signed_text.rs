//! Clearsigned lists, keys and signatures: what is signed stands in the file, and no bytes make a signature hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qimg::fetch::{signed_text, verify};

const KEY: &[u8] = include_bytes!("signed_text.key");

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(Some(signed)) = signed_text(text)
    {
        for line in signed.text.lines() {
            assert!(text.contains(line));
        }
        assert!(signed.canonical().len() <= 2 * text.len());
        let _ = verify(KEY, signed.signature.as_bytes(), &signed.canonical());
    }
    // The same bytes as a key, and as a signature.
    let half = bytes.len() / 2;
    let _ = verify(bytes, &bytes[half..], b"text");
    let _ = verify(KEY, bytes, b"text");
});
