//! What a consistency check found: plain data, and each finding in a line like
//! qemu-img's.
//!
//! Knows no format's structures: a format's own check fills the report in. Must
//! not print: whoever asked decides what is shown.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use super::{Driver, Image, qcow2};
use crate::error::{Error, Result};

/// Most findings that a [`CheckReport`] lists; all of them count.
pub const MAX_FINDINGS: usize = 1000;

/// How an image is checked.
#[derive(Clone, Copy)]
pub struct CheckOptions<'a> {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Set by another thread to stop.
    pub cancel: &'a AtomicBool,
    /// Called from time to time, from any thread.
    pub progress: Option<&'a (dyn Fn(CheckProgress) + Sync)>,
}

impl CheckOptions<'_> {
    /// # Errors
    /// [`Cancelled`](crate::ErrorKind::Cancelled), when the caller asked to stop.
    pub(crate) fn go_on(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::cancelled());
        }
        Ok(())
    }
}

impl fmt::Debug for CheckOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckOptions")
            .field("threads", &self.threads)
            .field("cancel", &self.cancel)
            .finish_non_exhaustive()
    }
}

/// How far a check has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckProgress {
    /// L2 tables read.
    pub tables: u64,
    /// L2 tables to read.
    pub total: u64,
}

/// What a check found, under qemu-img's names; counts that are 0 are left out where qemu-img leaves them out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckReport {
    /// Host offset in bytes behind the last cluster in use; 0 when the check could not be completed.
    #[serde(skip_serializing_if = "is_zero")]
    pub image_end_offset: u64,
    /// Clusters of the virtual disk.
    #[serde(skip_serializing_if = "is_zero")]
    pub total_clusters: u64,
    /// Guest clusters that are stored.
    #[serde(skip_serializing_if = "is_zero")]
    pub allocated_clusters: u64,
    /// Stored guest clusters that do not follow their predecessor; all compressed ones.
    #[serde(skip_serializing_if = "is_zero")]
    pub fragmented_clusters: u64,
    /// Stored guest clusters that are compressed.
    #[serde(skip_serializing_if = "is_zero")]
    pub compressed_clusters: u64,
    /// Contradictions that endanger data.
    #[serde(skip_serializing_if = "is_zero")]
    pub corruptions: u64,
    /// Host clusters that are counted more often than they are used: lost space.
    #[serde(skip_serializing_if = "is_zero")]
    pub leaks: u64,
    /// Failures of the check itself; the other counts are then incomplete.
    pub check_errors: u64,
    /// The first [`MAX_FINDINGS`] findings.
    #[serde(skip)]
    pub findings: Vec<Finding>,
    /// All findings, listed or not.
    #[serde(skip)]
    pub findings_total: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl CheckReport {
    /// qemu-img's exit code: 0 sound, 1 not completed, 2 corrupt, 3 leaks only.
    pub fn exit_code(&self) -> u8 {
        match (self.check_errors, self.corruptions, self.leaks) {
            (1.., _, _) => 1,
            (_, 1.., _) => 2,
            (_, _, 1..) => 3,
            _ => 0,
        }
    }

    /// Adds a finding that was made `times` times.
    pub(crate) fn add(&mut self, finding: Finding, times: u64) {
        let count = match finding.severity() {
            Severity::Corruption => &mut self.corruptions,
            Severity::Leak => &mut self.leaks,
            Severity::Failure => &mut self.check_errors,
        };
        *count = count.saturating_add(times);
        self.findings_total = self.findings_total.saturating_add(times);
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        }
    }

    /// This report and what was found after it.
    #[must_use]
    pub(crate) fn merged(mut self, later: Self) -> Self {
        for (count, more) in [
            (&mut self.allocated_clusters, later.allocated_clusters),
            (&mut self.fragmented_clusters, later.fragmented_clusters),
            (&mut self.compressed_clusters, later.compressed_clusters),
            (&mut self.corruptions, later.corruptions),
            (&mut self.leaks, later.leaks),
            (&mut self.check_errors, later.check_errors),
            (&mut self.findings_total, later.findings_total),
        ] {
            *count = count.saturating_add(more);
        }
        self.image_end_offset = self.image_end_offset.max(later.image_end_offset);
        let room = MAX_FINDINGS.saturating_sub(self.findings.len());
        self.findings.extend(later.findings.into_iter().take(room));
        self
    }
}

/// What a finding counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Data is or may be lost.
    Corruption,
    /// Space is lost.
    Leak,
    /// The check could not look.
    Failure,
}

