//! Compression of exactly one cluster.
