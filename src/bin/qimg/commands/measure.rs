//! `qimg measure`.

use qimg::image::measure::{Measurement, Subject, measure};
use qimg::image::options::Qcow2Options;
use qimg::image::{Depth, Format, Image};
use qimg::{Error, Result};

use super::{Status, refuse_qcow2_options};
use crate::args::{MeasureArgs, OptionList};
use crate::render::{Console, human, json};

pub(super) fn run(args: &MeasureArgs, console: &mut Console<'_>) -> Status {
    let measurement = measurement(args)?;
    if args.report.json() {
        json::print(&mut console.out, &measurement)?;
    } else {
        human::measure::print(&mut console.out, &measurement)?;
    }
    Ok(0)
}

fn measurement(args: &MeasureArgs) -> Result<Measurement> {
    let list = OptionList::joined(&args.options);
    let mut options = Qcow2Options::default();
    list.apply(&mut options)?;
    if args.target_format == Format::Raw {
        refuse_qcow2_options(&list)?;
    }
    let size = match (args.size, list.size()?) {
        (Some(_), Some(_)) => return Err(Error::usage("the size is given twice")),
        (size, option) => size.map(|size| size.0).or(option),
    };
    match (&args.file, size) {
        (Some(file), _) => {
            let image = Image::open(file, &args.input.open_options())?;
            let chain = image.chain(Depth::Chain, args.snapshot.as_deref())?;
            let subject = Subject::Contents {
                image: &image,
                chain: &chain,
            };
            measure(subject, args.target_format, &options)
        }
        (None, Some(size)) => measure(Subject::Size(size), args.target_format, &options),
        (None, None) => Err(Error::usage("nothing to measure")
            .with_remedy("name an image, or give a size with --size")),
    }
}
