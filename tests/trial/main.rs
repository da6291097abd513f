//! `qimg test` as a whole, with the small guest of tests/guest/small-guest: what it finds, what it refuses, how it ends, and
//! that nothing of it stays.

mod bench;
mod images;
mod machines;
mod reports;
