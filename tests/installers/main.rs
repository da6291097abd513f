//! `qimg build` with installers: the guest of tests/guest/questions-guest asks, fetches, restarts; what was typed is what it
//! was told, with and without waiting for its words, also when the host is busy.

mod answers;
mod kept;
mod media;
mod shop;
mod uefi;
