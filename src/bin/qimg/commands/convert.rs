//! `qimg convert`.

use qimg::codec::{DeflateWindow, EncoderOptions};
use qimg::convert::Reuse;
use qimg::create::open_backing;
use qimg::image::options::Qcow2Options;
use qimg::image::{Format, Image, TargetOptions};
use qimg::rewrite::{Bitmaps, RewriteRequest, rewrite};
use qimg::store::Locking;
use qimg::{Error, Result};

use super::free_space::{self, FreeSpace};
use super::{Status, progress_wish, record_codec, refuse_qcow2_options, sync};
use crate::args::{Codec, ConvertArgs, OptionList, ProgressMode};
use crate::render::progress::Meter;
use crate::render::{Console, human};
use crate::signals::Interrupt;

pub(super) fn run(
    args: &ConvertArgs,
    mode: Option<ProgressMode>,
    console: &mut Console<'_>,
) -> Status {
    let (target, encoding) = target(args)?;
    if let Some((name, format)) = &target.qcow2.backing {
        // Not to make what nobody can open; the user has named it, no image.
        open_backing(&args.destination, name, format).map_err(|error| {
            error.with_remedy(
                "its name counts from the new image's directory, and its format is what -F says",
            )
        })?;
    }
    let source = Image::open(&args.source, &args.input.open_options())?;
    let asked = &args.free_space;
    let asked = !asked.keep.is_empty() || !asked.zero.is_empty() || asked.replay_journal;
    if asked && !args.sparsify {
        return Err(
            Error::usage("--keep, --zero and --replay-journal without --sparsify")
                .with_remedy("add --sparsify")
                .into(),
        );
    }
    let free_space = args
        .sparsify
        .then(|| free_space::read(&source, args.snapshot.as_deref(), &args.free_space, false))
        .transpose()?;
    let request = RewriteRequest {
        source: &source,
        snapshot: args.snapshot.as_deref(),
        free: free_space
            .as_ref()
            .and_then(FreeSpace::survey)
            .map(|survey| &survey.free),
        destination: &args.destination,
        overlay: target.qcow2.backing.is_some(),
        target,
        encoding,
        // A level that was asked for is worth nothing if streams of another one stay.
        reuse: if args.level.is_some() {
            Reuse::KeepSmaller
        } else {
            Reuse::Copy
        },
        bitmaps: match (args.bitmaps, args.skip_broken_bitmaps) {
            (false, _) => Bitmaps::Leave,
            (true, false) => Bitmaps::Copy,
            (true, true) => Bitmaps::SkipBroken,
        },
        sparse: usize::try_from(args.sparse.0)
            .map_err(|_| Error::usage("-S: this size is too large"))?,
        in_place: false,
        threads: args.thread_count(),
    };
    let interrupt = Interrupt::watch()?;
    let mut meter = Meter::new(
        console,
        "convert",
        progress_wish(mode, args.progress, args.quiet),
    );
    rewrite(&request, interrupt.flag(), &mut |step, total| {
        meter.update(step.stats.stored_bytes, total);
    })
    .map_err(|error| interrupt.failure(error))?;
    meter.finish();
    if let Some(free_space) = free_space
        && !args.quiet
    {
        human::parts::free_space(&mut console.out, &free_space.report(), false)?;
    }
    Ok(0)
}

fn target(args: &ConvertArgs) -> Result<(TargetOptions, Option<EncoderOptions>)> {
    let list = OptionList::joined(&args.options);
    let format = args.target_format()?;
    let mut qcow2 = Qcow2Options::default();
    list.apply(&mut qcow2)?;
    if list.size()?.is_some() {
        return Err(
            Error::usage("convert keeps the size of the disk").with_remedy("leave out -o size")
        );
    }
    if format == Format::Raw {
        refuse_qcow2_options(&list)?;
    }
    // The codec is compared with the target's.
    let of_no_effect = list.keys().find(|key| *key != "compression_type");
    if let (true, Some(key)) = (args.existing, of_no_effect) {
        return Err(Error::usage(format!(
            "-o {key} has no effect on an image that is there, which -n writes into"
        ))
        .with_remedy(format!("leave out -o {key}, or -n")));
    }
    if let (Some(name), Some(format)) = (&args.target_backing, &args.backing_format) {
        qcow2.backing = Some((name.clone(), format.clone()));
    }
    let compress = match args.codec {
        None => args.compress,
        Some(Codec::None) if args.compress => {
            return Err(Error::usage("-c and --codec none contradict each other"));
        }
        Some(Codec::None) => false,
        Some(Codec::Use(codec)) => {
            record_codec(&mut qcow2, codec, list.value("compression_type"))?;
            true
        }
    };
    if args.level.is_some() && !compress {
        return Err(Error::usage("--level without compression").with_remedy("add -c or --codec"));
    }
    let encoding = compress.then_some(EncoderOptions {
        codec: qcow2.compression_type,
        level: args.level,
        window: DeflateWindow::Full,
    });
    if let Some(encoding) = encoding {
        encoding.effective_level()?;
    }
    let target = TargetOptions {
        format,
        qcow2,
        existing: args.existing,
        sync: sync(args.no_sync),
        locking: Locking::Check,
    };
    Ok((target, encoding))
}
