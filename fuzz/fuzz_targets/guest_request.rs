//! Requests of guests over HTTP: whatever the bytes, a path begins with a slash, and leads nowhere outside.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use qimg::serve::request::{Asked, understand};
use qimg::serve::{Looked, look_beneath};

fuzz_target!(|head: &[u8]| {
    if let Asked::Path { path, .. } = understand(head) {
        assert!(path.starts_with('/') && !path.contains('\0'));
        let climbs = path.split('/').any(|part| part == "..");
        match look_beneath(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/guest_request")), &path) {
            Looked::Outside => {}
            _ => assert!(!climbs),
        }
    }
});
