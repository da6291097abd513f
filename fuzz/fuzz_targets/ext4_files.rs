#![no_main]
//! The files of an ext4 of any content are read or refused.

mod sectors;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    sectors::with_volume(data, |volume| {
        qimg::fs::fuzzing::ext4_files(volume, &mut |tree| sectors::survive(tree));
    });
});
