//! `qimg info`.

use qimg::image::{Image, backing_chain_info};

use super::Status;
use crate::args::InfoArgs;
use crate::render::human::info::Report;
use crate::render::{Console, human, json};
use crate::signals::Interrupt;

pub(super) fn run(args: &InfoArgs, console: &mut Console<'_>) -> Status {
    let image = Image::open(&args.file, &args.input.open_options())?;
    let infos = if args.backing_chain {
        backing_chain_info(&image)?
    } else {
        vec![image.info()?]
    };
    let mut reports: Vec<Report> = infos.into_iter().map(Report::from).collect();
    if args.clusters {
        let interrupt = Interrupt::watch()?;
        let census = image.census(args.threads.count(), interrupt.flag());
        reports[0].clusters = Some(census.map_err(|error| interrupt.failure(error))?);
    }
    match (args.report.json(), args.backing_chain) {
        (true, true) => json::print(&mut console.out, &reports)?,
        (true, false) => json::print(&mut console.out, &reports[0])?,
        (false, _) => human::info::images(&mut console.out, &reports)?,
    }
    Ok(0)
}
