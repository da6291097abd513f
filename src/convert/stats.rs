//! What a conversion did, counted.

use serde::Serialize;

/// Counts of one conversion, in guest bytes unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Stats {
    /// Stored by the source.
    pub stored_bytes: u64,
    /// Found to be zeros after reading, and left out.
    pub zero_bytes: u64,
    /// Carried over as compressed clusters.
    pub compressed_bytes: u64,
    /// Host bytes of their streams.
    pub stream_bytes: u64,
    /// Carried over as they are.
    pub plain_bytes: u64,
    /// Compressed clusters whose stream was copied from the source (a count).
    pub copied_clusters: u64,
    /// Compressed clusters that were encoded (a count).
    pub encoded_clusters: u64,
}

impl Stats {
    pub(super) fn add(&mut self, other: &Self) {
        self.stored_bytes += other.stored_bytes;
        self.zero_bytes += other.zero_bytes;
        self.compressed_bytes += other.compressed_bytes;
        self.stream_bytes += other.stream_bytes;
        self.plain_bytes += other.plain_bytes;
        self.copied_clusters += other.copied_clusters;
        self.encoded_clusters += other.encoded_clusters;
    }
}

/// How far a conversion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Guest bytes behind it.
    pub guest: u64,
    /// What was done so far.
    pub stats: Stats,
}
