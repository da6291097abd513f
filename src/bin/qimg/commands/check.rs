//! `qimg check`.

use std::sync::Mutex;

use qimg::ErrorKind;
use qimg::image::Image;
use qimg::image::check::{CheckOptions, CheckProgress};

use super::{Failure, Status, progress_wish};
use crate::args::{CheckArgs, ProgressMode};
use crate::render::human::check::Report;
use crate::render::progress::Meter;
use crate::render::{Console, json};
use crate::signals::Interrupt;

const NOTHING_TO_CHECK: u8 = 63;

pub(super) fn run(
    args: &CheckArgs,
    mode: Option<ProgressMode>,
    console: &mut Console<'_>,
) -> Status {
    let image = Image::open(&args.file, &args.input.open_options())?;
    let table_size = image.cluster_size().unwrap_or(0);
    let interrupt = Interrupt::watch()?;
    let quiet = args.report.quiet;
    let meter = Meter::new(console, "check", progress_wish(mode, args.progress, quiet));
    let meter = Mutex::new(meter);
    let progress = |step: CheckProgress| {
        // Whoever is late leaves this step to another thread.
        if let Ok(mut meter) = meter.try_lock() {
            let bytes = |tables: u64| tables.saturating_mul(table_size);
            meter.update(bytes(step.tables), bytes(step.total));
        }
    };
    let checked = image.check(&CheckOptions {
        threads: args.threads.count(),
        cancel: interrupt.flag(),
        progress: Some(&progress),
    });
    let report = checked.map_err(|error| match error.kind() {
        ErrorKind::Unsupported => Failure::new(error, NOTHING_TO_CHECK),
        _ => interrupt.failure(error),
    })?;
    if let Ok(meter) = meter.into_inner() {
        meter.finish();
    }
    let code = report.exit_code();
    let report = Report::new(&image, report);
    // Nobody to tell is no reason to hide the result.
    let _ = report.print_findings(console.err);
    if args.report.json() {
        json::print(&mut console.out, &report)?;
    } else if !quiet {
        report.print(&mut console.out)?;
    }
    Ok(code)
}
