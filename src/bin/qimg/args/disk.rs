//! `qimg disk`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use qimg::codec::CompressionType;
use qimg::image::Format;
use qimg::resize::NewSize;
use qimg::units::ByteSize;

use super::output::thread_count;
use super::{InputArgs, OptionList, ProgressArgs, ReportArgs, ThreadArgs, WriteArgs, typed};

/// Make a disk of parts, or change the partitions of one
///
/// Disks get a GPT, EFI system partitions filled with files, and partitions filled from images, straight into raw or
/// qcow2, without root, loop devices, sgdisk or mkfs. The same parts give the same bytes.
#[derive(Debug, Args)]
#[command(after_long_help = HELP, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct DiskArgs {
    #[command(subcommand)]
    pub(crate) command: DiskCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DiskCommand {
    Create(Box<DiskCreateArgs>),
    Grow(DiskGrowArgs),
    AddEsp(Box<DiskAddEspArgs>),
}

/// Make a disk from a description, or from what the options say
///
/// The disk appears under its name when it is complete. Partitions stand in the order of their description: with options
/// alone a BIOS boot partition, the EFI system partition, then the root filesystem.
#[derive(Debug, Args)]
#[command(after_long_help = CREATE_HELP)]
pub(crate) struct DiskCreateArgs {
    /// The disk to write
    #[arg(value_name = "DST")]
    pub(crate) destination: PathBuf,

    /// A description in TOML: see the end of this help
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bios_boot", "efi", "efi_dir", "efi_size", "efi_label", "root"])]
    pub(crate) from: Option<PathBuf>,

    /// Size of the disk [default: what its partitions need; with -n, all of DST]
    #[arg(long, value_name = "SIZE", value_parser = typed::<ByteSize>)]
    pub(crate) size: Option<ByteSize>,

    /// What GUIDs are derived from [default: all that the partition table says]
    #[arg(long, value_name = "TEXT")]
    pub(crate) seed: Option<String>,

    /// Bytes of a sector: 512 or 4096 [default: 512]
    #[arg(long, value_name = "BYTES")]
    pub(crate) sector_size: Option<u64>,

    /// Have a BIOS boot partition of 1M
    #[arg(long)]
    pub(crate) bios_boot: bool,

    #[command(flatten)]
    pub(crate) esp: EspArgs,

    /// An image of the root filesystem; it has the rest of the disk
    #[arg(long, value_name = "FILE")]
    pub(crate) root: Option<PathBuf>,

    /// Type of its partition: a name such as linux or root-arm64, or a GUID
    #[arg(long, value_name = "TYPE", default_value = "root-x86-64")]
    pub(crate) root_type: String,

    /// Format of the disk, raw or qcow2 [default: as DST's extension says; raw if that says nothing]
    #[arg(short = 'O', value_name = "FMT", value_parser = typed::<Format>)]
    pub(crate) target_format: Option<Format>,

    /// Options of the new image: key=value,key=value
    #[arg(short = 'o', value_name = "OPTIONS", value_parser = typed::<OptionList>)]
    pub(crate) options: Vec<OptionList>,

    /// Compress, with the codec that the options name
    #[arg(short = 'c')]
    pub(crate) compress: bool,

    /// Compress with this codec: zlib or zstd
    #[arg(long, value_name = "CODEC", value_parser = typed::<CompressionType>)]
    pub(crate) codec: Option<CompressionType>,

    /// Effort of compression: zlib 1 to 12, zstd 1 to 22
    #[arg(long, value_name = "N")]
    pub(crate) level: Option<u8>,

    /// Write into the image or block device that is there, and fill it: another size than its own is refused
    ///
    /// The second copy of a partition table is at the very end of a disk. A smaller disk would leave the copy of the disk that
    /// was there in that place.
    #[arg(short = 'n')]
    pub(crate) existing: bool,

    /// Return before the disk is safe from a power failure
    #[arg(long)]
    pub(crate) no_sync: bool,

    #[command(flatten)]
    pub(crate) input: InputArgs,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,

    #[command(flatten)]
    pub(crate) report: ReportArgs,

    /// Worker threads [default: one for each core]
    #[arg(
        long,
        visible_short_alias = 'm',
        value_name = "N",
        help_heading = "Work"
    )]
    threads: Option<NonZeroUsize>,
}

impl DiskCreateArgs {
    pub(crate) fn thread_count(&self) -> usize {
        thread_count(self.threads)
    }
}

/// What is in an EFI system partition.
#[derive(Debug, Args)]
#[command(next_help_heading = "EFI system partition")]
pub(crate) struct EspArgs {
    /// Put FILE at PATH of the EFI system partition, such as grubx64.efi=EFI/BOOT/BOOTX64.EFI
    #[arg(long, value_name = "FILE=PATH", value_parser = efi_file)]
    pub(crate) efi: Vec<(PathBuf, String)>,

    /// Put all that is in this directory into it
    #[arg(long, value_name = "DIR")]
    pub(crate) efi_dir: Vec<PathBuf>,

    /// Its size [default: what its files need]
    #[arg(long, value_name = "SIZE", value_parser = typed::<ByteSize>)]
    pub(crate) efi_size: Option<ByteSize>,

    /// Name of its filesystem
    #[arg(long, value_name = "LABEL", default_value = "ESP")]
    pub(crate) efi_label: String,
}

