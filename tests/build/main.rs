//! `qimg build` as a whole, with the small guest of tests/guest/small-guest: what it makes, and how it ends when something
//! goes wrong: the right words, the right exit code, and nothing left. `QIMG_NIGHTLY=1` adds what others show nearly as well.

mod good;
mod guests;
mod hosts;
mod killed;
mod policies;
mod signals;
mod steps;
mod workshop;
