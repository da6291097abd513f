//! The two protocols by which files are sent over SSH, as bytes and types.
//!
//! Pure: bytes in, messages out. Knows nothing of connections; all bytes are a guest's, and none is believed.

pub mod scp;
pub mod sftp;
