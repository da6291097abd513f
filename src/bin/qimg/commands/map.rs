//! `qimg map`.

use qimg::image::{BackingPolicy, Depth, Image, map};
use qimg::units::ByteSize;
use qimg::{Error, ErrorKind};

use super::{Failure, Status};
use crate::args::MapArgs;
use crate::render::{Console, human};

pub(super) fn run(args: &MapArgs, console: &mut Console<'_>) -> Status {
    let image = Image::open(&args.file, &args.input.open_options())?;
    // What may not be opened is not followed: where this image stores its own data can be told all the same.
    let depth = match args.input.backing {
        BackingPolicy::Deny => Depth::Top,
        _ => Depth::Chain,
    };
    let chain = image.chain(depth, None)?;
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
