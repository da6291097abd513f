#![no_main]
//! An ISO 9660 of any content is read or refused.

mod sectors;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    sectors::with_volume(data, |volume| {
        qimg::fs::fuzzing::iso9660(volume, &mut |tree| sectors::survive(tree));
    });
});
