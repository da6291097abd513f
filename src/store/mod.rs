//! Bytes on the host.
