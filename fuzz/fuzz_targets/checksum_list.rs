//! Lists of checksums: whatever the text, each line that counts is there, and what is found is one of them.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use qimg::fetch::checksum::{Checksum, list};
use qimg::fetch::{Packing, Source};

fuzz_target!(|bytes: &[u8]| {
    let _ = Packing::of(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let lines = list::read(text);
    let count = text.lines().count();
    for line in &lines {
        assert!(line.number >= 1 && line.number <= count);
        assert_eq!(line.digest.to_string().parse::<qimg::digest::Digest>().unwrap(), line.digest);
        let name = line.name.clone().unwrap_or_default();
        for name in [name.as_str(), "disk.img", ""] {
            match list::digest_of(&lines, name, Some("pool/disk.img")) {
                Ok(digest) => assert!(lines.iter().any(|line| line.digest == digest)),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
        if lines.len() > 64 {
            break;
        }
    }
    let directory = Path::new("/base");
    let _ = Checksum::parse(text, directory);
    if let Ok(source) = Source::parse(text, directory) {
        let _ = (source.file_name(), source.to_string(), source.beside("x").relative_to(&source));
    }
});
