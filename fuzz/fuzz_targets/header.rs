//! The header: any bytes parse or are refused, and what was parsed survives being written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qimg::fuzzing::header::{Header, V2_LENGTH, V3_LENGTH};

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut header) = Header::parse(bytes) else {
        return;
    };
    let geometry = header.geometry();
    assert!(geometry.l1_entries(header.size) <= header.l1_size.into());
    assert_eq!(header.virtual_size() % 512, 0);
    let Ok(written) = header.encode() else {
        return;
    };
    assert!(written.len() as u64 <= header.cluster_bits.size());
    if names(&header).any(|name| name.contains(char::REPLACEMENT_CHARACTER)) {
        // Bytes that are no text are not kept.
        return;
    }
    header.header_length = if header.version >= 3 {
        V3_LENGTH
    } else {
        V2_LENGTH
    };
    assert_eq!(Header::parse(&written), Ok(header));
});

fn names(header: &Header) -> impl Iterator<Item = &str> {
    let features = header.feature_names.iter().flatten();
    [
        &header.backing_file,
        &header.backing_format,
        &header.data_file,
    ]
    .into_iter()
    .flatten()
    .map(String::as_str)
    .chain(features.map(|feature| &*feature.name))
}
