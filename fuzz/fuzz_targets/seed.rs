//! The checks of seeds: whatever the text, they end, and name lines that it has; what is written reads back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qimg::seed::check::{check_meta_data, check_network_config, check_user_data};
use qimg::seed::{Layout, MetaData, Part, SeedRequest, build, read::user_data};

fuzz_target!(|bytes: &[u8]| {
    let lines = bytes.split(|&byte| byte == b'\n').count().max(1);
    let compressed = bytes.starts_with(b"\x1f\x8b");
    for findings in [
        check_user_data("user-data", bytes),
        check_network_config("network-config", bytes),
        check_meta_data("meta-data", bytes),
    ] {
        assert!(findings.len() <= 101);
        for finding in findings {
            assert!(!finding.message.is_empty() && !finding.message.contains('\u{0}'));
            // A carriage return alone ends a line for YAML, too.
            let returns = bytes.iter().filter(|&&byte| byte == b'\r').count();
            let breaks = 3 * (lines + returns) + bytes.len();
            assert!(compressed || finding.line.is_none_or(|line| line >= 1 && line <= breaks));
        }
    }
    let _ = user_data(bytes);
    let part = |name: &str, bytes: &[u8]| Part { name: name.to_owned(), bytes: bytes.to_vec() };
    let half = bytes.len() / 2;
    let request = SeedRequest {
        user_data: vec![part("a", &bytes[..half]), part("b", &bytes[half..])],
        meta_data: MetaData::Made {
            instance_id: Some(String::from_utf8_lossy(bytes).into_owned()),
            hostname: None,
            dsmode: None,
        },
        layout: Layout::Tar,
        ..SeedRequest::default()
    };
    let _ = build(&request);
    let alone = SeedRequest { user_data: vec![part("a", bytes)], ..request };
    let seed = build(&alone).expect("one part is as it is");
    assert!(check_meta_data("meta-data", &seed.files[1].bytes).iter().all(|finding| !finding.message.contains("YAML")));
});
