//! Templates in TOML: whatever the text, an error or a finding names a line that it has.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use qimg::template::{LoadRequest, load, syntax_only};

fuzz_target!(|bytes: &[u8]| {
    // Files of seeds are read: no path of this machine is one.
    if bytes.windows(5).any(|window| window == b"-file") {
        return;
    }
    let _ = syntax_only("t.toml".as_ref(), Some(&bytes.to_vec()));
    let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let request = LoadRequest {
        path: "t.toml".into(),
        bytes: Some(bytes.to_vec()),
        var_files: Vec::new(),
        variables: Vec::new(),
        only: Vec::new(),
        except: Vec::new(),
        environment: [("HOME".to_owned(), "/nowhere".to_owned())].into(),
        directory: "/nowhere".into(),
        started: Duration::from_secs(1),
        random: &|| [1; 12],
    };
    match load(&request) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(loaded) => {
            assert!(!loaded.template.builds.is_empty());
            assert!(loaded.findings.iter().all(|finding| finding.line <= lines));
        }
    }
});
