//! What QEMU, its guest and files of the host say of a machine: whatever it is, it is understood or refused, and what is
//! shown of it is printable.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qimg::machine::command_line::Options;
use qimg::machine::console::{Cleaner, last_lines, sign_in};
use qimg::machine::firmware::{Wanted, parse_descriptor};
use qimg::machine::qmp::{Lines, parse};
use qimg::machine::screen::png_of_ppm;

fuzz_target!(|bytes: &[u8]| {
    let mut whole = Vec::new();
    let ends = Lines::new(4096).push(bytes, (), |line| {
        assert!(line.len() <= 4096 && !line.contains(&b'\n'));
        let _ = parse(line);
        whole.push(line.to_vec());
        Ok(())
    });
    // The same in pieces.
    let mut lines = Lines::new(4096);
    let mut pieces = Vec::new();
    let in_pieces = bytes.chunks(7).try_for_each(|piece| {
        lines.push(piece, (), |line| {
            pieces.push(line.to_vec());
            Ok(())
        })
    });
    if ends.is_ok() {
        assert!(in_pieces.is_ok() && whole == pieces);
    }

    let shown = last_lines([bytes], 50);
    assert!(shown.len() <= 50);
    for line in &shown {
        assert!(!line.contains(char::is_control) && line.chars().count() <= 1000);
        let _ = sign_in(line);
    }
    assert_eq!(shown, last_lines(bytes.chunks(3), 50));
    let mut cleaner = Cleaner::default();
    cleaner.push(bytes, &mut |line| assert!(!line.contains('\u{1b}')));

    if let Some(descriptor) = parse_descriptor(bytes) {
        let wanted = Wanted { architecture: "x86_64", machine_type: Some("q35"), secure: true };
        let _ = descriptor.fits(&wanted);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let options = Options::parse(text);
        assert_eq!(options.to_string(), text);
    }
    let _ = png_of_ppm(bytes);
});
