#![no_main]
//! A FAT of any content is read or refused.

mod sectors;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    sectors::with_volume(data, |volume| {
        qimg::fs::fuzzing::fat(volume, &mut |tree| sectors::survive(tree));
    });
});