/// One contradiction. Offsets are host bytes, entries are as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Finding {
    /// A cluster's stored reference count is too low.
    RefcountTooLow {
        /// Host cluster number.
        cluster: u64,
        /// The stored count.
        refcount: u64,
        /// The references there are.
        references: u64,
    },
    /// A cluster's stored reference count is too high.
    Leaked {
        /// Host cluster number.
        cluster: u64,
        /// The stored count.
        refcount: u64,
        /// The references there are.
        references: u64,
    },
    /// A cluster has more references than a count can hold.
    RefcountOverflow {
        /// First byte of the cluster.
        offset: u64,
    },
    /// A cluster's reference count cannot be read.
    RefcountUnreadable {
        /// Host cluster number.
        cluster: u64,
    },
    /// Something in use lies behind the end of the file.
    OutsideFile {
        /// First byte.
        offset: u64,
        /// Bytes.
        size: u64,
    },
    /// An L1 entry's copied flag does not tell whether its L2 table has one reference.
    CopiedTable {
        /// Index in the active L1 table.
        l1_index: u64,
        /// The L1 entry.
        l1_entry: u64,
        /// The stored count of the table's cluster.
        refcount: u64,
    },
    /// An L2 entry's copied flag does not tell whether its cluster has one reference.
    CopiedCluster {
        /// The L2 entry.
        l2_entry: u64,
        /// The stored count of the cluster.
        refcount: u64,
    },
    /// A compressed cluster has the copied flag.
    CopiedCompressed {
        /// Where its stream starts.
        offset: u64,
    },
    /// An L1 entry has reserved bits.
    L1Reserved {
        /// The L1 entry.
        l1_entry: u64,
    },
    /// An L2 entry has reserved bits.
    L2Reserved {
        /// The L2 entry.
        l2_entry: u64,
    },
    /// An L2 table does not start with a cluster.
    TableUnaligned {
        /// Its first byte.
        offset: u64,
    },
    /// A cluster in use does not start at a multiple of the cluster size.
    ClusterUnaligned {
        /// Its first byte.
        offset: u64,
        /// It holds no data yet.
        preallocated: bool,
    },
    /// A compressed cluster in an image with an external data file.
    CompressedWithDataFile {
        /// Index in its L2 table.
        index: u64,
        /// The L2 entry.
        l2_entry: u64,
    },
    /// A compressed cluster with a subcluster bitmap.
    CompressedWithBitmap {
        /// Index in its L2 table.
        index: u64,
        /// The L2 entry.
        l2_entry: u64,
    },
    /// Subclusters that are both allocated and zero.
    SubclustersContradict {
        /// First byte of the cluster.
        offset: u64,
    },
    /// Allocated subclusters without a cluster.
    SubclustersWithoutCluster {
        /// The subcluster bitmap.
        bitmap: u64,
    },
    /// Internal snapshots in an image with an external data file.
    SnapshotsWithDataFile {
        /// How many.
        count: u64,
    },
    /// A snapshot entry without the fields that version 3 demands.
    SnapshotIncomplete {
        /// Index in the snapshot table.
        index: u64,
    },
    /// A snapshot's L1 table does not start with a cluster.
    SnapshotUnaligned {
        /// Index in the snapshot table.
        index: u64,
        /// First byte of its L1 table.
        offset: u64,
    },
    /// A snapshot's L1 table is longer than can be.
    SnapshotTooLarge {
        /// Index in the snapshot table.
        index: u64,
        /// Entries of its L1 table.
        entries: u64,
    },
    /// A refcount table entry has reserved bits.
    RefcountTableReserved {
        /// Index in the refcount table.
        index: u64,
    },
    /// A refcount block does not start with a cluster.
    RefcountBlockUnaligned {
        /// Index in the refcount table.
        index: u64,
    },
    /// A refcount block lies behind the end of the file.
    RefcountBlockOutside {
        /// Index in the refcount table.
        index: u64,
    },
    /// A refcount block's cluster is used for something else too.
    RefcountBlockShared {
        /// Index in the refcount table.
        index: u64,
        /// References to its cluster so far.
        references: u64,
    },
    /// The bitmap directory contradicts its format.
    BitmapDirectory,
    /// A bitmap table cannot be followed.
    BitmapTable {
        /// First byte of the table.
        offset: u64,
    },
    /// Tables lie over each other so often that they were not all followed.
    NotFollowed {
        /// First byte of the first table that was not.
        offset: u64,
    },
    /// A table cannot be read.
    Unreadable {
        /// Its first byte.
        offset: u64,
    },
    /// The file has more clusters than can be checked.
    TooManyClusters {
        /// How many.
        clusters: u64,
    },
}

