//! `qimg resize`.

use qimg::image::InPlace;
use qimg::resize::{ResizeRequest, resize};

use super::Status;
use crate::args::ResizeArgs;
use crate::render::{Console, human, json};
use crate::signals::Interrupt;

pub(super) fn run(args: &ResizeArgs, console: &mut Console<'_>) -> Status {
    let image = InPlace::open(&args.image, &args.write.open_options())?;
    let interrupt = Interrupt::watch()?;
    let request = ResizeRequest {
        size: args.size,
        shrink: args.shrink,
        threads: args.threads.count(),
    };
    let resized =
        resize(image, &request, interrupt.flag()).map_err(|error| interrupt.failure(error))?;
    if args.report.json() {
        json::print(&mut console.out, &resized)?;
    } else if !args.report.quiet {
        human::disk::resized(&mut console.out, &resized)?;
    }
    Ok(0)
}
