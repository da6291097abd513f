//! `qimg compress`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use qimg::codec::CompressionType;
use qimg::units::ByteSize;

use super::{FreeSpaceArgs, InputArgs, ProgressArgs, ReportArgs, ThreadArgs, typed};

/// Write a smaller image with the same files
///
/// What the guest's filesystems do not use is dropped and reads as zeros, zeros are left out, and clusters are
/// compressed, on all cores; what is written does not depend on how many there are. On any doubt about a filesystem all
/// of it is kept, and the reason is said; --dry-run shows them all. --exact keeps every byte that the guest could see.
/// The result is qcow2, and appears under its name when it is complete. Clusters that are compressed already are copied
/// as they are, where codec and cluster size are those asked for. An overlay stays an overlay; --flatten merges it with its backing
/// files.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(crate) struct CompressArgs {
    /// The image to read
    #[arg(value_name = "SRC")]
    pub(crate) source: PathBuf,

    /// The image to write; not with --in-place or --dry-run
    #[arg(value_name = "DST")]
    pub(crate) destination: Option<PathBuf>,

    /// zlib, which every reader of qcow2 knows, or zstd, for QEMU 5.1 and later
    #[arg(long, value_name = "CODEC", value_parser = typed::<CompressionType>, default_value = "zlib")]
    pub(crate) codec: CompressionType,

    /// Effort: zlib 1 to 12, zstd 1 to 22; compressed clusters are encoded again and the shorter stream kept [default:
    /// zlib 6, zstd 4, or 6 for clusters of 1M and more]
    #[arg(long, value_name = "N")]
    pub(crate) level: Option<u8>,

    /// Greatest effort, which is slow: zlib 12, zstd 22
    #[arg(long, conflicts_with = "level")]
    pub(crate) best: bool,

    /// Bytes of a cluster of the new image: a power of two from 512 to 2M [default: that of SRC, or 64k]
    #[arg(long, value_name = "SIZE", value_parser = typed::<ByteSize>, conflicts_with = "existing")]
    pub(crate) cluster_size: Option<ByteSize>,

    /// How far back zlib streams refer: 32k, or 4k for readers that know only what QEMU writes [default: 32k]
    #[arg(long, value_enum, value_name = "SIZE")]
    pub(crate) window: Option<Window>,

    /// Replace SRC by the result
    #[arg(long, conflicts_with = "destination")]
    pub(crate) in_place: bool,

    /// Write nothing; say how large the result would be
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Keep every guest-visible byte: drop zeros alone, whatever the guest's filesystems say
    #[arg(long, conflicts_with_all = ["keep", "replay_journal"])]
    pub(crate) exact: bool,

    /// Take in the contents of backing files, so that the result needs none
    #[arg(long)]
    pub(crate) flatten: bool,

    /// Write into the image or block device that is there
    #[arg(short = 'n', conflicts_with_all = ["in_place", "dry_run"])]
    pub(crate) existing: bool,

    /// Leave internal snapshots behind
    #[arg(long)]
    pub(crate) drop_snapshots: bool,

    /// Leave persistent bitmaps behind
    #[arg(long)]
    pub(crate) drop_bitmaps: bool,

    /// Return before the result is safe from a power failure
    #[arg(long)]
    pub(crate) no_sync: bool,

    #[command(flatten)]
    pub(crate) free_space: FreeSpaceArgs,

    #[command(flatten)]
    pub(crate) input: InputArgs,

    #[command(flatten)]
    pub(crate) report: ReportArgs,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,

    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
}

/// Reach of deflate's references.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Window {
    #[value(name = "32k")]
    Full,
    #[value(name = "4k")]
    FourKiB,
}

const HELP: &str = "\
Examples:
  qimg compress disk.qcow2 small.qcow2
  qimg compress --codec zstd --level 9 --cluster-size 2M disk.raw small.qcow2
  qimg compress --best --flatten --backing beside overlay.qcow2 image.qcow2
  qimg compress --dry-run disk.qcow2
  qimg compress --keep 2 --zero LABEL=swap disk.qcow2 small.qcow2
  qimg compress --exact disk.qcow2 same.qcow2
  qimg compress --in-place --drop-snapshots disk.qcow2

Exit codes:
  0    done
  1    failed, or used wrongly; DST, or SRC with --in-place, is what it was
  129, 130, 143   ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM";
