//! `qimg compare`.

use qimg::compare::{CompareOptions, Stage, compare};
use qimg::image::{BackingPolicy, Chain, Depth, Format, Image, OpenOptions};
use qimg::store::Locking;
use qimg::{ErrorKind, Result};

use std::path::Path;

use super::{Failure, Status, progress_wish};
use crate::args::{CompareArgs, ProgressMode};
use crate::render::progress::Meter;
use crate::render::{Console, human, json};
use crate::signals::Interrupt;

const DIFFERENT: u8 = 1;
const CANNOT_OPEN: u8 = 2;
const CANNOT_MAP: u8 = 3;
const CANNOT_READ: u8 = 4;

pub(super) fn run(
    args: &CompareArgs,
    mode: Option<ProgressMode>,
    console: &mut Console<'_>,
) -> Status {
    let locking = if args.force_share {
        Locking::Ignore
    } else {
        Locking::Check
    };
    let side = |path, format| {
        open(path, format, args.backing, locking).map_err(|error| Failure::new(error, CANNOT_OPEN))
    };
    let first = side(&args.first, args.format)?;
    let second = side(&args.second, args.second_format)?;
    let interrupt = Interrupt::watch()?;
    let options = CompareOptions {
        threads: args.threads.count(),
        strict: args.strict,
        all: args.all,
        cancel: interrupt.flag(),
    };
    let mut meter = Meter::new(
        console,
        "compare",
        progress_wish(mode, args.progress, args.quiet),
    );
    let comparison = compare(&first, &second, &options, &mut |step| {
        meter.update(step.guest, step.total);
    })
    .map_err(|failure| match (failure.error.kind(), failure.stage) {
        (ErrorKind::Cancelled, _) => interrupt.failure(failure.error),
        (_, Some(Stage::Map)) => Failure::new(failure.error, CANNOT_MAP),
        _ => Failure::new(failure.error, CANNOT_READ),
    })?;
    meter.finish();
    let report = human::compare::Report::new(comparison, args.strict, args.all);
    if args.json {
        json::print(&mut console.out, &report)?;
    } else if !args.quiet {
        report.print(&mut console.out)?;
    }
    Ok(if report.identical { 0 } else { DIFFERENT })
}

fn open(
    path: &Path,
    format: Option<Format>,
    backing: BackingPolicy,
    locking: Locking,
) -> Result<Chain> {
    let options = OpenOptions {
        format,
        backing,
        locking,
    };
    Image::open(path, &options)?.chain(Depth::Chain, None)
}
