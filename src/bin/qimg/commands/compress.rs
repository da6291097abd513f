//! `qimg compress`.

use std::time::Instant;

use qimg::Error;
use qimg::codec::DeflateWindow;
use qimg::compress::{CompressRequest, Effort, compress, dry_run};
use qimg::image::Image;

use super::free_space::{self, FreeSpace};
use super::{Status, progress_wish, sync};
use crate::args::{CompressArgs, ProgressMode, Window};
use crate::render::progress::Meter;
use crate::render::{Console, human, json};
use crate::signals::Interrupt;

pub(super) fn run(
    args: &CompressArgs,
    mode: Option<ProgressMode>,
    console: &mut Console<'_>,
) -> Status {
    if args.destination.is_none() && !args.in_place && !args.dry_run {
        let error = Error::usage("the destination is missing");
        return Err(error
            .with_remedy("name it, or say --in-place or --dry-run")
            .into());
    }
    let source = Image::open(&args.source, &args.input.open_options())?;
    let interrupt = Interrupt::watch()?;
    let started = Instant::now();
    let free_space = free_space::read(&source, None, &args.free_space, args.exact)?;
    let request = resolve(args, &source, &free_space);
    let quiet = args.report.quiet;
    let mut meter = Meter::new(
        console,
        "compress",
        progress_wish(mode, args.progress, quiet),
    );
    let work = if args.dry_run { dry_run } else { compress };
    let compressed = work(&request, interrupt.flag(), &mut |step, total| {
        meter.update(step.stats.stored_bytes, total);
    })
    .map_err(|error| interrupt.failure(error))?;
    meter.finish();
    let report = human::compress::Report {
        source: args.source.to_string_lossy(),
        destination: args
            .destination
            .as_deref()
            .map(|path| path.to_string_lossy()),
        dry_run: args.dry_run,
        free_space: free_space.report(),
        compressed,
        seconds: started.elapsed().as_secs_f64(),
    };
    if args.report.json() {
        json::print(&mut console.out, &report)?;
    } else if !quiet {
        report.print(&mut console.out)?;
    }
    Ok(0)
}

fn resolve<'a>(
    args: &'a CompressArgs,
    source: &'a Image,
    free_space: &'a FreeSpace,
) -> CompressRequest<'a> {
    CompressRequest {
        source,
        free: free_space.survey().map(|survey| &survey.free),
        destination: args.destination.as_deref(),
        codec: args.codec,
        effort: match (args.best, args.level) {
            (true, _) => Effort::Best,
            (false, Some(level)) => Effort::Level(level),
            (false, None) => Effort::Default,
        },
        window: args.window.map(|window| match window {
            Window::Full => DeflateWindow::Full,
            Window::FourKiB => DeflateWindow::FourKiB,
        }),
        cluster_size: args.cluster_size.map(|size| size.0),
        flatten: args.flatten,
        drop_snapshots: args.drop_snapshots,
        drop_bitmaps: args.drop_bitmaps,
        existing: args.existing,
        threads: args.threads.count(),
        sync: sync(args.no_sync),
    }
}
