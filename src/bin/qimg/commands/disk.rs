//! `qimg disk`.

use std::path::Path;

use qimg::codec::{DeflateWindow, EncoderOptions};
use qimg::disk::{
    AddEspRequest, Content, CreateRequest, Description, FatContent, GrowRequest, ImageContent,
    PartDescription, PartSize, add_esp, create, grow,
};
use qimg::image::options::Qcow2Options;
use qimg::image::{Format, InPlace, TargetOptions};
use qimg::store::{HostFile, Locking, same_file};
use qimg::{Error, Result};

use super::{Status, progress_wish, record_codec, refuse_qcow2_options, sync};
use crate::args::{
    DiskAddEspArgs, DiskArgs, DiskCommand, DiskCreateArgs, DiskGrowArgs, EspArgs, OptionList,
    ProgressMode, format_of_name,
};
use crate::render::progress::Meter;
use crate::render::{Console, human, json};
use crate::signals::Interrupt;

/// Where partitions begin: at what every disk's blocks divide.
const ALIGNMENT: u64 = 1 << 20;
const BIOS_BOOT_SIZE: u64 = 1 << 20;
/// Zeros that become holes.
const SPARSE: usize = 4096;

pub(super) fn run(
    args: &DiskArgs,
    mode: Option<ProgressMode>,
    console: &mut Console<'_>,
) -> Status {
    match &args.command {
        DiskCommand::Create(args) => run_create(args, mode, console),
        DiskCommand::Grow(args) => run_grow(args, console),
        DiskCommand::AddEsp(args) => run_add_esp(args, console),
    }
}

fn run_create(
    args: &DiskCreateArgs,
    mode: Option<ProgressMode>,
    console: &mut Console<'_>,
) -> Status {
    let description = description(args)?;
    let (target, encoding) = target(args)?;
    let request = CreateRequest {
        description: &description,
        destination: &args.destination,
        target,
        encoding,
        open: args.input.open_options(),
        sparse: SPARSE,
        threads: args.thread_count(),
    };
    let interrupt = Interrupt::watch()?;
    let quiet = args.report.quiet;
    let mut meter = Meter::new(console, "disk", progress_wish(mode, args.progress, quiet));
    let created = create(&request, interrupt.flag(), &mut |step, total| {
        meter.update(step.stats.stored_bytes, total);
    })
    .map_err(|error| interrupt.failure(error))?;
    meter.finish();
    if args.report.json() {
        json::print(&mut console.out, &created)?;
    } else if !quiet {
        human::disk::created(&mut console.out, &created)?;
    }
    Ok(0)
}

fn description(args: &DiskCreateArgs) -> Result<Description> {
    let mut description = match &args.from {
        Some(path) => {
            refuse_own_description(path, &args.destination)?;
            Description::read(path)?
        }
        None => Description {
            partitions: partitions(args)?,
            ..Description::default()
        },
    };
    if description.partitions.is_empty() && args.from.is_none() {
        return Err(
            Error::usage("nothing is said of what the disk is made of").with_remedy(
                "say --efi, --efi-dir, --root or --bios-boot, or describe it with --from",
            ),
        );
    }
    if let Some(size) = args.size {
        description.size = Some(size.0);
    }
    if let Some(seed) = &args.seed {
        description.seed = Some(seed.clone());
    }
    if let Some(size) = args.sector_size {
        description.sector_size = size;
    }
    Ok(description)
}

/// A description is never written over, by whatever name. What it names is looked after where it is read.
fn refuse_own_description(path: &Path, destination: &Path) -> Result<()> {
    let file = HostFile::open_read(path, Locking::Ignore)?;
    if same_file(&file, destination)? {
        return Err(
            Error::usage("is read from and cannot be written to at the same time")
                .with_remedy("write the disk to another file")
                .at_path(destination),
        );
    }
    Ok(())
}