impl Finding {
    /// What the finding counts as.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Leaked { .. } => Severity::Leak,
            Self::RefcountUnreadable { .. }
            | Self::BitmapDirectory
            | Self::BitmapTable { .. }
            | Self::NotFollowed { .. }
            | Self::Unreadable { .. }
            | Self::TooManyClusters { .. } => Severity::Failure,
            _ => Severity::Corruption,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RefcountTooLow {
                cluster,
                refcount,
                references,
            } => {
                write!(
                    f,
                    "ERROR cluster {cluster} refcount={refcount} reference={references}"
                )
            }
            Self::Leaked {
                cluster,
                refcount,
                references,
            } => {
                write!(
                    f,
                    "Leaked cluster {cluster} refcount={refcount} reference={references}"
                )
            }
            Self::RefcountOverflow { offset } => {
                write!(f, "ERROR: overflow cluster offset={offset:#x}")
            }
            Self::RefcountUnreadable { cluster } => {
                write!(f, "Can't get refcount for cluster {cluster}")
            }
            Self::OutsideFile { offset, size } => write!(
                f,
                "ERROR: counting reference for region exceeding the end of the file by one cluster or more: \
                 offset {offset:#x} size {size:#x}"
            ),
            Self::CopiedTable {
                l1_index,
                l1_entry,
                refcount,
            } => write!(
                f,
                "ERROR OFLAG_COPIED L2 cluster: l1_index={l1_index} l1_entry={l1_entry:x} refcount={refcount}"
            ),
            Self::CopiedCluster { l2_entry, refcount } => {
                write!(
                    f,
                    "ERROR OFLAG_COPIED data cluster: l2_entry={l2_entry:x} refcount={refcount}"
                )
            }
            Self::CopiedCompressed { offset } => write!(
                f,
                "ERROR: coffset={offset:#x}: copied flag must never be set for compressed clusters"
            ),
            Self::L1Reserved { l1_entry } => {
                write!(
                    f,
                    "ERROR found L1 entry with reserved bits set: {l1_entry:x}"
                )
            }
            Self::L2Reserved { l2_entry } => {
                write!(
                    f,
                    "ERROR found l2 entry with reserved bits set: {l2_entry:x}"
                )
            }
            Self::TableUnaligned { offset } => {
                write!(
                    f,
                    "ERROR l2_offset={offset:x}: Table is not cluster aligned; L1 entry corrupted"
                )
            }
            Self::ClusterUnaligned {
                offset,
                preallocated,
            } => {
                let what = if *preallocated {
                    "Preallocated"
                } else {
                    "Data"
                };
                write!(
                    f,
                    "ERROR offset={offset:x}: {what} cluster is not properly aligned; L2 entry corrupted."
                )
            }
            Self::CompressedWithDataFile { index, l2_entry } => {
                write!(
                    f,
                    "ERROR compressed cluster {index} with data file, entry={l2_entry:#x}"
                )
            }
            Self::CompressedWithBitmap { index, l2_entry } => write!(
                f,
                "ERROR compressed cluster {index} with non-zero subcluster allocation bitmap, entry={l2_entry:#x}"
            ),
            Self::SubclustersContradict { offset } => write!(
                f,
                "ERROR offset={offset:x}: Allocated cluster has corrupted subcluster allocation bitmap"
            ),
            Self::SubclustersWithoutCluster { .. } => {
                write!(
                    f,
                    "ERROR: Unallocated cluster has non-zero subcluster allocation map"
                )
            }
            Self::SnapshotsWithDataFile { count } => {
                write!(f, "ERROR {count} snapshots in image with data file")
            }
            Self::SnapshotIncomplete { index } => {
                write!(f, "ERROR snapshot table entry {index} is incomplete")
            }
            Self::SnapshotUnaligned { index, offset } => write!(
                f,
                "ERROR snapshot {index} l1_offset={offset:#x}: L1 table is not cluster aligned; \
                 snapshot table entry corrupted"
            ),
            Self::SnapshotTooLarge { index, entries } => write!(
                f,
                "ERROR snapshot {index} l1_size={entries:#x}: L1 table is too large; snapshot table entry corrupted"
            ),
            Self::RefcountTableReserved { index } => {
                write!(
                    f,
                    "ERROR refcount table entry {index} has reserved bits set"
                )
            }
            Self::RefcountBlockUnaligned { index } => write!(
                f,
                "ERROR refcount block {index} is not cluster aligned; refcount table entry corrupted"
            ),
            Self::RefcountBlockOutside { index } => {
                write!(f, "ERROR refcount block {index} is outside image")
            }
            Self::RefcountBlockShared { index, references } => {
                write!(f, "ERROR refcount block {index} refcount={references}")
            }
            Self::BitmapDirectory => write!(f, "ERROR the bitmap directory is corrupted"),
            Self::BitmapTable { offset } => {
                write!(f, "ERROR bitmap table at {offset:#x} is corrupted")
            }
            Self::NotFollowed { offset } => {
                write!(
                    f,
                    "ERROR too many tables overlap: not followed from {offset:#x} on"
                )
            }
            Self::Unreadable { offset } => write!(f, "ERROR: I/O error at {offset:#x}"),
            Self::TooManyClusters { clusters } => {
                write!(
                    f,
                    "ERROR the file has {clusters} clusters, more than can be checked"
                )
            }
        }
    }
}

impl Image {
    /// Checks the image's metadata for consistency, as `qemu-img check` does, without changing anything.
    ///
    /// Opens no other file. What contradicts itself is reported; the check goes on wherever it can.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a format without checks (qemu-img's exit code 63);
    /// [`Cancelled`](crate::ErrorKind::Cancelled).
    pub fn check(&self, options: &CheckOptions<'_>) -> Result<CheckReport> {
        match &self.driver {
            Driver::Raw => Err(
                Error::unsupported("this image format does not support checks").at_path(&self.path),
            ),
            Driver::Qcow2(file) => qcow2::check::check(file, options),
        }
    }
}
