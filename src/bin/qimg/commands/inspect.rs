//! `qimg inspect`.

use qimg::image::{Depth, Image};
use qimg::inspect::inspect;
use qimg::survey::SurveyRequest;
use qimg::usage::usage;
use qimg::volume::Volume;

use super::Status;
use crate::args::InspectArgs;
use crate::render::{Console, human, json, svg};
use crate::signals::Interrupt;

/// Cells of the picture: a grid of 64 by 32.
const CELLS: usize = 2048;

pub(super) fn run(args: &InspectArgs, console: &mut Console<'_>) -> Status {
    let image = Image::open(&args.image, &args.input.open_options())?;
    let chain = image.chain(Depth::Chain, args.snapshot.as_deref())?;
    if let Some(path) = &args.svg {
        chain
            .refuse_destination(path)
            .map_err(|error| error.with_remedy("write the picture to another file"))?;
    }
    let disk = Volume::whole(&chain);
    let request = SurveyRequest {
        replay_journal: args.replay_journal,
        vm_state: image.has_vm_state(),
        ..SurveyRequest::default()
    };
    let inspection = inspect(&disk, &request).map_err(|error| error.at_path(image.path()))?;
    if let Some(path) = &args.svg {
        let interrupt = Interrupt::watch()?;
        let usage = usage(&chain, &inspection.survey, CELLS, interrupt.flag())
            .map_err(|error| interrupt.failure(error))?;
        let title = args.image.to_string_lossy();
        let picture = svg::picture(&title, &usage, &inspection.survey);
        qimg::store::write_file(path, picture.as_bytes())?;
    }
    if args.report.json() {
        json::print(&mut console.out, &inspection)?;
    } else if !args.report.quiet {
        human::inspect::print(&mut console.out, &args.image, &inspection)?;
    }
    Ok(0)
}