fn partitions(args: &DiskCreateArgs) -> Result<Vec<PartDescription>> {
    let mut partitions = Vec::new();
    let mut push = |place: &str, kind: &str, size, content| -> Result<()> {
        let mut part = PartDescription::new(place, PartDescription::parse_kind(kind)?);
        part.size = size;
        part.content = content;
        partitions.push(part);
        Ok(())
    };
    if args.bios_boot {
        let size = PartSize::Fixed(BIOS_BOOT_SIZE);
        push("--bios-boot", "bios-boot", size, Content::Empty)?;
    }
    if args.esp.is_asked_for() {
        let size = args.esp.efi_size.map(|size| PartSize::Fixed(size.0));
        let content = Content::Fat(fat_content(&args.esp));
        push(
            "the EFI system partition",
            "esp",
            size.unwrap_or_default(),
            content,
        )?;
    }
    if let Some(path) = &args.root {
        let content = Content::Image(ImageContent {
            path: path.clone(),
            format: None,
        });
        push("--root", &args.root_type, PartSize::Rest, content)?;
    }
    Ok(partitions)
}

fn fat_content(args: &EspArgs) -> FatContent {
    let files = args
        .efi
        .iter()
        .map(|(file, path)| (path.clone(), file.clone()));
    FatContent {
        directories: args.efi_dir.clone(),
        files: files.collect(),
        label: Some(args.efi_label.clone()),
        ..FatContent::default()
    }
}

fn target(args: &DiskCreateArgs) -> Result<(TargetOptions, Option<EncoderOptions>)> {
    let list = OptionList::joined(&args.options);
    let format = match args.target_format {
        Some(format) => format,
        None => format_of_name(&args.destination)?,
    };
    let mut qcow2 = Qcow2Options::default();
    list.apply(&mut qcow2)?;
    if list.size()?.is_some() || qcow2.backing.is_some() {
        return Err(
            Error::usage("a disk of parts has no -o size and no backing file")
                .with_remedy("say --size"),
        );
    }
    if format == Format::Raw {
        refuse_qcow2_options(&list)?;
    }
    if let Some(codec) = args.codec {
        record_codec(&mut qcow2, codec, list.value("compression_type"))?;
    }
    let compress = args.compress || args.codec.is_some();
    if compress && format == Format::Raw {
        return Err(Error::usage("a raw image cannot be compressed")
            .with_remedy("write qcow2 with -O qcow2"));
    }
    if args.level.is_some() && !compress {
        return Err(Error::usage("--level without compression").with_remedy("add -c or --codec"));
    }
    let encoding = compress.then_some(EncoderOptions {
        codec: qcow2.compression_type,
        level: args.level,
        window: DeflateWindow::Full,
    });
    if let Some(encoding) = encoding {
        encoding.effective_level()?;
    }
    let target = TargetOptions {
        format,
        qcow2,
        existing: args.existing,
        sync: sync(args.no_sync),
        locking: Locking::Check,
    };
    Ok((target, encoding))
}

fn run_grow(args: &DiskGrowArgs, console: &mut Console<'_>) -> Status {
    let image = InPlace::open(&args.image, &args.write.open_options())?;
    let interrupt = Interrupt::watch()?;
    let request = GrowRequest {
        size: args.size,
        grow_last: args.grow_last,
        alignment: ALIGNMENT,
        threads: args.threads.count(),
    };
    let grown =
        grow(image, &request, interrupt.flag()).map_err(|error| interrupt.failure(error))?;
    if args.report.json() {
        json::print(&mut console.out, &grown)?;
    } else if !args.report.quiet {
        human::disk::grown(&mut console.out, &grown)?;
    }
    Ok(0)
}

fn run_add_esp(args: &DiskAddEspArgs, console: &mut Console<'_>) -> Status {
    if args.esp.efi.is_empty() && args.esp.efi_dir.is_empty() {
        return Err(
            Error::usage("no files are named for the EFI system partition")
                .with_remedy("say --efi FILE=EFI/BOOT/BOOTX64.EFI or --efi-dir DIR")
                .into(),
        );
    }
    let image = InPlace::open(&args.image, &args.write.open_options())?;
    let interrupt = Interrupt::watch()?;
    let request = AddEspRequest {
        content: fat_content(&args.esp),
        size: args.esp.efi_size.map(|size| size.0),
        number: args.number,
        name: "EFI system".to_owned(),
        grow: args.grow,
        alignment: ALIGNMENT,
        threads: args.threads.count(),
    };
    let added =
        add_esp(image, &request, interrupt.flag()).map_err(|error| interrupt.failure(error))?;
    if args.report.json() {
        json::print(&mut console.out, &added)?;
    } else if !args.report.quiet {
        human::disk::added(&mut console.out, &added)?;
    }
    Ok(0)
}
