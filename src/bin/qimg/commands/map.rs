//! `qimg map`.

use qimg::image::{BackingPolicy, Chain, Depth, Image, map};
use qimg::survey::{Survey, SurveyRequest, survey};
use qimg::units::ByteSize;
use qimg::usage::usage;
use qimg::volume::Volume;
use qimg::{Error, ErrorKind};

use super::{Failure, Status};
use crate::args::MapArgs;
use crate::render::{Console, human, json};
use crate::signals::Interrupt;

pub(super) fn run(args: &MapArgs, console: &mut Console<'_>) -> Status {
    let image = Image::open(&args.file, &args.input.open_options())?;
    // What may not be opened is not followed: where this image stores its own data can be told all the same.
    let depth = match args.input.backing {
        BackingPolicy::Deny => Depth::Top,
        _ => Depth::Chain,
    };
    let chain = image.chain(depth, None)?;
    if args.usage {
        return usage_of(args, &image, &chain, console);
    }
    let start = args.start_offset.map_or(0, |ByteSize(start)| start);
    let end = args
        .max_length
        .map_or(u64::MAX, |ByteSize(length)| start.saturating_add(length));
    let mut table = human::map::Table::new(&mut console.out, &chain, args.report.json())?;
    let mut printed = Ok(());
    let walked = map(&chain, start..end, &mut |entry| {
        printed = table.entry(&entry);
        // Nobody reads any more, or nothing can be printed: no reason to read on.
        match printed {
            Ok(()) if !table.is_closed() => Ok(()),
            _ => Err(Error::cancelled()),
        }
    });
    printed?;
    match walked {
        Err(error) if error.kind() != ErrorKind::Cancelled => Err(Failure::from(error)),
        _ => {
            table.end()?;
            Ok(0)
        }
    }
}

/// The picture of the disk.
fn usage_of(args: &MapArgs, image: &Image, chain: &Chain, console: &mut Console<'_>) -> Status {
    let request = SurveyRequest {
        vm_state: image.has_vm_state(),
        ..SurveyRequest::default()
    };
    // Filesystems are not read where a part of them lies in a file that may not be opened.
    let whole = !chain.is_partial();
    let disk = Volume::whole(chain);
    let survey = if whole {
        survey(&disk, &request).map_err(|error| error.at_path(image.path()))?
    } else {
        Survey::of_nothing(disk.size())
    };
    let interrupt = Interrupt::watch()?;
    let usage = usage(chain, &survey, human::usage::CELLS, interrupt.flag())
        .map_err(|error| interrupt.failure(error))?;
    if args.report.json() {
        json::print(&mut console.out, &usage)?;
    } else if !args.report.quiet {
        let colours = console.colours;
        human::usage::print(&mut console.out, &usage, colours)?;
    }
    Ok(0)
}
