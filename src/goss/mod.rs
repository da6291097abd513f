//! Goss files: what a guest has to be like, and whether it is, with nothing installed there.
//!
//! ```text
//! files -> templates -> checks -> one script of POSIX sh -> the guest's answers -> outcomes
//! ```
//!
//! | module | knows |
//! |---|---|
//! | [`mod@load`] | files, variables, includes; a mistake has file and line |
//! | [`shape`] | types of checks and their attributes |
//! | [`matcher`] | how a value is compared |
//! | [`probe`] | the script, and how its answer is read |
//! | [`facts`] | what an answer says of a check's properties |
//! | [`mod@run`] | rounds over a communicator, until all passes or time is up |
//! | [`outcome`] | results as plain data |
//! | [`generate`] | a file of checks made from a guest |
//!
//! Must not know machines or images: checks that only an image has are read here and judged elsewhere.

pub mod facts;
mod functions;
pub mod generate;
pub mod load;
pub mod matcher;
pub mod outcome;
pub mod probe;
pub mod run;
pub mod shape;
mod values;

pub use load::{Check, LoadRequest, Suite, load};
pub use matcher::{Actual, Matcher, Verdict};
pub use outcome::{Outcome, State};
pub use run::{RunOptions, run};
pub use shape::Kind;
