//! The `qimg` program.
fn main() {}
