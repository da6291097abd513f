//! `qimg create`.

use qimg::create::{CreateRequest, create};
use qimg::image::options::Qcow2Options;
use qimg::image::{Format, TargetOptions};
use qimg::store::{Locking, Sync};
use qimg::{Error, Result};

use super::Status;
use crate::args::{CreateArgs, OptionList};
use crate::render::{Console, human, json};

pub(super) fn run(args: &CreateArgs, console: &mut Console<'_>) -> Status {
    let list = OptionList::joined(&args.options);
    if list.asks_for_help() {
        human::create::options(&mut console.out)?;
        return Ok(0);
    }
    let request = resolve(args, &list)?;
    let created = create(&request)?;
    if args.json {
        json::print(
            &mut console.out,
            &human::create::Report::new(&request, &created),
        )?;
    } else if !args.quiet {
        human::create::line(&mut console.out, &request, &created, &list)?;
    }
    Ok(0)
}

fn resolve(args: &CreateArgs, list: &OptionList) -> Result<CreateRequest> {
    let mut qcow2 = Qcow2Options::default();
    list.apply(&mut qcow2)?;
    if let (Some(name), Some(format)) = (&args.backing, &args.backing_format) {
        if qcow2.backing.is_some() {
            return Err(Error::usage("the backing file is given by -b and by -o"));
        }
        qcow2.backing = Some((name.clone(), format.clone()));
    }
    if args.format == Format::Raw {
        super::refuse_qcow2_options(list)?;
    }
    let size = match (args.size, list.size()?) {
        (Some(_), Some(_)) => return Err(Error::usage("the size is given twice")),
        (size, option) => size.map(|size| size.0).or(option),
    };
    Ok(CreateRequest {
        path: args.file.clone(),
        size,
        target: TargetOptions {
            format: args.format,
            qcow2,
            existing: false,
            sync: Sync::Full,
            locking: Locking::Check,
        },
        unchecked_backing: args.unsafe_backing,
    })
}
