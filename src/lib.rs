//! qimg