impl EspArgs {
    pub(crate) fn is_asked_for(&self) -> bool {
        !self.efi.is_empty() || !self.efi_dir.is_empty() || self.efi_size.is_some()
    }
}

fn efi_file(text: &str) -> Result<(PathBuf, String), String> {
    match text.rsplit_once('=') {
        Some((file, path)) if !file.is_empty() && !path.is_empty() => {
            Ok((file.into(), path.to_owned()))
        }
        _ => Err(
            "write FILE=PATH: a file here, and where it goes, such as grubx64.efi=EFI/BOOT/BOOTX64.EFI"
                .to_owned(),
        ),
    }
}

/// Give a disk with a GPT a larger size, and its table a new end
///
/// Moves the second copy of the table to the end, and mends what the first says of the disk. With --grow-last the last
/// partition reaches to the end; its filesystem stays as large as it is, for the guest to grow. The image must not be in
/// use. Whatever ends the work, one copy of the table is whole; running it again finishes what was begun.
#[derive(Debug, Args)]
#[command(after_long_help = GROW_HELP)]
pub(crate) struct DiskGrowArgs {
    /// The image, which is written
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,

    /// The size: bytes, or a number with k, M, G, T, P or E; with + so much more; +0 only mends the table
    #[arg(value_name = "[+]SIZE", value_parser = typed::<NewSize>)]
    pub(crate) size: NewSize,

    /// Have the last partition reach to the end
    #[arg(long)]
    pub(crate) grow_last: bool,

    #[command(flatten)]
    pub(crate) write: WriteArgs,

    #[command(flatten)]
    pub(crate) report: ReportArgs,

    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
}

/// Add an EFI system partition with files to a disk that has a GPT
///
/// It takes the largest gap between partitions; --grow makes one at the end. The image must not be in use. Whatever ends
/// the work, the disk is what it was or has all of the partition.
#[derive(Debug, Args)]
#[command(after_long_help = ADD_ESP_HELP)]
pub(crate) struct DiskAddEspArgs {
    /// The image, which is written
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,

    #[command(flatten)]
    pub(crate) esp: EspArgs,

    /// Number of the partition [default: the first that is free]
    #[arg(long, value_name = "N")]
    pub(crate) number: Option<u32>,

    /// Give the disk this size before: bytes, or a number with k, M, G, T; with + so much more
    #[arg(long, value_name = "[+]SIZE", value_parser = typed::<NewSize>)]
    pub(crate) grow: Option<NewSize>,

    #[command(flatten)]
    pub(crate) write: WriteArgs,

    #[command(flatten)]
    pub(crate) report: ReportArgs,

    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
}

const HELP: &str = "\
Examples:
  qimg disk create --efi grubx64.efi=EFI/BOOT/BOOTX64.EFI --root root.img --size 8G disk.qcow2
  qimg disk create --from disk.toml -c disk.qcow2
  qimg disk grow --grow-last disk.qcow2 +20G
  qimg disk add-esp --grow +64M --efi-dir efi disk.qcow2

Exit codes:
  0    done
  1    failed, or used wrongly";

const CREATE_HELP: &str = "\
Examples:
  qimg disk create --efi uki.efi=EFI/BOOT/BOOTX64.EFI disk.raw
  qimg disk create --bios-boot --efi-dir efi --root root.qcow2 --size 8G disk.qcow2
  qimg disk create --from disk.toml -c --codec zstd disk.qcow2

A description:
  size = \"8G\"                   # or minimal, as when it is left out
  sector-size = 512             # or 4096
  alignment = \"1M\"
  seed = \"any text\"             # what GUIDs are derived from

  [[partition]]                 # in the order of the disk
  type = \"esp\"                  # a name or GUID: bios-boot, linux, swap, root-x86-64, ...
  size = \"256M\"                 # or minimal, or rest
  files = \"efi\"                 # a directory, or a list of them
  copy = { \"EFI/BOOT/BOOTX64.EFI\" = \"grubx64.efi\" }
  label = \"ESP\"
  fat = \"fat32\"                 # when not given, as the size allows
  volume-id = \"ABCD-1234\"       # when not given, derived from the seed
  spare = \"16M\"                 # room beside the files, in a minimal size

  [[partition]]
  type = \"root-x86-64\"
  name = \"root\"
  number = 1
  uuid = \"11111111-2222-3333-4444-555555555555\"
  attributes = [\"grow\"]         # required, no-block-io, legacy-boot, grow, read-only, no-auto
  image = \"root.img\"            # raw or qcow2
  format = \"raw\"
  size = \"rest\"

Exit codes:
  0    done
  1    failed, or used wrongly; the destination is what it was (but not with -n)
  129, 130, 143   ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM";

const GROW_HELP: &str = "\
Examples:
  qimg disk grow disk.qcow2 40G
  qimg disk grow --grow-last disk.qcow2 +20G
  qimg disk grow disk.raw +0

Exit codes:
  0    done
  1    failed, or used wrongly; the image is sound";

const ADD_ESP_HELP: &str = "\
Examples:
  qimg disk add-esp --efi grubx64.efi=EFI/BOOT/BOOTX64.EFI disk.qcow2
  qimg disk add-esp --grow +300M --efi-size 256M --efi-dir efi disk.raw

Exit codes:
  0    done
  1    failed, or used wrongly; the image is sound";
