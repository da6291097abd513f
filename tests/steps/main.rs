//! The step cache, and machines to look around in: the program against the small guest.

mod builds;
mod pins;
mod visits;
mod world;
