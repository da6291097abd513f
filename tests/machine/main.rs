//! Real QEMUs with the small guest: each end of a machine is noticed at once and told, and none outlives its owner.

mod accelerators;
mod deaths;
mod firmwares;
mod lifetimes;
mod shutdowns;
mod small_guest;
mod views;
