//! Keys: what a boot command says, and which of them make a character.
//!
//! | module | knows |
//! |---|---|
//! | [`command`] | the grammar of boot commands |
//! | [`layout`] | which key makes which character on which keyboard |
//! | [`strokes`] | from a command to keys that go down and up |
//!
//! Keys have QEMU's names (QKeyCode). Must not know machines, templates, or how a key gets anywhere.

pub mod command;
pub mod layout;
pub mod strokes;

pub use command::{Doubt, Part, Symbol, parse};
pub use layout::Layout;
pub use strokes::{Act, KeyEvent, acts};
