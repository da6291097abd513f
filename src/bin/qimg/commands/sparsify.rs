//! `qimg sparsify`.

use std::time::Instant;

use qimg::free::FreeMap;
use qimg::image::InPlace;
use qimg::sparsify::{SparsifyRequest, sparsify};

use super::{Status, free_space, progress_wish, sync};
use crate::args::{ProgressMode, SparsifyArgs};
use crate::render::progress::Meter;
use crate::render::{Console, human, json};
use crate::signals::Interrupt;

pub(super) fn run(
    args: &SparsifyArgs,
    mode: Option<ProgressMode>,
    console: &mut Console<'_>,
) -> Status {
    let image = InPlace::open(&args.image, &args.open_options())?;
    let interrupt = Interrupt::watch()?;
    let started = Instant::now();
    let free_space = free_space::read(image.image(), None, &args.free_space, args.exact)?;
    let nothing = FreeMap::default();
    let request = SparsifyRequest {
        free: free_space.survey().map_or(&nothing, |survey| &survey.free),
        zeros: !args.keep_zeros,
        dry_run: args.dry_run,
        threads: args.threads.count(),
        sync: sync(args.no_sync),
    };
    let quiet = args.report.quiet;
    let mut meter = Meter::new(
        console,
        "sparsify",
        progress_wish(mode, args.progress, quiet),
    );
    let sparsified = sparsify(image, &request, interrupt.flag(), &mut |step| {
        meter.update(step.guest, step.total);
    })
    .map_err(|error| interrupt.failure(error))?;
    meter.finish();
    let report = human::sparsify::Report {
        image: args.image.to_string_lossy(),
        dry_run: args.dry_run,
        free_space: free_space.report(),
        sparsified,
        seconds: started.elapsed().as_secs_f64(),
    };
    if args.report.json() {
        json::print(&mut console.out, &report)?;
    } else if !quiet {
        report.print(&mut console.out)?;
    }
    Ok(0)
}
