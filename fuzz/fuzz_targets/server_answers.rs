//! What object stores, a cloud and published directories answer: whatever it is, it is read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qimg::fuzzing::{api_answer, store_answer};
use qimg::publish::directory::parse_index;
use qimg::publish::s3;

fuzz_target!(|bytes: &[u8]| {
    api_answer(bytes);
    if let Ok(index) = parse_index(bytes) {
        for version in index.versions {
            assert!(!version.version.contains('/') && !version.version.starts_with('.'));
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    store_answer(text);
    let found = s3::find(&Default::default(), Some("ci"), text, text);
    assert!(found.credentials.is_none_or(|credentials| !credentials.key.is_empty()));
    if let Ok((bucket, key)) = s3::parse(text, "name") {
        assert!(!bucket.is_empty() && !key.is_empty());
    }
});
