//! `qimg info`.

use qimg::Result;
use qimg::extent::ExtentKind;
use qimg::image::{Depth, Image, backing_chain_info};
use qimg::source::Source;

use super::Status;
use crate::args::InfoArgs;
use crate::render::human::info::{Contents, Report};
use crate::render::{Console, human, json};

pub(super) fn run(args: &InfoArgs, console: &mut Console<'_>) -> Status {
    let image = Image::open(&args.file, &args.input.open_options())?;
    let infos = if args.backing_chain {
        backing_chain_info(&image)?
    } else {
        vec![image.info()?]
    };
    let mut reports: Vec<Report> = infos.into_iter().map(Report::from).collect();
    if args.clusters {
        reports[0].contents = Some(contents(&image)?);
    }
    match (args.report.json(), args.backing_chain) {
        (true, true) => json::print(&mut console.out, &reports)?,
        (true, false) => json::print(&mut console.out, &reports[0])?,
        (false, _) => human::info::images(&mut console.out, &reports)?,
    }
    Ok(0)
}

/// Sums up the image's own layer; what is behind it counts as unallocated.
fn contents(image: &Image) -> Result<Contents> {
    let chain = image.chain(Depth::Top, None)?;
    let end = chain.virtual_size();
    let mut contents = Contents::default();
    let mut at = 0;
    while at < end {
        let extent = chain.extent_at(at..end)?;
        let sum = match extent.kind {
            ExtentKind::Data => &mut contents.data,
            ExtentKind::Compressed(_) => &mut contents.compressed,
            ExtentKind::Zero => &mut contents.zero,
            ExtentKind::Unallocated => &mut contents.unallocated,
        };
        *sum += extent.length;
        at = extent.end();
    }
    Ok(contents)
}
