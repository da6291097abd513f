//! What scripts in the guest report: whatever a guest says, it is bounded and does not fail.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qimg::build::provisioner::cloud_init::Answer;
use qimg::build::seal::SealReport;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let report = SealReport::parse(&text);
    assert!(report.steps.len() <= 500 && report.remains.authorized_keys.len() <= 500);
    for step in &report.steps {
        assert!(step.note.chars().count() <= 1000 && !step.note.contains(char::is_control));
    }
    let mut answer = Answer::default();
    for line in text.lines() {
        let _ = answer.take(line);
    }
    let result = answer.result();
    assert!(result.errors.len() <= 50 && result.complaints.len() <= 50);
});
